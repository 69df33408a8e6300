"""The league: its grades are the exam's own, its verdicts those of the numbers, and nothing is graded twice."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from melanoma_lib.data.artefacts import ARTEFACTS
from melanoma_lib.data.images import prepare_image, read_square
from melanoma_lib.errors import DataError, KitError
from melanoma_lib.explain import heatmaps, score_heatmap
from melanoma_lib.explain import league_cases as cases_module
from melanoma_lib.explain.faithfulness import deletion_insertion
from melanoma_lib.explain.league import League, league, score_table
from melanoma_lib.explain.league_cases import choose_cases
from melanoma_lib.explain.league_words import conclusion
from melanoma_lib.explain.sanity import class_swap

METHODS = ["gradcam", "eigencam"]
FEW = {"n_faithful": 12, "n_road": 3, "n_sanity": 14, "n_resamples": 200, "show_progress": False}


@pytest.fixture(scope="module")
def layers(tiny_run) -> list[str]:
    from melanoma_lib.explain import cam_layers

    return list(cam_layers(tiny_run.model()))[:2]  # of a picture this small the last layers hold a single point


@pytest.fixture(scope="module")
def everyone(tiny_run) -> pd.DataFrame:
    """Cases of all splits: those of the test alone are of too few patients for a verdict."""
    return tiny_run.cases()


@pytest.fixture(scope="module")
def played(tiny_run, layers, everyone, tmp_path_factory) -> tuple[League, object]:
    out = tmp_path_factory.mktemp("league") / "league.json"
    return league(tiny_run, 20, METHODS, layers, cases=everyone, out=out, **FEW), out


def table(n: int = 40, melanomas: int = 12) -> pd.DataFrame:
    names = [f"c{i:02}" for i in range(n)]
    masks = [f"{name}.png" if i % 5 else pd.NA for i, name in enumerate(names)]
    return pd.DataFrame({"image_id": names, "mask_path": masks, "target": [int(i < melanomas) for i in range(n)]})


# --- the cases --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "melanomas", "total"), [(8, 4, 8), (16, 8, 16), (26, 9, 26), (99, 9, 32), (1, 0, 1)])
def test_half_are_melanomas_as_far_as_there_are_and_all_have_masks(n, melanomas, total):
    chosen = choose_cases(table(), n, seed=3)
    assert (len(chosen), chosen["target"].sum()) == (total, melanomas)
    assert chosen["mask_path"].notna().all()
    assert chosen["image_id"].is_unique


def test_every_beginning_holds_both_classes_in_proportion_and_the_seed_decides():
    chosen = choose_cases(table(), 20, seed=3)
    share = chosen["target"].mean()
    assert (np.abs(chosen["target"].cumsum() - share * np.arange(1, 21)) <= 1).all()
    assert choose_cases(table(), 20, seed=3).equals(chosen)
    assert not choose_cases(table(), 20, seed=4)["image_id"].equals(chosen["image_id"])


def test_no_masks_or_no_cases_are_errors():
    with pytest.raises(DataError, match="none of 40 cases has a mask"):
        choose_cases(table().assign(mask_path=pd.NA), 5, 0)
    with pytest.raises(ValueError, match="at least 1 case, got 0"):
        choose_cases(table(), 0, 0)


# --- verdicts, from grades made up ------------------------------------------------------------------------------------------


def made_up(**grades: np.ndarray) -> tuple[pd.DataFrame, dict]:
    """Scores of four contestants on 60 cases in 30 groups: two maps, edges and the centre prior."""
    contestants = [("late", "good"), ("late", "bad"), ("", "edges"), ("", "centre")]
    targets, groups = pd.Series(np.arange(60) % 2), pd.Series(np.arange(60) // 2)
    scores = score_table(grades, contestants, targets, groups, 200)
    return scores, scores.set_index(["score", "method"])["verdict"].to_dict()


def test_a_map_better_on_every_case_beats_the_centre_and_the_centre_differs_from_itself_by_nothing():
    noise = np.random.default_rng(0).normal(0, 0.2, (60, 1))
    level = noise + np.array([0.5, 0.3, 0.4, 0.4]) + np.random.default_rng(1).normal(0, 0.05, (60, 4)) * [1, 1, 1, 0]
    scores, verdicts = made_up(energy_in_mask=level, deletion=level, energy_on_ruler=level)
    assert [verdicts["energy_in_mask", name] for name in ("good", "bad", "centre")] == ["better", "worse", "the reference"]
    assert [verdicts["deletion", name] for name in ("good", "bad")] == ["worse", "better"]  # the score shall fall
    assert [verdicts["energy_on_ruler", name] for name in ("good", "bad")] == ["more", "less"]
    assert verdicts["energy_in_mask", "edges"] == "not told apart"
    rows = scores[scores["score"] == "energy_in_mask"].set_index("method")
    assert (rows.loc["centre", ["vs_centre", "vs_centre_low", "vs_centre_high"]] == 0).all()
    np.testing.assert_allclose(rows["vs_centre"], (level - level[:, 3:]).mean(0))
    np.testing.assert_allclose(rows["melanomas"], level[1::2].mean(0))
    np.testing.assert_allclose(rows["others"], level[::2].mean(0))


def test_a_narrow_spot_in_the_middle_is_not_well_placed_but_may_speak_of_the_model():
    rng = np.random.default_rng(6)
    grades = {
        "energy_in_mask": np.array([0.7, 0.7, 0.4, 0.4]) + rng.normal(0, 0.05, (60, 4)),
        "energy_beyond_centred": np.array([0.2, 0.0, -0.1, 0.0]) + rng.normal(0, 0.05, (60, 4)) * [1, 1, 1, 0],
        "deletion_insertion": np.array([0.9, 0.9, 0.1, 0.1]) + rng.normal(0, 0.05, (60, 4)),
        "class_swap": np.array([-1.0, -1.0, 1.0, 1.0]) + rng.normal(0, 0.01, (60, 4)),
        "cascade:stem": np.array([0.0, 0.0, 1.0, 1.0]) + rng.normal(0, 0.01, (60, 4)),
        "stranger": np.array([0.1, 0.1, 0.1, 1.0]) + 0 * rng.normal(size=(60, 4)),
    }
    scores, verdicts = made_up(**grades)
    assert verdicts["energy_in_mask", "bad"] == "better"
    assert [verdicts["energy_beyond_centred", name] for name in ("good", "bad")] == ["better", "not told apart"]
    facts = {"n": 60, "melanomas": 30, "groups": 30, "run": "made up", "layers": ["late"], "methods": ["good", "bad"]}
    told = League(facts, scores).exam
    assert told.loc[("late", "good")].tolist() == ["passes"] * 5
    assert told.loc[("late", "bad")].tolist() == ["passes", "not settled", "passes", "passes", "passes"]
    said = conclusion(facts, scores)
    assert "2 of 2 maps beat the centre prior by deletion/insertion, know the class" in said
    assert "change with the model: good of late; bad of late." in said
    assert "by the other scores: energy on the lesion 2, energy beyond the same values centred 1 (1 not settled)." in said


def test_maps_that_ignore_model_or_class_are_named():
    jitter = np.random.default_rng(2).normal(0, 0.02, (60, 4))
    after = np.array([0.05, 0.8, 0.1, 1.0]) + jitter
    stranger = np.array([0.0, 0.2, 0.1, 1.0]) + 0 * jitter
    swap = np.array([-1.0, 0.97, 0.0, 1.0]) + 0.1 * jitter
    _, verdicts = made_up(**{"cascade:head": after, "cascade:stem": after, "stranger": stranger, "class_swap": swap})
    assert [verdicts["cascade:stem", name] for name in ("good", "bad", "edges", "centre")] == [
        "changes with it", "ignores the model", "changes by itself", "ignores the model",
    ]  # fmt: skip
    assert verdicts["cascade:head", "bad"] == ""  # judged once all weights are random
    assert [verdicts["class_swap", name] for name in ("good", "bad", "edges", "centre")] == [
        "knows the class", "ignores the class", "changes by itself", "ignores the class",
    ]  # fmt: skip


def test_what_is_not_graded_or_on_too_few_groups_has_no_verdict():
    values = np.random.default_rng(3).normal(size=(60, 4))
    values[:, 1] = np.nan
    values[8:, 0] = np.nan
    _, verdicts = made_up(energy_in_mask=values)
    assert (verdicts["energy_in_mask", "bad"], verdicts["energy_in_mask", "good"]) == ("not graded", "fewer than 10 groups")


# --- a league of a real run -------------------------------------------------------------------------------------------------


def case_by_case(tiny_run, everyone) -> tuple[pd.DataFrame, torch.Tensor, torch.Tensor, list[np.ndarray]]:
    """The league's cases, prepared one by one as a lesson does it."""
    chosen = choose_cases(everyone, 20, 0)
    images = torch.stack([prepare_image(path, tiny_run.settings.backbone, 32) for path in chosen["image_path"]])
    masks = [read_square(path, 32)[..., 0] > 127 for path in chosen["mask_path"]]
    return chosen, images, torch.from_numpy(tiny_run.encoder.transform(chosen)), masks


def test_grades_are_those_of_the_exam_case_by_case(tiny_run, layers, everyone, played):
    _, images, metadata, masks = case_by_case(tiny_run, everyone)
    model, scores = tiny_run.model(), played[0]
    maps = heatmaps(model, images, metadata, layers, "gradcam", size=32)
    for layer in layers:
        graded = [score_heatmap(one, mask) for one, mask in zip(maps[layer], masks, strict=True)]
        for name in graded[0]:
            flat = [score_heatmap(np.ones((32, 32)), mask)[name] for mask in masks]
            expected = [g[name] if np.isfinite(g[name]) else uniform for g, uniform in zip(graded, flat, strict=True)]
            found = scores.score(name).loc[(layer, "gradcam"), "value"]
            assert found == pytest.approx(np.mean(expected), abs=1e-3), name  # rounding can cost a pixel
        gain = deletion_insertion(model, images[:12], metadata[:12], maps[layer][:12]).gain().mean()
        assert scores.score("deletion_insertion").loc[(layer, "gradcam"), "value"] == pytest.approx(gain, abs=1e-4)
        swap = np.nanmean(class_swap(model, images[:14], metadata[:14], [layer], ["eigencam"])["eigencam"][layer])
        assert scores.score("class_swap").loc[(layer, "eigencam"), "value"] == pytest.approx(swap)
    uniform = scores.score("energy_in_mask").loc[("", "uniform"), "value"]
    assert uniform == pytest.approx(np.mean([mask.mean() for mask in masks]))
    outlines = [score_heatmap(mask.astype(np.float32), mask) for mask in masks]
    for name in outlines[0]:
        assert scores.score(name).loc[("", "outline"), "value"] == pytest.approx(np.mean([each[name] for each in outlines])), name


def test_controls_are_flagged_and_noise_is_not_mistaken_for_knowledge(played):
    scores = played[0]
    last = next(name for name in reversed(list(scores.scores["score"])) if name.startswith("cascade:"))
    for control in ("edges", "centre"):
        assert scores.score("class_swap").loc[("", control), "verdict"] == "ignores the class"
        assert scores.score(last).loc[("", control), "verdict"] == "ignores the model"
    assert scores.score(last).loc[("", "random"), "verdict"] in ("changes by itself", "unclear")
    assert (scores.score("class_swap").xs("eigencam", level="method")["verdict"] == "ignores the class").all()
    assert (scores.score("class_swap").xs("gradcam", level="method")["verdict"] == "knows the class").all()
    assert (scores.score("road")["cases"] == 3).all()
    assert (scores.score("road").drop(index=("", "centre"))["verdict"] == "fewer than 10 groups").all()


def test_a_map_that_is_the_mask_wins(tiny_run, layers, everyone, monkeypatch):
    _, images, _, masks = case_by_case(tiny_run, everyone)
    true = {image.numpy().tobytes(): mask.astype(np.float32) for image, mask in zip(images, masks, strict=True)}
    original = cases_module.heatmaps_by_method

    def oracle(model, image, *rest):
        found = original(model, image, *rest)
        found["gradcam"][layers[0]] = np.stack([true[one.numpy().tobytes()] for one in image])
        return found

    monkeypatch.setattr(cases_module, "heatmaps_by_method", oracle)
    scores = league(tiny_run, 20, METHODS, layers, cases=everyone, **FEW | {"n_faithful": 0, "n_road": 0, "n_sanity": 0})
    for name in ("energy_in_mask", "pointing_game", "rank_accuracy", "overlap"):
        row = scores.score(name).loc[(layers[0], "gradcam")]
        assert row["value"] == pytest.approx(1)
        if name != "pointing_game":  # the centre of the picture hits as well
            assert row["verdict"] == "better"
    assert f"highest gradcam of {layers[0]} with 1.00" in scores.conclusion


def test_json_comes_back_to_the_last_digit_and_an_unchanged_league_is_not_played_again(
    tiny_run, layers, everyone, played, monkeypatch
):
    scores, out = played
    again = League.from_json(out.read_text())
    pd.testing.assert_frame_equal(again.scores, scores.scores, check_exact=True)
    assert (again.facts, str(again)) == (scores.facts, str(scores))
    assert list(out.parent.iterdir()) == [out]  # no unfinished batches are left
    monkeypatch.setattr("melanoma_lib.explain.league.grade_cases", lambda *_: pytest.fail("graded again"))
    assert league(tiny_run, 20, METHODS, layers, cases=everyone, out=out, **FEW).to_json() == scores.to_json()
    with pytest.raises(pytest.fail.Exception, match="graded again"):
        league(tiny_run, 21, METHODS, layers, cases=everyone, out=out, **FEW)


def test_an_interrupted_league_goes_on_where_it_stopped(tiny_run, layers, everyone, played, tmp_path, monkeypatch):
    graded, original = [], cases_module._Batch.grades

    def failing(batch):
        if batch.start > 0 and len(graded) == 1:
            raise KeyboardInterrupt
        graded.append(batch.start)
        return original(batch)

    with monkeypatch.context() as patch:
        patch.setattr(cases_module._Batch, "grades", failing)
        with pytest.raises(KeyboardInterrupt):
            league(tiny_run, 20, METHODS, layers, cases=everyone, out=tmp_path / "league.json", **FEW)
        graded.append("again")
        found = league(tiny_run, 20, METHODS, layers, cases=everyone, out=tmp_path / "league.json", **FEW)
    assert graded == [0, "again", 16]
    pd.testing.assert_frame_equal(found.scores, played[0].scores)


def test_the_energy_on_a_planted_artefact_is_that_of_its_pixels_beside_the_lesion(tiny_run, layers, everyone, played):
    chosen, images, metadata, masks = case_by_case(tiny_run, everyone)
    maps = heatmaps(tiny_run.model(), images, metadata, layers[0], "eigencam", size=32)[layers[0]]
    expected = []
    for row, heatmap, mask in zip(chosen.itertuples(), maps, masks, strict=True):
        if row.truth_artefact_hair:
            file = Path(row.image_path).parents[1] / "artefacts" / f"{row.image_id}.png"
            bits = np.asarray(Image.open(file).resize((32, 32), Image.Resampling.NEAREST))
            place = (bits & (1 << ARTEFACTS.index("hair")) > 0) & ~mask
            if place.any():
                expected.append(score_heatmap(heatmap, place)["energy_in_mask"])
    row = played[0].score("energy_on_hair").loc[(layers[0], "eigencam")]
    assert row["cases"] == len(expected) > 0
    assert row["value"] == pytest.approx(np.mean(expected), abs=1e-6)


def test_slow_methods_play_on_fewer_cases_and_are_compared_on_those(tiny_run, layers):
    knobs = FEW | {"n_faithful": 0, "n_road": 0, "n_sanity": 0}
    scores = league(tiny_run, 20, ["gradcam", "ablationcam"], layers[-1:], n_slow=11, **knobs)
    rows = scores.score("energy_in_mask")
    assert rows.loc[(layers[-1], "ablationcam"), "cases"] == 11
    assert rows.loc[(layers[-1], "gradcam"), "cases"] == 20
    assert scores.facts["n_slow"] == 11
    assert scores.facts["groups"] == choose_cases(tiny_run.cases().query("split == 'test'"), 20, 0)["group_id"].nunique()
    assert not scores.has_cascade
    assert "know the class and change with the model" not in scores.conclusion  # nobody asked


def test_words_follow_the_numbers(played):
    scores = played[0]
    energy = scores.scores[(scores.scores["score"] == "energy_in_mask") & (scores.scores["layer"] != "")]
    better = (energy["verdict"] == "better").sum()
    assert f"{better} of 4 maps beat the centre prior" in scores.conclusion
    assert "2 of 4 maps draw the same for melanoma and for benign (eigencam of" in scores.conclusion
    assert scores.conclusion.endswith("Educational, not for diagnosis.")
    assert "know the class and change with the model" in scores.conclusion
    assert "nan" not in str(scores)
    placed = scores.scores[(scores.scores["score"] == "energy_beyond_centred") & (scores.scores["layer"] != "")]
    assert f"{(placed['verdict'] == 'better').sum()} of 4 maps beat their own values around the middle" in scores.conclusion
    assert len(scores.table) == 9
    assert str(scores).count("\n| ") == 9


@pytest.mark.parametrize(("random", "said"), [("worse", False), ("not told apart", True)])
def test_where_noise_is_not_told_from_the_centre_no_win_is_no_fail(played, random, said):
    scores = played[0].scores.copy()
    stage = next(name for name in reversed(list(scores["score"])) if name.startswith("cascade:"))
    own = scores["layer"] != ""
    scores.loc[own, "verdict"] = "not told apart"
    scores.loc[own & (scores["score"] == stage), "verdict"] = "changes with it"
    scores.loc[own & (scores["score"] == "class_swap"), "verdict"] = ["ignores the class", "unclear", *["knows the class"] * 2]
    gains = (scores["score"] == "deletion_insertion") & (scores["method"] == "random")
    scores.loc[gains & ~own, "verdict"] = random
    words = conclusion(played[0].facts, scores)
    assert "None of 4 maps beat" in words and "1 fail at least one of these for certain; of 3 it is not settled." in words
    gain = words.partition("Deletion/insertion")[2].partition("draw the same")[0].partition("ROAD")[0]
    assert ("not to win here is no fail" in gain) == said


def test_what_does_not_exist_is_named(tiny_run, tiny_settings):
    with pytest.raises(ValueError, match=r"methods.*smoothgrad"):
        league(tiny_run, 4, ["smoothgrad"])
    with pytest.raises(ValueError, match=r"layers.*conv9"):
        league(tiny_run, 4, ["gradcam"], ["conv9"])

    @dataclasses.dataclass
    class Blind:
        path: object = tiny_run.path
        settings: object = tiny_settings.with_changes(modalities="metadata")

    with pytest.raises(KitError, match="image branch"):
        league(Blind(), 4)
