"""A head that the kernel retrains for an explorer, and the state that its page draws."""

from dataclasses import replace
from typing import Any

import numpy as np
import traitlets
from matplotlib.axes import Axes

from melanoma_lib.errors import SettingsError
from melanoma_lib.heads import FeatureTable, HeadSettings, train_head
from melanoma_lib.losses import FocalLoss
from melanoma_lib.plotting import BLUE, GREY, VERMILLION
from melanoma_lib.widgets.base import HERE, AskedExplorer, answering

BINS = 25  # of the score histograms
MAX_POINTS = 200  # of the drawn ROC curve
PRESETS = {
    "cross-entropy": {"alpha": None, "gamma": 0.0},
    "focal, γ 2": {"alpha": None, "gamma": 2.0},
    "focal, γ 2, α 0.25": {"alpha": 0.25, "gamma": 2.0},
    "focal, γ 2, α 0.9": {"alpha": 0.9, "gamma": 2.0},
}


def head_state(table: FeatureTable, settings: HeadSettings) -> dict[str, Any]:
    """Retrain the head and say what the page draws, all of it on validation cases.

    Args:
        table: features of every case.
        settings: of the head.

    Returns:
        JSON-ready: ``alpha``, ``gamma``, ``dropout``, ``learning_rate``; ``auroc``; ``f1``, ``sensitivity``, ``specificity`` at
        an output of 0.5; ``true_risk``, the risk that such an output means under this loss; ``roc``: false-positive rates and
        sensitivities, each at most 200 numbers; ``shares``: of melanomas and of other lesions, how many per bin of equal width
        from 0 to 1; ``losses``: of training and validation cases after each epoch; ``n``: validation melanomas and others;
        ``mean`` output and ``prevalence``.
    """
    result = train_head(table, settings)
    curve, scores = result.curve("val"), result.of("val")
    point = curve.at(0.5)
    fpr, tpr, _ = curve.roc()
    kept = np.unique(np.linspace(0, len(fpr) - 1, MAX_POINTS).round().astype(int))
    melanoma = (scores["target"] == 1).to_numpy()
    shares = [np.histogram(scores["probability"][part], BINS, (0, 1))[0] / part.sum() for part in (melanoma, ~melanoma)]
    return {name: getattr(settings, name) for name in ("alpha", "gamma", "dropout", "learning_rate")} | {
        "auroc": curve.auroc,
        "f1": point.f1,
        "sensitivity": point.sensitivity,
        "specificity": point.specificity,
        "true_risk": FocalLoss(settings.alpha, settings.gamma).true_risk(0.5),
        "roc": [fpr[kept].round(4).tolist(), tpr[kept].round(4).tolist()],
        "shares": [part.round(4).tolist() for part in shares],
        "losses": [result.history[f"{split}/loss"].round(8).tolist() for split in ("train", "val")],
        "n": [curve.n_positive, curve.n_negative],
        "mean": float(scores["probability"].mean()),
        "prevalence": curve.prevalence,
    }


class RetrainingExplorer(AskedExplorer):
    """An explorer whose page asks for one head at a time, with the values of that moment, in ``retrain.js``.

    While a head is trained, further moves only change what is asked next.

    Args:
        table: from ``cached_features``; None where there is no head to retrain.
        settings: what the sliders start from; also fixes epochs, branches and seed.

    Attributes:
        movable: names of the settings that a request holds.
        state: of `head_state`, what the page draws; empty without a table.

    Raises:
        DataError: if the table lacks a branch that the head needs.
    """

    _css = AskedExplorer._css + (HERE / "retrain.css").read_text(encoding="utf-8")
    movable: tuple[str, ...]
    state = traitlets.Dict().tag(sync=True)

    def __init__(self, table: FeatureTable | None, settings: HeadSettings) -> None:
        super().__init__()
        self.table, self.settings = table, settings
        self.state = head_state(table, settings) if table is not None else {}

    @answering
    def _answer(self, request: dict[str, Any]) -> None:
        wanted = {name: value for name, value in request.items() if name != "number"}
        if set(wanted) != set(self.movable):
            raise SettingsError(f"a request holds {', '.join(self.movable)}; got {', '.join(sorted(wanted))}")
        self.state = head_state(self.table, replace(self.settings, **wanted))


def draw_scores(axes: Axes, state: dict[str, Any]) -> None:
    """Share of each class by output, melanomas above and others below, with the cut at 0.5."""
    for share, sign, colour in zip(state["shares"], (1, -1), (VERMILLION, BLUE), strict=True):
        axes.bar((np.arange(BINS) + 0.5) / BINS, sign * np.array(share), 1 / BINS, color=colour)
    axes.axvline(0.5, color=GREY, linestyle="--", linewidth=1.5)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlim(0, 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.0%}")
