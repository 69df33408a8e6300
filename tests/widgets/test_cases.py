import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binomtest

from melanoma_lib.data.schema import SEXES, SITES, validate_cases
from melanoma_lib.widgets.case_selection import FIELDS, filter_cases, note_outcomes, summary_of, worst_first
from melanoma_lib.widgets.cases import CaseExplorer
from tests.data.builders import case_table


def random_cases(seed: int, n: int = 60) -> pd.DataFrame:
    """A valid table with gaps everywhere the schema allows them, and labels that are no positions."""
    rng = np.random.default_rng(seed)

    def some(values, gap=0.2):
        return np.where(rng.random(n) < gap, None, rng.choice(values, n))

    target = rng.integers(0, 2, n)
    table = case_table(
        target,
        patients=some([f"p{i}" for i in range(n // 3)]),
        age_approx=np.where(rng.random(n) < 0.2, np.nan, rng.integers(0, 19, n) * 5.0),
        sex=some(SEXES),
        anatom_site_general_challenge=some(SITES[:3]),
        diagnosis=np.where(target == 1, "melanoma", "nevus"),
        split=rng.choice(["train", "val", "test"], n),
    )
    return validate_cases(table).sample(frac=1, random_state=seed).set_index(np.arange(n) * 7 + 3)


@pytest.fixture
def pictured(tmp_path) -> pd.DataFrame:
    """30 cases in random order with images; the second is corrupt, the third absent."""
    table = random_cases(1, 30)
    paths = [tmp_path / f"{name}.jpg" for name in table["image_id"]]
    for path in paths:
        Image.new("RGB", (60, 40)).save(path)
    paths[1].write_bytes(paths[1].read_bytes()[:200])
    paths[2].unlink()
    return table.assign(image_path=[str(path) for path in paths])


FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "target": st.sampled_from([0, 1]),
        "sex": st.sampled_from([*SEXES, "missing"]),
        "site": st.sampled_from([*SITES, "missing"]),
        "diagnosis": st.sampled_from(["nevus", "melanoma", "missing"]),
        "split": st.sampled_from(["train", "test", "missing"]),
        "age": st.sampled_from(["0 to 9", "40 to 49", "90 to 99", "120 to 129", "missing"]),
    },
)  # fmt: skip


@given(seed=st.integers(0, 20), filters=FILTERS)
def test_filters_agree_with_a_look_at_every_row(seed, filters):
    cases = random_cases(seed)

    def fits(name, value, wanted):
        if pd.isna(value) or wanted == "missing":
            return pd.isna(value) and wanted == "missing"
        return int(wanted.split()[0]) <= value <= int(wanted.split()[2]) if name == "age" else value == wanted

    rows = enumerate(cases.to_dict("records"))
    expected = [at for at, row in rows if all(fits(name, row[FIELDS[name]], wanted) for name, wanted in filters.items())]
    assert filter_cases(cases, **filters).tolist() == expected


@given(seed=st.integers(0, 30), threshold=st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_outcomes_and_the_worst_errors_agree_with_a_look_at_every_row(seed, threshold):
    cases = random_cases(seed)
    rng = np.random.default_rng(seed)
    cases = cases.assign(probability=np.where(rng.random(len(cases)) < 0.1, np.nan, rng.random(len(cases)).round(1)))
    noted = note_outcomes(cases, threshold)
    names = {(1, False): "false negative", (0, True): "false positive", (1, True): "true positive", (0, False): "true negative"}
    answers = zip(cases["target"], cases["probability"], strict=True)
    expected = [None if math.isnan(p) else names[target, p >= threshold] for target, p in answers]
    assert noted["outcome"].tolist() == expected
    rows = worst_first(noted, filter_cases(noted))
    assert sorted(rows) == list(range(len(cases)))
    kinds = [expected[row] for row in rows]
    for kind in ("false negative", "false positive"):
        misses = [abs(cases["probability"].iloc[row] - threshold) for row, one in zip(rows, kinds, strict=True) if one == kind]
        assert misses == sorted(misses, reverse=True)
    place = {"false negative": 0, "false positive": 1, "true positive": 2, "true negative": 2, None: 3}
    assert [place[one] for one in kinds] == sorted(place[one] for one in kinds)


def test_interval_counts_patients_not_images():
    low, high = binomtest(2, 7).proportion_ci(method="wilson")
    for times in (1, 2):  # more images of the same people prove nothing
        cases = case_table([1, 1, 0, 0, 0, 0, 0] * times, patients=list("abcdefg") * times)
        expected = f"{2 * times} melanoma = {2 / 7:.1%} (95% confidence interval {low:.1%} to {high:.1%})"
        assert expected in summary_of(cases, filter_cases(cases))


def shown(explorer: CaseExplorer) -> list[str]:
    return [tile["image_id"] for tile in explorer.view["tiles"]]


def test_filters_and_pages_reach_the_view(pictured):
    explorer = CaseExplorer(pictured, page_size=4)
    explorer.page = 3
    explorer.filters = {"target": 0}
    rows = filter_cases(pictured, target=0)
    assert explorer.page == 1 and shown(explorer) == pictured["image_id"].iloc[rows[:4]].tolist()
    assert explorer.view["text"] == summary_of(pictured, rows, by_label=True)
    assert "%" not in explorer.view["text"]  # a share of melanoma among cases chosen by it
    explorer.page = 999
    assert explorer.page == math.ceil(len(rows) / 4) and shown(explorer)[-1] == pictured["image_id"].iloc[rows[-1]]


def test_absent_and_corrupt_files_get_tiles_of_their_own(pictured, tmp_path):
    good, corrupt, absent = CaseExplorer(pictured).view["tiles"][:3]
    assert good["picture"] and corrupt["picture"] is absent["picture"] is None
    assert (good["problem"], absent["problem"]) == ("", "image not downloaded")
    assert corrupt["problem"].startswith(f"cannot be read: {corrupt['image_id']}.jpg: expected")
    assert str(tmp_path) not in corrupt["problem"]


def test_a_page_without_a_kernel_gets_images_of_both_classes_worst_errors_first(pictured):
    data, metadata = CaseExplorer(pictured.assign(probability=0.5), threshold=0.5)._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")
    assert metadata["image/png"]["alt"].startswith("6 melanomas and 6 other lesions")


def test_a_failed_answer_is_shown_and_raised(pictured):
    explorer = CaseExplorer(pictured, page_size=4)
    with pytest.raises(ValueError, match="sex 'both' is not known"):
        explorer.filters = {"sex": "both"}
    assert "sex 'both'" in explorer.problem
    explorer.filters = {"sex": "male"}
    assert explorer.problem == ""
