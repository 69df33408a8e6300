"""FocalLossExplorer in a file without kernel and network: its arithmetic, its keys, its themes."""

import math
import re

import numpy as np
import pytest

from melanoma_lib.heads import HeadSettings
from melanoma_lib.losses import FocalLoss
from melanoma_lib.widgets import FocalLossExplorer
from melanoma_lib.widgets.base import HERE
from melanoma_lib.widgets.focal import focal_numbers
from tests.browser.lab import watch_faults

pytest_plugins = ["tests.browser.lab"]

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
from playwright.sync_api import Page, expect, sync_playwright  # noqa: E402

SHOWN = {
    "losses-melanoma": "melanoma_loss", "losses-other": "other_loss",
    "slopes-melanoma": "melanoma_slope", "slopes-other": "other_slope", "risk": "risk",
}  # fmt: skip


@pytest.fixture(scope="module")
def browser(lab):
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=lab.browser, args=["--no-sandbox"])


@pytest.fixture
def open_file(browser, tmp_path):
    """Save an explorer, open it offline, and fail if the page asks for anything or its script raises."""
    pages = []

    def open_page(explorer: FocalLossExplorer, **options) -> Page:
        context = browser.new_context(offline=True, viewport={"width": 1136, "height": 700}, **options)
        page = context.new_page()
        pages.append((context, watch_faults(page)))
        page.goto(explorer.save_page(tmp_path / "page.html", "Focal loss").as_uri())
        page.get_by_label("focal γ").wait_for()
        return page

    yield open_page
    for context, faults in pages:
        context.close()
        assert faults == []


def logit(output: float) -> float:
    return math.log(output) - math.log1p(-output)


def expect_output_numbers(page: Page, alpha: float | None, gamma: float, output: float) -> None:
    wanted = focal_numbers(alpha, gamma, [logit(output)])
    for name, key in SHOWN.items():
        value = float(page.locator(f"strong[data-number={name}]").get_attribute("data-value"))
        assert value == pytest.approx(float(wanted[key][0]), rel=1e-9, abs=1e-14), name


def press(page: Page, label: str, key: str, times: int = 1) -> None:
    slider = page.get_by_label(label, exact=True)
    slider.focus()
    for _ in range(times):
        slider.press(key)


def test_the_pages_arithmetic_is_the_librarys_at_random_and_extreme_values(browser):
    rng = np.random.default_rng(3)
    logits = np.concatenate([rng.normal(0, 4, 300), rng.normal(0, 60, 100), [-1000, -745, -100, -37, 0, 37, 100, 745, 1000]])
    parameters = [
        (None, 0.0),
        (None, 2.0),
        (0.25, 2.0),
        (0.95, 0.1),
        (0.05, 5.0),
        (0.5, 10.0),
        *zip(rng.random(6), 5 * rng.random(6), strict=True),
    ]
    page = browser.new_page()
    source = (HERE / "focal_numbers.js").read_text()
    compute = f"([alpha, gamma, logits]) => {{ {source}; return logits.map((z) => focalAt(alpha, gamma, z)); }}"
    for alpha, gamma in parameters:
        given = page.evaluate(compute, [alpha, gamma, logits.tolist()])
        wanted = focal_numbers(alpha, gamma, logits)
        for kind, name in enumerate(("melanoma", "other")):
            for key, what in (("losses", "loss"), ("slopes", "slope")):
                found = np.array([one[key][kind] for one in given])
                assert np.isfinite(found).all()
                np.testing.assert_allclose(found, wanted[f"{name}_{what}"], rtol=1e-9, atol=1e-300)
        # The library decodes a float64 output, the page a logit; beyond 30 the output no longer tells logits apart.
        near = np.abs(logits) < 30
        np.testing.assert_allclose(np.array([one["risk"] for one in given])[near], wanted["risk"][near], rtol=1e-9, atol=1e-13)
        assert np.isfinite([one["risk"] for one in given]).all()
    page.close()


@pytest.mark.parametrize(
    ("alpha", "gamma", "output"),
    [(0.25, 2.0, 0.5), (None, 0.0, 0.3), (0.333, 1.75, 1e-9), (0.9, 5.0, 1 - 1e-12), (0.6, 8.0, 0.04)],
)
def test_a_saved_page_starts_with_the_values_it_was_saved_with(open_file, alpha, gamma, output):
    explorer = FocalLossExplorer(settings=HeadSettings(alpha=alpha, gamma=gamma))
    explorer.output = output
    page = open_file(explorer)
    expect_output_numbers(page, alpha, gamma, output)
    half = FocalLoss(alpha, gamma).true_risk(0.5)
    expect(page.get_by_role("img", name="True risk against the output.")).to_have_attribute(
        "aria-label", re.compile(f"0.5 means {100 * half:.1f}%$")
    )
    expect(page.locator(".mk-focal-second")).to_be_hidden()


def test_a_saved_page_moves_with_the_keyboard_and_comes_back(open_file):
    page = open_file(FocalLossExplorer())
    curves = page.locator(".mk-plots svg").nth(0).locator("polyline").nth(2)
    before = curves.get_attribute("points")
    press(page, "focal γ", "ArrowRight", 5)
    press(page, "output p", "ArrowLeft", 12)
    expect_output_numbers(page, 0.25, 2.5, 0.38)
    press(page, "focal α", "Home")
    expect_output_numbers(page, None, 2.5, 0.38)
    assert page.get_by_label("focal α").get_attribute("aria-valuetext") == "none"
    assert curves.get_attribute("points") != before
    risk = FocalLoss(None, 2.5).true_risk(0.38)
    assert page.get_by_label("output p").get_attribute("aria-valuetext") == f"0.38, a risk of {100 * risk:.1f}%"
    page.get_by_role("button", name="Back to the start").press("Enter")
    expect_output_numbers(page, 0.25, 2.0, 0.5)
    assert curves.get_attribute("points") == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_the_paper_in_both_themes(open_file, scheme):
    page = open_file(FocalLossExplorer(), color_scheme=scheme)
    colours = page.evaluate(
        """() => { const style = (selector) => getComputedStyle(document.querySelector(selector));
        const words = [...document.querySelectorAll(".mk-plots text")].map((text) => getComputedStyle(text).fill);
        return [style(".mk").backgroundColor, style(".mk").color, style(".mk-number span").color, ...words]; }"""
    )
    levels = [luminance(colour) for colour in colours]
    assert (levels[0] < 0.2) == (scheme == "dark")
    for level in levels[1:]:
        assert (max(level, levels[0]) + 0.05) / (min(level, levels[0]) + 0.05) >= 4.5  # WCAG 2 AA


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)`` after WCAG 2."""
    channels = np.array([int(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
