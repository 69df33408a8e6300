"""What each command of the command line does; the parser that reads its words is in ``__main__``."""

import argparse
import os
import re
from collections.abc import Sequence

from melanoma_lib.errors import ExportError, KitError, LessonError
from melanoma_lib.settings import Settings


def train(arguments: argparse.Namespace) -> None:
    """Train one run, or all folds of one."""
    settings = settings_of(arguments)  # first, so that a typo is told before the slow imports
    if settings.folds and not settings.fold:
        from melanoma_lib.folds import cross_validate, workers

        with workers(arguments.backend, arguments.jobs, arguments.scheduler):
            run = cross_validate(settings, arguments.jobs)
    else:
        from melanoma_lib.run_writer import RunWriter
        from melanoma_lib.training import train as train_run

        writer = RunWriter(settings)
        if writer.is_finished and settings.resume:  # lessons take the run in --run-dir as it is; who trains means these settings
            writer.require_same_settings(writer.path)
        run = train_run(settings)
    print(f"finished {run.path}; next: python -m melanoma_lib evaluate {run.path}")


def evaluate(arguments: argparse.Namespace) -> None:
    """Report on one run."""
    from melanoma_lib.reports import evaluate_run
    from melanoma_lib.runs import Run

    run = Run(arguments.run) if arguments.run else Run.latest(settings_of(arguments).runs_dir)
    report = evaluate_run(run, tta=arguments.tta)
    print(report.text)
    print(f"written to {report.folder}")


def compare(arguments: argparse.Namespace) -> None:
    """Compare runs that differ in their branches, over seeds."""
    from melanoma_lib.reports import ablation_table
    from melanoma_lib.runs import Run

    print(ablation_table([Run(path) for path in arguments.runs], arguments.out))


def explain(arguments: argparse.Namespace) -> None:
    """Draw heatmaps of cases, or grade all heatmaps of a run."""
    import pandas as pd

    from melanoma_lib.explain.league import DEFAULT_METHODS
    from melanoma_lib.explain.report import explain_cases, league_report, report_folder
    from melanoma_lib.lessons.start import choose_case, tested_cases
    from melanoma_lib.runs import Run

    settings = settings_of(arguments)
    run = Run(arguments.run) if arguments.run else Run.latest(settings.runs_dir)
    out = arguments.out or report_folder(run)
    try:
        if arguments.league is not None:
            methods = arguments.method or DEFAULT_METHODS
            print(league_report(run, arguments.league, out, arguments.layers, methods, settings.progress))
        else:
            tested = tested_cases(run)
            cases = pd.DataFrame([choose_case(tested, wanted) for wanted in arguments.image_id or [""]])
            explain_cases(run, cases, out, arguments.layers, arguments.method or ["gradcam"])
    except ValueError as error:  # a layer or method that does not exist: what there is, only the model knows
        raise KitError(str(error)) from error
    print(f"written to {out}")


def data_audit(arguments: argparse.Namespace) -> None:
    """Report on a case table, with or without its images."""
    settings = settings_of(arguments, source=arguments.source_name)
    from melanoma_lib.data import audit_cases, load_cases
    from melanoma_lib.data.datamodule import source_root

    cases = load_cases(settings.source, source_root(settings), "keep", settings.image_dirs)
    print(audit_cases(cases, show_progress=settings.progress))


def data_fetch(arguments: argparse.Namespace) -> None:
    """Download a source."""
    from melanoma_lib.data.download import fetch

    settings = settings_of(arguments, source=arguments.source_name)
    print(f"ready in {fetch(settings.source, settings.data_root, arguments.collection)}")


def doctor(arguments: argparse.Namespace) -> int:
    """Check the machine."""
    from melanoma_lib.classroom.doctor import examine

    findings = examine()
    print(findings)
    return 0 if findings.healthy else 1


def notebooks_run(arguments: argparse.Namespace) -> int:
    """Execute lessons."""
    from melanoma_lib.classroom.lesson import find_lessons
    from melanoma_lib.classroom.papermill import run_lessons, summary

    outcomes = run_lessons(find_lessons(arguments.names), arguments.out, _pairs(arguments.parameters))
    print(summary(outcomes))
    print(f"written to {arguments.out}")
    return 0 if all(outcome.ok for outcome in outcomes) else 1


def notebooks_check(arguments: argparse.Namespace) -> int:
    """Hold lessons to their contract."""
    from melanoma_lib.classroom.contract import breaches
    from melanoma_lib.classroom.lesson import find_lessons

    lessons = find_lessons(arguments.names)
    found = [f"{lesson.name}: {breach}" for lesson in lessons for breach in breaches(lesson)]
    print("\n".join(found) or f"{len(lessons)} lessons keep the contract")
    return 1 if found else 0


def notebooks_refresh(arguments: argparse.Namespace) -> None:
    """Execute lessons and commit their outputs to the files; the student copies follow."""
    from melanoma_lib.classroom.lesson import find_lessons
    from melanoma_lib.classroom.papermill import refresh

    for lesson in find_lessons(arguments.names):
        print(f"{lesson.name}: {'changed' if refresh(lesson) else 'as it was'}")
    notebooks_exercises(arguments)


def notebooks_exercises(arguments: argparse.Namespace) -> None:
    """Write the student copies of lessons."""
    from melanoma_lib.classroom.exercises import write_student_copy
    from melanoma_lib.classroom.lesson import find_lessons

    for lesson in find_lessons(arguments.names):
        print(f"student copy: {write_student_copy(lesson)}")


def notebooks_handout(arguments: argparse.Namespace) -> None:
    """Write lessons as handouts."""
    from melanoma_lib.classroom.handout import write_handout
    from melanoma_lib.classroom.lesson import find_lessons

    for lesson in find_lessons(arguments.names):
        made = write_handout(lesson, arguments.out, _pairs(arguments.parameters))
        print(f"{made.page}: explorers that move without Python: {made.n_live}")
        print(made.pdf or "no PDF: no Chromium or Chrome was found; print the page from any browser instead")


def notebooks_sweep(arguments: argparse.Namespace) -> int:
    """Run a lesson over a grid of parameters."""
    from melanoma_lib.classroom.lesson import find_lessons
    from melanoma_lib.classroom.sweep import as_markdown, grid, sweep
    from melanoma_lib.folds import workers

    (lesson,) = find_lessons([arguments.name])
    over = {name: text.split(",") for name, text in _assignments(arguments.over)}
    points = grid(lesson, over, _pairs(arguments.parameters), arguments.out)
    with workers(arguments.backend, arguments.jobs, arguments.scheduler):
        table = sweep(lesson, points, arguments.out, arguments.jobs)
    print(as_markdown(table))
    print(f"written to {arguments.out}; the same command goes on where it stopped")
    return 0 if (table["status"] == "ok").all() else 1


def slides_build(arguments: argparse.Namespace) -> None:
    """Fill slide decks from a run and render them."""
    from melanoma_lib.classroom.deck import find_decks
    from melanoma_lib.classroom.slides import build
    from melanoma_lib.lessons.deck_content import deck_content
    from melanoma_lib.runs import Run
    from melanoma_lib.training import train as train_run

    decks = find_decks(arguments.names)
    if arguments.run_dir:
        run = Run(arguments.run_dir)
    else:  # the run of lesson 00, which is trained where it is missing
        run = train_run(Settings.for_notebook(profile="fast", source="synthetic", seed=0).with_changes(resume=True))
    for path in build(decks, deck_content(run), arguments.out, () if arguments.markdown else ("html", "pdf")):
        print(path)


def export(arguments: argparse.Namespace) -> None:
    """Write a run's model as one file that runs elsewhere."""
    from melanoma_lib.export import export_int8, export_run
    from melanoma_lib.runs import Run

    if arguments.int8 and (arguments.format != "onnx" or arguments.tta):
        raise ExportError("--int8 writes onnx and predicts as the run does; leave --format and --tta out")
    run = Run(arguments.run) if arguments.run else Run.latest(settings_of(arguments).runs_dir)
    if arguments.int8:
        path, cost = export_int8(run, arguments.out)
        print(f"{cost}\nkept in {path.with_suffix('.json')}")
    else:
        path = export_run(run, arguments.format, arguments.out, arguments.tta)
    print(f"written to {path}; educational, not for diagnosis")


def app(arguments: argparse.Namespace) -> None:
    """Serve a run as a page."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # asked when Gradio is imported; nothing is to leave the machine
    settings = settings_of(arguments)
    from melanoma_lib.runs import Run

    named = arguments.run or settings.run_dir
    run = Run(named) if named else Run.latest(settings.runs_dir)
    from melanoma_lib.app import Service, serve

    serve(Service(run, arguments.backend), arguments.host, arguments.port)


def card(arguments: argparse.Namespace) -> int:
    """Write a run's model card, or hold the one there to the run."""
    from melanoma_lib.card import differences, write_card
    from melanoma_lib.runs import Run

    run = Run(arguments.run) if arguments.run else Run.latest(settings_of(arguments).runs_dir)
    if not arguments.check:
        print(f"written to {write_card(run, arguments.league)}")
        return 0
    found = differences(run, arguments.league)
    print("\n".join(found) or f"the card of {run.path} says what the run says")
    return 1 if found else 0


def bench(arguments: argparse.Namespace) -> None:
    """Measure against named peers."""
    from melanoma_lib import bench as benchmarks

    print(getattr(benchmarks, f"bench_{arguments.what}")(settings_of(arguments)))


def costs(arguments: argparse.Namespace) -> None:
    """Say what runs cost and what more images would."""
    from melanoma_lib.bench.costs import cost_of
    from melanoma_lib.runs import Run

    print(cost_of([Run(path) for path in arguments.runs]).report(arguments.images))


def _pairs(given: Sequence[Sequence[str]]) -> dict[str, str]:
    names = [name for name, _ in given]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise LessonError(f"parameter {', '.join(twice)} is given more than once")
    return dict(given)


def _assignments(given: Sequence[str]) -> list[tuple[str, str]]:
    if wrong := [text for text in given if not re.fullmatch(r"\w+=.+", text)]:
        raise LessonError(f"--over expects name=value,value, got {wrong[0]!r}")
    return [(name, values) for name, _, values in (text.partition("=") for text in given)]


def settings_of(arguments: argparse.Namespace, **fixed: str) -> Settings:
    """Settings from the words given, the environment and ``.env``; the fixed ones win."""
    given = {name.removeprefix("setting_"): value for name, value in vars(arguments).items() if name.startswith("setting_")}
    return Settings(**given, **fixed)
