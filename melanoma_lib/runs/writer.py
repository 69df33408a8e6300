"""Writing a run directory, built beside its place, locked, resumable, and published whole; and the list of those there are."""

import json
import logging
import platform
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from melanoma_lib import __version__
from melanoma_lib.data.metadata import MetadataEncoder
from melanoma_lib.errors import KitError, RunError
from melanoma_lib.evaluation import Calibrator, Interval, OperatingCurve, evaluate_predictions
from melanoma_lib.evaluation.summary import FoldPredictions, gather_folds
from melanoma_lib.runs import run as files
from melanoma_lib.runs.run import Run, StoredOperatingPoint, partial_path, reference_path, sha256
from melanoma_lib.settings import Settings
from melanoma_lib.utils import replacing, write_text

log = logging.getLogger("melanoma_lib")

RULES = {
    "sensitivity": "highest threshold with sensitivity >= {min_sensitivity:g} on validation",
    "specificity": "lowest threshold with specificity >= {min_specificity:g} on validation",
    "f1": "threshold of the highest F1 on validation",
    "youden": "threshold of the highest Youden index on validation",
    "cost": "threshold of the lowest cost on validation, a false negative at {fn_cost:g} false positives",
    "0.5": "threshold 0.5",
}
DESCRIPTION = ["age_approx", "sex", "anatom_site_general_challenge"]
TRUE_RISKS = ["true_risk", "truth_risk_image", "truth_risk_metadata"]  # known of synthetic cases only
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "timm", "numpy", "pandas", "scikit-learn", "pillow")


class RunWriter:
    """Builds the run of these settings in ``<run>.partial`` and renames it when all its files are there."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.path, self.partial = settings, settings.run_path, partial_path(settings.run_path)

    def finished(self) -> Run | None:
        """The run that is in this place already, complete, which ``resume`` takes as it is; None where there is none to take."""
        return Run(self.path) if self.settings.resume and (self.path / files.ENVIRONMENT).is_file() else None

    @contextmanager
    def working(self) -> Iterator[Path]:
        """The folder to fill, locked against a second training (RunError); it gets the run's name after the body.

        Where the body raises it stays behind, resumable, once an epoch is finished; before that nothing is left.
        """
        from filelock import FileLock, Timeout

        self.partial.parent.mkdir(parents=True, exist_ok=True)
        try:
            held = FileLock(self.path.with_name(f".{self.path.name}.lock")).acquire(timeout=0)
        except Timeout as error:
            raise RunError(f"another process is training {self.path}; wait for it or choose another --run-dir") from error
        with held, ExitStack() as at_end:
            at_end.callback(self._forget_untrained)
            self._forget_untrained()
            self.require_free_place()
            if not (stored := self.partial / files.SETTINGS).exists():
                write_text(stored, self.settings.to_json())
            yield self.partial
            self.partial.rename(self.path)

    def _forget_untrained(self) -> None:
        """Remove what was begun without a checkpoint: it holds nothing to go on with, and would block the next try."""
        if self.partial.exists() and not any(self.partial.rglob("*.ckpt")):
            shutil.rmtree(self.partial)

    def tell_of_others(self) -> None:
        """Log which interrupted run beside this one ``resume`` may have meant, if this one begins anew."""
        if self.settings.resume and not self.partial.exists():
            changed = {}
            for stored in self.path.parent.glob(f"*.partial/{files.SETTINGS}"):
                with suppress(KitError, OSError):  # damaged, or no settings of ours: not what is to go on
                    changed[stored.parent] = self.differing(stored)
            if changed and "fold" not in (names := changed[nearest := min(changed, key=lambda one: len(changed[one]))]):
                log.warning("nothing to resume, training begins anew: %s has other settings (%s)", nearest, ", ".join(names))

    def differing(self, stored: Path) -> list[str]:
        """Settings that shape the result and are others in a file of settings."""
        mine, theirs = self.settings.shaping(), Settings.from_json(stored.read_text(encoding="utf-8")).shaping()
        return sorted(name for name in mine | theirs if mine.get(name) != theirs.get(name))

    def require_free_place(self) -> None:
        """RunError if anything is in this run's place but, with ``resume``, itself, finished or interrupted."""
        if self.path.exists() and not self.finished():
            others = "another --run-dir" if self.settings.run_dir else "another --run-dir or --seed"
            raise RunError(f"{self.path} exists already; choose {others}, or --resume (same settings) to use it as it is")
        if self.partial.exists() and not self.settings.resume:
            raise RunError(f"{self.partial} is an interrupted run; add --resume to go on with it or delete it to start again")
        stored = (self.path if self.path.exists() else self.partial) / files.SETTINGS
        if stored.exists() and (changed := self.differing(stored)):  # a run may have been killed before it was written
            raise RunError(f"{stored.parent} was begun with other settings ({', '.join(changed)}); resume needs the same ones")

    def claim_cases(self, cases: pd.DataFrame, encoder: MetadataEncoder) -> None:
        """Note which cases the run is trained on; RunError if a resumed run was begun with others, or with other ages."""
        stored, mine = self.partial / files.SPLITS, cases[["image_id", "group_id", "split", "target"]]
        if not stored.exists():
            _write_csv(stored, mine)
        elif not np.array_equal((found := pd.read_csv(stored, dtype=str)).to_numpy(str), mine.to_numpy(str)):
            raise RunError(f"{self.partial} was begun with other cases ({len(found)}, now {len(mine)}); resume needs the same")
        if not (stored := self.partial / files.ENCODER).exists():
            write_text(stored, encoder.to_json())
        elif MetadataEncoder.from_json(stored.read_text(encoding="utf-8")) != encoder:
            raise RunError(f"{self.partial} was begun with other ages of its training cases; resume needs the same")

    def finish(self, cases: pd.DataFrame, logits: dict[str, np.ndarray]) -> None:
        """Calibrate, choose the operating point and evaluate: the run is then complete.

        ``logits`` are of the ``val`` and ``test`` cases in the order of the table, RunError if one is not finite.
        """
        if not all(np.isfinite(values).all() for values in logits.values()):
            raise RunError(f"{self.partial}: the model predicts NaN or infinity; lower --learning-rate and train again")
        calibrator, tables = calibrated(cases, logits)
        point = choose_operating_point(tables["val"], self.settings)
        metrics = evaluate_predictions(tables["test"], point["threshold"], self.settings.n_resamples)
        self._write(tables, calibrator, point, files.CHECKPOINT, metrics)

    def finish_folds(self, folds: Sequence[Run]) -> None:
        """Gather the runs of fold 1, 2, ...: their predictions, each with the decisions of its own fold's operating point.

        RunError if they do not hold the same cases, or do not test each of them once.
        """
        tested = pd.concat([fold.splits.query("split == 'test'")["image_id"] for fold in folds])
        parts = []
        for fold in folds:
            if sorted(fold.splits["image_id"]) != sorted(tested):
                told = f"{len(fold.splits):,} cases, the folds test {tested.nunique():,} of {len(tested):,}"
                cure = "expected each case once. They are not folds of one table: delete them and train them again"
                raise RunError(f"{fold.path} holds {told}; {cure}")
            tables = {split: fold.predictions(split) for split in ("val", "test")}
            parts.append(FoldPredictions(tables, fold.calibrator, fold.operating_point.threshold))
        tables, point = gather_folds(parts)
        point["rule"] = f"each fold's own: {folds[0].operating_point.rule}, shifted to one threshold"
        kept = [{"run": fold.path.name, "checkpoint_sha256": sha256(fold.path / files.CHECKPOINT)} for fold in folds]
        _write_json(self.partial / files.FOLDS, kept)
        _write_csv(self.partial / files.SPLITS, folds[0].splits.assign(split="test"))
        history = [fold.history.assign(fold=number) for number, fold in enumerate(folds, start=1)]
        _write_csv(self.partial / files.HISTORY, pd.concat(history))
        metrics = evaluate_predictions(tables["test"], point["threshold"], self.settings.n_resamples)
        calibrator = Calibrator.fit(tables["val"]["logit"], tables["val"]["target"])
        self._write(tables, calibrator, point, files.FOLDS, metrics)

    def _write(self, tables: dict[str, pd.DataFrame], calibrator: Calibrator, point: dict, model: str, metrics: dict) -> None:
        """The files that every run has, the one that says it is complete last."""
        for split, table in tables.items():
            _write_csv(self.partial / files.PREDICTIONS.format(split), table)
        _write_json(self.partial / files.CALIBRATION, calibrator.to_dict())
        digests = [sha256(self.partial / name) for name in (model, files.PREDICTIONS.format("val"))]
        stored = point | dict(zip(("checkpoint_sha256", "predictions_sha256"), digests, strict=True))
        _write_json(self.partial / files.OPERATING_POINT, asdict(StoredOperatingPoint(**stored)))
        _write_json(self.partial / files.METRICS, metrics)
        _write_json(self.partial / files.ENVIRONMENT, _environment())


def choose_operating_point(validation: pd.DataFrame, settings: Settings) -> dict:
    """What ``threshold_rule`` chooses on validation: threshold, rule in words, sensitivity, specificity."""
    curve = OperatingCurve(validation["target"], validation["probability"])
    candidates = np.append(curve.thresholds, np.nextafter(curve.thresholds[-1], np.inf))  # the last flags nobody
    costs = settings.fn_cost * (curve.n_positive - curve.tp) + curve.fp
    point = {
        "sensitivity": curve.for_sensitivity(settings.min_sensitivity),
        "specificity": curve.for_specificity(settings.min_specificity),
        "f1": curve.max_f1(),
        "youden": curve.max_youden(),
        "cost": curve.at(candidates[np.argmin(costs)]),
        "0.5": curve.at(0.5),
    }[settings.threshold_rule]
    rule, rates = RULES[settings.threshold_rule], {"sensitivity": point.sensitivity, "specificity": point.specificity}
    return {"threshold": float(point.threshold), "rule": rule.format_map(settings.model_dump())} | rates


def calibrated(cases: pd.DataFrame, logits: dict[str, np.ndarray]) -> tuple[Calibrator, dict[str, pd.DataFrame]]:
    """A calibrator fitted on the logits of ``val``, and :func:`prediction_table` of each split that has logits."""
    parts = {split: cases[cases["split"] == split] for split in logits}
    calibrator = Calibrator.fit(logits["val"], parts["val"]["target"])
    return calibrator, {split: prediction_table(part, logits[split], calibrator) for split, part in parts.items()}


def prediction_table(cases: pd.DataFrame, logits: np.ndarray, calibrator: Calibrator) -> pd.DataFrame:
    """Predictions as a run keeps them: who the case is, target, logit, probability (sigmoid), calibrated risk."""
    known = [name for name in TRUE_RISKS if name in cases]
    described = cases[["image_id", "group_id", *DESCRIPTION, *known, "target"]]
    return described.assign(logit=logits, probability=expit(logits), risk=calibrator.risk(logits)).reset_index(drop=True)


def _environment() -> dict:
    """Versions and machine; ``commit`` is the one that the kit runs from, ``-dirty`` where files differ, None without git."""
    import torch

    checkout, git, commit = Path(__file__).parents[2], shutil.which("git"), None
    if git and (checkout / ".git").exists():
        command = [git, "-C", checkout, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None
    return {
        "version": __version__,
        "commit": commit,
        "finished": date.today().isoformat(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "packages": {name: version(name) for name in PACKAGES},
    }


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)


def _write_json(path: Path, value: dict) -> None:
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def list_runs(runs_dir: str | Path) -> tuple[pd.DataFrame, dict[Path, str]]:
    """A row for each run in a folder, and for the reference runs that came with the kit; and why other folders are none."""
    reference, rows, others = reference_path(), [], {}
    places = {Path(runs_dir)} | ({reference.parent} if reference else set())
    for folder in sorted({folder.resolve(): folder for place in places for folder in place.glob("[!.]*/")}.values()):
        try:
            rows.append(_row_of(Run(folder)))
        except (KitError, OSError, ValueError, KeyError, TypeError) as error:
            others[folder] = str(error) if isinstance(error, KitError) else repr(error)
    columns = ["run", "source", "backbone", "size", "epochs", "AUROC [95% interval]", "finished", "demonstration"]
    return pd.DataFrame(rows, columns=columns), others


def _row_of(run: Run) -> tuple:
    settings, auroc = run.settings, f"{Interval.from_dict(run.metrics['auroc']):.3f}"
    network = (settings.backbone, settings.image_size) if "image" in settings.modalities else (settings.modalities, "–")
    written = date.fromtimestamp((run.path / files.ENVIRONMENT).stat().st_mtime).isoformat()  # of old runs, which do not say
    finished = run.environment.get("finished", written)
    return str(run.path), settings.source, *network, run.history["epoch"].nunique(), auroc, finished, run.demonstration
