"""The heatmap lesson: one case laid out, what its layers can show, both directions, grades, and the league that is kept."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from melanoma_lib.data.artefacts import ARTEFACTS
from melanoma_lib.data.images import read_square
from melanoma_lib.data.schema import SITES
from melanoma_lib.explain import cam_layers, heatmaps, score_heatmap
from melanoma_lib.explain.cam import heatmaps_by_method, resize_heatmap
from melanoma_lib.explain.controls import CONTROLS
from melanoma_lib.explain.league import DEFAULT_METHODS, League, league
from melanoma_lib.explain.league_cases import choose_cases
from melanoma_lib.explain.report import report_folder
from melanoma_lib.inference import predict_logits
from melanoma_lib.lessons.artefact_pairs import ArtefactEffect, artefact_effect
from melanoma_lib.lessons.shortcut import Trap
from melanoma_lib.lessons.start import case_tensors
from melanoma_lib.model import MelanomaNet
from melanoma_lib.runs import Run

LINE = 110  # characters that a printed line may have
SIDE = 256  # pixels of the picture that maps are drawn on
ENOUGH = 200  # cases from which on all methods are graded
FEW = ("gradcam", "layercam", "eigencam")
NAMES = {
    "gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++", "layercam": "LayerCAM", "xgradcam": "XGrad-CAM", "hirescam": "HiResCAM",
    "eigencam": "EigenCAM", "eigengradcam": "EigenGradCAM",
}  # fmt: skip
ONE_PASS = tuple(NAMES)
DIRECTIONS = {1: "for melanoma", -1: "for benign"}


@dataclass(frozen=True)
class Subject:
    """A case as the eye, the model and the exam see it.

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
    """Lay a case out.

    Args:
        run: a finished run with an image branch.
        case: row of a case table.
        model: ``run.model()``, where it is already at hand.

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


# --- layers -------------------------------------------------------------------------------------------------------------------


def layer_table(one: Subject) -> pd.DataFrame:
    """What each layer's map is made of, early to late: stride, points of the map, channels, pixels a point sees."""
    size = one.image.shape[-1]
    rows = {}
    for name, layer in cam_layers(one.model).items():
        points, sees = -(-size // layer.stride), layer.receptive_field
        seen = "unknown" if sees is None else f"{sees} × {sees}" + (" (more than the image)" if sees > size else "")
        rows[name] = {
            "stride": layer.stride, "points of the map": f"{points} × {points}", "channels": layer.channels,
            "pixels a point sees": seen,
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("layer")


# --- methods and directions ---------------------------------------------------------------------------------------------------


def method_maps(one: Subject, layer: str, methods: Sequence[str] = ONE_PASS) -> dict[str, np.ndarray]:
    """Maps of one layer by the methods' names, shape ``(h, w)``, all from one pass."""
    found = heatmaps_by_method(one.model, one.image, one.metadata, methods, layer)
    return {NAMES[method]: maps[layer][0] for method, maps in found.items()}


def swapped_maps(run: Run, model: MelanomaNet, cases: pd.DataFrame, layer: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Maps for melanoma and for benign of several cases by the method's name, each of shape ``(B, h, w)``.

    Args:
        run: a finished run.
        model: of the run.
        cases: rows of its case table.
        layer: of the model.
    """
    image, metadata = _batch(run, cases)
    ways = [heatmaps_by_method(model, image, metadata, ONE_PASS, layer, direction) for direction in DIRECTIONS]
    return {NAMES[method]: tuple(way[method][layer] for way in ways) for method in ONE_PASS}


def faintest(run: Run, model: MelanomaNet, cases: pd.DataFrame) -> pd.Series:
    """Of the cases below the threshold the one with the faintest trace of anything positive in the last layer's Grad-CAM.

    Args:
        run: a finished run.
        model: of the run.
        cases: from ``start.tested_cases``; a few hundred are enough.

    Returns:
        The case; where nothing is positive anywhere, the one that comes nearest to it.
    """
    below = cases[cases["probability"] < run.operating_point.threshold]
    below = cases if below.empty else below
    layer = list(cam_layers(model))[-1]
    peaks = heatmaps(model, *_batch(run, below), layer, "gradcam")[layer].max((1, 2))  # (B,)
    return below.iloc[int(np.argmin(np.where(peaks > 0, peaks, 1e6 - peaks)))]


def _batch(run: Run, cases: pd.DataFrame) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, shape ``(B, 3, S, S)``, and metadata, shape ``(B, M)``, of cases."""
    tensors = [case_tensors(run, case) for _, case in cases.iterrows()]
    image, metadata = (torch.cat(parts) for parts in zip(*tensors, strict=True))
    return image, metadata


# --- two inputs ---------------------------------------------------------------------------------------------------------------


def site_table(one: Subject, methods: Sequence[str] = ("gradcam", "layercam", "eigencam")) -> pd.DataFrame:
    """The same image at every site: the risk, and how far the maps move.

    Args:
        one: the case.
        methods: whose maps of all layers are compared.

    Returns:
        A row for each site, ``unknown`` among them: risk, and the largest change of any map's value as a share of that map's
        largest magnitude, against the map with the case's own metadata.
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


# --- the exam -----------------------------------------------------------------------------------------------------------------


def controls(one: Subject, seed: int = 0) -> dict[str, np.ndarray]:
    """Maps that know nothing of the model: chance, edges, the centre; shape ``(256, 256)``."""
    rng = np.random.default_rng(seed)
    return {name: draw(one.pixels, rng) for name, draw in CONTROLS.items()}


def grades(one: Subject, maps: dict[str, np.ndarray]) -> pd.DataFrame:
    """Scores of maps against the outline of the lesion, one row a map; a map is enlarged to the picture first.

    Raises:
        ValueError: if nobody outlined the lesion.
    """
    if one.mask is None:
        raise ValueError(f"{one.case['image_id']} has no mask to grade maps against; choose a case with mask_path")
    rows = {name: score_heatmap(resize_heatmap(heatmap, one.mask.shape), one.mask) for name, heatmap in maps.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def kept_league(run: Run, n: int, show_progress: bool = False) -> League:
    """The league on ``n`` test cases, kept on disk: computed once, found again, and resumed if interrupted.

    From two hundred cases on it is the very one that ``python -m melanoma_lib explain RUN --league N`` plays and keeps in
    ``reports/explain``. Below, so that a class does not wait, only three methods play (one that knows the class, one that half
    knows it, one that does not), pixels are removed in a quarter of the cases, ROAD is left out, and the league is kept beside
    the run.

    Args:
        run: a finished run with an image branch.
        n: cases; all with a mask, if fewer.
        show_progress: draw a bar.
    """
    if n >= ENOUGH:
        out, methods, knobs = report_folder(run) / "league.json", DEFAULT_METHODS, {}
    else:
        fewer, methods = max(12, n // 4), FEW
        out = run.path / "explain" / f"league-{n}.json"
        knobs = {"n_faithful": fewer, "n_road": 0, "n_sanity": fewer, "n_resamples": 1000}
    out.parent.mkdir(parents=True, exist_ok=True)
    return league(run, n, methods, **knobs, out=out, show_progress=show_progress)


# --- the shortcut -------------------------------------------------------------------------------------------------------------


def artefact_effects(
    run: Run, cases: pd.DataFrame, n: int, trap: Trap, artefacts: Sequence[str] = ARTEFACTS, seed: int = 0
) -> list[ArtefactEffect]:
    """What each artefact does to the answers of the lesson's run; on photographs it is pasted, synthetic cases are painted anew.

    Args:
        run: of the lesson.
        cases: its test cases.
        n: cases asked about, half of them melanomas as far as there are so many.
        trap: whose generator draws the cases, where the run is the one trained without the trap.
        artefacts: to paint.
        seed: of the choice of cases.
    """
    chosen, model = choose_cases(cases, n, seed), run.model()
    generator = trap.untied if run.path.resolve() == trap.honest.path.resolve() else None
    return [artefact_effect(run, chosen, artefact, generator, model) for artefact in artefacts]


def wrapped(text: str) -> str:
    """A paragraph in lines that a page can hold, a sentence to a line where it fits."""
    return "\n".join(
        textwrap.fill(sentence, LINE, subsequent_indent="  ") for sentence in re.split(r"(?<=[.!?]) (?=[A-Z0-9])", text)
    )
