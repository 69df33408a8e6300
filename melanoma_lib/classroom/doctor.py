"""Is this machine ready? Every finding that is not in order comes with what mends it."""

import hashlib
import os
import platform
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from io import StringIO
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from melanoma_lib import weights
from melanoma_lib.errors import DataError, SettingsError
from melanoma_lib.settings import Settings

PACKAGE = "melanoma_lib"
OFFLINE_BACKBONE = "tf_efficientnet_lite0"  # the fast and class profiles start from its packaged weights
GIB = 2**30
DISK_NEEDED, DISK_WANTED, MEMORY_WANTED = 1 * GIB, 5 * GIB, 4 * GIB


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what was looked at.
        state: ``ok``; ``warn`` where some commands do less or fail; ``fail`` where the kit cannot be relied on.
        found: what was found.
        cure: command or change that mends it; empty where nothing needs mending.
    """

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    cure: str = ""


@dataclass(frozen=True)
class Findings:
    """All findings, in the order they were looked at; ``str`` gives a table of 100 columns."""

    items: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing failed."""
        return all(finding.state != "fail" for finding in self.items)

    @property
    def brief(self) -> str:
        """How many things are in order, and what mends the others; nothing of this machine but what needs mending."""
        poor = [finding for finding in self.items if finding.state != "ok"]
        lines = [f"{len(self.items) - len(poor)} of {len(self.items)} things looked at are in order."]
        return "\n".join(lines + [f"{finding.state}: {finding.name}. To mend it: {finding.cure}" for finding in poor])

    def __str__(self) -> str:
        """What was found as a table, worst last, then what mends it: unbroken lines, fit to copy."""
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        found = sorted(self.items, key=lambda finding: ("ok", "warn", "fail").index(finding.state))
        table = Table("", "looked at", "found", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for finding in found:
            state = "FAIL" if finding.state == "fail" else finding.state
            table.add_row(state, escape(finding.name), escape(finding.found))
        console = Console(file=StringIO(), width=100, color_system=None)
        console.print(table)
        lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
        lines += ["", *(f"{finding.name}: {finding.cure}" for finding in found if finding.cure)]
        counts = ", ".join(f"{sum(f.state == state for f in self.items)} {state}" for state in ("ok", "warn", "fail"))
        return "\n".join([*lines, f"{counts}: " + ("ready." if self.healthy else "not ready; mend what failed and look again.")])


def examine(settings: Settings | None = None) -> Findings:
    """Look at settings, interpreter, packages, torch, weights, data, folders, memory and Jupyter; change nothing.

    Args:
        settings: whose backbone, source and folders to look at; by default those of environment and ``.env``, whose mistakes
            are then a finding, and the rest is looked at with default settings.

    Returns:
        The findings.
    """
    items = []
    if settings is None:
        settings, finding = _settings()
        items.append(finding)
    items += [_python(), *_packages(), _torch(), *_weights(settings), _data(settings), *_folders(settings)]
    return Findings((*items, _memory(), _kernel(), _widgets(), _wandb(settings)))


def _settings() -> tuple[Settings, Finding]:
    try:
        settings = Settings()
    except SettingsError as error:
        cure = "correct or remove the named MELANOMA_* variable or line of .env; .env.example lists them all"
        return Settings.model_construct(), Finding("settings", "fail", str(error), cure)
    given = ", ".join(sorted(settings.model_fields_set)) or "none; all defaults"
    return settings, Finding("settings", "ok", f"set by environment, .env or profile: {given}")


def _python() -> Finding:
    version, wanted = platform.python_version(), metadata.metadata(PACKAGE)["Requires-Python"]
    found = f"{version} in {sys.prefix}"
    if SpecifierSet(wanted).contains(version, prereleases=True):
        return Finding("Python", "ok", found)
    return Finding("Python", "fail", f"{found}; wanted {wanted}", "make clean install PYTHON=/path/to/a/newer/python3")


def _requirements() -> list[Requirement]:
    requirements = map(Requirement, metadata.requires(PACKAGE) or [])
    return [one for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]


def _packages() -> Iterator[Finding]:
    requirements, faulty = _requirements(), 0
    for wanted in requirements:
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            version = None
        if version is None or not wanted.specifier.contains(version, prereleases=True):
            faulty += 1
            found = f"{version or 'not installed'}; wanted {wanted.specifier or 'any'}"
            yield Finding(wanted.name, "fail", found, _pip_install(str(wanted)))
    if not faulty:
        yield Finding("packages", "ok", f"{len(requirements)} required packages, each in the range that {PACKAGE} asks for")


def _torch() -> Finding:
    try:
        import torch
        import torchvision  # one built for another torch fails here

        numbers = torch.ones(8, 8, requires_grad=True)
        (numbers @ numbers).sum().backward()
        right = bool((numbers.grad == 16).all())  # each entry meets 8 rows and 8 columns of ones
    except (ImportError, OSError, RuntimeError) as error:
        found, right = f"{type(error).__name__}: {error}".splitlines()[0], False
    else:
        device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU, trains on the CPU"
        what = f"torch {torch.__version__} and torchvision {torchvision.__version__}"
        found = f"{what}; a gradient {'is right' if right else 'is WRONG'}; {torch.get_num_threads()} threads; {device}"
    if right:
        return Finding("torch", "ok", found)
    pair = [str(one) for one in _requirements() if one.name in ("torch", "torchvision")]
    return Finding("torch", "fail", found, _pip_install("--force-reinstall", *pair))


def _weights(settings: Settings) -> Iterator[Finding]:
    yield _packaged_weights(OFFLINE_BACKBONE)
    backbone = settings.backbone
    if backbone != OFFLINE_BACKBONE and backbone in weights.PACKAGED:
        yield _packaged_weights(backbone)
    if weights.hub_reachable(timeout=2.0):
        yield Finding("weights hub", "ok", f"{weights.HUB} answers: ImageNet weights of every timm backbone can be had")
        return
    found = f"{weights.HUB} does not answer"
    if not settings.pretrained or "image" not in settings.modalities or backbone in weights.PACKAGED:
        yield Finding("weights hub", "ok", f"{found}; the settings do not need it")
    elif weights.hub_cached_file(backbone):
        yield Finding("weights hub", "ok", f"{found}; the weights of {backbone} are in its cache")
    else:
        cure = f"go online once, or train with --backbone {OFFLINE_BACKBONE} (or MELANOMA_BACKBONE={OFFLINE_BACKBONE})"
        yield Finding("weights hub", "warn", f"{found}, and {backbone}, the chosen backbone, has its weights there", cure)


def _packaged_weights(backbone: str) -> Finding:
    name, package = f"weights of {backbone}", weights.PACKAGED[backbone][2]
    file = weights.packaged_file(backbone)
    if file is None:
        return Finding(name, "fail", f"the package {package}, which carries them, is not installed", _pip_install(package))
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if not digest.startswith(expected := file.stem.rpartition("-")[2]):  # torch's custom: the name ends in the digest's start
        found = f"{file.name} is damaged: its SHA-256 starts with {digest[: len(expected)]}"
        return Finding(name, "fail", found, _pip_install("--force-reinstall", "--no-deps", "--no-cache-dir", package))
    return Finding(name, "ok", f"{file.stat().st_size / 1e6:.0f} MB, intact; needs no network")


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
    found = f"{len(cases):,} cases, {int(cases['target'].sum()):,} melanomas in {cases.attrs['table']}"
    if absent := cases.attrs["absent_images"]:
        cure = "fetch them, name their folder in MELANOMA_IMAGE_DIRS, or go on without: --missing-images drop"
        return Finding(name, "warn", f"{found}; {absent:,} image files are absent", cure)
    return Finding(name, "ok", f"{found}; every image file is there")


def _folders(settings: Settings) -> Iterator[Finding]:
    folders = {"cache_dir": settings.cache_dir, "runs_dir": settings.runs_dir}
    if settings.source == "synthetic":
        folders["data_dir"] = settings.data_root
    for setting, folder in folders.items():
        yield _folder(setting, folder)


def _folder(setting: str, folder: Path) -> Finding:
    name, cure = f"folder {folder}", f"MELANOMA_{setting.upper()}=/a/folder/with/room"
    existing = next(part for part in (folder.absolute(), *folder.absolute().parents) if part.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free
    except OSError as error:
        return Finding(name, "fail", f"cannot be written: {error.strerror}", cure)
    found = f"writable, {free / GIB:.1f} GiB free"
    if free < DISK_WANTED:
        wanted = f"{found}; {DISK_NEEDED // GIB} GiB is the least, {DISK_WANTED // GIB} GiB leave room for HAM10000 and its runs"
        return Finding(name, "fail" if free < DISK_NEEDED else "warn", wanted, cure)
    return Finding(name, "ok", found)


def _memory() -> Finding:
    if not hasattr(os, "sysconf"):  # Windows
        return Finding("memory", "ok", "this system does not tell it to Python")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = f"{total / GIB:.1f} GiB"
    if total < MEMORY_WANTED:
        return Finding("memory", "warn", f"{found}; {MEMORY_WANTED // GIB} GiB are comfortable", "train with --profile fast")
    return Finding("memory", "ok", found)


def _kernel() -> Finding:
    try:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    except ImportError as error:
        return Finding("Jupyter kernel", "fail", str(error), _pip_install("jupyterlab"))
    try:
        program = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel as error:
        return Finding("Jupyter kernel", "fail", str(error), _pip_install("ipykernel"))
    # Jupyter reads a bare "python" as the interpreter it runs in itself.
    if Path(program).name == program or Path(program).absolute() == Path(sys.executable).absolute():
        return Finding("Jupyter kernel", "ok", "python3 starts the interpreter of this environment")
    cure = shlex.join([_interpreter(), "-m", "ipykernel", "install", "--sys-prefix"])
    return Finding("Jupyter kernel", "warn", f"python3 starts {program}, another environment", cure)


def _widgets() -> Finding:
    try:
        from jupyter_core.paths import jupyter_path
    except ImportError as error:
        return Finding("notebook widgets", "fail", str(error), _pip_install("jupyterlab"))
    wanted = Path("@jupyter-widgets", "jupyterlab-manager", "package.json")
    if any((Path(folder) / wanted).is_file() for folder in jupyter_path("labextensions")):
        return Finding("notebook widgets", "ok", "JupyterLab has the extension that shows them")
    cure = _pip_install("--force-reinstall", "ipywidgets", "jupyterlab_widgets")
    return Finding("notebook widgets", "fail", "JupyterLab lacks the extension that shows them", cure)


def _wandb(settings: Settings) -> Finding:
    if os.environ.get("WANDB_API_KEY"):
        return Finding("Weights & Biases", "ok", "WANDB_API_KEY is set; used with --wandb only")
    if settings.wandb:
        cure = "set WANDB_API_KEY, or send later: wandb sync RUN/wandb/offline-*"
        return Finding("Weights & Biases", "warn", "asked for, no WANDB_API_KEY: runs are logged offline", cure)
    return Finding("Weights & Biases", "ok", "not asked for; runs keep their own log")


def _interpreter() -> str:
    program = Path(sys.executable)
    return str(program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program)


def _pip_install(*requirements: str) -> str:
    return shlex.join([_interpreter(), "-m", "pip", "install", *requirements])
