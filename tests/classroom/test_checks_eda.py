import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit, StratifiedGroupKFold, StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from melanoma_lib.classroom import checks_eda
from melanoma_lib.classroom.checks import NotYet
from melanoma_lib.data import MetadataEncoder, SyntheticDermoscopy, validate_cases

CASES = SyntheticDermoscopy(n_patients=300).cases
FIELDS = ["age_approx", "sex", "anatom_site_general_challenge"]


def folds(n=5, groups="group_id", y="target", shuffle=True):
    def split(cases, seed):
        splitter = StratifiedGroupKFold(n, shuffle=shuffle, random_state=seed if shuffle else None)
        return next(splitter.split(cases, cases[y] if y else np.zeros(len(cases)), cases[groups]))

    return split


def of(splitter, groups=None):
    def split(cases, seed):
        splitter.random_state = seed
        return next(splitter.split(cases, cases["target"], cases[groups] if groups else None))

    return split


RIGHT = {
    "positions": folds(),
    "lists": lambda cases, seed: [part.tolist() for part in folds()(cases, seed)],
    "masks": lambda cases, seed: [np.isin(np.arange(len(cases)), part) for part in folds()(cases, seed)],
}
WRONG = {
    "nothing": (lambda cases, seed: None, "expected two arrays"),
    "three parts": (lambda cases, seed: (np.arange(2),) * 3, "expected two arrays"),
    "tables": (lambda cases, seed: tuple(cases.iloc[part] for part in folds()(cases, seed)), "expected positions"),
    "too few rows": (lambda cases, seed: tuple(part[1:] for part in folds()(cases, seed)), "are in none"),
    "rows in both": (lambda cases, seed: (np.arange(len(cases)), folds()(cases, seed)[1]), "in more"),
    "negative positions": (lambda cases, seed: tuple(-part for part in folds()(cases, seed)), "from 0"),
    "by image": (of(ShuffleSplit(1, test_size=0.2)), "one by one"),
    "by image, stratified": (of(StratifiedShuffleSplit(1, test_size=0.2)), "one by one"),
    "by image id": (folds(groups="image_id"), "one by one"),
    "by lesion": (folds(groups="lesion_id"), "though each lesion_id is whole"),
    "by diagnosis": (folds(groups="diagnosis", n=2), "wrong column"),
    "swapped": (lambda cases, seed: folds()(cases, seed)[::-1], "swapped"),
    "two parts": (folds(n=2), "holds 50%"),
    "ten parts": (folds(n=10), "holds 10%"),
    "not stratified": (of(GroupShuffleSplit(1, test_size=0.2), "group_id"), "left to chance"),
    "a constant for y": (folds(y=None), "left to chance"),
    "seedless": (folds(shuffle=False), "every seed gives the same"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_grouped_stratified_split_passes(name, capsys):
    checks_eda.grouped_split(RIGHT[name], CASES)
    assert "✓ 300 groups, none on both sides" in capsys.readouterr().out


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_split_is_diagnosed(name):
    split, diagnosis = WRONG[name]
    with pytest.raises(NotYet, match=diagnosis):
        checks_eda.grouped_split(split, CASES)


def test_the_wrong_column_is_told_by_the_made_up_table_where_the_source_knows_lesions_alone():
    lesions = CASES.assign(patient_id=np.nan, group_id="lesion:" + CASES["lesion_id"])
    with pytest.raises(NotYet, match="wrong column"):
        checks_eda.grouped_split(folds(groups="lesion_id"), validate_cases(lesions))


def encoded(train, test):
    encoder = MetadataEncoder.fit(train)
    return encoder.transform(train), encoder.transform(test)


def dummies(columns=FIELDS, fill=None, flag=False, together=True):
    """The colleague's way, with knobs for its faults."""

    def prepare(train, test):
        both = pd.concat([train, test])
        ages = {"all": both, "train": train}.get(fill)
        tables = [both] if together else [train, test]
        tables = [table.assign(gap=table["age_approx"].isna()) for table in tables]
        if fill:
            value = ages["age_approx"].mean() if ages is not None else fill
            tables = [table.assign(age_approx=table["age_approx"].fillna(value)) for table in tables]
        features = [pd.get_dummies(table[[*columns, *["gap"] * flag]], dtype=float) for table in tables]
        return (features[0][: len(train)], features[0][len(train) :]) if together else tuple(features)

    return prepare


def colleague(train, test):
    """As the notebook prints it."""
    both = pd.concat([train, test])
    both["age_approx"] = both["age_approx"].fillna(both["age_approx"].mean())
    columns = ["age_approx", "sex", "anatom_site_general_challenge", "diagnosis"]
    features = pd.get_dummies(both[columns], dtype=float)
    return features[: len(train)], features[len(train) :]


def scaled(train, test):
    """Flags the gap, but scales each part by its own mean."""
    return tuple(
        np.column_stack(
            [
                (part["age_approx"] - part["age_approx"].mean()).fillna(0),
                part["age_approx"].isna(),
                part["sex"] == "male",
                *(part["anatom_site_general_challenge"] == site for site in ("torso", "head/neck", "oral/genital")),
            ]
        ).astype(float)
        for part in (train, test)
    )


def with_scikit_learn(train, test):
    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    words = OneHotEncoder(handle_unknown="error", sparse_output=False)
    encoder = make_column_transformer((numbers, ["age_approx"]), (words, ["sex", "anatom_site_general_challenge"]))
    return encoder.fit_transform(train), encoder.transform(test)


SOUND = {
    "the kit's encoder": encoded,
    "scikit-learn": with_scikit_learn,
    "the colleague's way, mended": dummies(fill="train", flag=True),
}
FAULTY = {
    "nothing": (lambda train, test: None, "two matrices of numbers"),
    "words": (lambda train, test: (train[FIELDS], test[FIELDS]), "two matrices of numbers"),
    "one row": (lambda train, test: (encoded(train, test)[0][:1], encoded(train, test)[1]), "rows of features"),
    "the colleague": (colleague, "know the answer"),
    "target": (dummies([*FIELDS, "target"], fill="train", flag=True), "know the answer"),
    "gaps left": (dummies(), "NaN"),
    "mean of all rows": (dummies(fill="all"), "computed from all rows"),
    "encoded apart": (dummies(fill="train", flag=True, together=False), "columns, test"),
    "scaled apart": (scaled, "when it comes alone"),
    "no sex": (lambda train, test: tuple(part[:, [0, 1, *range(5, 12)]] for part in encoded(train, test)), "change with sex"),
    "no age": (lambda train, test: tuple(part[:, 1:] for part in encoded(train, test)), "change with age_approx"),
    "no site": (lambda train, test: tuple(part[:, :5] for part in encoded(train, test)), "change with anatom_site"),
    "hidden gap": (lambda train, test: tuple(np.delete(part, 1, axis=1) for part in encoded(train, test)), "the gap is hidden"),
}


@pytest.mark.parametrize("name", SOUND)
def test_features_fitted_on_training_alone_pass(name, capsys):
    checks_eda.preparation(SOUND[name])
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize("name", FAULTY)
def test_faulty_features_are_diagnosed(name):
    prepare, diagnosis = FAULTY[name]
    with pytest.raises(NotYet, match=diagnosis):
        checks_eda.preparation(prepare)


def test_the_colleagues_faults_are_named_one_after_the_other():
    """As a reader mends them: the answer out, the mean from training alone, then a flag for the gap."""
    for fill, diagnosis in (("all", "computed from all rows"), ("train", "gap is hidden")):
        with pytest.raises(NotYet, match=diagnosis):
            checks_eda.preparation(dummies(fill=fill))
