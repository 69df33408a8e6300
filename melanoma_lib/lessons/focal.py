"""The focal-loss lesson: shares of the gradient, faulty losses, outputs made into risks, and what an output of 0.5 means."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit
from torch import Tensor
from torch.nn import functional as F

from melanoma_lib.evaluation import (
    Calibrator,
    OperatingCurve,
    calibration_slope_intercept,
    carry_risk,
    expected_calibration_error,
    rate_intervals,
)
from melanoma_lib.heads import FeatureTable, HeadSettings, train_head
from melanoma_lib.lessons.eda import WIDTH
from melanoma_lib.losses import FocalLoss, focal_loss
from melanoma_lib.plotting import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    VERMILLION,
    DescribedFigure,
    kit_figure,
    with_alt_text,
)
from melanoma_lib.runs import Run
from melanoma_lib.settings import Settings

HARD = 0.2  # an other lesion with at least this output is called hard
SHARES = {"melanomas": (VERMILLION, "//"), "hard others": (BLUE, ""), "easy others": (SKY, "..")}  # colour and hatch
MARKS = ((BLACK, "o", "-"), (BLUE, "s", "--"), (GREEN, "D", "-."), (VERMILLION, "^", ":"), (ORANGE, "v", (0, (4, 1, 1, 1))))

# --- gradient share ---


def gradient_shares(outputs: ArrayLike, targets: ArrayLike, gammas: Sequence[float] = (0.0, 1.0, 2.0, 5.0)) -> pd.DataFrame:
    """Of the gradient magnitudes that all cases together have in their logits, the share of each kind of case.

    Args:
        outputs: of a model, in (0, 1), shape ``(N,)``.
        targets: 1 melanoma, 0 not; shape ``(N,)``.
        gammas: focal exponents, without alpha; 0 is cross-entropy.

    Returns:
        One row a kind, ``melanomas``, ``hard others`` (output of at least 0.2) and ``easy others``; ``cases``, their share of all
        cases, then one column a gamma with their share of the summed absolute gradient.
    """
    outputs, melanoma = np.array(outputs, dtype=np.float64), np.asarray(targets) == 1
    kinds = {"melanomas": melanoma, "hard others": ~melanoma & (outputs >= HARD), "easy others": ~melanoma & (outputs < HARD)}
    shares = {"cases": {name: rows.mean() for name, rows in kinds.items()}}
    for gamma in gammas:
        logits = torch.logit(torch.from_numpy(outputs)).requires_grad_()
        focal_loss(logits, torch.from_numpy(melanoma), None, gamma, "sum").backward()
        pull = logits.grad.abs().numpy()
        shares[f"γ {gamma:g}"] = {name: pull[rows].sum() / pull.sum() for name, rows in kinds.items()}
    return pd.DataFrame(shares)


def share_figure(shares: pd.DataFrame) -> DescribedFigure:
    """Stacked bars: who the cases are, and whose gradients they are under each gamma.

    Args:
        shares: from `gradient_shares`.
    """
    labels = ["of the cases", *(f"of the gradient, {name}" for name in shares.columns[1:])]
    with kit_figure(WIDTH, 0.62 * len(labels) + 1.6) as figure:
        axes, left = figure.add_subplot(), 0
        for name, row in shares.iterrows():
            colour, hatch = SHARES[str(name)]
            bars = axes.barh(labels, row, 0.72, left, color=colour, hatch=hatch, edgecolor="white", linewidth=1, label=name)
            texts = [f"{value:.0%}" if value > 0.05 else "" for value in row]
            for text in axes.bar_label(bars, texts, label_type="center"):
                text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.5} if text.get_text() else None)
            left = left + row.to_numpy()
        axes.invert_yaxis()
        axes.set(xlim=(0, 1), xlabel="share")
        axes.grid(visible=False)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.3)
    said = "; ".join(f"{column}: " + ", ".join(f"{n} {v:.0%}" for n, v in shares[column].items()) for column in shares)
    return with_alt_text(figure, f"Share of each kind of case among all cases, and of the gradient magnitudes by gamma: {said}.")


# --- three colleagues ---

Loss = Callable[[Tensor, Tensor], Tensor]


def colleagues(alpha: float, gamma: float) -> dict[str, Loss]:
    """Three losses that run without a warning, each meant as focal loss with this alpha and gamma, each with one fault.

    Returns:
        By name of the colleague: loss of logits and float targets, shape ``(N,)`` each, averaged.
    """

    def made(of_melanomas: float, of_others: float, outputs: Callable[[Tensor, Tensor], Tensor]) -> Loss:
        def loss(logits: Tensor, targets: Tensor) -> Tensor:
            cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
            weight = torch.where(targets == 1, of_melanomas, of_others)
            return (weight * (1 - outputs(logits, cross_entropy)) ** gamma * cross_entropy).mean()

        return loss

    def p_t(_: Tensor, cross_entropy: Tensor) -> Tensor:
        return torch.exp(-cross_entropy)

    return {
        "Ada": made(1 - alpha, alpha, p_t),
        "Ben": made(alpha, alpha, p_t),
        "Cleo": made(alpha, 1 - alpha, lambda logits, _: torch.sigmoid(logits)),
    }


# --- the decoder ---


def best_output(risk: float, alpha: float | None, gamma: float) -> float:
    """The output with the lowest expected loss at a true risk, found by trying: no formula but the loss itself.

    Args:
        risk: true probability of melanoma, in (0, 1).
        alpha: weight of the positives, in (0, 1), or None.
        gamma: focal exponent, at least 0.
    """
    from scipy.optimize import minimize_scalar

    both = torch.tensor([1.0, 0.0])

    def expected(output: float) -> float:
        melanoma, other = focal_loss(torch.full((2,), output, dtype=torch.float64), both, alpha, gamma, "none").tolist()
        return risk * melanoma + (1 - risk) * other

    found = minimize_scalar(expected, bounds=(-25, 25), method="bounded", options={"xatol": 1e-9})
    return float(1 / (1 + np.exp(-found.x)))


def correction_of(settings: Settings, prevalence: float) -> tuple[FocalLoss, float]:
    """The focal loss that a run's training loss amounts to, and the share of melanomas among the cases it drew.

    Cross-entropy is focal loss with gamma 0; weighted so that the classes balance, it has alpha = 1 - prevalence, to a factor.

    Args:
        settings: of the run.
        prevalence: share of melanomas in its training split.
    """
    drawn = {"plain": prevalence, "weighted": settings.sampled_prevalence, "oversample": 0.5}[settings.sampler]
    losses = {
        "focal": (settings.alpha, settings.gamma),
        "bce": (None, 0.0),
        "weighted_bce": (1 - prevalence, 0.0),
    }
    return FocalLoss(*losses[settings.loss]), drawn


def readings(run: Run) -> dict[str, NDArray[np.float64]]:
    """`three_readings` of a run's validation outputs, by its own loss and sampler."""
    prevalence = float(run.splits.loc[run.splits["split"] == "train", "target"].mean())
    loss, drawn = correction_of(run.settings, prevalence)
    return three_readings(run.predictions("val"), loss, drawn, prevalence)


def three_readings(
    scores: pd.DataFrame, loss: FocalLoss, drawn: float = 0.5, prevalence: float = 0.5, seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    """Outputs as they are, decoded, and calibrated after decoding.

    The decoder needs no case: it knows the loss and how cases were drawn. The calibration is fitted on four fifths of the groups
    and read on the other fifth, in turn, so that no case is judged by a fit that knew its answer.

    Args:
        scores: group_id, target and probability of ``N`` cases that the model did not learn from.
        loss: it was trained with.
        drawn: share of melanomas among the cases it drew, in (0, 1).
        prevalence: share of melanomas among the cases it drew from; equal to ``drawn`` where each was taken once.
        seed: of the fifths.

    Returns:
        By name, shape ``(N,)`` each.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    outputs, targets = scores["probability"].to_numpy(), scores["target"].to_numpy()
    decoded = carry_risk(loss.true_risk(outputs), drawn, prevalence)
    logits, calibrated = logit(np.clip(decoded, 1e-7, 1 - 1e-7)), np.empty_like(decoded)
    for known, judged in StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(logits, targets, scores["group_id"]):
        calibrated[judged] = Calibrator.fit(logits[known], targets[known]).risk(logits[judged])
    return {"output as it is": outputs, "decoded": decoded, "decoded, then calibrated": calibrated}


def reading_table(risks: dict[str, NDArray[np.float64]], targets: ArrayLike) -> pd.DataFrame:
    """How far each reading can be believed: one row a reading.

    Args:
        risks: from `three_readings`.
        targets: of the same cases, shape ``(N,)``.

    Returns:
        Brier score, expected calibration error, mean, and the calibration slope, below 1 where the risks are too extreme.
    """
    from sklearn.metrics import brier_score_loss

    rows = {
        name: {
            "Brier": brier_score_loss(targets, risk),
            "ECE": expected_calibration_error(risk, targets),
            "mean": float(np.mean(risk)),
            "slope": calibration_slope_intercept(risk, targets).slope,
        }
        for name, risk in risks.items()
    }
    return pd.DataFrame(rows).T.rename_axis("reading")


# --- what an output of 0.5 means ---


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


def cut_heads(table: FeatureTable, settings: HeadSettings, n: int = 2000) -> pd.DataFrame:
    """Retrain a head a correction, everything else alike, and read its decisions at an output of 0.5 off the validation cases.

    Args:
        table: features of every case.
        settings: what the heads share.
        n: resamples behind each interval.

    Returns:
        One row a correction: auroc, an `Interval` that resamples groups; sensitivity and specificity at 0.5; mean output;
        prevalence; "0.5 means", the risk of a perfectly trained head, by its loss and the way cases were drawn; "found", that
        of a calibration on these cases; and curve, the `OperatingCurve`.
    """
    train = table.cases["split"] == "train"
    prevalence = float(table.cases.loc[train, "target"].mean())
    rows = {}
    for name, changes in corrections(prevalence).items():
        chosen = replace(settings, **changes)
        scores = train_head(table, chosen).of("val")
        targets, outputs = scores["target"].to_numpy(), scores["probability"].to_numpy()
        curve = OperatingCurve(targets, outputs)
        rows[name] = {
            "auroc": rate_intervals(targets, outputs, scores["group_id"], None, n)["auroc"],
            "sensitivity": curve.at(0.5).sensitivity,
            "specificity": curve.at(0.5).specificity,
            "mean output": float(outputs.mean()),
            "prevalence": curve.prevalence,
            "0.5 means": meaning(chosen, prevalence),
            "found": float(Calibrator.fit(logit(outputs), targets).risk(0.0)),
            "curve": curve,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("at an output of 0.5")


def cuts_figure(heads: pd.DataFrame) -> DescribedFigure:
    """The ROC curves with each head's decisions at 0.5, and what an output of 0.5 means beside what the cases say.

    Args:
        heads: up to five rows of `cut_heads`.
    """
    with kit_figure(WIDTH, 5.6) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        for place, ((name, head), (colour, marker, style)) in enumerate(zip(heads.iterrows(), MARKS, strict=False)):
            fpr, tpr, _ = head["curve"].roc()
            left.plot(fpr, tpr, linestyle=style, color=colour, linewidth=1.6)
            dot = {"color": colour, "markersize": 12, "markeredgecolor": "white", "linestyle": "none", "zorder": 5}
            left.plot(1 - head["specificity"], head["sensitivity"], marker, label=name, **dot)
            right.plot([head["0.5 means"], head["found"]], [place, place], color=colour, linewidth=2)
            right.plot(head["0.5 means"], place, marker, **dot)
            right.plot(head["found"], place, marker, color=colour, markersize=12, fillstyle="none", markeredgewidth=2)
        left.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="false-positive rate", ylabel="sensitivity", aspect="equal")
        left.set_title("decisions at an output of 0.5")
        left.legend(loc="lower right")
        right.axvline(heads["prevalence"].iloc[0], color=GREY, linestyle="--", linewidth=1.5, label="prevalence")
        right.set_yticks(range(len(heads)), [name.replace(", γ", ",\nγ").replace(" and", "\nand") for name in heads.index])
        right.set(xlim=(0, 1), ylim=(len(heads) - 0.2, -0.6), xlabel="risk at an output of 0.5")
        right.set_title("full: theory · hollow: these cases")
        right.legend(loc="lower right")
    numbers = heads[["sensitivity", "specificity", "0.5 means", "found"]].round(2)
    said = "; ".join(f"{name} {', '.join(f'{k} {v:.2f}' for k, v in row.items())}" for name, row in numbers.iterrows())
    return with_alt_text(
        figure, f"ROC curves of heads that differ in their correction, with decisions at an output of 0.5: {said}."
    )
