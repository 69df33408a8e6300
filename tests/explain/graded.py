"""A league of heatmaps from grades made up, so that every verdict is known beforehand."""

import numpy as np
import pandas as pd

from melanoma_lib.explain.league import League, score_table

LAYERS, METHODS, CONTROLS = ["early", "late"], ["gradcam", "eigencam"], ["random", "edges", "centre", "uniform", "outline"]
NOTHING = np.nan
# Of each score the level of gradcam early and late, eigencam early and late, then of the controls; the noise is a tenth.
LEVELS = {
    "energy_in_mask": [0.30, 0.70, 0.45, 0.40, 0.20, 0.45, 0.45, 0.30, 1.00],
    "energy_beyond_centred": [-0.20, -0.10, 0.00, -0.10, -0.40, -0.10, 0.00, 0.00, 0.20],
    "deletion_insertion": [0.50, 0.80, 0.10, -0.50, 0.10, 0.40, 0.10, 0.00, 0.30],
    "class_swap": [-1.00, -1.00, 1.00, 1.00, 0.00, 1.00, 1.00, NOTHING, NOTHING],
    "cascade:head": [0.50, 0.50, 1.00, 1.00, 0.00, 1.00, 1.00, NOTHING, NOTHING],
    "cascade:stem": [0.00, 0.00, 0.00, 0.90, 0.00, 1.00, 1.00, NOTHING, NOTHING],
    "stranger": [0.10, 0.10, 0.10, 0.10, 0.00, 0.10, 1.00, NOTHING, 0.50],
}
SMALL = {"class_swap", "cascade:head", "cascade:stem", "stranger"}  # correlations, which hardly vary here
EVEN = ["centre", "uniform"]  # of these energy beyond themselves centred is nothing, on every case


def graded_league(*left_out: str, n: int = 60, fewer: int = 30, groups: int = 30) -> League:
    """Verdicts: energy, gradcam late wins, the early one loses; itself centred, nobody wins; deletion/insertion, both gradcam win
    and so do edges, eigencam late loses, noise is not told apart; eigencam ignores the class, its late map the model.

    Args:
        left_out: scores nobody was asked.
        n: cases.
        fewer: cases of deletion/insertion.
        groups: among which the cases are spread evenly.
    """
    rng = np.random.default_rng(0)
    contestants = [(layer, method) for method in METHODS for layer in LAYERS] + [("", name) for name in CONTROLS]
    grades = {}
    for score, levels in LEVELS.items():
        values = np.array(levels) + rng.normal(0, 0.001 if score in SMALL else 0.1, (n, len(levels)))
        if score == "energy_beyond_centred":
            values[:, [contestants.index(("", name)) for name in EVEN]] = 0
        if score == "deletion_insertion":
            values[fewer:] = np.nan
        if score not in left_out:
            grades[score] = values
    order = pd.Series(np.arange(n))
    scores = score_table(grades, contestants, order % 2, order % groups, 400)
    facts = {
        "run": "made-up", "n": n, "melanomas": n // 2, "groups": groups, "layers": LAYERS, "methods": METHODS,
        "n_faithful": fewer, "n_road": 0, "n_sanity": n,
    }  # fmt: skip
    return League(facts, scores)
