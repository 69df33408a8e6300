import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.text import Text
from sklearn.metrics import roc_curve

from melanoma_lib.evaluation import Interval, OperatingCurve, OperatingPoint, reliability_bins
from melanoma_lib.evaluation.figures import (
    confusion_figure,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
)
from melanoma_lib.plotting import BLUE, VERMILLION
from tests.evaluation.cases import prediction_table

CASES = prediction_table()
CURVE, RISK_CURVE = (OperatingCurve(CASES["target"], CASES[name]) for name in ("probability", "risk"))
POINT = CURVE.at(0.6)
FIGURES = {
    "roc": lambda: roc_figure({"fusion": CURVE, "metadata": RISK_CURVE}, POINT, {"fusion": Interval(0.8, 0.7, 0.9)}),
    "precision_recall": lambda: precision_recall_figure(CURVE, POINT),
    "confusion": lambda: confusion_figure(POINT, prevalence=0.0176),
    "reliability": lambda: reliability_figure({"before": CASES["probability"], "after": CASES["risk"]}, CASES["target"]),
}


def drawn(axes, color):
    return next(line for line in axes.lines if line.get_color() == color).get_xydata().T


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_described_legible_when_projected_and_leaves_pyplot_alone(name):
    figure = FIGURES[name]()
    data, metadata = figure._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG") and len(data["image/png"]) > 5000
    assert data["text/plain"] == metadata["image/png"]["alt"] == figure.alt_text
    assert len(figure.alt_text) > 60 and any(c.isdigit() for c in figure.alt_text) and "nan" not in figure.alt_text
    written = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    assert len(written) > 5
    assert min(text.get_fontsize() for text in written) >= 12
    assert plt.get_fignums() == []


def test_roc_draws_the_curve_and_marks_the_point():
    (axes,) = FIGURES["roc"]().axes
    fpr, tpr, _ = roc_curve(CASES["target"], CASES["probability"], drop_intermediate=False)
    np.testing.assert_allclose(drawn(axes, BLUE), [fpr, tpr])
    called = CASES["probability"] >= 0.6
    share = [called[CASES["target"] == k].mean() for k in (0, 1)]
    np.testing.assert_allclose(drawn(axes, VERMILLION)[:, 0], share)


@pytest.mark.parametrize("prevalence", [None, 0.001, 0.0176, 0.5, 0.999])
def test_confusion_draws_exactly_a_thousand_lesions_in_the_right_shares(prevalence):
    matrix, lesions = confusion_figure(POINT, prevalence).axes
    for count in (POINT.tp, POINT.fn, POINT.fp, POINT.tn):
        assert any(f"{count:,}" in text.get_text() for text in matrix.texts)
    tp, fn, fp, tn = (len(line.get_xdata()) for line in lesions.lines)
    assert tp + fn + fp + tn == 1000
    places = {tuple(place) for line in lesions.lines for place in line.get_xydata()}
    assert len(places) == 1000  # none hides behind another
    share = CURVE.prevalence if prevalence is None else prevalence
    assert tp + fn == pytest.approx(1000 * share, abs=0.5)
    assert tp == pytest.approx((tp + fn) * POINT.sensitivity, abs=0.5)
    assert fp == pytest.approx((fp + tn) * (1 - POINT.specificity), abs=0.5)


def test_reliability_draws_the_bins():
    axes, histogram = reliability_figure({"risk": CASES["risk"]}, CASES["target"], bins=5).axes
    table = reliability_bins(CASES["risk"], CASES["target"], bins=5)
    np.testing.assert_allclose(drawn(axes, VERMILLION), table[["mean_risk", "observed"]].to_numpy().T)
    (bars,) = axes.collections
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    np.testing.assert_allclose(ends, table[["low", "high"]], atol=1e-12)
    assert histogram.get_yscale() == "log"


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: roc_figure({}), "one to four, got 0"),
        (lambda: reliability_figure({}, [0, 1]), "one to three, got 0"),
        (lambda: reliability_figure({"logit": [2.0, 0.1]}, [0, 1]), "logit: expected probabilities"),
        (lambda: confusion_figure(OperatingPoint(0.5, 0, 3, 4, 0)), "both classes, got tp=0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
