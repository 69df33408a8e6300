"""The heatmap lesson's facts about a case, against the model itself and against the explain package."""

import numpy as np
import pandas as pd
import pytest
import torch

from melanoma_lib.explain import cam_layers, heatmaps, score_heatmap
from melanoma_lib.explain.cam import resize_heatmap
from melanoma_lib.lessons import gradcam, start


@pytest.fixture(scope="module")
def cases(tiny_run):
    return start.tested_cases(tiny_run)


@pytest.fixture(scope="module")
def model(tiny_run):
    return tiny_run.model()


@pytest.fixture(scope="module")
def one(tiny_run, cases, model):
    return gradcam.subject(tiny_run, start.choose_case(cases), model)


def test_a_subject_is_the_case_that_the_run_answers(tiny_run, one):
    assert one.risk == pytest.approx(start.answer(tiny_run, one.case, one.model).risk)
    assert one.pixels.shape == (256, 256, 3)
    assert one.mask.shape == (256, 256)
    assert one.mask.dtype == bool
    assert one.mask.any()


def test_its_maps_are_those_of_the_library(one):
    library = heatmaps(one.model, one.image, one.metadata, method="layercam", direction=-1)
    mine = one.maps("layercam", direction=-1)
    assert list(mine) == list(library)
    for layer, heatmap in mine.items():
        np.testing.assert_array_equal(heatmap, library[layer][0])


def test_the_lessons_layer_is_the_last_that_is_finer_than_the_coarsest(one):
    strides = {name: layer.stride for name, layer in cam_layers(one.model).items()}
    later = list(strides)[list(strides).index(one.layer) + 1 :]
    assert strides[one.layer] < max(strides.values())
    assert all(strides[name] == max(strides.values()) for name in later)
    assert one.last_layer == list(strides)[-1]


def test_the_layer_table_counts_points_as_the_maps_have_them(one):
    table = gradcam.layer_table(one)
    for layer, heatmap in one.maps().items():
        assert table.loc[layer, "points of the map"] == f"{heatmap.shape[0]} × {heatmap.shape[1]}"
        beyond = cam_layers(one.model)[layer].receptive_field > one.image.shape[-1]
        assert ("more than the image" in table.loc[layer, "pixels a point sees"]) == beyond


def test_the_parts_add_up_to_the_logit_and_the_last_map_to_the_images_part(one):
    parts = gradcam.logit_parts(one)
    with torch.inference_mode():
        logit = float(one.model(one.image, one.metadata))
    assert sum(parts.values()) == pytest.approx(logit, abs=1e-4)
    assert one.maps(layers=one.last_layer)[one.last_layer].sum() == pytest.approx(parts["image"], abs=1e-4)


def test_swapped_maps_are_those_of_each_case_alone(tiny_run, cases, model, one):
    some = cases.head(3)
    found = gradcam.swapped_maps(tiny_run, model, some, one.layer)
    assert list(found) == list(gradcam.NAMES.values())
    for i, (_, case) in enumerate(some.iterrows()):
        alone = gradcam.subject(tiny_run, case, model)
        for method, name in gradcam.NAMES.items():
            for direction, maps in zip((1, -1), found[name], strict=True):
                expected = alone.maps(method, one.layer, direction)[one.layer]
                np.testing.assert_allclose(maps[i], expected, atol=2e-3 * np.abs(expected).max())
    np.testing.assert_array_equal(*found["EigenCAM"])
    np.testing.assert_allclose(found["Grad-CAM"][0], -found["Grad-CAM"][1], atol=1e-6)


def test_the_faintest_case_has_the_lowest_positive_peak_below_the_threshold(tiny_run, cases, model):
    chosen = gradcam.faintest(tiny_run, model, cases)
    threshold = tiny_run.operating_point.threshold
    below = cases[cases["probability"] < threshold]
    below = cases if below.empty else below
    peaks = {}
    for _, case in below.iterrows():
        one = gradcam.subject(tiny_run, case, model)
        peaks[case["image_id"]] = one.maps(layers=one.last_layer)[one.last_layer].max()
    positive = [peak for peak in peaks.values() if peak > 0]
    expected = min(positive) if positive else max(peaks.values())
    assert peaks[chosen["image_id"]] == pytest.approx(expected, abs=1e-4)


def test_the_site_moves_the_risk_and_not_the_map(tiny_run, one):
    table = gradcam.site_table(one)
    assert list(table.index) == [*gradcam.SITES, "unknown"]
    assert table["risk"].nunique() > 1
    assert table["largest change of a map"].max() < 1e-4
    moved = one.case.copy()
    moved["anatom_site_general_challenge"] = "head/neck"
    assert table.loc["head/neck", "risk"] == pytest.approx(gradcam.subject(tiny_run, moved, one.model).risk, abs=1e-5)


def test_a_map_that_moves_is_seen(one, monkeypatch):
    """The table would tell: a model whose metadata scale the image's features."""
    model = one.model
    plain = model.features

    def mixing(image, metadata):
        features = plain(image, metadata)
        return features * (1 + metadata @ torch.arange(1.0, metadata.shape[1] + 1))[:, None]

    monkeypatch.setattr(model, "features", mixing)
    assert gradcam.site_table(one, ("gradcam",))["largest change of a map"].max() > 0.01


def test_grades_are_the_exams_on_the_picture(one):
    maps = one.maps() | gradcam.controls(one)
    table = gradcam.grades(one, maps)
    for name, heatmap in maps.items():
        expected = score_heatmap(resize_heatmap(heatmap, one.mask.shape), one.mask)
        pd.testing.assert_series_equal(table.loc[name], pd.Series(expected, name=name))


def test_a_case_without_outline_is_told(tiny_run, one):
    case = one.case.copy()
    case["mask_path"] = np.nan
    with pytest.raises(ValueError, match="no mask to grade maps against"):
        gradcam.grades(gradcam.subject(tiny_run, case, one.model), one.maps())


def test_the_league_is_kept_and_found_again(tiny_run, monkeypatch):
    first = gradcam.kept_league(tiny_run, 12)
    monkeypatch.setattr("melanoma_lib.explain.league.grade_cases", lambda *_: pytest.fail("graded twice"))
    again = gradcam.kept_league(tiny_run, 12)
    pd.testing.assert_frame_equal(first.scores, again.scores)
    assert again.facts["n"] == 12


@pytest.mark.parametrize("text", ["One. Two 0.5 and 0.7 [0.1, 0.2]. Three: a b.", "word " * 60 + "end. Next."])
def test_wrapped_text_keeps_every_word_and_fits(text):
    lines = gradcam.wrapped(text)
    assert lines.split() == text.split()
    assert max(map(len, lines.splitlines())) <= gradcam.LINE
