"""The rules of the house: who may import whom, what stays light, what is declared, how it is written."""

import ast
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from docs.pictures import layers

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "melanoma_lib"
HEAVY = {"torch", "torchvision", "timm", "pytorch_lightning", "torchmetrics", "pandas", "sklearn", "scipy", "matplotlib"}


def python(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)


def test_imports_point_down():
    command = "from importlinter import cli; raise SystemExit(cli.lint_imports(no_cache=True))"
    done = python("-c", command)  # a process of its own: it disables every logger that this one has
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "what",
    [
        "melanoma_lib, melanoma_lib.data, melanoma_lib.evaluation",
        "melanoma_lib.cli as m; m.main(['--help']); m.main(['train', '--help']); m.main(['notebooks', '--help'])",
        "melanoma_lib.cli as m; m.main(['train', '--sead', '1']); m.main(['trian'])",
    ],
)
def test_importing_loads_nothing_heavy(what):
    done = python("-c", f"import {what}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})")
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "melanoma_lib" in loaded
    assert loaded & HEAVY == set()


# Used as their declared owners use them: JupyterLab's clients, Gradio's server, scikit-learn's threads.
BROUGHT = {"ipython", "jupyter-client", "jupyter-core", "fastapi", "starlette", "uvicorn", "httpx", "threadpoolctl"}
OPTIONAL = {"distributed", "lightly"}  # imported where they are needed, with an error that names the cure


def imported_distributions(folder: Path) -> set[frozenset[str]]:
    """Of each third-party module imported under a folder: the distributions that provide it."""
    nodes = [node for file in folder.rglob("*.py") for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    tops = {name.partition(".")[0] for name in found} - sys.stdlib_module_names - {"melanoma_lib", "tests", "docs"}
    homes = packages_distributions()
    return {frozenset(map(canonicalize_name, homes.get(name, [name]))) for name in tops}


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def test_whatever_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    (whole,) = map(Requirement, project["dependencies"])
    declared = set().union(*(names(extras[one]) for one in whole.extras)) | BROUGHT
    extras = set().union(*map(names, extras.values()))
    allowed = {PACKAGE: declared | OPTIONAL, ROOT / "tests": declared | extras}
    for folder, known in allowed.items():
        assert [set(homes) for homes in imported_distributions(folder) if not homes & known] == []


def test_the_picture_of_the_layers_is_of_this_contract():
    assert Image.open(ROOT / "docs" / "layers.png").text["layers"].splitlines() == layers(), "run python docs/pictures.py"
