import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from melanoma_lib.data import DermoscopyDataModule, MetadataEncoder
from melanoma_lib.data.schema import MAX_AGE, SEXES, SITES, TEXT, validate_cases
from melanoma_lib.errors import DataError
from melanoma_lib.settings import Settings
from tests.data.builders import case_table

AGE = st.none() | st.floats(0, MAX_AGE)
CASE = st.tuples(AGE, st.sampled_from([None, *SEXES]), st.sampled_from([None, *SITES]))
CASES = st.lists(CASE, min_size=1, max_size=20)


def table(rows) -> pd.DataFrame:
    """The columns that the encoder reads, typed as in a case table."""
    ages, sexes, sites = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            "age_approx": pd.Series(ages, dtype="float64"),
            "sex": pd.Series(sexes, dtype=TEXT),
            "anatom_site_general_challenge": pd.Series(sites, dtype=TEXT),
        }
    )


@given(CASES, CASES)
def test_equals_pandas_dummies_and_the_scaler_of_scikit_learn(training, others):
    train, cases = table(training), table(others)
    encoder = MetadataEncoder.fit(train)
    encoded = pd.DataFrame(encoder.transform(cases), columns=encoder.columns)

    known = train["age_approx"].dropna().to_numpy()
    scaler = StandardScaler().fit(known.reshape(-1, 1) if len(known) else [[-1.0], [1.0]])
    scaled = scaler.transform(cases["age_approx"].to_numpy().reshape(-1, 1))[:, 0]
    # Scikit-learn calls a spread constant only below rounding error; a hundredth of a second of age is constant here.
    if len(known) == 0 or np.ptp(known) == 0 or np.ptp(known) > 1e-3:
        np.testing.assert_allclose(encoded["age"], np.nan_to_num(scaled), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(encoded["age missing"], cases["age_approx"].isna())
    for column, prefix, names in (("sex", "sex", SEXES), ("anatom_site_general_challenge", "site", SITES)):
        dummies = pd.get_dummies(cases[column].astype(object).fillna("missing")).reindex(
            columns=[*names, "missing"], fill_value=False
        )
        ours = encoded[[*(f"{prefix}={name}" for name in names), f"{prefix} missing"]]
        np.testing.assert_array_equal(ours, dummies)


def test_the_data_module_fits_on_the_training_split_alone(tmp_path):
    rng = np.random.default_rng(0)
    cases = validate_cases(case_table(np.arange(200) % 4 == 0, age_approx=rng.integers(20, 80, 200).astype(float)))
    configured = Settings(modalities="metadata", cache_dir=tmp_path)
    first = DermoscopyDataModule(configured, cases)
    training = first.cases["split"] == "train"
    assert 0 < training.sum() < len(cases)
    ages = first.cases.loc[training, "age_approx"]
    assert (first.encoder.age_mean, first.encoder.age_std) == pytest.approx((ages.mean(), ages.std(ddof=0)))
    elsewhere = first.cases.assign(age_approx=first.cases["age_approx"].where(training, 119.0))
    assert DermoscopyDataModule(configured, elsewhere).encoder == first.encoder


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({"sex": "divers"}, "sex expects one of .*'female'.*'divers'"),
        ({"site": "tail"}, "anatom_site.*'head/neck'.*'tail'"),
        ({"age": MAX_AGE + 1}, r"age_approx expects years in \[0, 120\] or nothing, got 121"),
        ({"age": "old"}, "age_approx.*'old'"),
    ],
)
def test_an_unknown_value_is_an_error_that_shows_it_and_the_known_ones(case, message):
    with pytest.raises(DataError, match=message):
        MetadataEncoder(age_mean=50, age_std=10).encode(**case)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"age_std": 0}, "std 0"),
        ({"sites": list(reversed(SITES))}, "do not follow from its names"),
        ({"columns": ["age"]}, "do not follow from its names"),
        ({"age_mean": "old"}, "expected the JSON of a MetadataEncoder"),
    ],
)
def test_numbers_and_columns_that_cannot_be_are_an_error(change, named):
    values = json.loads(MetadataEncoder(50, 10).to_json())
    with pytest.raises(DataError, match=named):
        MetadataEncoder.from_json(json.dumps(values | change))
