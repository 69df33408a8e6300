"""Leave one camera out: what a model loses on the pictures of a source of which it has seen none."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from melanoma_lib.data.datamodule import cases_for
from melanoma_lib.data.splits import fold_cases
from melanoma_lib.errors import DataError, StudyError
from melanoma_lib.evaluation.intervals import Interval, bootstrap_replicates
from melanoma_lib.evaluation.paired import bootstrap_mean_auroc
from melanoma_lib.evaluation.subgroups import MIN_GROUPS, subgroup_intervals, too_few_groups
from melanoma_lib.runs import Run
from melanoma_lib.settings import Settings
from melanoma_lib.studies.recalibration import observed_over_expected
from melanoma_lib.studies.results import ResultTable, interval_text

VALIDATION_FOLDS = 5  # one of these validates, the others train
HALVES = ("half-1", "half-2")
NOTES = (
    "Every training has the same number of melanomas and of other images, for training and for validation, and the same recipe; "
    "only where they come from differs.",
    "Seen: two trainings, each on half of the lesions of all sources, test each other's half. Unseen: one training on the other "
    "sources alone tests all of the source. Each case is so tested once either way, and no lesion is on both sides.",
    "AUROC is within the source; of the seen model it is the mean of the two halves, and of the unseen one too, so that both "
    "rank the same pairs. Intervals resample lesions and cover the choice of cases, not that of trainings.",
    "Sensitivity and specificity are at each model's own stored threshold, chosen on its own validation cases.",
    f"A source with fewer than {MIN_GROUPS} lesions of a class has no intervals but those of sensitivity and specificity, by "
    "Wilson's formula.",
)


@dataclass(frozen=True)
class Part:
    """One training of the study.

    Attributes:
        name: ``half-1``, ``half-2`` or ``without-SOURCE``.
        cases: case table with ``split``: the same number of melanomas and others to train in every part, and to validate.
    """

    name: str
    cases: pd.DataFrame


def study_parts(cases: pd.DataFrame, seed: int = 0) -> list[Part]:
    """Two trainings that know every source, and one a source that does not know it; all of one size.

    Args:
        cases: case table that names each image's ``acquisition``.
        seed: of the halves, the validation cases and the thinning.

    Returns:
        The halves, then a part for each source in alphabetical order. What is thinned away is not in a part's table.

    Raises:
        StudyError: if there are fewer than two sources, an image without one, or a source too small to be halved.
    """
    sources = cases["acquisition"]
    if sources.isna().any() or sources.nunique() < 2:
        raise StudyError(
            f"leaving sources out needs two or more and one for every image; got {sources.nunique()}, and {sources.isna().sum()} "
            "of the images name none. HAM10000 names them in its Dataverse table alone (column dataset)."
        )
    home = cases.groupby("group_id")["acquisition"].first()  # a few lesions were photographed in two sources
    tested = {}
    try:
        for _, own in cases.groupby(cases["group_id"].map(home)):
            split = fold_cases(own, 2, 1, seed)
            tested |= dict(zip(own["group_id"], np.where(split == "test", *HALVES), strict=True))
    except DataError as error:
        raise StudyError(f"a source is too small to be halved: {error}") from error
    half = cases["group_id"].map(tested)
    splits = {name: _split(cases, (half == name).to_numpy(), seed) for name in HALVES}
    splits |= {f"without-{source}": _split(cases, (sources == source).to_numpy(), seed) for source in sorted(sources.unique())}
    return [Part(name, cases.assign(split=split)[split != ""]) for name, split in _thinned(cases, splits, seed).items()]


def _split(cases: pd.DataFrame, tested: np.ndarray, seed: int) -> pd.Series:
    """``test`` where tested; of the groups that have no tested image a fifth ``val``, the rest ``train``; else empty."""
    split = pd.Series(np.where(tested, "test", ""), index=cases.index)
    free = cases[~cases["group_id"].isin(cases.loc[tested, "group_id"])]
    split[free.index] = np.where(fold_cases(free, VALIDATION_FOLDS, 1, seed) == "test", "val", "train")
    return split


def _thinned(cases: pd.DataFrame, splits: dict[str, pd.Series], seed: int) -> dict[str, pd.Series]:
    """The same splits with as many melanomas and others in each one's ``train``, and ``val``, as the poorest has."""
    rng = np.random.default_rng(seed)
    for name in ("train", "val"):
        for target in (0, 1):
            rows = {part: np.flatnonzero((split == name) & (cases["target"] == target)) for part, split in splits.items()}
            fewest = min(map(len, rows.values()))
            for part, found in rows.items():
                splits[part].iloc[rng.permutation(found)[fewest:]] = ""
    return splits


def train_parts(settings: Settings, names: Sequence[str] = ()) -> dict[str, Run]:
    """Train what is missing, one part after another, each resumable at its last finished epoch.

    Args:
        settings: of every training; ``seed`` also deals the cases. Runs go into ``runs_dir``, named after part and settings.
        names: parts to train; default: all.

    Returns:
        The finished runs by part, those of ``names`` alone.

    Raises:
        StudyError: for an unknown part, or as :func:`study_parts`.
    """
    from melanoma_lib.training import train

    parts = {part.name: part for part in study_parts(cases_for(settings), settings.seed)}
    if unknown := sorted(set(names) - set(parts)):
        raise StudyError(f"no such part: {', '.join(unknown)}; expected some of {', '.join(parts)}")
    runs = {}
    for name in names or parts:
        folder = settings.runs_dir / f"sources-{name}-{settings.image_size}px-seed{settings.seed}-{settings.fingerprint()}"
        runs[name] = train(settings.with_changes(run_dir=folder, resume=True), parts[name].cases)
    return runs


def compare_sources(runs: dict[str, Run], n: int = 2000, seed: int = 0) -> ResultTable:
    """What each source's cases say of the model that knows their source and of the one that does not.

    Args:
        runs: of :func:`train_parts`, all parts.
        n: number of resamples.
        seed: of the resampling.

    Raises:
        StudyError: if a half is missing, or no source was left out.
    """
    from melanoma_lib.studies.backbones import command_of

    sources = sorted(name.removeprefix("without-") for name in runs if name not in HALVES)
    if (missing := sorted(set(HALVES) - set(runs))) or not sources:
        raise StudyError(f"not trained yet: {', '.join(missing) or 'a part without a source'}; leave --parts out to train all")
    halves = pd.concat([tested_cases(runs[name]).assign(half=name) for name in HALVES]).set_index("image_id")
    rows = []
    for source in sources:
        unseen = tested_cases(runs[f"without-{source}"]).set_index("image_id")
        rows.append({"source": source} | _compare(halves.loc[unseen.index], unseen, n, seed))
    settings, training = runs[HALVES[0]].settings, runs[HALVES[0]].splits
    counts = training.groupby("split")["target"].agg(["size", "sum"])
    return ResultTable(
        name="sources_out",
        title="What a model loses on the pictures of a source of which it has seen none",
        command=command_of(runs[HALVES[0]].settings, "study sources", places=False),
        rows=rows,
        notes=NOTES,
        details={
            "backbone": settings.backbone, "image_size": settings.image_size, "max_epochs": settings.max_epochs,
            "seed": settings.seed, "train": counts.loc["train"].to_dict(), "val": counts.loc["val"].to_dict(),
        },
    )  # fmt: skip


def tested_cases(run: Run) -> pd.DataFrame:
    """Test predictions of a run with its own decision: ``flagged``."""
    table = run.predictions("test")
    return table.assign(flagged=table["probability"] >= run.operating_point.threshold)


def _compare(seen: pd.DataFrame, unseen: pd.DataFrame, n: int, seed: int) -> dict:
    """One row of the table; both hold the same cases in the same order. Too few lesions of a class have no ends, and a note."""
    targets, groups = unseen["target"].to_numpy(), unseen["group_id"].to_numpy(str)
    row = {"images": len(unseen), "groups": len(set(groups)), "melanomas": int(targets.sum()), "prevalence": targets.mean()}
    in_half = [(seen["half"] == name).to_numpy() for name in HALVES]
    scores = {"seen": seen["logit"].to_numpy(), "unseen": unseen["logit"].to_numpy()}
    samples = {name: [(targets[rows], one[rows], groups[rows]) for rows in in_half] for name, one in scores.items()}
    found = {f"auroc_{name}": bootstrap_mean_auroc(samples[name], n=n, seed=seed) for name in scores}
    baselines = [scores["seen"][rows] for rows in in_half]
    found["auroc_change"] = bootstrap_mean_auroc(samples["unseen"], baselines, n, seed)
    found |= decision_changes(seen, unseen, n, seed)
    for name, table in (("seen", seen), ("unseen", unseen)):
        found[f"observed_over_expected_{name}"] = observed_over_expected(table["risk"], targets, groups, n, seed)
    note = too_few_groups(targets, groups)
    return row | {name: sure_ends(one, note).to_dict() for name, one in found.items()} | {"note": note}


def sure_ends(interval: Interval, note: str) -> Interval:
    """An interval without ends where a note says that resampling says too little; a closed form keeps its own."""
    return replace(interval, low=np.nan, high=np.nan) if note and interval.method == "bootstrap" else interval


def decision_changes(seen: pd.DataFrame, unseen: pd.DataFrame, n: int, seed: int) -> Iterator[tuple[str, Interval]]:
    """Sensitivity and specificity of both sides and their paired change, unseen minus seen, by name."""
    targets, rest = unseen["target"], (unseen["group_id"], 0.5, n, seed)
    tables = {name: table.assign(flagged=table["flagged"].astype(float)) for name, table in (("seen", seen), ("unseen", unseen))}
    intervals = {name: subgroup_intervals(one, 0.5, "flagged", n, seed, 0.95)[0] for name, one in tables.items()}
    (before, first), (after, second) = (bootstrap_replicates(targets, one["flagged"], *rest) for one in tables.values())
    for rate in ("sensitivity", "specificity"):
        yield from ((f"{rate}_{name}", found[rate]) for name, found in intervals.items())
        yield f"{rate}_change", Interval.from_replicates(after[rate] - before[rate], second[rate] - first[rate])


def sources_report(table: ResultTable) -> str:
    """The table for a terminal, in Markdown."""
    lines = ["| source | images | melanomas | AUROC seen | unseen | change | sensitivity seen | unseen |", "|" + "---|" * 8]
    for row in table.rows:
        cells = [row["source"], f"{row['images']:,}", f"{row['melanomas']:,}"]
        cells += [interval_text(row[name]) for name in ("auroc_seen", "auroc_unseen")]
        cells += [interval_text(row["auroc_change"], sign="+")]
        cells += [interval_text(row[name], 2) for name in ("sensitivity_seen", "sensitivity_unseen")]
        lines.append("| " + " | ".join(cells) + " |")
    few = [f"{row['source']}: {row['note']}." for row in table.rows if row.get("note")]
    return "\n".join([*lines, "", *few, *table.notes, "Educational, not for diagnosis."])
