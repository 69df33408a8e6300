"""What each ingredient of the recipe gives: one change at a time on the same cases, beside what another seed alone changes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from melanoma_lib.data.datamodule import cases_for, split_of
from melanoma_lib.errors import StudyError
from melanoma_lib.evaluation import (
    Calibrator,
    Interval,
    OperatingCurve,
    bootstrap_gain,
    bootstrap_intervals,
    bootstrap_mean_auroc,
    delong_test,
)
from melanoma_lib.files import replacing
from melanoma_lib.reports import predict_with_views
from melanoma_lib.run_writer import choose_operating_point, prediction_table
from melanoma_lib.runs import Run
from melanoma_lib.settings import Settings
from melanoma_lib.studies.results import ResultTable, interval_text
from melanoma_lib.training import train

DEFAULT, CHANGE, SEED, PREDICTION = "default", "change", "seed", "prediction"  # kinds of rows
VIEWS = 8


@dataclass(frozen=True)
class Variant:
    """One training that differs from the default recipe in one thing.

    Attributes:
        part: short name, as the command line takes it.
        name: what differs, in words.
        changes: settings that differ.
        removes: the ingredient that is left out; empty where something is added or exchanged.
        kind: ``default``, ``change`` or ``seed``.
    """

    part: str
    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    removes: str = ""
    kind: str = CHANGE


def variants_of(settings: Settings) -> list[Variant]:
    """The trainings that a study of these settings compares: the recipe itself, other seeds of it, one change at a time.

    A change that would leave the settings as they are, because the recipe lacks the ingredient, is not among them.
    """
    changes = [
        Variant("ema", "without weight averaging", {"ema_decay": 0.0}, "weight averaging"),
        Variant("task", "without the second task", {"diagnosis_weight": 0.0}, "naming the diagnosis as a second task"),
        Variant("focal", "cross-entropy for focal loss", {"loss": "bce"}, "focal loss"),
        Variant("stages", "early stages learn too", {"frozen_stride": 0}, "holding the early stages"),
        Variant("sizes", "full size from the first epoch", {"small_epochs": 0.0}, "small images at first"),
        Variant("hiding", "metadata never hidden", {"metadata_dropout": 0.0}, "hiding metadata at times"),
        *(Variant(f"{side}px", f"input of {side} pixels", {"image_size": side}) for side in _larger(settings.image_size)),
    ]
    kept = [variant for variant in changes if settings.with_changes(**variant.changes) != settings]
    seeds = [
        Variant(f"seed{seed}", f"another seed: {seed}", {"seed": seed}, kind=SEED)
        for seed in (settings.seed + 1, settings.seed + 2)
    ]
    return [Variant("default", "default recipe", kind=DEFAULT), *seeds, *kept]


def _larger(side: int) -> list[int]:
    """About 4/3 and 5/3 of a side, in whole strides of the backbone."""
    return [32 * round(side * factor / 32) for factor in (4 / 3, 5 / 3)]


def train_variant(settings: Settings, variant: Variant, cases: pd.DataFrame | None = None) -> Run:
    """The run of a variant, on the very split of the default recipe; trained if it is not there, resumed if interrupted.

    Args:
        settings: of the default recipe.
        variant: what differs.
        cases: the source's case table, to spare reading it again.
    """
    changed = settings_of(settings, variant)
    if changed.seed == settings.seed:
        return train(changed)
    cases = cases_for(settings) if cases is None else cases
    return train(changed, cases.assign(split=split_of(settings, cases)))  # by itself another seed would also split otherwise


def settings_of(settings: Settings, variant: Variant) -> Settings:
    """What a variant is trained with, and where its run lies."""
    changed = settings.with_changes(**variant.changes, resume=True)
    base = settings.run_path
    named = base.with_name(f"{base.name}-trained-with-seed{changed.seed}")  # its split is the base's, which no name derives
    return changed if changed.seed == settings.seed else changed.with_changes(run_dir=named)


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


def scored_run(run: Run, variant: Variant) -> Scored:
    """A run's own predictions."""
    tables = {split: run.predictions(split) for split in ("val", "test")}
    return Scored(variant.name, variant.kind, tables, float(run.history["seconds"].sum()), removes=variant.removes)


def averaged(name: str, members: Sequence[Scored]) -> Scored:
    """The mean logit of several ways, calibrated on validation like any other model.

    Raises:
        StudyError: if they predict other cases.
    """
    tables = {}
    for split in ("val", "test"):
        parts = [member.tables[split] for member in members]
        if not all(part["image_id"].equals(parts[0]["image_id"]) for part in parts):
            raise StudyError(f"{name}: the members predict other {split} cases; an ensemble needs one split for all")
        tables[split] = (
            parts[0].drop(columns=["logit", "probability", "risk"]),
            np.mean([part["logit"] for part in parts], axis=0),
        )
    calibrator = Calibrator.fit(tables["val"][1], tables["val"][0]["target"])
    made = {split: prediction_table(cases, logits, calibrator) for split, (cases, logits) in tables.items()}
    seconds, passes = sum(member.seconds for member in members), sum(member.passes for member in members)
    return Scored(name, PREDICTION, made, seconds, passes, members=len(members))


def eight_viewed(run: Run, scored: Scored) -> Scored:
    """A run's predictions from eight views of each image; computed once, then kept in the cache folder."""
    kept = run.settings.cache_dir / f"views-{run.operating_point.checkpoint_sha256[:24]}.npz"
    if not kept.exists():
        tables = predict_with_views(run)
        with replacing(kept) as temporary, temporary.open("wb") as file:
            np.savez(file, **{split: table["logit"] for split, table in tables.items()})
    with np.load(kept) as logits:
        tables = {split: scored.tables[split].assign(logit=logits[split]) for split in ("val", "test")}
    one = Scored(scored.name, PREDICTION, tables, scored.seconds, VIEWS)
    return averaged(f"{VIEWS} views an image", [one])


def train_parts(settings: Settings, parts: Sequence[str] = ()) -> dict[str, Run]:
    """The runs of the variants named by their parts, or of all; what is missing is trained.

    Raises:
        StudyError: for a part that is none.
        RunError: as ``train`` raises it.
    """
    variants = {variant.part: variant for variant in variants_of(settings)}
    if unknown := sorted(set(parts) - set(variants)):
        raise StudyError(f"unknown part {', '.join(unknown)}; parts of this study: {', '.join(variants)}")
    cases = cases_for(settings)
    return {part: train_variant(settings, variants[part], cases) for part in parts or variants}


def finished_parts(settings: Settings) -> dict[str, Run]:
    """The runs of the variants that are trained by now.

    Raises:
        StudyError: if the default recipe is not among them.
    """
    paths = {variant.part: settings_of(settings, variant).run_path for variant in variants_of(settings)}
    runs = {part: Run(path) for part, path in paths.items() if path.is_dir()}
    if "default" not in runs:
        raise StudyError(f"the default recipe is not trained: {paths['default']} does not exist; leave --finished out")
    return runs


def compare_ingredients(settings: Settings, runs: dict[str, Run]) -> ResultTable:
    """Everything against the default recipe on its test cases, single trainings and what can be had from them at prediction.

    Args:
        settings: the default recipe, with its split or fold.
        runs: by part, as :func:`train_parts` gives them; the default recipe among them.
    """
    scored = {v.part: scored_run(runs[v.part], v) for v in variants_of(settings) if v.part in runs}
    seeds = {part: one for part, one in scored.items() if one.kind in (DEFAULT, SEED)}
    views = [eight_viewed(runs[part], one) for part, one in seeds.items()]
    rows = [*scored.values(), views[0]]
    if len(seeds) > 1:
        rows.append(averaged(f"{len(seeds)} seeds averaged", list(seeds.values())))
        rows.append(averaged(f"{len(seeds)} seeds averaged, {VIEWS} views", views))
    return table_of(settings, rows)


def seed_noise(aurocs: Sequence[float]) -> dict[str, float | None]:
    """How far trainings apart from each other lie that differ in nothing but the seed.

    Args:
        aurocs: of each seed on the same test cases.

    Returns:
        ``spread`` (largest less smallest), ``deviation`` (standard, n - 1) and ``limit``: within so much of the seeds' mean one
        more training of the same recipe is expected in 95 of 100 cases (t prediction interval, Geisser 1993); None for one seed.
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
    return ResultTable("ingredients", title, command_of("ingredients", settings), rows, notes, details)


def _noise_in_words(noise: dict[str, float | None], n: int) -> str:
    if noise["limit"] is None:
        return (
            "An interval covers the choice of cases, not the luck of a training; with one seed nobody can tell how large that is."
        )
    return (
        f"An interval covers the choice of cases, not the luck of a training: {n} seeds of the default recipe spread over "
        f"{noise['spread']:.4f} of AUROC, and one more would lie within {noise['limit']:.4f} of their mean in 95 of 100 cases. "
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
    if one is default:
        nothing = {"gain": None, "delong": None, "fair_gain": None, "compared_with": None}
        return row | nothing | {"conclusion": "what the others are compared with"}
    base = default.tables["test"]["probability"]
    gain, delong = bootstrap_gain(targets, scores, base, groups, n)["auroc"], delong_test(targets, scores, base)
    fair, compared_with = gain, "the same model, one view"
    if one.kind != PREDICTION or one.members > 1:
        bases = [seed.tables["test"]["probability"] for seed in seeds]
        fair = bootstrap_mean_auroc([(targets, scores, groups)] * len(seeds), bases, n)
        compared_with = f"the mean of {len(seeds)} seeds of the default recipe"
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
        "| | AUROC | gain over the default | DeLong p | fair gain | minutes | passes | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in table.rows:
        p = f"{row['delong']['p_value']:.3f}" if row["delong"] else "–"
        gains = (interval_text(row["gain"], 4, "+"), p, interval_text(row["fair_gain"], 4, "+"))
        cost = (f"{row['training_seconds'] / 60:.1f}", str(row["passes"]))
        lines.append("| " + " | ".join([row["name"], interval_text(row["auroc"]), *gains, *cost, row["conclusion"]]) + " |")
    return "\n".join([*lines, "", *table.notes])


def command_of(name: str, settings: Settings, *more: str) -> str:
    """The command line of a study, with every setting that differs from its default and shapes the result."""
    words = ["python -m melanoma_lib study", name]
    for setting, value in settings.shaping().items():
        if value != type(settings).model_fields[setting].default:
            words.append(f"--{setting.replace('_', '-')} {'none' if value is None else value}")
    return " ".join([*words, *more])
