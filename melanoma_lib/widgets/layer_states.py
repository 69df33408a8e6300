"""What the page of LayerExplorer is given: cases worth a look, their maps in few bytes, and answers for other metadata."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from melanoma_lib.data.metadata import MetadataEncoder
from melanoma_lib.errors import DataError
from melanoma_lib.explain.cam import field_side, heatmaps_by_method, receptive_fields, resize_heatmap, undisturbed
from melanoma_lib.explain.layers import cam_layers
from melanoma_lib.explain.scores import energy_in_mask
from melanoma_lib.model import MelanomaNet

OUTCOMES = {(1, True): "true positive", (1, False): "false negative", (0, True): "false positive", (0, False): "true negative"}
WANTED = {"true positive": 4, "false negative": 3, "false positive": 3, "true negative": 2}  # of a dozen
STEPS = 127  # of a packed map on either side of zero; the page never enlarges them, and its colours have no more
AGE_STEP, OLDEST = 5, 90  # years
NEEDED = ("image_id", "image_path", "group_id", "age_approx", "sex", "anatom_site_general_challenge", "target", "probability")
MOST_CASES = 60  # each costs the page some 100 kB
EVIDENCE = "Orange: evidence for the direction chosen; blue: against it."
NO_EVIDENCE = "Weighs only what supports the direction: blue is no evidence against it."
SIGNS = dict.fromkeys(("gradcam++", "layercam", "scorecam"), NO_EVIDENCE)  # what it means, where it is not EVIDENCE
SIGNS |= {"eigencam": "Knows no class: orange is where the layer responds more than elsewhere."}

MapKey = tuple[str, str, int]  # method, layer, direction


class SignedMap(NamedTuple):
    """Values, float32, shape ``(h, w)``, and whether their sign is little better than a toss of a coin."""

    values: np.ndarray
    doubtful: bool


def outcome(case: Mapping[str, Any], threshold: float) -> str:
    """What a threshold on the probability makes of a case: one of ``OUTCOMES``."""
    return OUTCOMES[int(case["target"]), bool(case["probability"] >= threshold)]


def choose_cases(cases: pd.DataFrame, threshold: float, n: int = 12) -> pd.DataFrame:
    """Varied cases: true and false positives and negatives, from the narrowest to the clearest of each.

    Args:
        cases: case table with ``probability``; at most one image of a ``group_id`` is taken.
        threshold: ``probability >= threshold`` is called melanoma.
        n: how many; where one kind is short the others make up for it.

    Returns:
        Rows of the table, kind by kind, those nearest to the threshold first.

    Raises:
        DataError: if a column is missing, there are no cases, or ``n`` is below 1.
    """
    check_table(cases)
    if n < 1:
        raise DataError(f"n: expected at least one case, got {n}")
    cases = cases.drop_duplicates("group_id")
    cases = cases.iloc[np.argsort((cases["probability"] - threshold).abs(), kind="stable")]
    kinds = cases.apply(outcome, axis=1, threshold=threshold)
    pools = {kind: cases[kinds == kind] for kind in WANTED}
    # Each case goes to the kind that is furthest behind its share.
    taken = dict.fromkeys(WANTED, 0)
    for _ in range(min(n, len(cases))):
        open_kinds = [kind for kind, pool in pools.items() if taken[kind] < len(pool)]
        taken[min(open_kinds, key=lambda kind: (taken[kind] + 1) / WANTED[kind])] += 1
    rows = [pools[kind].iloc[_spread(len(pools[kind]), count)] for kind, count in taken.items() if count]
    return pd.concat(rows)


def _spread(length: int, count: int) -> np.ndarray:
    """So many positions, both ends among them; of one alone the middle."""
    return np.linspace(0, length - 1, count).round().astype(int) if count > 1 else np.array([length // 2])


def check_table(cases: pd.DataFrame) -> None:
    """Refuse a table that is empty or lacks a column.

    Raises:
        DataError: saying what is missing and where it comes from.
    """
    absent = [name for name in NEEDED if name not in cases.columns]
    if absent or cases.empty:
        raise DataError(
            f"expected cases of a run with its answers, got {len(cases)} rows and no column {absent}; take run.cases('test')"
        )


def named_cases(cases: pd.DataFrame, chosen: Sequence[str]) -> pd.DataFrame:
    """The rows of these image_ids, in their order.

    Raises:
        DataError: if one is not in the table or named twice, or there are none or more than ``MOST_CASES``.
    """
    check_table(cases)
    by_id = cases.set_index("image_id", drop=False)
    unknown = [name for name in chosen if name not in by_id.index]
    if unknown or not 1 <= len(chosen) <= MOST_CASES or len(set(chosen)) < len(chosen):
        some = ", ".join(cases["image_id"].head(3))
        raise DataError(
            f"chosen: expected 1 to {MOST_CASES} different image_ids of the {len(cases)} tested cases, such as {some}; got "
            f"{len(chosen)}, unknown among them {unknown[:5]}"
        )
    return by_id.loc[list(chosen)]


# --- maps --------------------------------------------------------------------------------------------------------------------


def signed_maps(
    model: MelanomaNet,
    image: Tensor,
    metadata: Tensor,
    methods: Sequence[str],
    layers: Sequence[str] | None = None,
    directions: Sequence[int] = (1, -1),
) -> dict[MapKey, SignedMap]:
    """Maps of one case, at the resolution of their layers.

    Args:
        model: with an image branch.
        image: shape ``(1, 3, S, S)``.
        metadata: shape ``(1, M)``.
        methods: of ``CAM_METHODS``.
        layers: names, all if None.
        directions: 1 for what raises the logit, -1 for what lowers it.
    """
    found = {}
    for direction in directions:
        for method, maps in heatmaps_by_method(model, image, metadata, methods, layers, direction).items():
            for layer, values in maps.items():
                found[method, layer, direction] = SignedMap(values[0], bool(maps.doubtful_sign[layer][0]))
    return found


def pack_maps(maps: Mapping[MapKey, SignedMap], mask: np.ndarray | None = None) -> dict[str, Any]:
    """Maps in one byte a point, each against its own largest magnitude.

    Args:
        maps: of one case.
        mask: lesion pixels, boolean, shape ``(H, W)``; None if unknown.

    Returns:
        ``bytes``, rows of int8 from -127 to 127, map after map; ``index``, of each map ``method``, ``layer``, ``direction``,
        ``at`` (its first byte), ``rows``, ``columns``, ``size`` (largest magnitude, unpacked), ``doubtful``, ``same`` (whether
        the other direction, if it is there, has the very same map), ``energy`` (share of the positive energy on the lesion, or
        None) and ``turned`` (that of EigenCAM with its other sign). Equal maps of both directions share their bytes.
    """
    index, parts, places, at = [], [], {}, 0
    for (method, layer, direction), (values, doubtful) in maps.items():
        other = maps.get((method, layer, -direction))
        same = other is not None and np.array_equal(other.values, values)
        size = float(np.abs(values).max())
        place = places.get((method, layer)) if same else None
        if place is None:
            place = places[method, layer] = at
            shares = values.astype(np.float64) / (size or 1.0)  # within -1 and 1; a map of zeros stays one
            parts.append(np.round(STEPS * shares).astype(np.int8).tobytes())
            at += len(parts[-1])
        energy, turned = (_share(sign * values, mask) for sign in (1, -1))
        index.append(
            {
                "method": method,
                "layer": layer,
                "direction": direction,
                "at": place,
                "rows": len(values),
                "columns": values.shape[1],
            }
            | {
                "size": size,
                "doubtful": doubtful,
                "same": same,
                "energy": energy,
                "turned": turned if method == "eigencam" else None,
            }
        )
    return {"index": index, "bytes": b"".join(parts)}


def _share(values: np.ndarray, mask: np.ndarray | None) -> float | None:
    energy = np.nan if mask is None else energy_in_mask(resize_heatmap(values, mask.shape), mask)
    return None if np.isnan(energy) else energy


def largest_change(before: Mapping[MapKey, SignedMap], after: Mapping[MapKey, SignedMap]) -> float:
    """Largest difference between two maps of one key, as a share of the first map's largest magnitude, over all keys."""
    changes = []
    for key, (values, _) in before.items():
        change, size = float(np.abs(after[key].values - values).max()), float(np.abs(values).max())
        changes.append(change / size if size else float(change > 0))
    return max(changes)


def layer_facts(model: MelanomaNet, image_size: int) -> list[dict[str, Any]]:
    """What the page says of each layer: how many points a side its maps have, and how much of the image each of them sees."""
    facts, fields = [], receptive_fields(model, image_size)
    for name, layer in cam_layers(model).items():
        side, points = field_side(fields[name]), math.ceil(image_size / layer.stride)
        seen = "all of the image" if side >= image_size else f"{side} of its {image_size} pixels"
        facts.append({"name": name, "channels": layer.channels, "points": points, "sees": seen})
    return facts


# --- metadata ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MetadataChoices:
    """What age, sex and site may be moved to; None is "not known".

    Attributes:
        ages: years, ascending, None first: every fifth year, and those recorded.
        sexes: None last.
        sites: None last.
    """

    ages: tuple[float | None, ...]
    sexes: tuple[str | None, ...]
    sites: tuple[str | None, ...]

    @classmethod
    def of(cls, cases: pd.DataFrame, encoder: MetadataEncoder) -> "MetadataChoices":
        """Choices that hold what is recorded of these cases."""
        recorded = {float(age) for age in cases["age_approx"].dropna()}
        oldest = max([OLDEST, *recorded])
        ages = sorted({float(age) for age in range(0, int(oldest) + 1, AGE_STEP)} | recorded)
        return cls((None, *ages), (*encoder.sexes, None), (*encoder.sites, None))

    def encoded(self, encoder: MetadataEncoder) -> np.ndarray:
        """Every combination, the site moving fastest, then the sex; shape ``(ages * sexes * sites, n_features)``."""
        product = pd.MultiIndex.from_product([self.ages, self.sexes, self.sites]).to_frame(index=False)
        product.columns = ["age_approx", "sex", "anatom_site_general_challenge"]
        return encoder.transform(product)

    def place(self, age: float | None, sex: str | None, site: str | None) -> int:
        """Where a combination stands among all.

        Raises:
            DataError: if a value is not among those offered.
        """
        for name, value, offered in (("age", age, self.ages), ("sex", sex, self.sexes), ("site", site, self.sites)):
            if value not in offered:
                raise DataError(f"{name}: expected one of {list(offered)}, got {value!r}")
        rows, columns = len(self.sexes), len(self.sites)
        return (self.ages.index(age) * rows + self.sexes.index(sex)) * columns + self.sites.index(site)


def recorded_metadata(case: Mapping[str, Any]) -> dict[str, Any]:
    """``age``, ``sex`` and ``site`` of a row of the case table, None where they are not known."""
    columns = {"age": "age_approx", "sex": "sex", "site": "anatom_site_general_challenge"}
    values = {name: None if pd.isna(case[column]) else case[column] for name, column in columns.items()}
    return values | {"age": None if values["age"] is None else float(values["age"])}


def logits_by_metadata(model: MelanomaNet, views: Sequence[Tensor], metadata: Tensor) -> np.ndarray:
    """Logits of one image with each of many metadata: the image passes its branch once a view, only the head is asked again.

    Args:
        model: with an image branch; its modes are left alone.
        views: of the image, shape ``(1, 3, S, S)`` each; logits are averaged over them, as in prediction.
        metadata: shape ``(N, M)``.

    Returns:
        float64 logits, shape ``(N,)``, which the whole model gives for each row alone, up to rounding.
    """
    device = next(model.parameters()).device
    with undisturbed(model):
        metadata = metadata.to(device)
        logits = []
        for view in views:
            features = model.features(view.to(device), metadata[:1]).expand(len(metadata), -1)  # (1, F) -> (N, F)
            if model.metadata_branch is not None:
                told = model.metadata_branch(metadata)  # (N, M) -> (N, hidden)
                features = torch.cat([features[:, : -told.shape[1]], told], dim=1)
            logits.append(model.head(features).squeeze(1).double())
        return torch.stack(logits).mean(0).cpu().numpy()  # (views, N) -> (N,)
