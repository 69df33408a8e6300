"""The page in a real browser, driven end to end: upload, metadata, layers, prevalence, every fault; and nothing left behind.

``docs/faults.md`` is what this module saw. To write it anew: MELANOMA_TEST_WRITE=1 python -m pytest tests/app/test_page.py
"""

import base64
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path

import pytest

from melanoma_lib.app import Patient
from melanoma_lib.app.words import percent
from melanoma_lib.settings import TEST_ENV_PREFIX
from tests.app import pictures
from tests.app.pictures import API_FAULTS, FAULTS
from tests.browser.lab import watch_faults

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
from playwright.sync_api import Browser, Page, expect, sync_playwright

pytestmark = pytest.mark.xdist_group("app-page")
PATIENCE = 30_000  # ms
TABLE = Path(__file__).parents[2] / "docs" / "faults.md"
MEANT = re.compile("422|on-purpose|Fetch API cannot load http://127.0.0.2")  # what the browser says of refusals provoked here
WRITE = f"{TEST_ENV_PREFIX}WRITE"
HEADING = """# What the app says to what it should not be sent

Written by `tests/app/test_page.py`, which sent each file through the page in Chromium (the last lines through the API) and noted
what came back. After each of them it looked: *answers* means that the next lesion got the very answer it had got before; *files*
counts what was new on disk in the server's home, working, temporary and run directories; *log* counts the lines the server had
written.

Educational, not for diagnosis.

| what is sent | file name | what the user sees | answers | files | log |
|---|---|---|---|---|---|
"""
rows: dict[str, str] = {}


@pytest.fixture(scope="module")
def browser(browser_path) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"], timeout=PATIENCE)


@contextmanager
def opened(browser: Browser, url: str, **options) -> Iterator[tuple[Page, list[str]]]:
    """A fresh page that can reach this machine alone, and the list of what it did wrong."""
    page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **options})
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    faults = watch_faults(page)
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" and not MEANT.search(said.text) else None)
    page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
    page.goto(url)
    expect(page.locator("[data-example]").first).to_be_visible()
    yield page, faults
    page.close()


@pytest.fixture(scope="module")
def opened_page(server, browser):
    with opened(browser, server.url) as (page, faults):
        yield page
        assert not faults, "\n".join(faults)


@pytest.fixture
def page(opened_page: Page) -> Page:
    return opened_page


def upload(page: Page, data: bytes, name: str = "lesion.jpg") -> None:
    page.locator("#ml-picker input[type=file]").set_input_files({"name": name, "mimeType": "image/jpeg", "buffer": data})


def wait_for_end(page: Page) -> str:
    """Wait until the last choice was answered or refused; returns which."""
    status = page.locator(".ml-status")
    expect(status).to_have_attribute("data-kind", re.compile("done|problem"))
    kind = status.get_attribute("data-kind")
    if kind == "done":
        for part in ("answer", "pictures"):
            expect(page.locator(f"#ml-{part} [data-case]:not([data-case^=example]):not(.ml-old)")).to_be_visible()
    else:
        expect(page.locator("#ml-answer .ml-empty")).to_be_visible()
        expect(page.locator("#ml-pictures")).to_contain_text("Appears with the image")
    return kind


def reset(page: Page) -> None:
    """Back to the first example, whose answer cannot be taken for an upload's."""
    page.locator("[data-example=example-4]").click()
    expect(page.locator(".ml-status")).to_contain_text("in the dark")
    for part in ("answer", "pictures"):
        expect(page.locator(f"#ml-{part} [data-case=example-4]:not(.ml-old)")).to_be_visible()
    expect(page.get_by_label("Age in years")).to_have_value("")
    page.evaluate("document.querySelector('.ml-status').dataset.kind = ''")


# --- end to end ------------------------------------------------------------------------------------------------------------


def test_upload_then_metadata_then_layer_then_prevalence(page, service, lesion):
    page.reload()
    expect(page.locator("[data-example]").first).to_be_visible()
    expect(page.locator("#ml-answer")).to_contain_text("No image yet")
    upload(page, lesion, "my lesion.jpg")
    expect(page.locator(".ml-status")).to_contain_text("my lesion.jpg")
    case = service.admit(lesion)

    def shows(patient: Patient, tta: bool = False) -> None:
        answer = service.ask(case, patient, tta)
        expect(page.locator("#ml-answer")).to_contain_text(f"Model output {answer.probability:.3f}")
        expect(page.locator("#ml-answer .ml-number")).to_have_text(percent(answer.risk))

    shows(Patient())
    expect(page.locator(".ml-pictures img")).to_have_count(2)
    page.get_by_label("Age in years").fill("71")
    shows(Patient(71))
    page.get_by_label("Sex").click()
    page.get_by_role("option", name="female", exact=True).click()
    shows(Patient(71, "female"))
    page.get_by_label("Site").click()
    page.get_by_role("option", name="torso").click()
    shows(Patient(71, "female", "torso"))
    page.get_by_label("Average eight flips and turns").check()
    shows(Patient(71, "female", "torso"), tta=True)
    page.get_by_label("Average eight flips and turns").uncheck()
    shows(Patient(71, "female", "torso"))

    before = page.locator(".ml-pictures img").nth(1).get_attribute("src")
    page.get_by_label("Layer, early to late").click()
    page.get_by_role("option").first.click()
    first = next(iter(service.layers))
    expect(page.locator(".ml-pictures figcaption").nth(1)).to_contain_text(f"Grad-CAM of {first}")
    assert page.locator(".ml-pictures img").nth(1).get_attribute("src") != before
    page.get_by_label("Method").click()
    page.get_by_role("option", name="EigenCAM", exact=True).click()
    expect(page.locator("#ml-pictures")).to_contain_text("ignores the class")

    point = service.ask(case, Patient(71, "female", "torso")).point
    page.get_by_role("spinbutton", name=re.compile("Prevalence")).fill("2")
    many = point.per_thousand(0.02)
    expect(page.locator("#ml-meaning")).to_contain_text(f"flags {many.tp} of them and misses {many.fn}; it also flags {many.fp}")
    expect(page.locator("#ml-meaning")).to_contain_text(percent(point.ppv_at(0.02)))


def test_a_wrong_age_is_explained_and_mended(page, lesion):
    upload(page, lesion)
    page.get_by_label("Age in years").fill("-5")
    expect(page.locator("#ml-answer").get_by_role("alert")).to_contain_text("years in [0, 120]")
    page.get_by_label("Age in years").fill("old")
    expect(page.locator("#ml-answer").get_by_role("alert")).to_contain_text("'old'")
    page.get_by_label("Age in years").fill("50")
    expect(page.locator("#ml-answer .ml-verdict")).to_be_visible()


def test_an_example_fills_in_its_patient(page):
    page.locator("[data-example=example-0]").click()
    expect(page.locator(".ml-status")).to_contain_text("Painted lesion, melanoma")
    expect(page.get_by_label("Age in years")).not_to_have_value("50")
    expect(page.locator("[data-example=example-0]")).to_have_attribute("aria-pressed", "true")


def test_the_page_works_by_keyboard(page):
    reset(page)
    page.locator("[data-example=example-1]").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".ml-status")).to_contain_text("not melanoma")
    expect(page.locator("#ml-answer [data-case=example-1]")).to_be_visible()


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_layout_banner_and_contrast(server, browser, width, height, scheme, tmp_path):
    with opened(browser, server.url, viewport={"width": width, "height": height}, color_scheme=scheme) as (page, faults):
        page.locator("[data-example=example-0]").click()
        expect(page.locator(".ml-pictures img").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for where in (0, 700, 10**6):
            page.evaluate(f"scrollTo(0, {where})")
            box = page.locator(".ml-banner").bounding_box()
            assert -2 <= box["y"] < 40, f"the banner is out of view at {where}"
        assert page.locator(".ml-banner").inner_text().startswith("Educational, not for diagnosis")
        weak = page.evaluate(CONTRAST)
        assert not weak, weak
        page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
    assert not faults


# Texts whose contrast with what lies behind is below 4.5 (WCAG 2 AA); backgrounds are opaque or none here.
CONTRAST = """() => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => { for (; node; node = node.parentElement) {
    const colour = numbers(getComputedStyle(node).backgroundColor); if (colour.length < 4 || colour[3] === 1) return colour; }
    return [255, 255, 255]; };
  return [...document.querySelectorAll("[class*='ml-'] *, [class*='ml-']")].filter((node) => node.checkVisibility()
    && [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim())).map((node) => {
    const a = light(numbers(getComputedStyle(node).color)), b = light(behind(node));
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.textContent.trim().slice(0, 40)];
  }).filter(([ratio]) => ratio < 4.5); }"""


def test_the_server_hands_out_nothing_but_the_page(server):
    for path in ("gradio_api/upload", "gradio_api/file=/etc/passwd", "gradio_api/proxy=https://example.org", "gradio_api/runs",
                 "gradio_api/vibe-code", "docs", "openapi.json", "../../etc/passwd"):  # fmt: skip
        assert server.send(f"/{path}", b"x")[0] == 404, path


def test_the_browser_is_told_to_stay_on_this_machine(page, server):
    outside = page.evaluate("fetch('http://127.0.0.2:9/?on-purpose').then(() => 'sent', (error) => error.name)")
    assert outside == "TypeError"
    policy = page.request.get(server.url).headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy


# --- faults ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def known_answer(server, lesion):
    """What the lesion is answered, again and again."""
    status, answer = server.predict(lesion, age=60, sex="male", site="torso")
    assert status == 200
    return answer


def note(server, known_answer, lesion, before: dict, what: str, name: str, sees: str) -> None:
    """Look at what stayed intact, and keep a line of the table."""
    assert server.predict(lesion, age=60, sex="male", site="torso") == (200, known_answer)
    new = sorted(path for path in server.files() if path not in before)
    log = server.said()
    assert (new, log) == ([], [])
    shown = re.sub(r" \([^)]*\d\.\d\d[^)]*\)", "", sees)  # measured numbers depend on the machine that trained the run
    cells = (what, f"`{name[:40]}{'…' * (len(name) > 40)}`" if name else "", shown, "the same", str(len(new)), str(len(log)))
    rows[what] = "| " + " | ".join(escape(cell, quote=False).replace("|", "\\|") for cell in cells) + " |"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_fault_in_the_page(page, server, known_answer, lesion, fault, tmp_path):
    reset(page)
    before = server.files()
    marker = b"MARK-" + fault.what.encode().hex().encode()
    data = fault.make()
    if fault.accepted or len(data) > 30:
        data += marker  # behind the end of the picture, where every decoder lets it lie
    if len(data) > 40 * 1024**2:  # playwright hands over no larger buffer
        large = tmp_path / fault.name
        large.write_bytes(data)
        page.locator("#ml-picker input[type=file]").set_input_files(large)
    else:
        upload(page, data, fault.name)
    kind = wait_for_end(page)
    assert kind == ("done" if fault.accepted else "problem")
    if fault.accepted:
        expect(page.locator(".ml-pictures img")).to_have_count(2)
        answer = page.locator("#ml-answer")
        parts = [*answer.locator(".ml-note").all_inner_texts(), *answer.locator(".ml-warning li").all_inner_texts()]
        withheld = "“No answer to rely on”. " if answer.locator(".ml-withheld").count() else "An answer. "
        sees = withheld + " ".join(part for part in parts if "To the network" not in part)
    else:
        sees = page.locator(".ml-status").inner_text().split(": ", 1)[1]
        assert page.locator(".ml-pictures").count() == 0, "an older picture is still in view"
    assert re.search(fault.sees, sees), sees
    assert server.holds(marker) == []
    assert not any(Path(path).name == Path(fault.name).name for path in server.files())
    note(server, known_answer, lesion, before, fault.what, fault.name, sees.strip())


def test_a_picture_turned_by_exif_is_shown_upright(page):
    reset(page)
    upload(page, pictures.encoded(pictures.lesion(), "JPEG", exif=pictures.exif(orientation=6)))
    wait_for_end(page)
    image = page.locator(".ml-pictures img").first
    page.wait_for_function("() => { const i = document.querySelector('.ml-pictures img'); return i && i.naturalWidth === 120; }")
    assert image.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [120, 160]


@pytest.mark.parametrize(("what", "fields", "pattern"), API_FAULTS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_fault_in_the_api(server, known_answer, lesion, what, fields, pattern):
    before = server.files()
    question = {"image": base64.b64encode(lesion).decode(), **fields}
    status, said = server.send("/api/predict", json.dumps(question).encode())
    if what == "age NaN":  # JSON has no NaN, but Python's writes it; it means not known
        assert status == 200
        sees = "An answer, with the age unknown."
    else:
        assert status == 422
        sees = said["error"]
        assert re.search(pattern, sees)
    note(server, known_answer, lesion, before, f"API: {what}", "", sees)


@pytest.mark.parametrize(
    ("what", "body"),
    [("no JSON", b"\xff\xfe\x00"), ("a JSON list", b"[1, 2]"), ("100,000 brackets", b"[" * 100_000)],
)
def test_a_body_that_is_no_request(server, known_answer, lesion, what, body):
    before = server.files()
    status, said = server.send("/api/predict", body)
    assert status == 422
    note(server, known_answer, lesion, before, f"API: {what}", "", said["error"])


def test_a_body_beyond_the_limit_is_refused_unread(server, known_answer, lesion):
    before, memory = server.files(), server.memory()
    status, said = server.send("/api/images", bytes(60 * 1024**2))
    assert status == 422
    assert "has 60 MB; this page takes up to 20 MB" in said["error"]
    assert server.memory() - memory < 60
    note(server, known_answer, lesion, before, "API: 60 MB", "", said["error"])


def test_the_committed_table_is_what_was_seen():
    wanted = len(FAULTS) + len(API_FAULTS) + 4
    if len(rows) < wanted:
        pytest.skip(f"the table needs all {wanted} faults of this module in one process, {len(rows)} ran")
    text = HEADING + "\n".join(rows.values()) + "\n"
    if os.environ.get(WRITE):
        TABLE.write_text(text, encoding="utf-8")
    assert json.dumps(TABLE.read_text(encoding="utf-8").splitlines()) == json.dumps(text.splitlines()), (
        f"{WRITE}=1 writes it anew"
    )
