import numpy as np
import pytest

from melanoma_lib.data import SyntheticDermoscopy
from melanoma_lib.evaluation import resample_groups
from melanoma_lib.lessons import eda

CASES = SyntheticDermoscopy(n_patients=150).cases
SITE = "anatom_site_general_challenge"


def clustered(n_groups, seed=0, spread=1.5):
    """Flags that groups share in part, and the groups."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 12, n_groups)
    groups = np.repeat(np.arange(n_groups), sizes)
    chance = 1 / (1 + np.exp(1.5 - spread * rng.normal(size=n_groups)))
    return rng.random(groups.size) < chance[groups], groups


@pytest.mark.parametrize("spread", [0.0, 1.5, 4.0])
def test_the_interval_is_as_wide_as_resampling_groups_makes_it(spread):
    flags, groups = clustered(300, spread=spread)
    interval = eda.grouped_share(flags, groups)
    hits, sizes = np.bincount(groups, flags), np.bincount(groups)
    weights = np.concatenate(list(resample_groups(300, 4000, 0, 500)))
    low, high = np.quantile(weights @ hits / (weights @ sizes), [0.025, 0.975])
    assert interval.high - interval.low == pytest.approx(high - low, rel=0.08)
    assert interval.low == pytest.approx(low, abs=0.008)
    assert interval.high == pytest.approx(high, abs=0.008)


def test_the_rows_of_a_variable_count_every_image_once():
    for variable, column in (("sex", "sex"), ("site", SITE), ("acquisition", "acquisition"), ("age", None)):
        rows = eda.share_rows(CASES, variable)
        counts = np.array([[int(n.replace(",", "")) for n in row.note.split(" of ")] for row in rows])
        assert counts.sum(axis=0).tolist() == [CASES["target"].sum(), len(CASES)]
        if column:
            expected = CASES.groupby(CASES[column].fillna(eda.MISSING))["target"].mean()
            assert {row.label: row.marks[0][0].value for row in rows} == pytest.approx(expected.to_dict())
    assert [row.label for row in eda.share_rows(CASES, "age")][-1] == eda.MISSING
