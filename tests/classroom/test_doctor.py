import json
import re
import shlex
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from melanoma_lib import weights
from melanoma_lib.__main__ import main
from melanoma_lib.classroom import doctor
from melanoma_lib.classroom.doctor import examine
from melanoma_lib.settings import Settings


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch):
    monkeypatch.setattr(weights, "hub_reachable", lambda: False)
    monkeypatch.setattr(weights, "hub_cached_file", lambda backbone: None)


def told(name, settings=None):
    """State, what was found and what mends it, of the finding whose name begins so."""
    (finding,) = (one for one in examine(settings or Settings()) if one.name.startswith(name))
    return finding.state, f"{finding.found} | {finding.cure}"


def absent(name):
    raise metadata.PackageNotFoundError(name)


def test_a_ready_machine_is_healthy_and_nothing_is_left_behind(tmp_path, capsys):
    findings = examine(Settings(backbone="tf_efficientnet_lite0"))
    assert not [one for one in findings if one.state == "fail"]
    assert [one for one in findings if one.state == "ok" and one.cure] == []
    assert main(["doctor"]) == 0
    assert re.search(r"\d+ ok, \d+ warn, 0 fail: ready\.$", capsys.readouterr().out.strip())
    assert list(tmp_path.iterdir()) == []


def test_every_finding_that_is_not_in_order_has_a_cure(monkeypatch):
    monkeypatch.setattr(metadata, "version", absent)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    faulty = [one for one in examine(Settings(source="ham10000")) if one.state != "ok"]
    assert len(faulty) >= 4 and all(one.cure for one in faulty)


def test_missing_and_old_packages_fail_with_the_line_that_installs_them(monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: absent(name) if name == "timm" else "0.1")
    state, text = told("packages")
    assert state == "fail" and "timm" in text and "nothing is installed" in text and "0.1 is installed" in text
    command = shlex.split(text.partition(" | ")[2])
    assert Path(command[0]).absolute() == Path(sys.executable)
    wanted = {one.name: one for one in map(Requirement, command[4:])}
    assert {"timm", "rich", "wandb"} <= set(wanted) and not {"dask", "pytest"} & set(wanted)
    assert wanted["timm"].specifier and wanted["timm"].marker is None  # with a marker, pip would install nothing


def test_a_torchvision_of_another_torch_fails(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)  # importing it now raises ImportError
    assert told("torch")[0] == "fail" and "--force-reinstall" in told("torch")[1]


@pytest.mark.parametrize(
    ("reachable", "cached", "backbone", "state"),
    [
        (True, None, "resnet50", "ok"),
        (False, None, "resnet50", "warn"),
        (False, Path("model.safetensors"), "resnet50", "ok"),
        (False, None, "tf_efficientnet_lite0", "ok"),
    ],
)
def test_the_hub_matters_only_where_the_backbone_needs_it(monkeypatch, reachable, cached, backbone, state):
    monkeypatch.setattr(weights, "hub_reachable", lambda: reachable)
    monkeypatch.setattr(weights, "hub_cached_file", lambda backbone: cached)
    assert told("weights hub", Settings(backbone=backbone))[0] == state


def test_data_that_are_absent_whole_or_without_some_images(shared_data):
    state, words = told("data of", Settings(source="ham10000"))
    assert state == "fail" and "data fetch ham10000" in words
    state, words = told("data of", Settings(source="ham10000", data_dir=shared_data / "ham10000"))
    assert state == "ok" and "10,015 cases, 1,113 melanomas" in words
    state, words = told("data of", Settings(source="isic2020", data_dir=shared_data / "isic2020"))
    assert state == "warn" and "31,991 image files are absent" in words and "--missing-images drop" in words


def test_a_full_disk_and_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    state, words = told("folders", Settings(runs_dir=tmp_path / "file" / "runs"))
    assert state == "fail" and f"{tmp_path / 'file' / 'runs'} cannot be written" in words and "MELANOMA_RUNS_DIR" in words
    for free, expected in ((0.9, "fail"), (3, "warn"), (6, "ok")):
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=int(free * doctor.GIB)))
        assert told("folders")[0] == expected


def test_a_kernel_of_another_environment_and_a_lab_without_widgets(monkeypatch, tmp_path):
    kernel = tmp_path / "kernels/python3/kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps({"argv": ["/opt/other/bin/python", "-m", "ipykernel_launcher"], "display_name": "Other"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    state, words = told("Jupyter kernel")
    assert state == "warn" and "/opt/other/bin/python" in words and "-m ipykernel install --sys-prefix" in words
    monkeypatch.setattr("jupyter_core.paths.jupyter_path", lambda *parts: [str(tmp_path)])
    state, words = told("notebook widgets")
    assert state == "fail" and "lacks" in words


def test_a_wrong_variable_is_a_finding_and_the_rest_is_still_looked_at(monkeypatch, capsys):
    monkeypatch.setenv("MELANOMA_MAX_EPOCHS", "many")
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "FAIL   settings" in printed and "Jupyter kernel" in printed
