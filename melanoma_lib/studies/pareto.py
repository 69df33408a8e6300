"""Worth against cost: which networks no other beats in both."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from melanoma_lib.errors import StudyError
from melanoma_lib.evaluation.canvas import BLUE, GREEN, GREY, VERMILLION, DescribedFigure, describe, kit_figure
from melanoma_lib.studies.backbones_words import METADATA
from melanoma_lib.studies.results import ResultTable, interval_text


def front(costs: Sequence[float], worths: Sequence[float]) -> list[int]:
    """Positions of those that nobody beats: none is as cheap and better, or as good and cheaper; by rising cost."""
    order = sorted(range(len(costs)), key=lambda i: (costs[i], -worths[i]))
    kept: list[int] = []
    for i in order:
        if not kept or worths[i] > worths[kept[-1]]:
            kept.append(i)
        elif worths[i] == worths[kept[-1]] and costs[i] == costs[kept[-1]]:
            kept.append(i)
    return kept
