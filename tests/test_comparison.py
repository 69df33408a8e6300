"""Runs against each other, with scikit-learn and pandas as oracles."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from melanoma_lib.__main__ import main
from melanoma_lib.errors import RunError
from melanoma_lib.evaluation import delong_test
from melanoma_lib.reports.comparison import compare_runs, compare_seeds, comparison_text, differ_in_seeds
from melanoma_lib.settings import Settings
from melanoma_lib.training import train
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


def test_runs_that_cannot_be_paired_are_refused():
    one, other = finished("a", 200, 0, 0.4), finished("bb", np.arange(200, 400), 0, 0.4)
    with pytest.raises(RunError, match=r"runs/bb shares no test case with runs/a"):
        compare_runs([one, other])
    relabelled = one.predictions("test").assign(target=lambda table: 1 - table["target"])
    with pytest.raises(RunError, match=r"runs/ccc and runs/a disagree on the target of 200 of 200 shared images, such as ISIC"):
        compare_runs([one, SimpleNamespace(**vars(one) | {"path": Path("runs/ccc"), "predictions": lambda _: relabelled})])


@pytest.fixture(scope="module")
def ablation(tiny_settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablation")
    changes = [{"modalities": m, "seed": s} for m in ("metadata", "image+metadata") for s in (0, 1)]
    return [train(tiny_settings.with_changes(runs_dir=folder, max_epochs=1, **change)) for change in changes]


def test_seeds_are_averaged_and_the_gain_of_a_branch_is_theirs(ablation, tiny_run, tmp_path, capsys):
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
    assert not differ_in_seeds(ablation[::2])  # two branches of one seed are paired
    for others in ([ablation[0], tiny_run], [ablation[0], ablation[0]]):
        with pytest.raises(RunError, match="differ in modalities and seed alone"):
            compare_seeds(others)
