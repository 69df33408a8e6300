"""The heatmap lesson: one case laid out, what its layers can show, both directions, and the benchmark that is kept."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from melanoma_lib.data.images import backbone_normalisation, read_square
from melanoma_lib.data.schema import SITES
from melanoma_lib.explain import METHOD_NAMES, cam_layers, heatmaps, heatmaps_by_method
from melanoma_lib.explain.benchmark import Benchmark, benchmark_heatmaps
from melanoma_lib.explain.cam import (
    ONE_PASS_METHODS,
    activations_and_gradients,
    field_side,
    receptive_fields,
    resize_heatmap,
    undisturbed,
)
from melanoma_lib.explain.figures import SIGNED, draw_outline
from melanoma_lib.explain.report import report_folder
from melanoma_lib.explain.scores import CONTROLS
from melanoma_lib.inference import predict_logits
from melanoma_lib.lessons.start import case_tensors
from melanoma_lib.model import MelanomaNet
from melanoma_lib.plotting import BLACK, BLUE, VERMILLION, DescribedFigure, kit_figure, with_alt_text
from melanoma_lib.runs import Run

SIDE = 256  # pixels of the picture that maps are drawn on
ENOUGH = 200  # cases from which on all methods are graded
FEW = ("gradcam", "layercam", "eigencam")
WIDTH = 12.0
ACTIVE = "PRGn"  # activations have a sign, too, which is not that of evidence


@dataclass(frozen=True)
class Subject:
    """A case as the eye, the model and the benchmark see it.

    Attributes:
        run: the model is from.
        model: in evaluation mode.
        case: row of the case table.
        image: as the model takes it, shape ``(1, 3, S, S)``.
        metadata: encoded, shape ``(1, M)``.
        pixels: uint8, shape ``(256, 256, 3)``.
        mask: lesion pixels, boolean, shape ``(256, 256)``; None where nobody outlined it.
    """

    run: Run
    model: MelanomaNet
    case: pd.Series
    image: torch.Tensor
    metadata: torch.Tensor
    pixels: np.ndarray
    mask: np.ndarray | None

    @property
    def layer(self) -> str:
        """The last layer before the grid becomes as coarse as it gets: late enough to mean something, fine enough to point."""
        layers = cam_layers(self.model)
        coarsest = max(layer.stride for layer in layers.values())
        return ([name for name, layer in layers.items() if layer.stride < coarsest] or list(layers))[-1]

    @property
    def last_layer(self) -> str:
        """The map that the pooling averages, where the backbone has one."""
        return list(cam_layers(self.model))[-1]

    @property
    def risk(self) -> float:
        """Calibrated risk that the run answers."""
        return float(self.run.calibrator.risk(_logits(self, self.metadata))[0])

    def maps(
        self, method: str = "gradcam", layers: str | Sequence[str] | None = None, direction: int = 1
    ) -> dict[str, np.ndarray]:
        """Maps by layer at each layer's own resolution, shape ``(h, w)``; arguments as of ``explain.heatmaps``."""
        found = heatmaps(self.model, self.image, self.metadata, layers, method, direction)
        return {layer: maps[0] for layer, maps in found.items()}


def subject(run: Run, case: pd.Series, model: MelanomaNet | None = None) -> Subject:
    """Lay a case of a finished run with an image branch out; ``model`` is ``run.model()``, where it is already at hand.

    Raises:
        CorruptImageError: if image or mask cannot be read.
    """
    image, metadata = case_tensors(run, case)
    mask = read_square(case["mask_path"], SIDE)[..., 0] > 127 if isinstance(case["mask_path"], str) else None
    return Subject(run, model or run.model(), case, image, metadata, read_square(case["image_path"], SIDE), mask)


def _logits(one: Subject, metadata: torch.Tensor) -> np.ndarray:
    """Logits of the case's image with each of these metadata, shape ``(N,)``."""
    image = one.image.expand(len(metadata), -1, -1, -1)
    return predict_logits(one.model, [{"image": image, "metadata": metadata}], one.run.settings.tta)


# --- tables and maps ---


def layer_table(one: Subject) -> pd.DataFrame:
    """What each layer's map is made of, early to late; the receptive field is the effective one, pixels a side."""
    size, fields = one.image.shape[-1], receptive_fields(one.model, one.image.shape[-1])
    rows = {
        name: {"stride": layer.stride, "points a side": -(-size // layer.stride), "channels": layer.channels,
               "receptive field": field_side(fields[name])}
        for name, layer in cam_layers(one.model).items()
    }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("layer")


def method_maps(one: Subject, layer: str, methods: Sequence[str] = ONE_PASS_METHODS, direction: int = 1) -> dict[str, np.ndarray]:
    """Maps of one layer by the methods' names, shape ``(h, w)``, all from one pass."""
    found = heatmaps_by_method(one.model, one.image, one.metadata, methods, layer, direction)
    return {METHOD_NAMES[method]: maps[layer][0] for method, maps in found.items()}


def swapped_maps(run: Run, model: MelanomaNet, cases: pd.DataFrame, layer: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Maps for melanoma and against it of several cases by the method's name, each of shape ``(B, h, w)``."""
    image, metadata = _batch(run, cases)
    ways = [heatmaps_by_method(model, image, metadata, ONE_PASS_METHODS, layer, direction) for direction in (1, -1)]
    return {METHOD_NAMES[method]: tuple(way[method][layer] for way in ways) for method in ONE_PASS_METHODS}


def faintest(run: Run, model: MelanomaNet, cases: pd.DataFrame) -> pd.Series:
    """The case below the threshold whose Grad-CAM of the last layer is the least positive, but positive where any is."""
    below = cases[cases["probability"] < run.operating_point.threshold]
    below = cases if below.empty else below
    layer = list(cam_layers(model))[-1]
    peaks = heatmaps(model, *_batch(run, below), layer, "gradcam")[layer].max((1, 2))  # (B,)
    return below.iloc[int(np.argmin(np.where(peaks > 0, peaks, 1e6 - peaks)))]


def _batch(run: Run, cases: pd.DataFrame) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, shape ``(B, 3, S, S)``, and metadata, shape ``(B, M)``, of cases."""
    tensors = [case_tensors(run, case) for _, case in cases.iterrows()]
    return tuple(torch.cat(parts) for parts in zip(*tensors, strict=True))


def site_table(one: Subject, methods: Sequence[str] = FEW) -> pd.DataFrame:
    """The same image at every site, ``unknown`` among them: the risk, and how far the maps move.

    The largest change of any map of any layer is a share of that map's largest magnitude, against the map with the case's own
    metadata.
    """
    places = [*SITES, None]
    table = pd.concat([one.case.to_frame().T.assign(anatom_site_general_challenge=site) for site in places])
    metadata = torch.from_numpy(one.run.encoder.transform(table))  # (N, M)
    image = one.image.expand(len(table), -1, -1, -1)
    own = heatmaps_by_method(one.model, one.image, one.metadata, methods)
    moved = heatmaps_by_method(one.model, image, metadata, methods)
    changes = np.zeros(len(table))
    for method, by_layer in own.items():
        for layer, maps in by_layer.items():
            change = np.abs(moved[method][layer] - maps).max((1, 2)) / max(np.abs(maps).max(), 1e-12)
            changes = np.maximum(changes, change)
    risks = one.run.calibrator.risk(_logits(one, metadata))
    index = pd.Index([site or "unknown" for site in places], name="site")
    return pd.DataFrame({"risk": risks, "largest change of a map": changes}, index=index)


def logit_parts(one: Subject) -> dict[str, float]:
    """The logit taken apart: what the image adds, what the metadata add, the bias; the head is linear, so they add up to it."""
    head, width = one.model.head[-1], one.model.image_branch.head_hidden_size
    with torch.inference_mode():
        added = (head.weight[0] * one.model.features(one.image, one.metadata)[0]).double()  # (n_features,)
    return {
        "image": float(added[:width].sum()),
        "metadata": float(added[width:].sum()),
        "bias": float(head.bias.detach()),
    }


def controls(one: Subject, seed: int = 0) -> dict[str, np.ndarray]:
    """Maps that know nothing of the model: chance, edges, the centre; shape ``(256, 256)``."""
    rng = np.random.default_rng(seed)
    return {name: draw(one.pixels, rng) for name, draw in CONTROLS.items()}


def kept_benchmark(run: Run, n: int, show_progress: bool = False) -> Benchmark:
    """The benchmark on ``n`` test cases, kept on disk: computed once, found again, and resumed if interrupted.

    From two hundred cases on it is the very one that ``python -m melanoma_lib explain RUN --league N`` makes and keeps in
    ``reports/explain``. Below, so that a class does not wait, only three methods are graded (one that knows the class, one that
    half knows it, one that does not), pixels are removed in a quarter of the cases, and ROAD is left out.
    """
    if n >= ENOUGH:
        out, methods, knobs = report_folder(run) / "league.json", ONE_PASS_METHODS, {}
    else:
        fewer, methods = max(12, n // 4), FEW
        out = run.path / "explain" / f"benchmark-{n}.json"
        knobs = {"n_faithful": fewer, "n_road": 0, "n_sanity": fewer, "n_resamples": 1000}
    out.parent.mkdir(parents=True, exist_ok=True)
    return benchmark_heatmaps(run, n, methods, **knobs, out=out, show_progress=show_progress)


# --- figures ---


def subject_figure(one: Subject) -> DescribedFigure:
    """The case as it was photographed, and as the model is shown it, pixel by pixel."""
    size = one.image.shape[-1]
    with kit_figure(9.0, 4.7) as figure:
        left, right = figure.subplots(1, 2)
        left.imshow(one.pixels)
        left.set_title("the picture" + (", lesion outlined" if one.mask is not None else ""))
        draw_outline(left, one.mask)
        config = backbone_normalisation(one.run.settings.backbone)
        mean, std = (torch.tensor(config[name]).view(3, 1, 1) for name in ("mean", "std"))
        right.imshow((one.image[0] * std + mean).clamp(0, 1).permute(1, 2, 0), interpolation="nearest")
        right.set_title(f"what the model is shown: {size} × {size} pixels")
        for axes in (left, right):
            axes.axis("off")
    area = "" if one.mask is None else f" The lesion covers {one.mask.mean():.0%} of the picture."
    return with_alt_text(figure, f"Case {one.case['image_id']} as photographed and at the model's {size} by {size} pixels.{area}")


def recipe_figure(one: Subject, layer: str, n: int = 3) -> DescribedFigure:
    """Grad-CAM in pictures: the channels that add most, for or against, and their weights; all channels weighed and added up."""
    with undisturbed(one.model):
        caught = activations_and_gradients(one.model, [cam_layers(one.model)[layer]], one.image, one.metadata, 1)
    activations, gradients = (part[0][0].numpy() for part in caught)  # (C, h, w)
    weights = gradients.mean((1, 2))  # (C,)
    parts = weights[:, None, None] * activations
    strongest = np.argsort(-np.abs(parts).max((1, 2)), kind="stable")[:n]
    total = parts.sum(0)
    with kit_figure(WIDTH, 6.4) as figure:
        grid = figure.subplots(2, n + 1)
        for (above, below), channel in zip(grid.T, strongest, strict=False):
            _grid_map(above, activations[channel], ACTIVE, np.abs(activations[channel]).max())
            above.set_title(f"channel {channel}\nactivation ± {np.abs(activations[channel]).max():.2g}")
            _grid_map(below, parts[channel], SIGNED, np.abs(parts[strongest]).max())
            below.set_title(f"× weight {weights[channel]:+.2g}", color=VERMILLION if weights[channel] > 0 else BLUE)
        _overlay(grid[0, n], one.pixels, total)
        draw_outline(grid[0, n], one.mask)
        grid[0, n].set_title("over the picture\n(enlarged)")
        _grid_map(grid[1, n], total, SIGNED, np.abs(total).max())
        grid[1, n].set_title(f"sum of all {len(weights)}: the map")
        bar = figure.colorbar(
            ScalarMappable(Normalize(-1, 1), SIGNED), ax=grid.ravel().tolist(), location="bottom", aspect=45, shrink=0.6
        )
        bar.set_ticks([-1, 0, 1], labels=["speaks against melanoma", "0", "speaks for it"])
        figure.supxlabel("activations, above: green over 0, purple below 0, each on a scale of its own", fontsize=14)
    named = "; ".join(f"channel {channel} weighs {weights[channel]:+.2g}" for channel in strongest)
    text = f"Grad-CAM of {layer}: the {n} channels that add most ({named}), and the sum over all {len(weights)} channels"
    return with_alt_text(figure, f"{text}, from {total.min():.2g} to {total.max():.2g}.")


def field_figure(one: Subject) -> DescribedFigure:
    """The grid of each layer on the picture, and which pixels move one of its points, measured by their gradient."""
    size, layers = one.image.shape[-1], cam_layers(one.model)
    fields, scale, words = receptive_fields(one.model, size), len(one.pixels) / size, []
    columns = min(3, len(layers))
    rows = -(-len(layers) // columns)
    with kit_figure(3.7 * columns, 4.1 * rows + 0.5) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in panels:
            axes.axis("off")
        for axes, (name, layer) in zip(panels, layers.items(), strict=False):
            points, side = -(-size // layer.stride), layer.stride * scale
            axes.imshow(one.pixels.mean(axis=2), cmap="gray", vmin=-100, vmax=255)
            field = resize_heatmap(fields[name], one.pixels.shape[:2])
            axes.imshow(np.ones_like(field), cmap="Oranges", vmin=0, vmax=1.6, alpha=field.clip(0, 1))
            for k in range(1, points):  # a dense grid must not hide the picture
                for line in (axes.axhline, axes.axvline):
                    line(k * side - 0.5, color="white", alpha=0.8, linewidth=min(0.7, 16 / points))
            corner = (points // 2) * side - 0.5
            axes.add_patch(Rectangle((corner, corner), side, side, fill=False, edgecolor=BLACK, linewidth=1.6))
            axes.set(xlim=(-0.5, len(one.pixels) - 0.5), ylim=(len(one.pixels) - 0.5, -0.5))
            seen = field_side(fields[name])
            axes.set_title(f"{name}: {points} × {points} points\nreceptive field {seen} × {seen} pixels")
            words.append(f"{name} has {points} by {points} points with a receptive field of {seen} by {seen} pixels")
        figure.supxlabel("white: the grid; black: one point; orange: the pixels that move it", fontsize=14)
    return with_alt_text(figure, f"Layers of {one.model.backbone} on a picture of {size} by {size} pixels: {'; '.join(words)}.")


def stretched_figure(subjects: Sequence[Subject], layer: str) -> DescribedFigure:
    """Grad-CAM of two to four cases: as often published, without negatives and stretched to 0 … 1; and signed, on one scale."""
    maps = [one.maps("gradcam", layer)[layer] for one in subjects]
    top, words = max(np.abs(heatmap).max() for heatmap in maps), []
    with kit_figure(WIDTH, 3.9 * len(subjects) + 0.8) as figure:
        grid = figure.subplots(len(subjects), 3, squeeze=False)
        for row, one, heatmap in zip(grid, subjects, maps, strict=True):
            row[0].imshow(one.pixels)
            row[0].set_title(f"risk {one.risk:.0%}")
            positive = resize_heatmap(np.maximum(heatmap, 0), one.pixels.shape[:2])
            row[1].imshow(positive, cmap="cividis", vmin=positive.min(), vmax=max(positive.max(), 1e-12))
            row[1].set_title("no negatives, stretched to 0 … 1")
            _overlay(row[2], one.pixels, heatmap, top)
            row[2].set_title(f"signed: {heatmap.min():+.2g} to {heatmap.max():+.2g}")
            for axes in row:
                draw_outline(axes, one.mask)
                axes.axis("off")
            words.append(f"risk {one.risk:.0%}: from {heatmap.min():+.2g} to {heatmap.max():+.2g}")
        signed = ScalarMappable(Normalize(-top, top), SIGNED)
        figure.colorbar(signed, ax=grid[:, 2].tolist(), location="bottom", label="signed value", shrink=0.8)
    return with_alt_text(figure, f"Grad-CAM of {layer}, stretched to 0 … 1 and signed on one scale: {'; '.join(words)}.")


def _overlay(axes: Axes, pixels: np.ndarray, heatmap: np.ndarray, top: float | None = None) -> None:
    top = top or float(np.abs(heatmap).max()) or 1.0
    axes.imshow(pixels.mean(axis=2), cmap="gray", vmin=-100, vmax=255)
    axes.imshow(resize_heatmap(heatmap, pixels.shape[:2]), cmap=SIGNED, vmin=-top, vmax=top)
    axes.axis("off")


def _grid_map(axes: Axes, values: np.ndarray, cmap: object, top: float) -> None:
    """A map point by point, as the layer has it."""
    axes.imshow(values, cmap=cmap, interpolation="nearest", vmin=-(top or 1.0), vmax=top or 1.0)
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)
