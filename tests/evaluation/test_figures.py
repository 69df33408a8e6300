import re

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.text import Text
from sklearn.metrics import roc_curve

from melanoma_lib.evaluation import Interval, OperatingCurve, OperatingPoint, reliability_bins
from melanoma_lib.evaluation.canvas import BLUE, VERMILLION
from melanoma_lib.evaluation.figures import (
    _ranges,
    comparison_figure,
    confusion_figure,
    decision_curve_figure,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
)
from tests.evaluation.cases import prediction_table

CASES = prediction_table()
CURVE, RISK_CURVE = (OperatingCurve(CASES["target"], CASES[name]) for name in ("probability", "risk"))
POINT = CURVE.at(0.6)
FIGURES = {
    "roc": lambda: roc_figure({"fusion": CURVE, "metadata": RISK_CURVE}, POINT, {"fusion": Interval(0.8, 0.7, 0.9)}),
    "precision_recall": lambda: precision_recall_figure(CURVE, POINT),
    "confusion": lambda: confusion_figure(POINT, prevalence=0.0176),
    "reliability": lambda: reliability_figure({"before": CASES["probability"], "after": CASES["risk"]}, CASES["target"]),
    "decision": lambda: decision_curve_figure({"calibrated": RISK_CURVE}, point=0.1),
    "comparison": lambda: comparison_figure({"both": Interval(0.9, 0.8, 0.95), "one seed": Interval(0.7, np.nan, np.nan)}),
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
    assert f"sensitivity {share[1]:.3f}" in FIGURES["roc"]().alt_text


def test_precision_recall_marks_the_point_and_the_prevalence():
    (axes,) = FIGURES["precision_recall"]().axes
    np.testing.assert_allclose(drawn(axes, VERMILLION)[:, 0], [POINT.sensitivity, POINT.ppv])
    assert any(np.allclose(line.get_ydata(), CASES["target"].mean()) for line in axes.lines)


@pytest.mark.parametrize("prevalence", [None, 0.001, 0.0176, 0.5, 0.999])
def test_confusion_draws_exactly_a_thousand_lesions_in_the_right_shares(prevalence):
    matrix, lesions = confusion_figure(POINT, prevalence).axes
    for count in (POINT.tp, POINT.fn, POINT.fp, POINT.tn):
        assert any(f"{count:,}" in text.get_text() for text in matrix.texts)
    found, missed, alarms, cleared = (len(line.get_xdata()) for line in lesions.lines)
    assert found + missed + alarms + cleared == 1000
    places = {tuple(place) for line in lesions.lines for place in line.get_xydata()}
    assert len(places) == 1000  # none hides behind another
    share = CURVE.prevalence if prevalence is None else prevalence
    assert found + missed == pytest.approx(1000 * share, abs=0.5)
    assert found == pytest.approx((found + missed) * POINT.sensitivity, abs=0.5)
    assert alarms == pytest.approx((alarms + cleared) * (1 - POINT.specificity), abs=0.5)


def test_confusion_counts_one_as_one_and_names_the_unit():
    figure = confusion_figure(OperatingPoint(0.5, tp=9, fp=1, tn=999, fn=1), prevalence=0.01)
    legend = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert legend == ["9 melanomas found", "1 melanoma missed", "1 false alarm", "989 benign, let go"]
    assert figure.axes[1].get_title(loc="left") == "the same for 1,000 lesions, 1% of them melanomas"
    assert "9 melanomas found, 1 missed, 1 false alarm, 999 benign" in figure.alt_text.replace("\n", " ")
    assert "people" not in figure.alt_text


def test_reliability_draws_the_bins():
    axes, histogram = reliability_figure({"risk": CASES["risk"]}, CASES["target"], bins=5).axes
    table = reliability_bins(CASES["risk"], CASES["target"], bins=5)
    np.testing.assert_allclose(drawn(axes, VERMILLION), table[["mean_risk", "observed"]].to_numpy().T)
    (bars,) = axes.collections
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    np.testing.assert_allclose(ends, table[["low", "high"]], atol=1e-12)
    assert histogram.get_yscale() == "log"


def test_decision_curve_draws_treat_all_treat_none_and_the_model():
    (axes,) = decision_curve_figure({"calibrated": RISK_CURVE}, highest=0.4).axes
    lines = {line.get_label(): line.get_xydata().T for line in axes.lines}
    risk, benefit = lines["remove every lesion"]
    prevalence = CASES["target"].mean()
    np.testing.assert_allclose(benefit, prevalence - (1 - prevalence) * risk / (1 - risk))
    np.testing.assert_allclose(lines["remove none"][1], 0)
    np.testing.assert_allclose(lines["calibrated"][1], RISK_CURVE.net_benefit(risk))


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        ("......", "at no threshold"),
        (".xxx..", "from 0.1 to 0.3"),
        ("xx..xx", "from 0.0 to 0.1 and from 0.4 to 0.5"),
        ("x.xx.x", "at 0.0, from 0.2 to 0.3 and at 0.5"),
        ("x.x.x.x", "at 0.0, at 0.2, at 0.4 and 1 more"),
        ("xx.x.xx.x.x", "from 0.0 to 0.1, at 0.3, from 0.5 to 0.6 and 2 more"),
    ],
)
def test_ranges_of_thresholds_are_told_with_their_gaps(inside, said):
    flags = np.array([flag == "x" for flag in inside])
    text = _ranges(np.arange(flags.size) / 10, flags)
    assert re.sub(r"(\d\.\d)00", r"\1", text) == said


def test_the_decision_curve_does_not_claim_the_gaps_between_useful_ranges():
    # Risks are far too low for some and too high for others: two ranges in which the model beats both rivals.
    targets = np.repeat([1, 0, 1, 0], [10, 40, 10, 40])
    curve = OperatingCurve(targets, np.repeat([0.12, 0.08, 0.45, 0.40], [10, 40, 10, 40]))
    figure = decision_curve_figure({"model": curve})
    claimed = figure.alt_text.replace("\n", " ").split("model beats both ")[1].rstrip(".")
    ranges = [tuple(map(float, ends)) for ends in re.findall(r"from ([\d.]+) to ([\d.]+)", claimed)]
    assert len(ranges) > 1
    for risk in np.linspace(0, 0.5, 301):
        rivals = max(0.2 - 0.8 * risk / (1 - risk), 0)
        better = curve.net_benefit([risk])[0] > rivals + 1e-12
        assert better == any(low - 5e-4 <= risk <= high + 5e-4 for low, high in ranges), risk


def test_comparison_keeps_the_order_and_writes_the_numbers():
    (axes,) = FIGURES["comparison"]().axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["both", "one seed"]
    assert [text.get_text() for text in axes.texts] == ["0.900 [0.800, 0.950]", "0.700"]
    assert axes.get_yticks()[0] > axes.get_yticks()[1]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: roc_figure({}), "one to four, got 0"),
        (lambda: reliability_figure({}, [0, 1]), "one to three, got 0"),
        (lambda: reliability_figure({"logit": [2.0, 0.1]}, [0, 1]), "logit: expected probabilities"),
        (lambda: decision_curve_figure({"logit": OperatingCurve([0, 1], [-2, 2])}), "scores that are risks"),
        (lambda: decision_curve_figure({"risk": RISK_CURVE}, highest=1.0), "highest"),
        (lambda: confusion_figure(OperatingPoint(0.5, 0, 3, 4, 0)), "both classes, got tp=0"),
        (lambda: comparison_figure({}), "at least one interval"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
