"""Command line: ``python -m melanoma_lib COMMAND``; every setting is a flag, an environment variable or a line of ``.env``."""

import argparse
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from melanoma_lib import __version__
from melanoma_lib.errors import ExportError, KitError, LessonError
from melanoma_lib.settings import Settings

DATA_FIELDS = ("data_dir", "image_dirs", "n_patients", "data_seed", "image_size", "seed", "progress")


def train(arguments: argparse.Namespace) -> int:
    """Train one run, in the processes that torchrun started or that ``--devices`` asks for."""
    settings = _settings(arguments)  # first, so that a typo is told before the slow imports
    from melanoma_lib.processes import ALONE, launch, started_team

    team = started_team()
    if settings.devices > 1 and settings.nodes <= 1 and team == ALONE:
        return launch(settings.devices, arguments.words)
    from melanoma_lib.training import train as train_run

    run = train_run(settings)
    if team.leads:
        print(f"finished {run.path}; next: python -m melanoma_lib evaluate {run.path}")
    return 0


def evaluate(arguments: argparse.Namespace) -> None:
    """Report on one run."""
    from melanoma_lib.reports import evaluate_run
    from melanoma_lib.runs import Run

    run = Run(arguments.run) if arguments.run else Run.latest(_settings(arguments).runs_dir)
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
    from melanoma_lib.explain.report import explain_cases, league_report
    from melanoma_lib.lessons.start import choose_case, tested_cases
    from melanoma_lib.runs import Run

    settings = _settings(arguments)
    run = Run(arguments.run) if arguments.run else Run.latest(settings.runs_dir)
    out = arguments.out or Path("reports") / "explain" / run.path.name
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
    settings = _settings(arguments, source=arguments.source_name)
    from melanoma_lib.data import audit_cases, load_cases
    from melanoma_lib.data.datamodule import source_root

    cases = load_cases(settings.source, source_root(settings), "keep", settings.image_dirs)
    print(audit_cases(cases, show_progress=settings.progress))


def data_fetch(arguments: argparse.Namespace) -> None:
    """Download a source."""
    from melanoma_lib.data.download import fetch

    settings = _settings(arguments, source=arguments.source_name)
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
    from melanoma_lib.classroom.sweep import as_markdown, grid, sweep, workers

    (lesson,) = find_lessons([arguments.name])
    over = {name: text.split(",") for name, text in _assignments(arguments.over)}
    points = grid(lesson, over, _pairs(arguments.parameters), arguments.out)
    with workers(arguments.backend, arguments.jobs, arguments.scheduler):
        table = sweep(lesson, points, arguments.out, arguments.jobs)
    print(as_markdown(table))
    print(f"written to {arguments.out}; the same command goes on where it stopped")
    return 0 if (table["status"] == "ok").all() else 1


def export(arguments: argparse.Namespace) -> None:
    """Write a run's model as one file that runs elsewhere."""
    from melanoma_lib.export import export_int8, export_run
    from melanoma_lib.runs import Run

    if arguments.int8 and (arguments.format != "onnx" or arguments.tta):
        raise ExportError("--int8 writes onnx and predicts as the run does; leave --format and --tta out")
    run = Run(arguments.run) if arguments.run else Run.latest(_settings(arguments).runs_dir)
    if arguments.int8:
        path, cost = export_int8(run, arguments.out)
        print(f"{cost}\nkept in {path.with_suffix('.json')}")
    else:
        path = export_run(run, arguments.format, arguments.out, arguments.tta)
    print(f"written to {path}; educational, not for diagnosis")


def app(arguments: argparse.Namespace) -> None:
    """Serve a run as a page."""
    settings = _settings(arguments)
    from melanoma_lib.runs import Run

    named = arguments.run or settings.run_dir
    run = Run(named) if named else Run.latest(settings.runs_dir)
    from melanoma_lib.app import Service, serve

    serve(Service(run, arguments.backend), arguments.host, arguments.port)


def card(arguments: argparse.Namespace) -> int:
    """Write a run's model card, or hold the one there to the run."""
    from melanoma_lib.card import differences, write_card
    from melanoma_lib.runs import Run

    run = Run(arguments.run) if arguments.run else Run.latest(_settings(arguments).runs_dir)
    if not arguments.check:
        print(f"written to {write_card(run, arguments.league)}")
        return 0
    found = differences(run, arguments.league)
    print("\n".join(found) or f"the card of {run.path} says what the run says")
    return 1 if found else 0


def bench(arguments: argparse.Namespace) -> None:
    """Measure against named peers."""
    from melanoma_lib import bench as benchmarks

    print(getattr(benchmarks, f"bench_{arguments.what}")(_settings(arguments)))


def costs(arguments: argparse.Namespace) -> None:
    """Say what runs cost and what more images would."""
    from melanoma_lib.bench.costs import cost_of
    from melanoma_lib.runs import Run

    print(cost_of([Run(path) for path in arguments.runs]).report(arguments.images))


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="python -m melanoma_lib",
        description="Melanoma detection from dermoscopy and metadata: teaching and analysis. Educational, never a diagnosis.",
    )
    parser.add_argument("--version", action="version", version=f"melanoma_lib {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    _command(commands, "train", train, "train a model and leave a run directory", settings=True)

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
            part.add_argument("--jobs", type=int, default=1, help="points at a time (default 1)")
            part.add_argument("--backend", default="loky", help="joblib backend, such as dask or ray (default loky)")
            part.add_argument("--scheduler", help="dask: address of a running scheduler; default: a cluster on this machine")
        else:
            part.add_argument("names", nargs="*", metavar="NAME", help="lessons, such as 03_training or 03; default: all")
        if name in ("run", "sweep", "handout"):
            kept = Path("reports") / {"run": "", "sweep": "sweep", "handout": "handouts"}[name]
            part.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                              help="value of a notebook parameter; may be repeated")  # fmt: skip
            part.add_argument("--out", type=Path, default=kept, help=f"where results go (default {kept})")

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
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING  # of torchrun's processes one reports
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    words = sys.argv[1:] if arguments is None else list(arguments)
    parsed = build_parser().parse_args(words, argparse.Namespace(words=words))
    try:
        return parsed.action(parsed) or 0
    except (KitError, OSError) as error:  # an OSError names its file: no space, no permission, no such folder
        print(f"error: {error}", file=sys.stderr)
        return 1


def _pairs(given: Sequence[Sequence[str]]) -> dict[str, str]:
    names = [name for name, _ in given]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise LessonError(f"parameter {', '.join(twice)} is given more than once")
    return dict(given)


def _assignments(given: Sequence[str]) -> list[tuple[str, str]]:
    if wrong := [text for text in given if not re.fullmatch(r"\w+=.+", text)]:
        raise LessonError(f"--over expects name=value,value, got {wrong[0]!r}")
    return [(name, values) for name, _, values in (text.partition("=") for text in given)]


def _command(commands, name: str, action: Callable, text: str, settings: bool = False) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(action=action)
    if settings:
        _add_settings(parser, list(Settings.model_fields))
    return parser


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


def _settings(arguments: argparse.Namespace, **fixed: str) -> Settings:
    given = {name.removeprefix("setting_"): value for name, value in vars(arguments).items() if name.startswith("setting_")}
    return Settings(**given, **fixed)


if __name__ == "__main__":
    sys.exit(main())
