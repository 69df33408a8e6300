"""The first lesson: one case, what the model answers, where it looked, and what the answer is worth."""

import numpy as np
import pandas as pd

from melanoma_lib.classroom.checks.start import Parts
from melanoma_lib.errors import DataError
from melanoma_lib.plotting import BLUE, GREY, VERMILLION, DescribedFigure, kit_figure, with_alt_text
from melanoma_lib.runs import Run

MIN_GRID = 7  # cells a side below which a heatmap only says "somewhere here"


def tested_cases(run: Run) -> pd.DataFrame:
    """The cases that a run was tested on, which it never saw in training, with its answers.

    Args:
        run: a finished run whose images are still there.

    Returns:
        The case table of the test split, in the run's order, with ``probability`` and ``risk``.

    Raises:
        RunError: if the source now holds other cases.
    """
    cases = run.cases()
    answers = run.predictions("test")[["image_id", "probability", "risk"]]
    return cases[cases["split"] == "test"].merge(answers, on="image_id", validate="one_to_one")


def choose_case(cases: pd.DataFrame, wanted: str = "") -> pd.Series:
    """A case by its ``image_id``; without one the melanoma of median risk: neither the easiest nor the hardest.

    Args:
        cases: from :func:`tested_cases`.
        wanted: an image_id, or nothing.

    Raises:
        DataError: if no case has that image_id.
    """
    if wanted:
        found = cases[cases["image_id"] == wanted]
        if found.empty:
            some = ", ".join(cases["image_id"].head(3))
            raise DataError(f"no tested case has image_id {wanted!r}; there are {len(cases)}, such as {some}")
        return found.iloc[0]
    melanomas = cases[cases["target"] == 1].sort_values("risk")
    return melanomas.iloc[len(melanomas) // 2]


def answer(run: Run, case: pd.Series, model=None) -> pd.Series:
    """Predict one case from its file: decode, evaluation transform, encoder, model, calibration, stored threshold.

    Args:
        run: a finished run.
        case: a row of the case table.
        model: ``run.model()``, where it is already at hand.

    Returns:
        image_id, target, probability (sigmoid of the logit), risk (calibrated), threshold on ``probability`` and flagged.

    Raises:
        CorruptImageError: if the image cannot be read.
        ForeignThresholdError: if the stored threshold belongs to another model.
    """
    from melanoma_lib.inference import Predictor

    predictor = Predictor(run, model=model)
    said = predictor.predict_cases(case.to_frame().T).iloc[0]
    return pd.Series(
        {
            "image_id": case["image_id"],
            "target": int(case["target"]),
            "probability": said["probability"],
            "risk": said["risk"],
            "threshold": predictor.reading.threshold,
            "flagged": said["flagged"],
        }
    )


def taken_apart(run: Run, case: pd.Series, model=None) -> tuple[np.ndarray, Parts]:
    """A case as pixels, and the parts from which :func:`answer` makes its answer, to be put together by hand.

    Args:
        run: a finished run.
        case: a row of the case table.
        model: ``run.model()``, where it is already at hand.

    Returns:
        uint8 pixels, shape ``(S, S, 3)``, and the parts.

    Raises:
        CorruptImageError: if the image cannot be read.
        ForeignThresholdError: if the stored threshold belongs to another model.
    """
    import torch

    from melanoma_lib.data.images import read_square
    from melanoma_lib.inference import Predictor

    predictor, metadata = Predictor(run, model=model), run.encoder.transform(case.to_frame().T)
    parts = Parts(
        prepare=lambda pixels: torch.from_numpy(predictor.prepare(pixels))[None],  # (S, S, 3) -> (1, 3, S', S')
        logit=lambda image: float(predictor.logits(image.numpy(), metadata)[0]),
        calibrate=lambda logit: float(predictor.reading.risk(logit)),
        threshold=predictor.reading.threshold,
    )
    return read_square(case["image_path"], predictor.document.preprocessing.stored_side), parts


def case_tensors(run: Run, case: pd.Series) -> tuple:
    """Image, shape ``(1, 3, S, S)``, and encoded metadata, shape ``(1, M)``, of a case as the run's model takes them."""
    import torch

    from melanoma_lib.data.images import prepare_image

    settings = run.settings
    image = prepare_image(case["image_path"], settings.backbone, settings.image_size)[None]  # (3, S, S) -> (1, 3, S, S)
    return image, torch.from_numpy(run.encoder.transform(case.to_frame().T))


def case_heatmap(run: Run, case: pd.Series, model=None) -> DescribedFigure:
    """Where the model sees melanoma (and where it sees the contrary) in one case: Grad-CAM of a layer fine enough to point.

    Args:
        run: a finished run with an image branch.
        case: a row of the case table.
        model: ``run.model()``, where it is already at hand.
    """
    from melanoma_lib.data.images import read_square
    from melanoma_lib.explain import cam_layers, heatmap_figure, heatmaps

    model = model or run.model()
    image, metadata = case_tensors(run, case)
    layers = cam_layers(model)
    fine = [name for name, layer in layers.items() if layer.stride * MIN_GRID <= run.settings.image_size] or list(layers)[:1]
    pixels = read_square(case["image_path"], 256)
    mask = read_square(case["mask_path"], 256)[..., 0] > 127 if isinstance(case["mask_path"], str) else None
    maps = heatmaps(model, image, metadata, layers=fine[-1:], method="gradcam", size=256)
    return heatmap_figure(pixels, {f"Grad-CAM, {name}": one[0] for name, one in maps.items()}, mask)


def risk_figure(cases: pd.DataFrame, chosen: pd.Series) -> DescribedFigure:
    """The chosen case among all tested ones: calibrated risks of melanomas and of other lesions.

    Args:
        cases: from :func:`tested_cases`.
        chosen: the answer to mark.
    """
    with kit_figure(9, 4.2) as figure:
        axes = figure.subplots()
        for target, name, colour in ((0, "other lesions", BLUE), (1, "melanomas", VERMILLION)):
            risks = cases.loc[cases["target"] == target, "risk"]
            axes.hist(risks, np.linspace(0, 1, 26), density=True, color=colour, alpha=0.65, label=f"{name} (n = {len(risks)})")
        axes.axvline(chosen["risk"], color=GREY, linestyle="--", label=f"this case: {chosen['risk']:.0%}")
        axes.set(xlim=(0, 1), xlabel="calibrated risk of melanoma", ylabel="density of test cases")
        axes.legend(loc="upper center", frameon=True, framealpha=0.95, edgecolor="white")
    higher = cases.groupby("target")["risk"].apply(lambda risks: (risks >= chosen["risk"]).mean())
    return with_alt_text(
        figure,
        f"Histograms of the risk of tested cases; this case has {chosen['risk']:.0%}, and of the melanomas "
        f"{higher[1]:.0%}, of the other lesions {higher[0]:.0%} have at least as much.",
    )
