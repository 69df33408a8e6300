"""A run directory: what one training left behind, written whole or not at all. The only code that knows its files."""

import hashlib
import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lib.data.metadata import MetadataEncoder
from melanoma_lib.errors import ForeignThresholdError, RunError
from melanoma_lib.evaluation import Calibrator, OperatingCurve, evaluate_predictions
from melanoma_lib.files import replacing, write_text
from melanoma_lib.settings import Settings

SETTINGS, SPLITS, ENCODER, HISTORY = "settings.json", "splits.csv", "metadata_encoder.json", "history.csv"
CHECKPOINT, PREDICTIONS = "checkpoints/best.ckpt", "predictions_{}.csv"
METRICS, CALIBRATION, OPERATING_POINT, ENVIRONMENT = (
    "metrics.json", "calibration.json", "operating_point.json", "environment.json",
)  # fmt: skip
REQUIRED = (
    SETTINGS, SPLITS, ENCODER, HISTORY, CHECKPOINT, PREDICTIONS.format("val"), PREDICTIONS.format("test"), METRICS, CALIBRATION,
    OPERATING_POINT, ENVIRONMENT,
)  # fmt: skip
IDENTITY = {"image_id": str, "group_id": str}
DESCRIPTION = ["age_approx", "sex", "anatom_site_general_challenge"]
TRUE_RISKS = ["true_risk", "truth_risk_image", "truth_risk_metadata"]  # known of synthetic cases only
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "timm", "numpy", "pandas", "scikit-learn", "pillow")


@dataclass(frozen=True)
class StoredOperatingPoint:
    """A threshold on ``probability``, chosen on validation, and the digests of the model and predictions it belongs to.

    Attributes:
        threshold: ``probability >= threshold`` is called melanoma.
        rule: how it was chosen, in words.
        sensitivity: on validation.
        specificity: on validation.
        checkpoint_sha256: of the checkpoint that made the predictions.
        predictions_sha256: of the validation predictions it was chosen on.
    """

    threshold: float
    rule: str
    sensitivity: float
    specificity: float
    checkpoint_sha256: str
    predictions_sha256: str


class Run:
    """A finished run directory, read only.

    Args:
        path: the run directory.

    Raises:
        RunError: if the folder is missing, unfinished or not a run.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        missing = [name for name in REQUIRED if not (self.path / name).is_file()]
        if missing:
            state = f"lacks {', '.join(missing)}" if self.path.is_dir() else "does not exist"
            unfinished = partial_path(self.path)
            hint = f" {unfinished} is an interrupted training: add --resume to its train command." if unfinished.is_dir() else ""
            raise RunError(f"{self.path} is not a finished run: it {state}.{hint} Make one with python -m melanoma_lib train.")

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @classmethod
    def latest(cls, runs_dir: str | Path) -> "Run":
        """The run finished last in a folder of runs.

        Raises:
            RunError: if the folder holds none.
        """
        finished = sorted(Path(runs_dir).glob(f"*/{ENVIRONMENT}"), key=lambda file: file.stat().st_mtime)
        finished = [file.parent for file in finished if not file.parent.name.endswith(".partial")]
        if not finished:
            raise RunError(
                f"no finished run in {runs_dir}; make one with python -m melanoma_lib train, or name one with --run-dir"
            )
        return cls(finished[-1])

    @cached_property
    def settings(self) -> Settings:
        """The settings it was trained with."""
        return Settings.from_json(self._text(SETTINGS))

    @cached_property
    def splits(self) -> pd.DataFrame:
        """image_id, group_id, split, target of every case."""
        return pd.read_csv(self.path / SPLITS, dtype=IDENTITY)

    def cases(self, settings: Settings | None = None) -> pd.DataFrame:
        """The case table it was trained on, in the order of its predictions, with ``split``.

        Args:
            settings: where the cases lie now, if elsewhere than at training.

        Raises:
            RunError: if the source now holds other cases.
            DataError: if the source cannot be read.
        """
        from melanoma_lib.data import datamodule

        settings = settings or self.settings
        cases = datamodule.cases_for(settings).set_index("image_id", drop=False)
        if set(cases.index) != set(self.splits["image_id"]):
            raise RunError(f"{self.path} was trained on other cases than {settings.data_root} now holds; put those back")
        return cases.loc[self.splits["image_id"]].reset_index(drop=True).assign(split=self.splits["split"])

    @cached_property
    def encoder(self) -> MetadataEncoder:
        """The metadata encoder, fitted on the training split."""
        return MetadataEncoder.from_json(self._text(ENCODER))

    @cached_property
    def history(self) -> pd.DataFrame:
        """Losses, metrics and learning rate, one row an epoch."""
        return pd.read_csv(self.path / HISTORY)

    @cached_property
    def metrics(self) -> dict:
        """What ``evaluate_predictions`` said of the test split when the run was finished."""
        return json.loads(self._text(METRICS))

    @cached_property
    def calibrator(self) -> Calibrator:
        """Slope and intercept from logit to risk, fitted on validation."""
        return Calibrator.from_dict(json.loads(self._text(CALIBRATION)))

    @cached_property
    def environment(self) -> dict:
        """Versions and machine of the training."""
        return json.loads(self._text(ENVIRONMENT))

    def model(self):
        """The trained model, in evaluation mode, on the CPU.

        Raises:
            RunError: if the checkpoint does not fit the settings.
        """
        import torch

        from melanoma_lib.model import MelanomaNet

        settings = self.settings
        model = MelanomaNet(
            settings.backbone,
            self.encoder.n_features,
            pretrained=False,
            modalities=settings.modalities,
            metadata_hidden=settings.metadata_hidden,
        )
        try:
            state = torch.load(self.path / CHECKPOINT, map_location="cpu", weights_only=True)["state_dict"]
            weights = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
            model.load_state_dict(weights)
        except (RuntimeError, KeyError, EOFError, OSError) as error:
            raise RunError(f"{self.path / CHECKPOINT} does not fit its settings: {error}") from error
        return model.to(memory_format=torch.channels_last).eval()

    def predictions(self, split: str) -> pd.DataFrame:
        """Predictions of the ``val`` or ``test`` split.

        Returns:
            image_id, group_id, age_approx, sex, anatom_site_general_challenge, target, logit, probability (sigmoid of the logit),
            risk (calibrated on validation); of synthetic cases also true_risk, truth_risk_image, truth_risk_metadata.

        Raises:
            RunError: for another split's name.
        """
        if split not in ("val", "test"):
            raise RunError(f"predictions are kept of val and test, not of {split!r}")
        return pd.read_csv(self.path / PREDICTIONS.format(split), dtype=IDENTITY)

    @cached_property
    def operating_point(self) -> StoredOperatingPoint:
        """The stored operating point, refused when it was chosen for another model or on other predictions.

        Raises:
            ForeignThresholdError: if a digest does not match this run's files.
        """
        point = StoredOperatingPoint(**json.loads(self._text(OPERATING_POINT)))
        for file, digest in ((CHECKPOINT, point.checkpoint_sha256), (PREDICTIONS.format("val"), point.predictions_sha256)):
            if (found := _sha256(self.path / file)) != digest:
                raise ForeignThresholdError(
                    f"{self.path / OPERATING_POINT} was chosen with another {file} (digest {digest[:12]}…, found {found[:12]}…). "
                    "A threshold means nothing for another model: choose it again on this run's validation predictions."
                )
        return point

    def _text(self, name: str) -> str:
        return (self.path / name).read_text(encoding="utf-8")


class RunWriter:
    """Builds a run in ``<run>.partial`` and renames it when all its files are there.

    Args:
        settings: of the run; they name its directory.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings, self.path, self.partial = settings, settings.run_path, partial_path(settings.run_path)

    @property
    def is_finished(self) -> bool:
        """Whether the run directory is there, complete."""
        return (self.path / ENVIRONMENT).is_file()

    @contextmanager
    def working(self) -> Iterator[Path]:
        """The folder to work in, locked against a second training; left behind, resumable, when the body raises.

        Raises:
            RunError: if another process trains this run, or an interrupted one is there and ``resume`` is off or its settings
                differ.
        """
        from filelock import FileLock, Timeout

        self.partial.parent.mkdir(parents=True, exist_ok=True)
        try:
            held = FileLock(self.path.with_name(f".{self.path.name}.lock")).acquire(timeout=0)
        except Timeout as error:
            raise RunError(f"another process is training {self.path}; wait for it or choose another --run-dir") from error
        with held:
            if self.path.exists():
                raise RunError(f"{self.path} exists already; choose another --run-dir or --seed, or --resume to use it as it is")
            if self.partial.exists() and not self.settings.resume:
                raise RunError(f"{self.partial} is an interrupted run; add --resume to go on with it or delete it to start again")
            self._claim()
            yield self.partial

    def _claim(self) -> None:
        stored = self.partial / SETTINGS
        if not stored.exists():
            write_text(stored, self.settings.to_json())
        elif (found := Settings.from_json(stored.read_text())).fingerprint() != self.settings.fingerprint():
            mine, theirs = self.settings.shaping(), found.shaping()
            changed = sorted(name for name in mine if mine[name] != theirs[name])
            raise RunError(f"{self.partial} was begun with other settings ({', '.join(changed)}); resume needs the same ones")

    def claim_cases(self, cases: pd.DataFrame) -> None:
        """Note which cases the run is trained on, or hold a resumed run to those it was begun with.

        Raises:
            RunError: if a resumed run was begun with other cases or another split.
        """
        stored, mine = self.partial / SPLITS, cases[["image_id", "group_id", "split", "target"]]
        if not stored.exists():
            _write_csv(stored, mine)
        elif not np.array_equal((found := pd.read_csv(stored, dtype=str)).to_numpy(str), mine.to_numpy(str)):
            raise RunError(f"{self.partial} was begun with other cases ({len(found)}, now {len(mine)}); resume needs the same")

    def finish(self, cases: pd.DataFrame, encoder: MetadataEncoder, logits: dict[str, np.ndarray]) -> Run:
        """Calibrate, choose the operating point, evaluate and publish the run.

        Args:
            cases: case table with ``split``.
            encoder: fitted on the training split.
            logits: of the ``val`` and ``test`` cases in table order, shape ``(n_val,)`` and ``(n_test,)``.

        Returns:
            The finished run.

        Raises:
            RunError: if a logit is not finite.
            OSError: if something cannot be written; the run stays partial and resumable.
        """
        if not all(np.isfinite(values).all() for values in logits.values()):
            raise RunError(f"{self.partial}: the model predicts NaN or infinity; lower --learning-rate and train again")
        targets = cases["target"].to_numpy()
        calibrator = Calibrator.fit(logits["val"], targets[cases["split"] == "val"])
        tables = {split: prediction_table(cases[cases["split"] == split], logits[split], calibrator) for split in ("val", "test")}
        for split, table in tables.items():
            _write_csv(self.partial / PREDICTIONS.format(split), table)
        write_text(self.partial / ENCODER, encoder.to_json())
        _write_json(self.partial / CALIBRATION, calibrator.to_dict())
        point = choose_operating_point(tables["val"], self.settings.min_sensitivity)
        digests = {
            "checkpoint_sha256": _sha256(self.partial / CHECKPOINT),
            "predictions_sha256": _sha256(self.partial / PREDICTIONS.format("val")),
        }
        _write_json(self.partial / OPERATING_POINT, asdict(StoredOperatingPoint(**point, **digests)))
        metrics = evaluate_predictions(tables["test"], point["threshold"], self.settings.n_resamples)
        _write_json(self.partial / METRICS, metrics)
        _write_json(self.partial / ENVIRONMENT, _environment())
        self.partial.rename(self.path)
        return Run(self.path)


def partial_path(path: Path) -> Path:
    """Where a run is built before it is finished."""
    return path.with_name(path.name + ".partial")


def choose_operating_point(validation: pd.DataFrame, min_sensitivity: float) -> dict:
    """The highest threshold whose sensitivity on validation reaches the target: threshold, rule, sensitivity, specificity."""
    point = OperatingCurve(validation["target"], validation["probability"]).for_sensitivity(min_sensitivity)
    return {
        "threshold": float(point.threshold),
        "rule": f"highest threshold with sensitivity >= {min_sensitivity:g} on validation",
        "sensitivity": point.sensitivity,
        "specificity": point.specificity,
    }


def prediction_table(cases: pd.DataFrame, logits: np.ndarray, calibrator: Calibrator) -> pd.DataFrame:
    """Predictions as a run keeps them: who the case is, target, logit, probability (sigmoid), calibrated risk."""
    from scipy.special import expit

    known = [name for name in TRUE_RISKS if name in cases]
    described = cases[["image_id", "group_id", *DESCRIPTION, *known, "target"]]
    return described.assign(logit=logits, probability=expit(logits), risk=calibrator.risk(logits)).reset_index(drop=True)


def _environment() -> dict:
    import torch

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "packages": {name: version(name) for name in PACKAGES},
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)


def _write_json(path: Path, value: dict) -> None:
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
