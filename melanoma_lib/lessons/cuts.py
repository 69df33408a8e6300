"""What drawing melanomas more often, class weights and alpha each do to a cut at 0.5, and what to two of them at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from melanoma_lib.evaluation import Calibrator, Interval, OperatingCurve, bootstrap_intervals, carry_risk
from melanoma_lib.evaluation.canvas import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILLION, DescribedFigure, describe, kit_figure
from melanoma_lib.heads import FeatureTable, HeadSettings, train_head
from melanoma_lib.lessons.eda import WIDTH
from melanoma_lib.losses import FocalLoss

MARKS = ((BLACK, "o", "-"), (BLUE, "s", "--"), (GREEN, "D", "-."), (VERMILLION, "^", ":"), (ORANGE, "v", (0, (4, 1, 1, 1, 1, 1))))


@dataclass(frozen=True)
class Cut:
    """One retrained head and its cut at an output of 0.5, on validation cases.

    Attributes:
        name: what corrects for the imbalance.
        settings: of the head.
        auroc: with an interval that resamples groups.
        sensitivity: at an output of 0.5.
        specificity: at an output of 0.5.
        mean_output: over the validation cases.
        meant: risk that an output of 0.5 means for a perfectly trained head, by its loss and the way cases were drawn.
        found: risk at an output of 0.5 according to a calibration on these cases.
        curve: all cuts.
    """

    name: str
    settings: HeadSettings
    auroc: Interval
    sensitivity: float
    specificity: float
    mean_output: float
    meant: float
    found: float
    curve: OperatingCurve = field(repr=False)


def corrections(prevalence: float) -> dict[str, dict[str, float | None]]:
    """Changes of `HeadSettings` by name: nothing corrected, then one way each, then two at once.

    Class weights that balance the classes are alpha = 1 - prevalence with gamma 0: BCE's ``pos_weight`` of (1 - prevalence) /
    prevalence gives the same but for a factor, which Adam's steps do not see.

    Args:
        prevalence: share of melanomas in the training split.
    """
    return {
        "cross-entropy": {"alpha": None, "gamma": 0.0},
        "weighted sampling": {"alpha": None, "gamma": 0.0, "sampled_prevalence": 0.5},
        "class weights": {"alpha": 1 - prevalence, "gamma": 0.0},
        "focal, γ 2, α 0.25": {"alpha": 0.25, "gamma": 2.0},
        "sampling and weights": {"alpha": 1 - prevalence, "gamma": 0.0, "sampled_prevalence": 0.5},
    }


def meaning(settings: HeadSettings, prevalence: float, output: float = 0.5) -> float:
    """Risk that an output means for a perfectly trained head: the loss decoded, then the sampling undone.

    Args:
        settings: of the head.
        prevalence: share of melanomas in its training split.
        output: sigmoid of the logit, in [0, 1].
    """
    risk = FocalLoss(settings.alpha, settings.gamma).true_risk(output)
    return float(carry_risk(risk, settings.sampled_prevalence or prevalence, prevalence))


def cut_heads(table: FeatureTable, settings: HeadSettings, names: Sequence[str] = (), n: int = 2000) -> list[Cut]:
    """Retrain a head a correction, everything else alike, and read its cut at 0.5 off the validation cases.

    Args:
        table: features of every case.
        settings: what the heads share.
        names: of `corrections`; none for all.
        n: resamples behind each interval.
    """
    train = table.cases["split"] == "train"
    prevalence = float(table.cases.loc[train, "target"].mean())
    cuts = []
    for name, changes in corrections(prevalence).items():
        if names and name not in names:
            continue
        chosen = replace(settings, **changes)
        scores = train_head(table, chosen).of("val")
        targets, outputs = scores["target"].to_numpy(), scores["probability"].to_numpy()
        intervals = bootstrap_intervals(targets, outputs, scores["group_id"], 0.5, n)
        logits = np.log(outputs) - np.log1p(-outputs)
        cuts.append(
            Cut(
                name, chosen, intervals["auroc"], intervals["sensitivity"].value, intervals["specificity"].value,
                float(outputs.mean()), meaning(chosen, prevalence), float(Calibrator.fit(logits, targets).risk(0.0)),
                OperatingCurve(targets, outputs),
            )
        )  # fmt: skip
    return cuts


def cut_table(cuts: Sequence[Cut]) -> pd.DataFrame:
    """The cuts in words, one row a head; what 0.5 means by theory, and what risk is found there on these cases."""
    rows = {
        cut.name: {
            "AUROC": f"{cut.auroc:.3f}",
            "sensitivity": f"{cut.sensitivity:.0%}",
            "specificity": f"{cut.specificity:.0%}",
            "mean output": f"{cut.mean_output:.3f}",
            "prevalence": f"{cut.curve.prevalence:.3f}",
            "0.5 means": f"{cut.meant:.1%}",
            "found": f"{cut.found:.1%}",
        }
        for cut in cuts
    }
    return pd.DataFrame(rows).T.rename_axis("cut at 0.5")


def cuts_figure(cuts: Sequence[Cut]) -> DescribedFigure:
    """The ROC curves with each head's cut at 0.5 on it, and what an output of 0.5 means beside what the cases say.

    Args:
        cuts: up to five.

    Raises:
        ValueError: for none or more than five.
    """
    if not 1 <= len(cuts) <= len(MARKS):
        raise ValueError(f"cuts: expected one to {len(MARKS)}, got {len(cuts)}")
    with kit_figure(WIDTH, 5.6) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        for place, (cut, (colour, marker, style)) in enumerate(zip(cuts, MARKS, strict=False)):
            fpr, tpr, _ = cut.curve.roc()
            left.plot(fpr, tpr, linestyle=style, color=colour, linewidth=1.6)
            dot = {"color": colour, "markersize": 12, "markeredgecolor": "white", "linestyle": "none", "zorder": 5}
            left.plot(1 - cut.specificity, cut.sensitivity, marker, label=cut.name, **dot)
            right.plot([cut.meant, cut.found], [place, place], color=colour, linewidth=2)
            right.plot(cut.meant, place, marker, **dot)
            right.plot(cut.found, place, marker, color=colour, markersize=12, fillstyle="none", markeredgewidth=2)
        left.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="false-positive rate", ylabel="sensitivity", aspect="equal")
        left.set_title("one ranking, different cuts: output 0.5")
        left.legend(loc="lower right")
        prevalence = cuts[0].curve.prevalence
        right.axvline(prevalence, color=GREY, linestyle="--", linewidth=1.5)
        right.annotate("prevalence", (prevalence, len(cuts) - 0.45), xytext=(4, 0), textcoords="offset points", color=GREY)
        right.set_yticks(range(len(cuts)), [cut.name.replace(", γ", ",\nγ").replace(" and", "\nand") for cut in cuts])
        right.set(xlim=(0, 1), ylim=(len(cuts) - 0.2, -0.6), xlabel="risk at an output of 0.5")
        right.set_title("full: theory · hollow: these cases")
    said = "; ".join(
        f"{cut.name} AUROC {cut.auroc.value:.3f}, at 0.5 sensitivity {cut.sensitivity:.2f} and specificity "
        f"{cut.specificity:.2f}, where 0.5 means a risk of {cut.meant:.2f}, on these cases {cut.found:.2f}"
        for cut in cuts
    )
    return describe(figure, f"ROC curves of heads that differ in their correction, with the cut at an output of 0.5: {said}.")
