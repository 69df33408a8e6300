"""Which backbone? One training each on the same cases, two baselines, and a table of what each is worth and costs.

Educational, not for diagnosis.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch

from melanoma_lib.errors import StudyError, WeightsUnavailableError
from melanoma_lib.runs import CHECKPOINT, Run
from melanoma_lib.settings import PLACE_FIELDS, Settings
from melanoma_lib.studies.backbones_costs import Costs, measure
from melanoma_lib.studies.backbones_scores import Candidate, Part, score_candidates
from melanoma_lib.studies.backbones_words import FROZEN, IMAGENET, METADATA, OWN, SCRATCH, notes_for
from melanoma_lib.studies.baselines import frozen_features, metadata_alone
from melanoma_lib.studies.results import ResultTable
from melanoma_lib.training import train, trainer_precision
from melanoma_lib.weights import require_backbone

# Rates that suit ImageNet's weights are too timid for random ones: the whole branch learns at the full rate, after a longer
# warm-up. AdamW at 1e-3 is the usual start for networks with batch normalisation.
FROM_SCRATCH: dict[str, Any] = {"pretrained": False, "learning_rate": 1e-3, "backbone_lr_scale": 1.0, "warmup_epochs": 1.0}
# One yardstick picks every network's best epoch; F1 at 0.5 may be 0 for epochs on end where weights start at random.
COMMON: dict[str, Any] = {"monitor": "val/auroc", "resume": True}
FROZEN_SIZE = 128  # pixels; a forward pass is cheap, and small images cost frozen features more than learnt ones


@dataclass(frozen=True)
class Entry:
    """One line of the league.

    Attributes:
        name: as people write it.
        backbone: name of the timm model.
        pretrained: start from ImageNet's weights; None: where they are to be had, else from scratch.
        scratch: further settings for a training from scratch.
    """

    name: str
    backbone: str
    pretrained: bool | None = None
    scratch: dict[str, Any] = field(default_factory=dict)

    def settings(self, base: Settings) -> Settings:
        """Settings of its training: those of the league, with the backbone and what suits its weights."""
        pretrained = has_weights(self.backbone) if self.pretrained is None else self.pretrained
        changes = {"pretrained": True} if pretrained else FROM_SCRATCH | self.scratch
        return base.with_changes(**COMMON, backbone=self.backbone, **changes)


ENTRIES = (
    Entry("EfficientNet-Lite0", "tf_efficientnet_lite0"),  # the default, which the others are compared with
    Entry("EfficientNet-Lite0", "tf_efficientnet_lite0", pretrained=False),
    Entry("EfficientNet-B0", "efficientnet_b0"),
    Entry("DenseNet121", "densenet121"),
    Entry("ResNet50", "resnet50"),
    # Layer normalisation: 4e-3 at 4,096 images a step (Liu et al. 2022), carried to 32 by the square root of the batch, the rule
    # for Adam (Malladi et al. 2022).
    Entry("ConvNeXt-T", "convnext_tiny", scratch={"learning_rate": 3.5e-4}),
    Entry("EfficientNetV2-S", "tf_efficientnetv2_s"),
)


def has_weights(backbone: str) -> bool:
    """Whether ImageNet's weights of a backbone are to be had: from an installed package, the hub's cache, or the hub."""
    try:
        require_backbone(backbone, pretrained=True)
    except WeightsUnavailableError:
        return False
    return True


def plan(base: Settings, entries: Sequence[Entry] = ENTRIES) -> dict[str, Settings]:
    """What is to be trained: label of each entry to its settings; the first is the default.

    Args:
        base: of every training: cases, folds, image size, epochs, folders. Its backbone, weights, learning rates and
            ``run_dir``, which could hold but one of them, do not matter.
        entries: of the league; one that would repeat another one's training is left out.
    """
    trainings = {}
    for entry in entries:
        settings = entry.settings(base.with_changes(run_dir=None, init_weights=None))
        trainings.setdefault(label(entry.name, settings), settings)
    return trainings


def label(name: str, settings: Settings) -> str:
    """What the table calls a network: name, weights it started from, image size."""
    return f"{name} ({weights_of(settings)}, {settings.image_size} px)"


def weights_of(settings: Settings) -> str:
    """Which weights the image branch started from, in words."""
    if settings.init_weights:
        return OWN
    return IMAGENET if settings.pretrained else SCRATCH


def command_of(settings: Settings, words: str = "train", places: bool = True) -> str:
    """The command line whose settings these are, as a shell line.

    Args:
        settings: whatever differs from the field defaults is written out.
        words: of the command.
        places: also write out where things lie and how comfortably to run.
    """
    flags = []
    for name, known in Settings.model_fields.items():
        value = getattr(settings, name)
        if value == known.default or name == "profile" or (name in PLACE_FIELDS and not places):
            continue
        if isinstance(value, bool | None):
            value = {True: "yes", False: "no", None: "none"}[value]
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        flags += [f"--{name.replace('_', '-')}", shlex.quote(text)]
    return " ".join(["python -m melanoma_lib", words, *flags])


def league(
    base: Settings,
    entries: Sequence[Entry] = ENTRIES,
    finished: Sequence[Run] = (),
    frozen_size: int = FROZEN_SIZE,
    rounds: int = 7,
    show: Callable[[str], None] = lambda _: None,
) -> ResultTable:
    """Train what is missing, score all on the same test cases, measure what each costs.

    Args:
        base: of every training; ``folds`` without ``fold`` trains and scores all folds.
        entries: networks; the first is the default.
        finished: further runs, of any settings, that tested the same cases.
        frozen_size: image size in pixels of the baseline on frozen features.
        rounds: in which the networks take turns when their speed is measured.
        show: receives a line before each step that takes long.

    Raises:
        StudyError: if a finished run tested other cases.
        RunError: as ``train`` does, or if the source's cases have changed.
    """
    trainings, runs = plan(base, entries), {}
    default = next(iter(trainings))
    for name, settings in trainings.items():
        show(f"{name}: {settings.run_path}")
        runs[name] = _runs_of(settings)
    for run in finished:
        name = label(_name_of(run.settings.backbone, entries), run.settings)
        name = f"{name} {run.settings.fingerprint()}" if name in runs else name
        runs[name] = _matching(run, runs[default])
        trainings[name] = run.settings
    candidates = [Candidate(name, [_part(run) for run in several], _facts(several)) for name, several in runs.items()]
    show("baselines")
    frozen = trainings[default].with_changes(image_size=frozen_size)
    candidates += _baselines(frozen, [run.cases(base) for run in runs[default]])
    show("scores")
    rows = score_candidates(candidates, default, base.min_sensitivity, base.n_resamples)
    show("costs")
    n_metadata = runs[default][0].encoder.n_features
    costs = measure(trainings, {FROZEN: frozen.with_changes(modalities="image")}, n_metadata, rounds)
    costs[METADATA] = Costs(n_metadata + 1, n_metadata, None, None)
    for row, candidate in zip(rows, candidates, strict=True):
        row |= candidate.facts | costs[candidate.name].to_row()
    options = [] if frozen_size == FROZEN_SIZE else ["--frozen-size", str(frozen_size)]
    options += ["--run", *(f"runs/{run.path.name}" for run in finished)] if finished else []
    return _table(base, rows, [part.table for part in candidates[0].parts], options)


def _baselines(frozen: Settings, folds: Sequence[pd.DataFrame]) -> list[Candidate]:
    """Both baselines on the case tables of all folds, split as the networks' are."""
    with_features = [frozen_features(frozen, cases) for cases in folds]
    metadata = [metadata_alone(cases, frozen.min_sensitivity) for cases in folds]
    none = dict.fromkeys(
        ("backbone", "weights", "image_size", "epochs", "precision", "checkpoint_bytes", "command", "weights_bytes")
    )
    seen = {"backbone": frozen.backbone, "weights": weights_of(frozen), "image_size": frozen.image_size}
    return [
        Candidate(name, [baseline.part for baseline in several], none | facts | {"penalties": [b.strength for b in several]})
        for name, several, facts in ((FROZEN, with_features, seen), (METADATA, metadata, {}))
    ]


def _table(base: Settings, rows: list[dict[str, Any]], tested: Sequence[pd.DataFrame], options: Sequence[str]) -> ResultTable:
    cases = pd.concat(tested)
    details = {
        "source": base.source,
        "folds": base.folds,
        "fold": base.fold,
        "min_sensitivity": base.min_sensitivity,
        "n_resamples": base.n_resamples,
        "n_cases": len(cases),
        "n_melanomas": int(cases["target"].sum()),
        "n_groups": int(cases["group_id"].nunique()),
        "threads": torch.get_num_threads(),
    }
    with_scratch = any(row["weights"] == SCRATCH and row["epochs"] for row in rows)
    return ResultTable(
        name="league",
        title=f"Backbones on {base.source}: what each is worth and what it costs",
        command=" ".join([command_of(base, "study league", places=False), *options]),
        rows=sorted(rows, key=lambda row: -row["auroc"]["value"]),
        notes=notes_for(details, with_scratch),
        details=details,
    )


def _runs_of(settings: Settings) -> list[Run]:
    """The finished runs of a training, one a fold; trained where they are missing."""
    from melanoma_lib.folds import cross_validate

    return cross_validate(settings).folds if settings.folds and not settings.fold else [train(settings)]


def _matching(run: Run, reference: Sequence[Run]) -> list[Run]:
    """Of a finished run, those folds that tested what the reference's tested.

    Raises:
        StudyError: if there is none for one of them.
    """
    offered = {_tested(fold): fold for fold in (run.folds if run.is_cross_validation else [run])}
    try:
        return [offered[_tested(fold)] for fold in reference]
    except KeyError as error:
        raise StudyError(
            f"{run.path} did not test the cases of {reference[0].path}; name a run of the same source, folds and seed"
        ) from error


def _tested(run: Run) -> frozenset[str]:
    return frozenset(run.splits.loc[run.splits["split"] == "test", "image_id"])


def _part(run: Run) -> Part:
    return Part(run.predictions("test"), run.operating_point.threshold)


def _name_of(backbone: str, entries: Sequence[Entry]) -> str:
    return next((entry.name for entry in entries if entry.backbone == backbone), backbone)


def _facts(runs: Sequence[Run]) -> dict[str, Any]:
    """What the row of a trained network says of it."""
    settings = runs[0].settings
    return {
        "backbone": settings.backbone,
        "weights": weights_of(settings),
        "image_size": settings.image_size,
        "epochs": settings.max_epochs,
        "precision": {"32-true": "float32"}.get(trainer_precision(settings), "bfloat16"),
        "checkpoint_bytes": (runs[0].path / CHECKPOINT).stat().st_size,
        "command": command_of(settings, places=False),
        "weights_bytes": sum(value.numel() * value.element_size() for value in runs[0].model().state_dict().values()),
    }
