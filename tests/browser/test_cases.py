"""What CaseExplorer shows in a real JupyterLab and in a page of its own, compared with the functions behind it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
from playwright.sync_api import expect

from melanoma_lib.data.schema import validate_cases
from melanoma_lib.widgets import CaseExplorer
from melanoma_lib.widgets.case_selection import filter_cases, note_outcomes, page_of, summary_of, worst_first
from tests.browser.lab import expect_kernel, notebook_of, offline
from tests.data.builders import case_table

PAGE_SIZE = 6
LONG = "a-diagnosis-of-one-endless-word-" * 6
CELL = """import pandas as pd
from melanoma_lib.widgets import CaseExplorer
explorer = CaseExplorer(pd.read_pickle({path!r}), page_size={page_size}, threshold=0.4)
explorer"""


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """40 cases with gaps; the first has a corrupt file, the second none, the third words too long for a tile."""
    folder = tmp_path_factory.mktemp("cases")
    rng = np.random.default_rng(5)
    n = 40
    target = np.arange(n) % 4 == 3
    table = case_table(
        target.astype(int),
        patients=[f"p{i // 2}" for i in range(n)],
        age_approx=np.where(np.arange(n) % 7 == 0, np.nan, 20 + np.arange(n) % 12 * 5),
        sex=np.where(np.arange(n) % 9 == 0, None, rng.choice(["female", "male"], n)),
        image_path=[str(folder / f"{i}.jpg") for i in range(n)],
    )
    table.loc[2, "diagnosis"] = LONG
    for path in table["image_path"][2:]:
        Image.new("RGB", (60, 45), (200, 120, 90)).save(path)
    Path(table["image_path"][0]).write_bytes(b"no image")
    return validate_cases(table)


def ids(page):
    return page.locator(".mkc-tile").evaluate_all("tiles => tiles.map((tile) => tile.dataset.image)")


def expect_matches(page, cases, by_label=False, **filters):
    """Turn through all pages: numbers, order and words of the tiles are those of the functions."""
    rows = filter_cases(cases, **filters)
    expect(page.locator(".mkc-summary")).to_have_text(summary_of(cases, rows, by_label))
    pages = page_of(cases, rows, 1, PAGE_SIZE)["pages"]
    for number in range(1, pages + 1):
        tiles = page_of(cases, rows, number, PAGE_SIZE)["tiles"]
        expect(page.get_by_label("page number")).to_have_value(str(number))
        expect(page.locator(".mkc-tile").first).to_have_attribute("data-image", tiles[0]["image_id"])
        assert ids(page) == [tile["image_id"] for tile in tiles]
        for shown, tile in zip(page.locator(".mkc-tile").all_inner_texts(), tiles, strict=True):
            label = "▲ melanoma" if tile["melanoma"] else "● other lesion"
            said = [label, *(tile[name] for name in ("person", "site", "diagnosis", "outcome", "answer") if tile[name])]
            assert shown.strip().splitlines()[-len(said) :] == said
        if number < pages:
            page.get_by_role("button", name="Next ▶").click()
    expect(page.get_by_role("button", name="Next ▶")).to_have_attribute("aria-disabled", "true")


def test_a_page_of_its_own_filters_sorts_and_asks(chromium, cases, tmp_path):
    noted = note_outcomes(answered := cases.assign(probability=np.random.default_rng(2).random(len(cases)).round(3)), 0.4)
    path = CaseExplorer(answered, page_size=PAGE_SIZE, threshold=0.4).save_page(tmp_path / "page.html", "Cases")
    with offline(chromium, path) as page:
        for label, words in (("outcome", "false positive"), ("sex", "missing"), ("age", "60 to 69")):
            page.get_by_role("button", name="Clear filters").click()
            chosen = page.get_by_label(label, exact=True)
            chosen.select_option(label=chosen.locator("option", has_text=words).inner_text())
            for order in ("table", "worst"):
                page.get_by_label("order", exact=True).select_option(order)
                rows = filter_cases(noted, **{label: words})
                rows = rows if order == "table" else worst_first(noted, rows)
                assert ids(page) == cases["image_id"].iloc[rows[:PAGE_SIZE]].tolist()
        page.get_by_role("button", name="Quiz").press("Enter")
        page.locator(".mkc-tile").nth(2).press("Enter")
        page.get_by_role("button", name="Melanoma (M)", exact=True).press("m")  # it is none
        expect(page.locator(".mk")).to_contain_text("You recognised 0 of 0 melanomas and 0 of 1 negatives")


def test_the_kernel_answers_filters_orders_choices_and_the_quiz(lab, cases, tmp_path):
    cases = note_outcomes(cases.assign(probability=np.random.default_rng(2).random(len(cases)).round(3)), 0.4)
    cases.drop(columns=["outcome", "from_threshold"]).to_pickle(tmp_path / "cases.pkl")
    cell = CELL.format(path=str(tmp_path / "cases.pkl"), page_size=PAGE_SIZE)
    with lab.open(notebook_of(tmp_path, cell)) as page:
        tiles, detail = page.locator(".mkc-tile"), page.locator(".mkc-detail")
        expect(tiles.nth(0).locator(".mkc-absent")).to_contain_text("cannot be read: 0.jpg")
        expect(tiles.nth(1).locator(".mkc-absent")).to_have_text("image not downloaded")
        expect_matches(page, cases)
        page.get_by_label("label", exact=True).select_option(label="melanoma (10)")
        page.get_by_label("sex", exact=True).select_option(label=f"missing ({cases['sex'].isna().sum()})")
        expect_matches(page, cases, by_label=True, target=1, sex="missing")
        page.get_by_role("button", name="Clear filters").click()

        ages, active = page.get_by_label("age", exact=True), "jupyterapp.shell.currentWidget.content.activeCellIndex"
        ages.focus()
        before = page.evaluate(active)
        ages.press("ArrowDown")  # which a notebook would take for a move to another cell
        expect_matches(page, cases, age="20 to 29")
        assert page.evaluate(active) == before
        page.get_by_role("button", name="Clear filters").click()
        expect(page.locator(".mkc-summary")).to_contain_text("40 of 40")

        tiles.nth(3).click()
        expect(detail).to_contain_text(cases["image_id"][3])
        assert any(fact.endswith(cases["patient_id"][3]) for fact in page.locator(".mkc-fact-list > div").all_inner_texts())
        expect_kernel(page, "explorer.selected", cases["image_id"][3])
        assert detail.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 288
        page.keyboard.press("Escape")
        expect(detail).to_have_count(0)
        expect(tiles.nth(3)).to_be_focused()
        expect_kernel(page, "explorer.selected", "")
        tiles.nth(2).press("Enter")
        expect(detail).to_contain_text(LONG)
        assert page.locator(".mk").evaluate("box => box.scrollWidth <= box.clientWidth")

        page.get_by_role("button", name="Quiz").click()
        tiles.nth(3).click()
        expect(page.get_by_role("button", name="Not melanoma (N)")).to_be_visible()
        assert "melanoma" not in tiles.nth(3).inner_text()
        page.get_by_role("button", name="Melanoma (M)", exact=True).press("m")
        expect(detail).to_contain_text("You said melanoma: right.")
