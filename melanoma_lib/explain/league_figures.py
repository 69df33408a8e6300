"""A league of heatmaps as figures for a slide: who beats the centre prior, by how much, and whose map outlives the weights."""

from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from melanoma_lib.evaluation.canvas import BLACK, BLUE, GREY, VERMILLION, DescribedFigure, describe, kit_figure
from melanoma_lib.explain.league import COMPARED, League
from melanoma_lib.explain.league_exam import OWN
from melanoma_lib.explain.league_words import UNTOLD, label, name_of, rival

# Blue below the centre prior, white like it, orange above: told apart under every colour blindness, and pale enough for numbers.
AGAINST_CENTRE = LinearSegmentedColormap.from_list("against_centre", ["#4C94C4", "#FFFFFF", "#E5834A"])
VERDICT_COLOURS = {"better": VERMILLION, "more": VERMILLION, "worse": BLUE, "less": BLUE}


def league_heat_figure(league: League, score: str = "energy_in_mask") -> DescribedFigure:
    """Layers against methods: the value of each map, coloured by its difference to the centre prior, outlined where it beats it.

    Args:
        league: of any run.
        score: one that is compared with the centre prior.

    Raises:
        ValueError: if the league has no such comparison.
    """
    rows = _compared(league, score)
    layers, methods = league.facts["layers"], league.facts["methods"]
    values, differences = (rows[name].unstack("method").reindex(index=layers, columns=methods) for name in ("value", "vs_centre"))
    limit = float(np.nanmax(np.abs(differences.to_numpy()))) or 1.0
    beats = "better" if COMPARED.get(score, 0) else "more"
    with kit_figure(max(11.0, 1.35 * len(methods) + 4.2), 0.62 * len(layers) + 2.9) as figure:
        axes = figure.subplots()
        shown = axes.pcolormesh(differences.to_numpy(), cmap=AGAINST_CENTRE, vmin=-limit, vmax=limit, edgecolors="white")
        for (i, layer), (j, method) in _cells(layers, methods):
            if np.isnan(values.loc[layer, method]):
                continue
            won = rows.loc[(layer, method), "verdict"] == beats
            axes.text(
                j + 0.5, i + 0.5, f"{values.loc[layer, method]:.2f}", ha="center", va="center", weight="bold" if won else None
            )
            if won:
                axes.add_patch(Rectangle((j + 0.06, i + 0.06), 0.88, 0.88, fill=False, edgecolor=BLACK, linewidth=2.6))
        axes.set_xticks(np.arange(len(methods)) + 0.5, methods, rotation=20, ha="right")
        axes.set_yticks(np.arange(len(layers)) + 0.5, layers)
        axes.set_ylabel("layer, early to late")
        axes.invert_yaxis()
        axes.grid(False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(f"{label(score)} (controls: {_reference(league, score)})")
        bar = figure.colorbar(shown, ax=axes, aspect=18)
        bar.set_label(f"difference to {rival(score)}")
        bar.outline.set_visible(False)
        figure.supxlabel(_footnote(rows, f"outlined: {beats} than {rival(score)}"), fontsize=12, x=0.01, ha="left")
    return describe(figure, _words(league, score, rows))


def league_interval_figure(league: League, score: str = "energy_in_mask") -> DescribedFigure:
    """How far each map is from the centre prior, on the same cases: one panel a method, one dot and interval a layer.

    Args:
        league: of any run.
        score: one that is compared with the centre prior.

    Raises:
        ValueError: if the league has no such comparison.
    """
    rows = _compared(league, score)
    layers, methods = league.facts["layers"], league.facts["methods"]
    controls = [method for layer, method in rows.index if layer == "" and method != "centre"]
    with kit_figure(max(11.0, 1.75 * (len(methods) + 1) + 2.2), 0.42 * max(len(layers), len(controls)) + 2.9) as figure:
        panels = figure.subplots(1, len(methods) + 1, sharex=True)
        for axes, method in zip(panels, methods, strict=False):
            _dots(axes, rows.reindex([(layer, method) for layer in layers]), layers if axes is panels[0] else None)
            axes.set_title(method)
        _dots(panels[-1], rows.loc[[("", method) for method in controls]], controls)
        panels[-1].yaxis.tick_right()
        panels[-1].set_title("controls")
        panels[0].set_ylabel("layer, early to late")
        scale = f"{label(score)}: difference to {rival(score)}"
        scale += "" if score == OWN else f", which has {rows.loc[('', 'centre'), 'value']:.2f}"
        colours = "orange: better, blue: worse" if COMPARED.get(score, 0) else "orange: more, blue: less"
        figure.supxlabel(f"{scale}\n{_footnote(rows, f'{colours}, grey: {UNTOLD}')}", fontsize=12)
    return describe(figure, _words(league, score, rows))


def league_sanity_figure(league: League) -> DescribedFigure:
    """How similar each map stays to the original while the weights are shuffled from the head down: one panel a method.

    Args:
        league: with cases for the sanity checks.

    Raises:
        ValueError: if it has none.
    """
    cascade, methods, layers = league.cascade, league.facts["methods"], league.facts["layers"]
    if not league.has_cascade:
        raise ValueError(
            "the league has no cascade: give it n_sanity of at least 1 and a method other than scorecam or ablationcam"
        )
    graded = [method for method in methods if cascade.loc[cascade["method"] == method, "value"].notna().any()]
    stages = list(dict.fromkeys(cascade["stage"]))
    colours = colormaps["cividis"](np.linspace(0, 0.92, len(layers)))
    strangers = league.score("stranger")["value"]
    columns = 4
    n_rows = -(-(len(graded) + 1) // columns)
    with kit_figure(3.5 * columns, 3.0 * n_rows + 1.2) as figure:
        panels = figure.subplots(n_rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, method in zip(panels, graded, strict=False):
            own = cascade[cascade["method"] == method].pivot(index="stage", columns="layer", values="value").reindex(stages)
            for layer, colour, marker in zip(layers, colours, cycle("osDv^P"), strict=False):
                axes.plot(range(len(stages) + 1), [1.0, *own[layer]], color=colour, marker=marker, markersize=6)
                alike = strangers.get((layer, method), np.nan)
                axes.plot(len(stages) + 0.7, alike, color=colour, marker="<", markersize=7, linestyle="", clip_on=False)
            axes.set_title(method)
        for axes in panels[len(graded) :]:
            axes.axis("off")
        lines = [*panels[0].lines[: 2 * len(layers) : 2], panels[0].lines[1]]
        names = [*layers, "another case's map, by layer"]
        panels[len(graded)].legend(lines, names, loc="center", title="map of layer", alignment="left")
        for axes in panels[: len(graded)]:
            axes.set_xticks(range(len(stages) + 1), ["none", *stages], rotation=90)
            axes.tick_params(labelbottom=axes in panels[max(0, len(graded) - columns) :])
        figure.supylabel("rank correlation with the original map", fontsize=13)
        cases = f"{league.facts['n_sanity']} cases, one shuffle. Educational, not for diagnosis."
        figure.supxlabel(f"weights shuffled, from the head down to …\n{cases}", fontsize=12)
    last = cascade[(cascade["stage"] == stages[-1]) & (cascade["layer"] != "")].dropna(subset="value")
    highest = last.loc[last["value"].idxmax()]
    said = " ".join(
        f"{method}: {own['value'].min():.2f} to {own['value'].max():.2f}." for method, own in last.groupby("method", sort=False)
    )
    return describe(
        figure,
        f"Similarity of each map to its original while the weights are shuffled stage by stage, {', '.join(stages)}; "
        f"{league.facts['n_sanity']} cases of {league.facts['run']}. After all of it, over layers, {said} "
        f"Highest: {name_of(highest['layer'], highest['method'])} with {highest['value']:.2f}.",
    )


def _cells(layers: list[str], methods: list[str]) -> list[tuple[tuple[int, str], tuple[int, str]]]:
    return [(row, column) for row in enumerate(layers) for column in enumerate(methods)]


def _compared(league: League, score: str) -> pd.DataFrame:
    rows = league.score(score)
    if rows["vs_centre"].isna().all():
        raise ValueError(f"{score!r} is not compared with the centre prior; choose one of {list(COMPARED)}")
    return rows


def _dots(axes: Axes, rows: pd.DataFrame, names: list[str] | None) -> None:
    """Differences with their intervals, the first on top."""
    for i, (_, row) in enumerate(rows.iterrows()):
        colour = VERDICT_COLOURS.get(row["verdict"], GREY)
        axes.plot([row["vs_centre_low"], row["vs_centre_high"]], [i, i], color=colour)
        axes.plot(row["vs_centre"], i, "o", color=colour, markersize=7)
    axes.axvline(0, color=BLACK, linewidth=1.2)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), names or [""] * len(rows))
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", rotation=45)


def _reference(league: League, score: str) -> str:
    """The controls' values in words."""
    rows = league.score(score).loc[""]
    return ", ".join(f"{name} {value:.2f}" for name, value in rows["value"].items() if name in ("centre", "edges", "random"))


def _footnote(rows: pd.DataFrame, colours: str) -> str:
    cases = int(rows["cases"].max())
    return f"{cases} cases; {colours}, by 95% intervals that hold for all maps at once. Educational, not for diagnosis."


def _words(league: League, score: str, rows: pd.DataFrame) -> str:
    maps = rows[[layer != "" for layer, _ in rows.index]].dropna(subset="value")
    beats, loses = ("better", "worse") if COMPARED.get(score, 0) else ("more", "less")
    counts = {word: int((maps["verdict"] == word).sum()) for word in (beats, loses)}
    winners = ", ".join(name_of(*index) for index in maps.index[maps["verdict"] == beats])
    best, worst = maps["value"].idxmax(), maps["value"].idxmin()
    return (
        f"{label(score)} of {len(maps)} maps by layer and method, {int(maps['cases'].max())} cases of {league.facts['run']}; "
        f"controls: {_reference(league, score)}. Highest {name_of(*best)} with {maps.loc[best, 'value']:.2f}, lowest "
        f"{name_of(*worst)} with {maps.loc[worst, 'value']:.2f}. Compared with {rival(score)}, {counts[beats]} of the maps are "
        f"{beats}{f' ({winners})' if winners else ''}, {counts[loses]} {loses}, the others are {UNTOLD}."
    )
