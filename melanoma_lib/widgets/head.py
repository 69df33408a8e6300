"""Move the loss, dropout or learning rate and watch the head learn again: ranking, scores and what 0.5 means."""

from dataclasses import replace
from typing import Any

import numpy as np
import traitlets
from matplotlib.axes import Axes

from melanoma_lib.errors import SettingsError
from melanoma_lib.heads import FeatureTable, HeadSettings, train_head
from melanoma_lib.losses import FocalLoss
from melanoma_lib.plotting import BLUE, GREY, ORANGE, VERMILLION, DescribedFigure, kit_figure, with_alt_text
from melanoma_lib.widgets.base import HERE, AskedExplorer, answering, script

CHOICES = {  # of each slider; where it starts is added
    "alpha": (None, *(n / 20 for n in range(1, 20))),
    "gamma": tuple(n / 2 for n in range(11)),
    "dropout": tuple(n / 10 for n in range(10)),
    "learning_rate": (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1),
}
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
        JSON-ready: the four movable settings; ``auroc``; ``f1``, ``sensitivity``, ``specificity`` at an output of 0.5;
        ``true_risk``, the risk that an output of 0.5 means under this loss; ``roc``: false-positive rates and sensitivities, each
        at most 200 numbers; ``shares``: of melanomas and of other lesions, how many per bin of equal width from 0 to 1;
        ``losses``: of training and validation cases after each epoch; ``n``: validation melanomas and others; ``mean`` output and
        ``prevalence``.
    """
    result = train_head(table, settings)
    curve, scores = result.curve("val"), result.of("val")
    point = curve.at(0.5)
    fpr, tpr, _ = curve.roc()
    kept = np.unique(np.linspace(0, len(fpr) - 1, MAX_POINTS).round().astype(int))
    melanoma = (scores["target"] == 1).to_numpy()
    shares = [np.histogram(scores["probability"][part], BINS, (0, 1))[0] / part.sum() for part in (melanoma, ~melanoma)]
    return {name: getattr(settings, name) for name in CHOICES} | {
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


def choices_from(settings: HeadSettings) -> dict[str, list[float | None]]:
    """The values each slider offers, ascending, none first, where it starts among them."""
    offered = {name: {*values, getattr(settings, name)} for name, values in CHOICES.items()}
    return {name: sorted(values, key=lambda value: -1 if value is None else value) for name, values in offered.items()}


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


class HeadExplorer(RetrainingExplorer):
    """Sliders for focal alpha and gamma, dropout and learning rate; each change retrains the head in the kernel.

    Args:
        table: from ``cached_features``.
        settings: what the sliders start from; also fixes epochs, branches and seed.

    Raises:
        DataError: if the table lacks a branch that the head needs.
    """

    _esm = script("plot.js", "retrain.js", "head.js")
    movable = tuple(CHOICES)
    choices = traitlets.Dict().tag(sync=True)
    start = traitlets.Dict().tag(sync=True)

    def __init__(self, table: FeatureTable, settings: HeadSettings | None = None) -> None:
        super().__init__(table, settings or HeadSettings())
        self.choices = choices_from(self.settings)
        self.start = self.state
        self._figure: DescribedFigure | None = None

    def presets_figure(self) -> DescribedFigure:
        """Score histograms and ROC curves of four losses, everything else as the sliders start."""
        if self._figure is None:
            states = {name: head_state(self.table, replace(self.settings, **values)) for name, values in PRESETS.items()}
            self._figure = presets_figure(states)
        return self._figure


def presets_figure(states: dict[str, dict[str, Any]]) -> DescribedFigure:
    """Heads side by side: scores of both classes above, ROC below.

    Args:
        states: of `head_state`, by name.
    """
    with kit_figure(3.0 * len(states), 6.0) as figure:
        panels = figure.subplots(2, len(states), squeeze=False, sharey="row", height_ratios=(1, 1.25))
        for column, (name, state) in enumerate(states.items()):
            scores, roc = panels[:, column]
            draw_scores(scores, state)
            scores.set(title=name, xlabel=f"output; 0.5 means risk {state['true_risk']:.0%}")
            roc.plot(*state["roc"], color=ORANGE)
            roc.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (2, 3)))
            roc.set(title=f"AUROC {state['auroc']:.3f}\nF1 at 0.5: {state['f1']:.2f}", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
            roc.set(xlabel="false-positive rate", aspect="equal")
        panels[0, 0].set_ylabel("others  |  melanomas")
        panels[1, 0].set_ylabel("sensitivity")
    return with_alt_text(
        figure,
        "Heads retrained with four losses, scores of validation cases by class and ROC: " + "; ".join(
            f"{name}: AUROC {state['auroc']:.3f}, F1 at 0.5 {state['f1']:.2f}, sensitivity {state['sensitivity']:.2f}, "
            f"specificity {state['specificity']:.2f}, an output of 0.5 means a risk of {state['true_risk']:.2f}"
            for name, state in states.items()
        ) + ".",
    )  # fmt: skip


def draw_scores(axes: Axes, state: dict[str, Any]) -> None:
    """Share of each class by output, melanomas above and others below, with the cut at 0.5."""
    for share, sign, colour in zip(state["shares"], (1, -1), (VERMILLION, BLUE), strict=True):
        axes.bar((np.arange(BINS) + 0.5) / BINS, sign * np.array(share), 1 / BINS, color=colour)
    axes.axvline(0.5, color=GREY, linestyle="--", linewidth=1.5)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlim(0, 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.0%}")
