"""The shortcut experiment drawn: it looks fine, then it falls; the same case twice; who is moved, how often, and by what."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from melanoma_lib.evaluation.canvas import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILLION, DescribedFigure, describe, kit_figure
from melanoma_lib.evaluation.intervals import Interval
from melanoma_lib.explain.cam import heatmaps
from melanoma_lib.explain.figures import SIGNED
from melanoma_lib.lessons.artefact_pairs import (
    ALL,
    MAX_RISK,
    METHOD,
    OFF,
    ArtefactEffect,
    artefact_pair,
    energy_intervals,
    pointing_layer,
    verdict_on,
)
from melanoma_lib.lessons.eda import WIDTH
from melanoma_lib.lessons.shortcut import HONEST, TIED, TRAPPED, UNTIED, Trap, Worlds

COLOURS = {TRAPPED: VERMILLION, HONEST: BLUE}
WORLD_WORDS = {TIED: "artefact goes\nwith the label", UNTIED: "artefact knows\nnothing of the label"}
MIN_CASES = 10  # in a part of the cases, for a mark to be drawn
NOT_FOR_DIAGNOSIS = "Educational, not for diagnosis."


def worlds_figure(worlds: Worlds) -> DescribedFigure:
    """AUROC of both models on the same lesions in both worlds, with intervals, below the ceiling of honest causes.

    Args:
        worlds: from `compare_worlds`.
    """
    said = []
    with kit_figure(WIDTH, 5.6) as figure:
        axes = figure.add_subplot()
        places = {TIED: -0.2, UNTIED: 0.2}
        for x, (model, aurocs) in enumerate(worlds.auroc.items()):
            for world, interval in aurocs.items():
                at, filled = x + places[world], world == TIED
                colour = COLOURS[model]
                axes.bar(
                    at, interval.value - 0.5, 0.36, 0.5, color=colour if filled else "white", edgecolor=colour, linewidth=2.4
                )
                axes.errorbar(at, interval.value, _ends(interval), color=BLACK, capsize=7, linewidth=2.4)
                axes.text(at, 0.512, f"{interval.value:.3f}", ha="center", fontsize=17, color="white" if filled else colour)
                axes.text(at, 0.49, WORLD_WORDS[world], ha="center", va="top", fontsize=13)
                said.append(f"{model}, {WORLD_WORDS[world]}: {interval:.3f}".replace("\n", " "))
            axes.text(
                x, 1.035, f"{model}\ntied − untied {worlds.loss[model]:+.3f}", ha="center", fontsize=15, color=COLOURS[model]
            )
        axes.axhline(worlds.ceiling, color=GREEN, linestyle="--")
        axes.text(1.52, worlds.ceiling, f" honest\n ceiling\n {worlds.ceiling:.3f}", color=GREEN, va="center", fontsize=14)
        axes.set(xlim=(-0.5, 1.5), ylim=(0.5, 1.02), xticks=[], ylabel=f"AUROC on {worlds.n} test pictures")
        axes.grid(visible=False, axis="x")
    losses = "; ".join(f"{model} {loss:+.3f}" for model, loss in worlds.loss.items())
    text = f"AUROC on the same {worlds.n} test cases with 95% intervals. {'; '.join(said)}. Tied minus untied world: {losses}."
    return describe(figure, f"{text} The best that honest causes allow is {worlds.ceiling:.3f}.")


def _ends(interval: Interval) -> np.ndarray:
    """Lengths of the error bar, shape ``(2, 1)``; nothing where the ends are unknown."""
    ends = np.array([[interval.value - interval.low], [interval.high - interval.value]])
    return np.nan_to_num(np.maximum(ends, 0))


def pairs_figure(trap: Trap, n: int = 3, cases: pd.DataFrame | None = None) -> DescribedFigure:
    """Contact sheet: a case without and with the artefact, what both models answer to either, and where each of them looks.

    Args:
        trap: from `set_trap`.
        n: cases shown, of those that are no melanoma the ones whose artefact covers most of the picture.
        cases: those to show instead, rows of ``trap.cases``.

    Raises:
        ValueError: if there is no case to show.
    """
    side, artefact = trap.untied.image_size, trap.artefact
    cases = _plain_to_see(trap, n) if cases is None else cases
    if cases.empty:
        raise ValueError("cases: expected at least one to show, got none")
    models = {name: run.model() for name, run in trap.runs.items()}
    said = []
    with kit_figure(WIDTH, 2.95 * len(cases) + 0.9) as figure:
        grid = figure.subplots(len(cases), 4, squeeze=False)
        for row, (_, case) in zip(grid, cases.iterrows(), strict=True):
            pair = artefact_pair(case, artefact, side, trap.untied)
            for axes, picture in zip(row, (pair.without, pair.painted), strict=False):
                axes.imshow(picture, interpolation="bilinear")
            answers = {}
            for axes, (name, run) in zip(row[2:], trap.runs.items(), strict=True):
                risks, heatmap = _asked(run, models[name], case, pair)
                answers[name] = risks
                top = _overlay(axes, pair.painted, heatmap, pair.where)
                axes.set_xlabel(f"risk {risks[0]:.0%} → {risks[1]:.0%}\nmap ± {top:.2g}", color=COLOURS[name], fontsize=15)
            label = "melanoma" if case["target"] else "not melanoma"
            row[0].set_xlabel(label, fontsize=14)
            row[1].set_xlabel(f"the same, with {artefact}", fontsize=14)
            risks = "; ".join(f"{name}, risk {a:.0%} without and {b:.0%} with it" for name, (a, b) in answers.items())
            said.append(f"{case['image_id']} ({label}): {risks}")
        for axes in grid.ravel():
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
        for axes, title in zip(grid[0], ("without", f"with {artefact}", *(f"map: {name}" for name in trap.runs)), strict=True):
            axes.set_title(title, color=COLOURS.get(title.removeprefix("map: "), BLACK))
        layers = dict.fromkeys(pointing_layer(run, models[name]) for name, run in trap.runs.items())
        figure.supxlabel(
            f"HiResCAM of {', '.join(layers)}, vermillion for melanoma, blue against, each map to its own scale: compare places\n"
            f"black: outline of the {artefact}; cases with much {artefact} clear of the lesion, not drawn at random",
            fontsize=13,
        )
    return describe(
        figure, f"The same cases without and with {artefact}, and maps of two models. {'. '.join(said)}. {NOT_FOR_DIAGNOSIS}"
    )


def _plain_to_see(trap: Trap, n: int) -> pd.DataFrame:
    """Other lesions than melanomas, one a patient, whose artefact covers most without touching the lesion."""
    others = trap.cases[trap.cases["target"] == 0].drop_duplicates("group_id")
    pairs = [artefact_pair(case, trap.artefact, trap.untied.image_size, trap.untied) for _, case in others.head(40).iterrows()]
    area = np.array([-1.0 if pair.touches else pair.where.mean() for pair in pairs])
    return others.iloc[np.sort(np.argsort(-area, kind="stable")[:n])]


def _asked(run, model, case: pd.Series, pair) -> tuple[np.ndarray, np.ndarray]:
    """Risks without and with the artefact, shape ``(2,)``, and the map of the picture with it."""
    import torch
    from PIL import Image

    from melanoma_lib.data.images import evaluation_transform
    from melanoma_lib.inference import predict_logits

    transform = evaluation_transform(run.settings.backbone, run.settings.image_size)
    image = torch.stack([transform(Image.fromarray(picture)) for picture in (pair.without, pair.painted)])  # (2, 3, S, S)
    metadata = torch.from_numpy(run.encoder.transform(case.to_frame().T)).repeat(2, 1)  # (1, M) -> (2, M)
    layer = pointing_layer(run, model)
    risks = run.calibrator.risk(predict_logits(model, [{"image": image, "metadata": metadata}], run.settings.tta))
    return risks, heatmaps(model, image, metadata, layer, METHOD, size=len(pair.where))[layer][1]


def _overlay(axes: Axes, picture: np.ndarray, heatmap: np.ndarray, where: np.ndarray) -> float:
    """Draw the map over the grey picture; returns the magnitude at the ends of its scale."""
    axes.imshow(picture.mean(axis=2), cmap="gray", vmin=-100, vmax=255, interpolation="bilinear")
    top = float(np.abs(heatmap).max()) or 1.0
    axes.imshow(heatmap, cmap=SIGNED, vmin=-top, vmax=top, interpolation="bilinear")
    if where.any() and not where.all():
        axes.contour(where, levels=[0.5], colors=BLACK, linewidths=1.6)
    return top


def slope_figure(effects: Mapping[str, ArtefactEffect]) -> DescribedFigure:
    """Each case's risk without and with the artefact, joined by a line; a panel a model, the line of decision dashed.

    Args:
        effects: by what to call the model, of one artefact.

    Raises:
        ValueError: if there is none.
    """
    if not effects:
        raise ValueError("effects: expected at least one, got none")
    said = []
    with kit_figure(WIDTH, 6.0) as figure:
        for axes, (name, effect) in zip(
            figure.subplots(1, len(effects), sharey=True, squeeze=False)[0], effects.items(), strict=True
        ):
            table, found = effect.table, effect.intervals()
            flips = (table["flagged_without"] != table["flagged_with"]).to_numpy()
            risks = table[["risk_without", "risk_with"]].to_numpy().T  # (2, N)
            jitter = np.random.default_rng(0).uniform(-0.06, 0.06, risks.shape[1])
            for chosen, colour, weight, alpha in ((~flips, GREY, 1.0, 0.35), (flips, ORANGE, 1.4, 0.6)):
                axes.plot([jitter[chosen], 1 + jitter[chosen]], risks[:, chosen], color=colour, linewidth=weight, alpha=alpha)
            for x in (0, 1):
                for target, colour, marker in ((0, BLUE, "o"), (1, VERMILLION, "^")):
                    own = (table["target"] == target).to_numpy()
                    axes.plot(x + jitter[own], risks[x, own], marker, color=colour, markersize=6, alpha=0.75, markeredgewidth=0)
            axes.axhline(effect.threshold_risk, color=BLACK, linestyle="--", linewidth=1.8)
            axes.set_title(f"{name}\nmean change of risk {found['risk']:+.3f}\nflips {found['flips']:.2f}")
            axes.set_xticks([0, 1], ["without", f"with {effect.artefact}"], fontsize=15)
            axes.set(xlim=(-0.3, 1.3), ylim=(-0.02, 1.02))
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
            axes.grid(visible=False, axis="x")
            said.append(
                f"{name}: the decision on {found['flips']:.3f} of {len(table)} cases flips, "
                f"mean change of risk {found['risk']:+.3f}, mean size of the change {found['abs_risk']:.3f}"
            )
        figure.axes[0].set_ylabel("calibrated risk of melanoma")
        marks = [Line2D([], [], linestyle="", marker=m, color=c, markersize=9) for m, c in (("o", BLUE), ("^", VERMILLION))]
        lines = [Line2D([], [], color=ORANGE), Line2D([], [], color=GREY), Line2D([], [], color=BLACK, linestyle="--")]
        words = ["not melanoma", "melanoma", "decision flips", "decision stays", "stored operating point"]
        figure.legend([*marks, *lines], words, loc="outside lower center", ncols=5)
    return describe(figure, f"Risk of each case without and with {effect.artefact}. {'; '.join(said)}. {NOT_FOR_DIAGNOSIS}")


def energy_figure(energies: Mapping[str, pd.DataFrame], artefact: str) -> DescribedFigure:
    """Share of the positive map energy on the artefact's pixels, with it and, in the same place, without; area as yardstick.

    Args:
        energies: from `energy_by_run`, by what to call the model.
        artefact: its name.
    """
    said = []
    with kit_figure(WIDTH, 1.9 + 1.25 * len(energies)) as figure:
        axes = figure.add_subplot()
        for y, (name, table) in enumerate(energies.items()):
            found = energy_intervals(table)
            axes.plot([found["area"].value] * 2, [y - 0.38, y + 0.38], color=GREEN, linewidth=4, solid_capstyle="butt")
            for shift, part, marker in ((-0.14, "energy_with", "o"), (0.14, "energy_without", "D")):
                one, colour = found[part], COLOURS.get(name, BLUE)
                fill = colour if part == "energy_with" else "white"
                axes.errorbar(
                    one.value,
                    y + shift,
                    xerr=_ends(one),
                    fmt=marker,
                    color=colour,
                    markerfacecolor=fill,
                    capsize=6,
                    markersize=11,
                )
                axes.annotate(
                    f"{one.value:.1%}", (one.value, y + shift), (0, 9), textcoords="offset points", ha="center", fontsize=13
                )
            said.append(
                f"{name}: {found['energy_with']:.3f} with it, {found['energy_without']:.3f} in the same place without it, "
                f"area {found['area'].value:.3f}"
            )
        axes.set(ylim=(len(energies) - 0.4, -0.6), xlabel=f"share of the map's positive energy on the pixels of the {artefact}")
        axes.set_xlim(left=0)
        axes.set_yticks(range(len(energies)), energies, fontsize=15)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.grid(visible=False, axis="y")
        marks = [
            Line2D([], [], linestyle="", marker=m, color=BLACK, markerfacecolor=f, markersize=10)
            for m, f in (("o", BLACK), ("D", "white"))
        ]
        words = [f"with {artefact}", "same place, without it", "its area: what an even map would score"]
        figure.legend([*marks, Line2D([], [], color=GREEN, linewidth=4)], words, loc="outside upper center", ncols=3)
    return describe(
        figure, f"Mean share of positive map energy on the pixels of the {artefact}, 95% intervals. {'; '.join(said)}."
    )


def effects_figure(effects: Sequence[ArtefactEffect], title: str = "") -> DescribedFigure:
    """What each artefact does to a run: how far it moves the risk, with the verdict, and how often it flips the answer.

    Parts of fewer than ten cases are counted, not drawn.

    Args:
        effects: of one run, an artefact each.
        title: above the figure.

    Raises:
        ValueError: if there is none.
    """
    if not effects:
        raise ValueError("effects: expected at least one, got none")
    said, marks = [], {ALL: (-0.17, VERMILLION, "o"), OFF: (0.17, BLUE, "s")}
    with kit_figure(WIDTH, 2.0 + 0.95 * len(effects) + 0.4 * bool(title)) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        left.axvspan(-MAX_RISK, MAX_RISK, color=GREEN, alpha=0.18, linewidth=0)
        for y, effect in enumerate(effects):
            for part, (shift, colour, marker) in marks.items():
                if (n := len(effect.rows(part))) < MIN_CASES:
                    left.text(0, y + shift, f"{n} cases: too few", color=colour, va="center", ha="center", fontsize=12)
                    continue
                found = effect.intervals(part)
                risk, flips, judged = found["risk"], found["flips"], verdict_on(found["risk"])
                for axes, one, text in (
                    (left, risk, f"{risk.value:+.3f}, {judged}"),
                    (right, flips, f"{flips.value:.1%} of {n}"),
                ):
                    middle = (one.value, y + shift)
                    axes.errorbar(*middle, xerr=_ends(one), fmt=marker, color=colour, capsize=5, markersize=10)
                    above = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center"}
                    axes.annotate(text, middle, **above, fontsize=12, color=colour)
                said.append(f"{effect.artefact}, {part} ({n} cases): risk {risk:+.3f}, {judged}, flips {flips:.3f}")
        left.axvline(0, color=GREY, linewidth=1.5)
        left.set(ylim=(len(effects) - 0.4, -0.6), xlabel=f"mean change of risk (green: ± {MAX_RISK:g})")
        left.margins(x=0.18)
        right.set(xlabel="cases whose answer it flips", xlim=(-0.16 * (top := right.get_xlim()[1]), top))
        right.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        left.set_yticks(range(len(effects)), [effect.artefact for effect in effects], fontsize=15)
        for axes in (left, right):
            axes.grid(visible=False, axis="y")
        handles = [Line2D([], [], color=c, marker=m, linestyle="", markersize=10) for _, c, m in marks.values()]
        figure.legend(handles, ["all cases", "artefact does not touch the lesion"], loc="outside upper right", ncols=2)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=16)
    return describe(figure, f"{title or 'Effects'}, with 95% intervals over groups. {'; '.join(said)}. {NOT_FOR_DIAGNOSIS}")
