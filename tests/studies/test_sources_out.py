"""Parts of one size that share no lesion; the table compares the same cases on both sides."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from melanoma_lib.__main__ import main
from melanoma_lib.errors import StudyError
from melanoma_lib.evaluation.intervals import wilson_interval
from melanoma_lib.settings import Settings
from melanoma_lib.studies.results import load_results, save_results
from melanoma_lib.studies.sources_out import HALVES, compare_sources, sources_report, study_parts, train_parts
from melanoma_lib.studies.travel_figures import sources_figure
from melanoma_lib.studies.travel_home_words import sources_words
from tests.data.builders import case_table

SIZES = {"modern": (120, 0.3), "film": (60, 0.3), "screening": (300, 0.06)}


@pytest.fixture
def cases():
    rng = np.random.default_rng(0)
    rows = []
    for source, (lesions, share) in SIZES.items():
        for lesion in range(lesions):
            rows += [(int(lesion < share * lesions), f"{source}_{lesion}", source)] * int(rng.integers(1, 4))
    targets, lesions, sources = zip(*rows, strict=True)
    table = case_table(targets, lesions=lesions, acquisition=list(sources))
    both = table.index[table["lesion_id"] == "modern_100"][0]
    extra = table.loc[[both]].assign(image_id="shared", image_path="/nowhere/shared.jpg", acquisition="film")
    return pd.concat([table, extra], ignore_index=True)


def test_parts_are_of_one_size_and_share_no_lesion(cases):
    parts = {part.name: part.cases for part in study_parts(cases, seed=1)}
    assert list(parts) == [*HALVES, "without-film", "without-modern", "without-screening"]
    counts = {}
    for name, table in parts.items():
        trained, tested = table[table["split"] != "test"], table[table["split"] == "test"]
        assert not set(trained["group_id"]) & set(tested["group_id"])
        counts[name] = tuple(
            ((table["split"] == split) & (table["target"] == target)).sum() for split in ("train", "val") for target in (0, 1)
        )
        if name not in HALVES:
            source = name.removeprefix("without-")
            assert source not in set(trained["acquisition"])
            assert sorted(tested["image_id"]) == sorted(cases.loc[cases["acquisition"] == source, "image_id"])
    assert len(set(counts.values())) == 1 and min(counts["half-1"]) > 0
    halves = [set(parts[name].loc[parts[name]["split"] == "test", "image_id"]) for name in HALVES]
    assert halves[0] | halves[1] == set(cases["image_id"]) and not halves[0] & halves[1]
    for source in SIZES:  # each half knows every source
        for name in HALVES:
            own = parts[name][parts[name]["acquisition"] == source]
            assert set(own["split"]) == {"train", "val", "test"}
            assert own.loc[own["split"] == "test", "target"].nunique() == 2


def test_a_seed_deals_other_parts(cases):
    first, again, other = ([part.cases["split"].tolist() for part in study_parts(cases, seed)] for seed in (0, 0, 1))
    assert first == again != other


def test_sources_that_cannot_be_left_out_are_refused(cases):
    with pytest.raises(StudyError, match="Dataverse"):
        study_parts(cases.assign(acquisition=None))
    with pytest.raises(StudyError, match="got 1"):
        study_parts(cases.assign(acquisition="one"))
    with pytest.raises(StudyError, match="too small to be halved"):
        study_parts(pd.concat([cases, case_table([1, 0], acquisition="attic")], ignore_index=True))


def test_parts_named_are_trained_where_their_name_says(cases, monkeypatch, tmp_path):
    trained = []
    monkeypatch.setattr("melanoma_lib.studies.sources_out.cases_for", lambda settings: cases)
    monkeypatch.setattr(
        "melanoma_lib.training.train", lambda settings, table: trained.append((settings, table)) or settings.run_dir
    )
    settings = Settings(runs_dir=tmp_path, image_size=96)
    assert list(train_parts(settings, ["without-film"])) == ["without-film"]
    ((changed, table),) = trained
    assert changed.resume and changed.run_dir.parent == tmp_path and changed.run_dir.name.startswith("sources-without-film-96px")
    assert "film" not in set(table.loc[table["split"] != "test", "acquisition"])
    assert len(train_parts(settings)) == 5
    with pytest.raises(StudyError, match="no such part: without-attic"):
        train_parts(settings, ["without-attic"])


def fake_run(part, logits, threshold):
    tested = part.cases[part.cases["split"] == "test"]
    table = tested[["image_id", "group_id", "target"]].reset_index(drop=True)
    table["logit"] = table["image_id"].map(logits)
    table["probability"] = table["risk"] = 1 / (1 + np.exp(-table["logit"]))
    return SimpleNamespace(
        predictions=lambda split: table, operating_point=SimpleNamespace(threshold=threshold), settings=Settings(),
        splits=part.cases[["image_id", "split", "target"]],
    )  # fmt: skip


def test_the_table_compares_the_same_cases(cases, tmp_path):
    rng = np.random.default_rng(3)
    scores = {
        side: pd.Series(rng.normal(cases["target"] * gap, 1), cases["image_id"]) for side, gap in (("in", 2.0), ("out", 1.0))
    }
    runs = {}
    for part in study_parts(cases):
        runs[part.name] = fake_run(part, scores["in" if part.name in HALVES else "out"], 0.4 if part.name == "half-1" else 0.5)
    table = compare_sources(runs, n=50)
    half = {name: set(runs[name].predictions("test")["image_id"]) for name in HALVES}
    for row in table.rows:
        own = cases[cases["acquisition"] == row["source"]].set_index("image_id")
        aurocs = {side: [] for side in scores}
        for name in HALVES:
            inside = own[own.index.isin(half[name])]
            for side in scores:
                aurocs[side].append(roc_auc_score(inside["target"], scores[side][inside.index]))
        assert row["auroc_seen"]["value"] == pytest.approx(np.mean(aurocs["in"]))
        assert row["auroc_unseen"]["value"] == pytest.approx(np.mean(aurocs["out"]))
        assert row["auroc_change"]["value"] == pytest.approx(np.mean(aurocs["out"]) - np.mean(aurocs["in"]))
        melanomas = own.index[own["target"] == 1]
        cuts = np.where(melanomas.isin(half["half-1"]), np.log(0.4 / 0.6), 0.0)
        found = (scores["in"][melanomas] >= cuts).mean()
        assert row["sensitivity_seen"]["value"] == pytest.approx(found)
        assert row["sensitivity_change"]["value"] == pytest.approx((scores["out"][melanomas] >= 0).mean() - found)
        assert row["auroc_seen"]["low"] <= row["auroc_seen"]["value"] <= row["auroc_seen"]["high"]
    assert sum(row["images"] for row in table.rows) == len(cases)
    assert table.rows[0]["source"] in sources_report(table)
    assert "film: AUROC seen" in sources_figure(table).alt_text
    worst = min(table.rows, key=lambda row: row["auroc_change"]["value"])
    assert f"{worst['source']} loses most AUROC: {worst['auroc_change']['value']:+.3f}" in sources_words(table)
    assert {row["note"] for row in table.rows} == {""}
    del runs["half-2"]
    with pytest.raises(StudyError, match="half-2"):
        compare_sources(runs)


@pytest.mark.parametrize("melanomas", [4, 9, 10])
def test_a_source_of_few_melanomas_has_no_interval_of_resamples(cases, melanomas, tmp_path):
    targets = [1] * melanomas + [0] * 60
    attic = case_table(targets, lesions=[f"attic_{i}" for i in range(len(targets))], acquisition="attic")
    cases = pd.concat([cases, attic.assign(image_id=[f"attic_{i}" for i in range(len(attic))])], ignore_index=True)
    scores = pd.Series(np.random.default_rng(5).normal(size=len(cases)), cases["image_id"])
    runs = {part.name: fake_run(part, scores.sample(frac=1, random_state=i).set_axis(scores.index), 0.5)
            for i, part in enumerate(study_parts(cases))}  # fmt: skip
    table = compare_sources(runs, n=100)
    row = next(row for row in table.rows if row["source"] == "attic")
    resampled = {name: one for name, one in row.items() if isinstance(one, dict) and one["method"] == "bootstrap"}
    assert {"auroc_seen", "auroc_unseen", "auroc_change", "sensitivity_change", "specificity_change"} <= set(resampled)
    assert all(one["value"] is not None for one in resampled.values())
    if melanomas == 10:
        assert row["note"] == "" and None not in (row["auroc_change"]["low"], row["sensitivity_seen"]["low"])
        return
    assert {(one["low"], one["high"]) for one in resampled.values()} == {(None, None)}
    right = row["sensitivity_seen"]["value"] * melanomas
    expected = wilson_interval(right, melanomas)
    assert row["sensitivity_seen"]["low"] == pytest.approx(expected.low)
    assert row["sensitivity_seen"]["high"] == pytest.approx(expected.high)
    assert f"attic: {melanomas} melanoma and 60 benign groups" in sources_report(table)
    save_results(table, tmp_path)
    figure = sources_figure(load_results("sources_out", tmp_path))
    figure.canvas.draw()
    assert f"attic: AUROC seen {row['auroc_seen']['value']:.3f}, unseen" in figure.alt_text


def test_the_command_resamples_as_often_as_it_is_told(monkeypatch):
    asked = {}

    def compared(runs, n=2000, seed=0):
        asked["n"] = n
        raise StudyError("enough")

    monkeypatch.setattr("melanoma_lib.studies.sources_out.train_parts", lambda settings, parts: {})
    monkeypatch.setattr("melanoma_lib.studies.sources_out.compare_sources", compared)
    assert main(["study", "sources", "--n-resamples", "321"]) == 1
    assert asked == {"n": 321}
