"""What all benchmarks share: rounds in which the contenders take turns, and the ratio of the kit to each peer."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

ROUNDS = 7
Result = TypeVar("Result")


@dataclass(frozen=True)
class Rates:
    """Images a second of each contender, one number a round.

    Attributes:
        title: what was measured.
        rates: contender to its rounds; the first is the kit.
        goal: how many times as fast as every peer the kit should be; 0 for no goal.
    """

    title: str
    rates: dict[str, list[float]]
    goal: float = 0.0

    def ratio(self, peer: str) -> float:
        """Median over rounds of the kit's rate over the peer's in the same round."""
        kit = next(iter(self.rates.values()))
        return median(mine / theirs for mine, theirs in zip(kit, self.rates[peer], strict=True))

    def __str__(self) -> str:
        """A table."""
        lines = [self.title, f"{'':44}{'images/s':>10}{'range':>16}{'kit / this':>12}"]
        for name, rounds in self.rates.items():
            spread = f"{min(rounds):.0f}-{max(rounds):.0f}"
            lines.append(f"{name:44}{median(rounds):10.1f}{spread:>16}{self.ratio(name):12.2f}")
        if self.goal:
            met = all(self.ratio(peer) >= self.goal for peer in list(self.rates)[1:])
            lines.append(f"goal: at least {self.goal:g} times as fast: {verdict(met)}")
        return "\n".join(lines)


def verdict(met: bool) -> str:
    """How a table says whether a goal is reached."""
    return "met" if met else "MISSED"


def timed(action: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds that an action takes by a clock."""
    start = clock()
    action()
    return clock() - start


def result_and_seconds(action: Callable[[], Result]) -> tuple[Result, float]:
    """What an action returns, and the seconds it takes."""
    results: list[Result] = []
    seconds = timed(lambda: results.append(action()))
    return results[0], seconds


def in_words(seconds: float) -> str:
    """A duration in the unit that suits it."""
    factor, unit = next((pair for pair in ((1, "s"), (1e3, "ms")) if seconds * pair[0] >= 1), (1e6, "µs"))
    return f"{seconds * factor:.3g} {unit}"
