"""The page in a real browser: upload, metadata, layers, prevalence, refusals; what is shown, read aloud and sent."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from PIL import Image

from melanoma_lib.app.page import percent
from melanoma_lib.app.service import Patient
from tests.app.live import Server
from tests.app.pictures import FAULTS, encoded, exif
from tests.app.pictures import lesion as painted
from tests.browser.lab import luminance, watch_faults

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

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


def test_upload_then_metadata_then_layer(server, browser, service, lesion):
    case = service.admit(lesion)

    def answered(**known) -> None:
        said = service.ask(case, Patient(**known))
        expect(page.locator("#ml-answer")).to_contain_text(f"Uncalibrated probability {said['probability']:.3f}")
        expect(page.locator("#ml-answer .ml-number")).to_have_text(percent(said["risk_shown"]))

    with opened(browser, server.url) as page:
        expect(page.locator("#ml-answer")).to_contain_text("No answer yet")
        upload(page, lesion, "my lesion.jpg")
        expect(page.locator(".ml-status")).to_contain_text("my lesion.jpg")
        answered()
        for wrong in ("-5", "old", "999", "1,000", "1e2"):
            page.get_by_label("Age in years").fill(wrong)
            expect(page.locator("#ml-wrong").get_by_role("alert")).to_contain_text("years from 0 to 120")
            answered()  # it stays, faded, with what it used
            expect(page.locator("#ml-answer .ml-card")).to_have_css("opacity", "0.45")
            expect(page.locator("#ml-answer")).to_contain_text("Answered with age unknown, sex unknown, site unknown.")
        page.wait_for_timeout(1000)
        asked = []
        page.on("request", lambda request: asked.append(request.url) if "/run/" in request.url else None)
        page.get_by_label("Age in years").fill("71")
        answered(age=71)
        expect(page.locator("#ml-wrong")).to_be_empty()
        page.wait_for_timeout(1000)
        assert len(asked) == 1, asked  # nothing goes on asking by itself
        for label, value in (("Sex", "female"), ("Site", "torso")):
            page.get_by_label(label).click()
            page.get_by_role("option", name=value, exact=True).click()
        answered(age=71, sex="female", site="torso")
        expect(page.locator("#ml-answer")).to_contain_text("Answered with age 71, sex female, site torso.")
        page.get_by_label("Site").focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Tab")
        expect(page.get_by_role("option")).to_have_count(0)  # Gradio itself leaves the list open

        before = page.locator(".ml-map").get_attribute("src")
        page.get_by_label("Layer, early to late").click()
        page.get_by_role("option").first.click()
        expect(page.locator("#ml-pictures details")).to_contain_text(f"Layer {next(iter(service.layers))}")
        assert page.locator(".ml-map").get_attribute("src") != before
        page.get_by_role("spinbutton", name=re.compile("opacity")).fill("40")
        expect(page.locator(".ml-map")).to_have_css("opacity", "0.4")
        outside = page.evaluate("fetch('http://127.0.0.2:9/?on-purpose').then(() => 'sent', (error) => error.name)")
        assert outside == "TypeError"  # the browser is told to stay on this machine
        page.route("**/api/images", lambda route: None)  # an upload that takes for ever
        upload(page, lesion, "next.jpg")
        expect(page.locator("#ml-answer .ml-number")).to_be_hidden()
        expect(page.get_by_label("Age in years")).to_have_value("")  # perhaps it is another patient's
        page.get_by_label("Age in years").fill("33")
        page.unroute("**/api/images")
        upload(page, lesion, "next.jpg")
        answered(age=33)  # and nothing else of the former
        upload(page, lesion)  # at the server's full speed
        answered()


def below_kit(page: Page, url: str) -> None:
    """Show a server below /kit and strip that from what is asked, as nginx does with a slash behind ``proxy_pass``."""

    def pass_on(route: Route) -> None:
        place = route.request.url.removeprefix(url)
        if place.startswith("/kit/"):
            return route.fulfill(response=route.fetch(url=url + place.removeprefix("/kit")))
        return route.fulfill(status=404)

    page.route("**/*", pass_on)
    page.goto(f"{url}/kit/")


def test_below_a_path_and_what_is_saved_and_removed_and_what_a_lost_server_leaves(
    app_run, server, browser, service, lesion, tmp_path
):
    page, own = browser.new_page(), Server(app_run.path, tmp_path / "own", "--root-path", "/kit")
    page.set_default_timeout(PATIENCE)
    below_kit(page, server.url)
    expect(page.locator(".ml-status")).to_contain_text("start the app with --root-path")
    page.unroute("**/*")
    own.start()
    below_kit(page, own.url)
    page.get_by_label("Age in years").fill("999")
    upload(page, lesion, "left arm.jpg")
    expect(page.locator("#ml-answer").get_by_role("alert")).to_contain_text("while the age is wrong")
    page.get_by_label("Age in years").fill("")
    with page.expect_download() as answer:
        page.get_by_text("Save the answer").click()
    saved = json.loads(answer.value.path().read_text())
    assert saved["risk"] == pytest.approx(service.ask(service.admit(lesion), Patient())["risk"], abs=1e-5)
    assert (answer.value.suggested_filename, saved["run"]) == ("left arm-answer.json", app_run.path.name)
    assert saved["image_sha256"] == hashlib.sha256(lesion).hexdigest()
    with page.expect_download() as picture:
        page.get_by_text("Save the picture").click()
    assert picture.value.suggested_filename == "left arm-heatmap.png"
    with Image.open(picture.value.path()) as image:
        assert (image.format, image.width) == ("PNG", 1280)
    card = browser.new_page()
    card.goto(f"{own.url}/card")
    expect(card.get_by_role("table").first).to_be_visible()
    card.close()
    page.get_by_text("Remove", exact=True).click()
    expect(page.locator("#ml-answer")).to_contain_text("No answer yet")
    upload(page, lesion)
    expect(page.locator("#ml-answer .ml-number")).to_be_visible()
    own.stop()
    page.route("**/*", lambda route: route.abort())
    page.get_by_label("Age in years").fill("50")
    expect(page.locator(".ml-gone")).to_be_visible()
    expect(page.locator("#ml-answer .ml-number")).to_be_hidden()
    page.close()


def test_the_painting_by_keyboard_and_what_replaces_it(server, browser):
    with opened(browser, server.url) as page:
        page.locator("[data-example=example-0]").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#ml-answer [data-case=example-0] .ml-withheld")).to_contain_text("No answer to rely on")
        expect(page.locator("[data-example=example-0]")).to_have_attribute("aria-pressed", "true")

        refused = {fault.what: fault for fault in FAULTS}["JPEG cut in half"]
        upload(page, refused.make(), "<img src=x onerror=alert(1)>.jpg")  # shown as text, or a dialog opens
        expect(page.locator(".ml-status")).to_contain_text(re.compile(f"<img src=x .*{refused.sees}"))
        expect(page.locator("#ml-answer .ml-empty")).to_be_visible()
        expect(page.locator(".ml-pictures")).to_have_count(0)  # no older picture is left in view

        page.get_by_label("Age in years").fill("88")
        upload(page, b"no image")
        expect(page.get_by_label("Age in years")).to_have_value("")  # the next file may be another patient's
        upload(page, encoded(painted(), "JPEG", exif=exif(orientation=6)))
        page.wait_for_function("document.querySelector('.ml-pictures img')?.naturalWidth === 120")  # it is shown upright


@pytest.mark.parametrize(("width", "height", "scheme"), [(1280, 800, "light"), (390, 844, "dark")])
def test_layout_contrast_and_the_prevalence_beside_what_it_moves(server, browser, service, lesion, width, height, scheme):
    with opened(browser, server.url, viewport={"width": width, "height": height}, color_scheme=scheme) as page:
        upload(page, lesion)
        meaning, typed = page.locator("#ml-meaning"), page.get_by_role("spinbutton", name=re.compile("Prevalence"))
        typed.click()
        page.keyboard.press("Control+A")
        page.keyboard.type("2,5", delay=60)  # a decimal comma
        answer = service.ask(service.admit(lesion), Patient(), prevalence=0.025)
        expect(meaning).to_contain_text("Where 2.5% of lesions")
        expect(meaning.locator(".ml-carried")).to_have_text(percent(answer["risk_at_prevalence"]))
        expect(meaning).to_contain_text(f"flags {answer['of_thousand']['tp']} of them")
        slider = page.get_by_role("slider", name=re.compile("Prevalence|range slider")).first
        assert 0 < meaning.locator(".ml-carried").bounding_box()["y"] - slider.bounding_box()["y"] < 200
        typed.fill("")
        typed.press("Tab")
        expect(typed).to_have_value("10")
        typed.fill("75")  # beyond the slider's end, which it then takes
        typed.press("Tab")
        expect(typed).to_have_value("50")
        expect(meaning).to_contain_text("Where 50% of lesions")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for where in (0, 700, 10**6):
            page.evaluate(f"scrollTo(0, {where})")
            assert -2 <= page.get_by_text("Educational, not for diagnosis").first.bounding_box()["y"] < 40, where
        for text, *colours in page.evaluate(COLOURS):
            low, high = sorted(map(luminance, colours))
            assert (high + 0.05) / (low + 0.05) >= 4.5, text  # WCAG 2 AA


# Colours of each text and of what lies behind it; backgrounds are opaque or none here.
COLOURS = """() => {
  const behind = (node) => { for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor; if (colour.startsWith("rgb(")) return colour; } };
  return [...document.querySelectorAll("[class*='ml-'] *, [class*='ml-']")].filter((node) => node.checkVisibility()
    && [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim()))
    .map((node) => [node.textContent.slice(0, 40), getComputedStyle(node).color, behind(node) ?? "rgb(255, 255, 255)"]); }"""
