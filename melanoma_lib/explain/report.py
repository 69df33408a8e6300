"""Heatmaps of single cases, and the worst errors, as files to keep beside a run's reports."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from melanoma_lib.errors import DataError, RunError
from melanoma_lib.plotting import DescribedFigure
from melanoma_lib.settings import Settings
from melanoma_lib.utils import replacing, write_text

MOST_ERRORS = 12  # beside each other in a gallery


def choose_case(cases: pd.DataFrame, image_id: str = "") -> pd.Series:
    """A case by its ``image_id`` or a DataError; without one the melanoma of median risk, neither the easiest nor the hardest."""
    if not image_id:
        melanomas = cases[cases["target"] == 1].sort_values("risk")
        return melanomas.iloc[len(melanomas) // 2]
    if (found := cases[cases["image_id"] == image_id]).empty:
        some = ", ".join(cases["image_id"].head(3))
        raise DataError(f"no test case has image_id {image_id!r}; there are {len(cases)}, such as {some}")
    return found.iloc[0]


def explain_cases(
    run, cases: pd.DataFrame, out: Path, layers: Sequence[str] | None = None, methods: Sequence[str] = ("gradcam",)
) -> None:
    """Draw the maps of a run's cases, one figure a case and method, each with a description beside it.

    Layers are names from :func:`cam_layers`, all if None; methods are of ``CAM_METHODS``, or ``scorecam``, which is drawn as
    published. ValueError if unknown; CorruptImageError if an image cannot be read.
    """
    from melanoma_lib.explain import heatmap_figure, heatmaps

    model, chosen = run.model(), "".join(f"-{layer}" for layer in layers or ())  # or other maps would be overwritten
    for row in range(len(cases)):
        case, name = cases.iloc[[row]], cases["image_id"].iloc[row]
        images, metadata, photographs, masks = run.batch(case)
        for method in methods:
            found = heatmaps(model, images, metadata, layers, method, as_published=method == "scorecam")
            title = f"{name}, {method}, for melanoma. Educational, not for diagnosis."
            maps, mask = {layer: heatmap[0] for layer, heatmap in found.items()}, masks[0] if masks.any() else None
            _write(out / f"{name}-{method}{chosen}.png", heatmap_figure(photographs[0], maps, mask, title))


def worst_errors(run, n: int = 8) -> pd.DataFrame:
    """Test predictions that a run got most wrong at its operating point, by kind of ``error`` the worst first, ``n`` at most."""
    if not 1 <= n <= MOST_ERRORS:
        raise DataError(f"expected 1 to {MOST_ERRORS} errors of each kind, got {n}")
    tested = run.predictions("test")
    melanoma, flagged = tested["target"] == 1, tested["probability"] >= run.operating_point.threshold
    parts = {
        "false negative": tested[melanoma & ~flagged].nsmallest(n, "probability"),
        "false positive": tested[~melanoma & flagged].nlargest(n, "probability"),
    }
    return pd.concat(parts, names=["error"]).reset_index("error").reset_index(drop=True)


def tested_cases(run, elsewhere: Settings | None) -> pd.DataFrame:
    """A run's test cases, from where they were or, if they are gone, from where ``elsewhere`` says; DataError if nowhere."""
    try:
        return run.cases("test")
    except (DataError, RunError) as error:
        if elsewhere is None:
            raise DataError(f"{error} Where the images lie now, --data-dir or --image-dirs says.") from error
        return run.cases("test", elsewhere)


def errors_report(run, n: int, out: Path, maps: bool = False, settings: Settings | None = None) -> pd.DataFrame:
    """Write :func:`worst_errors` as ``errors.csv``, and their images as ``errors.png`` with its description beside it.

    With ``maps`` a Grad-CAM of a middle layer is drawn below each image. ``settings`` tell where moved cases lie.
    DataError if ``n`` is not from 1 to ``MOST_ERRORS``, no error was made, the images are gone, or the model looks at none.
    """
    from melanoma_lib.data.images import read_square
    from melanoma_lib.explain import cam_layers, default_layer, heatmaps
    from melanoma_lib.explain.figures import gallery_figure
    from melanoma_lib.runs.run import PHOTOGRAPH

    table = worst_errors(run, n)
    if table.empty:
        raise DataError(f"{run.path} made no error on its test split, so there is no image to show")
    if maps and "image" not in run.settings.modalities:
        raise DataError(f"{run.path} looks at metadata alone, so there is no heatmap; leave them out")
    cases = tested_cases(run, settings).set_index("image_id", drop=False).loc[table["image_id"]]
    pictures = [read_square(path, PHOTOGRAPH) for path in cases["image_path"]]
    title, found = run.path.name, None
    if maps:
        images, metadata, *_ = run.batch(cases)
        model, title = run.model(), f"{title}, Grad-CAM: vermillion raises the risk, blue lowers it"
        layer = default_layer(cam_layers(model), run.settings.image_size)
        found = heatmaps(model, images, metadata, layer, "gradcam")[layer]
    write_text(out / "errors.csv", table.to_csv(index=False))
    _write(out / "errors.png", gallery_figure(table, pictures, found, f"{title}. Educational, not for diagnosis."))
    return table


def _write(path: Path, figure: DescribedFigure) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    write_text(path.with_suffix(".txt"), figure.alt_text + "\n")
