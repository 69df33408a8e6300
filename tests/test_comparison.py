"""Runs against each other and on other collections, with scikit-learn and pandas as oracles."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from melanoma_lib.__main__ import main
from melanoma_lib.data import load_cases
from melanoma_lib.errors import DataError, RunError
from melanoma_lib.evaluation import Calibrator, delong_test
from melanoma_lib.reports.comparison import compare_runs, compare_seeds, comparison_text, differ_in_seeds, save_table
from melanoma_lib.reports.external import evaluate_external, predict_cases, seen_cases
from melanoma_lib.settings import Settings
from melanoma_lib.training import train
from tests.data.builders import case_table, write_isic2020
from tests.evaluation.cases import prediction_table


def finished(name, rows, noise, threshold, **changes):
    """A stand-in for a run that tests some of the same 400 cases, in an order of its own."""
    rng, table = np.random.default_rng(len(name)), prediction_table()
    table["probability"] = np.clip(table["probability"] + rng.normal(0, noise, len(table)), 0, 1)
    table = table.iloc[rng.permutation(rows)]
    settings = Settings(source="ham10000").with_changes(**changes)
    return SimpleNamespace(
        path=Path("runs") / name,
        predictions=lambda _: table,
        settings=settings,
        operating_point=SimpleNamespace(threshold=threshold),
    )


def test_runs_are_paired_on_the_cases_that_they_share_whatever_differs(tmp_path):
    runs = [finished("a", 300, 0, 0.4), finished("bb", np.arange(100, 400), 0.2, 0.6, backbone="resnet50", seed=3, data_dir="b")]
    table = compare_runs(runs, n=200)
    both = pd.merge(
        *(run.predictions("test")[["image_id", "target", "group_id", "probability"]] for run in runs), on=["image_id", "target"]
    )
    scores = both["probability_x"], both["probability_y"]
    aurocs = [roc_auc_score(both["target"], score) for score in scores]
    assert list(table.index) == [1, 2] and (table["images"] == len(both)).all() and len(both) == 200
    assert table["melanomas"].tolist() == [both["target"].sum()] * 2
    assert table["auroc"].tolist() == pytest.approx(aurocs)
    assert table["difference"].tolist() == pytest.approx([0, aurocs[1] - aurocs[0]])
    assert table["difference_low"][2] < table["difference"][2] < table["difference_high"][2]
    assert table["delong_p"].tolist() == pytest.approx([1, delong_test(both["target"], *scores).p_value])
    decided = [score >= point for score, point in zip(scores, (0.4, 0.6), strict=True)]
    assert table["sensitivity"].tolist() == pytest.approx([recall_score(both["target"], one) for one in decided])
    assert table["specificity"].tolist() == pytest.approx([recall_score(both["target"], one, pos_label=0) for one in decided])
    assert [name for name in table if name.startswith("setting")] == ["setting: backbone", "setting: seed", "setting: data_dir"]
    assert table["setting: backbone"].tolist() == ["efficientnet_b0", "resnet50"]
    assert f"{aurocs[1]:.3f} [" in comparison_text(table)
    save_table(table, tmp_path / "table.csv")
    save_table(table, tmp_path / "table.json")
    for read in (pd.read_csv(tmp_path / "table.csv"), pd.read_json(tmp_path / "table.json")):
        assert read["auroc"].tolist() == pytest.approx(aurocs)


def test_runs_that_cannot_be_paired_are_refused():
    one, other = finished("a", 200, 0, 0.4), finished("bb", np.arange(200, 400), 0, 0.4)
    with pytest.raises(RunError, match=r"runs/bb shares no test case with runs/a"):
        compare_runs([one, other])
    relabelled = one.predictions("test").assign(target=lambda table: 1 - table["target"])
    with pytest.raises(RunError, match=r"runs/ccc and runs/a disagree on the target of 200 of 200 shared images, such as ISIC"):
        compare_runs([one, SimpleNamespace(**vars(one) | {"path": Path("runs/ccc"), "predictions": lambda _: relabelled})])
    benign = one.predictions("test").query("target == 0")
    with pytest.raises(RunError, match="share 0 melanomas"):
        compare_runs([SimpleNamespace(**vars(one) | {"predictions": lambda _: benign})])


# --- another collection -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def isic2020(tmp_path_factory):
    return write_isic2020(tmp_path_factory.mktemp("isic2020"))


def test_a_run_answers_its_own_test_cases_as_it_did(tiny_run):
    cases = tiny_run.cases()
    found = predict_cases(tiny_run, cases[cases["split"] == "test"].reset_index(drop=True))
    stored = tiny_run.predictions("test")
    np.testing.assert_allclose(found["logit"], stored["logit"], atol=1e-5)
    np.testing.assert_allclose(found["risk"], stored["risk"], atol=1e-6)


def test_a_cross_validation_answers_as_the_mean_of_its_folds(tiny_run, monkeypatch):
    monkeypatch.setattr(type(tiny_run), "calibrator", Calibrator(2.0, -1.0))
    point = SimpleNamespace(threshold=0.3)
    both = SimpleNamespace(
        is_cross_validation=True, folds=[tiny_run, tiny_run], operating_point=point, settings=tiny_run.settings
    )
    cases = tiny_run.cases().drop(columns="split")
    one, mean = predict_cases(tiny_run, cases), predict_cases(both, cases)
    np.testing.assert_allclose(mean["risk"], one["risk"])
    clear = (one["probability"] - tiny_run.operating_point.threshold).abs() > 1e-6
    decided = one["probability"] >= tiny_run.operating_point.threshold
    assert ((mean["probability"] >= 0.3) == decided)[clear].all() and decided.nunique() == 2


def test_a_run_is_evaluated_on_another_collection_in_one_command(tiny_run, isic2020, tmp_path, capsys):
    words = ["evaluate", str(tiny_run.path), "--source", "isic2020", "--data-dir", str(isic2020), "--cache-dir", str(tmp_path)]
    assert main(words) == 1
    assert "--missing-images drop" in capsys.readouterr().err
    assert main([*words, "--missing-images", "drop"]) == 0
    folder, printed = tiny_run.path / "evaluation-isic2020", capsys.readouterr().out
    found = pd.read_csv(folder / "comparison.csv", index_col="measure")
    cases = load_cases("isic2020", isic2020, missing_images="drop")
    asked = predict_cases(tiny_run, cases, tmp_path)
    assert found.loc["auroc", "external"] == pytest.approx(roc_auc_score(asked["target"], asked["probability"]))
    assert found.loc["auroc", "internal"] == pytest.approx(tiny_run.metrics["auroc"]["value"])
    assert found.loc[["images", "groups", "melanomas"], "external"].tolist() == [90, 30, 15]
    assert set(found["evidence"].dropna()) == {"too few to say"}
    assert f"{found.loc['auroc', 'external']:.3f}" in printed and "too few to say" in printed
    assert set(pd.read_csv(folder / "recalibration.csv")["patients"]) == {20, 50, 100}
    assert (folder / "roc.png").is_file() and not (tiny_run.path / "evaluation").is_file()


def test_a_model_of_metadata_alone_needs_no_image(tiny_settings, isic2020, tmp_path, capsys):
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "train.csv").write_bytes((isic2020 / "train.csv").read_bytes())
    changes = {"source": "isic2020", "data_dir": bare, "modalities": "metadata", "max_epochs": 1, "runs_dir": tmp_path / "runs"}
    assert len(train(tiny_settings.with_changes(**changes, run_dir=tmp_path / "own")).splits) == 120
    run = train(tiny_settings.with_changes(modalities="metadata", max_epochs=1, runs_dir=tmp_path / "runs"))
    assert main(["evaluate", str(run.path), "--source", "isic2020", "--data-dir", str(bare)]) == 0
    found = pd.read_csv(run.path / "evaluation-isic2020" / "comparison.csv", index_col="measure")
    assert found.loc["images", "external"] == 120


def test_what_the_run_has_seen_is_left_out_and_counted(tiny_run):
    own = tiny_run.cases()
    with pytest.raises(DataError, match=f"of {len(own)} cases of synthetic {len(own)} are in the run's own table"):
        evaluate_external(tiny_run, own.drop(columns="split"))
    splits = pd.DataFrame({"image_id": ["image_0", "x", "y"], "group_id": ["lesion:L0", "lesion:L2", "patient:P3"]})
    cases = case_table([0, 1, 0, 1, 0, 1], lesions=[None, "L1", "L2", "L3", None, "L5"], patients=[None] * 3 + ["P3", None, "P5"])
    assert seen_cases(splits, cases).tolist() == [True, False, True, True, False, False]
    again = cases.assign(image_id="image_0_downsampled").iloc[[4]]
    assert seen_cases(splits, again).all()


@pytest.fixture(scope="module")
def ablation(tiny_settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablation")
    changes = [{"modalities": m, "seed": s} for m in ("metadata", "image+metadata") for s in (0, 1)]
    return [train(tiny_settings.with_changes(runs_dir=folder, max_epochs=1, **change)) for change in changes]


def test_seeds_are_averaged_and_the_gain_of_a_branch_is_theirs(ablation, tmp_path, capsys):
    aurocs = {}
    for run in ablation:
        test = run.predictions("test")
        aurocs.setdefault(run.settings.modalities, []).append(roc_auc_score(test["target"], test["probability"]))
    assert main(["compare", *(str(run.path) for run in ablation), "--out", str(tmp_path / "table.csv")]) == 0
    assert f"{np.mean(aurocs['metadata']):.3f} [" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["auroc"].tolist() == pytest.approx([np.mean(aurocs[m]) for m in aurocs]) and table["seeds"].tolist() == [2, 2]
    gain = table.filter(like="gain over metadata only").iloc[1].tolist()
    assert gain[0] == pytest.approx(np.mean(aurocs["image+metadata"]) - np.mean(aurocs["metadata"]))
    assert gain[1] <= gain[0] <= gain[2]
    assert differ_in_seeds(ablation)
    assert not differ_in_seeds(ablation[::2])  # two branches of one seed are paired
    assert not differ_in_seeds([*ablation, ablation[0]])


def test_seeds_of_runs_that_differ_in_more_are_refused(ablation, tiny_run):
    with pytest.raises(RunError, match=r"differs from .* in max_epochs"):
        compare_seeds([ablation[0], tiny_run])
    with pytest.raises(RunError, match="are both of metadata, seed 0"):
        compare_seeds([ablation[0], ablation[0]])
