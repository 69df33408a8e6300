"""Choose a case, method, layer and direction and see two maps side by side; move age, sex and site and see the risk follow."""

import io
import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import traitlets
from PIL import Image
from torch import Tensor

from melanoma_lib.data.images import eight_views, read_square
from melanoma_lib.errors import DataError
from melanoma_lib.explain.cam import CAM_METHODS, heatmaps_by_method, resize_heatmap
from melanoma_lib.explain.figures import SIGNED, heatmap_figure
from melanoma_lib.explain.layers import METHOD_NAMES, cam_layers, default_layer
from melanoma_lib.explain.scores import energy_in_mask
from melanoma_lib.inference import undisturbed
from melanoma_lib.model import MelanomaNet
from melanoma_lib.plotting import DescribedFigure
from melanoma_lib.runs import Run
from melanoma_lib.widgets.base import HERE, Explorer, script
from melanoma_lib.widgets.case_selection import FIELDS, LABELS, note_outcomes

SIDE = 352  # pixels of the pictures in the page, eleven for each of the 32 means that lines follow
STEPS = 127  # of a packed map on either side of zero; the page never enlarges them, and its colours have no more
MOST_CASES = 60  # each costs the page some 100 kB
AGES = range(0, 91, 5)  # years that are offered beside those recorded
METADATA = {name: FIELDS[name] for name in ("age", "sex", "site")}
NEEDED = ("image_id", "image_path", "mask_path", "group_id", *METADATA.values(), "target", "probability")
EVIDENCE = "Orange: evidence for the direction chosen; blue: against it."
SIGNS = dict.fromkeys(("gradcam++", "layercam"), "Weighs only what supports the direction: blue is no evidence against it.")
SIGNS |= {"eigencam": "Knows no class, so both directions have one map: orange is where the layer responds more than elsewhere."}

MapKey = tuple[str, str, int]  # method, layer, direction


class SignedMap(NamedTuple):
    """Values, float32, shape ``(h, w)``, and whether their sign is little better than a toss of a coin."""

    values: np.ndarray
    doubtful: bool


def choose_cases(cases: pd.DataFrame, threshold: float, each: int = 3) -> pd.DataFrame:
    """Varied cases at random: up to ``each`` true and false positives and negatives, all of different groups.

    They come with their ``outcome``, kind by kind, those nearest to the threshold first.
    """
    noted = note_outcomes(cases, threshold).drop_duplicates("group_id").sample(frac=1, random_state=0)
    chosen = noted.dropna(subset="outcome").groupby("outcome").head(each)
    return chosen.sort_values(["outcome", "from_threshold"], ascending=[False, True])


def signed_maps(model: MelanomaNet, image: Tensor, metadata: Tensor) -> dict[MapKey, SignedMap]:
    """All maps of one case, shapes ``(1, 3, S, S)`` and ``(1, M)``, at the resolution of their layers."""
    return {
        (method, layer, direction): SignedMap(values[0], bool(maps.doubtful_sign[layer][0]))
        for direction in (1, -1)
        for method, maps in heatmaps_by_method(model, image, metadata, CAM_METHODS, direction=direction).items()
        for layer, values in maps.items()
    }


def pack_maps(maps: Mapping[MapKey, SignedMap], mask: np.ndarray | None = None) -> dict[str, Any]:
    """Maps of one case as ``bytes``, int8, row after row, each against its own largest magnitude; and an ``index``.

    The index tells where a map begins (``at``), its largest magnitude (``size``), the share of its positive ``energy`` on the
    lesion, or None, and that of EigenCAM with its other sign (``turned``).
    """
    index, packed = [], b""
    for (method, layer, direction), (values, doubtful) in maps.items():
        size = float(np.abs(values).max())
        place = {"method": method, "layer": layer, "direction": direction, "at": len(packed)}
        place |= {"rows": len(values), "columns": values.shape[1], "size": size, "doubtful": doubtful}
        turned = _energy(-values, mask) if method == "eigencam" else None
        index.append(place | {"energy": _energy(values, mask), "turned": turned})
        packed += np.round(STEPS * values.astype(np.float64) / (size or 1.0)).astype(np.int8).tobytes()  # zeros stay zeros
    return {"index": index, "bytes": packed}


def _energy(values: np.ndarray, mask: np.ndarray | None) -> float | None:
    energy = np.nan if mask is None else energy_in_mask(resize_heatmap(values, mask.shape), mask)
    return None if np.isnan(energy) else energy


def recorded_metadata(case: Mapping[str, Any]) -> dict[str, Any]:
    """``age``, ``sex`` and ``site`` of a row of the case table, None where they are not known."""
    kinds = {"age": float, "sex": str, "site": str}
    return {name: None if pd.isna(case[METADATA[name]]) else kind(case[METADATA[name]]) for name, kind in kinds.items()}


def logits_by_metadata(model: MelanomaNet, views: Sequence[Tensor], metadata: Tensor) -> np.ndarray:
    """Logits, shape ``(N,)``, averaged over views of one image, shape ``(1, 3, S, S)`` each, with each of N metadata."""
    device, logits = next(model.parameters()).device, []
    with undisturbed(model):
        metadata = metadata.to(device)
        for view in views:
            features = model.features(view.to(device), metadata[:1]).expand(len(metadata), -1)  # (1, F) -> (N, F)
            if model.metadata_branch is not None:
                told = model.metadata_branch(metadata)  # (N, M) -> (N, hidden)
                features = torch.cat([features[:, : -told.shape[1]], told], dim=1)
            logits.append(model.head(features).squeeze(1).double())
        return torch.stack(logits).mean(0).cpu().numpy()  # (views, N) -> (N,)


class LayerExplorer(Explorer):
    """Two heatmaps of a case side by side, and its risk while age, sex and site are moved.

    Maps are computed once, for each case, method, layer and direction, with the metadata recorded, and live in the page, which
    draws every change itself; so do the answers for every age, sex and site.

    Args:
        run: a finished run with an image branch.
        cases: its tested cases with their ``probability``, as ``run.cases("test")`` gives them.
        chosen: image_ids to look at; a varied dozen if None.
        model: ``run.model()``, where it is already at hand.

    Attributes:
        shown: what the page shows: ``case``, ``method_a``, ``layer_a``, ``method_b``, ``layer_b``, ``direction``, ``opacity``,
            ``one_scale``, ``lines``, ``outline``, ``age``, ``sex``, ``site``. :meth:`show` changes some of it.
        maps: by image_id, every map by method, layer and direction.

    Raises:
        DataError: if the table lacks a column or a chosen case, or no case or more than 60 are chosen.
        KitError: if an image or mask cannot be read, the threshold is another model's, or no layer gives a map.
    """

    _esm = script("plot.js", "layers_draw.js", "layers_risk.js", "layers.js")
    _css = Explorer._css + (HERE / "layers.css").read_text(encoding="utf-8")
    facts = traitlets.Dict().tag(sync=True)
    palette = traitlets.Bytes().tag(sync=True)
    cases = traitlets.List().tag(sync=True)
    shown = traitlets.Dict().tag(sync=True)

    def __init__(
        self, run: Run, cases: pd.DataFrame, chosen: Sequence[str] | None = None, model: MelanomaNet | None = None
    ) -> None:
        threshold = run.operating_point.threshold
        self.run, self.model = run, model or run.model()
        self.layers = cam_layers(self.model)
        self.table = self._chosen(cases, chosen, threshold)
        ages = sorted({*map(float, AGES), *self.table["age_approx"].dropna().astype(float)})
        self.choices = {"age": [None, *ages], "sex": [*run.encoder.sexes, None], "site": [*run.encoder.sites, None]}
        every = pd.DataFrame(list(product(*self.choices.values())), columns=list(METADATA.values()))
        self._every = torch.from_numpy(run.encoder.transform(every))
        self._logits: dict[str, np.ndarray] = {}  # by image_id, an axis each for age, sex and site
        self.maps: dict[str, dict[MapKey, SignedMap]] = {}
        super().__init__()
        size = run.settings.image_size
        logit = math.log(threshold / (1 - threshold)) if 0 < threshold < 1 else math.copysign(99, threshold - 0.5)
        self.facts = {
            "methods": [[name, METHOD_NAMES[name], SIGNS.get(name, EVIDENCE)] for name in CAM_METHODS],
            "layers": [{"name": name, "points": math.ceil(size / one.stride)} for name, one in self.layers.items()],
            "ages": self.choices["age"],
            "sexes": self.choices["sex"],
            "sites": self.choices["site"],
            "calibration": run.calibrator.to_dict(),
            "threshold": {"logit": logit, "risk": float(run.calibrator.risk(logit))},
            "metadata": self.model.metadata_branch is not None,
            "side": SIDE,
        }
        self.palette = SIGNED(np.linspace(0, 1, 255), bytes=True).tobytes()  # 255 colours, RGBA, of -1 to 1
        self.cases = [self._case(row) for row in range(len(self.table))]
        first, layer = self.table.iloc[0], default_layer(self.layers, size)
        shown = {"case": first["image_id"], "method_a": "gradcam", "layer_a": layer, "method_b": "eigencam", "layer_b": layer}
        shown |= {"direction": 1, "opacity": 1.0, "one_scale": False, "lines": True, "outline": True}
        self.shown = shown | recorded_metadata(first)

    @staticmethod
    def _chosen(cases: pd.DataFrame, chosen: Sequence[str] | None, threshold: float) -> pd.DataFrame:
        absent = [name for name in NEEDED if name not in cases.columns]
        if absent or cases.empty:
            raise DataError(f"expected rows of run.cases('test'), got {len(cases)} rows and no column {absent}")
        if chosen is None:
            return choose_cases(cases, threshold)
        by_id = cases.set_index("image_id", drop=False)
        unknown = [name for name in chosen if name not in by_id.index]
        if unknown or not 1 <= len(chosen) <= MOST_CASES or len(set(chosen)) < len(chosen):
            wanted = f"1 to {MOST_CASES} different image_ids of the cases, such as {cases['image_id'].iloc[0]}"
            raise DataError(f"chosen: expected {wanted}; got {len(chosen)}, unknown among them {unknown[:5]}")
        return note_outcomes(by_id.loc[list(chosen)], threshold)

    def _case(self, row: int) -> dict[str, Any]:
        """Picture, outline, maps and logits of one case."""
        case, batch = self.table.iloc[row], self.run.batch(self.table.iloc[[row]])
        picture, views = io.BytesIO(), list(eight_views(batch.images)) if self.run.settings.tta else [batch.images]
        Image.fromarray(read_square(case["image_path"], SIDE)).save(picture, "JPEG", quality=92)
        outlined = batch.masks.any()
        outline = read_square(case["mask_path"], SIDE)[..., 0] > 127 if outlined else None
        maps = self.maps[case["image_id"]] = signed_maps(self.model, batch.images, batch.metadata)
        logits = logits_by_metadata(self.model, views, self._every)
        self._logits[case["image_id"]] = logits.reshape([len(values) for values in self.choices.values()])
        return {
            "id": case["image_id"],
            "target": int(case["target"]),
            "diagnosis": str(case.get("diagnosis", "")),
            "outcome": case["outcome"],
            "recorded": recorded_metadata(case),
            "picture": picture.getvalue(),
            "mask": np.packbits(outline).tobytes() if outlined else None,
            "covered": float(outline.mean()) if outlined else None,
            "maps": pack_maps(maps, batch.masks[0] if outlined else None),
            "logits": logits.astype("<f8").tobytes(),
        }

    def risk(self, age: float | None, sex: str | None, site: str | None) -> float:
        """Calibrated risk of the case in view with these of the choices, as in the page; ValueError for any other."""
        place = tuple(values.index(value) for values, value in zip(self.choices.values(), (age, sex, site), strict=True))
        return float(self.run.calibrator.risk(self._logits[self.shown["case"]][place]))

    def show(self, **values: Any) -> None:
        """Change some of what ``shown`` holds, or a DataError; another case comes with its recorded age, sex and site."""
        known = self.table.set_index("image_id")
        if values.get("case") in known.index:
            values = recorded_metadata(known.loc[values["case"]]) | values
        self.shown = self.shown | values

    @traitlets.validate("shown")
    def _check_shown(self, proposal: dict[str, Any]) -> dict[str, Any]:
        shown = proposal["value"]
        if self.shown and shown.keys() != self.shown.keys():
            raise DataError(f"shown: expected {list(self.shown)}, got {list(shown)}")
        offered = {"case": self.maps, "method_a": CAM_METHODS, "method_b": CAM_METHODS, "layer_a": self.layers}
        offered |= {"layer_b": self.layers, "direction": (1, -1)} | self.choices
        for name, values in offered.items():
            if shown[name] not in values:
                raise DataError(f"{name}: expected one of {list(values)}, got {shown[name]!r}")
        return shown

    def presets_figure(self) -> DescribedFigure:
        """The case in view with its risk: Grad-CAM and EigenCAM of both layers in view."""
        shown = self.shown
        case = self.table[self.table["image_id"] == shown["case"]]
        batch = self.run.batch(case)
        maps = {
            f"{METHOD_NAMES[method]}, {layer}": self.maps[shown["case"]][method, layer, shown["direction"]].values
            for method in ("gradcam", "eigencam")
            for layer in dict.fromkeys([shown["layer_a"], shown["layer_b"]])
        }
        risk, flagged = self.risk(**recorded_metadata(case.iloc[0])), self.facts["threshold"]["risk"]
        title = f"{shown['case']}, {LABELS[int(case['target'].iloc[0])]}: risk {risk:.1%}, flagged from {flagged:.1%}"
        mask = batch.masks[0] if batch.masks.any() else None
        title += "\nAge, sex and site as recorded. Educational, not for diagnosis"
        return heatmap_figure(batch.photographs[0], maps, mask, title)
