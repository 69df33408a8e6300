"""What the benchmarks share: contenders that take turns in one process, and how long each takes beside the kit.

On a shared machine only ratios within a round mean something, so a table shows the median over rounds of such ratios.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from melanoma_lib.settings import Settings


def options(text: str, words: Sequence[str] | None, **defaults: int | str) -> argparse.Namespace:
    """Read a command line on which each default is a flag of its type, such as ``--image-size 128``."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help=f"default {value or 'none'}")
    return parser.parse_args(words)


def small_settings(folder: str, **options) -> Settings:
    """Settings of a run on synthetic cases, all of whose files lie in this folder."""
    places = {f"{name}_dir": f"{folder}/{name}" for name in ("data", "run", "cache")}
    fixed = {"source": "synthetic", "sampler": "plain", "small_epochs": 0, "pretrained": False, "progress": False}
    return Settings(**places, **fixed, **options, batch_size=16, n_resamples=100)


def take_turns(what: str, contenders: Mapping[str, Callable], rounds: int) -> pd.DataFrame:
    """Print and return the seconds of each contender, a row a round."""
    seconds = []
    for _ in range(1 + rounds):  # the first round warms caches up
        row = {}
        for name, action in contenders.items():
            start = time.perf_counter()
            action()
            row[name] = time.perf_counter() - start
        seconds.append(row)
    return printed(what, pd.DataFrame(seconds[1:]))


def printed(what: str, seconds: pd.DataFrame) -> pd.DataFrame:
    """Print milliseconds of each contender and, within rounds, how many times as long as the first one each took."""
    columns = {"median ms": 1000 * seconds.median(), "least": 1000 * seconds.min(), "most": 1000 * seconds.max()}
    shown = pd.DataFrame(columns).assign(**{"times the first": seconds.div(seconds.iloc[:, 0], axis=0).median()})
    print(f"{what}, {len(seconds)} rounds\n{shown.to_string(float_format='{:,.2f}'.format)}\n", flush=True)
    return seconds
