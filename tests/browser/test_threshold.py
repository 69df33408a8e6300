"""ThresholdExplorer in a file without kernel and network, every number the library's; and in a real JupyterLab."""

import numpy as np
import pytest
from scipy.special import logit
from scipy.stats import binomtest
from sklearn.metrics import roc_curve

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
from playwright.sync_api import expect

from melanoma_lib.evaluation import Calibrator, OperatingCurve, adjust_for_prevalence
from melanoma_lib.evaluation.intervals import RATES
from melanoma_lib.evaluation.operating import ratio
from melanoma_lib.widgets import ThresholdExplorer
from tests.browser.lab import KERNEL, ask_kernel, assert_legible, expect_kernel, notebook_of, offline, press

N = 400_000
CALIBRATOR = Calibrator(1.4, -0.9)
CELL = """import numpy as np
from melanoma_lib.evaluation import Calibrator
from melanoma_lib.widgets import ThresholdExplorer
targets, scores = np.load({path!r})
explorer = ThresholdExplorer(targets.astype(int), scores, Calibrator(1.4, -0.9), threshold=0.3)
explorer"""
NUMBERS = (
    "sensitivity", "specificity", "balanced_accuracy", "youden", "lr_positive", "lr_negative",
    "ppv", "npv", "biopsies_per_melanoma", "risk", "net_benefit", "f1", "accuracy", "mcc",
)  # fmt: skip
OUTCOMES = {"tp": "true positives", "fn": "false negatives", "fp": "false positives", "tn": "true negatives"}
# A key that repeats faster than any pause in which a page might gather presses.
HELD_KEY = """async (slider, times) => {
    for (; times; times--) {
        slider.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true, cancelable: true }));
        await new Promise((resolve) => setTimeout(resolve, 12));
    }
}"""


@pytest.fixture(scope="module")
def world():
    """Targets and scores, some of them tied."""
    rng = np.random.default_rng(5)
    targets = (rng.random(N) < 0.08).astype(int)
    scores = 1 / (1 + np.exp(-rng.normal(size=N) - 1.8 * targets + 0.7))
    scores[::7] = scores[::7].round(2)
    return targets, scores


@pytest.fixture(scope="module")
def curve(world):
    return OperatingCurve(*world)


@pytest.fixture(scope="module")
def saved(world, chromium, tmp_path_factory):
    explorer = ThresholdExplorer(*world, calibrator=CALIBRATOR, simple=False)
    with offline(chromium, explorer.save_page(tmp_path_factory.mktemp("page") / "page.html", "Threshold")) as page:
        yield page


def state_of(curve, threshold, prevalence=None, calibrator=None):
    """Every number of the page, by the library: those of the operating point, and what follows from it at a prevalence."""
    prevalence, point, risk = prevalence or curve.prevalence, curve.at(threshold), threshold
    if 0 < threshold < 1:  # at the ends the page says no risk, and all of it
        risk = threshold if calibrator is None else calibrator.risk(logit(threshold))
        risk = float(adjust_for_prevalence(risk, curve.prevalence, prevalence))
    of_thousand, ppv = point.per_thousand(prevalence), point.ppv_at(prevalence)
    cost = (1 - prevalence) * (1 - point.specificity) * ratio(risk, 1 - risk) if point.fp else 0.0
    state = {name: getattr(point, name) for name in (*OUTCOMES, *RATES)}
    both = point.sensitivity + point.specificity
    state |= {"balanced_accuracy": both / 2, "youden": both - 1}
    state |= {"lr_positive": ratio(point.sensitivity, ratio(point.fp, point.fp + point.tn))}
    state |= {"lr_negative": ratio(ratio(point.fn, point.fn + point.tp), point.specificity)}
    state |= {f"{name}_per_1000": getattr(of_thousand, name) for name in OUTCOMES}
    state |= {"ppv": ppv, "npv": point.npv_at(prevalence), "biopsies_per_melanoma": ratio(1.0, ppv), "risk": risk}
    return state | {"net_benefit": prevalence * point.sensitivity - cost}


def enter(page, label, value):
    page.get_by_label(label, exact=True).fill(repr(value))
    page.get_by_label(label, exact=True).dispatch_event("change")


def expect_numbers(page, state):
    fields = "[...document.querySelectorAll('strong[data-number]')].map(({ dataset }) => [dataset.number, dataset.value])"
    values = {name: float(value.replace("Infinity", "inf")) for name, value in page.evaluate(fields)}
    assert values == pytest.approx({name: state[name] for name in NUMBERS}, rel=1e-9, abs=1e-12, nan_ok=True)
    for name, words in OUTCOMES.items():
        expect(page.locator(f"td[data-number={name}]")).to_have_text(f"{state[name]:,}")
        expect(page.locator(".mk-t-plots")).to_contain_text(f"{state[f'{name}_per_1000']} {words}")
    text = page.locator("strong[data-number=sensitivity]").inner_text()
    assert float(text.rstrip("%")) == pytest.approx(100 * state["sensitivity"], abs=0.0501)


def test_every_number_is_the_librarys_at_any_threshold_and_prevalence(saved, curve, world):
    rng = np.random.default_rng(0)
    thresholds = [*rng.random(12), *rng.choice(world[1], 6), 0.0, 1.0, 0.25, float(curve.thresholds[-1])]
    for threshold in map(float, thresholds):
        percent = float(np.round(10 ** rng.uniform(-1.5, 1.9), 4))
        enter(saved, "threshold, exact", threshold)
        enter(saved, "prevalence, percent", percent)
        expect_numbers(saved, state_of(curve, threshold, percent / 100, CALIBRATOR))


def test_it_starts_simple_with_wilsons_intervals_and_controls_that_stay_in_view(chromium, tmp_path):
    targets = np.repeat([1, 1, 0, 0], [7, 4, 30, 9])
    scores = np.repeat([0.9, 0.2, 0.1, 0.8], [7, 4, 30, 9])
    path = ThresholdExplorer(targets, scores).save_page(tmp_path / "page.html", "Threshold")
    with offline(chromium, path, viewport={"width": 1180, "height": 420}) as page:
        for name, (k, n) in {"sensitivity": (7, 11), "specificity": (30, 39)}.items():
            low, high = 100 * np.array(binomtest(k, n).proportion_ci(method="wilson"))
            expect(page.locator(f"[data-interval={name}]")).to_have_text(f"95% interval {low:.1f}% to {high:.1f}%")
        expect(page.get_by_label("prevalence", exact=True)).to_be_hidden()
        page.get_by_role("button", name="Show everything").press("Enter")
        expect(page.get_by_label("prevalence", exact=True)).to_be_visible()
        page.evaluate("scrollTo(0, 500)")
        assert page.evaluate("scrollY") > 100
        expect(page.get_by_label("threshold", exact=True)).to_be_in_viewport()


@pytest.mark.parametrize(("miss", "alarm", "percent"), [(20, 1, 8.0), (500, 1, 1.5)])
def test_the_cheapest_threshold_is_that_of_scikit_learn(saved, curve, world, miss, alarm, percent):
    enter(saved, "cost of a false negative", miss)
    enter(saved, "cost of a false positive", alarm)
    enter(saved, "prevalence, percent", percent)
    saved.get_by_role("button", name="lowest cost").click()
    share = percent / 100
    false_positive_rates, sensitivities, thresholds = roc_curve(*world, drop_intermediate=False)
    best = np.argmin(share * (1 - sensitivities) * miss + (1 - share) * false_positive_rates * alarm)
    expect_numbers(saved, state_of(curve, thresholds[best], share, CALIBRATOR))


def test_a_number_out_of_range_is_refused_and_a_screen_reader_hears_where_it_rests(saved, curve):
    enter(saved, "threshold, exact", 0.4)
    enter(saved, "threshold, exact", 1.5)
    assert saved.get_by_label("threshold, exact").evaluate("field => field.validationMessage") == "Expected a number from 0 to 1."
    enter(saved, "threshold, exact", 0.4)
    state = state_of(curve, 0.4)
    expect(saved.locator("[aria-live=polite]")).to_contain_text(f"Threshold 0.400: sensitivity {state['sensitivity']:.1%}")
    names = [saved.get_by_role("img").nth(i).get_attribute("aria-label") for i in range(6)]
    assert all(names) and any(f"AUROC {curve.auroc:.3f}" in name for name in names)
    assert_legible(saved, ".mk", ".mk-note", ".mk-t-group > p", ".mk-t-plots svg text")


def test_keys_move_the_threshold_exactly(saved, curve):
    enter(saved, "threshold, exact", 0.34567)
    saved.get_by_role("button", name="these cases").click()
    keys = {"ArrowRight": 0.347, "ArrowLeft": 0.346, "Shift+ArrowRight": 0.356, "PageDown": 0.306, "Home": 0.0, "End": 1.0}
    for key, value in keys.items():
        press(saved, "threshold", key)
        expect_numbers(saved, state_of(curve, value, calibrator=CALIBRATOR))


def test_page_and_kernel_keep_step_and_no_key_press_is_undone_by_an_echo(lab, curve, world, tmp_path):
    np.save(tmp_path / "world.npy", world)
    with lab.open(notebook_of(tmp_path, CELL.format(path=str(tmp_path / "world.npy"))), height=1200) as page:
        page.get_by_role("button", name="Show everything").click()
        press(page, "threshold", "ArrowRight", 5)
        expect_numbers(page, state_of(curve, 0.305, calibrator=CALIBRATOR))
        expected = (0.305, curve.at(0.305).tp, curve.at(0.305).fp)
        expect_kernel(page, "(explorer.threshold, explorer.point.tp, explorer.point.fp)", expected)
        ask_kernel(page, "(setattr(explorer, 'threshold', 0.6123), setattr(explorer, 'prevalence', 0.02))")
        expect(page.get_by_label("threshold, exact", exact=True)).to_have_value("0.6123")
        expect_numbers(page, state_of(curve, 0.6123, 0.02, CALIBRATOR))
        assert page.locator(".mk").evaluate("box => box.scrollWidth <= box.clientWidth")

        enter(page, "threshold, exact", 0.2)
        page.evaluate(f"() => {{ {KERNEL}.requestExecute({{ code: 'import time; time.sleep(1)' }}); }}")
        press(page, "threshold", "ArrowRight")
        page.wait_for_timeout(200)  # on its way; the kernel's echo comes a second later, amid the following presses
        page.get_by_label("threshold", exact=True).evaluate(HELD_KEY, 99)
        expect(page.get_by_label("threshold, exact", exact=True)).to_have_value("0.3", timeout=10_000)
        page.wait_for_timeout(500)
        expect_kernel(page, "explorer.threshold", 0.3)
        expect(page.get_by_role("alert")).to_have_count(0)
        page.evaluate(f"() => {KERNEL}.restart()")
        expect(page.get_by_role("alert")).to_contain_text("The kernel that this view belongs to is gone")
        assert page.get_by_label("threshold", exact=True).evaluate("slider => slider.matches('[inert] *')")
        page.wait_for_function(f"{KERNEL}.status === 'idle'")
