"""Weights & Biases, read back from the file an offline run leaves: settings, curves, figures, operating point; no key."""

import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from melanoma_lib.reports.report import wandb_logger
from melanoma_lib.runs import Run
from melanoma_lib.training import train

BLOCK, HEADER, START = 32768, 7, 7  # LevelDB's log format after seven bytes of W&B's own


def records(file: Path) -> list:
    """The records of a ``.wandb`` file, once W&B's own process has written the last one."""
    deadline = time.monotonic() + 60
    while not (found := records_so_far(file)) or not found[-1].HasField("exit"):
        assert time.monotonic() < deadline, f"no end in {file}"
        time.sleep(0.1)
    return found


def records_so_far(file: Path) -> list:
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts, found = file.read_bytes(), START, b"", []
    assert data.startswith(b":W&B")
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:  # the rest of a block that holds no header
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        parts += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # whole, or the last of several
            found.append(Record.FromString(parts))
            parts = b""
    return found


def values(items) -> dict:
    """Items by name, nested as they were logged."""
    found: dict = {}
    for item in items:
        *path, name = item.nested_key or [item.key]
        inner = found
        for part in path:
            inner = inner.setdefault(part, {})
        inner[name] = json.loads(item.value_json)
    return found


@pytest.fixture(scope="module")
def logged(tiny_settings, tmp_path_factory) -> tuple[Run, Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody answers there
        settings = tiny_settings.with_changes(runs_dir=tmp_path_factory.mktemp("tracked"), wandb=True, max_epochs=2)
        run = train(settings)
    (file,) = run.path.glob("wandb/offline-run-*/*.wandb")
    return run, file


def test_settings_reach_the_offline_run(logged):
    run, file = logged
    (begun,) = (record.run for record in records(file) if record.HasField("run"))
    assert begun.display_name == run.path.name
    assert begun.project == run.settings.wandb_project
    stored = values(begun.config.update)
    for record in records(file):
        if record.HasField("config"):
            stored |= values(record.config.update)
    assert {name: stored[name] for name in run.settings.shaping()} == run.settings.shaping()


def test_curves_reach_the_offline_run(logged):
    run, file = logged
    rows = [values(record.history.item) for record in records(file) if record.HasField("history")]
    for name in ("train/loss", "val/loss", "val/auroc", "val/f1"):
        assert [row[name] for row in rows if name in row] == pytest.approx(run.history[name].tolist())


def test_figures_with_their_descriptions_reach_the_offline_run(logged):
    _, file = logged
    figures = {}
    for record in records(file):
        if record.HasField("history"):
            figures |= {name: value for name, value in values(record.history.item).items() if name.startswith("test/")}
    assert set(figures) == {"test/roc", "test/precision_recall", "test/confusion", "test/reliability"}
    for value in figures.values():
        assert value["_type"] == "image-file"
        assert len(value["caption"]) > 40
        assert (file.parent / "files" / value["path"]).read_bytes().startswith(b"\x89PNG")


def test_the_operating_point_and_the_test_metrics_reach_the_offline_run(logged):
    run, file = logged
    summary = {}
    for record in records(file):
        if record.HasField("summary"):
            summary |= values(record.summary.update)
    assert summary["operating_point"]["threshold"] == run.operating_point.threshold
    assert summary["operating_point"]["rule"] == run.operating_point.rule
    assert summary["test"]["auroc"]["value"] == run.metrics["auroc"]["value"]


def test_a_training_that_breaks_off_is_marked_as_failed(tiny_settings, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(ZeroDivisionError), wandb_logger(tiny_settings, tmp_path) as logger:
        logger.log_metrics({"x": 1.0})
        raise ZeroDivisionError
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    (ended,) = (record.exit for record in records(file) if record.HasField("exit"))
    assert ended.exit_code == 1


def test_a_server_that_does_not_answer_ends_no_training(tmp_path):
    code = (
        "from pathlib import Path; from melanoma_lib.reports.report import wandb_logger\n"
        "from melanoma_lib.settings import Settings\n"
        "with wandb_logger(Settings(), Path('work')) as logger: print('offline', logger.experiment.offline)"
    )
    absent = {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_INIT_TIMEOUT": "3"}
    others = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environment = others | absent | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "offline True" in done.stdout and "logged offline" in done.stderr
