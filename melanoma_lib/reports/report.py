"""What a run's test split says: text, numbers and figures in a folder beside it."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from melanoma_lib.errors import RunError
from melanoma_lib.evaluation import Interval, OperatingCurve, evaluate_predictions, summary_table
from melanoma_lib.plotting import DescribedFigure
from melanoma_lib.runs import Run
from melanoma_lib.runs.writer import calibrated, choose_operating_point
from melanoma_lib.utils import write_text


@dataclass(frozen=True)
class Report:
    """A finished evaluation: the numbers, the same as text of 100 columns, and the folder of both and of the figures."""

    summary: dict
    text: str
    folder: Path


def evaluate_run(run: Run, tta: bool = False) -> Report:
    """Evaluate a run's test split at its stored operating point; table, JSON and figures go to ``evaluation`` beside it.

    Args:
        run: a finished run.
        tta: predict again, averaging the eight flips and turns of each image. Such logits are another model's: they get their
            own calibration and threshold, fitted on the validation predictions made the same way.
            The folder is ``evaluation-tta``. RunError of metadata alone, which have one view, and of a cross-validation.
    """
    point, reads_images = run.operating_point, "image" in run.settings.modalities
    if tta and not reads_images:
        raise RunError(f"{run.path} reads metadata alone, of which there is one view; leave out --tta")
    if tta and not run.settings.tta:
        if run.is_cross_validation:
            raise RunError(f"{run.path} is a cross-validation: train its folds with --tta, or evaluate one of them")
        val, test = predict_with_views(run).values()
        threshold = choose_operating_point(val, run.settings)["threshold"]
        summary, name = evaluate_predictions(test, threshold, run.settings.n_resamples), "evaluation-tta"
    else:
        test, threshold, summary, name = run.predictions("test"), point.threshold, run.metrics, "evaluation"
    views = ", eight views averaged" if reads_images and (tta or run.settings.tta) else ""
    text = f"{run.path.name}: test split{views}; threshold: {point.rule}\n\n{summary_table(summary)}"
    if ceilings := bayes_ceiling(test):
        table = pd.DataFrame({"AUROC": ceilings}).to_string(float_format="{:.3f}".format)
        text += f"\nAUROC of the true risk of these cases: no model can expect more, unless artefacts help\n{table}\n"
    return write_report(run.path / name, summary, text, report_figures(test, summary, threshold))


def write_report(
    folder: Path, summary: dict, text: str, figures: Mapping[str, DescribedFigure], tables: Mapping[str, pd.DataFrame] = {}
) -> Report:
    """Put a report's summary, text, figures with their descriptions, and tables into a folder, in place of an earlier one."""
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as beside:
        working = Path(beside) / folder.name
        working.mkdir()
        write_text(working / "metrics.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
        write_text(working / "report.txt", text)
        for name, table in tables.items():
            write_text(working / f"{name}.csv", table.to_csv(index=False))
        for name, figure in figures.items():
            figure.savefig(working / f"{name}.png", dpi=110)
            write_text(working / f"{name}.txt", figure.alt_text + "\n")
        if folder.exists():
            folder.rename(Path(beside) / "old")
        working.rename(folder)
    return Report(summary, text, folder)


def bayes_ceiling(test: pd.DataFrame) -> dict[str, float]:
    """AUROC of the true risk given some inputs, by their names: none can expect more, shortcuts aside; empty for real cases."""
    if "true_risk" not in test:
        return {}
    risks = {"image + metadata": "true_risk", "image only": "truth_risk_image", "metadata only": "truth_risk_metadata"}
    return {inputs: OperatingCurve(test["target"], test[risk]).auroc for inputs, risk in risks.items()}


def predict_with_views(run: Run) -> dict[str, pd.DataFrame]:
    """Validation and test predictions of a run from the mean logit of eight views, calibrated on validation alone."""
    from melanoma_lib.data.datamodule import DermoscopyDataModule
    from melanoma_lib.inference import predict_logits, prediction_device

    data = DermoscopyDataModule(run.settings, run.cases())
    model = run.model().to(prediction_device())
    loaders = {"val": data.val_dataloader(), "test": data.test_dataloader()}
    logits = {split: predict_logits(model, loader, tta=True) for split, loader in loaders.items()}
    return calibrated(data.cases, logits)[1]


def report_figures(test: pd.DataFrame, summary: dict, threshold: float) -> dict[str, DescribedFigure]:
    """ROC, precision and recall, confusion and reliability, by file name, of predictions and their ``evaluate_predictions``."""
    from melanoma_lib.evaluation import figures

    targets = test["target"].to_numpy()
    curve = OperatingCurve(targets, test["probability"])
    point = curve.at(threshold)
    return {
        "roc": figures.roc_figure(curve, point, Interval.from_dict(summary.get("auroc_pooled", summary["auroc"]))),
        "precision_recall": figures.precision_recall_figure(curve, point),
        "confusion": figures.confusion_figure(point),
        "reliability": figures.reliability_figure(
            {"probability (sigmoid of the logit)": test["probability"], "risk (calibrated)": test["risk"]}, targets
        ),
    }
