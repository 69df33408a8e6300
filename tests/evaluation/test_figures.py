import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.cbook import STEP_LOOKUP_MAP
from matplotlib.text import Text
from sklearn.metrics import average_precision_score, roc_curve

from melanoma_lib.evaluation import Interval, OperatingCurve, OperatingPoint, reliability_bins
from melanoma_lib.evaluation.figures import confusion_figure, precision_recall_figure, reliability_figure, roc_figure
from melanoma_lib.plotting import BLUE, VERMILLION
from tests.evaluation.cases import prediction_table

CASES = prediction_table()
CURVE = OperatingCurve(CASES["target"], CASES["probability"])
POINT = CURVE.at(0.6)
FIGURES = {
    "roc": lambda: roc_figure(CURVE, POINT, Interval(0.8, 0.7, 0.9)),
    "precision_recall": lambda: precision_recall_figure(CURVE, POINT),
    "flags nobody": lambda: precision_recall_figure(CURVE, CURVE.at(np.inf)),
    "confusion": lambda: confusion_figure(POINT),
    "reliability": lambda: reliability_figure({"before": CASES["probability"], "after": CASES["risk"]}, CASES["target"]),
}


def drawn(axes, color):
    return next(line for line in axes.lines if line.get_color() == color).get_xydata().T


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_described_legible_when_projected_and_leaves_pyplot_alone(name):
    open_before, figure = plt.get_fignums(), FIGURES[name]()
    data, metadata = figure._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG") and len(data["image/png"]) > 5000
    assert data["text/plain"] == metadata["image/png"]["alt"] == figure.alt_text
    assert len(figure.alt_text) > 60 and any(c.isdigit() for c in figure.alt_text) and "nan" not in figure.alt_text
    written = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    assert len(written) > 5
    assert min(text.get_fontsize() for text in written) >= 12
    assert plt.get_fignums() == open_before


def test_roc_draws_the_curve_and_marks_the_point():
    (axes,) = FIGURES["roc"]().axes
    fpr, tpr, _ = roc_curve(CASES["target"], CASES["probability"], drop_intermediate=False)
    np.testing.assert_allclose(drawn(axes, BLUE), [fpr, tpr])
    called = CASES["probability"] >= 0.6
    np.testing.assert_allclose(drawn(axes, VERMILLION)[:, 0], called.groupby(CASES["target"]).mean())


def test_the_area_under_the_drawn_precision_is_the_average_precision():
    for decimals in (6, 1):  # 1: many ties
        cases = CASES.round({"probability": decimals})
        (axes,) = precision_recall_figure(OperatingCurve(cases["target"], cases["probability"]), POINT).axes
        line = next(line for line in axes.lines if line.get_color() == BLUE)
        x, y = STEP_LOOKUP_MAP[line.get_drawstyle()](*line.get_xydata().T)
        assert -np.trapezoid(y, x) == pytest.approx(average_precision_score(cases["target"], cases["probability"]))


def test_confusion_writes_the_four_counts_and_their_shares_of_the_row():
    (axes,) = FIGURES["confusion"]().axes
    cells = [text.get_text().split("\n") for text in axes.texts]
    assert [cell[0] for cell in cells] == [f"{count:,}" for count in (POINT.tp, POINT.fn, POINT.fp, POINT.tn)]
    assert cells[0][2] == f"{POINT.sensitivity:.1%}" and cells[3][2] == f"{POINT.specificity:.1%}"
    with pytest.raises(ValueError, match="both classes, got 0 melanomas"):
        confusion_figure(OperatingPoint(0.5, 0, 3, 4, 0))


def test_reliability_draws_the_bins():
    axes, _ = reliability_figure({"risk": CASES["risk"]}, CASES["target"], bins=5).axes
    table = reliability_bins(CASES["risk"], CASES["target"], bins=5)
    np.testing.assert_allclose(drawn(axes, VERMILLION), table[["mean_risk", "observed"]].to_numpy().T)
    (bars,) = axes.collections
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    np.testing.assert_allclose(ends, table[["low", "high"]], atol=1e-12)
