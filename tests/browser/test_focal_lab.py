"""FocalLossExplorer in a real JupyterLab, beside a head that the kernel retrains."""

import json
import pickle
from dataclasses import replace

import nbformat
import pytest

from melanoma_lib.heads import HeadSettings
from melanoma_lib.widgets.head import head_state
from tests.browser.lab import ask_kernel
from tests.browser.test_focal import expect_output_numbers, press
from tests.widgets.test_head import random_table

pytest_plugins = ["tests.browser.lab"]

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
from playwright.sync_api import Page, expect  # noqa: E402

SETTINGS = HeadSettings(alpha=0.25, epochs=4)
NOTEBOOK = (
    "import pickle\nfrom melanoma_lib.heads import HeadSettings\nfrom melanoma_lib.widgets import FocalLossExplorer",
    "table = pickle.load(open({path!r}, 'rb'))",
    "explorer = FocalLossExplorer(table, HeadSettings(alpha=0.25, epochs=4))\nexplorer",
)


@pytest.fixture(scope="module")
def table():
    return random_table()


@pytest.fixture(scope="module")
def notebook_page(lab, table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("focal")
    (folder / "table.pkl").write_bytes(pickle.dumps(table))
    cells = [nbformat.v4.new_code_cell(cell.format(path=str(folder / "table.pkl"))) for cell in NOTEBOOK]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "focal.ipynb")
    with lab.open(folder / "focal.ipynb") as page:
        yield page


@pytest.fixture
def page(notebook_page: Page) -> Page:
    """The page with all sliders where they start."""
    notebook_page.get_by_role("button", name="Back to the start").click()
    settle(notebook_page)
    return notebook_page


def settle(page: Page) -> None:
    expect(page.locator(".mk-focal-head p")).to_have_text("A head, retrained with this α and γ:")


def expect_head(page: Page, state: dict) -> None:
    for name in ("sensitivity", "specificity", "auroc", "mean"):
        expect(page.locator(f".mk-focal-head [data-number={name}]")).to_have_attribute(
            "data-value", json.dumps(state[name]).removesuffix(".0")
        )


def test_a_move_in_the_page_reaches_python_and_retrains_the_head(page, table):
    expect_head(page, head_state(table, SETTINGS))
    press(page, "focal α", "ArrowRight", 11)
    press(page, "focal γ", "ArrowLeft", 10)
    press(page, "output p", "End")
    settle(page)
    expect_output_numbers(page, 0.8, 1.0, 0.99)
    assert ask_kernel(page, "explorer.alpha, explorer.gamma, explorer.output") == (0.8, 1.0, 0.99)
    expect_head(page, head_state(table, replace(SETTINGS, alpha=0.8, gamma=1.0)))
    assert ask_kernel(page, "explorer.state['alpha'], explorer.state['gamma']") == (0.8, 1.0)
    assert page.locator(".mk").evaluate("box => box.scrollWidth <= box.clientWidth")


def test_a_value_set_in_python_moves_the_page_and_its_head(page, table):
    ask_kernel(page, "[setattr(explorer, name, value) for name, value in dict(alpha=0.123, gamma=3.3, output=0.875).items()]")
    expect(page.get_by_label("focal α").locator("xpath=following-sibling::output")).to_have_text("0.123")
    settle(page)
    expect_output_numbers(page, 0.123, 3.3, 0.875)
    expect_head(page, head_state(table, replace(SETTINGS, alpha=0.123, gamma=3.3)))


def test_the_output_asks_nothing_of_the_kernel(page):
    before = ask_kernel(page, "explorer.answered")
    press(page, "output p", "ArrowRight", 8)
    expect_output_numbers(page, 0.25, 2.0, 0.58)
    assert ask_kernel(page, "explorer.answered") == before


def test_many_moves_are_few_questions_and_a_failure_is_shown(page, table):
    before = ask_kernel(page, "explorer.answered")
    drag = "(slider) => { for (let i = 1; i <= 30; i++) { slider.value = i / 10; slider.dispatchEvent(new Event('input')); } }"
    page.get_by_label("focal γ").evaluate(drag)
    settle(page)
    expect_head(page, head_state(table, replace(SETTINGS, gamma=3.0)))
    assert 1 <= ask_kernel(page, "explorer.answered") - before <= 2
    ask_kernel(page, "setattr(explorer, 'table', None)")
    press(page, "focal γ", "ArrowRight")
    expect(page.get_by_role("alert")).to_contain_text("AttributeError")
    settle(page)
    ask_kernel(page, "setattr(explorer, 'table', table)")
    press(page, "focal γ", "ArrowRight")
    settle(page)
    expect(page.get_by_role("alert")).to_be_hidden()
    expect_head(page, head_state(table, replace(SETTINGS, gamma=3.2)))
