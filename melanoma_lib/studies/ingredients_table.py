"""The table of ingredients: gains with intervals, beside the noise of seeds, and what they allow to say."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from melanoma_lib.errors import StudyError
from melanoma_lib.evaluation import (
    Interval,
    OperatingCurve,
    bootstrap_gain,
    bootstrap_intervals,
    bootstrap_mean_auroc,
    delong_test,
)
from melanoma_lib.run_writer import choose_operating_point
from melanoma_lib.settings import Settings
from melanoma_lib.studies.backbones import command_of
from melanoma_lib.studies.results import ResultTable, interval_text

DEFAULT, CHANGE, SEED, PREDICTION = "default", "change", "seed", "prediction"  # kinds of rows


@dataclass(frozen=True)
class Scored:
    """Predictions of one way to do it.

    Attributes:
        name: of the way.
        kind: ``default``, ``change``, ``seed`` or ``prediction``.
        tables: by ``val`` and ``test``: image_id, group_id, target, probability, risk, as a run keeps them.
        seconds: what its trainings took.
        passes: forward passes an image.
        removes: as of :class:`Variant`.
        members: trained models that are averaged.
    """

    name: str
    kind: str
    tables: dict[str, pd.DataFrame] = field(repr=False)
    seconds: float
    passes: int = 1
    removes: str = ""
    members: int = 1


def seed_noise(aurocs: Sequence[float]) -> dict[str, float | None]:
    """How far trainings apart from each other lie that differ in nothing but the seed.

    Args:
        aurocs: of each seed on the same test cases.

    Returns:
        ``spread`` (largest less smallest), ``deviation`` (standard, n - 1) and ``limit``: within so much of the seeds' mean one
        more training of the same recipe is expected in 95 of 100 cases (t prediction interval); None for one seed.
    """
    from scipy.stats import t

    n = len(aurocs)
    if n < 2:
        return {"spread": None, "deviation": None, "limit": None}
    deviation = float(np.std(aurocs, ddof=1))
    limit = float(t.ppf(0.975, n - 1)) * deviation * (1 + 1 / n) ** 0.5
    return {"spread": max(aurocs) - min(aurocs), "deviation": deviation, "limit": limit}


def table_of(settings: Settings, scored: Sequence[Scored]) -> ResultTable:
    """Everything against the default recipe, which comes first.

    Raises:
        StudyError: if something predicts other test cases.
    """
    seeds = [one for one in scored if one.kind in (DEFAULT, SEED)]
    aurocs = [OperatingCurve(one.tables["test"]["target"], one.tables["test"]["probability"]).auroc for one in seeds]
    noise = seed_noise(aurocs)
    rows = [_row(one, scored[0], seeds, noise["limit"], settings) for one in scored]
    test, n_compared = scored[0].tables["test"], sum(one.kind in (CHANGE, PREDICTION) for one in scored)
    counts = {"n_test": len(test), "n_melanomas": int(test["target"].sum()), "n_groups": test["group_id"].nunique()}
    notes = [
        f"All rows predict the same {counts['n_test']:,} test images ({counts['n_melanomas']:,} melanomas) of "
        f"{counts['n_groups']:,} patients or lesions; thresholds and calibration come from validation.",
        "Intervals are of 95% and resample whole patients or lesions; a gain sees both models in the same resamples. DeLong's "
        "test takes images as independent and so is a little too sure.",
        _noise_in_words(noise, len(seeds)),
        f"{n_compared} comparisons at 95%: about {0.05 * n_compared:.1f} of them would exclude zero by chance alone.",
        "Seconds are of trainings that shared their machine with others; the passes an image are exact.",
    ]
    details = counts | {"noise": noise, "auroc_by_seed": aurocs, "settings": settings.shaping()}
    title = "What each ingredient of the recipe gives, one change at a time"
    return ResultTable("ingredients", title, command_of(settings, "study ingredients", places=False), rows, notes, details)


def _noise_in_words(noise: dict[str, float | None], n: int) -> str:
    if noise["limit"] is None:
        return (
            "An interval covers the choice of cases, not the luck of a training; with one seed nobody can tell how large that is."
        )
    return (
        f"An interval covers the choice of cases, not the luck of a training: {n} seeds of the default recipe spread over "
        f"{noise['spread']:.4f} of AUROC, and one more would lie within {noise['limit']:.4f} of their mean in 95 of 100 cases "
        f"(t prediction interval, {n - 1} degree{'s' if n > 2 else ''} of freedom). "
        "What a single training gains short of that is not settled."
    )


def _row(one: Scored, default: Scored, seeds: Sequence[Scored], limit: float | None, settings: Settings) -> dict[str, Any]:
    test, n = one.tables["test"], settings.n_resamples
    if not test[["image_id", "target"]].equals(default.tables["test"][["image_id", "target"]]):
        raise StudyError(f"{one.name} predicts other test cases than {default.name}; a gain needs the same ones on both sides")
    targets, groups, scores = test["target"], test["group_id"], test["probability"]
    point = choose_operating_point(one.tables["val"], settings.min_sensitivity)
    intervals = bootstrap_intervals(targets, scores, groups, point["threshold"], n)
    row: dict[str, Any] = {"name": one.name, "kind": one.kind, "leaves_out": one.removes or None}
    row |= {name: intervals[name].to_dict() for name in ("auroc", "average_precision", "sensitivity", "specificity")}
    row["brier"] = bootstrap_intervals(targets, test["risk"], groups, None, n)["brier"].to_dict()
    row |= {"training_seconds": round(one.seconds), "passes": one.passes}
    bases = [seed.tables["test"]["probability"] for seed in seeds]
    fair = bootstrap_mean_auroc([(targets, scores, groups)] * len(seeds), bases, n)
    compared_with = f"the mean of {len(seeds)} seeds of the default recipe"
    if one is default:
        row |= {"gain": None, "delong": None, "fair_gain": fair.to_dict() if len(seeds) > 1 else None}
        return row | {"compared_with": compared_with, "conclusion": "what the others are compared with"}
    base = bases[0]
    gain, delong = bootstrap_gain(targets, scores, base, groups, n)["auroc"], delong_test(targets, scores, base)
    if one.kind == PREDICTION and one.members == 1:
        fair, compared_with = gain, "the same model, one view"
    return row | {
        "gain": gain.to_dict(),
        "delong": {"difference": delong.difference, "standard_error": delong.standard_error, "p_value": delong.p_value},
        "fair_gain": fair.to_dict(),
        "compared_with": compared_with,
        "conclusion": conclusion(fair, limit, one.kind, bool(one.removes)),
    }


def conclusion(gain: Interval, limit: float | None, kind: str = CHANGE, removes: bool = False) -> str:
    """What a gain with its interval allows to say, and no more.

    Args:
        gain: AUROC less that of what it is fairly compared with.
        limit: of :func:`seed_noise`; None where there is one seed.
        kind: of the row.
        removes: whether the change leaves an ingredient out, so that a loss speaks for it.
    """
    if kind == SEED:
        return "nothing but the seed differs: the noise of training"
    if not (gain.low > 0 or gain.high < 0):
        return "the ingredient is not shown to help" if removes else "not shown to help"
    if removes:
        word = "the ingredient helps" if gain.value < 0 else "better without the ingredient"
    else:
        word = "helps" if gain.value > 0 else "harms"
    if kind == CHANGE and (limit is None or abs(gain.value) <= limit):
        return f"{word} on these cases, but no more than another seed may: not settled"
    return word


def ingredients_report(table: ResultTable) -> str:
    """The table as text to read in a terminal or paste into a page (Markdown)."""
    lines = [f"{table.title}. Educational, not for diagnosis.", ""]
    lines += [
        "| | AUROC | gain over the default | DeLong p | fair gain | minutes of training | passes an image | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in table.rows:
        p = f"{row['delong']['p_value']:.3f}" if row["delong"] else "–"
        gains = (interval_text(row["gain"], 4, "+"), p, interval_text(row["fair_gain"], 4, "+"))
        cost = (f"{row['training_seconds'] / 60:.1f}", str(row["passes"]))
        lines.append("| " + " | ".join([row["name"], interval_text(row["auroc"]), *gains, *cost, row["conclusion"]]) + " |")
    return "\n".join([*lines, "", *table.notes])
