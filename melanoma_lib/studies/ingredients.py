"""What each ingredient of the recipe gives: one change at a time on the same cases, beside what another seed alone changes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from melanoma_lib.data.datamodule import cases_for, split_of
from melanoma_lib.errors import StudyError
from melanoma_lib.evaluation import Calibrator
from melanoma_lib.reports import predict_with_views
from melanoma_lib.run_writer import prediction_table
from melanoma_lib.runs import Run
from melanoma_lib.settings import Settings
from melanoma_lib.studies.ingredients_table import CHANGE, DEFAULT, PREDICTION, SEED, Scored, table_of
from melanoma_lib.studies.results import ResultTable
from melanoma_lib.training import train
from melanoma_lib.utils import replacing

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
    shrinks = max(32, 32 * round(0.75 * settings.image_size / 32)) < settings.image_size  # in whole strides 64 px do not
    changes = [
        Variant("ema", "without weight averaging", {"ema_decay": 0.0}, "weight averaging"),
        Variant("task", "without the second task", {"diagnosis_weight": 0.0}, "naming the diagnosis as a second task"),
        Variant("focal", "cross-entropy for focal loss", {"loss": "bce"}, "focal loss"),
        *(
            [Variant("stages", "early stages learn too", {"frozen_stride": 0}, "holding the early stages")]
            if settings.is_pretrained
            else []
        ),  # random weights are never held
        *(
            [Variant("sizes", "full size from the first epoch", {"small_epochs": 0.0}, "small images at first")]
            if shrinks
            else []
        ),
        Variant("augment", "stronger augmentation", {"augmentation": "strong"}),
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
    return sorted({32 * round(side * factor / 32) for factor in (4 / 3, 5 / 3)})  # of small sides both may be one


def train_variant(settings: Settings, variant: Variant, cases: pd.DataFrame | None = None) -> Run:
    """The run of a variant, on the very split of the default recipe; trained if it is not there, resumed if interrupted.

    Args:
        settings: of the default recipe.
        variant: what differs.
        cases: the source's case table, to spare reading it again.
    """
    changed = settings_of(settings, variant)
    if changed.run_dir is None:
        return train(changed)
    cases = cases_for(settings) if cases is None else cases
    return train(changed, cases.assign(split=split_of(settings, cases)))


def settings_of(settings: Settings, variant: Variant) -> Settings:
    """What a variant is trained with, and where its run lies; ``run_dir``, which could hold but one of them, is set aside."""
    settings = settings.with_changes(run_dir=None, resume=True)
    changed, base = settings.with_changes(**variant.changes), settings.run_path
    if changed.seed == settings.seed or settings.folds:
        return changed
    # Without folds another seed would also split otherwise; its run keeps the base's split, which no name derives.
    return changed.with_changes(run_dir=base.with_name(f"{base.name}-trained-with-seed{changed.seed}"))


def scored_run(run: Run, variant: Variant) -> Scored:
    """A run's own predictions."""
    tables = {split: run.predictions(split) for split in ("val", "test")}
    passes = VIEWS if run.settings.tta else 1
    return Scored(variant.name, variant.kind, tables, float(run.history["seconds"].sum()), passes, removes=variant.removes)


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
    views = [] if settings.tta else [eight_viewed(runs[part], one) for part, one in seeds.items()]  # else they are so already
    rows = [*scored.values(), *views[:1]]
    if len(seeds) > 1:
        rows.append(averaged(f"{len(seeds)} seeds averaged", list(seeds.values())))
        rows += [averaged(f"{len(seeds)} seeds averaged, {VIEWS} views", views)] if views else []
    return table_of(settings, rows)
