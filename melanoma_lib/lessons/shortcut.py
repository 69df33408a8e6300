"""The shortcut experiment: a model trained where an artefact goes with the label, and its twin trained where it does not."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from melanoma_lib.data.datamodule import source_root
from melanoma_lib.data.images import prepare_image
from melanoma_lib.data.synthetic import SyntheticDermoscopy
from melanoma_lib.errors import DataError, RunError
from melanoma_lib.evaluation.intervals import Interval, bootstrap_intervals
from melanoma_lib.evaluation.paired import bootstrap_gain
from melanoma_lib.runs import Run
from melanoma_lib.settings import PLACE_FIELDS, Settings
from melanoma_lib.training import train

ARTEFACT, TIE = "ink", 0.9
TIED, UNTIED = "tied", "untied"
TRAPPED, HONEST = "trained in the trap", "trained without it"


@dataclass(frozen=True)
class Trap:
    """Two runs that differ in one thing: whether an artefact went with the label of the pictures they were trained on.

    Patients, lesions, labels, photographs, split and settings are the same.

    Attributes:
        artefact: the one that was tied.
        honest: trained in the untied world.
        trapped: trained in the tied one.
        untied: generator of the untied world.
        tied: generator of the tied world.
    """

    artefact: str
    honest: Run
    trapped: Run
    untied: SyntheticDermoscopy
    tied: SyntheticDermoscopy

    @property
    def runs(self) -> dict[str, Run]:
        """Both runs by what to call them."""
        return {TRAPPED: self.trapped, HONEST: self.honest}

    @cached_property
    def cases(self) -> pd.DataFrame:
        """Test cases as photographed in the untied world."""
        return _tested(self.honest)

    @cached_property
    def tied_cases(self) -> pd.DataFrame:
        """The same test cases as photographed in the tied world, in the same order."""
        return _tested(self.trapped).set_index("image_id", drop=False).loc[self.cases["image_id"]].reset_index(drop=True)

    @cached_property
    def ceiling(self) -> float:
        """The best AUROC that honest causes allow, exact but for a standard error of about 0.001."""
        return self.untied.bayes_auroc()["both"]


def set_trap(settings: Settings, artefact: str = ARTEFACT, tie: float = TIE) -> Trap:
    """Find both runs, or train them.

    The honest run is that of the settings. The trapped one is trained with its settings on the same patients painted anew, and
    lies beside it in ``runs_dir``, named after it, the artefact and a digest of its data.

    Args:
        settings: of the lesson. Of another source than the synthetic one, or without an image branch, both runs are trained on
            synthetic cases in the fast profile: only there is it known which pictures have an artefact.
        artefact: one of ``ARTEFACTS``.
        tie: ``P(artefact | melanoma) - P(artefact | other)``, from -1 to 1, not 0.

    Raises:
        ValueError: for an unknown artefact or a tie out of range.
        DataError: if the settings' own cases have tied artefacts already.
        RunError: if one of the trainings is interrupted.
    """
    if not tie:
        raise ValueError("tie: expected a number from -1 to 1 other than 0, which ties nothing")
    SyntheticDermoscopy(1, shortcut={artefact: tie})  # refuses what it does not know, before anything is trained
    honest = train(_synthetic(settings))
    untied = SyntheticDermoscopy.of_folder(source_root(honest.settings))
    if untied.shortcut:
        raise DataError(f"{honest.path} was trained on cases with ties {untied.shortcut}; name a data_dir of untied ones")
    tied = SyntheticDermoscopy(**untied.knobs | {"shortcut": {artefact: tie}})
    pictures = source_root(honest.settings)
    folder = tied.write(pictures.parent / tied.fingerprint, twin=pictures)
    name = f"{honest.path.name}-{artefact}-tied-{tied.fingerprint.rpartition('-')[2]}"
    places = settings.model_dump(include=PLACE_FIELDS) | {
        "data_dir": folder,
        "run_dir": settings.runs_dir / name,
        "image_dirs": (),
    }
    trapped = train(honest.settings.with_changes(**places | {"resume": True}))
    if not honest.splits.equals(trapped.splits):
        raise RunError(f"{honest.path} and {trapped.path} have other splits or labels; delete the latter, it is trained again")
    return Trap(artefact, honest, trapped, untied, tied)


def _synthetic(settings: Settings) -> Settings:
    """The settings of the honest run."""
    if settings.source == "synthetic" and "image" in settings.modalities:
        return settings.with_changes(resume=True)
    own = {"data_dir": None, "run_dir": None, "image_dirs": ()}
    places = settings.model_dump(include=PLACE_FIELDS - {"profile"}) | own
    return Settings(**places | {"profile": "fast", "source": "synthetic", "seed": settings.seed, "resume": True})


def _tested(run: Run) -> pd.DataFrame:
    cases = run.cases()
    return cases[cases["split"] == "test"].reset_index(drop=True)


@dataclass(frozen=True)
class Worlds:
    """How well both models rank the same test cases in both worlds.

    Attributes:
        auroc: by model and world.
        loss: by model, AUROC in the tied world minus that in the untied one, both in the same resamples.
        ceiling: the best that honest causes allow.
        n: test cases.
    """

    auroc: dict[str, dict[str, Interval]]
    loss: dict[str, Interval]
    ceiling: float
    n: int


def compare_worlds(trap: Trap, n: int = 2000, seed: int = 0) -> Worlds:
    """Test both models where the artefact is tied and where it is not.

    Args:
        trap: from :func:`set_trap`.
        n: resamples of patients behind each interval.
        seed: of the resampling.
    """
    targets, groups = trap.cases["target"].to_numpy(), trap.cases["group_id"].to_numpy(str)
    auroc, loss = {}, {}
    for name, run in trap.runs.items():
        own = TIED if run is trap.trapped else UNTIED
        worlds = {TIED: trap.tied_cases, UNTIED: trap.cases}
        scores = {world: (stored_logits if world == own else file_logits)(run, cases) for world, cases in worlds.items()}
        auroc[name] = {world: bootstrap_intervals(targets, one, groups, None, n, seed)["auroc"] for world, one in scores.items()}
        loss[name] = bootstrap_gain(targets, scores[TIED], scores[UNTIED], groups, n, seed)["auroc"]
    return Worlds(auroc, loss, trap.ceiling, len(targets))


def stored_logits(run: Run, cases: pd.DataFrame) -> np.ndarray:
    """Logits that a run has stored for cases of its own test split, shape ``(N,)``, in their order."""
    return run.predictions("test").set_index("image_id")["logit"].loc[cases["image_id"]].to_numpy()


def file_logits(run: Run, cases: pd.DataFrame) -> np.ndarray:
    """Logits of a run for cases as their image files are, shape ``(N,)``.

    Raises:
        CorruptImageError: if an image cannot be read.
    """
    import torch

    from melanoma_lib.inference import predict_logits

    settings = run.settings
    metadata = torch.from_numpy(run.encoder.transform(cases))  # (N, M)
    batches = (
        {
            "image": torch.stack([prepare_image(path, settings.backbone, settings.image_size) for path in paths]),
            "metadata": metadata[start : start + len(paths)],
        }
        for start in range(0, len(cases), 32)
        if (paths := list(cases["image_path"].iloc[start : start + 32]))
    )
    return predict_logits(run.model(), batches, settings.tta)
