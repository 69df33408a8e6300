"""Command line: ``python -m melanoma_lib COMMAND``; every setting is a flag, an environment variable or a line of ``.env``."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from melanoma_lib import __version__
from melanoma_lib.commands import (
    app,
    bench,
    card,
    compare,
    costs,
    data_audit,
    data_fetch,
    doctor,
    evaluate,
    explain,
    export,
    notebooks_check,
    notebooks_exercises,
    notebooks_handout,
    notebooks_refresh,
    notebooks_run,
    notebooks_sweep,
    slides_build,
    train,
)
from melanoma_lib.errors import KitError
from melanoma_lib.settings import Settings
from melanoma_lib.study_commands import (
    study_folds,
    study_heatmaps,
    study_ingredients,
    study_league,
    study_selfsupervised,
    study_sources,
    study_travel,
)

DATA_FIELDS = ("data_dir", "image_dirs", "n_patients", "data_seed", "image_size", "seed", "progress")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="python -m melanoma_lib",
        description="Melanoma detection from dermoscopy and metadata: teaching and analysis. Educational, never a diagnosis.",
    )
    parser.add_argument("--version", action="version", version=f"melanoma_lib {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    training = _command(
        commands, "train", train, "train a model, or all folds of a cross-validation: a run directory", settings=True
    )
    _add_workers(training, "folds")

    evaluation = _command(commands, "evaluate", evaluate, "report on a run: table, JSON and figures")
    evaluation.add_argument("run", nargs="?", type=Path, help="run directory; default: the latest")
    evaluation.add_argument("--tta", action="store_true", help="average the eight flips and turns of each image")
    _add_settings(evaluation, ["runs_dir"])

    comparison = _command(commands, "compare", compare, "ablation table over runs: gain of each branch, with its interval")
    comparison.add_argument("runs", nargs="+", type=Path, help="run directories")
    comparison.add_argument("--out", type=Path, help="also write the table as JSON here")

    looking = _command(commands, "explain", explain, "heatmaps of cases, or the league of all heatmaps against controls")
    looking.add_argument("run", nargs="?", type=Path, help="run directory; default: the latest")
    looking.add_argument("--image-id", nargs="+", metavar="ID", help="tested cases; default: the melanoma of median risk")
    looking.add_argument("--layers", nargs="+", metavar="LAYER", help="default: all")
    looking.add_argument("--method", nargs="+", metavar="METHOD", help="default: gradcam; of a league, all but the slow two")
    looking.add_argument(
        "--league", type=int, metavar="N", help="grade all maps on N tested cases with masks; resumes where it stopped"
    )
    looking.add_argument("--out", type=Path, help="folder of figures, table and JSON (default reports/explain/RUN)")
    _add_settings(looking, ["runs_dir", "progress"])

    data = commands.add_parser("data", help="fetch or audit a data source").add_subparsers(dest="what", required=True)
    for name, action, text in (
        ("fetch", data_fetch, "download a source, licence and citation first"),
        ("audit", data_audit, "counts, missing values, leakage and duplicates of a source"),
    ):
        part = _command(data, name, action, text)
        part.add_argument("source_name", metavar="SOURCE", help="synthetic, ham10000, isic2019, isic2020 or isic_archive")
        _add_settings(part, DATA_FIELDS)
        if name == "fetch":
            part.add_argument("--collection", help="isic_archive: name of the collection, such as BCN20000")

    carding = _command(commands, "card", card, "write a run's model card, with the CLAIM 2024 and TRIPOD+AI checklists")
    carding.add_argument("run", nargs="?", type=Path, help="run directory; default: the latest")
    carding.add_argument("--league", type=Path, help="league.json of its heatmaps (default: the one in the run directory)")
    carding.add_argument("--check", action="store_true", help="write nothing; tell how the card there differs from the run")
    _add_settings(carding, ["runs_dir"])

    exporting = _command(commands, "export", export, "write a run's model as one file that runs without the kit's trainer")
    exporting.add_argument("run", nargs="?", type=Path, help="run directory; default: the latest")
    exporting.add_argument("--format", choices=["onnx", "torchscript", "pt2"], default="onnx", help="default onnx")
    exporting.add_argument("--int8", action="store_true", help="eight-bit onnx; prints what it costs on the test split")
    exporting.add_argument("--tta", action="store_true", help="add calibration and threshold of eight averaged views")
    exporting.add_argument("--out", type=Path, help="file to write (default model.onnx, ... in the run directory)")
    _add_settings(exporting, ["runs_dir"])

    serving = _command(commands, "app", app, "serve a run as a page on this machine: risk, decision, heatmap (not for diagnosis)")
    serving.add_argument("run", nargs="?", type=Path, help="run directory; default: the latest")
    serving.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine alone)")
    serving.add_argument("--port", type=int, default=7860, help="default 7860")
    serving.add_argument("--backend", choices=["torch", "onnx"], default="torch", help="onnx: the exported file (default torch)")
    _add_settings(serving, ["run_dir", "runs_dir"])

    lessons = commands.add_parser("notebooks", help="run, check, refresh or sweep the lessons")
    parts = lessons.add_subparsers(dest="what", required=True)
    for name, action, text in (
        ("run", notebooks_run, "execute lessons; leaves each as a notebook and an HTML page"),
        ("check", notebooks_check, "hold committed lessons to their contract"),
        ("refresh", notebooks_refresh, "execute lessons in a fresh kernel and renew their committed outputs"),
        ("handout", notebooks_handout, "execute lessons and leave each as one offline page with live explorers, and as a PDF"),
        ("exercises", notebooks_exercises, "write the student copies of lessons, with stubs for solutions"),
        ("sweep", notebooks_sweep, "run one lesson over a grid of parameters and compare the runs; resumes where it stopped"),
    ):
        part = _command(parts, name, action, text)
        if name == "sweep":
            part.add_argument("name", metavar="NAME", help="lesson, such as 03_training")
            part.add_argument("--over", nargs="+", required=True, metavar="NAME=V,V", help="values to sweep, such as seed=0,1,2")
            _add_workers(part, "points")
        else:
            part.add_argument("names", nargs="*", metavar="NAME", help="lessons, such as 03_training or 03; default: all")
        if name in ("run", "sweep", "handout"):
            kept = Path("reports") / {"run": "", "sweep": "sweep", "handout": "handouts"}[name]
            part.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                              help="value of a notebook parameter; may be repeated")  # fmt: skip
            part.add_argument("--out", type=Path, default=kept, help=f"where results go (default {kept})")

    decks = commands.add_parser("slides", help="fill the slide decks from a run and render them").add_subparsers(
        dest="what", required=True
    )
    building = _command(decks, "build", slides_build, "fill decks from a run; render each as HTML and PDF, offline")
    building.add_argument("names", nargs="*", metavar="NAME", help="decks, such as 03_training or 03; default: all")
    building.add_argument("--run-dir", type=Path, help="run to fill them from (default: the one that lesson 00 trains)")
    building.add_argument("--out", type=Path, default=Path("reports/slides"), help="folder (default reports/slides)")
    building.add_argument("--markdown", action="store_true", help="write the filled Markdown and figures alone, without Marp")

    studies = commands.add_parser("study", help="measure what a claim needs; each leaves a table in docs/results")
    studying = studies.add_subparsers(dest="what", required=True)
    gathered = _command(studying, "folds", study_folds, "what a cross-validation says, as a table to quote")
    gathered.add_argument("run", type=Path, help="run of train --folds")
    gathered.add_argument("--tta", action="store_true", help="also average the eight flips and turns of each image")
    sources = _command(studying, "sources", study_sources, "train without one camera's pictures, test on them", settings=True)
    sources.add_argument("--parts", nargs="+", default=(), metavar="PART", help="train these parts alone, write no table")
    sending = _command(studying, "travel", study_travel, "test runs on ISIC 2020, by source and skin tone, under artefacts")
    sending.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="runs of one recipe, or a cross-validation")
    sending.add_argument(
        "--metadata", nargs="+", type=Path, default=(), metavar="RUN", help="runs of metadata alone to gain over"
    )
    sending.add_argument("--data-dir-2020", type=Path, default=Path("data/isic2020"), help="ISIC 2020 (default data/isic2020)")
    sending.add_argument("--stressed", type=int, default=150, help="melanomas, and others, to paste artefacts on (default 150)")
    _add_settings(sending, ["data_dir", "cache_dir", "n_resamples", "seed"])

    comparing = _command(studying, "league", study_league, "compare backbones and baselines on the same cases", settings=True)
    comparing.add_argument("--plan", action="store_true", help="train nothing; print the command of each training")
    comparing.add_argument("--run", nargs="+", type=Path, default=[], help="finished runs on the same test cases, to compare too")
    comparing.add_argument("--frozen-size", type=int, default=128, help="image size of the frozen features (default 128)")
    comparing.add_argument("--out", type=Path, help="folder of league.json and its figure (default docs/results)")

    grading = _command(studying, "heatmaps", study_heatmaps, "grade all heatmaps of a run against controls")
    grading.add_argument("run", type=Path, help="run directory; its league is kept, and taken up, in reports/explain/RUN")
    grading.add_argument("--cases", type=int, default=500, help="tested cases with masks (default 500)")
    grading.add_argument("--out", type=Path, help="folder of heatmaps.json and its figure (default docs/results)")

    recipe = _command(studying, "ingredients", study_ingredients, "what each ingredient of the recipe gives", settings=True)
    recipe.add_argument("--parts", nargs="+", default=(), metavar="PART", help="train these parts alone, write no table")
    recipe.add_argument("--finished", action="store_true", help="train nothing; compare what is there")
    start = _command(studying, "selfsupervised", study_selfsupervised, "a warm start from unlabelled images", settings=True)
    start.add_argument("--epochs", type=int, default=8, help="passes over the unlabelled images (default 8)")

    _command(commands, "doctor", doctor, "check packages, weights, data, disk; each finding with its cure")

    cost = _command(commands, "costs", costs, "time an image that finished runs took, and what a larger archive would take")
    cost.add_argument("runs", nargs="+", type=Path, help="run directories of one recipe and machine")
    cost.add_argument("--images", type=int, default=401_059, help="images of the larger archive (default 401059: ISIC 2024)")

    benchmark = _command(commands, "bench", bench, "measure speed against named peers, taking turns", settings=True)
    benchmark.add_argument("what", choices=["training", "loading", "thresholds", "heatmaps", "inference"])
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors a user can mend are printed without a traceback.

    Args:
        arguments: words of the command line, without the program's name.

    Returns:
        Exit status: 0 done, 1 an error explained on standard error, 2 wrong usage.
    """
    rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))  # of the processes of one training the first reports
    level = logging.INFO if rank == "0" else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    parsed = build_parser().parse_args(arguments)
    try:
        return parsed.action(parsed) or 0
    except (KitError, OSError) as error:  # an OSError names its file: no space, no permission, no such folder
        print(f"error: {error}", file=sys.stderr)
        return 1


def _command(commands, name: str, action: Callable, text: str, settings: bool = False) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(action=action)
    if settings:
        _add_settings(parser, list(Settings.model_fields))
    return parser


def _add_workers(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--jobs", type=int, default=1, help=f"{what} at a time (default 1)")
    parser.add_argument("--backend", choices=["loky", "threading", "dask"], default="loky",
                        help=f"joblib backend for {what} (default loky)")  # fmt: skip
    parser.add_argument("--scheduler", help="dask: address of a running scheduler; default: a cluster on this machine")


def _add_settings(parser: argparse.ArgumentParser, names: Iterable[str]) -> None:
    for name in names:
        field = Settings.model_fields[name]
        is_switch = field.annotation is bool
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            dest=f"setting_{name}",
            metavar="yes|no" if is_switch else name.upper(),
            default=argparse.SUPPRESS,
            help=f"{field.description} (default {field.default})",
            **({"nargs": "?", "const": "yes"} if is_switch else {}),
        )


if __name__ == "__main__":
    sys.exit(main())
