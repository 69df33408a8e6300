import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from melanoma_lib.data import MetadataEncoder, SyntheticDermoscopy, load_cases
from melanoma_lib.lessons import leakage


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


def test_on_ham10000_the_camera_beats_age_and_the_way_of_confirmation_leaks(ham10000_root):
    found = by_name(leakage.metadata_baselines(load_cases("ham10000", ham10000_root, "keep"), n=200))
    assert 0.65 < found["age, sex and site"].value < 0.72
    assert found["camera or clinic"].low > found["age"].high
    assert found["images per lesion"].value > 0.65
    assert 0.7 < found["dx_type"].value < 0.8
    assert found["diagnosis"].value == 1
