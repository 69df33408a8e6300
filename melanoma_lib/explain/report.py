"""Heatmaps of single cases, and the benchmark of all of them, as files to keep beside a run's reports."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from melanoma_lib.evaluation.canvas import DescribedFigure
from melanoma_lib.explain.benchmark import Benchmark, benchmark_heatmaps
from melanoma_lib.explain.cam import ONE_PASS_METHODS
from melanoma_lib.utils import replacing, write_text

PIXELS = 256  # a side of the drawn image


def report_folder(run) -> Path:
    """Where the files about a run's heatmaps lie, below the working directory."""
    return Path("reports") / "explain" / run.path.name


def explain_cases(
    run, cases: pd.DataFrame, out: Path, layers: Sequence[str] | None = None, methods: Sequence[str] = ("gradcam",)
) -> list[Path]:
    """Draw each case's maps of all layers, one figure a method, with a description beside each.

    Args:
        run: a finished run with an image branch.
        cases: rows of its case table.
        out: folder, made when absent.
        layers: names from :func:`cam_layers`; all if None.
        methods: of ``CAM_METHODS``.

    Returns:
        The pictures.

    Raises:
        ValueError: for unknown layers or methods.
        CorruptImageError: if an image cannot be read.
    """
    import torch

    from melanoma_lib.data.images import prepare_image, read_square
    from melanoma_lib.explain import heatmap_figure, heatmaps_by_method

    model, settings, written = run.model(), run.settings, []
    metadata = torch.from_numpy(run.encoder.transform(cases))
    for i, case in enumerate(cases.to_dict("records")):
        image = prepare_image(Path(case["image_path"]), settings.backbone, settings.image_size)[None]  # (1, 3, S, S)
        pixels = read_square(Path(case["image_path"]), PIXELS)
        outlined = isinstance(case["mask_path"], str)
        mask = read_square(Path(case["mask_path"]), PIXELS)[..., 0] > 127 if outlined else None
        found = heatmaps_by_method(model, image, metadata[i : i + 1], methods, layers)
        for method, maps in found.items():
            title = f"{case['image_id']}, {method}, for melanoma. Educational, not for diagnosis."
            figure = heatmap_figure(pixels, {layer: heatmap[0] for layer, heatmap in maps.items()}, mask, title)
            written += _write(out, {f"{case['image_id']}-{method}": figure})
    return written


def benchmark_report(
    run,
    n: int,
    out: Path,
    layers: Sequence[str] | None = None,
    methods: Sequence[str] = ONE_PASS_METHODS,
    show_progress: bool = True,
) -> Benchmark:
    """Make a benchmark, or take up an interrupted or finished one, and write JSON, CSV and figures.

    In ``out`` then lie ``league.json``, ``league.csv``, and the figure of the criteria as PNG with its description. The other
    arguments, and the errors, are those of :func:`~melanoma_lib.explain.benchmark_heatmaps`.
    """
    from melanoma_lib.explain.figures import criteria_figure

    found = benchmark_heatmaps(run, n, methods, layers, out=out / "league.json", show_progress=show_progress)
    write_text(out / "league.csv", found.scores.to_csv(index=False))
    _write(out, {"league-criteria": criteria_figure(found)})
    return found


def _write(out: Path, figures: Mapping[str, DescribedFigure]) -> list[Path]:
    """Each figure as ``<name>.png`` with its description in ``<name>.txt``; the pictures' paths."""
    paths = []
    for name, figure in figures.items():
        paths.append(out / f"{name}.png")
        with replacing(paths[-1]) as temporary:
            figure.savefig(temporary, format="png", dpi=110)
        write_text(out / f"{name}.txt", figure.alt_text + "\n")
    return paths
