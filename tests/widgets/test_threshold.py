"""ThresholdExplorer: what carries over to another prevalence; what it refuses; its page's values."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma_lib.evaluation import Calibrator, OperatingCurve, adjust_for_prevalence
from melanoma_lib.widgets import ThresholdExplorer
from melanoma_lib.widgets.threshold import preset_thresholds


def cases(n=400, seed=0):
    rng = np.random.default_rng(seed)
    targets = (rng.random(n) < 0.2).astype(int)
    targets[:2] = 0, 1
    scores = 1 / (1 + np.exp(-(rng.normal(size=n) + 1.5 * targets - 0.5)))
    return targets, scores.round(2)  # ties


@given(st.integers(4, 60), st.integers(0, 10_000), st.floats(0, 1), st.floats(0.001, 0.999))
def test_1000_lesions_are_whole_complete_and_within_half_a_lesion_of_the_rates(n, seed, threshold, prevalence):
    point = OperatingCurve(*cases(n, seed)).at(threshold)
    lesions = point.per_thousand(prevalence)
    assert min(lesions.tp, lesions.fn, lesions.fp, lesions.tn) >= 0
    assert lesions.tp + lesions.fn + lesions.fp + lesions.tn == 1000
    assert lesions.tp + lesions.fn == round(1000 * prevalence)
    assert abs(lesions.tp - point.sensitivity * round(1000 * prevalence)) <= 0.5


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
    assert adjust_for_prevalence(Calibrator(slope, intercept).risk(1.0), own, new) == pytest.approx(seen, rel=0.05)
    assert adjust_for_prevalence(0.3, own, own) == pytest.approx(0.3)


@pytest.mark.parametrize(("scores", "message"), [([-3.0, 0.4], "pass the sigmoid of a logit"), ([0.1], r"expected shape \(2,\)")])
def test_what_cannot_be_explored_is_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        ThresholdExplorer([0, 1], scores)


def test_a_page_without_a_kernel_gets_the_presets_with_their_numbers():
    explorer = ThresholdExplorer(*cases(), threshold=0.333)
    data, metadata = explorer._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")
    described = metadata["image/png"]["alt"]
    for name, value in {"chosen": 0.333, **preset_thresholds(explorer.curve)}.items():
        point = explorer.curve.at(value)
        said = f"{name}: threshold {value:.3f}, sensitivity {point.sensitivity:.1%}, specificity {point.specificity:.1%}, PPV "
        assert f"{said}{point.ppv_at(explorer.prevalence):.1%}" in described
