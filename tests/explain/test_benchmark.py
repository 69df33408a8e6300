"""The benchmark: grades are those of the scores case by case, verdicts those of the numbers, and nothing is graded twice."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from melanoma_lib.__main__ import main
from melanoma_lib.data.images import prepare_image, read_square
from melanoma_lib.errors import DataError, KitError
from melanoma_lib.explain import benchmark_heatmaps, cam_layers, grading, heatmaps, score_heatmap
from melanoma_lib.explain.benchmark import CRITERIA, Benchmark, score_table
from melanoma_lib.explain.faithfulness import deletion_insertion, road
from melanoma_lib.explain.figures import criteria_figure
from melanoma_lib.explain.grading import choose_cases
from melanoma_lib.explain.sanity import cascade, class_swap

METHODS = ["gradcam", "eigencam"]
FEW = {"n_faithful": 12, "n_road": 3, "n_sanity": 14, "n_resamples": 200, "show_progress": False}


@pytest.fixture(scope="module")
def layers(tiny_run) -> list[str]:
    return list(cam_layers(tiny_run.model()))[:2]  # of a picture this small the last layers hold a single point


@pytest.fixture(scope="module")
def everyone(tiny_run) -> pd.DataFrame:
    """Cases of all splits: those of the test alone are of too few patients for a verdict."""
    return tiny_run.cases()


@pytest.fixture(scope="module")
def made(tiny_run, layers, everyone, tmp_path_factory) -> tuple[Benchmark, object]:
    out = tmp_path_factory.mktemp("benchmark") / "league.json"
    return benchmark_heatmaps(tiny_run, 20, METHODS, layers, cases=everyone, out=out, **FEW), out


@pytest.mark.parametrize(("n", "melanomas", "total"), [(8, 4, 8), (26, 9, 26), (99, 9, 32), (1, 0, 1)])
def test_half_are_melanomas_as_far_as_there_are_in_every_beginning_and_all_have_masks(n, melanomas, total):
    names = [f"c{i:02}" for i in range(40)]
    masks = [f"{name}.png" if i % 5 else pd.NA for i, name in enumerate(names)]
    table = pd.DataFrame({"image_id": names, "mask_path": masks, "target": [int(i < 12) for i in range(40)]})
    chosen = choose_cases(table, n, seed=3)
    assert (len(chosen), chosen["target"].sum()) == (total, melanomas)
    assert chosen["mask_path"].notna().all() and chosen["image_id"].is_unique
    assert (np.abs(chosen["target"].cumsum() - chosen["target"].mean() * np.arange(1, total + 1)) <= 1).all()
    with pytest.raises(DataError, match="none of 40 cases has a mask"):
        choose_cases(table.assign(mask_path=pd.NA), n, 0)


def test_verdicts_follow_from_intervals():
    """Two maps, edges, noise and the centre prior, on grades whose levels are known."""
    maps = [("late", "good"), ("late", "bad"), ("", "edges"), ("", "random"), ("", "centre")]
    rng, targets, groups = np.random.default_rng(0), pd.Series(np.arange(60) % 2), pd.Series(np.arange(60) // 2)
    levels = {
        "energy_in_mask": [0.6, 0.2, 0.4, 0.2, 0.4],
        "energy_beyond_centred": [0.2, 0.0, -0.1, -0.3, 0.0],
        "deletion": [0.2, 0.6, 0.4, 0.4, 0.4],  # the less, the better
        "deletion_insertion": [0.9, 0.1, 0.4, 0.1, 0.1],
        "class_swap": [-1.0, 0.97, 1.0, 0.0, 1.0],
        "cascade:head": [0.5, 0.9, 1.0, 0.0, 1.0],
        "cascade:stem": [0.05, 0.8, 1.0, 0.0, 1.0],
        "stranger": [0.0, 0.2, 0.1, 0.0, 1.0],
    }
    noise = {"class_swap": 0.002, "cascade:stem": 0.02, "stranger": 0.0}
    grades = {name: np.array(level) + noise.get(name, 0.05) * rng.normal(size=(60, 5)) for name, level in levels.items()}
    grades["energy_beyond_centred"][:, 4] = 0
    grades["deletion"][:, 1] = np.nan
    grades["deletion"][8:, 3] = np.nan  # four groups are too few for an interval
    scores = score_table(grades, maps, targets, groups, 200)
    found = Benchmark({"layers": ["late"]}, scores)
    assert found.criteria.columns.tolist() == list(CRITERIA)
    assert found.criteria.to_numpy().tolist() == [
        ["better"] * 5,
        ["worse", "inconclusive", "inconclusive", "worse", "worse"],
        ["inconclusive", "worse", "better", "worse", "worse"],
        ["worse", "worse", "inconclusive", "", ""],  # noise changes by itself
        ["", "", "", "worse", "worse"],
    ]
    assert found.score("deletion")["verdict"].tolist() == ["better", "", "inconclusive", "inconclusive", ""]
    assert (found.score("cascade:head")["verdict"] == "").all()  # judged once all weights are random
    rows, level = found.score("energy_in_mask"), grades["energy_in_mask"]
    np.testing.assert_allclose(rows["difference"], (level - level[:, 4:]).mean(0))
    np.testing.assert_allclose(rows["melanomas"], level[1::2].mean(0))
    np.testing.assert_allclose(found.score("stranger")["estimate"], levels["stranger"])
    assert (
        "inconclusive"
        in criteria_figure(Benchmark({"layers": ["late"], "methods": ["good", "bad"], "run": "r"}, scores)).alt_text
    )


def test_grades_are_those_of_the_scores_case_by_case(tiny_run, layers, everyone, made):
    chosen, model, found = choose_cases(everyone, 20, 0), tiny_run.model(), made[0]
    images = torch.stack([prepare_image(path, tiny_run.settings.backbone, 32) for path in chosen["image_path"]])
    masks = [read_square(path, 32)[..., 0] > 127 for path in chosen["mask_path"]]
    metadata = torch.from_numpy(tiny_run.encoder.transform(chosen))
    maps = heatmaps(model, images, metadata, layers, "gradcam", size=32)
    for layer in layers:
        at = (layer, "gradcam")
        graded = [score_heatmap(one, mask) for one, mask in zip(maps[layer], masks, strict=True)]
        for name in graded[0]:
            flat = [score_heatmap(np.ones((32, 32)), mask)[name] for mask in masks]
            expected = [g[name] if np.isfinite(g[name]) else uniform for g, uniform in zip(graded, flat, strict=True)]
            assert found.score(name).loc[at, "estimate"] == pytest.approx(np.mean(expected), abs=1e-3), name  # a rounded pixel
        gain = deletion_insertion(model, images[:12], metadata[:12], maps[layer][:12]).gain().mean()
        assert found.score("deletion_insertion").loc[at, "estimate"] == pytest.approx(gain, abs=1e-4)
        gain = road(model, images[:3], metadata[:3], maps[layer][:3], shares=grading.ROAD_SHARES).gain().mean()
        assert found.score("road").loc[at, "estimate"] == pytest.approx(gain, abs=1e-4)
        swap = np.nanmean(class_swap(model, images[:14], metadata[:14], [layer], ["eigencam"])["eigencam"][layer])
        assert found.score("class_swap").loc[(layer, "eigencam"), "estimate"] == pytest.approx(swap)
        assert found.score("empty").loc[at, "estimate"] == pytest.approx(np.mean([(one <= 0).all() for one in maps[layer]]))
    stages = cascade(model, images[:14], metadata[:14], layers[:1], ["gradcam"])
    for stage, similarity in stages.items():
        expected = np.nanmean(similarity["gradcam"][layers[0]])
        assert found.score(f"cascade:{stage}").loc[(layers[0], "gradcam"), "estimate"] == pytest.approx(expected, abs=1e-6)
    outlines = [score_heatmap(mask.astype(np.float32), mask)["overlap"] for mask in masks]
    assert found.score("overlap").loc[("", "outline"), "estimate"] == pytest.approx(np.mean(outlines))
    for control in ("edges", "centre"):
        assert found.criteria.loc[("", control), ["class-discriminative", "depends on the weights"]].tolist() == ["worse"] * 2


def test_json_comes_back_to_the_last_digit_and_nothing_is_graded_twice(tiny_run, layers, everyone, made, monkeypatch):
    found, out = made
    again = Benchmark.from_json(out.read_text())
    pd.testing.assert_frame_equal(again.scores, found.scores, check_exact=True)
    assert again.facts == found.facts and list(out.parent.iterdir()) == [out]  # no unfinished batches are left
    monkeypatch.setattr("melanoma_lib.explain.benchmark.grade_cases", lambda *_: pytest.fail("graded again"))
    assert benchmark_heatmaps(tiny_run, 20, METHODS, layers, cases=everyone, out=out, **FEW).to_json() == found.to_json()
    with pytest.raises(pytest.fail.Exception, match="graded again"):
        benchmark_heatmaps(tiny_run, 21, METHODS, layers, cases=everyone, out=out, **FEW)


def test_an_interrupted_benchmark_goes_on_where_it_stopped(tiny_run, layers, everyone, made, tmp_path, monkeypatch):
    graded, original = [], grading._grade_batch

    def failing(*arguments):
        if arguments[-1] > 0 and len(graded) == 1:
            raise KeyboardInterrupt
        graded.append(arguments[-1])
        return original(*arguments)

    monkeypatch.setattr(grading, "_grade_batch", failing)
    with pytest.raises(KeyboardInterrupt):
        benchmark_heatmaps(tiny_run, 20, METHODS, layers, cases=everyone, out=tmp_path / "league.json", **FEW)
    graded.append("again")
    found = benchmark_heatmaps(tiny_run, 20, METHODS, layers, cases=everyone, out=tmp_path / "league.json", **FEW)
    assert graded == [0, "again", 16]
    pd.testing.assert_frame_equal(found.scores, made[0].scores)


def test_a_run_without_images_has_no_benchmark(tiny_run, tiny_settings):
    blind = dataclasses.make_dataclass("Blind", ["path", "settings"])
    with pytest.raises(KitError, match="image branch"):
        benchmark_heatmaps(blind(tiny_run.path, tiny_settings.with_changes(modalities="metadata")), 4)


def test_the_command_draws_cases_and_leaves_table_and_figures(tiny_run, tmp_path, capsys):
    wanted = tiny_run.predictions("test")["image_id"].iloc[0]
    words = ["explain", str(tiny_run.path), "--image-id", wanted, "--method", "gradcam", "ablationcam", "--layers", "blocks.1"]
    assert main([*words, "--out", str(tmp_path / "cases")]) == 0
    written = sorted(file.name for file in (tmp_path / "cases").iterdir())
    assert written == [f"{wanted}-{method}.{kind}" for method in ("ablationcam", "gradcam") for kind in ("png", "txt")]
    words = ["explain", str(tiny_run.path), "--league", "6", "--method", "gradcam", "--layers", "blocks.1", "--progress", "no"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    assert "on the lesion" in capsys.readouterr().out
    kept = Benchmark.from_json((tmp_path / "league.json").read_text())
    assert kept.facts["n"] == 6 and len(pd.read_csv(tmp_path / "league.csv")) == len(kept.scores)
    assert (tmp_path / "league-criteria.png").read_bytes().startswith(b"\x89PNG")
    assert tiny_run.path.name in (tmp_path / "league-criteria.txt").read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--image-id", "NOBODY"], "NOBODY"),
        (["--league", "4", "--method", "smoothgrad"], "smoothgrad"),
        (["--league", "4", "--layers", "conv9"], "conv9"),
        (["--league", "-3"], "at least 1 case"),
    ],
)
def test_errors_are_explained_without_a_traceback(tiny_run, words, expected, capsys):
    assert main(["explain", str(tiny_run.path), *words]) == 1
    printed = capsys.readouterr().err
    assert expected in printed and "Traceback" not in printed
