"""Which backbone? One training each on the same cases, and a table of how they perform and what they cost to predict with.

Educational, not for diagnosis.
"""

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from melanoma_lib.errors import StudyError, WeightsUnavailableError
from melanoma_lib.evaluation import Interval, OperatingCurve, bootstrap_replicates, delong_test
from melanoma_lib.model import MelanomaNet
from melanoma_lib.runs import Run
from melanoma_lib.settings import PLACE_FIELDS, Settings
from melanoma_lib.studies.results import ResultTable, weights_of
from melanoma_lib.training import train
from melanoma_lib.weights import require_backbone

# Rates that suit ImageNet's weights are too timid for random ones: the whole branch learns at the full rate, after a longer
# warm-up. AdamW at 1e-3 is the usual start for networks with batch normalisation.
FROM_SCRATCH: dict[str, Any] = {"pretrained": False, "learning_rate": 1e-3, "backbone_lr_scale": 1.0, "warmup_epochs": 1.0}
# One yardstick picks every network's best epoch; F1 at 0.5 may be 0 for epochs on end where weights start at random.
COMMON: dict[str, Any] = {"monitor": "val/auroc", "resume": True}
METRICS = ("auroc", "average_precision", "sensitivity", "specificity", "brier")


@dataclass(frozen=True)
class Entry:
    """One backbone of the comparison.

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
        """Settings of its training: those of the comparison, with the backbone and what suits its weights."""
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
        entries: one that would repeat another one's training is left out.
    """
    trainings: dict[str, Settings] = {}
    for entry in entries:
        settings = entry.settings(base.with_changes(run_dir=None, init_weights=None))
        trainings.setdefault(label(entry.name, settings), settings)
    return trainings


def label(name: str, settings: Settings) -> str:
    """What the table calls a network: name, weights it started from, image size."""
    weights = "own weights" if settings.init_weights else "ImageNet" if settings.pretrained else "from scratch"
    return f"{name} ({weights}, {settings.image_size} px)"


def command_of(settings: Settings, words: str = "train", places: bool = True) -> str:
    """The command line whose settings these are, as a shell line.

    Args:
        settings: whatever differs from the field defaults is written out.
        words: of the command.
        places: also write out the folders.
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


def compare_backbones(
    base: Settings,
    entries: Sequence[Entry] = ENTRIES,
    finished: Sequence[Run] = (),
    show: Callable[[str], None] = lambda _: None,
) -> ResultTable:
    """Train what is missing and score all on the same test cases.

    Args:
        base: of every training; ``folds`` without ``fold`` trains and scores all folds.
        entries: networks; the first is the default.
        finished: further runs, of any settings, that tested the same cases.
        show: receives a line before each training.

    Raises:
        StudyError: if a finished run tested other cases.
        RunError: as ``train`` does.
    """
    runs: dict[str, list[Run]] = {}
    for name, settings in plan(base, entries).items():
        show(f"{name}: {settings.run_path}")
        runs[name] = _runs_of(settings)
    default = next(iter(runs))
    for run in finished:
        known = next((entry.name for entry in entries if entry.backbone == run.settings.backbone), run.settings.backbone)
        name = label(known, run.settings)
        runs[f"{name} {run.settings.fingerprint()}" if name in runs else name] = _matching(run, runs[default])
    rows = score_runs(runs, default, base.min_sensitivity, base.n_resamples)
    tested, names = pd.concat([run.predictions("test") for run in runs[default]]), [f"runs/{run.path.name}" for run in finished]
    return ResultTable(
        name="league",
        title=f"Backbones on {base.source}",
        command=" ".join([command_of(base, "study league", places=False), *(["--run", *names] if names else [])]),
        rows=sorted(rows, key=lambda row: -row["auroc"]["value"]),
        notes=(
            "Intervals (95%) resample lesions or patients, the same ones for every model. Each row is one training a fold.",
            "The best is the best on these very cases, which flatters its lead over the others.",
        ),
        details={"min_sensitivity": base.min_sensitivity, "n_cases": len(tested), "n_melanomas": int(tested["target"].sum())}
        | {"n_groups": int(tested["group_id"].nunique()), "folds": base.folds, "fold": base.fold},
        weights_sha256=weights_of([run for several in runs.values() for run in several]),
    )


def score_runs(
    runs: Mapping[str, Sequence[Run]], default: str, min_sensitivity: float, n: int = 2000, seed: int = 0
) -> list[dict[str, Any]]:
    """One row a model: metrics with intervals, and paired differences to the default.

    Args:
        runs: by name, one a fold; in each fold all tested the same cases.
        default: name of the model that the others are compared with.
        min_sensitivity: at which ``specificity_at`` is read off the test cases' own ROC curve.
        n: resamples of whole groups.
        seed: of the resampling.

    Returns:
        Rows with ``name``, ``METRICS`` (value, low, high; the mean over folds), ``gain_METRIC`` of three of them, ``delong_p``
        and ``delong_p_holm`` (Holm 1979), and of the network ``parameters`` and ``macs`` (multiply-adds an image).
    """
    from statsmodels.stats.multitest import multipletests

    tables = {name: [run.predictions("test").sort_values("image_id") for run in several] for name, several in runs.items()}
    drawn = {name: _draws(tables[name], runs[name], n, seed) for name in runs}
    rows = []
    for name, several in runs.items():
        settings, model = several[0].settings, several[0].model()
        row: dict[str, Any] = {"name": name, "default": name == default, "backbone": settings.backbone}
        row |= {metric: Interval.from_replicates(*drawn[name][metric]).to_dict() for metric in METRICS}
        curves = [OperatingCurve(table["target"], table["probability"]) for table in tables[name]]
        at = float(np.mean([curve.for_sensitivity(min_sensitivity).specificity for curve in curves]))
        row |= {"specificity_at": {"value": at, "low": None, "high": None}, "delong_p": None, "delong_p_holm": None}
        for metric in ("auroc", "average_precision", "brier"):
            (value, draws), (base, base_draws) = drawn[name][metric], drawn[default][metric]
            gain = Interval.from_replicates(value - base, draws - base_draws).to_dict()
            row[f"gain_{metric}"] = None if name == default else gain
        if name != default:
            row["delong_p"] = _delong_p(tables[name], tables[default])
        row |= {"parameters": sum(parameter.numel() for parameter in model.parameters())}
        rows.append(row | {"macs": macs_of(model, settings.image_size, several[0].encoder.n_features)})
    compared = [row for row in rows if not row["default"]]
    if compared:
        for row, p in zip(compared, multipletests([row["delong_p"] for row in compared], method="holm")[1], strict=True):
            row["delong_p_holm"] = float(p)
    return rows


def _draws(tables: Sequence[pd.DataFrame], runs: Sequence[Run], n: int, seed: int) -> dict[str, tuple[float, np.ndarray]]:
    """Each metric on the sample and on the resamples, shape ``(n,)``, as the mean over folds."""
    found: list[dict[str, tuple[float, np.ndarray]]] = []
    for number, (table, run) in enumerate(zip(tables, runs, strict=True)):
        targets, groups = table["target"], table["group_id"].to_numpy(str)
        threshold = run.operating_point.threshold
        sample, draws = bootstrap_replicates(targets, table["probability"], groups, threshold, n, seed + number)
        risk, risk_draws = bootstrap_replicates(targets, table["risk"], groups, None, n, seed + number)
        sample["brier"], draws["brier"] = risk["brier"], risk_draws["brier"]
        found.append({metric: (sample[metric], draws[metric]) for metric in METRICS})
    return {
        metric: (float(np.mean([one[metric][0] for one in found])), np.mean([one[metric][1] for one in found], axis=0))
        for metric in METRICS
    }


def _delong_p(tables: Sequence[pd.DataFrame], baselines: Sequence[pd.DataFrame]) -> float:
    """Two-sided p of equal AUROC; over folds, whose test cases are disjoint, of the mean difference."""
    from scipy.stats import norm

    pairs = zip(tables, baselines, strict=True)
    tests = [delong_test(mine["target"], mine["probability"], its["probability"]) for mine, its in pairs]
    difference, error = math.fsum(t.difference for t in tests), math.sqrt(math.fsum(t.standard_error**2 for t in tests))
    return float(2 * norm.sf(abs(difference) / error)) if error > 0 else float(difference == 0)


def macs_of(model: MelanomaNet, image_size: int, n_metadata: int) -> int:
    """Multiplications with addition that one image takes, by PyTorch's own counter: convolutions and matrix products."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.zeros(1, 3, image_size, image_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.cpu().eval()(image, torch.zeros(1, n_metadata))
    return counter.get_total_flops() // 2  # it counts a multiplication and an addition as two operations


def _runs_of(settings: Settings) -> list[Run]:
    """The finished runs of a training, one a fold; trained where they are missing."""
    from melanoma_lib.folds import cross_validate

    return cross_validate(settings).folds if settings.folds and not settings.fold else [train(settings)]


def _matching(run: Run, reference: Sequence[Run]) -> list[Run]:
    """Of a finished run, those folds that tested what the reference's tested.

    Raises:
        StudyError: if there is none for one of them.
    """

    def tested(one: Run) -> frozenset[str]:
        return frozenset(one.splits.loc[one.splits["split"] == "test", "image_id"])

    offered = {tested(fold): fold for fold in (run.folds if run.is_cross_validation else [run])}
    try:
        return [offered[tested(fold)] for fold in reference]
    except KeyError as error:
        raise StudyError(
            f"{run.path} did not test the cases of {reference[0].path}; name a run of the same source, folds and seed"
        ) from error
