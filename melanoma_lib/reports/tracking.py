"""What Weights & Biases gets of a training and of the run that it becomes."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from melanoma_lib.plotting import DescribedFigure
from melanoma_lib.reports.report import report_figures
from melanoma_lib.runs import Run
from melanoma_lib.settings import Settings

if TYPE_CHECKING:
    from pytorch_lightning.loggers import WandbLogger


@contextmanager
def wandb_logger(settings: Settings, work: Path) -> "Iterator[WandbLogger]":
    """A logger for Lightning that keeps its files in ``work/wandb`` and is closed, with the body's outcome, at the end.

    Args:
        settings: logged as the run's configuration; they name project and run.
        work: folder of the run.
    """
    from pytorch_lightning.loggers import WandbLogger

    offline = not os.environ.get("WANDB_API_KEY")
    logger = WandbLogger(project=settings.wandb_project, name=settings.run_path.name, save_dir=work, offline=offline)
    logger.log_hyperparams(settings.model_dump(mode="json"))
    try:
        yield logger
    except BaseException:
        logger.experiment.finish(exit_code=1)
        raise
    logger.experiment.finish()  # or the next training in this process would go on in the same W&B run


def log_run(logger: "WandbLogger", run: Run) -> None:
    """Send what a complete run says of its test split: figures with their descriptions, metrics, operating point.

    Args:
        logger: of :func:`wandb_logger`, still open.
        run: complete, published or not.
    """
    import wandb

    point, experiment = run.operating_point, logger.experiment
    figures = report_figures(run.predictions("test"), run.metrics, point.threshold)
    experiment.log({f"test/{name}": wandb.Image(_pixels(figure), caption=figure.alt_text) for name, figure in figures.items()})
    experiment.summary["operating_point"] = {
        "threshold": point.threshold, "rule": point.rule,
        "val_sensitivity": point.sensitivity, "val_specificity": point.specificity,
    }  # fmt: skip
    experiment.summary["test"] = run.metrics


def _pixels(figure: DescribedFigure) -> Image.Image:
    """The figure as a picture: W&B knows Matplotlib's own figures by their name only."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return Image.open(file)
