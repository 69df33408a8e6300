"""ThresholdExplorer in a file without kernel and network: every number it shows is the library's."""

import re

import numpy as np
import pytest

from melanoma_lib.evaluation import Calibrator, OperatingCurve
from melanoma_lib.widgets.threshold import ISIC_2020_PREVALENCE, ThresholdExplorer, preset_thresholds, threshold_state
from tests.browser.lab import watch_faults

pytest_plugins = ["tests.browser.lab"]

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
from playwright.sync_api import Page, expect, sync_playwright  # noqa: E402

N = 400_000
CALIBRATOR = Calibrator(1.4, -0.9)
WORLD = f"""
import numpy as np
from melanoma_lib.evaluation import Calibrator
from melanoma_lib.widgets import ThresholdExplorer
rng = np.random.default_rng(5)
targets = (rng.random({N}) < 0.08).astype(int)
scores = 1 / (1 + np.exp(-rng.normal(size={N}) - 1.8 * targets + 0.7))
scores[::7] = scores[::7].round(2)  # ties
"""
NUMBERS = (
    "sensitivity", "specificity", "balanced_accuracy", "youden", "lr_positive", "lr_negative",
    "ppv", "npv", "biopsies_per_melanoma", "risk", "net_benefit", "f1", "accuracy", "mcc",
)  # fmt: skip
LESIONS = {"found": "melanomas found", "missed": "missed", "alarms": "false alarms", "let_go": "let go"}


def random_world():
    """Targets and scores that the code in WORLD makes."""
    names: dict = {}
    exec(WORLD, names)
    return names["targets"], names["scores"]


@pytest.fixture(scope="module")
def world():
    return random_world()


@pytest.fixture(scope="module")
def curve(world):
    return OperatingCurve(*world)


@pytest.fixture(scope="module")
def saved(world, lab, tmp_path_factory):
    """The explorer opened from a file, offline; it may ask for nothing."""
    explorer = ThresholdExplorer(*world, calibrator=CALIBRATOR)
    path = explorer.save_page(tmp_path_factory.mktemp("page") / "page.html", "Threshold")
    launch = {"executable_path": lab.browser, "args": ["--no-sandbox"]}
    with sync_playwright() as playwright, playwright.chromium.launch(**launch) as browser:
        page = browser.new_context(offline=True, viewport={"width": 1180, "height": 1100}).new_page()
        faults = watch_faults(page)
        page.goto(path.as_uri())
        page.get_by_label("threshold", exact=True).wait_for()
        yield page
        assert faults == []


def enter(page: Page, label: str, value: float) -> None:
    page.get_by_label(label, exact=True).fill(repr(value))
    page.get_by_label(label, exact=True).dispatch_event("change")


def shown(page: Page) -> dict[str, float]:
    """Every number on the page, at full precision."""
    fields = "[...document.querySelectorAll('strong[data-number]')].map(({ dataset }) => [dataset.number, dataset.value])"
    values = page.evaluate(f"() => Object.fromEntries({fields})")
    return {name: float(value.replace("Infinity", "inf").replace("NaN", "nan")) for name, value in values.items()}


def expect_numbers(page: Page, state: dict[str, float]) -> None:
    values = shown(page)
    assert set(values) == set(NUMBERS)
    for name in NUMBERS:
        assert values[name] == pytest.approx(state[name], rel=1e-9, abs=1e-12, nan_ok=True), name
    for name in ("tp", "fp", "tn", "fn"):
        expect(page.locator(f"td[data-number={name}]")).to_have_text(f"{state[name]:,}")
    for name, words in LESIONS.items():
        expect(page.locator(".mk-t-plots")).to_contain_text(f"{state[name]} {words}")
    text = page.locator("strong[data-number=sensitivity]").inner_text()
    assert float(text.rstrip("%")) == pytest.approx(100 * state["sensitivity"], abs=0.0501)


def test_every_number_is_the_librarys_at_any_threshold_and_prevalence(saved, curve, world):
    rng = np.random.default_rng(0)
    thresholds = [*rng.random(12), *rng.choice(world[1], 6), 0.0, 1.0, 0.25, float(curve.thresholds[-1])]
    for threshold in map(float, thresholds):
        percent = float(np.round(10 ** rng.uniform(-1.5, 1.9), 4))
        enter(saved, "threshold, exact", threshold)
        enter(saved, "prevalence, percent", percent)
        expect_numbers(saved, threshold_state(curve, threshold, percent / 100, CALIBRATOR))


def test_keys_move_the_threshold_exactly(saved, curve):
    slider = saved.get_by_label("threshold", exact=True)
    enter(saved, "threshold, exact", 0.34567)
    saved.get_by_role("button", name="these cases").click()
    slider.focus()
    at = 0.346
    for key, value in (
        ("ArrowRight", 0.347),
        ("ArrowLeft", at),
        ("Shift+ArrowRight", 0.356),
        ("PageDown", 0.306),
        ("Home", 0.0),
        ("End", 1.0),
    ):
        slider.press(key)
        expect_numbers(saved, threshold_state(curve, value, calibrator=CALIBRATOR))
    assert slider.get_attribute("aria-valuetext").startswith("1.000: sensitivity 0.0%")


def test_presets_are_the_curves_own_choices(saved, curve):
    saved.get_by_role("button", name=re.compile("ISIC 2020")).click()
    for name, threshold in preset_thresholds(curve).items():
        button = saved.get_by_role("button", name=name, exact=True)
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")
        expect_numbers(saved, threshold_state(curve, threshold, ISIC_2020_PREVALENCE, CALIBRATOR))


@pytest.mark.parametrize(("miss", "alarm", "percent"), [(20, 1, 8.0), (5, 2, 30.0), (500, 1, 1.5)])
def test_the_cheapest_threshold_is_that_of_the_library(saved, curve, miss, alarm, percent):
    enter(saved, "cost of a missed melanoma", miss)
    enter(saved, "cost of a false alarm", alarm)
    enter(saved, "prevalence, percent", percent)
    saved.get_by_role("button", name="lowest cost").click()
    best = curve.min_cost(miss, alarm, percent / 100)
    expect_numbers(saved, threshold_state(curve, best.threshold, percent / 100, CALIBRATOR))


def test_where_flagging_nobody_is_cheapest_the_page_says_so(saved, tmp_path):
    targets, scores = [0, 1, 0, 1, 0], [0.1, 0.3, 0.3, 0.8, 0.9]
    assert OperatingCurve(targets, scores).min_cost(1, 1000).threshold == float("inf")
    explorer = ThresholdExplorer(targets, scores, threshold=0.3, fn_cost=1, fp_cost=1000)
    with saved.context.new_page() as page:
        page.goto(explorer.save_page(tmp_path / "page.html", "Threshold").as_uri())
        page.get_by_role("button", name="lowest cost").click()
        expect(page.get_by_role("status")).to_contain_text("Flagging nobody costs less")
        expect_numbers(page, threshold_state(explorer.curve, 0.3))
        enter(page, "cost of a missed melanoma", 1e6)  # the message is about costs that are gone
        expect(page.get_by_role("status")).to_be_empty()


def test_a_number_out_of_range_is_refused_where_it_is_typed(saved):
    enter(saved, "threshold, exact", 0.5)
    before = shown(saved)
    enter(saved, "threshold, exact", 1.5)
    assert saved.get_by_label("threshold, exact").evaluate("field => field.validationMessage") == "Expected a number from 0 to 1."
    assert shown(saved) == pytest.approx(before, nan_ok=True)
    enter(saved, "threshold, exact", 0.5)


def test_a_screen_reader_hears_where_it_rests_and_what_the_plots_show(saved, curve):
    enter(saved, "threshold, exact", 0.4)
    state = threshold_state(curve, 0.4)
    expect(saved.locator("[aria-live=polite]")).to_contain_text(f"Threshold 0.400: sensitivity {state['sensitivity']:.1%}")
    names = [saved.get_by_role("img").nth(i).get_attribute("aria-label") for i in range(6)]
    assert all(names)
    assert any(f"AUROC {curve.auroc:.3f}" in name for name in names)


def test_what_is_undefined_is_said_in_words_and_signs(saved, tmp_path):
    explorer = ThresholdExplorer([0, 1, 0, 1, 0], [0.1, 0.3, 0.3, 1.0, 1.0], threshold=1.0)
    with saved.context.new_page() as page:
        page.goto(explorer.save_page(tmp_path / "page.html", "Threshold").as_uri())
        expect(page.locator("strong[data-number=net_benefit]")).to_have_text("−∞")
        enter(page, "threshold, exact", 0.999)
        spoken = page.locator(".mk").evaluate("box => box.textContent + [...box.querySelectorAll('svg')].map((s) => s.ariaLabel)")
        assert not re.search("NaN|Infinity|undefined|null", spoken)
        explorer = ThresholdExplorer([0, 1, 0, 1], [0.1, 0.3, 0.3, 0.4], threshold=0.5)  # nobody is flagged
        page.goto(explorer.save_page(tmp_path / "nobody.html", "Threshold").as_uri())
        expect(page.locator("strong[data-number=ppv]")).to_have_text("–")
        spoken = page.locator(".mk").evaluate("box => box.textContent + [...box.querySelectorAll('svg')].map((s) => s.ariaLabel)")
        assert not re.search("NaN|Infinity|undefined|null", spoken)
        expect(page.locator(".mk")).to_contain_text("No calibration was given")


def test_both_themes_are_legible(saved):
    """Text against its background reaches the contrast of WCAG AA, 4.5 to 1."""

    def luminance(colour: str) -> float:
        channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    style = "(name) => getComputedStyle(document.querySelector(name))"
    for scheme in ("light", "dark"):
        saved.emulate_media(color_scheme=scheme)
        expect(saved.locator("html.mk-dark")).to_have_count(int(scheme == "dark"))  # the page hears of it a frame later
        paper = luminance(saved.evaluate(f"({style})('.mk').backgroundColor"))
        for name in (".mk", ".mk-note", ".mk-t-group > p", ".mk-t-plots svg text"):
            ink = luminance(saved.evaluate(f"({style})('{name}').{'fill' if 'text' in name else 'color'}"))
            assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 4.5, (scheme, name)
    saved.emulate_media(color_scheme="light")
