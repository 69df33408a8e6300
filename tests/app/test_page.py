"""The page in a real browser: upload, metadata, layers, prevalence, refusals; what is shown, read aloud and sent."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from PIL import Image

from melanoma_lib.app.page import percent
from melanoma_lib.app.service import Patient
from tests.app.live import Server
from tests.app.pictures import FAULTS, encoded, exif
from tests.app.pictures import lesion as painted
from tests.browser.lab import watch_faults

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
from playwright.sync_api import Browser, Page, expect, sync_playwright

pytestmark = pytest.mark.xdist_group("app-page")
PATIENCE = 30_000  # ms
MEANT = re.compile("422|on-purpose|Fetch API cannot load http://127.0.0.2")  # what the browser says of refusals provoked here


@pytest.fixture(scope="module")
def browser(chromium) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"], timeout=PATIENCE)


@contextmanager
def opened(browser: Browser, url: str, **options) -> Iterator[Page]:
    """A fresh page that can reach this machine alone; at the end nothing may have gone wrong in it."""
    page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **options})
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    faults = watch_faults(page)
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" and not MEANT.search(said.text) else None)
    page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
    page.goto(url)
    expect(page.locator("[data-example]").first).to_be_visible()
    yield page
    page.close()
    assert not faults, "\n".join(faults)


def upload(page: Page, data: bytes, name: str = "lesion.jpg") -> None:
    page.locator("#ml-picker input[type=file]").set_input_files({"name": name, "mimeType": "image/jpeg", "buffer": data})


def answered(page: Page, **asked) -> None:
    """Wait until the page shows what ``asked`` for the service says."""
    said = asked.pop("service").ask(asked.pop("case"), Patient(**asked))
    expect(page.locator("#ml-answer")).to_contain_text(f"Uncalibrated probability {said['probability']:.3f}")
    expect(page.locator("#ml-answer .ml-number")).to_have_text(percent(said["risk"]))


def test_upload_then_metadata_then_layer(server, browser, service, lesion):
    with opened(browser, server.url) as page:
        expect(page.locator("#ml-answer")).to_contain_text("No answer yet")
        upload(page, lesion, "my lesion.jpg")
        expect(page.locator(".ml-status")).to_contain_text("my lesion.jpg")
        known = {"service": service, "case": service.admit(lesion)}
        answered(page, **known)
        expect(page.locator(".ml-pictures figure")).to_have_count(2)
        page.wait_for_timeout(1000)
        asked = []
        page.on("request", lambda request: asked.append(request.url) if "/run/" in request.url else None)
        page.get_by_label("Age in years").fill("71")
        answered(page, **known, age=71)
        page.wait_for_timeout(1000)
        assert len(asked) == 1, asked  # nothing goes on asking by itself
        for label, value in (("Sex", "female"), ("Site", "torso")):
            page.get_by_label(label).click()
            page.get_by_role("option", name=value, exact=True).click()
        answered(page, **known, age=71, sex="female", site="torso")
        page.get_by_label("Site").focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Tab")
        expect(page.get_by_role("option")).to_have_count(0)  # Gradio itself leaves the list open

        before = page.locator(".ml-map").get_attribute("src")
        page.get_by_label("Layer, early to late").click()
        page.get_by_role("option").first.click()
        expect(page.locator("#ml-pictures details")).to_contain_text(f"Layer {next(iter(service.layers))}")
        assert page.locator(".ml-map").get_attribute("src") != before
        page.get_by_label("Method").click()
        page.get_by_role("option", name="EigenCAM", exact=True).click()
        expect(page.locator("#ml-pictures")).to_contain_text("ignores the class")
        page.get_by_role("spinbutton", name=re.compile("opacity")).fill("40")
        expect(page.locator(".ml-map")).to_have_css("opacity", "0.4")
        outside = page.evaluate("fetch('http://127.0.0.2:9/?on-purpose').then(() => 'sent', (error) => error.name)")
        assert outside == "TypeError"  # the browser is told to stay on this machine


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_the_prevalence_stands_beside_what_it_moves(server, browser, service, lesion, width, height):
    with opened(browser, server.url, viewport={"width": width, "height": height}) as page:
        upload(page, lesion)
        case, meaning = service.admit(lesion), page.locator("#ml-meaning")
        typed = page.get_by_role("spinbutton", name=re.compile("Prevalence"))
        typed.click()
        page.keyboard.press("Control+A")
        page.keyboard.type("2,5", delay=60)  # a decimal comma
        expect(meaning).to_contain_text("Where 2.5% of lesions")
        answer = service.ask(case, Patient(), prevalence=0.025)
        many = answer["of_thousand"]
        expect(meaning.locator(".ml-carried")).to_have_text(percent(answer["risk_at_prevalence"]))
        expect(meaning).to_contain_text(f"flags {many['tp']} of them and not the other {many['fn']}")
        expect(meaning).to_contain_text(percent(answer["ppv_at_prevalence"]))
        slider = page.get_by_role("slider", name=re.compile("Prevalence|range slider")).first
        slider.scroll_into_view_if_needed()
        gap = meaning.locator(".ml-carried").bounding_box()["y"] - slider.bounding_box()["y"]
        assert 0 < gap < 200
        slider.focus()
        for _ in range(25):
            page.keyboard.press("ArrowRight")
        expect(meaning).to_contain_text(f"Where {percent(float(typed.input_value()) / 100)} of lesions")
        typed.fill("75")  # beyond the slider's end, which it then takes
        typed.press("Tab")
        expect(typed).to_have_value("50")
        expect(meaning).to_contain_text("Where 50% of lesions")


def test_a_wrong_age_is_told_beside_its_field_and_the_answer_stays(server, browser, service, lesion):
    with opened(browser, server.url) as page:
        upload(page, lesion)
        answered(page, service=service, case=service.admit(lesion))
        risk = page.locator("#ml-answer .ml-number").inner_text()
        for wrong in ("-5", "old", "999"):
            page.get_by_label("Age in years").fill(wrong)
            expect(page.locator("#ml-wrong").get_by_role("alert")).to_contain_text("years from 0 to 120")
            expect(page.locator("#ml-answer .ml-number")).to_have_text(risk)
        upload(page, encoded(painted(), "JPEG"))  # another picture gets no answer for such an age, nor keeps the former one
        expect(page.locator("#ml-answer").get_by_role("alert")).to_contain_text("while the age is wrong")
        expect(page.locator(".ml-pictures")).to_have_count(0)
        page.get_by_label("Age in years").fill("")
        expect(page.locator("#ml-answer h2")).to_contain_text(re.compile("lagged|rely on"))
        expect(page.locator("#ml-wrong")).to_be_empty()


def test_what_is_saved_and_removed_and_what_a_lost_server_leaves(app_run, browser, service, lesion, tmp_path):
    own = Server(app_run.path, tmp_path / "own")
    own.start()
    page = browser.new_page()
    page.goto(own.url)
    upload(page, lesion)
    with page.expect_download() as answer:
        page.get_by_text("Save the answer").click()
    saved = json.loads(answer.value.path().read_text())
    assert saved["risk"] == pytest.approx(service.ask(service.admit(lesion), Patient())["risk"], abs=1e-5)
    assert saved["note"] == "Educational, not for diagnosis."
    with page.expect_download() as picture:
        page.get_by_text("Save the picture").click()
    with Image.open(picture.value.path()) as image:
        assert (image.format, image.width) == ("PNG", 1280)
    page.get_by_text("Remove", exact=True).click()
    expect(page.locator("#ml-answer")).to_contain_text("No answer yet")
    upload(page, lesion)
    expect(page.locator("#ml-answer .ml-number")).to_be_visible()
    own.stop()
    page.get_by_label("Age in years").fill("50")
    expect(page.locator(".ml-gone")).to_be_visible()
    expect(page.locator("#ml-answer .ml-number")).to_be_hidden()
    upload(page, lesion)
    expect(page.locator(".ml-status")).to_contain_text("The server does not answer")
    page.close()


class Proxy(BaseHTTPRequestHandler):
    """Shows a server below /kit and strips that from what it asks, as nginx does with a slash behind its ``proxy_pass``."""

    def do_GET(self) -> None:
        if not self.path.startswith("/kit/"):
            return self.send_error(404)
        headers = dict(self.headers.items()) | {"Connection": "close"}
        body = self.rfile.read(int(headers.get("Content-Length", 0)))
        url = self.server.target + self.path.removeprefix("/kit")
        answer = httpx.request(self.command, url, content=body, headers=headers, timeout=None, trust_env=False)
        self.send_response(answer.status_code)
        self.send_header("Content-Type", answer.headers["content-type"])
        self.end_headers()
        return self.wfile.write(answer.content)

    do_POST = do_DELETE = do_GET

    def log_message(self, *_) -> None:
        """Say nothing."""


@contextmanager
def below_kit(target: str) -> Iterator[str]:
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    proxy.target = target
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{proxy.server_port}/kit/"
    proxy.shutdown()


def test_behind_a_proxy_that_strips_a_path(server, browser, app_run, lesion, tmp_path):
    told = Server(app_run.path, tmp_path / "told", "--root-path", "/kit")
    try:
        told.start()
        with below_kit(told.url) as url, opened(browser, url) as page:
            upload(page, lesion)
            expect(page.locator("#ml-answer")).to_contain_text("Uncalibrated probability")
            expect(page.locator(".ml-map")).to_be_visible()
    finally:
        told.stop()
    with below_kit(server.url) as url:
        page = browser.new_page()
        page.goto(url)
        expect(page.locator(".ml-status")).to_contain_text("start the app with --root-path")
        page.close()


def test_the_painting_by_keyboard_and_what_replaces_it(server, browser):
    with opened(browser, server.url) as page:
        page.locator("[data-example=example-0]").focus()
        page.keyboard.press("Enter")
        expect(page.locator(".ml-status")).to_contain_text("A painting by this kit, no photograph")
        expect(page.locator("#ml-answer [data-case=example-0] .ml-withheld")).to_contain_text("No answer to rely on")
        expect(page.locator("#ml-answer .ml-warning")).to_contain_text("a painting that the kit made")
        assert page.locator("[data-example] img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 256
        expect(page.locator("[data-example=example-0]")).to_have_attribute("aria-pressed", "true")

        refused = {fault.what: fault for fault in FAULTS}["JPEG cut in half"]
        upload(page, refused.make(), "<img src=x onerror=alert(1)>.jpg")  # shown as text, or a dialog opens
        expect(page.locator(".ml-status")).to_contain_text(re.compile(f"<img src=x .*{refused.sees}"))
        expect(page.locator("#ml-answer .ml-empty")).to_be_visible()
        expect(page.locator(".ml-pictures")).to_have_count(0)  # no older picture is left in view

        upload(page, encoded(painted(), "JPEG", exif=exif(orientation=6)))
        upright = "() => { const i = document.querySelector('.ml-pictures img'); return i && i.naturalWidth === 120; }"
        page.wait_for_function(upright)
        upload(page, {fault.what: fault for fault in FAULTS}["photograph in the dark"].make(), "dark.png")
        expect(page.locator("#ml-answer .ml-warning")).to_contain_text("too dark")
        expect(page.locator("#ml-answer .ml-withheld")).to_contain_text("No answer to rely on")


@pytest.mark.parametrize(("width", "height", "scheme"), [(1280, 900, "light"), (390, 844, "dark")])
def test_layout_banner_and_contrast(server, browser, lesion, width, height, scheme):
    options = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
    with opened(browser, server.url, **options) as page:
        upload(page, lesion)
        expect(page.locator(".ml-pictures img").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for where in (0, 700, 10**6):
            page.evaluate(f"scrollTo(0, {where})")
            box = page.locator(".ml-banner").bounding_box()
            assert -2 <= box["y"] < 40, f"the banner is out of view at {where}"
        assert page.locator(".ml-banner").inner_text().startswith("Educational, not for diagnosis")
        weak = page.evaluate(CONTRAST)
        assert not weak, weak


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
