"""FocalLossExplorer in a file without kernel and network, and in a real JupyterLab."""

import math

import numpy as np
import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
from playwright.sync_api import expect

from melanoma_lib.losses import FocalLoss
from melanoma_lib.widgets import FocalLossExplorer
from melanoma_lib.widgets.base import HERE
from melanoma_lib.widgets.focal import focal_numbers
from tests.browser.lab import ask_kernel, assert_legible, expect_kernel, notebook_of, offline, press

SHOWN = {
    "losses-melanoma": "melanoma_loss", "losses-other": "other_loss",
    "slopes-melanoma": "melanoma_slope", "slopes-other": "other_slope", "risk": "risk",
}  # fmt: skip


def expect_numbers(page, alpha, gamma, output):
    wanted = focal_numbers(alpha, gamma, [math.log(output) - math.log1p(-output)])
    for name, key in SHOWN.items():
        value = float(page.locator(f"strong[data-number={name}]").get_attribute("data-value"))
        assert value == pytest.approx(float(wanted[key][0]), rel=1e-9, abs=1e-14), name


@pytest.fixture
def saved(chromium, tmp_path):
    with offline(chromium, FocalLossExplorer().save_page(tmp_path / "page.html", "Focal loss")) as page:
        yield page


def test_a_saved_page_starts_with_its_values_moves_with_the_keyboard_and_comes_back(saved):
    expect_numbers(saved, 0.25, 2.0, 0.5)
    curve = saved.locator(".mk-plots svg").nth(0).locator("polyline").nth(2)
    before = curve.get_attribute("points")
    press(saved, "focal γ", "ArrowRight", 5)
    press(saved, "output p", "ArrowLeft", 12)
    expect_numbers(saved, 0.25, 2.5, 0.38)
    press(saved, "focal α", "Home")
    expect_numbers(saved, None, 2.5, 0.38)
    assert curve.get_attribute("points") != before
    risk = FocalLoss(None, 2.5).true_risk(0.38)
    assert saved.get_by_label("output p").get_attribute("aria-valuetext") == f"0.38, a risk of {100 * risk:.1f}%"
    saved.get_by_role("button", name="Back to the start").press("Enter")
    expect_numbers(saved, 0.25, 2.0, 0.5)
    assert curve.get_attribute("points") == before
    assert_legible(saved, ".mk", ".mk-plots text", ".mk-number span")


def test_the_pages_arithmetic_is_the_librarys_at_random_and_extreme_values(saved):
    rng = np.random.default_rng(3)
    logits = np.concatenate([rng.normal(0, 4, 300), rng.normal(0, 60, 100), [-1000, -745, -100, -37, 0, 37, 100, 745, 1000]])
    extremes = [(None, 0.0), (None, 2.0), (0.95, 0.1), (0.05, 5.0), (0.5, 10.0)]
    source = (HERE / "focal_numbers.js").read_text()
    compute = f"([alpha, gamma, logits]) => {{ {source}; return logits.map((z) => focalAt(alpha, gamma, z)); }}"
    for alpha, gamma in [*extremes, *zip(rng.random(6), 5 * rng.random(6), strict=True)]:
        given = saved.evaluate(compute, [alpha, gamma, logits.tolist()])
        wanted = focal_numbers(alpha, gamma, logits)
        for kind, name in enumerate(("melanoma", "other")):
            for key, what in (("losses", "loss"), ("slopes", "slope")):
                found = np.array([one[key][kind] for one in given])
                np.testing.assert_allclose(found, wanted[f"{name}_{what}"], rtol=1e-9, atol=1e-300)
        # The library decodes a float64 output, the page a logit; beyond 30 the output no longer tells logits apart.
        near, risks = np.abs(logits) < 30, np.array([one["risk"] for one in given])
        np.testing.assert_allclose(risks[near], wanted["risk"][near], rtol=1e-9, atol=1e-13)
        assert np.isfinite(risks).all()


def test_page_and_kernel_keep_step(lab, tmp_path):
    cell = "from melanoma_lib.widgets import FocalLossExplorer\nexplorer = FocalLossExplorer()\nexplorer"
    with lab.open(notebook_of(tmp_path, cell)) as page:
        press(page, "focal γ", "ArrowLeft", 10)
        press(page, "output p", "End")
        expect_numbers(page, 0.25, 1.0, 0.99)
        expect_kernel(page, "explorer.alpha, explorer.gamma, explorer.output", (0.25, 1.0, 0.99))
        ask_kernel(page, "[setattr(explorer, name, value) for name, value in dict(alpha=0.123, gamma=3.3, output=0.875).items()]")
        for name, words in (("focal α", "0.123"), ("focal γ", "3.3"), ("output p", "0.88")):
            expect(page.get_by_label(name).locator("xpath=following-sibling::output")).to_have_text(words)
        expect_numbers(page, 0.123, 3.3, 0.875)
        assert page.locator(".mk").evaluate("box => box.scrollWidth <= box.clientWidth")
