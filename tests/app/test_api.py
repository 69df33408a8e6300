"""What docs/api.md and docs/faults.md say is what the server does; nothing of what it is sent stays behind.

To write docs/faults.md anew: MELANOMA_TEST_WRITE=1 python -m pytest tests/app/test_api.py
"""

import base64
import json
import os
import re
import subprocess
from html import escape
from pathlib import Path

import httpx
import pytest

from melanoma_lib.app.server import Question
from melanoma_lib.app.service import Patient
from melanoma_lib.export import card_text
from melanoma_lib.runs import Run
from melanoma_lib.settings import TEST_ENV_PREFIX
from tests.app.pictures import API_FAULTS, FAULTS

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT, TABLE = (DOCS / "api.md").read_text(encoding="utf-8"), DOCS / "faults.md"
ADDRESS, MARKER = "http://127.0.0.1:7860", b"MARK-OF-THE-UPLOAD"
WRITE = f"{TEST_ENV_PREFIX}WRITE"
pytestmark = pytest.mark.xdist_group("app-page")


def block(language: str) -> str:
    return re.search(rf"^```{language}\n(.*?)^```$", DOCUMENT, flags=re.M | re.S)[1]


def fields_of(heading: str) -> set[str]:
    table = re.search(rf"^\| field of the {heading} .*?\n\n", DOCUMENT, flags=re.M | re.S)[0]
    return set(re.findall(r"^\| `(\w+)`", table, flags=re.M))


def test_the_examples_run_and_answer_as_the_service(server, service, lesion, capsys):
    Path("lesion.jpg").write_bytes(lesion)
    names: dict = {}
    exec(compile(block("python").replace(ADDRESS, server.url), "api.md", "exec"), names)
    expected = service.ask(service.admit(lesion), Patient(55, "female", "torso"), prevalence=0.02)
    for field in ("risk", "logit", "threshold", "risk_at_prevalence", "ppv_at_prevalence"):
        assert names["answer"][field] == pytest.approx(expected[field], abs=1e-5)
    assert capsys.readouterr().out.startswith(f"risk {expected['risk']:.2f}, flagged {expected['flagged']}")
    done = subprocess.run(["sh", "-c", block("sh").replace(ADDRESS, server.url)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["risk"] == pytest.approx(service.ask(service.admit(lesion), Patient(55))["risk"], abs=1e-5)


def test_every_field_is_documented(server, lesion):
    assert fields_of("question") == set(Question.model_fields)
    assert fields_of("answer") == set(server.predict(lesion)[1])
    facts = httpx.get(f"{server.url}/api/facts", trust_env=False).json()
    section = DOCUMENT.split("## GET /api/facts")[1].split("##")[0]
    assert set(re.findall(r"`(\w+)`", section)) == set(facts)
    assert httpx.get(f"{server.url}/api/card", trust_env=False).text == card_text(Run(server.run_dir))


def test_the_server_hands_out_nothing_but_the_page(server):
    for path in ("gradio_api/upload", "gradio_api/file=/etc/passwd", "gradio_api/proxy=https://example.org", "gradio_api/runs",
                 "gradio_api/vibe-code", "docs", "openapi.json", "../../etc/passwd"):  # fmt: skip
        assert server.send(f"/{path}", b"x")[0] == 404, path
    policy = httpx.get(server.url, trust_env=False).headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy


def test_faults_are_answered_in_words_and_leave_nothing_behind(server, lesion):
    known, files, rows = server.predict(lesion, age=60, sex="male", site="torso"), server.files(), []
    assert known[0] == 200

    def note(what: str, name: str, sees: str, pattern: str) -> None:
        assert re.search(pattern, sees), (what, sees)
        assert server.predict(lesion, age=60, sex="male", site="torso") == known, what
        shown = re.sub(r" \([^)]*\d\.\d\d[^)]*\)", "", sees)  # measured numbers depend on the machine that trained the run
        cells = (what, f"`{name[:40]}{'…' * (len(name) > 40)}`" if name else "", shown.strip())
        rows.append("| " + " | ".join(escape(cell, quote=False).replace("|", "\\|") for cell in cells) + " |")

    for fault in FAULTS:
        data = fault.make()
        data += MARKER if data else b""  # behind the end of the picture, where every decoder lets it lie
        status, said = server.send("/api/images", data)
        assert status == (200 if fault.accepted else 422), (fault.what, said)
        if fault.accepted:
            assert server.send(f"/api/images/{said['image']}", b"", "DELETE") == (200, {})
            told = [text for text in (*said["notes"], *said["warnings"]) if "To the network" not in text]
            sees = " ".join(["“No answer to rely on”." if said["warnings"] else "An answer.", *told])
        else:
            sees = said["error"]
        note(fault.what, fault.name, sees, fault.sees)
    for what, body, pattern in API_FAULTS:
        if isinstance(body, dict):
            body = json.dumps({"image": base64.b64encode(lesion).decode(), **body}).encode()
        status, said = server.send("/api/predict", body)
        assert status == (422 if pattern else 200), (what, said)  # Python's NaN is no JSON, but means not known
        note(f"API: {what}", "", said["error"] if pattern else "An answer, with the age unknown.", pattern)
    memory = server.memory()
    status, said = server.send("/api/images", bytes(60 * 1024**2))
    assert status == 422
    assert server.memory() - memory < 60
    note("API: 60 MB", "", said["error"], "has 60 MB; this page takes up to 20 MB")

    assert server.files() <= files
    assert server.said() == []
    assert server.holds(MARKER) == []
    heading, line, rest = TABLE.read_text(encoding="utf-8").partition("|---|---|---|\n")
    text = heading + line + "\n".join(rows) + "\n" + "".join(rest.partition("\n## ")[1:])  # tests/test_situations.py writes on
    if os.environ.get(WRITE):
        TABLE.write_text(text, encoding="utf-8")
    assert TABLE.read_text(encoding="utf-8").splitlines() == text.splitlines(), f"{WRITE}=1 writes it anew"
