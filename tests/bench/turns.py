"""What the benchmarks share: contenders that take turns in one process, and how long each takes beside the kit.

On a shared machine only ratios within a round mean something, so a table shows the median over rounds of such ratios.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence

import pandas as pd
from rich.progress import track

Contender = Callable[[int], object]  # is told the number of the round


def options(text: str, words: Sequence[str] | None, **defaults: int | str) -> argparse.Namespace:
    """Read a command line on which each default is a flag of its type, such as ``--image-size 128``."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help=f"default {value or 'none'}")
    return parser.parse_args(words)


def take_turns(what: str, contenders: Mapping[str, Contender], rounds: int, warm_up: int = 1) -> pd.DataFrame:
    """Seconds of each contender, a row a round; rounds that warm caches up come first and are left out."""
    seconds = []
    for number in track(range(-warm_up, rounds), description=what):
        row = {}
        for name, action in contenders.items():
            start = time.perf_counter()
            action(number)
            row[name] = time.perf_counter() - start
        seconds.append(row)
    return pd.DataFrame(seconds[warm_up:])


def table(what: str, seconds: pd.DataFrame, peer_over_kit: str = "times the kit's") -> str:
    """Milliseconds of each contender and, within rounds, how many times as long as the first one each took."""
    ratios = seconds.div(seconds.iloc[:, 0], axis=0)
    columns = {"median ms": seconds.median(), "least": seconds.min(), "most": seconds.max()}
    shown = (pd.DataFrame(columns) * 1000).assign(**{peer_over_kit: ratios.median()})
    return f"{what}, {len(seconds)} rounds\n{shown.to_string(float_format='{:,.2f}'.format)}\n"
