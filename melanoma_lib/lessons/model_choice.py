"""Which of two models, or of many: paired comparisons, the winner's curse, and the tables that studies on real data left."""

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from melanoma_lib.evaluation import Interval, bootstrap_gain, bootstrap_intervals, delong_test
from melanoma_lib.studies.backbones_words import specificity_head
from melanoma_lib.studies.results import ResultTable, interval_text, load_results
from melanoma_lib.widgets.luck import Z, auroc_error, gap_error

LINE = 90  # characters of a printed line
AUROC, ALIKE = 0.9, 0.7  # of equal rivals, unless others are asked for: the true AUROC, and the correlation of any two


def three_intervals(test: pd.DataFrame, error: float, unit: str, n: int = 500) -> dict[str, Interval]:
    """95% intervals of one AUROC: by a formula, by resampling images as if each stood alone, and by resampling whole groups.

    Args:
        test: predictions of a test split.
        error: standard error that a formula gives.
        unit: what the groups are.
        n: resamples.
    """
    by_image, by_group = (
        bootstrap_intervals(test["target"], test["probability"], test[column], n=n)["auroc"]
        for column in ("image_id", "group_id")
    )
    value = by_group.value
    formula = Interval(value, value - Z * error, value + Z * error, method="normal")
    return {"the formula": formula, "images resampled": by_image, f"whole {unit}s resampled": by_group}


# --- which of two -------------------------------------------------------------------------------------------------------------


def comparison_table(
    targets: ArrayLike, a: ArrayLike, b: ArrayLike, groups: ArrayLike, names: tuple[str, str], n: int = 500
) -> pd.DataFrame:
    """Two models on the same cases, as text: each alone, then their difference by DeLong and by paired resamples.

    Args:
        targets: 1 melanoma, 0 not; shape ``(N,)``.
        a: scores of one model, shape ``(N,)``.
        b: scores of the other, shape ``(N,)``.
        groups: patient or lesion of each row, shape ``(N,)``.
        names: of both models.
        n: resamples.
    """
    alone = {name: bootstrap_intervals(targets, one, groups, n=n)["auroc"] for name, one in zip(names, (a, b), strict=True)}
    test = delong_test(targets, a, b)
    reach = Z * test.standard_error
    by_image = Interval(test.difference, test.difference - reach, test.difference + reach, method="delong")
    paired = bootstrap_gain(targets, a, b, groups, n)["auroc"]
    rows = {name: {"estimate": f"{one:.3f}", "width": f"{one.high - one.low:.3f}", "p": ""} for name, one in alone.items()}
    p_value = f"{test.p_value:.4f}" if test.p_value >= 1e-4 else "< 0.0001"
    for name, one, p in (("difference, DeLong", by_image, p_value), ("difference, whole groups resampled", paired, "")):
        rows[name] = {"estimate": f"{one:+.3f}", "width": f"{one.high - one.low:.3f}", "p": p}
    return pd.DataFrame.from_dict(rows, orient="index")


def resampled_rows(groups: ArrayLike, n: int = 500, seed: int = 0) -> list[NDArray[np.intp]]:
    """Rows of resamples that draw whole groups with replacement, one array a resample."""
    groups, rng = np.asarray(groups), np.random.default_rng(seed)
    names, codes = np.unique(groups, return_inverse=True)
    rows = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    return [np.concatenate([rows[number] for number in rng.integers(len(names), size=len(names))]) for _ in range(n)]


def difference_words(gain: Interval, better: str, worse: str) -> str:
    """What a paired difference, ``better`` less ``worse``, says about the two named models, whichever way it falls."""
    if gain.low > 0:
        return f"{better} ranks better than {worse} by {gain:+.3f}."
    if gain.high < 0:
        return f"{better} ranks worse than {worse}: {gain:+.3f}."
    return f"These cases do not tell {better} from {worse}: {gain:+.3f}."


def equal_rivals(
    rivals: int,
    melanomas: int,
    ratio: float,
    auroc: float = AUROC,
    alike: float = ALIKE,
    repetitions: int = 20_000,
    seed: int = 0,
) -> dict[str, float]:
    """Many models that are all exactly as good as the default, on one test set: what the best of them seems to gain.

    Each AUROC is normal around the same truth with the error that the sizes give, any two of them correlated by ``alike``; each
    rival is tested against the default at 5%.

    Args:
        rivals: models besides the default.
        melanomas: in the test; independent ones, so lesions or patients, not images.
        ratio: other lesions for each melanoma.
        auroc: the true one of all of them.
        alike: correlation of two models' AUROCs over test sets, in [0, 1).
        repetitions: test sets drawn.
        seed: of the draws.

    Returns:
        ``lead`` of the best over the default on average; share of test sets on which at least one rival is declared different,
        ``plain`` and with the smallest p held to 5% / rivals (``holm``: the first step of Holm's method, which is Bonferroni's);
        and what was supposed, ``auroc`` and ``alike``.
    """
    from scipy.special import ndtri

    rng = np.random.default_rng(seed)
    error = auroc_error(auroc, melanomas, melanomas * ratio)
    common, own = rng.normal(size=(repetitions, 1)), rng.normal(size=(repetitions, rivals + 1))
    shown = auroc + error * (np.sqrt(alike) * common + np.sqrt(1 - alike) * own)
    leads = shown[:, 1:] - shown[:, :1]  # (R, rivals)
    z = np.abs(leads).max(axis=1) / gap_error(auroc, 0.0, alike, melanomas, melanomas * ratio)
    strict = -ndtri(0.025 / rivals)
    found = {"lead": leads.max(axis=1).mean(), "plain": (z > Z).mean(), "holm": (z > strict).mean()}
    return {name: float(value) for name, value in found.items()} | {"auroc": auroc, "alike": alike}


# --- committed tables ---------------------------------------------------------------------------------------------------------


def table_of(name: str, folder: str = "") -> ResultTable:
    """A table that a study on real data has left.

    Args:
        name: of the study: ``league``, ``heatmaps``, ``ingredients``, ``selfsupervised``, ``sources_out`` or ``travel``.
        folder: where the tables lie; empty for the committed ones.

    Raises:
        StudyError: if it is missing.
    """
    return load_results(name, Path(folder).expanduser() if folder else None)


def made_by(table: ResultTable) -> str:
    """Title, command, day and machine of a table, in lines."""
    head = [table.title, f"made by   {table.command}", f"made on   {table.made}; {table.machine}"]
    return "\n".join(textwrap.fill(line, LINE, subsequent_indent=" " * 10) for line in head)


def notes_of(table: ResultTable) -> str:
    """What the table's study says must be known to read it rightly: a list to unfold, in Markdown; empty without notes."""
    if not table.notes:
        return ""
    known = dict.fromkeys([*table.notes, "Educational, not for diagnosis."])  # some tables say it themselves
    notes = "\n".join(f"- {note}" for note in known)
    return f"<details><summary>What to know about this table</summary>\n\n{notes}\n\n</details>"


def score_label(table: ResultTable, score: str) -> str:
    """A score of `to_choose_from` as a reader knows it.

    Args:
        table: the league, which holds the sensitivity asked for.
        score: ``auroc`` or ``specificity_at``.

    Raises:
        ValueError: if the score is neither.
    """
    labels = {"auroc": "AUROC", "specificity_at": specificity_head(table)}
    if score not in labels:
        raise ValueError(f"score is {score!r}; expected one of {', '.join(labels)}")
    return labels[score]


def to_choose_from(table: ResultTable, score: str) -> pd.DataFrame:
    """Name, score and cost of each model of the league.

    Args:
        table: the league.
        score: ``auroc``, or ``specificity_at`` the sensitivity that the league asks for.

    Returns:
        Columns ``name``, ``score``, ``cost`` (million MACs an image) and ``interval``, best first.
    """
    rows = [
        {"name": row["name"], "score": row[score]["value"], "cost": row["macs"] / 1e6, "interval": interval_text(row[score])}
        for row in table.rows
    ]
    return pd.DataFrame(rows).sort_values("score", ascending=False, ignore_index=True)


def budgets(models: pd.DataFrame) -> list[float]:
    """What a quarter of the models cost at most, what half do and what all do, rounded up to two digits; equal ones once.

    Args:
        models: from `to_choose_from`.
    """
    costs = np.quantile(models["cost"], [0.25, 0.5, 1.0], method="higher")
    steps = 10.0 ** (np.floor(np.log10(costs)) - 1)
    return np.unique(np.ceil(costs / steps) * steps).tolist()
