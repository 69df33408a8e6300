"""A run directory: what one training left behind. With ``writer`` the only code that knows its files."""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from melanoma_lib.data.metadata import MetadataEncoder
from melanoma_lib.errors import ForeignThresholdError, RunError
from melanoma_lib.evaluation import Calibrator
from melanoma_lib.settings import Settings
from melanoma_lib.utils import in_project, project_dir

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("melanoma_lib")

SETTINGS, SPLITS, ENCODER, HISTORY = "settings.json", "splits.csv", "metadata_encoder.json", "history.csv"
CHECKPOINT, PREDICTIONS, METRICS = "checkpoints/best.ckpt", "predictions_{}.csv", "metrics.json"
CALIBRATION, OPERATING_POINT, ENVIRONMENT = "calibration.json", "operating_point.json", "environment.json"
REQUIRED = (
    SETTINGS, SPLITS, ENCODER, HISTORY, CHECKPOINT, PREDICTIONS.format("val"), PREDICTIONS.format("test"), METRICS, CALIBRATION,
    OPERATING_POINT, ENVIRONMENT,
)  # fmt: skip
FOLDS = "folds.json"  # of a cross-validation: which runs it was gathered from; in place of a model, an encoder
REQUIRED_OF_FOLDS = (*(set(REQUIRED) - {CHECKPOINT, ENCODER}), FOLDS)
DEMONSTRATION = "demonstration.txt"  # only of a run that was trained to go wrong: what it shows
REFERENCE = Path("data", "reference", "ham10000")  # the run on photographs that a checkout of the kit brings along
CHECKOUT = Path(__file__).parents[2]
# Or pandas 2 reads the probability of the case at the threshold as a little less than that.
EXACT = {"float_precision": "round_trip"} if pd.__version__.startswith("2.") else {}
IDENTITY = {"image_id": str, "group_id": str}
AGAIN = "copy the run again, or train it again"
PHOTOGRAPH = 256  # pixels a side of what is drawn


@dataclass(frozen=True)
class StoredOperatingPoint:
    """``probability >= threshold`` is flagged: chosen by ``rule`` on validation, with files of these digests."""

    threshold: float
    rule: str
    sensitivity: float
    specificity: float
    checkpoint_sha256: str
    predictions_sha256: str


class Batch(NamedTuple):
    """What a model is shown of N cases, and what the eye sees of them."""

    images: "Tensor"  # as the model takes them, float32, (N, 3, S, S)
    metadata: "Tensor"  # encoded, float32, (N, M)
    photographs: np.ndarray  # uint8, (N, 256, 256, 3)
    masks: np.ndarray  # lesion pixels, boolean, (N, S, S); none where nobody outlined the lesion


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


class Run:
    """A finished run directory, read only; RunError if the folder is missing, unfinished or not a run.

    A relative ``path`` may also lie in the project around the working directory or in the kit's own checkout.
    ``is_cross_validation``: it was gathered from the runs of several folds, which have a model each.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = next((place for place in (in_project(path), CHECKOUT / path) if place.is_dir()), in_project(path))
        self.is_cross_validation = (self.path / FOLDS).is_file()
        required = REQUIRED_OF_FOLDS if self.is_cross_validation else REQUIRED
        if missing := [name for name in required if not (self.path / name).is_file()]:
            state = f"lacks {', '.join(missing)}" if self.path.is_dir() else "does not exist"
            unfinished = self.path.suffix == ".partial" or partial_path(self.path).is_dir()
            way = "its training was interrupted: add --resume" if unfinished else "make one with python -m melanoma_lib train"
            raise RunError(f"{self.path} is not a finished run: it {state}; {way}")

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @classmethod
    def default(cls, runs_dir: str | Path, needs_model: bool = False) -> "Run":
        """The run of a command that names none: the last of :func:`finished_runs`, else the reference run; logs which and why."""
        if finished := finished_runs(runs_dir, needs_model):
            path, why = finished[-1], f"the latest finished run in {runs_dir}"
        elif path := reference_path():
            why = f"the reference run, as {runs_dir} holds none to take"
        else:
            raise RunError(f"no finished run in {runs_dir}; make one with python -m melanoma_lib train, or name one")
        run = cls(path)
        log.info("using %s (trained on %s): %s", run.path, run.settings.source, why)
        return run

    @property
    def demonstration(self) -> str:
        """What a run that was trained to go wrong shows; empty for any other."""
        return self._text(DEMONSTRATION).strip() if (self.path / DEMONSTRATION).is_file() else ""

    @cached_property
    def settings(self) -> Settings:
        """The settings it was trained with."""
        return Settings.from_json(self._text(SETTINGS))

    @cached_property
    def splits(self) -> pd.DataFrame:
        """image_id, group_id, split, target of every case."""
        return self._read(SPLITS, pd.read_csv, dtype=IDENTITY)

    def cases(self, split: str = "", settings: Settings | None = None) -> pd.DataFrame:
        """The case table it was trained on, in the order of its predictions, with ``split``.

        ``split`` ``val`` or ``test`` gives those cases alone, with the run's ``logit``, ``probability`` and ``risk``; of
        synthetic cases only these are painted. ``settings`` say where the cases lie now, if elsewhere than at training.
        RunError if the source now holds other cases, DataError if it cannot be read.
        """
        from melanoma_lib.data import datamodule

        settings = settings or self.settings
        settings = settings.with_changes(data_dir=in_project(settings.data_root))
        wanted, told = self.splits, ["split"]
        if split:
            wanted, told = self.predictions(split).assign(split=split), ["split", "logit", "probability", "risk"]
        cases = datamodule.cases_for(settings, set(wanted["image_id"]) if split else ()).set_index("image_id", drop=False)
        if set(wanted["image_id"]) - set(cases.index) or (not split and len(cases) > len(wanted)):
            raise RunError(f"{self.path} was trained on other cases than {settings.data_root} now holds; put those back")
        return cases.loc[wanted["image_id"]].reset_index(drop=True).assign(**wanted[told])

    def batch(self, cases: pd.DataFrame) -> Batch:
        """Rows of the case table as the model and the eye see them; CorruptImageError if an image or mask cannot be read."""
        import torch

        from melanoma_lib.data.images import prepare_image, read_square

        side, paths = self.settings.image_size, list(cases["image_path"])
        images = torch.stack([prepare_image(path, self.settings.backbone, side) for path in paths])
        photographs = np.stack([read_square(path, PHOTOGRAPH) for path in paths])
        masks = np.zeros((len(paths), side, side), bool)
        for mask, path in zip(masks, cases["mask_path"], strict=True):
            mask[:] = read_square(path, side)[..., 0] > 127 if isinstance(path, str) else False
        return Batch(images, torch.from_numpy(self.encoder.transform(cases)), photographs, masks)

    @cached_property
    def folds(self) -> list["Run"]:
        """The runs that a cross-validation was gathered from, in order; RunError if one is gone or holds another model now."""
        if not self.is_cross_validation:
            raise RunError(f"{self.path} is one training, no cross-validation; train --folds 5 makes one")
        folds = []
        for kept in self._read(FOLDS):
            if not (place := self.path.parent / kept["run"]).is_dir():
                raise RunError(f"{self.path} was gathered from the runs of its folds, and {place} is gone; copy it there, too")
            fold = Run(place)
            if sha256(fold.path / CHECKPOINT) != kept["checkpoint_sha256"]:
                raise RunError(f"{fold.path} was trained again since {self.path} was gathered; delete that and gather it again")
            folds.append(fold)
        return folds

    @cached_property
    def encoder(self) -> MetadataEncoder:
        """The metadata encoder, fitted on the training split; a cross-validation has one for each fold."""
        self._require_one_model()
        return MetadataEncoder.from_json(self._text(ENCODER))

    @cached_property
    def history(self) -> pd.DataFrame:
        """Losses, metrics and learning rate, one row an epoch."""
        return self._read(HISTORY, pd.read_csv)

    @cached_property
    def metrics(self) -> dict:
        """What ``evaluate_predictions`` said of the test split when the run was finished."""
        return self._read(METRICS)

    @cached_property
    def calibrator(self) -> Calibrator:
        """From logit to risk, fitted on validation; of a cross-validation to all folds, while ``risk`` is by each fold's own."""
        return Calibrator.from_dict(self._read(CALIBRATION))

    @cached_property
    def environment(self) -> dict:
        """Versions of the kit (also its git commit) and of packages, and the machine of the training."""
        return self._read(ENVIRONMENT)

    def model(self):
        """The trained model, in evaluation mode, on the CPU; RunError if the checkpoint does not fit, or there are several."""
        self._require_one_model()
        import torch

        from melanoma_lib.model import MelanomaNet

        settings = self.settings
        modalities, hidden = settings.modalities, settings.metadata_hidden
        model = MelanomaNet(settings.backbone, self.encoder.n_features, False, modalities, metadata_hidden=hidden)
        try:
            state = torch.load(self.path / CHECKPOINT, map_location="cpu", weights_only=True)["state_dict"]
            weights = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
            model.load_state_dict(weights)
        except (RuntimeError, KeyError, EOFError, OSError) as error:
            raise RunError(f"{self.path / CHECKPOINT} does not fit its settings: {error}") from error
        return model.to(memory_format=torch.channels_last).eval()

    def predictions(self, split: str) -> pd.DataFrame:
        """Predictions of the ``val`` or ``test`` split.

        Columns: image_id, group_id, age_approx, sex, anatom_site_general_challenge, target, logit, probability (sigmoid of the
        logit), risk (calibrated on validation); of synthetic cases also true_risk, truth_risk_image, truth_risk_metadata. Of a
        cross-validation also fold; see ``evaluation.summary.gather_folds`` for what the scores then are.
        """
        if split not in ("val", "test"):
            raise RunError(f"predictions are kept of val and test, not of {split!r}")
        table = self._read(name := PREDICTIONS.format(split), pd.read_csv, dtype=IDENTITY, **EXACT)
        if split == "test" and len(table) != self.metrics["n"]:
            raise RunError(f"{self.path / name} holds {len(table)} cases, {METRICS} tells of {self.metrics['n']}; {AGAIN}")
        return table

    @cached_property
    def operating_point(self) -> StoredOperatingPoint:
        """The stored operating point; ForeignThresholdError when it was chosen for another model or on other predictions."""
        point = StoredOperatingPoint(**self._read(OPERATING_POINT))
        model = FOLDS if self.is_cross_validation else CHECKPOINT
        for file, digest in ((model, point.checkpoint_sha256), (PREDICTIONS.format("val"), point.predictions_sha256)):
            if (found := sha256(self.path / file)) != digest:
                told = f"was chosen with another {file} (digest {digest[:12]}…, found {found[:12]}…)"
                raise ForeignThresholdError(f"{self.path / OPERATING_POINT} {told}; it means nothing for this one; train again")
        if (tested := self.metrics["at_threshold"]["threshold"]) != point.threshold:
            told = f"says threshold {point.threshold!r}, the metrics were counted at {tested!r}"
            raise ForeignThresholdError(
                f"{self.path / OPERATING_POINT} {told}: put that back; another rule takes another training"
            )
        return point

    def _require_one_model(self) -> None:
        if self.is_cross_validation:
            raise RunError(f"{self.path} is a cross-validation: take the run of one fold, such as {self.folds[0].path}")

    def _text(self, name: str) -> str:
        return (self.path / name).read_text(encoding="utf-8")

    def _read(self, name: str, how: Callable = _json, **options: Any) -> Any:
        try:
            return how(self.path / name, **options)
        except ValueError as error:  # of JSON and pandas, whose own errors are of this kind
            raise RunError(f"{self.path / name} is damaged ({error}); {AGAIN}") from error


def finished_runs(runs_dir: str | Path, needs_model: bool = False) -> list[Path]:
    """Finished runs in a folder, the latest last, but for demonstrations and, with ``needs_model``, cross-validations."""
    passed_over = (DEMONSTRATION, FOLDS) if needs_model else (DEMONSTRATION,)
    files = sorted(Path(runs_dir).glob(f"*/{ENVIRONMENT}"), key=lambda file: file.stat().st_mtime)
    finished = [file.parent for file in files if file.parent.suffix != ".partial"]
    return [folder for folder in finished if not any((folder / name).is_file() for name in passed_over)]


def reference_path() -> Path | None:
    """Directory of the reference run: of the project around the working directory, else of the kit's own checkout."""
    return next((place / REFERENCE for place in (project_dir(), CHECKOUT) if (place / REFERENCE / ENVIRONMENT).is_file()), None)


def partial_path(path: Path) -> Path:
    """Where a run is built before it is finished."""
    return path.with_name(path.name + ".partial")


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
