"""The page in a real browser: upload, metadata, layers, prevalence, refusals; what is shown, read aloud and sent."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

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


def test_upload_then_metadata_then_layer_then_prevalence(server, browser, service, lesion):
    with opened(browser, server.url) as page:
        expect(page.locator("#ml-answer")).to_contain_text("No image yet")
        upload(page, lesion, "my lesion.jpg")
        expect(page.locator(".ml-status")).to_contain_text("my lesion.jpg")
        case = service.admit(lesion)

        def shows(patient: Patient, tta: bool = False) -> None:
            answer = service.ask(case, patient, tta)
            expect(page.locator("#ml-answer")).to_contain_text(f"Uncalibrated probability {answer['probability']:.3f}")
            expect(page.locator("#ml-answer .ml-number")).to_have_text(percent(answer["risk"]))

        shows(Patient())
        expect(page.locator(".ml-pictures img")).to_have_count(2)
        for wrong, told in (("-5", "years in [0, 120]"), ("old", "'old'")):
            page.get_by_label("Age in years").fill(wrong)
            expect(page.locator("#ml-answer").get_by_role("alert")).to_contain_text(told)
        page.wait_for_timeout(1000)
        asked = []
        page.on("request", lambda request: asked.append(request.url) if "/run/" in request.url else None)
        page.get_by_label("Age in years").fill("71")
        shows(Patient(71))
        page.wait_for_timeout(1000)
        assert len(asked) == 2, asked  # an answer and a heatmap; nothing goes on asking by itself
        for label, value in (("Sex", "female"), ("Site", "torso")):
            page.get_by_label(label).click()
            page.get_by_role("option", name=value, exact=True).click()
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

        answer = service.ask(case, Patient(71, "female", "torso"), prevalence=0.02)
        page.get_by_role("spinbutton", name=re.compile("Prevalence")).fill("2")
        many = answer["of_thousand"]
        expect(page.locator("#ml-meaning")).to_contain_text(f"flags {many['tp']} of them and not the other {many['fn']}")
        expect(page.locator("#ml-meaning")).to_contain_text(percent(answer["ppv_at_prevalence"]))
        typed = page.get_by_role("spinbutton", name=re.compile("Prevalence"))
        page.get_by_role("slider", name=re.compile("Prevalence|range slider")).focus()
        for _ in range(25):
            page.keyboard.press("ArrowRight")
        expect(page.locator("#ml-meaning")).to_contain_text(f"prevalence of {percent(float(typed.input_value()) / 100)}, ")
        typed.fill("75")  # beyond the slider's end, which it then takes
        typed.press("Tab")
        expect(typed).to_have_value("50")
        expect(page.locator("#ml-meaning")).to_contain_text("prevalence of 50%, ")
        page.get_by_label("Reset to default value").first.click()
        expect(page.locator("#ml-meaning")).to_contain_text("prevalence of 10%, ")
        outside = page.evaluate("fetch('http://127.0.0.2:9/?on-purpose').then(() => 'sent', (error) => error.name)")
        assert outside == "TypeError"  # the browser is told to stay on this machine


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
            expect(page.locator(".ml-pictures img")).to_have_count(2)
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
        expect(page.locator(".ml-pictures img")).to_have_count(2)
        expect(page.get_by_label("Age in years")).not_to_have_value("")
        expect(page.locator("[data-example=example-0]")).to_have_attribute("aria-pressed", "true")

        refused = {fault.what: fault for fault in FAULTS}["JPEG cut in half"]
        upload(page, refused.make(), "<img src=x onerror=alert(1)>.jpg")  # shown as text, or a dialog opens
        expect(page.locator(".ml-status")).to_contain_text(re.compile(f"<img src=x .*{refused.sees}"))
        expect(page.locator("#ml-answer .ml-empty")).to_be_visible()
        expect(page.locator(".ml-pictures")).to_have_count(0)  # no older picture is left in view

        upload(page, encoded(painted(), "JPEG", exif=exif(orientation=6)))
        upright = "() => { const i = document.querySelector('.ml-pictures img'); return i && i.naturalWidth === 120; }"
        page.wait_for_function(upright)
        expect(page.get_by_label("Age in years")).to_have_value("")  # the painting's patient went with it
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
