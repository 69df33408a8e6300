"""ThresholdExplorer: its numbers against counting, scikit-learn and the curve; what it refuses; its page's values."""

import json
import math

import numpy as np
import pytest
import traitlets
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from melanoma_lib.evaluation import Calibrator, OperatingCurve
from melanoma_lib.widgets import ThresholdExplorer
from melanoma_lib.widgets.threshold import (
    preset_thresholds,
    risk_at,
    threshold_state,
)


def cases(n=400, seed=0, ties=True):
    rng = np.random.default_rng(seed)
    targets = (rng.random(n) < 0.2).astype(int)
    targets[:2] = 0, 1
    scores = 1 / (1 + np.exp(-(rng.normal(size=n) + 1.5 * targets - 0.5)))
    return targets, scores.round(2) if ties else scores


tied = st.integers(0, 10_000).flatmap(lambda seed: st.tuples(st.integers(4, 60), st.just(seed))).map(lambda a: cases(*a))


@given(tied, st.floats(0, 1), st.floats(0.001, 0.999))
def test_numbers_equal_counting_and_scikit_learn(case, threshold, prevalence):
    targets, scores = case
    state = threshold_state(OperatingCurve(targets, scores), threshold, prevalence)
    called = scores >= threshold
    tn, fp, fn, tp = metrics.confusion_matrix(targets, called, labels=[0, 1]).ravel()
    assert [state[name] for name in ("tp", "fp", "tn", "fn")] == [tp, fp, tn, fn]
    assert state["sensitivity"] == pytest.approx(metrics.recall_score(targets, called))
    assert state["f1"] == pytest.approx(metrics.f1_score(targets, called, zero_division=0))
    assert state["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(targets, called))
    # 1,000 lesions: whole, complete, and within half a lesion of the rates
    lesions = [state[name] for name in ("tp_per_1000", "fn_per_1000", "fp_per_1000", "tn_per_1000")]
    assert sum(lesions) == 1000
    assert min(lesions) >= 0
    assert state["tp_per_1000"] + state["fn_per_1000"] == round(1000 * prevalence)
    assert abs(state["tp_per_1000"] - state["sensitivity"] * round(1000 * prevalence)) <= 0.5


@given(tied, st.floats(0, 1))
def test_at_the_cases_own_prevalence_nothing_is_carried_over(case, threshold):
    targets, scores = case
    curve = OperatingCurve(targets, scores)
    state, point = threshold_state(curve, threshold), curve.at(threshold)
    assert state["ppv"] == pytest.approx(point.ppv, nan_ok=True)
    assert state["npv"] == pytest.approx(point.npv, nan_ok=True)
    assert state["biopsies_per_melanoma"] == pytest.approx(point.biopsies_per_melanoma, nan_ok=True)
    if threshold < 1:  # scores without a calibrator are risks, and net benefit is its definition
        assert state["risk"] == pytest.approx(threshold)
        called = scores >= threshold
        by_hand = (called & (targets == 1)).mean() - (called & (targets == 0)).mean() * threshold / (1 - threshold)
        assert state["net_benefit"] == pytest.approx(by_hand, abs=1e-12)


def test_a_risk_at_another_prevalence_is_that_of_cases_resampled_to_it():
    """Among cases drawn again at the new prevalence, the share of melanomas at one score is the shifted risk."""
    rng = np.random.default_rng(3)
    n, own, new = 2_000_000, 0.2, 0.02
    targets = rng.random(n) < own
    logits = rng.normal(size=n) + 1.2 * targets
    slope, intercept = 1.2, math.log(own / (1 - own)) - 1.2**2 / 2  # exact for two normals of one spread
    near = np.abs(logits - 1.0) < 0.05
    melanomas, others = (near & targets).sum() / targets.sum(), (near & ~targets).sum() / (~targets).sum()
    seen = new * melanomas / (new * melanomas + (1 - new) * others)
    shown = risk_at(1 / (1 + math.exp(-1.0)), own, new, Calibrator(slope, intercept))
    assert shown == pytest.approx(seen, rel=0.05)
    assert risk_at(0.3, own, own, None) == pytest.approx(0.3)


def test_values_can_be_set_and_are_held_to_their_range():
    explorer = ThresholdExplorer(*cases(), threshold=0.25, prevalence=0.05)
    assert explorer.point == explorer.curve.at(0.25)
    explorer.threshold = 0.75
    assert explorer.point == explorer.curve.at(0.75)
    for name, wrong in (("threshold", 1.5), ("prevalence", 0.0), ("fn_cost", 0.0), ("fp_cost", -1.0)):
        with pytest.raises(traitlets.TraitError):
            setattr(explorer, name, wrong)


@pytest.mark.parametrize(
    ("targets", "scores", "message"),
    [
        ([0, 1], [0.2, 1.2], r"scores: expected probabilities or risks in \[0, 1\], got 0.2 to 1.2"),
        ([0, 1], [-3.0, 0.4], "pass the sigmoid of a logit"),
        ([0, 1, 1], [0.1, 0.2], r"scores: expected shape \(3,\) to match targets, got \(2,\)"),
    ],
)
def test_what_cannot_be_explored_is_refused(targets, scores, message):
    with pytest.raises(ValueError, match=message):
        ThresholdExplorer(targets, scores)


def test_a_page_without_a_kernel_gets_the_presets_with_their_numbers():
    explorer = ThresholdExplorer(*cases(), threshold=0.333)
    data, metadata = explorer._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")
    described = metadata["image/png"]["alt"]
    for name, value in {"chosen": 0.333, **preset_thresholds(explorer.curve)}.items():
        state = threshold_state(explorer.curve, value, explorer.prevalence)
        assert f"{name}: threshold {value:.3f}, sensitivity {state['sensitivity']:.1%}" in described


def test_a_saved_page_holds_its_values_and_asks_nothing_of_a_network(tmp_path):
    explorer = ThresholdExplorer(*cases(), threshold=0.4)
    page = explorer.save_page(tmp_path / "page.html", "Closing </script> tags & <others>").read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    assert "Closing &lt;/script&gt; tags &amp; &lt;others&gt;" in page
    values = json.loads(page.split('type="application/json">')[1].split("</script>")[0])
    assert values["threshold"] == 0.4
    assert set(values) == {"threshold", "prevalence", "fn_cost", "fp_cost", "simple", "facts", "counts", "problem"}
    assert not any(address in page.replace("http://www.w3.org/2000/svg", "") for address in ("http://", "https://", "//cdn"))
