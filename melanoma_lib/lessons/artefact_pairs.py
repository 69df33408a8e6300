"""Does a model take an artefact for evidence? A verdict on its answers to pairs, and where its heatmaps look."""

import numpy as np
import pandas as pd

from melanoma_lib.data.synthetic import SyntheticDermoscopy
from melanoma_lib.evaluation.intervals import Interval
from melanoma_lib.explain.league_statistics import group_means
from melanoma_lib.lessons.start import MIN_GRID
from melanoma_lib.runs import Run
from melanoma_lib.studies.artefact_effect import (
    ALL,
    OFF,
    ON,
    PARTS,
    ArtefactEffect,
    Pair,
    artefact_effect,
    artefact_pair,
    case_changes,
    effect_table,
    pair_batches,
    require_pictures,
)

__all__ = [
    "ALL", "METHOD", "OFF", "ON", "PARTS", "ArtefactEffect", "Pair", "artefact_effect", "artefact_energy", "artefact_pair",
    "case_changes", "effect_table", "energy_intervals", "pointing_layer", "verdict",
]  # fmt: skip

# Weighs each point by its own gradient. Grad-CAM weighs by the mean over the picture, in which an artefact on few pixels drowns.
METHOD = "hirescam"
MAX_RISK = 0.05  # mean change of risk up to which a model passes: a choice of this lesson, no law of nature


def artefact_energy(
    run: Run,
    cases: pd.DataFrame,
    artefact: str,
    generator: SyntheticDermoscopy | None = None,
    layer: str | None = None,
    method: str = METHOD,
    model=None,
) -> pd.DataFrame:
    """How much of a heatmap's positive energy lies on the artefact's pixels.

    Args:
        run: as for :func:`artefact_effect`, which also tells the errors.
        cases: to draw maps of.
        artefact: one of ``ARTEFACTS``.
        generator: of synthetic cases.
        layer: name of a layer; default :func:`pointing_layer`.
        method: one of ``CAM_METHODS``.
        model: ``run.model()``, where it is already at hand.

    Returns:
        One row a case: ``image_id``, ``group_id``, ``target``, ``area`` (which a uniform map would score), ``energy_with``, and
        ``energy_without``: on the same pixels of the same case where the artefact is absent. NaN where no pixel is concerned or
        nothing is positive.
    """
    from melanoma_lib.explain import heatmaps
    from melanoma_lib.explain.exam import energy_in_mask

    require_pictures(cases, run)
    model = model or run.model()
    layer = layer or pointing_layer(run, model)
    rows = []
    for pairs, batch in pair_batches(run, cases, artefact, generator):
        side = len(pairs[0].where)
        maps = heatmaps(model, batch["image"], batch["metadata"], layer, method, size=side)[layer]  # (2B, side, side)
        for k, pair in enumerate(pairs):
            both = [energy_in_mask(one, pair.where) if pair.where.any() else np.nan for one in maps[2 * k : 2 * k + 2]]
            rows.append((pair.where.mean(), both[1], both[0]))
    table = cases[["image_id", "group_id", "target"]].reset_index(drop=True)
    return table.join(pd.DataFrame(rows, columns=["area", "energy_with", "energy_without"]))


def energy_intervals(energies: pd.DataFrame, n: int = 2000, seed: int = 0) -> dict[str, Interval]:
    """Means of ``area``, ``energy_with`` and ``energy_without`` over the cases in which all three are known, by groups."""
    known = energies.dropna(subset=["energy_with", "energy_without"])
    names = ["area", "energy_with", "energy_without"]
    if known.empty:
        return {name: Interval(np.nan, np.nan, np.nan) for name in names}
    means = group_means(known[names], known["group_id"], n, seed)
    return {name: Interval(*map(float, ends), n) for name, *ends in zip(names, means.value, means.low, means.high, strict=True)}


def pointing_layer(run: Run, model) -> str:
    """The last layer whose grid is fine enough to point at something, the first one where none is."""
    from melanoma_lib.explain import cam_layers

    layers = cam_layers(model)
    fine = [name for name, layer in layers.items() if layer.stride * MIN_GRID <= run.settings.image_size]
    return (fine or list(layers)[:1])[-1]


def verdict(effect: ArtefactEffect, part: str = ALL, n: int = 2000, seed: int = 0) -> str:
    """Does the model take the artefact for evidence? ``passes``, ``fails`` or ``not settled``.

    A shortcut has a direction: the artefact moves the risks of most cases the same way. So the model passes where the mean change
    of risk is shown to be small, its whole interval within ``MAX_RISK`` of zero; it fails where the whole interval lies beyond.
    It is not acquitted for lack of evidence: in between it is not settled. Flips are no part of it. Near the threshold a
    model flips to and fro for any disturbance; that is fragility, which deserves to be reported, but no shortcut.
    """
    found = effect.intervals(part, n, seed)["risk"]
    if found.low >= -MAX_RISK and found.high <= MAX_RISK:
        return "passes"
    return "fails" if found.low > MAX_RISK or found.high < -MAX_RISK else "not settled"
