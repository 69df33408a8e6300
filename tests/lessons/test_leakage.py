import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from melanoma_lib.data import MetadataEncoder, SyntheticDermoscopy, audit_leakage, load_cases
from melanoma_lib.errors import DataError
from melanoma_lib.lessons import leakage
from tests.lessons.test_eda import legible

WORDS = ("nv", "nv", "bkl", "mel")


def by_name(baselines):
    return baselines.set_index("name")["auroc"]


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """The synthetic table with the facts that `load_cases` notes, without its pictures."""
    cases = SyntheticDermoscopy(n_patients=250).cases.copy()
    table = tmp_path_factory.mktemp("leakage") / "cases.csv"
    cases.to_csv(table, index=False)
    cases.attrs = {"table": str(table), "leaky_columns": ["diagnosis", "target", "true_risk", "truth_skin_tone"]}
    return cases


@pytest.fixture
def ham(tmp_path):
    """A HAM10000 folder with a table alone."""
    rng = np.random.default_rng(0)
    n = 240
    dx = rng.choice(WORDS, n)
    table = pd.DataFrame(
        {
            "lesion_id": [f"HAM_{i // 2:04}" for i in range(n)],
            "image_id": [f"ISIC_{i:04}" for i in range(n)],
            "dx": np.repeat(dx[::2], 2),
            "dx_type": np.where(np.repeat(dx[::2], 2) == "mel", "histo", rng.choice(["histo", "follow_up"], n)),
            "age": rng.choice(["30.0", "45.0", "60.0", ""], n),
            "sex": rng.choice(["male", "female", "unknown"], n),
            "localization": rng.choice(["back", "face", "unknown"], n),
        }
    )
    table.to_csv(tmp_path / "HAM10000_metadata.csv", index=False)
    return load_cases("ham10000", tmp_path, "keep")


def test_the_rung_of_age_sex_and_site_is_what_the_kits_encoder_and_scikit_learn_give(synthetic):
    targets, groups = synthetic["target"].to_numpy(), synthetic["group_id"].to_numpy(str)
    expected = []
    for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=3).split(groups, targets, groups):
        encoder = MetadataEncoder.fit(synthetic.iloc[train])
        model = LogisticRegression(max_iter=1000).fit(encoder.transform(synthetic.iloc[train]), targets[train])
        scores = model.predict_proba(encoder.transform(synthetic.iloc[test]))[:, 1]
        expected.append(roc_auc_score(targets[test], scores))
    auroc = by_name(leakage.metadata_baselines(synthetic, n=100, seed=3))["age, sex and site"]
    assert auroc.value == pytest.approx(np.mean(expected), abs=0.005)
    assert auroc.low < auroc.value < auroc.high


def test_the_answer_is_at_the_top_and_cameras_know_nothing_in_the_synthetic_world(synthetic):
    baselines = leakage.metadata_baselines(synthetic, n=100)
    found = by_name(baselines)
    assert (found["diagnosis"].value, np.isnan(found["diagnosis"].low)) == (1.0, True)
    assert found["true_risk"].value == pytest.approx(roc_auc_score(synthetic["target"], synthetic["true_risk"]), abs=0.01)
    assert abs(found["camera or clinic"].value - 0.5) < 0.07
    assert "truth_skin_tone" not in found
    figure = leakage.baseline_figure(baselines, {"image": 0.9})
    legible(figure)
    assert all(f"{row.name} {row.auroc:.3f}" in figure.alt_text for row in baselines.itertuples(index=False))


def test_leaky_columns_come_from_the_publishers_own_table_row_by_row(ham):
    raw = pd.read_csv(ham.attrs["table"]).set_index("image_id")
    shuffled = ham.sample(frac=1, random_state=0)
    shuffled.attrs = ham.attrs
    leaky = leakage.leaky_columns(shuffled)
    assert leaky.index.equals(shuffled.index)
    assert leaky["dx_type"].tolist() == raw.loc[shuffled["image_id"], "dx_type"].tolist()
    assert leaky["diagnosis"].tolist() == shuffled["diagnosis"].tolist()


def test_a_table_without_origin_is_refused(ham):
    bare = ham.copy()
    bare.attrs = {}
    with pytest.raises(DataError, match="load_cases returned"):
        leakage.metadata_baselines(bare)
    foreign = ham.assign(image_id=ham["image_id"] + "x")
    foreign.attrs = ham.attrs
    with pytest.raises(DataError, match="no column names all"):
        leakage.leaky_columns(foreign)


def test_on_ham10000_the_camera_beats_age_and_the_way_of_confirmation_leaks(ham10000_root):
    found = by_name(leakage.metadata_baselines(load_cases("ham10000", ham10000_root, "keep"), n=200))
    assert 0.65 < found["age, sex and site"].value < 0.72
    assert found["camera or clinic"].low > found["age"].high
    assert found["images per lesion"].value > 0.65
    assert 0.7 < found["dx_type"].value < 0.8
    assert found["diagnosis"].value == 1


def test_every_split_is_audited_by_itself():
    cases = SyntheticDermoscopy(n_patients=120).cases
    table = leakage.leakage_over_splits(cases, n_splits=4, seed=2)
    audit = audit_leakage(cases, seed=2, n_splits=4)
    assert table["by_image"].mean() == pytest.approx(audit.by_image["group"]["melanomas"])
    assert table["by_image"].nunique() > 1
    assert table["by_group"].tolist() == [0] * 4
    legible(leakage.leakage_figure(table, guess=0.25, unit="lesion"))
