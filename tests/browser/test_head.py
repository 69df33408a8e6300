"""What HeadExplorer shows in a real JupyterLab, compared with heads retrained here."""

import pickle
from dataclasses import replace

import nbformat
import pytest

from melanoma_lib.heads import HeadSettings
from melanoma_lib.widgets.head import choices_from, head_state
from tests.browser.lab import ask_kernel
from tests.widgets.test_head import random_table

pytest_plugins = ["tests.browser.lab"]

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
from playwright.sync_api import Page, expect  # noqa: E402

SETTINGS = HeadSettings(epochs=4)
NOTEBOOK = (
    "import pickle\nfrom melanoma_lib.heads import HeadSettings\nfrom melanoma_lib.widgets import HeadExplorer",
    "table = pickle.load(open({path!r}, 'rb'))\nexplorer = HeadExplorer(table, HeadSettings(epochs=4))\nexplorer",
)
SHOWN = {"auroc": "{:.3f}", "f1": "{:.2f}", "sensitivity": "{:.0%}", "specificity": "{:.0%}", "true_risk": "{:.0%}"}


@pytest.fixture(scope="module")
def table():
    return random_table()


@pytest.fixture(scope="module")
def notebook_page(lab, table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("head")
    (folder / "table.pkl").write_bytes(pickle.dumps(table))
    cells = [nbformat.v4.new_code_cell(cell.format(path=str(folder / "table.pkl"))) for cell in NOTEBOOK]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "head.ipynb")
    with lab.open(folder / "head.ipynb") as page:
        yield page


@pytest.fixture
def page(notebook_page: Page) -> Page:
    """The page with all sliders where they start."""
    notebook_page.get_by_role("button", name="Back to the start").click()
    settle(notebook_page)
    return notebook_page


def settle(page: Page) -> None:
    expect(page.locator(".mk-status p")).to_have_text("The head has learned with these values.")


def press(page: Page, label: str, key: str, times: int = 1) -> None:
    slider = page.get_by_label(label, exact=True)
    slider.focus()
    for _ in range(times):
        slider.press(key)


def expect_numbers(page: Page, state: dict) -> None:
    for name, form in SHOWN.items():
        expect(page.locator(f"[data-number={name}]")).to_have_text(form.format(state[name]))


def test_it_starts_with_the_head_of_its_settings(page, table):
    state = head_state(table, SETTINGS)
    expect_numbers(page, state)
    expect(page.get_by_role("img", name=f"ROC curve, AUROC {state['auroc']:.3f}")).to_be_visible()
    assert page.locator(".mk").evaluate("box => box.scrollWidth <= box.clientWidth")


@pytest.mark.parametrize(
    ("label", "name", "key", "times"),
    [("focal α", "alpha", "ArrowRight", 5), ("focal γ", "gamma", "Home", 1), ("dropout", "dropout", "End", 1)],
)
def test_a_moved_slider_retrains_the_head(page, table, label, name, key, times):
    offered = choices_from(SETTINGS)[name]
    index = {"ArrowRight": offered.index(getattr(SETTINGS, name)) + times, "Home": 0, "End": len(offered) - 1}[key]
    press(page, label, key, times)
    settle(page)
    expect_numbers(page, head_state(table, replace(SETTINGS, **{name: offered[index]})))


def test_only_the_last_of_many_moves_is_waited_for(page, table):
    before = ask_kernel(page, "explorer.answered")
    press(page, "learning rate", "ArrowRight", 4)
    press(page, "learning rate", "ArrowLeft", 9)
    press(page, "focal α", "End")
    settle(page)
    slowest = choices_from(SETTINGS)["learning_rate"][0]
    expect_numbers(page, head_state(table, replace(SETTINGS, alpha=0.95, learning_rate=slowest)))
    assert ask_kernel(page, "explorer.state['learning_rate'], explorer.state['alpha']") == (slowest, 0.95)
    assert 1 <= ask_kernel(page, "explorer.answered") - before < 14


def test_a_failure_is_shown_and_leaves_the_page_usable(page, table):
    ask_kernel(page, "setattr(explorer, 'table', None)")
    press(page, "focal γ", "ArrowRight")
    expect(page.get_by_role("alert")).to_contain_text("AttributeError")
    settle(page)
    ask_kernel(page, "setattr(explorer, 'table', table)")
    press(page, "focal γ", "ArrowRight")
    settle(page)
    expect(page.get_by_role("alert")).to_be_hidden()
    expect_numbers(page, head_state(table, replace(SETTINGS, gamma=3.0)))
