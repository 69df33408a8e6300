"""LuckExplorer in a file without kernel and network: every number it shows is the library's."""

import itertools
import re

import numpy as np
import pytest

from melanoma_lib.widgets.base import HERE
from melanoma_lib.widgets.luck import LIMITS, PLACES, LuckExplorer, luck_state
from tests.browser.lab import watch_faults

pytest_plugins = ["tests.browser.lab"]

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
from playwright.sync_api import Page, expect, sync_playwright  # noqa: E402

SHOWN = ("half_width", "wrong", "power", "best")
LABELS = {
    "melanomas": "melanomas in the test", "ratio": "other lesions for each", "auroc": "true AUROC",
    "gap": "other model worse by", "alike": "correlation of the two AUROCs", "tries": "splits tried",
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(lab, tmp_path_factory):
    """The explorer opened from a file, offline; it may ask for nothing."""
    path = LuckExplorer(52, 4.3, places={"this lesson's test": (52, 4.3)}).save_page(
        tmp_path_factory.mktemp("p") / "p.html", "Luck"
    )
    launch = {"executable_path": lab.browser, "args": ["--no-sandbox"]}
    with sync_playwright() as playwright, playwright.chromium.launch(**launch) as browser:
        page = browser.new_context(offline=True, viewport={"width": 1136, "height": 760}).new_page()
        faults = watch_faults(page)
        page.goto(path.as_uri())
        page.get_by_label(LABELS["gap"]).wait_for()
        yield page
        assert faults == []


def expect_numbers(page: Page, state: dict[str, float]) -> None:
    for name in SHOWN:
        value = float(page.locator(f"strong[data-number={name}]").get_attribute("data-value"))
        assert value == pytest.approx(state[name], rel=1e-9, abs=1e-12), name
    expect(page.locator("[data-remark=half_width]")).to_contain_text(f"{state['fine']:,} melanomas")


def test_the_pages_arithmetic_is_the_librarys_at_random_and_extreme_values(saved):
    rng = np.random.default_rng(0)
    ends = [{name: limits[end] for name, limits in LIMITS.items()} for end in (0, 1)]
    drawn = [{name: float(rng.uniform(*limits)) for name, limits in LIMITS.items()} for _ in range(40)]
    asked = [{**one, "melanomas": round(one["melanomas"]), "tries": round(one["tries"])} for one in (*ends, *drawn)]
    answers = saved.evaluate(
        "(values) => { " + (HERE / "luck_numbers.js").read_text(encoding="utf-8")
        + " return values.map((one) => { const state = luckAt(one); return { ...state, found: String(state.found) }; }); }",
        asked,
    )  # fmt: skip
    for one, answer in zip(asked, answers, strict=True):
        for name, value in luck_state(**one).items():
            assert float(answer[name].replace("Infinity", "inf") if name == "found" else answer[name]) == pytest.approx(
                value, rel=1e-8, abs=1e-12
            ), (name, one)


def test_keys_and_buttons_move_what_they_name(saved):
    saved.get_by_role("button", name="this lesson's test").click()
    expect_numbers(saved, luck_state(52, 4.3, 0.9, 0.01, 0.7, 10))
    for label, key, wanted in (
        ("gap", "ArrowRight", {"gap": 0.011}),
        ("melanomas", "ArrowRight", {"gap": 0.011, "melanomas": 55}),
        ("tries", "ArrowLeft", {"gap": 0.011, "melanomas": 55, "tries": 9}),
        ("gap", "Home", {"gap": 0.0, "melanomas": 55, "tries": 9}),
    ):
        saved.get_by_label(LABELS[label]).press(key)
        start = {"melanomas": 52, "ratio": 4.3, "auroc": 0.9, "gap": 0.01, "alike": 0.7, "tries": 10}
        expect_numbers(saved, luck_state(**start | wanted))
    expect(saved.locator("[data-remark=power]")).to_have_text("no gap: false alarms")
    expect(saved.locator("[data-number=power]")).to_have_text("5.0%")
    for name, (melanomas, ratio) in PLACES.items():
        button = saved.get_by_role("button", name=name)
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")
        expect_numbers(saved, luck_state(melanomas, ratio, 0.9, 0.0, 0.7, 9))


@pytest.mark.parametrize("keys", [{}, {"melanomas": "End", "gap": "End"}, {"melanomas": "Home", "true AUROC": "End"}])
def test_the_bands_own_ends_are_written_and_not_over_each_other(saved, keys):
    saved.get_by_role("button", name="this lesson's test").click()
    for name, key in keys.items():
        saved.get_by_label(LABELS.get(name, name)).press(key)
    plot = saved.locator(".mk-luck-plots svg").first
    half = float(saved.locator("strong[data-number=half_width]").get_attribute("data-value"))
    auroc = float(saved.get_by_label(LABELS["auroc"]).input_value())
    words = plot.locator("text").evaluate_all(
        "all => all.filter((one) => /^[01][.]\\d{3}$/.test(one.textContent)).map((one) => "
        "[one.textContent, one.getBoundingClientRect().left, one.getBoundingClientRect().right])"
    )
    assert (
        {f"{auroc - half:.3f}", f"{min(1.0, auroc + half):.3f}"}
        <= {word for word, *_ in words}
        <= {f"{end:.3f}" for end in (auroc - half, auroc, min(1.0, auroc + half))}
    )
    places = sorted((left, right) for _, left, right in words)
    assert all(after[0] > before[1] for before, after in itertools.pairwise(places))


def test_at_the_ends_of_every_slider_all_words_are_numbers(saved):
    for key in ("Home", "End"):
        for label in LABELS.values():
            saved.get_by_label(label).press(key)
            spoken = saved.locator(".mk").evaluate("b => b.innerHTML + [...b.querySelectorAll('svg')].map((s) => s.ariaLabel)")
            assert not re.search("NaN|Infinity|undefined|null", spoken), (label, key)


def test_both_themes_are_legible(saved):
    """Text against its background reaches the contrast of WCAG AA, 4.5 to 1."""

    def luminance(colour: str) -> float:
        channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for scheme in ("light", "dark"):
        saved.emulate_media(color_scheme=scheme)
        expect(saved.locator("html.mk-dark")).to_have_count(int(scheme == "dark"))
        paper = luminance(saved.evaluate("getComputedStyle(document.querySelector('.mk')).backgroundColor"))
        inks = saved.evaluate("[...document.querySelectorAll('.mk-luck-plots text')].map((one) => getComputedStyle(one).fill)")
        inks += saved.evaluate(
            "[...document.querySelectorAll('.mk-luck-numbers span')].map((one) => getComputedStyle(one).color)"
        )
        for ink in set(inks):
            light = luminance(ink)
            assert (max(light, paper) + 0.05) / (min(light, paper) + 0.05) > 4.5, (scheme, ink)
    saved.emulate_media(color_scheme="light")
