"""How the cost of an evaluation grows with the number of predictions, against n log n.

In processor time: on a shared machine the long runs are interrupted and the short ones not, which would bend every curve.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from melanoma_lib.bench.rates import ROUNDS, in_words, timed, verdict
from melanoma_lib.evaluation import DescribedFigure, OperatingCurve, bootstrap_replicates, describe, kit_figure
from melanoma_lib.evaluation.canvas import BLUE, GREEN, GREY, VERMILLION

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
N_ASKED = 200  # thresholds a round
N_REPLICATES = 20  # resamples a round
SMALLEST_ROUND = 20_000  # predictions: small curves are built several times a round, or the clock would be all one sees
BUILD, ASK, RESAMPLE = "build the curve", "ask one threshold", f"resample {N_REPLICATES} times"


@dataclass(frozen=True)
class Growth:
    """Seconds of each piece of work at each size, medians over rounds.

    Attributes:
        sizes: numbers of predictions, ascending, shape ``(S,)``.
        seconds: work to its seconds at each size, shape ``(S,)``.
    """

    sizes: Sequence[int]
    seconds: dict[str, list[float]]

    def line(self, work: str) -> np.ndarray:
        """Seconds at each size, ``(S,)``, had they grown as n log n from the smallest size on."""
        cost = np.array(self.sizes) * np.log(self.sizes)
        return self.seconds[work][0] * cost / cost[0]

    def worst(self, work: str) -> float:
        """The most that the seconds at a larger size are of what n log n from the smallest size allows."""
        return float((np.array(self.seconds[work]) / self.line(work))[1:].max())

    def __str__(self) -> str:
        """A table with the sizes across."""
        lines = ["".join([f"{'processor time at n predictions':32}", *(f"{n:>11,}" for n in self.sizes), f"{'/ n log n':>12}"])]
        for work, seconds in self.seconds.items():
            times = "".join(f"{in_words(duration):>11}" for duration in seconds)
            lines.append(f"{work:32}{times}{self.worst(work):>12.2f}  {verdict(self.worst(work) <= 1)}")
        lines.append(
            "/ n log n: the most that a larger n costs of what n log n from the first column on allows; the goal is at most 1"
        )
        return "\n".join(lines)


def measure_growth(cases_of: Callable[[int], tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Growth:
    """Time curve, threshold and bootstrap at each size, the sizes taking turns.

    Args:
        cases_of: from a number of predictions to their targets, scores and groups.
    """
    cases = {n: cases_of(n) for n in SIZES}
    rounds: dict[str, dict[int, list[float]]] = {work: {n: [] for n in SIZES} for work in (BUILD, RESAMPLE, ASK)}
    for _ in range(ROUNDS):
        for n, (targets, scores, groups) in cases.items():
            builds, threshold = max(1, SMALLEST_ROUND // n), float(np.median(scores))
            curve = OperatingCurve(targets, scores)
            work = {
                BUILD: (builds, lambda t=targets, s=scores: OperatingCurve(t, s)),
                RESAMPLE: (1, lambda t=targets, s=scores, g=groups, h=threshold: bootstrap_replicates(t, s, g, h, N_REPLICATES)),
                ASK: (N_ASKED, lambda c=curve, h=threshold: c.at(h)),
            }
            for name, (times, action) in work.items():
                rounds[name][n].append(timed(lambda a=action, k=times: [a() for _ in range(k)], time.process_time) / times)
    return Growth(SIZES, {name: [median(kept) for kept in by_size.values()] for name, by_size in rounds.items()})


def growth_figure(growth: Growth) -> DescribedFigure:
    """Seconds against the number of predictions, both axes logarithmic, with n log n from each first point on."""
    with kit_figure(8.0, 6.0) as figure:
        axes = figure.add_subplot()
        said = []
        for (name, seconds), color, marker in zip(growth.seconds.items(), (BLUE, VERMILLION, GREEN), "os^", strict=True):
            axes.plot(growth.sizes, growth.line(name), "--", color=GREY, linewidth=1.2)
            axes.plot(growth.sizes, seconds, marker=marker, color=color)
            axes.annotate(name, (growth.sizes[-1], seconds[-1]), (8, 0), textcoords="offset points", color=color, va="center")
            ends = [f"{in_words(seconds[i])} at {growth.sizes[i]:,}" for i in (0, -1)]
            said.append(f"to {name} takes {' and '.join(ends)}, at most {growth.worst(name):.2f} of n log n from the first point")
        axes.plot([], [], "--", color=GREY, linewidth=1.2, label="n log n from the first point")
        axes.set(xscale="log", yscale="log", xlabel="predictions, n", ylabel="processor time (s)")
        axes.set_title("What an evaluation costs")
        axes.legend(loc="upper left")
    return describe(figure, f"Processor time against number of predictions, both axes logarithmic: {'; '.join(said)}.")
