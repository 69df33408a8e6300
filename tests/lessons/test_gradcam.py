"""The heatmap lesson's facts about a case, against the model itself and against the explain package."""

import numpy as np
import pandas as pd
import pytest
import torch

from melanoma_lib.explain import METHOD_NAMES, cam_layers, heatmaps
from melanoma_lib.explain.cam import ONE_PASS_METHODS
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


def test_a_subject_is_the_case_that_the_run_answers_with_the_librarys_maps(tiny_run, one):
    assert one.risk == pytest.approx(start.answer(tiny_run, one.case, one.model).risk)
    assert one.pixels.shape == (256, 256, 3) and one.mask.shape == (256, 256) and one.mask.any()
    library = heatmaps(one.model, one.image, one.metadata, method="layercam", direction=-1)
    for layer, heatmap in one.maps("layercam", direction=-1).items():
        np.testing.assert_array_equal(heatmap, library[layer][0])
    strides = {name: layer.stride for name, layer in cam_layers(one.model).items()}
    later = list(strides)[list(strides).index(one.layer) + 1 :]
    assert strides[one.layer] < max(strides.values()) and all(strides[name] == max(strides.values()) for name in later)
    table = gradcam.layer_table(one)
    for layer, heatmap in one.maps().items():
        assert table.loc[layer, "points a side"] == len(heatmap)


def test_the_parts_add_up_to_the_logit_and_the_last_map_to_the_images_part(one):
    parts = gradcam.logit_parts(one)
    with torch.inference_mode():
        logit = float(one.model(one.image, one.metadata))
    assert sum(parts.values()) == pytest.approx(logit, abs=1e-4)
    assert one.maps(layers=one.last_layer)[one.last_layer].sum() == pytest.approx(parts["image"], abs=1e-4)


def test_swapped_maps_are_those_of_each_case_alone(tiny_run, cases, model, one):
    some = cases.head(2)
    found = gradcam.swapped_maps(tiny_run, model, some, one.layer)
    for i, (_, case) in enumerate(some.iterrows()):
        alone = gradcam.subject(tiny_run, case, model)
        for direction in (1, -1):
            for name, expected in gradcam.method_maps(alone, one.layer, ONE_PASS_METHODS, direction).items():
                np.testing.assert_allclose(found[name][direction < 0][i], expected, atol=2e-3 * np.abs(expected).max())
    assert list(found) == [METHOD_NAMES[method] for method in ONE_PASS_METHODS]


def test_the_faintest_case_has_the_lowest_positive_peak_below_the_threshold(tiny_run, cases, model):
    chosen = gradcam.faintest(tiny_run, model, cases)
    below = cases[cases["probability"] < tiny_run.operating_point.threshold]
    below, peaks = cases if below.empty else below, {}
    for _, case in below.iterrows():
        one = gradcam.subject(tiny_run, case, model)
        peaks[case["image_id"]] = one.maps(layers=one.last_layer)[one.last_layer].max()
    positive = [peak for peak in peaks.values() if peak > 0]
    assert peaks[chosen["image_id"]] == pytest.approx(min(positive) if positive else max(peaks.values()), abs=1e-4)


def test_the_site_moves_the_risk_and_not_the_map_and_a_map_that_moves_is_seen(tiny_run, one, monkeypatch):
    table = gradcam.site_table(one)
    assert list(table.index) == [*gradcam.SITES, "unknown"]
    assert table["risk"].nunique() > 1 and table["largest change of a map"].max() < 1e-4
    moved = one.case.copy()
    moved["anatom_site_general_challenge"] = "head/neck"
    assert table.loc["head/neck", "risk"] == pytest.approx(gradcam.subject(tiny_run, moved, one.model).risk, abs=1e-5)
    plain = one.model.features

    def mixing(image, metadata):
        return plain(image, metadata) * (1 + metadata @ torch.arange(1.0, metadata.shape[1] + 1))[:, None]

    monkeypatch.setattr(one.model, "features", mixing)
    assert gradcam.site_table(one, ("gradcam",))["largest change of a map"].max() > 0.01


def test_the_benchmark_is_kept_and_found_again(tiny_run, monkeypatch):
    first = gradcam.kept_benchmark(tiny_run, 12)
    monkeypatch.setattr("melanoma_lib.explain.benchmark.grade_cases", lambda *_: pytest.fail("graded twice"))
    again = gradcam.kept_benchmark(tiny_run, 12)
    pd.testing.assert_frame_equal(first.scores, again.scores)
    assert again.facts["n"] == 12


def test_figures_are_described_with_their_numbers(one):
    assert one.case["image_id"] in gradcam.subject_figure(one).alt_text
    total = one.maps(layers=one.layer)[one.layer]
    assert f"from {total.min():.2g} to {total.max():.2g}" in gradcam.recipe_figure(one, one.layer).alt_text
    sides = gradcam.layer_table(one)["receptive field"]
    assert f"a receptive field of {sides.iloc[0]} by {sides.iloc[0]} pixels" in gradcam.field_figure(one).alt_text
    assert f"risk {one.risk:.0%}" in gradcam.stretched_figure([one, one], one.last_layer).alt_text
