"""Weights & Biases, read back from the file an offline run leaves: settings, curves, figures, operating point; no key."""

import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from melanoma_lib.training import train
from melanoma_lib.training.module import wandb_logger

BLOCK, HEADER, START = 32768, 7, 7  # LevelDB's log format after seven bytes of W&B's own


def records(file: Path) -> list:
    """The records of a ``.wandb`` file, once W&B's own process has written the last one."""
    from wandb.proto.wandb_internal_pb2 import Record

    deadline = time.monotonic() + 60
    while True:
        data, at, parts, found = file.read_bytes(), START, b"", []
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
        if found and found[-1].HasField("exit"):
            return found
        assert time.monotonic() < deadline, f"no end in {file}"
        time.sleep(0.1)


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


def test_settings_curves_figures_and_operating_point_reach_an_offline_run(tiny_settings, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody answers there
    run = train(tiny_settings.with_changes(runs_dir=tmp_path, wandb=True, max_epochs=2))
    (file,) = run.path.glob("wandb/offline-run-*/*.wandb")
    (begun,) = (record.run for record in records(file) if record.HasField("run"))
    assert begun.display_name == run.path.name and begun.project == run.settings.wandb_project
    stored, summary, history = values(begun.config.update), {}, []
    for record in records(file):
        stored |= values(record.config.update)
        summary |= values(record.summary.update)
        history.append(values(record.history.item))
    assert {name: stored[name] for name in run.settings.shaping()} == run.settings.shaping()
    for name in ("train/loss", "val/loss", "val/auroc", "val/f1"):
        assert [row[name] for row in history if name in row] == pytest.approx(run.history[name].tolist())
    assert summary["operating_point"]["threshold"] == run.operating_point.threshold
    assert summary["operating_point"]["rule"] == run.operating_point.rule
    assert summary["test"]["auroc"]["value"] == run.metrics["auroc"]["value"]
    for name in ("roc", "precision_recall", "confusion", "reliability"):
        (figure,) = (row[f"test/{name}"] for row in history if f"test/{name}" in row)
        assert figure["_type"] == "image-file" and len(figure["caption"]) > 40
        assert (file.parent / "files" / figure["path"]).read_bytes().startswith(b"\x89PNG")


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
        "from pathlib import Path; from melanoma_lib.training.module import wandb_logger\n"
        "from melanoma_lib.settings import Settings\n"
        "with wandb_logger(Settings(), Path('work')) as logger: print('offline', logger.experiment.offline)"
    )
    absent = {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_INIT_TIMEOUT": "3"}
    others = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environment = others | absent | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "offline True" in done.stdout and "logged offline" in done.stderr
