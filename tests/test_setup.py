"""What a newcomer meets first: make, conda, .env and citation say the same as the package."""

import os
import re
import shlex
import shutil
import subprocess
import tomllib
import typing
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from melanoma_lib.cli import settings_of
from melanoma_lib.runs import Run
from melanoma_lib.settings import Settings
from tests.command_line import command_names, parsed

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Names that conda-forge gives otherwise.
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib", "dask-core": "dask"}
WHOLE = ("app", "notebooks", "tracking")  # what an ordinary install takes


def named_ranges(lines: list[str]) -> dict[str, str]:
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(CONDA_NAMES.get(one.name, one.name)): str(one.specifier) for one in requirements}


def test_conda_and_pip_ask_for_the_same_packages_in_the_same_ranges():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [line for line in environment["dependencies"] if isinstance(line, str)]
    (from_pip,) = (line["pip"] for line in environment["dependencies"] if isinstance(line, dict))
    assert from_pip[-1] == "-e ."
    listed = named_ranges([*conda, *from_pip[:-1]])
    assert listed.pop("pip") == ""
    assert listed.pop("python") == PROJECT["requires-python"]
    extras = PROJECT["optional-dependencies"]
    assert listed == named_ranges([line for name in (*WHOLE, "dev", "download") for line in extras[name]])
    assert PROJECT["dependencies"] == [f"melanoma_lib[{','.join(WHOLE)}]"]


def as_text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def test_env_example_shows_every_setting_with_its_meaning_and_default():
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert all(line.startswith("# ") for line in lines[:3])
    expected = []
    for name, field in Settings.model_fields.items():
        choices = typing.get_args(field.annotation) if typing.get_origin(field.annotation) is typing.Literal else ()
        options = f" [{', '.join(choices)}]" if choices else ""
        expected += ["", f"# {field.description}{options}", f"#MELANOMA_{name.upper()}={as_text(field.default)}"]
    assert lines[3:] == expected


README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README + (ROOT / "data/README.md").read_text(), flags=re.M | re.S)
COMMANDS = re.findall(r"^python -m melanoma_lib (.+)$", "".join(text for language, text in BLOCKS if not language), flags=re.M)


def test_the_readme_names_each_command_and_only_targets_that_exist():
    assert [name for name in command_names() if f"python -m melanoma_lib {name}" not in README] == []
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", README, flags=re.M))
    assert {"notebooks", "test", "lab"} <= named <= targets


def test_the_readme_links_to_files_that_exist_and_describes_its_pictures():
    links = re.findall(r"(!?)\[([^\]]*)\]\(([^)]+)\)", README)
    assert [target for _, _, target in links if not target.startswith("http") and not (ROOT / target).is_file()] == []
    assert all(len(text) > 30 for mark, text, _ in links if mark)


def test_the_python_of_the_readme_runs(monkeypatch, capsys, tiny_run):
    monkeypatch.setattr(Run, "default", lambda folder: tiny_run)
    code = "".join(text for language, text in BLOCKS if language == "python")  # a later block goes on from an earlier one
    exec(compile(code, "README.md", "exec"), {})
    rule, specificity = capsys.readouterr().out.rsplit(maxsplit=1)
    assert rule == tiny_run.operating_point.rule
    assert 0 <= float(specificity) <= 1


def launched() -> list[str]:
    """The words after ``melanoma_lib`` in each command of the page, continued lines joined, as YAML lists too."""
    page = (ROOT / "docs/launch.md").read_text()
    jobs = [yaml.safe_load_all(text) for text in re.findall(r"^```yaml\n(.*?)^```$", page, flags=re.M | re.S)]
    specs = [job["spec"]["template"]["spec"] for jobs in jobs for job in jobs if job["kind"] == "Job"]
    args = [spec["containers"][0]["args"] for spec in specs]
    shell = re.findall(r"melanoma_lib ([^\[\n`]+)$", re.sub(r"\\\n\s*", "", page), flags=re.M)
    return [*shell, *(shlex.join(one[one.index("melanoma_lib") + 1 :]) for one in args)]


@pytest.mark.parametrize("command", [*COMMANDS, *launched()])
def test_a_command_of_the_readme_or_the_launch_page_is_one_the_kit_takes(command):
    command = command.replace("$SLURM_ARRAY_TASK_ID", "3")
    assert isinstance(settings_of(parsed(shlex.split(command, comments=True))), Settings)


# Stands in for any python: answers the version question as told, logs every call, makes environments of copies of itself.
FAKE_PYTHON = """#!/bin/sh
echo "$(basename "$0") $*" >> "$FAKE_LOG"
case "$*" in
  *version_info*) exit "${FAKE_TOO_OLD:-0}" ;;
  "--version") echo "Python 3.11.0" ;;
  "-m venv"*) for last in "$@"; do :; done; mkdir -p "$last/bin"; cp "$0" "$last/bin/python" ;;
  "-m pip install"*) exit "${FAKE_PIP_FAILS:-0}" ;;
esac
"""


class Sandbox:
    """A copy of the Makefile with a fake python, and nothing else but the system's tools."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, tools = folder, folder / "calls.log", folder / "tools"
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, folder / name)
        tools.mkdir()
        for tool in ("make", "sh", "rm", "touch", "mkdir", "cp", "basename", "awk", "find"):
            (tools / tool).symlink_to(shutil.which(tool))
        (tools / "python3").write_text(FAKE_PYTHON)
        (tools / "python3").chmod(0o755)

    def make(self, *words: str, **environment: str) -> subprocess.CompletedProcess:
        self.log.write_text("")
        variables = {"PATH": str(self.folder / "tools"), "FAKE_LOG": str(self.log), **environment}
        return subprocess.run(["make", *words], cwd=self.folder, env=variables, capture_output=True, text=True, check=False)

    @property
    def calls(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if "version" not in line]


@pytest.fixture
def sandbox(tmp_path):
    if not shutil.which("make"):
        pytest.skip("the Makefile needs make")
    return Sandbox(tmp_path)


PYTEST = "python -m pytest -n 2 --dist loadgroup --durations=15 -m not slow"


def test_make_sets_up_once_and_again_when_dependencies_change(sandbox):
    install = "python -m pip install -e .[dev,download]"
    assert sandbox.make("test").returncode == 0
    assert sandbox.calls == ["python3 -m venv --clear .venv", install, PYTEST]
    sandbox.make("test")
    assert sandbox.calls == [PYTEST]
    later = (sandbox.folder / ".venv/.installed").stat().st_mtime + 5
    os.utime(sandbox.folder / "pyproject.toml", (later, later))
    sandbox.make("test")
    assert sandbox.calls == [install, PYTEST]


def test_a_half_finished_install_leaves_no_stamp(sandbox):
    assert sandbox.make("test", FAKE_PIP_FAILS="1").returncode != 0
    assert not (sandbox.folder / ".venv/.installed").exists()
    assert sandbox.make("test").returncode == 0
    assert sandbox.calls[-2:] == ["python -m pip install -e .[dev,download]", PYTEST]


def test_an_old_python_is_a_clear_error(sandbox):
    failed = sandbox.make("test", FAKE_TOO_OLD="1")
    assert failed.returncode != 0 and "no Python 3.11 or newer" in failed.stderr
    assert not (sandbox.folder / ".venv").exists()
