import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from melanoma_lib.data import MetadataEncoder, SyntheticDermoscopy, load_cases
from melanoma_lib.errors import DataError
from melanoma_lib.evaluation import Interval
from melanoma_lib.lessons import ladder
from melanoma_lib.settings import Settings
from tests.data.builders import case_table
from tests.lessons.test_eda import legible

WORDS = ("nv", "nv", "bkl", "mel")


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """The synthetic table with the facts that `load_cases` notes, without its pictures."""
    cases = SyntheticDermoscopy(n_patients=250).cases.copy()
    table = tmp_path_factory.mktemp("ladder") / "cases.csv"
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


def by_name(rungs):
    return {rung.name: rung.auroc for rung in rungs}


def test_the_rung_of_age_sex_and_site_is_what_the_kits_encoder_and_scikit_learn_give(synthetic):
    targets, groups = synthetic["target"].to_numpy(), synthetic["group_id"].to_numpy(str)
    expected = []
    for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=3).split(groups, targets, groups):
        encoder = MetadataEncoder.fit(synthetic.iloc[train])
        model = LogisticRegression(max_iter=1000).fit(encoder.transform(synthetic.iloc[train]), targets[train])
        scores = model.predict_proba(encoder.transform(synthetic.iloc[test]))[:, 1]
        expected.append(roc_auc_score(targets[test], scores))
    auroc = by_name(ladder.no_pixel_ladder(synthetic, n=100, seed=3))["age, sex and site"]
    assert auroc.value == pytest.approx(np.mean(expected), abs=0.005)
    assert auroc.low < auroc.value < auroc.high


def test_the_answer_is_at_the_top_and_cameras_know_nothing_in_the_synthetic_world(synthetic):
    rungs = ladder.no_pixel_ladder(synthetic, n=100)
    found = by_name(rungs)
    assert (found["diagnosis"].value, np.isnan(found["diagnosis"].low)) == (1.0, True)
    risk = roc_auc_score(synthetic["target"], synthetic["true_risk"])
    assert found["true_risk"].value == pytest.approx(risk, abs=0.01)
    assert abs(found["camera or clinic"].value - 0.5) < 0.07
    assert "truth_skin_tone" not in found
    kinds = [list(ladder.KINDS).index(rung.kind) for rung in rungs]
    assert kinds == sorted(kinds)
    for kind in ladder.KINDS:
        values = [rung.auroc.value for rung in rungs if rung.kind == kind]
        assert values == sorted(values)


def test_a_camera_that_travels_with_the_answer_is_found(synthetic):
    rng = np.random.default_rng(0)
    seen = np.where(rng.random(len(synthetic)) < 0.8, synthetic["target"], 1 - synthetic["target"])
    tied = synthetic.assign(acquisition=np.where(seen == 1, "clinic A", "clinic B"))
    tied.attrs = synthetic.attrs
    assert by_name(ladder.no_pixel_ladder(tied, n=100))["camera or clinic"].value == pytest.approx(0.8, abs=0.03)


def test_memory_of_a_group_does_not_help(synthetic):
    """A column that names the patient predicts nothing once no patient is on both sides."""
    columns = synthetic[["patient_id"]]
    targets, groups = synthetic["target"].to_numpy(), synthetic["group_id"].to_numpy(str)
    for train, test in StratifiedGroupKFold(5).split(groups, targets, groups):
        assert np.ptp(ladder._score(columns, targets, train, test)) < 1e-12


def test_encoders_see_the_training_rows_alone(synthetic):
    targets = synthetic["target"].to_numpy()
    train, test = np.arange(0, 400), np.arange(400, len(synthetic))
    columns = pd.DataFrame({"age": synthetic["age_approx"], "site": synthetic["anatom_site_general_challenge"].fillna("none")})
    changed = columns.copy()
    changed.loc[test[1:], "age"] = 1000.0
    changed.loc[test[1:], "site"] = "elsewhere"
    scores = [ladder._score(table, targets, train, test)[0] for table in (columns, changed)]
    assert scores[0] == scores[1]


def test_a_source_gets_the_rungs_it_has_columns_for(ham):
    names = {kind: list(columns) for kind, columns in ladder.rung_columns(ham).items()}
    assert names[ladder.PATIENT] == ["sex", "age", "site", "age, sex and site"]
    assert names[ladder.COLLECTION] == ["which fields are empty", "all of the above"]  # no camera, two images a lesion
    assert names[ladder.ANSWER] == ["diagnosis", "dx_type"]  # dx is the diagnosis under another name


def test_leaky_columns_come_from_the_publishers_own_table_row_by_row(ham):
    raw = pd.read_csv(ham.attrs["table"]).set_index("image_id")
    shuffled = ham.sample(frac=1, random_state=0)
    shuffled.attrs = ham.attrs
    leaky = ladder.leaky_columns(shuffled)
    assert leaky.index.equals(shuffled.index)
    assert leaky["dx_type"].tolist() == raw.loc[shuffled["image_id"], "dx_type"].tolist()
    assert leaky["diagnosis"].tolist() == shuffled["diagnosis"].tolist()


def test_a_leaky_column_of_numbers_stays_numbers_with_gaps(tmp_path):
    table = pd.DataFrame({"isic_id": ["a", "b", "c"], "mel_thick_mm": ["0.4", "", "1.2"], "mel_type": ["", "nodular", ""]})
    table.to_csv(tmp_path / "metadata.csv", index=False)
    cases = case_table([1, 0, 1]).assign(image_id=["a", "b", "c"])
    cases.attrs = {"table": str(tmp_path / "metadata.csv"), "leaky_columns": ["mel_thick_mm", "mel_type", "not in the table"]}
    leaky = ladder.leaky_columns(cases)
    np.testing.assert_array_equal(leaky["mel_thick_mm"], [0.4, np.nan, 1.2])
    assert leaky["mel_type"].tolist() == ["not recorded", "nodular", "not recorded"]
    assert list(leaky) == ["diagnosis", "mel_thick_mm", "mel_type"]


def test_a_table_without_origin_is_refused(ham):
    bare = ham.copy()
    bare.attrs = {}
    with pytest.raises(DataError, match="load_cases returned"):
        ladder.no_pixel_ladder(bare)
    foreign = ham.assign(image_id=ham["image_id"] + "x")
    foreign.attrs = ham.attrs
    with pytest.raises(DataError, match="no column names all"):
        ladder.leaky_columns(foreign)


def test_ceilings_are_known_in_the_synthetic_world_alone():
    settings = Settings(source="synthetic", data_seed=4)
    assert ladder.bayes_ceilings(settings) == SyntheticDermoscopy(20, 4).bayes_auroc()
    assert ladder.bayes_ceilings(settings.with_changes(source="ham10000")) == {}


def test_the_figure_draws_every_rung_chance_and_ceilings(synthetic):
    rungs = ladder.no_pixel_ladder(synthetic, n=100)
    ceilings = {"image": 0.9, "metadata": 0.7}
    figure = ladder.ladder_figure(rungs, ceilings)
    legible(figure)
    (axes,) = figure.axes
    drawn = {line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 1}
    assert drawn >= {rung.auroc.value for rung in rungs}
    upright = {line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2}
    assert upright >= {0.5, *ceilings.values()}
    for rung in rungs:
        assert f"{rung.name} {rung.auroc:.3f}" in figure.alt_text
    legible(ladder.ladder_figure([ladder.Rung("sex", ladder.PATIENT, Interval(0.3, 0.2, 0.4))]))


def test_on_ham10000_the_camera_beats_age_and_the_way_of_confirmation_leaks(ham10000_root):
    found = by_name(ladder.no_pixel_ladder(load_cases("ham10000", ham10000_root, "keep"), n=200))
    assert 0.65 < found["age, sex and site"].value < 0.72
    assert found["camera or clinic"].low > found["age"].high
    assert found["images per lesion"].value > 0.65
    assert 0.7 < found["dx_type"].value < 0.8
    assert found["diagnosis"].value == 1
