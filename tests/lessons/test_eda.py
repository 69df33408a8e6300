import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.text import Text

from melanoma_lib.data import SyntheticDermoscopy, audit_cases
from melanoma_lib.evaluation import resample_groups
from melanoma_lib.lessons import eda
from tests.data.builders import case_table

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


@pytest.mark.parametrize(("flags", "groups"), [([], []), ([1, 0], ["a"]), ([1, 0], ["a", None])])
def test_what_has_no_share_is_refused(flags, groups):
    with pytest.raises(ValueError, match="expected"):
        eda.grouped_share(flags, np.array(groups, dtype=object))


def test_the_rows_of_a_variable_count_every_image_once():
    for variable, column in (("sex", "sex"), ("site", SITE), ("acquisition", "acquisition"), ("age", None)):
        rows = eda.share_rows(CASES, variable)
        counts = np.array([[int(n.replace(",", "")) for n in row.note.split(" of ")] for row in rows])
        assert counts.sum(axis=0).tolist() == [CASES["target"].sum(), len(CASES)]
        if column:
            expected = CASES.groupby(CASES[column].fillna(eda.MISSING))["target"].mean()
            assert {row.label: row.marks[0][0].value for row in rows} == pytest.approx(expected.to_dict())
    assert [row.label for row in eda.share_rows(CASES, "age")][-1] == eda.MISSING


def test_the_unit_is_what_most_groups_are():
    assert eda.unit_of(CASES) == "patient"
    assert eda.unit_of(case_table([0, 1, 0], lesions=["a", "b", None])) == "lesion"
    assert eda.unit_of(case_table([0, 1])) == "image"


FIGURES = {
    "classes": lambda: eda.class_figure(CASES),
    "shares": lambda: eda.share_figure(CASES),
    "acquisition": lambda: eda.share_figure(CASES, ["acquisition"]),
    "missing": lambda: eda.missing_figure(CASES),
    "repeats": lambda: eda.repeats_figure(audit_cases(CASES, images=False, n_splits=1)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_described_and_legible_when_projected(name):
    legible(FIGURES[name]())


def legible(figure, words=5):
    """Assert what every figure of a lesson must be."""
    data, metadata = figure._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")
    assert metadata["image/png"]["alt"] == figure.alt_text
    assert len(figure.alt_text) > 50
    assert any(c.isdigit() for c in figure.alt_text)
    assert "nan" not in figure.alt_text.split()
    written = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    assert len(written) >= words
    assert min(text.get_fontsize() for text in written) >= 12
    assert figure.get_figwidth() <= eda.WIDTH  # wider ones scroll sideways or shrink in a notebook
    assert plt.get_fignums() == []
