"""Does a model take an artefact for evidence? A verdict on its answers to pairs, and where its heatmaps look."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from melanoma_lib.data.synthetic import SyntheticDermoscopy
from melanoma_lib.evaluation.intervals import Interval
from melanoma_lib.explain import cam_layers, default_layer, heatmaps
from melanoma_lib.explain.scores import energy_in_mask
from melanoma_lib.explain.statistics import group_means
from melanoma_lib.lessons.artefact_effect import (
    ALL,
    OFF,
    ON,
    PARTS,
    ArtefactEffect,
    Pair,
    artefact_effect,
    artefact_pair,
    case_changes,
    effect_by_run,
    effect_table,
    pair_batches,
    require_pictures,
)
from melanoma_lib.plotting import BLACK, BLUE, GREY, ORANGE, VERMILLION, DescribedFigure, kit_figure, with_alt_text
from melanoma_lib.runs import Run

__all__ = [
    "ALL", "METHOD", "OFF", "ON", "PARTS", "ArtefactEffect", "Pair", "artefact_effect", "artefact_pair", "case_changes",
    "effect_by_run", "effect_table", "energy_by_run", "energy_intervals", "slope_figure", "verdict", "verdict_on",
]  # fmt: skip

# Weighs each point by its own gradient. Grad-CAM weighs by the mean over the picture, in which an artefact on few pixels drowns.
METHOD = "hirescam"
MAX_RISK = 0.05  # mean change of risk up to which a model passes: a choice of this lesson, no law of nature


def energy_by_run(
    runs: Mapping[str, Run],
    cases: pd.DataFrame,
    artefact: str,
    generator: SyntheticDermoscopy | None = None,
    layer: str | None = None,
    method: str = METHOD,
) -> dict[str, pd.DataFrame]:
    """How much of a heatmap's positive energy lies on the artefact's pixels; each pair is painted once, for all runs.

    Args:
        runs: by what to call them, as for :func:`effect_by_run`, which also tells the errors.
        cases: to draw maps of.
        artefact: one of ``ARTEFACTS``.
        generator: of synthetic cases.
        layer: name of a layer; default each run's :func:`~melanoma_lib.explain.default_layer`.
        method: one of ``CAM_METHODS``.

    Returns:
        By run, one row a case: ``image_id``, ``group_id``, ``target``, ``area`` (which a uniform map would score),
        ``energy_with``, and ``energy_without``: on the same pixels of the same case where the artefact is absent. NaN where no
        pixel is concerned or nothing is positive.
    """
    require_pictures(cases, runs)
    models = {name: run.model() for name, run in runs.items()}
    layers = {name: layer or default_layer(cam_layers(models[name]), run.settings.image_size) for name, run in runs.items()}
    rows: dict[str, list[tuple]] = {name: [] for name in runs}
    for pairs, batches in pair_batches(runs, cases, artefact, generator):
        for name, model in models.items():
            size, batch = len(pairs[0].where), batches[name]
            maps = heatmaps(model, batch["image"], batch["metadata"], layers[name], method, size=size)[layers[name]]  # (2B, S, S)
            rows[name] += [_energies(pair, maps[2 * k : 2 * k + 2]) for k, pair in enumerate(pairs)]
    table = cases[["image_id", "group_id", "target"]].reset_index(drop=True)
    columns = ["area", "energy_with", "energy_without"]
    return {name: table.join(pd.DataFrame(own, columns=columns)) for name, own in rows.items()}


def _energies(pair: Pair, maps: np.ndarray) -> tuple[float, float, float]:
    """Area of the artefact, and the energy on it of the maps with it and without, which come as ``(2, S, S)``, without first."""
    without, painted = (energy_in_mask(one, pair.where) if pair.where.any() else np.nan for one in maps)
    return pair.where.mean(), painted, without


def energy_intervals(energies: pd.DataFrame, n: int = 2000, seed: int = 0) -> dict[str, Interval]:
    """Means of ``area``, ``energy_with`` and ``energy_without`` over the cases in which all three are known, by groups."""
    known = energies.dropna(subset=["energy_with", "energy_without"])
    names = ["area", "energy_with", "energy_without"]
    if known.empty:
        return {name: Interval(np.nan, np.nan, np.nan) for name in names}
    means = group_means(known[names], known["group_id"], n, seed)
    return {name: Interval(*map(float, ends), n) for name, *ends in zip(names, means.value, means.low, means.high, strict=True)}


def verdict(effect: ArtefactEffect, part: str = ALL, n: int = 2000, seed: int = 0) -> str:
    """Does the model take the artefact for evidence? ``passes``, ``fails`` or ``inconclusive``.

    A shortcut has a direction: the artefact moves the risks of most cases the same way. So the model passes where the mean change
    of risk is shown to be small, its whole interval within ``MAX_RISK`` of zero; it fails where the whole interval lies beyond.
    It is not acquitted for lack of evidence: in between it is inconclusive. Flips are no part of it. Near the threshold a
    model flips to and fro for any disturbance; that is fragility, which deserves to be reported, but no shortcut.
    """
    return verdict_on(effect.intervals(part, n, seed)["risk"])


def verdict_on(change: Interval) -> str:
    """:func:`verdict` from the interval of the mean change of risk, where that is already at hand."""
    if change.low >= -MAX_RISK and change.high <= MAX_RISK:
        return "passes"
    return "fails" if change.low > MAX_RISK or change.high < -MAX_RISK else "inconclusive"


def slope_figure(effects: Mapping[str, ArtefactEffect]) -> DescribedFigure:
    """Each case's risk without and with the artefact, joined by a line; a panel a model, the line of decision dashed.

    Args:
        effects: by what to call the model, of one artefact.

    Raises:
        ValueError: if there is none.
    """
    if not effects:
        raise ValueError("effects: expected at least one, got none")
    words, artefact = [], next(iter(effects.values())).artefact
    with kit_figure(12.0, 6.0) as figure:
        panels = figure.subplots(1, len(effects), sharey=True, squeeze=False)[0]
        for axes, (name, effect) in zip(panels, effects.items(), strict=True):
            table, found = effect.table, effect.intervals()
            flips = (table["flagged_without"] != table["flagged_with"]).to_numpy()
            risks = table[["risk_without", "risk_with"]].to_numpy().T  # (2, N)
            jitter = np.random.default_rng(0).uniform(-0.06, 0.06, risks.shape[1])
            for chosen, colour, alpha in ((~flips, GREY, 0.35), (flips, ORANGE, 0.6)):
                axes.plot([jitter[chosen], 1 + jitter[chosen]], risks[:, chosen], color=colour, linewidth=1.2, alpha=alpha)
            for x in (0, 1):
                for target, colour, marker in ((0, BLUE, "o"), (1, VERMILLION, "^")):
                    own = (table["target"] == target).to_numpy()
                    axes.plot(x + jitter[own], risks[x, own], marker, color=colour, markersize=6, alpha=0.75, markeredgewidth=0)
            axes.axhline(effect.threshold_risk, color=BLACK, linestyle="--", linewidth=1.8)
            axes.set_title(f"{name}\nmean change of risk {found['risk']:+.3f}\nflips {found['flips']:.2f}")
            axes.set_xticks([0, 1], ["without", f"with {artefact}"], fontsize=15)
            axes.set(xlim=(-0.3, 1.3), ylim=(-0.02, 1.02))
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
            axes.grid(visible=False, axis="x")
            words.append(f"{name}, {len(table)} cases: flips {found['flips']:.3f}, mean change of risk {found['risk']:+.3f}")
        panels[0].set_ylabel("calibrated risk of melanoma")
        marks = [Line2D([], [], linestyle="", marker=m, color=c, markersize=9) for m, c in (("o", BLUE), ("^", VERMILLION))]
        lines = [Line2D([], [], color=ORANGE), Line2D([], [], color=GREY), Line2D([], [], color=BLACK, linestyle="--")]
        labels = ["not melanoma", "melanoma", "decision flips", "decision stays", "stored operating point"]
        figure.legend([*marks, *lines], labels, loc="outside lower center", ncols=5)
    return with_alt_text(
        figure, f"Risk of each case without and with {artefact}. {'; '.join(words)}. Educational, not for diagnosis."
    )
