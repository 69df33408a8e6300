"""The focal-loss lesson: who has the say, three colleagues' losses, a numeric minimiser, and a run's outputs made into risks."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from melanoma_lib.evaluation import (
    Calibrator,
    brier_score,
    calibration_slope_intercept,
    carry_risk,
    expected_calibration_error,
)
from melanoma_lib.evaluation.canvas import BLUE, SKY, VERMILLION, DescribedFigure, describe, kit_figure
from melanoma_lib.lessons.eda import WIDTH
from melanoma_lib.losses import FocalLoss, focal_loss
from melanoma_lib.runs import Run
from melanoma_lib.settings import Settings

HARD = 0.2  # an other lesion with at least this output is called hard
SAYING = {"melanomas": (VERMILLION, "//"), "hard others": (BLUE, ""), "easy others": (SKY, "..")}  # colour and hatch

# --- who has the say ---


def who_has_the_say(outputs: ArrayLike, targets: ArrayLike, gammas: Sequence[float] = (0.0, 1.0, 2.0, 5.0)) -> pd.DataFrame:
    """Of the pull that all cases together exert on their logits, the share that comes from each kind of case.

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


def say_figure(shares: pd.DataFrame) -> DescribedFigure:
    """Stacked bars: who the cases are, and who pulls under each gamma.

    Args:
        shares: from `who_has_the_say`.
    """
    with kit_figure(WIDTH, 0.62 * len(shares.columns) + 1.6) as figure:
        axes = figure.add_subplot()
        places, left = np.arange(len(shares.columns))[::-1], np.zeros(len(shares.columns))
        for name, row in shares.iterrows():
            colour, hatch = SAYING[str(name)]
            values = row.to_numpy(float)
            axes.barh(places, values, 0.72, left, color=colour, hatch=hatch, edgecolor="white", linewidth=1, label=name)
            for y, start, value in zip(places, left, values, strict=True):
                if value > 0.05:
                    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
                    axes.text(start + value / 2, y, f"{value:.0%}", ha="center", va="center", bbox=box)
            left += values
        axes.set_yticks(places, ["of the cases", *(f"of the pull, {name}" for name in shares.columns[1:])])
        axes.set(xlim=(0, 1), ylim=(-0.5, len(places) - 0.5), xlabel="share")
        axes.grid(visible=False)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.3)
    said = "; ".join(f"{column}: " + ", ".join(f"{n} {v:.0%}" for n, v in shares[column].items()) for column in shares)
    return describe(figure, f"Share of each kind of case among all cases, and of their pull on the logits by gamma. {said}.")


# --- three colleagues ---

Loss = Callable[[Tensor, Tensor], Tensor]


def colleagues(alpha: float, gamma: float) -> dict[str, Loss]:
    """Three losses that run without a warning, each meant as focal loss with this alpha and gamma, each with one fault.

    Returns:
        By name of the colleague: loss of logits and float targets, shape ``(N,)`` each, averaged.
    """

    def parts(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return cross_entropy, torch.exp(-cross_entropy)

    def ada(logits: Tensor, targets: Tensor) -> Tensor:
        cross_entropy, p_t = parts(logits, targets)
        weight = torch.where(targets == 1, 1 - alpha, alpha)
        return (weight * (1 - p_t) ** gamma * cross_entropy).mean()

    def ben(logits: Tensor, targets: Tensor) -> Tensor:
        cross_entropy, p_t = parts(logits, targets)
        return (alpha * (1 - p_t) ** gamma * cross_entropy).mean()

    def cleo(logits: Tensor, targets: Tensor) -> Tensor:
        cross_entropy, _ = parts(logits, targets)
        weight = torch.where(targets == 1, alpha, 1 - alpha)
        return (weight * (1 - torch.sigmoid(logits)) ** gamma * cross_entropy).mean()

    return {"Ada": ada, "Ben": ben, "Cleo": cleo}


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

    def expected(logit: float) -> float:
        melanoma, other = focal_loss(torch.full((2,), logit, dtype=torch.float64), both, alpha, gamma, "none").tolist()
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
    logits, calibrated = _logit(decoded), np.empty_like(decoded)
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
    rows = {
        name: {
            "Brier": brier_score(risk, targets),
            "ECE": expected_calibration_error(risk, targets),
            "mean": float(np.mean(risk)),
            "slope": calibration_slope_intercept(risk, targets).slope,
        }
        for name, risk in risks.items()
    }
    return pd.DataFrame(rows).T.rename_axis("reading")


def _logit(risk: NDArray[np.float64], floor: float = 1e-7) -> NDArray[np.float64]:
    risk = np.clip(risk, floor, 1 - floor)
    return np.log(risk) - np.log1p(-risk)
