"""Is this machine ready? Every finding that is not in order comes with what mends it."""

import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement

from melanoma_lib import weights
from melanoma_lib.errors import DataError, SettingsError
from melanoma_lib.settings import Settings

PACKAGE = "melanoma_lib"
OFFLINE_BACKBONE = "tf_efficientnet_lite0"  # the fast and class profiles start from its packaged weights
GIB = 2**30
STATES = ("ok", "warn", "fail")
DISK_NEEDED, DISK_WANTED = 1 * GIB, 5 * GIB


class Finding(NamedTuple):
    """One thing that was looked at: ``ok``, ``warn`` (some commands do less) or ``fail``, and the command that mends it."""

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    cure: str = ""


def report(findings: Sequence[Finding]) -> str:
    """What was found, worst last, then what mends it, fit to copy, and whether the machine is ready."""
    found = sorted(findings, key=lambda finding: STATES.index(finding.state))
    lines = [f"{finding.state.replace('fail', 'FAIL'):6} {finding.name}: {finding.found}" for finding in found]
    lines += ["", *(f"{finding.name}: {finding.cure}" for finding in found if finding.cure)]
    counts = {state: sum(finding.state == state for finding in found) for state in STATES}
    ready = "not ready; mend what failed and look again." if counts["fail"] else "ready."
    return "\n".join([*lines, f"{', '.join(f'{count} {state}' for state, count in counts.items())}: {ready}"])


def examine(settings: Settings | None = None) -> list[Finding]:
    """Look at settings (by default those of environment and ``.env``), packages, weights, data, folders and Jupyter."""
    mistakes = []
    try:
        settings = settings or Settings()
    except SettingsError as error:
        cure = "correct or remove the named MELANOMA_* variable or line of .env; .env.example lists them all"
        settings, mistakes = Settings.model_construct(), [Finding("settings", "fail", str(error), cure)]
    return [*mistakes, *_packages(), _torch(), *_weights(settings), _data(settings), *_folders(settings), *_jupyter()]


def _finding(name: str, fine: bool, found: str, cure: str, poor: Literal["warn", "fail"] = "fail") -> Finding:
    return Finding(name, "ok", found) if fine else Finding(name, poor, found, cure)


def _requirements() -> list[Requirement]:
    requirements = [Requirement(line) for line in metadata.requires(PACKAGE) or []]
    extras = {"", *(extra for one in requirements if one.name == PACKAGE for extra in one.extras)}  # that every install takes
    taken = [one for one in requirements if not one.marker or any(one.marker.evaluate({"extra": extra}) for extra in extras)]
    for one in taken:
        one.marker = None  # or pip, told to install it, would look for the extra and leave it
    return [one for one in taken if one.name != PACKAGE]


def _packages() -> Iterator[Finding]:
    fine = 0
    for wanted in _requirements():
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            version = ""
        if version and wanted.specifier.contains(version, prereleases=True):
            fine += 1
        else:
            yield Finding(wanted.name, "fail", f"{version or 'not installed'}; wanted {wanted.specifier}", _install(wanted))
    yield Finding("packages", "ok", f"{fine} of the required packages are in the range that {PACKAGE} asks for")


def _torch() -> Finding:
    try:
        import torch
        import torchvision  # one built for another torch fails here
    except (ImportError, OSError, RuntimeError) as error:
        pair = [one for one in _requirements() if one.name in ("torch", "torchvision")]
        return Finding("torch", "fail", f"{type(error).__name__}: {error}", _install("--force-reinstall", *pair))
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU, trains on the CPU"
    found = f"torch {torch.__version__}, torchvision {torchvision.__version__}; {torch.get_num_threads()} threads; {device}"
    return Finding("torch", "ok", found)


def _weights(settings: Settings) -> Iterator[Finding]:
    backbone = settings.backbone
    for packaged in sorted({OFFLINE_BACKBONE, backbone} & set(weights.PACKAGED)):
        file, package = weights.packaged_file(packaged), weights.PACKAGED[packaged][2]
        found = file.name if file else f"the package {package}, which carries them, is not installed"
        yield _finding(f"weights of {packaged}", file is not None, found, _install(package))
    reachable = weights.hub_reachable(timeout=2.0)
    needed = settings.pretrained and "image" in settings.modalities and backbone not in weights.PACKAGED
    fine = reachable or not needed or bool(weights.hub_cached_file(backbone))
    found = f"{weights.HUB} {'answers' if reachable else 'does not answer'}" + (f"; it has those of {backbone}" if needed else "")
    yield _finding("weights hub", fine, found, f"go online once, or train with --backbone {OFFLINE_BACKBONE}", "warn")


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


def _folders(settings: Settings) -> Iterator[Finding]:
    written = {"CACHE": settings.cache_dir, "RUNS": settings.runs_dir}
    for variable, folder in (written | ({"DATA": settings.data_root} if settings.source == "synthetic" else {})).items():
        name, cure = f"folder {folder}", f"MELANOMA_{variable}_DIR=/a/folder/with/room"
        try:
            existing = next(part for part in (folder.absolute(), *folder.absolute().parents) if part.exists())
            with tempfile.TemporaryFile(dir=existing):
                free = shutil.disk_usage(existing).free
        except OSError as error:
            yield Finding(name, "fail", f"cannot be written: {error.strerror}", cure)
            continue
        found = f"{free / GIB:.1f} GiB free, {DISK_WANTED // GIB} GiB wanted (HAM10000 and its runs)"
        yield _finding(name, free >= DISK_WANTED, found, cure, "fail" if free < DISK_NEEDED else "warn")


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
    yield _finding("Jupyter kernel", ours, f"python3 starts {'this environment' if ours else program}", cure, "warn")
    wanted = Path("@jupyter-widgets", "jupyterlab-manager", "package.json")
    there = any((Path(folder) / wanted).is_file() for folder in jupyter_path("labextensions"))
    found = f"JupyterLab {'has' if there else 'lacks'} the extension that shows them"
    yield _finding("notebook widgets", there, found, _install("--force-reinstall", "ipywidgets", "jupyterlab_widgets"))


def _install(*requirements: object) -> str:
    return shlex.join([sys.executable, "-m", "pip", "install", *map(str, requirements)])
