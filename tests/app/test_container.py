"""The container's files: what the image runs, as whom, what is asked whether it is well, what outlives it."""

import fnmatch
import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path
from urllib.request import urlopen

import yaml

from tests.app.live import Server

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M)).splitlines()
INSTRUCTIONS = [tuple(line.split(maxsplit=1)) for line in LINES if line]
LAST_STAGE = INSTRUCTIONS[max(i for i, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM") :]
ONCE = dict(LAST_STAGE)
PORT, KEPT = "7860", {"./data": "/kit/data", "./runs": "/kit/runs", "./reports": "/kit/reports"}
EXTRAS = PROJECT["optional-dependencies"]
# What Python does first: a package that the image lacks cannot be imported.
WITHOUT = "import sys\nsys.modules.update(dict.fromkeys({names!r}))\n"


def test_the_image_runs_as_nobody_special_and_is_asked_on_the_port_that_is_open():
    commands = " ".join(text for name, text in LAST_STAGE if name == "RUN")
    assert f"--uid {re.fullmatch('([1-9][0-9]*):[1-9][0-9]*', ONCE['USER'])[1]} " in commands
    order = [name for name, _ in LAST_STAGE]
    assert order.index("USER") > max(i for i, name in enumerate(order) if name in ("RUN", "COPY"))
    command = json.loads(ONCE["ENTRYPOINT"]) + json.loads(ONCE["CMD"])
    assert command == ["python", "-m", "melanoma_lib", "app", "--host", "0.0.0.0", "--port", PORT]
    check = json.loads(ONCE["HEALTHCHECK"].split(" CMD ")[1])
    assert (check[0], "--fail" in check, check[-1], ONCE["EXPOSE"]) == ("curl", True, f"http://127.0.0.1:{PORT}/", PORT)


def test_the_command_serves_the_reference_run_in_an_empty_folder(tmp_path):
    """What the image does, without Docker: sources as its build copies them, and no data, runs or notebooks where it works."""
    source = tmp_path / "src"
    for *names, target in (text.split() for name, text in INSTRUCTIONS if name == "COPY" and "--from" not in text):
        for name in names:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copied = source / target / ("" if target == name else name)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copy(ROOT / name, copied)
    reference = source / "data" / "reference" / "ham10000"
    absent = [re.match(r"[\w-]+", line)[0] for extra in ("notebooks", "tracking") for line in EXTRAS[extra]]
    (source / "sitecustomize.py").write_text(WITHOUT.format(names=absent))
    words = json.loads(ONCE["CMD"])
    server = Server(None, tmp_path / "kit", *words[1 : words.index("--port")], root=source)
    try:
        server.start()
        with urlopen(f"{server.url}/api/facts") as answer:
            facts = json.load(answer)
        assert (facts["run"], facts["source"], facts["compares_with_training"]) == ("ham10000", "ham10000", True)
        assert f"using {reference}" in server.log.read_text()
    finally:
        server.stop()


def test_compose_opens_the_port_to_this_machine_and_keeps_what_outlives_the_app():
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    web = compose["services"]["web"]
    assert web["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert dict(volume.split(":") for volume in web["volumes"]) == KEPT
    assert set(json.loads(ONCE["VOLUME"])) == set(KEPT.values())
    assert (web["image"], web["restart"]) == (f"{PROJECT['name']}:{PROJECT['version']}", "on-failure:3")


def test_the_build_sees_its_sources_and_no_secret_and_the_torch_that_the_kit_wants():
    (line,) = (text for name, text in INSTRUCTIONS if name == "RUN" and "whl/cpu" in text)
    asked = [word for word in shlex.split(line) if word.startswith("torch")]
    assert asked == [one for one in EXTRAS["app"] if re.match(r"torch(vision)?>", one)]
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    copied = [text.split()[:-1] for name, text in INSTRUCTIONS if name == "COPY" and "--from" not in text]
    assert rules[0] == "*"
    assert sorted(source for sources in copied for source in sources) == sorted(allowed)
    assert not any(fnmatch.fnmatch(".env", rule) for rule in allowed)
