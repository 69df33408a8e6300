"""How much of an AUROC is luck: interval, wrong order of two models and best of many, from the number of melanomas alone."""

import math
from collections.abc import Mapping

import numpy as np
import traitlets

from melanoma_lib.plotting import GREY, VERMILLION, DescribedFigure, draw_table, kit_figure, with_alt_text
from melanoma_lib.widgets.base import HERE, Explorer, script

Z = 1.959963984540054  # of a two-sided 95% interval
FINE = 0.02  # half an interval that one would like to report
MOST = 10**7  # melanomas looked for
GRID = np.linspace(-9.0, 9.0, 721)  # of the integral behind the best of many
# What is independent in published test sets, not images: units with a melanoma, and units without for each of them.
# HAM10000 names lesions: 614 with a melanoma and 6,856 without, on 1,113 and 8,902 images; a split of 15% of the images (seed 0)
# tests 95 and 1,041 of them. ISIC 2020 names patients: 428 with a melanoma and 1,628 without, on 584 and 32,542 images.
PLACES = {
    "HAM10000, one split of 15%": (95, 11.0),
    "HAM10000, every lesion once": (614, 11.2),
    "ISIC 2020, every patient once": (428, 3.8),
}
LIMITS = {
    "melanomas": (5, 5000), "ratio": (0.5, 100.0), "auroc": (0.6, 0.99),
    "gap": (0.0, 0.1), "alike": (0.0, 0.95), "tries": (1, 200),
}  # fmt: skip


def auroc_error(auroc: float, n_melanomas: float, n_others: float) -> float:
    """Standard error of an AUROC from its size and the number of cases alone.

    Args:
        auroc: in [0.5, 1].
        n_melanomas: independent ones, at least 1.
        n_others: independent other lesions, at least 1.

    Raises:
        ValueError: if a number is out of range.

    Source: Bamber 1975 for the variance; the chance that one lesion beats two of the other class is that of normal scores of
    equal spread. Hanley and McNeil 1982 take exponential scores, and come out too wide where one class is much the rarer.
    """
    if not 0.5 <= auroc <= 1 or min(n_melanomas, n_others) < 1:
        raise ValueError(
            f"expected an AUROC in [0.5, 1] and at least 1 case of each class; got {auroc}, {n_melanomas}, {n_others}"
        )
    spread = auroc * (1 - auroc) + (n_melanomas + n_others - 2) * _pairs(auroc)
    return math.sqrt(spread / (n_melanomas * n_others))


def melanomas_for(half_width: float, auroc: float, ratio: float) -> int:
    """Melanomas that a test must hold for a 95% interval of ``auroc`` plus or minus ``half_width``.

    Args:
        half_width: above 0.
        auroc: in [0.5, 1).
        ratio: other lesions for each melanoma, above 0.
    """
    pairs, wanted = _pairs(auroc), ratio * (half_width / Z) ** 2
    # wanted m^2 - (1 + ratio) pairs m - (auroc (1 - auroc) - 2 pairs) = 0
    linear, constant = (1 + ratio) * pairs, auroc * (1 - auroc) - 2 * pairs
    return math.ceil((linear + math.sqrt(linear**2 + 4 * wanted * constant)) / (2 * wanted))


def _pairs(auroc: float) -> float:
    """How much likelier one lesion beats two of the other class than by two independent wins: ``∫ φ(x) Φ(x + d)^2 dx - A^2``."""
    from scipy.special import ndtr, ndtri

    if auroc == 1:
        return 0.0
    density = np.exp(-(GRID**2) / 2) / math.sqrt(2 * math.pi)
    shift = math.sqrt(2) * ndtri(auroc)
    return float(np.sum(density * ndtr(GRID + shift) ** 2) * (GRID[1] - GRID[0])) - auroc**2


def gap_error(auroc: float, gap: float, alike: float, n_melanomas: float, n_others: float) -> float:
    """Standard error of the difference of two AUROCs on the same cases.

    Args:
        auroc: of the better model.
        gap: by how much the other one is worse, at least 0.
        alike: correlation of both AUROCs over test sets, in [0, 1).
        n_melanomas: of the test.
        n_others: of the test.

    Source: Hanley and McNeil 1983.
    """
    better, worse = (auroc_error(value, n_melanomas, n_others) for value in (auroc, auroc - gap))
    return math.sqrt(better**2 + worse**2 - 2 * alike * better * worse)


def expected_maximum(n: int) -> float:
    """Mean of the largest of ``n`` independent standard normal numbers: ``∫ x n φ(x) Φ(x)^(n - 1) dx``, by the trapezoid rule."""
    from scipy.special import ndtr

    density = np.exp(-(GRID**2) / 2) / math.sqrt(2 * math.pi)
    return float(np.sum(GRID * n * density * ndtr(GRID) ** (n - 1)) * (GRID[1] - GRID[0]))


def luck_state(melanomas: int, ratio: float, auroc: float, gap: float, alike: float, tries: int) -> dict[str, float]:
    """Everything the page says of one test set and two models whose true AUROCs are known.

    Estimates are taken to be normal around the truth, and lesions to be independent: with several images of a lesion or patient,
    count these instead.

    Args:
        melanomas: in the test.
        ratio: other lesions for each melanoma.
        auroc: true one of the better model.
        gap: by how much the other model is worse.
        alike: correlation of both models' AUROCs over test sets.
        tries: splits of which the best one is reported.

    Returns:
        ``error`` and ``half_width`` of the better model's AUROC; ``gap_error``; ``wrong``: share of test sets that put the worse
        model first; ``power``: share of those whose 5% test finds a difference; ``best``: what the best of ``tries`` splits
        shows on average; ``fine``: melanomas for a half width of 0.02; ``found``: melanomas for a power of 80%, infinite
        without a gap.
    """
    from scipy.special import ndtr

    others = melanomas * ratio
    error, between = auroc_error(auroc, melanomas, others), gap_error(auroc, gap, alike, melanomas, others)
    return {
        "error": error,
        "half_width": Z * error,
        "gap_error": between,
        "wrong": float(ndtr(-gap / between)),
        "power": float(ndtr(gap / between - Z) + ndtr(-gap / between - Z)),
        "best": min(1.0, auroc + error * expected_maximum(tries)),
        "fine": melanomas_for(FINE, auroc, ratio),
        "found": _melanomas_to_find(auroc, gap, alike, ratio),
    }


def _melanomas_to_find(auroc: float, gap: float, alike: float, ratio: float) -> float:
    """The fewest melanomas for which a 5% test finds the gap with a chance of 80%, by halving; infinite beyond `MOST`."""
    wanted = 2.801585218106783  # z of 97.5% and of 80%; the other tail of the test adds nothing that shows
    low, high = math.ceil(max(1.0, 1.0 / ratio)), MOST
    if gap < wanted * gap_error(auroc, gap, alike, high, high * ratio):
        return math.inf
    while low < high:
        middle = (low + high) // 2
        if gap >= wanted * gap_error(auroc, gap, alike, middle, middle * ratio):
            high = middle
        else:
            low = middle + 1
    return low


class LuckExplorer(Explorer):
    """Sliders for a test set and two models; the page shows what a single split may say of them.

    All arithmetic is done in the page, so that it also moves in a file without a kernel (:meth:`save_page`).

    Args:
        melanomas: in the test, 5 to 5,000; independent ones.
        ratio: other lesions for each melanoma, 0.5 to 100.
        auroc: true AUROC of the better model, 0.6 to 0.99.
        gap: by how much the other model is worse, 0 to 0.1.
        alike: correlation of both AUROCs over test sets, 0 to 0.95; models that err on the same lesions are alike.
        tries: splits of which somebody reports the best, 1 to 200.
        places: further test sets to choose from: melanomas and other lesions for each of them, by name; like all counts here
            of independent units, so of lesions or patients, each once.

    Raises:
        traitlets.TraitError: if a value is out of range.
    """

    _esm = script("plot.js", "luck_numbers.js", "luck.js")
    _css = Explorer._css + (HERE / "luck.css").read_text(encoding="utf-8")
    alone = traitlets.Dict(default_value={}, allow_none=True).tag(sync=True)
    melanomas = traitlets.Int(50, min=5, max=5000).tag(sync=True)
    ratio = traitlets.Float(8.0, min=0.5, max=100.0).tag(sync=True)
    auroc = traitlets.Float(0.9, min=0.6, max=0.99).tag(sync=True)
    gap = traitlets.Float(0.01, min=0.0, max=0.1).tag(sync=True)
    alike = traitlets.Float(0.7, min=0.0, max=0.95).tag(sync=True)
    tries = traitlets.Int(10, min=1, max=200).tag(sync=True)
    places = traitlets.Dict().tag(sync=True)
    limits = traitlets.Dict(default_value={name: list(ends) for name, ends in LIMITS.items()}).tag(sync=True)

    def __init__(
        self,
        melanomas: int = 50,
        ratio: float = 8.0,
        auroc: float = 0.9,
        gap: float = 0.01,
        alike: float = 0.7,
        tries: int = 10,
        places: Mapping[str, tuple[int, float]] | None = None,
    ) -> None:
        super().__init__(melanomas=melanomas, ratio=ratio, auroc=auroc, gap=gap, alike=alike, tries=tries)
        self.places = {name: [int(count), float(others)] for name, (count, others) in {**(places or {}), **PLACES}.items()}

    @property
    def state(self) -> dict[str, float]:
        """What the page says, as `luck_state` has it."""
        return luck_state(self.melanomas, self.ratio, self.auroc, self.gap, self.alike, self.tries)

    def presets_figure(self) -> DescribedFigure:
        """Interval, wrong order and best of many against the number of melanomas, and each place in a table below."""
        counts = np.unique(np.geomspace(10, 5000, 60).round().astype(int))
        models = self.auroc, self.gap, self.alike, self.tries
        drawn = [luck_state(int(count), self.ratio, *models) for count in counts]
        rows = {name: luck_state(count, others, *models) for name, (count, others) in self.places.items()}
        panels_of = {
            "half_width": ("95% interval: ±", FINE, f"±{FINE:g}: from\n{drawn[0]['fine']:,} melanomas on"),
            "wrong": (f"worse by {self.gap:g}, yet first", 0.5, "a coin"),
            "best": (f"best of {self.tries} splits reports", self.auroc, f"the truth, {self.auroc:g}"),
        }
        with kit_figure(12.8, 7.2) as figure:
            panels = figure.subplot_mosaic([list(panels_of), ["table"] * 3], height_ratios=(2.1, 1))
            for name, (title, level, words) in panels_of.items():
                panels[name].plot(counts, [state[name] for state in drawn], color=VERMILLION)
                panels[name].axhline(level, color=GREY, linestyle="--", linewidth=1.4, label=words)
                panels[name].legend(loc="center right")
                panels[name].set(title=title, xscale="log", xlabel="melanomas in the test")
                panels[name].set_xticks([10, 100, 1000], ["10", "100", "1,000"])
            heads = [
                "test set; a lesion or\npatient counts once",
                "melanomas",
                *(title.replace(" splits", "\nsplits").replace(", ", ",\n") for title, *_ in panels_of.values()),
            ]
            cells = [
                [name, f"{self.places[name][0]:,}", f"±{row['half_width']:.3f}", f"{row['wrong']:.1%}", f"{row['best']:.3f}"]
                for name, row in rows.items()
            ]
            draw_table(panels["table"], heads, cells, [0.36, *[0.64 / 4] * 4])
        said = "; ".join(f"{name}, {count} melanomas: {half}, wrong order in {wrong}" for name, count, half, wrong, _ in cells)
        return with_alt_text(
            figure,
            f"Luck of a test set, at a true AUROC of {self.auroc:g} and another model worse by {self.gap:g}: half the width of "
            f"the interval, share of wrong orders and the best of {self.tries} splits, against the number of melanomas. {said}.",
        )
