"""What HeadExplorer shows in a real JupyterLab, compared with heads retrained here."""

import pickle
from dataclasses import replace

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
from playwright.sync_api import expect

from melanoma_lib.heads import HeadSettings
from melanoma_lib.widgets.head import choices_from, head_state
from tests.browser.lab import notebook_of, press
from tests.widgets.test_head import random_table

SETTINGS = HeadSettings(epochs=4)
NOTEBOOK = (
    "import pickle\nfrom melanoma_lib.heads import HeadSettings\nfrom melanoma_lib.widgets import HeadExplorer",
    "table = pickle.load(open('{path}', 'rb'))\nexplorer = HeadExplorer(table, HeadSettings(epochs=4))\nexplorer",
)
SHOWN = {"auroc": "{:.3f}", "f1": "{:.2f}", "sensitivity": "{:.0%}", "specificity": "{:.0%}", "true_risk": "{:.0%}"}


@pytest.fixture(scope="module")
def table():
    return random_table()


@pytest.fixture(scope="module")
def page(lab, table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("head")
    (folder / "table.pkl").write_bytes(pickle.dumps(table))
    with lab.open(notebook_of(folder, *(cell.replace("{path}", str(folder / "table.pkl")) for cell in NOTEBOOK))) as page:
        yield page


def expect_head(page, table, **changes):
    expect(page.locator(".mk-status p")).to_have_text("The head has learned with these values.")
    state = head_state(table, replace(SETTINGS, **changes))
    for name, form in SHOWN.items():
        expect(page.locator(f"[data-number={name}]")).to_have_text(form.format(state[name]))


def back(page):
    page.get_by_role("button", name="Back to the start").click()


def test_a_moved_slider_retrains_the_head(page, table):
    expect_head(page, table)
    assert page.locator(".mk").evaluate("box => box.scrollWidth <= box.clientWidth")
    offered = choices_from(SETTINGS)
    for label, name, key, index in (
        ("focal α", "alpha", "ArrowRight", offered["alpha"].index(SETTINGS.alpha) + 1),
        ("focal γ", "gamma", "Home", 0),
        ("dropout", "dropout", "End", -1),
    ):
        press(page, label, key)
        expect_head(page, table, **{name: offered[name][index]})
        back(page)
