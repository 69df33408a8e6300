"""Label efficiency: whole lesions are drawn by class, the probe is scikit-learn's, gains are differences."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from melanoma_lib.heads import FeatureTable
from melanoma_lib.settings import Settings
from melanoma_lib.studies import label_efficiency
from melanoma_lib.studies.ingredients_figures import label_efficiency_figure
from melanoma_lib.studies.label_efficiency import (
    IMAGENET,
    PENALTIES,
    PROBE,
    RANDOM,
    SIMCLR,
    TUNED,
    Trial,
    draw_labels,
    label_report,
    label_table,
    probe,
    study_labels,
)
from melanoma_lib.studies.results import load_results, save_results
from melanoma_lib.studies.selfsupervised import Pretraining, WarmStart


@given(st.integers(4, 60), st.floats(0.01, 1), st.integers(0, 99))
def test_whole_lesions_are_drawn_the_same_share_of_each_class(n_groups, share, seed):
    rng = np.random.default_rng(seed)
    group = rng.integers(n_groups, size=5 * n_groups)
    cases = pd.DataFrame({"group_id": [f"g{g}" for g in group], "target": (group % 3 == 0).astype(int)})
    rows = draw_labels(cases, share, seed)
    chosen = set(cases["group_id"].iloc[rows])
    assert set(np.flatnonzero(cases["group_id"].isin(chosen))) == set(rows)  # no lesion is known in part
    for kind in (0, 1):
        there = set(cases.loc[cases["target"] == kind, "group_id"])
        assert len(chosen & there) == min(len(there), max(2, round(share * len(there))))
    assert np.array_equal(rows, draw_labels(cases, share, seed))
    assert len(draw_labels(cases, 1.0, seed)) == len(cases)


@pytest.mark.parametrize("share", [0, -0.1, 1.1])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match="share expects"):
        draw_labels(pd.DataFrame({"group_id": ["a"], "target": [1]}), share, 0)


def features(n: int = 600, width: int = 8) -> FeatureTable:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(n, width)) * np.arange(1, width + 1)
    target = (rng.random(n) < 1 / (1 + np.exp(1 - x[:, 0]))).astype(int)
    names = [f"c{i}" for i in range(n)]
    split = np.array(["train", "train", "val", "test"])[np.arange(n) % 4]
    cases = pd.DataFrame({"image_id": names, "group_id": names, "split": split, "target": target})
    return FeatureTable(cases, x.astype(np.float32), width)


def test_the_probe_is_the_penalised_regression_that_validates_best():
    table, labelled = features(), np.arange(0, 300, 3)
    x = {split: table.features[table.cases["split"] == split].astype(float) for split in ("train", "val", "test")}
    y = {split: table.cases.loc[table.cases["split"] == split, "target"].to_numpy() for split in ("train", "val", "test")}
    scale = StandardScaler().fit(x["train"][labelled])
    fits = [LogisticRegression(C=c).fit(scale.transform(x["train"][labelled]), y["train"][labelled]) for c in PENALTIES]
    best = max(fits, key=lambda fit: roc_auc_score(y["val"], fit.decision_function(scale.transform(x["val"]))))
    np.testing.assert_allclose(probe(table, labelled), best.decision_function(scale.transform(x["test"])), atol=1e-6)


def test_labels_that_are_not_known_and_test_labels_change_nothing():
    table, labelled = features(), np.arange(0, 300, 3)
    before = probe(table, labelled)
    hidden = np.flatnonzero(table.cases["split"] == "train")[np.setdiff1d(np.arange(300), labelled)]
    table.cases.loc[hidden, "target"] = 1 - table.cases.loc[hidden, "target"]
    tested = table.cases["split"] == "test"
    table.cases.loc[tested, "target"] = 1 - table.cases.loc[tested, "target"]
    np.testing.assert_array_equal(probe(table, labelled), before)


def simulated_table():
    rng, n = np.random.default_rng(0), 200
    target = (np.arange(n) % 5 == 0).astype(int)
    test = pd.DataFrame({"target": target, "group_id": [f"g{i // 2}" for i in range(n)]})

    def scores(signal, draws):
        return [signal * target + rng.normal(size=n) for _ in range(draws)]

    trials = [
        Trial(PROBE, start, share, (700 * share, 70 * share), scores(signal, draws))
        for start, signal in ((RANDOM, 0.0), (IMAGENET, 1.0), (SIMCLR, 3.0))
        for share, draws in ((0.1, 3), (1.0, 1))
    ]
    trials += [Trial(TUNED, start, 1.0, (700, 70), scores(1.0, 1), 60.0) for start in (IMAGENET, SIMCLR)]
    warm = WarmStart(Path("simclr-0123456789ab.pt"), [{"epoch": 1, "loss": 2.0, "found": 0.5, "seconds": 9.0}], 4.8, 700)
    return trials, test, warm


def test_gains_are_differences_of_mean_aurocs_on_the_same_choices(tmp_path):
    trials, test, warm = simulated_table()
    table = label_table(Settings(n_resamples=100), Pretraining(), warm, trials, test)
    means = {(t.method, t.share, t.start): np.mean([roc_auc_score(test["target"], s) for s in t.scores]) for t in trials}
    for row in table.rows:
        key = row["method"], row["share"], row["start"]
        assert row["auroc"]["value"] == pytest.approx(means[key])
        if row["start"] == IMAGENET:
            assert row["gain"] is row["conclusion"] is None
        else:
            assert row["gain"]["value"] == pytest.approx(means[key] - means[*key[:2], IMAGENET])
            assert (row["conclusion"] == "better than ImageNet") == (row["gain"]["low"] > 0)
        assert (row["deviation"] is None) == (row["draws"] == 1)
    assert {r["conclusion"] for r in table.rows if (r["method"], r["start"]) == (PROBE, SIMCLR)} == {"better than ImageNet"}
    save_results(table, tmp_path)
    table = load_results("selfsupervised", tmp_path)
    figure, text = label_efficiency_figure(table), label_report(table)
    for row in table.rows:
        assert f"{row['auroc']['value']:.3f}" in figure.alt_text
        assert f"{row['auroc']['value']:.3f}" in text
    whiskers = [bars.lines[2][0].get_segments() for bars in figure.axes[0].containers if bars.lines[2][0].get_segments()]
    drawn = sorted(tuple(segment[:, 1]) for segments in whiskers for segment in segments)
    several = [row for row in table.rows if row["draws"] > 1]
    wanted = sorted((row["auroc"]["value"] - row["deviation"], row["auroc"]["value"] + row["deviation"]) for row in several)
    np.testing.assert_allclose(drawn, wanted)
    assert all(f"(± {row['deviation']:.3f} over {row['draws']} draws of labels)" in figure.alt_text for row in several)
    assert figure.alt_text.count("draws of labels)") == len(several)
    assert "fine-tuned: not tried at 10%" in figure.alt_text
    assert [axes.get_xlabel().endswith("(not tried: 10%)") for axes in figure.axes] == [False, True]


def test_one_training_alone_settles_nothing_and_comparisons_are_counted():
    trials, test, warm = simulated_table()
    strong = Trial(TUNED, SIMCLR, 1.0, (700, 70), [6.0 * test["target"].to_numpy() + trials[0].scores[0]], 60.0)
    cold = next(one for one in trials if (one.method, one.start) == (TUNED, IMAGENET))
    weak = Trial(TUNED, SIMCLR, 1.0, (700, 70), [-strong.scores[0]], 60.0)
    probes = [one for one in trials if one.method == PROBE]
    for tuned, word in ((strong, "better"), (weak, "worse")):
        table = label_table(Settings(n_resamples=100), Pretraining(), warm, [*probes, cold, tuned], test)
        assert table.rows[-1]["conclusion"] == f"{word} than ImageNet on these cases; one training: not settled"
        assert not any("settled" in (row["conclusion"] or "") for row in table.rows if row["method"] == PROBE)
        n = sum(row["conclusion"] is not None for row in table.rows)
        assert n == 5
        assert f"{n} comparisons at 95%: about {n / 20:.1f} of them" in " ".join(table.notes)


def test_the_whole_study_on_few_cases(tiny_settings, tmp_path, monkeypatch):
    pytest.importorskip("lightly", reason="lightly is not installed: pip install .[selfsupervised]")
    monkeypatch.setattr(label_efficiency, "DRAWS", {0.2: 2, 1.0: 1})
    monkeypatch.setattr(label_efficiency, "FINE_TUNED", (0.5, 1.0))
    monkeypatch.setattr(label_efficiency, "LONGER", 1)
    settings = tiny_settings.with_changes(runs_dir=tmp_path, max_epochs=1)
    table = study_labels(settings, Pretraining(side=32, epochs=1, batch_size=64))
    probes = [(PROBE, start, share) for start in (RANDOM, SIMCLR) for share in (0.2, 1.0)]
    tuned = [(TUNED, start, share) for share in (0.5, 1.0) for start in (RANDOM, SIMCLR)]
    assert [(row["method"], row["start"], row["share"]) for row in table.rows] == probes + tuned
    labels = {row["share"]: row["n_labels"] for row in table.rows}
    assert labels[0.2] < labels[0.5] < labels[1.0] == table.details["n_unlabelled"]
    assert table.details["pretraining"]["weights"].startswith("simclr-")
    again = study_labels(settings, Pretraining(side=32, epochs=1, batch_size=64))
    assert again.rows == table.rows
