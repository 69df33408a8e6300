"""The container's files: what the image runs, as whom, what is asked whether it is well, what outlives it."""

import fnmatch
import json
import re
import tomllib
from pathlib import Path

import httpx
import yaml

from tests.app.live import Server

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M)).splitlines()
INSTRUCTIONS = [tuple(line.split(maxsplit=1)) for line in LINES if line]
LAST_STAGE = INSTRUCTIONS[max(i for i, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM") :]
ONCE = dict(LAST_STAGE)
PORT = "7860"
EXTRAS = PROJECT["optional-dependencies"]


def test_the_image_runs_as_nobody_special_and_is_asked_on_the_port_that_is_open():
    commands = " ".join(text for name, text in LAST_STAGE if name == "RUN")
    assert f"--uid {re.fullmatch('([1-9][0-9]*):[1-9][0-9]*', ONCE['USER'])[1]} " in commands
    command = json.loads(ONCE["ENTRYPOINT"]) + json.loads(ONCE["CMD"])
    assert command == ["python", "-m", "melanoma_lib", "app", "--host", "0.0.0.0", "--port", PORT]
    check = json.loads(ONCE["HEALTHCHECK"].split(" CMD ")[1])
    assert (check[0], "--fail" in check, check[-1], ONCE["EXPOSE"]) == ("curl", True, f"http://127.0.0.1:{PORT}/", PORT)


def test_the_command_serves_the_reference_run_in_an_empty_folder_with_the_packages_of_its_extra(tmp_path):
    absent = [re.match(r"[\w-]+", line)[0] for extra in ("notebooks", "tracking") for line in EXTRAS[extra]]
    without = f"import sys\nsys.modules.update(dict.fromkeys({absent!r}))\n"
    (tmp_path / "sitecustomize.py").write_text(without)  # which Python imports first
    words = json.loads(ONCE["CMD"])
    server = Server(None, tmp_path / "kit", *words[1 : words.index("--port")], path=f"{tmp_path}:{ROOT}")
    try:
        server.start()
        facts = httpx.get(f"{server.url}/api/facts", trust_env=False).json()
        assert (facts["run"], facts["source"], facts["compares_with_training"]) == ("ham10000", "ham10000", True)
    finally:
        server.stop()


def test_compose_opens_the_port_to_this_machine_and_keeps_what_outlives_the_app():
    web = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["web"]
    assert web["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert web["volumes"] == [f"./{name}:/kit/{name}" for name in ("data", "runs", "reports")]
    assert json.loads(ONCE["VOLUME"]) == [volume.split(":")[1] for volume in web["volumes"]]
    assert (web["image"], web["restart"]) == (f"{PROJECT['name']}:{PROJECT['version']}", "on-failure:3")


def test_the_build_sees_its_sources_and_no_secret():
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    copied = [text.split()[:-1] for name, text in INSTRUCTIONS if name == "COPY" and "--from" not in text]
    assert rules[0] == "*" and not any(fnmatch.fnmatch(".env", rule) for rule in allowed)
    assert sorted(source for sources in copied for source in sources) == sorted(allowed)
