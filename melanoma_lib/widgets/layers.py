"""Choose a case, method, layer and direction and see two maps side by side; move age, sex and site and see what follows."""

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import traitlets
from PIL import Image

from melanoma_lib.data.images import eight_views, prepare_image, read_square
from melanoma_lib.errors import DataError
from melanoma_lib.explain.cam import CAM_METHODS, ONE_PASS_METHODS
from melanoma_lib.explain.figures import SIGNED
from melanoma_lib.explain.layers import METHOD_NAMES, cam_layers, default_layer
from melanoma_lib.inference import predict_logits
from melanoma_lib.model import MelanomaNet
from melanoma_lib.plotting import DescribedFigure
from melanoma_lib.runs import Run
from melanoma_lib.widgets.base import HERE, AskedExplorer, answering, script
from melanoma_lib.widgets.layer_states import (
    EVIDENCE,
    SIGNS,
    MapKey,
    MetadataChoices,
    SignedMap,
    choose_cases,
    largest_change,
    layer_facts,
    logits_by_metadata,
    named_cases,
    outcome,
    pack_maps,
    recorded_metadata,
    signed_maps,
)

SIDE = 352  # pixels of the pictures in the page, eleven for each of the 32 means that lines follow
MASK_SIDE = 128  # on which the share of energy on the lesion is counted
ROUNDING = 1e-4  # of a map's largest magnitude: changes below are the processor's, not the model's


class LayerExplorer(AskedExplorer):
    """Two heatmaps of a case side by side, and its risk while age, sex and site are moved.

    Maps of all methods that need one pass are computed once, for each case, layer and direction, and live in the page, which
    draws every change itself; so do the answers for every age, sex and site. The kernel is asked for Score-CAM and Ablation-CAM,
    and to compute all maps again with other metadata: how far they change is told, not assumed. A page of its own
    (:meth:`save_page`) keeps all but what the kernel would be asked for.

    Args:
        run: a finished run with an image branch.
        cases: its tested cases with their ``probability``: case table merged with ``run.predictions("test")``.
        chosen: image_ids to look at; a varied dozen if None.
        layer: that both maps show first; if None, that of :func:`~melanoma_lib.explain.default_layer`.
        model: ``run.model()``, where it is already at hand.

    Attributes:
        shown: what the page shows: ``case``, ``method_a``, ``layer_a``, ``method_b``, ``layer_b``, ``direction``, ``opacity``,
            ``one_scale``, ``lines``, ``outline``, ``age``, ``sex``, ``site``. :meth:`show` changes some of it.

    Raises:
        DataError: if the table lacks a column or a chosen case, no case or more than 60 are chosen, or there is no such layer.
        CorruptImageError: if an image or mask cannot be read.
        ForeignThresholdError: if the stored threshold belongs to another model.
        ValueError: if the model has no layer that gives a map.
    """

    _esm = script("plot.js", "layers_draw.js", "layers_risk.js", "layers.js")
    _css = AskedExplorer._css + (HERE / "layers.css").read_text(encoding="utf-8")
    alone = traitlets.Dict(default_value={"live": False}, allow_none=True).tag(sync=True)
    live = traitlets.Bool(True).tag(sync=True)
    facts = traitlets.Dict().tag(sync=True)
    palette = traitlets.Bytes().tag(sync=True)
    cases = traitlets.List().tag(sync=True)
    shown = traitlets.Dict().tag(sync=True)
    asked_maps = traitlets.List().tag(sync=True)
    checks = traitlets.List().tag(sync=True)

    def __init__(
        self,
        run: Run,
        cases: pd.DataFrame,
        chosen: Sequence[str] | None = None,
        model: MelanomaNet | None = None,
        layer: str | None = None,
    ) -> None:
        threshold = run.operating_point.threshold
        self.run, self.model = run, model or run.model()
        self.layers = cam_layers(self.model)
        self.table = named_cases(cases, chosen) if chosen is not None else choose_cases(cases, threshold)
        self.choices = MetadataChoices.of(self.table, run.encoder)
        self._every = torch.from_numpy(self.choices.encoded(run.encoder))
        self._maps: dict[str, dict[MapKey, SignedMap]] = {}
        self._slow: dict[str, dict[MapKey, SignedMap]] = {}
        self._checks: dict[tuple[str, int], dict[str, Any]] = {}
        self._figure: DescribedFigure | None = None
        super().__init__()
        self.facts = self._facts(threshold)
        self.palette = SIGNED(np.linspace(0, 1, 255), bytes=True).tobytes()  # 255 colours, RGBA, of -1 to 1
        self.cases = [self._case(case, threshold) for _, case in self.table.iterrows()]
        self.shown = self._start(self.table.iloc[0], layer or default_layer(self.layers, run.settings.image_size))
        self._check_unknown(self.shown["case"])  # so that a page without a kernel has a fact to tell

    # --- what the page is given ----------------------------------------------------------------------------------------------

    def _facts(self, threshold: float) -> dict[str, Any]:
        size = self.run.settings.image_size
        logit = math.log(threshold / (1 - threshold)) if 0 < threshold < 1 else math.copysign(99, threshold - 0.5)
        return {
            "methods": [
                [name, METHOD_NAMES[name], SIGNS.get(name, EVIDENCE), name not in ONE_PASS_METHODS] for name in CAM_METHODS
            ],
            "layers": layer_facts(self.model, size),
            "ages": list(self.choices.ages),
            "sexes": list(self.choices.sexes),
            "sites": list(self.choices.sites),
            "calibration": self.run.calibrator.to_dict(),
            "threshold": {"logit": logit, "risk": float(self.run.calibrator.risk(logit)), "probability": threshold},
            "metadata": self.model.metadata_branch is not None,
            "side": SIDE,
            "rounding": ROUNDING,
        }

    def _case(self, case: pd.Series, threshold: float) -> dict[str, Any]:
        """Picture, outline, maps and logits of one case."""
        picture, encoded = io.BytesIO(), self._encoded(case)
        Image.fromarray(read_square(case["image_path"], SIDE)).save(picture, "JPEG", quality=92)
        mask, image = self.mask(case, SIDE), self._image(case)
        maps = self._maps[case["image_id"]] = signed_maps(self.model, image, encoded, ONE_PASS_METHODS)
        logits = logits_by_metadata(self.model, self._views(image), self._every)
        return {
            "id": case["image_id"],
            "target": int(case["target"]),
            "diagnosis": str(case.get("diagnosis", "")),
            "outcome": outcome(case, threshold),
            "recorded": recorded_metadata(case),
            "picture": picture.getvalue(),
            "mask": None if mask is None else np.packbits(mask).tobytes(),
            "covered": None if mask is None else float(mask.mean()),
            "maps": pack_maps(maps, self.mask(case, MASK_SIDE)),
            "logits": logits.astype("<f8").tobytes(),
        }

    @staticmethod
    def _start(case: pd.Series, layer: str) -> dict[str, Any]:
        """Grad-CAM and EigenCAM of one layer."""
        values = {"case": case["image_id"], "method_a": "gradcam", "layer_a": layer}
        values |= {"method_b": "eigencam", "layer_b": layer, "direction": 1, "opacity": 1.0}
        return values | {"one_scale": False, "lines": True, "outline": True} | recorded_metadata(case)

    def _image(self, case: pd.Series) -> torch.Tensor:
        settings = self.run.settings
        return prepare_image(case["image_path"], settings.backbone, settings.image_size)[None]  # (3, S, S) -> (1, 3, S, S)

    def _views(self, image: torch.Tensor) -> list[torch.Tensor]:
        return list(eight_views(image)) if self.run.settings.tta else [image]

    def _encoded(self, case: pd.Series) -> torch.Tensor:
        return torch.from_numpy(self.run.encoder.transform(case.to_frame().T))

    def mask(self, case: pd.Series, side: int) -> np.ndarray | None:
        """Lesion pixels of a case, boolean, shape ``(side, side)``; None where there is no mask, or an empty one."""
        path = case.get("mask_path")
        if not isinstance(path, str):
            return None
        mask = read_square(path, side)[..., 0] > 127
        return mask if mask.any() else None

    def maps_of(self, image_id: str) -> dict[MapKey, SignedMap]:
        """Every map computed so far for a case, with the metadata recorded, by method, layer and direction."""
        return self._maps[image_id] | self._slow.get(image_id, {})

    def risk(self, age: float | None, sex: str | None, site: str | None) -> float:
        """Calibrated risk of the case in view with these metadata, as the page shows it.

        Raises:
            DataError: if a value is not among the choices.
        """
        return float(self.run.calibrator.risk(self._logit(self.shown["case"], self.choices.place(age, sex, site))))

    def _logit(self, case: str, place: int) -> float:
        return float(np.frombuffer(self.cases[list(self._maps).index(case)]["logits"], "<f8")[place])

    # --- what the page shows -------------------------------------------------------------------------------------------------

    def show(self, **values: Any) -> None:
        """Change what the page shows; another case comes with its recorded age, sex and site unless they are given.

        Args:
            **values: some of what ``shown`` holds.

        Raises:
            DataError: if a name or value is not among those offered; nothing changes then.
        """
        if "case" in values:
            self._check_among("case", values["case"], list(self._maps))
            values = recorded_metadata(self._row(values["case"])) | values
        self.shown = self.shown | values

    @traitlets.validate("shown")
    def _check_shown(self, proposal: dict[str, Any]) -> dict[str, Any]:
        shown = proposal["value"]
        if self.shown and shown.keys() != self.shown.keys():
            raise DataError(f"shown: expected {list(self.shown)}, got {list(shown)}")
        offered = {"case": list(self._maps), "direction": [1, -1]}
        offered |= {name: list(CAM_METHODS) for name in ("method_a", "method_b")}
        offered |= {name: list(self.layers) for name in ("layer_a", "layer_b")}
        offered |= {name: [True, False] for name in ("one_scale", "lines", "outline")}
        for name, values in offered.items():
            self._check_among(name, shown[name], values)
        if not 0 <= shown["opacity"] <= 1:
            raise DataError(f"opacity: expected a share from 0 to 1, got {shown['opacity']!r}")
        self.choices.place(shown["age"], shown["sex"], shown["site"])
        return shown

    @staticmethod
    def _check_among(name: str, value: Any, offered: list[Any]) -> None:
        if value not in offered:
            raise DataError(f"{name}: expected one of {offered}, got {value!r}")

    def _row(self, image_id: str) -> pd.Series:
        return self.table[self.table["image_id"] == image_id].iloc[0]

    # --- what the page asks --------------------------------------------------------------------------------------------------

    @answering
    def _answer(self, request: dict[str, Any]) -> None:
        """Compute the maps that are asked for and not yet known, and all others again with these metadata."""
        case, metadata = request["case"], {name: request[name] for name in ("age", "sex", "site")}
        self._check_among("case", case, list(self._maps))
        for method, layer, direction in request["maps"]:
            self._compute(case, method, layer, direction)
        if self.model.metadata_branch is not None and metadata != recorded_metadata(self._row(case)):
            self.check(case, **metadata)

    def _compute(self, case: str, method: str, layer: str, direction: int) -> None:
        known = self._slow.setdefault(case, {})
        if (method, layer, direction) in known:
            return
        row = self._row(case)
        found = signed_maps(self.model, self._image(row), self._encoded(row), [method], [layer], [direction])
        known |= found
        packed = pack_maps(found, self.mask(row, MASK_SIDE))
        self.asked_maps = [*self.asked_maps, {"case": case, "maps": packed}]

    def check(self, case: str, age: float | None, sex: str | None, site: str | None) -> dict[str, Any]:
        """Ask the whole model again with other metadata.

        Returns:
            ``case``, ``place`` of the metadata among the choices, ``logit`` and ``risk``; ``n`` maps computed again and their
            largest ``change``, as a share of a map's own largest magnitude; the packed ``maps`` themselves if that is more than
            rounding, else None.

        Raises:
            DataError: if the metadata are not among the choices.
            ValueError: if the model's answer is not the one that the page shows.
        """
        place = self.choices.place(age, sex, site)
        if (case, place) in self._checks:
            return self._checks[case, place]
        row, encoded = self._row(case), self._every[place : place + 1]
        image = self._image(row)
        logit = float(predict_logits(self.model, [{"image": image, "metadata": encoded}], self.run.settings.tta)[0])
        shown = self._logit(case, place)
        if abs(logit - shown) > 1e-3 * (1 + abs(logit)):
            raise ValueError(
                f"{case}: the model answers with a logit of {logit:.5f}, the page shows {shown:.5f}; run the cell again"
            )
        maps = signed_maps(self.model, image, encoded, ONE_PASS_METHODS)
        change = largest_change(self._maps[case], maps)
        found = self._checks[case, place] = {
            "case": case, "place": place, "logit": logit, "risk": float(self.run.calibrator.risk(logit)), "n": len(maps),
            "change": change, "maps": pack_maps(maps, self.mask(row, MASK_SIDE)) if change > ROUNDING else None,
        }  # fmt: skip
        self.checks = [*self.checks, found]
        return found

    def _check_unknown(self, case: str) -> None:
        if self.model.metadata_branch is not None:
            self.check(case, None, None, None)

    # --- without a kernel ----------------------------------------------------------------------------------------------------

    def page_values(self) -> dict[str, Any]:
        """As for every explorer; each case's maps have been computed again at least once, with nothing known."""
        for case in self._maps:
            self._check_unknown(case)
        return super().page_values()

    def presets_figure(self) -> DescribedFigure:
        """The case in view: Grad-CAM and EigenCAM of both layers in view, and its risk by age, sex and site."""
        from melanoma_lib.widgets.layer_figure import layers_figure

        if self._figure is None:
            self._figure = layers_figure(self)
        return self._figure
