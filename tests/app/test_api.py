"""What docs/api.md says is what the API does."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.request import urlopen

import pytest

from melanoma_lib.app import Patient
from melanoma_lib.app.server import FIELDS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:7860"
pytestmark = pytest.mark.xdist_group("app-page")


def block(language: str) -> str:
    return re.search(rf"^```{language}\n(.*?)^```$", DOCUMENT, flags=re.M | re.S)[1]


def fields_of(heading: str) -> set[str]:
    table = re.search(rf"^\| field of the {heading} .*?\n\n", DOCUMENT, flags=re.M | re.S)[0]
    return set(re.findall(r"^\| `(\w+)`", table, flags=re.M))


def test_the_example_runs_and_answers_as_the_service(server, service, lesion, capsys):
    Path("lesion.jpg").write_bytes(lesion)
    assert ADDRESS in block("python")
    names: dict = {}
    exec(compile(block("python").replace(ADDRESS, server.url), "api.md", "exec"), names)
    expected = service.ask(service.admit(lesion), Patient(55, "female", "torso")).to_dict(0.02)
    assert _close(names["answer"], expected)
    assert capsys.readouterr().out.startswith(f"risk {expected['risk']:.2f}, flagged {expected['flagged']}")


def test_the_shell_example_runs(server, service, lesion):
    if not (shutil.which("curl") and shutil.which("base64")):
        pytest.skip("the example needs curl and base64")
    Path("lesion.jpg").write_bytes(lesion)
    done = subprocess.run(["sh", "-c", block("sh").replace(ADDRESS, server.url)], capture_output=True, text=True, check=True)
    expected = service.ask(service.admit(lesion), Patient(55)).risk
    assert json.loads(done.stdout)["risk"] == pytest.approx(expected, abs=1e-5)


def test_every_field_is_documented(server, lesion):
    assert fields_of("question") == set(FIELDS)
    status, answer = server.predict(lesion)
    assert status == 200
    assert fields_of("answer") == set(answer)
    with urlopen(f"{server.url}/api/facts") as said:
        facts = json.load(said)
    section = DOCUMENT.split("## GET /api/facts")[1].split("##")[0]
    assert set(re.findall(r"`(\w+)`", section)) == set(facts)


def test_upload_and_farewell(server, lesion):
    status, said = server.send("/api/images", lesion)
    assert (status, said["warnings"]) == (200, [])
    assert server.send(f"/api/images/{said['image']}", b"", "DELETE") == (200, {})
    assert server.send("/api/images/never-there", b"", "DELETE") == (200, {})


def _close(found: object, expected: object) -> bool:
    """Equal, numbers to within 1e-5."""
    if isinstance(expected, dict):
        return set(found) == set(expected) and all(_close(found[key], expected[key]) for key in expected)
    if isinstance(expected, float):
        return abs(found - expected) < 1e-5
    return found == expected
