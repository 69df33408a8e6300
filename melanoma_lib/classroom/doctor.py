"""Is this machine ready? Every finding that is not in order comes with what mends it."""

import shlex
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement

from melanoma_lib import weights
from melanoma_lib.errors import DataError, SettingsError, WeightsUnavailableError
from melanoma_lib.settings import Settings

PACKAGE = "melanoma_lib"
GIB = 2**30
EXTRAS = ("app", "notebooks", "tracking")  # that every install takes; see pyproject.toml


class Finding(NamedTuple):
    """One thing that was looked at: ``ok``, ``warn`` (some commands do less) or ``fail``, and the command that mends it."""

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    cure: str = ""


def report(findings: Sequence[Finding]) -> str:
    """What was found, worst last, then what mends it, fit to copy, and whether the machine is ready."""
    found = sorted(findings, key=lambda finding: ("ok", "warn", "fail").index(finding.state))
    lines = [f"{finding.state.replace('fail', 'FAIL'):6} {finding.name}: {finding.found}" for finding in found]
    lines += ["", *(f"{finding.name}: {finding.cure}" for finding in found if finding.cure)]
    counts = Counter(finding.state for finding in found)
    ready = "not ready; mend what failed and look again." if counts["fail"] else "ready."
    return "\n".join([*lines, f"{counts['ok']} ok, {counts['warn']} warn, {counts['fail']} fail: {ready}"])


def examine(settings: Settings | None = None) -> list[Finding]:
    """Look at settings (by default those of environment and ``.env``), packages, weights, data, folders and Jupyter."""
    try:
        settings, mistakes = settings or Settings(), []
    except SettingsError as error:
        cure = "correct or remove the named MELANOMA_* variable or line of .env; .env.example lists them all"
        settings, mistakes = Settings.model_construct(), [Finding("settings", "fail", str(error), cure)]
    return [*mistakes, _packages(), _torch(), _weights(settings), _data(settings), _folders(settings), *_jupyter()]


def _finding(name: str, fine: bool, found: str, cure: str, poor: Literal["warn", "fail"] = "fail") -> Finding:
    return Finding(name, "ok", found) if fine else Finding(name, poor, found, cure)


def _packages() -> Finding:
    wrong = {}
    for wanted in map(Requirement, metadata.requires(PACKAGE) or []):
        taken = not wanted.marker or any(wanted.marker.evaluate({"extra": extra}) for extra in EXTRAS)
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            version = ""
        if taken and not (version and wanted.specifier.contains(version, prereleases=True)):
            wrong[f"{wanted.name}{wanted.specifier}"] = f"{version or 'nothing'} is installed"
    found = "; ".join(f"{wanted} is wanted, {version}" for wanted, version in wrong.items())
    return _finding("packages", not wrong, found or f"all that {PACKAGE} requires", _install(*wrong))


def _torch() -> Finding:
    try:
        import torch
        import torchvision  # one built for another torch fails here
    except (ImportError, OSError, RuntimeError) as error:
        return Finding("torch", "fail", f"{type(error).__name__}: {error}", _install("--force-reinstall", "torch", "torchvision"))
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU, trains on the CPU"
    return Finding("torch", "ok", f"{torch.__version__}, torchvision {torchvision.__version__}; {device}")


def _weights(settings: Settings) -> Finding:
    try:
        weights.require_backbone(settings.backbone, settings.pretrained and "image" in settings.modalities)
    except (SettingsError, WeightsUnavailableError) as error:
        return Finding("weights hub", "warn", str(error), "go online once, or train with --backbone tf_efficientnet_lite0")
    return Finding("weights hub", "ok", f"weights of {settings.backbone} are here, can be fetched, or are not asked for")


def _data(settings: Settings) -> Finding:
    from melanoma_lib.data import load_cases

    name = f"data of {settings.source}"
    if settings.source == "synthetic":
        return Finding(name, "ok", f"generated in {settings.data_root} when first needed, {settings.n_patients:,} patients")
    try:
        cases = load_cases(settings.source, settings.data_root, "keep", settings.image_dirs)
    except DataError as error:
        cure = f"python -m melanoma_lib data fetch {settings.source}, or point MELANOMA_DATA_DIR at the right folder"
        return Finding(name, "fail", str(error), cure)
    absent = cases.attrs["absent_images"]
    found = f"{len(cases):,} cases, {int(cases['target'].sum()):,} melanomas; {absent:,} image files are absent"
    cure = "fetch them, name their folder in MELANOMA_IMAGE_DIRS, or go on without: --missing-images drop"
    return _finding(name, not absent, found, cure, "warn")


def _folders(settings: Settings) -> Finding:
    free, cure = [], "name others, with room, by MELANOMA_CACHE_DIR, MELANOMA_RUNS_DIR and MELANOMA_DATA_DIR"
    try:
        for folder in (settings.cache_dir, settings.runs_dir, *[settings.data_root] * (settings.source == "synthetic")):
            existing = next(part for part in (folder.absolute(), *folder.absolute().parents) if part.exists())
            tempfile.TemporaryFile(dir=existing).close()
            free.append(shutil.disk_usage(existing).free / GIB)
    except OSError as error:
        return Finding("folders", "fail", f"{folder} cannot be written: {error.strerror}", cure)
    found = f"at least {min(free):.1f} GiB free, 5 GiB wanted (HAM10000 and its runs)"
    return _finding("folders", min(free) >= 5, found, cure, "fail" if min(free) < 1 else "warn")


def _jupyter() -> Iterator[Finding]:
    try:
        from jupyter_client.kernelspec import KernelSpecManager
        from jupyter_core.paths import jupyter_path

        program = Path(KernelSpecManager().get_kernel_spec("python3").argv[0])
    except (ImportError, KeyError) as error:  # no such package, no such kernel
        yield Finding("Jupyter", "fail", str(error), _install("jupyterlab", "ipykernel"))
        return
    ours = len(program.parts) == 1 or program.absolute() == Path(sys.executable).absolute()  # a bare "python" is Jupyter's own
    cure = shlex.join([sys.executable, "-m", "ipykernel", "install", "--sys-prefix"])
    yield _finding("Jupyter kernel", ours, f"python3 starts {program}", cure, "warn")
    manager = Path("@jupyter-widgets", "jupyterlab-manager", "package.json")
    there = any((Path(folder) / manager).is_file() for folder in jupyter_path("labextensions"))
    found = f"JupyterLab {'has' if there else 'lacks'} their extension"
    yield _finding("notebook widgets", there, found, _install("--force-reinstall", "ipywidgets", "jupyterlab_widgets"))


def _install(*requirements: str) -> str:
    return shlex.join([sys.executable, "-m", "pip", "install", *requirements])
