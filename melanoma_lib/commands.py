"""What each command of the command line does; its words are its name. How words become values is in ``cli``.

``settings`` hold its flags. Each imports what it needs itself, so that help and wrong usage cost no import of torch.
"""

import logging
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Literal

from melanoma_lib.errors import KitError, LessonError
from melanoma_lib.settings import Settings
from melanoma_lib.utils import project_dir, replacing, require_ending, workers, write_text

Backend = Literal["loky", "threading", "dask"]
log = logging.getLogger("melanoma_lib")


def doctor() -> int:
    """Check packages, weights, data, disk; each finding with its cure."""
    from melanoma_lib.classroom.doctor import examine, report

    print(report(findings := examine()))
    return int(any(finding.state == "fail" for finding in findings))


def data_fetch(settings: Settings, source: str, collection: str | None = None) -> None:
    """Download a source, licence and citation first."""
    from melanoma_lib.data.download import fetch

    print(f"ready in {fetch(settings.source, settings.data_root, collection)}")


def data_audit(settings: Settings, source: str) -> None:
    """Counts, missing values, leakage and duplicates of a source, with or without its images."""
    from melanoma_lib.data import audit_cases, load_cases
    from melanoma_lib.data.datamodule import source_root

    cases = load_cases(settings.source, source_root(settings), "keep", settings.image_dirs)
    print(audit_cases(cases, show_progress=settings.progress))


def train(settings: Settings, jobs: int = 1, backend: Backend = "loky", scheduler: str | None = None) -> None:
    """Train a model, or all folds of a cross-validation: a run directory."""
    from melanoma_lib import runs, training

    if settings.folds and not settings.fold:
        with workers(backend, jobs, scheduler):
            run = training.cross_validate(settings, jobs)
    else:
        if (writer := runs.RunWriter(settings)).finished():  # which lessons take as it is; who trains means these settings
            writer.require_free_place()
        run = training.train(settings)
    print(f"finished {run.path}; next: python -m melanoma_lib evaluate {run.path}")


def runs(settings: Settings) -> None:
    """List runs: source, backbone, size, epochs, AUROC with its interval, day, and what a demonstration shows."""
    from melanoma_lib.runs import list_runs

    table, others = list_runs(settings.runs_dir)
    print(table.to_string(index=False) if len(table) else f"no finished run in {settings.runs_dir}")
    for folder, reason in others.items():
        print(f"not listed: {folder}: {reason}", file=sys.stderr)


def evaluate(settings: Settings, run: Path | None = None, tta: bool = False, source: str | None = None) -> None:
    """Report on a run: table, JSON and figures; with --source on another collection, beside its own test cases."""
    found = _run(run, settings)
    if source is None:
        from melanoma_lib.reports.report import evaluate_run

        ours = Settings()  # what environment and .env say concerns other commands, too
        for name in ("data_dir", "image_dirs", "missing_images", "n_patients", "data_seed", "cache_dir"):
            if getattr(settings, name) != getattr(ours, name):
                raise KitError(f"--{name.replace('_', '-')} tells of another collection: name it with --source, or leave it out")
        report = evaluate_run(found, tta=tta)
    else:
        from melanoma_lib.data.datamodule import cases_for
        from melanoma_lib.reports.external import evaluate_external

        if tta and not found.settings.tta:
            raise KitError("--tta makes another model, without a threshold of its own here; train with --tta to test its views")
        kept = {name: getattr(found.settings, name) for name in ("modalities", "image_size")}
        report = evaluate_external(found, cases_for(settings.with_changes(**kept)), settings.cache_dir)
    print(f"{report.text}\nwritten to {report.folder}")


def compare(runs: list[Path], out: Path | None = None) -> None:
    """Set runs against the first on the test cases they share; runs of several seeds: gain of each branch, over seeds."""
    from melanoma_lib.reports import comparison
    from melanoma_lib.runs import Run

    require_ending(out, ".csv", ".json")
    found = [Run(path) for path in runs]
    if comparison.differ_in_seeds(found):
        table = comparison.compare_seeds(found)
        print(comparison.with_intervals(table).to_string(index=False))
    else:
        table = comparison.compare_runs(found, found[0].settings.n_resamples)
        print(comparison.comparison_text(table))
    if out:
        write_text(out, table.to_csv(index=False) if out.suffix.lower() == ".csv" else table.to_json(orient="records", indent=2))


def errors(settings: Settings, run: Path | None = None, n: int = 8, heatmaps: bool = False, out: Path | None = None) -> None:
    """The worst false negatives and false positives of the test split: a gallery with its description, and a table."""
    from melanoma_lib.explain.report import errors_report

    found = _run(run, settings, needs_model=heatmaps)
    out = out or Path("reports") / "errors" / found.path.name
    table = errors_report(found, n, out, heatmaps, _elsewhere(found, settings))
    print(table[["error", "image_id", "probability", "risk"]].round(3).to_string(index=False))
    print(f"written to {out}")


def explain(
    settings: Settings, run: Path | None = None, image_id: list[str] = (), layers: list[str] = (),
    method: list[str] = ("gradcam",), out: Path | None = None,
) -> None:  # fmt: skip
    """Heatmaps of tested cases."""
    import pandas as pd

    from melanoma_lib.explain.report import choose_case, explain_cases, tested_cases

    found = _run(run, settings, needs_model=True)
    out = out or Path("reports") / "explain" / found.path.name
    tested = tested_cases(found, _elsewhere(found, settings))
    cases = pd.DataFrame([choose_case(tested, wanted) for wanted in image_id or [""]])
    explain_cases(found, cases, out, layers or None, method)
    print(f"written to {out}")


def predict(
    settings: Settings, files: list[Path], model: Path | None = None, out: Path = Path("risks.csv"), tta: bool = False
) -> int:
    """Risk and decision of image files: a CSV with a row an image (educational, not for diagnosis)."""
    from melanoma_lib.app.files import UNREAD, answer_files, gather

    models = [path for path in files if path.suffix in (".onnx", ".pt") or (path / "settings.json").is_file()]
    if models and (model or len(models) > 1):
        raise KitError(f"expected one model, got {', '.join(map(str, [*models, *[model] * bool(model)]))}")
    files, model = [path for path in files if path not in models], models[0] if models else model
    require_ending(out, ".csv")
    if out.is_file() and not out.read_text(encoding="utf-8", errors="replace").startswith("image,probability,risk,decision"):
        raise KitError(f"--out {out} is there, and holds no answers of predict; give another name")
    cases = gather(files)
    if out.resolve() in {path.resolve() for path in (*files, *cases["image"])}:
        raise KitError(f"--out {out} is one of the files to read; give another name")
    source = model if model and model.is_file() else _run(model, settings, needs_model=True)
    known = () if source is model else set(source.splits.query("split == 'train'")["image_id"])
    if seen := sum(path.stem in known for path in cases["image"]):
        log.warning("%d of %d images are named like images that the model was trained on, which it knows", seen, len(cases))
    with replacing(out) as temporary:  # at once, where a place cannot be written
        table = answer_files(source, cases, tta, settings.progress)
        table.to_csv(temporary, index=False, float_format="%.6f")
    print(table["decision"].value_counts().rename_axis(f"{len(table)} images").to_string())
    reasons = table.loc[table["warnings"] != "", "warnings"].value_counts()
    for reason, count in reasons.head(3).items():
        print(f"{count} of {len(table)}: {reason}", file=sys.stderr)
    if len(reasons) > 3:
        print(f"{len(reasons) - 3} more warnings are in {out}", file=sys.stderr)
    asked = "model {model}: flagged from a probability of {threshold:.4g} on; risks hold at a prevalence of {prevalence:.1%}"
    print(f"{asked.format_map(table.iloc[0])}\nwritten to {out}. Educational, not for diagnosis.")
    return int((table["decision"] == UNREAD).all())


def app(
    settings: Settings, run: Path | None = None, host: str = "127.0.0.1", port: int = 7860,
    root_path: str = "", backend: Literal["torch", "onnx"] = "torch",
) -> None:  # fmt: skip
    """Serve a run as a page on this machine: risk, decision, heatmap (not for diagnosis)."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # asked when Gradio is imported; nothing is to leave the machine
    found = _run(run or settings.run_dir, settings, needs_model=True)
    from melanoma_lib.app.server import serve
    from melanoma_lib.app.service import Service

    serve(Service(found, backend), host, port, root_path)


def export(
    settings: Settings, run: Path | None = None, format: Literal["onnx", "torchscript"] = "onnx", tta: bool = False,
    out: Path | None = None,
) -> None:  # fmt: skip
    """Write a run's model as one file that runs without the kit's trainer."""
    from melanoma_lib.export import FORMATS, export_run

    require_ending(out, Path(FORMATS[format]).suffix)
    print(f"written to {export_run(_run(run, settings, needs_model=True), format, out, tta)}; educational, not for diagnosis")


def card(settings: Settings, run: Path | None = None, check: bool = False) -> int:
    """Write a run's model card, with the CLAIM 2024 and TRIPOD+AI checklists."""
    from melanoma_lib.export import differences, write_card

    found = _run(run, settings)
    differing = differences(found) if check else [f"written to {write_card(found)}"]
    print("\n".join(differing) or f"the card of {found.path} says what the run says")
    return int(check and bool(differing))


def notebooks_run(names: list[str] = (), parameters: list[str] = (), out: Path = Path("reports")) -> int:
    """Execute lessons, or studies by name; leaves each as a notebook and an HTML page."""
    from melanoma_lib.classroom import lesson, papermill

    outcomes = papermill.run_lessons(lesson.find_lessons(names, studies=True), out, _pairs(parameters))
    print(f"{papermill.summary(outcomes)}\nwritten to {out}")
    return 0 if all(outcome.ok for outcome in outcomes) else 1


def notebooks_refresh(names: list[str] = ()) -> None:
    """Execute lessons in a fresh kernel and renew their committed outputs; the student copies follow."""
    from melanoma_lib.classroom import lesson, papermill

    for one in lesson.find_lessons(names):
        print(f"{one.name}: {'changed' if papermill.refresh(one) else 'as it was'}")
    notebooks_exercises(names)


def notebooks_exercises(names: list[str] = ()) -> None:
    """Write the student copies of lessons, with stubs for solutions."""
    from melanoma_lib.classroom import exercises, lesson

    for one in lesson.find_lessons(names):
        print(f"student copy: {exercises.write_student_copy(one)}")


def notebooks_handout(names: list[str] = (), parameters: list[str] = (), out: Path = Path("reports/handouts")) -> None:
    """Execute lessons and leave each as one offline page with live explorers, and as a PDF."""
    from melanoma_lib.classroom import handout, lesson, papermill

    for one in lesson.find_lessons(names):
        print(page := papermill.write_handout(one, out, _pairs(parameters)))
        browser = handout.find_browser()
        print(handout.print_page(page, browser) if browser else "no PDF: found no Chromium or Chrome; print from any browser")


def notebooks_site(out: Path = Path("reports/site")) -> int:
    """Put every lesson, with PDF, exercises and slides, into one folder that opens from a file or any server."""
    from melanoma_lib.classroom import handout, lesson, papermill

    outcomes = papermill.run_lessons(lesson.find_lessons(), out, {})
    for outcome in outcomes if (browser := handout.find_browser()) else ():
        handout.print_page(outcome.page, browser)
    for folder, pattern in (("notebooks/exercises", "*.ipynb"), ("slides", "*.pdf")):
        for file in (project_dir() / folder).glob(pattern):
            (out / file.parent.name).mkdir(exist_ok=True)
            shutil.copy(file, out / file.parent.name)
    print(f"{papermill.summary(outcomes)}\nopen {handout.write_index(out)}")
    return 0 if all(outcome.ok for outcome in outcomes) else 1


def notebooks_sweep(
    name: str, over: list[str], parameters: list[str] = (), out: Path = Path("reports/sweep"), jobs: int = 1,
    backend: Backend = "loky", scheduler: str | None = None,
) -> int:  # fmt: skip
    """Run one lesson over a grid of parameters and compare the runs; resumes where it stopped."""
    from melanoma_lib.classroom import lesson, sweep

    (one,) = lesson.find_lessons([name])
    varied = {name: text.split(",") for name, text in _pairs(over).items()}
    points = sweep.grid(one, varied, _pairs(parameters), out)
    with workers(backend, jobs, scheduler):
        table = sweep.sweep(one, points, out, jobs)
    print(table[[*varied, *sweep.METRICS, "status"]].round(3).to_string(index=False))
    print(f"written to {out}; the same command goes on where it stopped")
    return 0 if (table["status"] == "ok").all() else 1


def slides_build(
    names: list[str] = (), run_dir: Path = Path("data/reference/ham10000"), out: Path = Path("reports/slides"),
    markdown: bool = False,
) -> None:  # fmt: skip
    """Fill slide decks from a run; render each as HTML and PDF, offline."""
    from melanoma_lib.classroom.slides import build, find_decks, run_values
    from melanoma_lib.runs import Run

    for path in build(find_decks(names), run_values(Run(run_dir)), out, () if markdown else ("html", "pdf")):
        print(path)


def _run(path: Path | None, settings: Settings, needs_model: bool = False):
    from melanoma_lib.runs import Run

    return Run(path) if path else Run.default(settings.runs_dir, needs_model)


def _elsewhere(run, settings: Settings) -> Settings | None:
    """A run's settings with the folders that flags, environment or ``.env`` name; None where they name none."""
    named = {name: value for name in ("data_dir", "image_dirs") if (value := getattr(settings, name))}
    return run.settings.with_changes(**named) if named else None


def _pairs(given: list[str]) -> dict[str, str]:
    pairs = dict(text.split("=", 1) for text in given if re.fullmatch(r"\w+=.+", text))
    if len(pairs) < len(given):
        raise LessonError(f"expected name=value, or name=value,value to sweep, and each name once; got {' '.join(given)}")
    return pairs
