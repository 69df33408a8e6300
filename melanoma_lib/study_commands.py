"""What ``study`` does: each study trains or asks what it needs and leaves a table of figures."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from melanoma_lib.commands import settings_of
from melanoma_lib.errors import StudyError

if TYPE_CHECKING:
    from melanoma_lib.evaluation.canvas import DescribedFigure


def _save_beside(table: Path, figure: "DescribedFigure") -> None:
    """A table's figure, under the table's name, whole or not there."""
    from melanoma_lib.files import replacing

    with replacing(table.with_suffix(".png")) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def study_folds(arguments: argparse.Namespace) -> None:
    """Put what a cross-validation says into a table."""
    from melanoma_lib.runs import Run
    from melanoma_lib.studies.folds_table import folds_markdown, folds_table
    from melanoma_lib.studies.results import save_results

    table = folds_table(Run(arguments.run), arguments.tta)
    print(f"{folds_markdown(table)}\nwritten to {save_results(table)}")


def study_league(arguments: argparse.Namespace) -> None:
    """Compare backbones on the same cases."""
    settings = settings_of(arguments)
    from melanoma_lib.runs import Run
    from melanoma_lib.studies import backbones, backbones_words
    from melanoma_lib.studies.pareto import pareto_figure
    from melanoma_lib.studies.results import save_results

    if arguments.plan:
        print("\n".join(backbones.command_of(wanted) for wanted in backbones.plan(settings).values()))
        return
    finished = [Run(path) for path in arguments.run]
    table = backbones.league(settings, finished=finished, frozen_size=arguments.frozen_size, show=print)
    path = save_results(table, arguments.out)
    figure = pareto_figure(table)
    _save_beside(path, figure)
    print(f"\n{backbones_words.league_report(table)}\n\n{figure.alt_text}\nwritten to {path}")


def study_heatmaps(arguments: argparse.Namespace) -> None:
    """Grade the heatmaps of a run, or take up its league, and put what it says into a table."""
    from melanoma_lib.explain.exam_figure import league_exam_figure
    from melanoma_lib.explain.report import league_report, report_folder
    from melanoma_lib.runs import Run
    from melanoma_lib.studies.heatmaps_table import heatmaps_headline, heatmaps_table
    from melanoma_lib.studies.results import save_results

    run = Run(arguments.run)
    try:
        league = league_report(run, arguments.cases, report_folder(run))
    except ValueError as error:
        raise StudyError(f"--cases: {error}") from error
    table = heatmaps_table(run, league)
    path = save_results(table, arguments.out)
    figure = league_exam_figure(league)
    _save_beside(path, figure)
    print(f"{heatmaps_headline(table)}\n\n{figure.alt_text}\nwritten to {path}")


def study_sources(arguments: argparse.Namespace) -> None:
    """Leave each source out in turn; train what is missing."""
    settings = settings_of(arguments)
    from melanoma_lib.studies.results import save_results
    from melanoma_lib.studies.sources_out import compare_sources, sources_report, train_parts

    runs = train_parts(settings, arguments.parts)
    if arguments.parts:
        print("\n".join(f"{name}: {run.path}" for name, run in runs.items()))
    else:
        table = compare_sources(runs, settings.n_resamples)
        print(f"{sources_report(table)}\nwritten to {save_results(table)}")


def study_travel(arguments: argparse.Namespace) -> None:
    """Test runs on another collection, and at home by source, skin tone and artefact."""
    settings = settings_of(arguments)
    from melanoma_lib.runs import Run
    from melanoma_lib.studies.results import save_results
    from melanoma_lib.studies.travel_table import travel, travel_report

    table = travel(
        [Run(path) for path in arguments.runs],
        arguments.data_dir_2020,
        settings.data_dir,
        settings.cache_dir if "cache_dir" in settings.model_fields_set else None,  # else where the runs keep theirs
        [Run(path) for path in arguments.metadata],
        arguments.stressed,
        settings.n_resamples,
        settings.seed,
        show=print,
    )
    print(f"{travel_report(table)}\nwritten to {save_results(table)}")


def study_ingredients(arguments: argparse.Namespace) -> None:
    """Change one thing of the recipe at a time; train what is missing."""
    settings = settings_of(arguments)
    from melanoma_lib.studies.ingredients import compare_ingredients, finished_parts, train_parts
    from melanoma_lib.studies.ingredients_table import ingredients_report
    from melanoma_lib.studies.results import save_results

    if arguments.finished and arguments.parts:
        raise StudyError(
            "--parts trains some parts and writes no table, --finished trains nothing and writes one; give one of them"
        )
    runs = finished_parts(settings) if arguments.finished else train_parts(settings, arguments.parts)
    if arguments.parts:
        print("\n".join(f"{name}: {run.path}" for name, run in runs.items()))
    else:
        table = compare_ingredients(settings, runs)
        print(f"{ingredients_report(table)}\nwritten to {save_results(table)}")


def study_selfsupervised(arguments: argparse.Namespace) -> None:
    """Pretrain on unlabelled images; say what that is worth, by the share of labels."""
    settings = settings_of(arguments)
    from melanoma_lib.studies.label_efficiency import label_report, study_labels
    from melanoma_lib.studies.results import save_results
    from melanoma_lib.studies.selfsupervised import Pretraining

    table = study_labels(settings, Pretraining.of(settings, epochs=arguments.epochs))
    print(f"{label_report(table)}\nwritten to {save_results(table)}")
