"""What networks must beat: a logistic regression on age, sex and site, or on features that nobody trained for skin."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lib.data.metadata import MetadataEncoder
from melanoma_lib.evaluation import Calibrator, OperatingCurve
from melanoma_lib.run_writer import choose_operating_point, prediction_table
from melanoma_lib.settings import Settings
from melanoma_lib.studies.backbones_scores import Part

STRENGTHS = tuple(10.0**power for power in range(-5, 1))  # C of scikit-learn: the weaker the penalty, the larger


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline.

    Attributes:
        part: what it said of the test cases, with the threshold that validation chose.
        strength: the C that ranked validation best.
        n_coefficients: of the regression, with its intercept.
    """

    part: Part
    strength: float
    n_coefficients: int


def metadata_alone(cases: pd.DataFrame, min_sensitivity: float) -> Baseline:
    """Logistic regression on age, sex and site.

    Args:
        cases: case table with ``split``; the encoder is fitted on the training cases.
        min_sensitivity: that the threshold must reach on validation.
    """
    return fit_baseline(MetadataEncoder.fit(cases[cases["split"] == "train"]).transform(cases), cases, min_sensitivity)


def frozen_features(settings: Settings, cases: pd.DataFrame) -> Baseline:
    """Logistic regression on what an untrained image branch sees, and on the metadata if the settings have them.

    The features are computed once for all cases and kept in the cache folder.

    Args:
        settings: backbone, ``pretrained`` (features of ImageNet's weights, else of random ones), image size, branches, folders.
        cases: case table with ``split``.

    Raises:
        WeightsUnavailableError: if pretrained weights are not to be had.
    """
    import torch

    from melanoma_lib.data.datamodule import DermoscopyDataModule
    from melanoma_lib.heads import cached_features
    from melanoma_lib.model import MelanomaNet

    data = DermoscopyDataModule(settings.with_changes(modalities="image"), cases)
    with torch.random.fork_rng(devices=[]):  # the cache knows the features by all weights, those of the unused head included
        torch.manual_seed(0)
        model = MelanomaNet(settings.backbone, data.encoder.n_features, settings.pretrained, "image")
    features = cached_features(model.to(memory_format=torch.channels_last), data).features  # (N, F)
    if "metadata" in settings.modalities:
        features = np.column_stack([features, data.encoder.transform(cases)])
    return fit_baseline(features, cases, settings.min_sensitivity)


def fit_baseline(features: NDArray[np.float32], cases: pd.DataFrame, min_sensitivity: float) -> Baseline:
    """Fit on training cases; choose the penalty, calibrate and choose the threshold on validation; predict the test cases.

    Args:
        features: shape ``(N, F)``; standardised by the training cases here.
        cases: case table with ``split``, ``N`` rows.
        min_sensitivity: that the threshold must reach on validation.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    rows = {split: (cases["split"] == split).to_numpy() for split in ("train", "val", "test")}
    targets = cases["target"].to_numpy()
    x = StandardScaler().fit(features[rows["train"]]).transform(features)
    best: tuple[float, float, NDArray[np.float64]] | None = None  # AUROC on validation, C, logits of all cases
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=2000).fit(x[rows["train"]], targets[rows["train"]])
        logits = model.decision_function(x)
        auroc = OperatingCurve(targets[rows["val"]], logits[rows["val"]]).auroc
        if best is None or auroc > best[0]:
            best = auroc, strength, logits
    _, strength, logits = best
    calibrator = Calibrator.fit(logits[rows["val"]], targets[rows["val"]])
    tables = {split: prediction_table(cases[rows[split]], logits[rows[split]], calibrator) for split in ("val", "test")}
    point = choose_operating_point(tables["val"], min_sensitivity)
    return Baseline(Part(tables["test"], point["threshold"]), strength, x.shape[1] + 1)
