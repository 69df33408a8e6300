"""LuckExplorer in a file without kernel and network: every number it shows is the library's."""

import numpy as np
import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
from playwright.sync_api import expect

from melanoma_lib.widgets.base import HERE
from melanoma_lib.widgets.luck import LIMITS, PLACES, LuckExplorer, luck_state
from tests.browser.lab import assert_legible, offline, spoken

LABELS = {
    "melanomas": "melanomas in the test", "ratio": "other lesions for each", "auroc": "true AUROC",
    "gap": "other model worse by", "alike": "correlation of the two AUROCs", "tries": "splits tried",
}  # fmt: skip


@pytest.fixture(scope="module")
def page(chromium, tmp_path_factory):
    explorer = LuckExplorer(52, 4.3, places={"this lesson's test": (52, 4.3)})
    with offline(chromium, explorer.save_page(tmp_path_factory.mktemp("p") / "p.html", "Luck")) as page:
        yield page


def expect_numbers(page, state):
    for name in ("half_width", "wrong", "power", "best"):
        value = float(page.locator(f"strong[data-number={name}]").get_attribute("data-value"))
        assert value == pytest.approx(state[name], rel=1e-9, abs=1e-12), name
    expect(page.locator("[data-remark=half_width]")).to_contain_text(f"{state['fine']:,} melanomas")


def test_the_pages_arithmetic_is_the_librarys_at_random_and_extreme_values(page):
    rng = np.random.default_rng(0)
    ends = [{name: limits[end] for name, limits in LIMITS.items()} for end in (0, 1)]
    drawn = [{name: float(rng.uniform(*limits)) for name, limits in LIMITS.items()} for _ in range(40)]
    asked = [{**one, "melanomas": round(one["melanomas"]), "tries": round(one["tries"])} for one in (*ends, *drawn)]
    script = (HERE / "luck_numbers.js").read_text(encoding="utf-8")
    compute = "return values.map((one) => { const state = luckAt(one); return { ...state, found: String(state.found) }; });"
    for one, answer in zip(asked, page.evaluate(f"(values) => {{ {script} {compute} }}", asked), strict=True):
        for name, value in luck_state(**one).items():
            found = float(answer[name].replace("Infinity", "inf") if name == "found" else answer[name])
            assert found == pytest.approx(value, rel=1e-8, abs=1e-12), (name, one)


def test_keys_and_buttons_move_what_they_name(page):
    page.get_by_role("button", name="this lesson's test").click()
    state = {"melanomas": 52, "ratio": 4.3, "auroc": 0.9, "gap": 0.01, "alike": 0.7, "tries": 10}
    expect_numbers(page, luck_state(**state))
    for label, key, value in (
        ("gap", "ArrowRight", 0.011), ("melanomas", "ArrowRight", 55), ("tries", "ArrowLeft", 9), ("gap", "Home", 0.0),
    ):  # fmt: skip
        page.get_by_label(LABELS[label]).press(key)
        state[label] = value
        expect_numbers(page, luck_state(**state))
    for name, (melanomas, ratio) in PLACES.items():
        page.get_by_role("button", name=name).click()
        expect(page.get_by_role("button", name=name)).to_have_attribute("aria-pressed", "true")
        expect_numbers(page, luck_state(**state | {"melanomas": melanomas, "ratio": ratio}))


def test_at_the_ends_of_every_slider_all_words_are_numbers_and_legible(page):
    for key in ("Home", "End"):
        for label in LABELS.values():
            page.get_by_label(label).press(key)
            spoken(page)
    assert_legible(page, ".mk-luck-plots text", ".mk-luck-numbers span")
