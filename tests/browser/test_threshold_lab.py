"""ThresholdExplorer in a real JupyterLab: page and kernel keep step."""

import math

import nbformat
import pytest

from melanoma_lib.evaluation import OperatingCurve
from melanoma_lib.widgets.threshold import threshold_state
from tests.browser.lab import ask_kernel, keep_kernel_busy

pytest_plugins = ["tests.browser.lab"]

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
from playwright.sync_api import expect  # noqa: E402

from tests.browser.test_threshold import CALIBRATOR, WORLD, enter, expect_numbers, random_world  # noqa: E402

# A key that repeats faster than any pause in which a page might gather presses.
HELD_KEY = """async (slider, times) => {
    for (; times; times--) {
        slider.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true, cancelable: true }));
        await new Promise((resolve) => setTimeout(resolve, 12));
    }
}"""


@pytest.fixture(scope="module")
def notebook_page(lab, tmp_path_factory):
    cells = [WORLD, "explorer = ThresholdExplorer(targets, scores, Calibrator(1.4, -0.9), threshold=0.3)\nexplorer"]
    path = tmp_path_factory.mktemp("threshold") / "threshold.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)
    with lab.open(path, height=1200) as page:
        yield page


def test_page_and_kernel_keep_step_both_ways(notebook_page):
    page, curve = notebook_page, OperatingCurve(*random_world())
    expect_numbers(page, threshold_state(curve, 0.3, calibrator=CALIBRATOR))
    slider = page.get_by_label("threshold", exact=True)
    slider.focus()
    for _ in range(5):
        slider.press("ArrowRight")
    expect_numbers(page, threshold_state(curve, 0.305, calibrator=CALIBRATOR))
    page.wait_for_timeout(500)
    assert ask_kernel(page, "explorer.threshold") == 0.305
    assert ask_kernel(page, "(explorer.point.tp, explorer.point.fp)") == (curve.at(0.305).tp, curve.at(0.305).fp)
    ask_kernel(page, "(setattr(explorer, 'threshold', 0.6123), setattr(explorer, 'prevalence', 0.02))")
    expect(page.get_by_label("threshold, exact", exact=True)).to_have_value("0.6123")
    expect_numbers(page, threshold_state(curve, 0.6123, 0.02, CALIBRATOR))
    enter(page, "prevalence, percent", 12.5)
    page.wait_for_timeout(500)
    assert math.isclose(ask_kernel(page, "explorer.prevalence"), 0.125)
    assert page.locator(".mk").evaluate("box => box.scrollWidth <= box.clientWidth")


def test_no_key_press_is_undone_by_the_kernels_echo_of_an_earlier_one(notebook_page):
    page = notebook_page
    enter(page, "threshold, exact", 0.2)
    slider = page.get_by_label("threshold", exact=True)
    slider.focus()
    keep_kernel_busy(page, 1)
    slider.press("ArrowRight")
    page.wait_for_timeout(200)  # on its way; the kernel's echo comes a second later, amid the following presses
    slider.evaluate(HELD_KEY, 99)
    expect(page.get_by_label("threshold, exact", exact=True)).to_have_value("0.3", timeout=10_000)
    page.wait_for_timeout(500)
    assert ask_kernel(page, "explorer.threshold") == 0.3
