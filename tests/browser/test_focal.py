"""FocalLossExplorer in a file without kernel and network, and in a real JupyterLab beside a head that the kernel retrains."""

import json
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
from playwright.sync_api import expect

from melanoma_lib.heads import HeadSettings
from melanoma_lib.losses import FocalLoss
from melanoma_lib.widgets import FocalLossExplorer
from melanoma_lib.widgets.base import HERE
from melanoma_lib.widgets.focal import focal_numbers
from melanoma_lib.widgets.head import head_state
from tests.browser.lab import ask_kernel, assert_legible, notebook_of, offline, press
from tests.widgets.test_head import random_table

SHOWN = {
    "losses-melanoma": "melanoma_loss", "losses-other": "other_loss",
    "slopes-melanoma": "melanoma_slope", "slopes-other": "other_slope", "risk": "risk",
}  # fmt: skip
SETTINGS = HeadSettings(alpha=0.25, epochs=4)
NOTEBOOK = (
    "import pickle\nfrom melanoma_lib.heads import HeadSettings\nfrom melanoma_lib.widgets import FocalLossExplorer",
    "table = pickle.load(open('{path}', 'rb'))",
    "explorer = FocalLossExplorer(table, HeadSettings(alpha=0.25, epochs=4))\nexplorer",
)


def expect_output_numbers(page, alpha, gamma, output):
    wanted = focal_numbers(alpha, gamma, [math.log(output) - math.log1p(-output)])
    for name, key in SHOWN.items():
        value = float(page.locator(f"strong[data-number={name}]").get_attribute("data-value"))
        assert value == pytest.approx(float(wanted[key][0]), rel=1e-9, abs=1e-14), name


# --- in a file ----------------------------------------------------------------------------------------------------------------


def test_a_saved_page_starts_with_its_values_moves_with_the_keyboard_and_comes_back(chromium, tmp_path):
    with offline(chromium, FocalLossExplorer().save_page(tmp_path / "page.html", "Focal loss")) as page:
        expect_output_numbers(page, 0.25, 2.0, 0.5)
        expect(page.locator(".mk-focal-second")).to_be_hidden()
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
        plots, compare = page.locator(".mk-plots svg"), page.get_by_role("button", name="Compare γ 0, 1, 2, 5")
        lines = [plots.nth(i).locator("polyline").count() for i in range(3)]
        compare.press("Enter")
        assert [plots.nth(i).locator("polyline").count() for i in range(3)] == [lines[0] + 6, lines[1] + 6, lines[2] + 4]
        compare.press("Enter")
        assert curves.get_attribute("points") == before
        assert_legible(page, ".mk", ".mk-plots text", ".mk-number span")


def test_the_pages_arithmetic_is_the_librarys_at_random_and_extreme_values(chromium, tmp_path):
    rng = np.random.default_rng(3)
    logits = np.concatenate([rng.normal(0, 4, 300), rng.normal(0, 60, 100), [-1000, -745, -100, -37, 0, 37, 100, 745, 1000]])
    parameters = [
        (None, 0.0),
        (None, 2.0),
        (0.95, 0.1),
        (0.05, 5.0),
        (0.5, 10.0),
        *zip(rng.random(6), 5 * rng.random(6), strict=True),
    ]
    source = (HERE / "focal_numbers.js").read_text()
    compute = f"([alpha, gamma, logits]) => {{ {source}; return logits.map((z) => focalAt(alpha, gamma, z)); }}"
    with offline(chromium, FocalLossExplorer().save_page(tmp_path / "page.html", "Focal loss")) as page:
        for alpha, gamma in parameters:
            given = page.evaluate(compute, [alpha, gamma, logits.tolist()])
            wanted = focal_numbers(alpha, gamma, logits)
            for kind, name in enumerate(("melanoma", "other")):
                for key, what in (("losses", "loss"), ("slopes", "slope")):
                    found = np.array([one[key][kind] for one in given])
                    np.testing.assert_allclose(found, wanted[f"{name}_{what}"], rtol=1e-9, atol=1e-300)
            # The library decodes a float64 output, the page a logit; beyond 30 the output no longer tells logits apart.
            near, risks = np.abs(logits) < 30, np.array([one["risk"] for one in given])
            np.testing.assert_allclose(risks[near], wanted["risk"][near], rtol=1e-9, atol=1e-13)
            assert np.isfinite(risks).all()


# --- in JupyterLab ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table():
    return random_table()


@pytest.fixture(scope="module")
def page(lab, table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("focal")
    (folder / "table.pkl").write_bytes(pickle.dumps(table))
    with lab.open(notebook_of(folder, *(cell.replace("{path}", str(folder / "table.pkl")) for cell in NOTEBOOK))) as page:
        yield page


def expect_head(page, table, **changes):
    expect(page.locator(".mk-focal-head p")).to_have_text("A head, retrained with this α and γ:")
    state = head_state(table, replace(SETTINGS, **changes))
    for name in ("sensitivity", "specificity", "auroc", "mean"):
        shown = json.dumps(state[name]).removesuffix(".0")
        expect(page.locator(f".mk-focal-head [data-number={name}]")).to_have_attribute("data-value", shown)


def test_page_and_kernel_keep_step_and_the_head_is_retrained(page, table):
    expect_head(page, table)
    press(page, "focal α", "ArrowRight", 11)
    press(page, "focal γ", "ArrowLeft", 10)
    press(page, "output p", "End")
    expect_head(page, table, alpha=0.8, gamma=1.0)
    expect_output_numbers(page, 0.8, 1.0, 0.99)
    assert ask_kernel(page, "explorer.alpha, explorer.gamma, explorer.output") == (0.8, 1.0, 0.99)
    before = ask_kernel(page, "explorer.answered")
    press(page, "output p", "ArrowLeft", 8)  # asks nothing of the kernel
    assert ask_kernel(page, "explorer.answered") == before
    ask_kernel(page, "[setattr(explorer, name, value) for name, value in dict(alpha=0.123, gamma=3.3, output=0.875).items()]")
    expect(page.get_by_label("focal α").locator("xpath=following-sibling::output")).to_have_text("0.123")
    expect_head(page, table, alpha=0.123, gamma=3.3)
    expect_output_numbers(page, 0.123, 3.3, 0.875)
    assert page.locator(".mk").evaluate("box => box.scrollWidth <= box.clientWidth")


def test_many_moves_are_few_questions_and_a_failure_is_shown(page, table):
    page.get_by_role("button", name="Back to the start").click()
    expect_head(page, table)
    before = ask_kernel(page, "explorer.answered")
    drag = "(slider) => { for (let i = 1; i <= 30; i++) { slider.value = i / 10; slider.dispatchEvent(new Event('input')); } }"
    page.get_by_label("focal γ").evaluate(drag)
    expect_head(page, table, gamma=3.0)
    assert 1 <= ask_kernel(page, "explorer.answered") - before <= 2
    ask_kernel(page, "setattr(explorer, 'table', None)")
    press(page, "focal γ", "ArrowRight")
    expect(page.get_by_role("alert")).to_contain_text("AttributeError")
    ask_kernel(page, "setattr(explorer, 'table', table)")
    press(page, "focal γ", "ArrowRight")
    expect(page.get_by_role("alert")).to_be_hidden()
    expect_head(page, table, gamma=3.2)
