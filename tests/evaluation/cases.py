"""Answers and scores that tests share: random, tied, duplicated, extreme."""

import numpy as np
import pandas as pd
from hypothesis import strategies as st

GRID = st.sampled_from([-2.5, -0.0, 0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 3.0])
ANY = st.floats(-1e6, 1e6, allow_nan=False)
UNIT = st.sampled_from([0.0, 1e-9, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]) | st.floats(0, 1)


@st.composite
def predictions(draw, scores=GRID | ANY, n_scores=1):
    """Targets with both classes in any order, and one or more arrays of scores with many ties."""
    extra = draw(st.lists(st.booleans(), max_size=40))
    targets = np.array(draw(st.permutations([True, False, *extra])), dtype=int)
    columns = [
        np.array(draw(st.lists(scores, min_size=targets.size, max_size=targets.size)), dtype=float) for _ in range(n_scores)
    ]
    return (targets, *columns)


def clustered(n_groups, per_group, seed, prevalence=0.3, effect=1.0):
    """Groups of ``per_group`` nearly identical images: the case in which images are not independent."""
    rng = np.random.default_rng(seed)
    melanoma = rng.random(n_groups) < prevalence
    melanoma[:2] = [True, False]
    centre = effect * melanoma + rng.normal(size=n_groups)
    groups = np.repeat(np.arange(n_groups), per_group)
    scores = centre[groups] + 0.2 * rng.normal(size=groups.size)
    return melanoma[groups].astype(int), scores, groups


def prediction_table(n=400, seed=0):
    """A predictions table as a run writes it, with metadata: miscalibrated logits, missing sex, age and site."""
    rng = np.random.default_rng(seed)
    lesion = rng.integers(0, n // 2, n)
    melanoma = rng.random(n // 2) < 0.25
    logit = 1.5 * melanoma[lesion] + rng.normal(size=n // 2)[lesion] + 0.3 * rng.normal(size=n)
    return pd.DataFrame(
        {
            "image_id": [f"ISIC_{i:07d}" for i in range(n)],
            "group_id": [f"HAM_{i:07d}" for i in lesion],
            "target": melanoma[lesion].astype(int),
            "logit": logit,
            "probability": 1 / (1 + np.exp(-logit)),
            "risk": 1 / (1 + np.exp(-(1.4 * logit - 2))),
            "sex": rng.choice(["female", "male", None], n, p=[0.45, 0.45, 0.1]),
            "age_approx": np.where(rng.random(n) < 0.1, np.nan, rng.integers(1, 18, n) * 5.0),
            "anatom_site_general_challenge": rng.choice(["torso", "head/neck", None], n, p=[0.6, 0.3, 0.1]),
        }
    )
