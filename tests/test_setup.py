"""What a newcomer meets first: make, conda, .env and citation say the same as the package."""

import re
import shlex
import tomllib
import typing
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import melanoma_lib
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


def env_example() -> str:
    lines = (ROOT / ".env.example").read_text().splitlines()[:3]
    assert all(line.startswith("# ") for line in lines)
    for name, field in Settings.model_fields.items():
        choices = typing.get_args(field.annotation) if typing.get_origin(field.annotation) is typing.Literal else ()
        options = f" [{', '.join(choices)}]" if choices else ""
        lines += ["", f"# {field.description}{options}", f"#MELANOMA_{name.upper()}={as_text(field.default)}"]
    return "\n".join(lines) + "\n"


def test_env_example_shows_every_setting_with_its_meaning_and_default():
    assert (ROOT / ".env.example").read_text() == env_example()


README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README + (ROOT / "data/README.md").read_text(), flags=re.M | re.S)
COMMANDS = re.findall(r"^python -m melanoma_lib (.+)$", "".join(text for language, text in BLOCKS if not language), flags=re.M)


def test_the_readme_names_each_command_and_only_targets_that_exist():
    assert [name for name in command_names() if f"python -m melanoma_lib {name}" not in README] == []
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", README, flags=re.M))
    assert {"notebooks", "test", "lab"} <= named <= targets
    links = re.findall(r"(!?)\[([^\]]*)\]\(([^)]+)\)", README)
    assert [target for _, _, target in links if not target.startswith("http") and not (ROOT / target).is_file()] == []
    assert min(len(text) for mark, text, _ in links if mark) > 30  # pictures are described


def test_the_python_of_the_readme_runs(monkeypatch, capsys, tiny_run):
    monkeypatch.setattr(Run, "default", lambda folder: tiny_run)
    code = "".join(text for language, text in BLOCKS if language == "python")  # a later block goes on from an earlier one
    exec(compile(code, "README.md", "exec"), {})
    rule, specificity = capsys.readouterr().out.rsplit(maxsplit=1)
    assert rule == tiny_run.operating_point.rule
    assert 0 <= float(specificity) <= 1


LAUNCH = (ROOT / "docs/launch.md").read_text()


def launched() -> list[str]:
    """The words after ``melanoma_lib`` in each command of the page, continued lines joined, as YAML lists too."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", LAUNCH, flags=re.M | re.S)
    shell = re.sub(r"\\\n\s*", "", "".join(text for language, text in blocks if language in ("", "bash")))
    found = re.findall(r"melanoma_lib (.+)$", shell, flags=re.M)
    for text in (text for language, text in blocks if language == "yaml"):
        for document in yaml.safe_load_all(text):
            if document["kind"] == "Job":
                args = document["spec"]["template"]["spec"]["containers"][0]["args"]
                found.append(shlex.join(args[args.index("melanoma_lib") + 1 :]))
    return found


@pytest.mark.parametrize("command", [*COMMANDS, *launched()])
def test_a_command_of_the_readme_or_the_launch_page_is_one_the_kit_takes(command):
    command = command.replace("$SLURM_ARRAY_TASK_ID", "3")
    assert isinstance(settings_of(parsed(shlex.split(command, comments=True))), Settings)


def test_citation_names_this_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == melanoma_lib.__version__ == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert (ROOT / "LICENSE").read_text().startswith(f"{PROJECT['license']} License")
