"""The heatmap lesson's figures draw what they say."""

import numpy as np
import pytest

from melanoma_lib.explain import cam_layers
from melanoma_lib.explain.cam import resize_heatmap
from melanoma_lib.explain.exam import energy_in_mask
from melanoma_lib.lessons import gradcam, start
from melanoma_lib.lessons import gradcam_figures as figures


@pytest.fixture(scope="module")
def one(tiny_run):
    return gradcam.subject(tiny_run, start.choose_case(start.tested_cases(tiny_run)))


@pytest.fixture(scope="module")
def other(tiny_run, one):
    cases = start.tested_cases(tiny_run)
    return gradcam.subject(tiny_run, cases.loc[cases["risk"].idxmin()], one.model)


def drawn(axes):
    return [np.asarray(image.get_array()) for image in axes.images]


def test_the_case_is_shown_as_the_model_gets_it(one):
    figure = figures.subject_figure(one)
    _, right = figure.axes
    (shown,) = drawn(right)
    assert shown.shape[:2] == tuple(one.image.shape[-2:])
    assert f"{one.mask.mean():.0%} of the picture" in figure.alt_text


def test_the_recipe_multiplies_and_adds_to_the_map(one):
    figure = figures.recipe_figure(one, one.layer, n=2)
    above, below, (total,) = figure.axes[:2], figure.axes[3:5], drawn(figure.axes[5])
    for activation, product in zip(above, below, strict=True):
        weight = float(product.get_title("left").split()[-1])
        (a,), (p,) = drawn(activation), drawn(product)
        np.testing.assert_allclose(p, weight * a, rtol=0.06, atol=1e-3 * np.abs(p).max())  # the title rounds to two digits
    np.testing.assert_allclose(total, one.maps(layers=one.layer)[one.layer], atol=1e-5 * np.abs(total).max())


def test_the_grid_of_each_layer_is_drawn(one):
    figure = figures.reach_figure(one)
    for axes, layer in zip(figure.axes, cam_layers(one.model).values(), strict=False):
        points = -(-one.image.shape[-1] // layer.stride)
        assert len(axes.lines) == 2 * (points - 1)
        assert f"{points} × {points} points" in axes.get_title("left")
    assert f"{layer.name} has {points} by {points} points" in figure.alt_text


def test_stretching_hides_what_one_scale_shows(one, other):
    figure = figures.stretched_figure([one, other], one.layer)
    maps = [each.maps(layers=one.layer)[one.layer] for each in (one, other)]
    top = max(np.abs(heatmap).max() for heatmap in maps)
    for row, heatmap in enumerate(maps):
        (published,), (_, signed) = (figure.axes[3 * row + column].images for column in (1, 2))
        assert published.get_array().min() >= 0
        if heatmap.max() > 0:
            assert published.get_clim()[1] == pytest.approx(published.get_array().max())
        assert signed.get_clim() == pytest.approx((-top, top))
        assert f"from {heatmap.min():+.2g} to {heatmap.max():+.2g}" in figure.alt_text


def test_both_directions_are_drawn_and_their_difference_told(one):
    figure = figures.swap_figure(one, one.layer)
    grad = [drawn(axes)[1] for axes in figure.axes[1:3]]
    eigen = [drawn(axes)[1] for axes in figure.axes[4:6]]
    np.testing.assert_allclose(grad[0], -grad[1], atol=1e-6)
    np.testing.assert_array_equal(eigen[0], eigen[1])
    assert "EigenCAM: both maps differ by up to 0%" in figure.alt_text
    assert "Grad-CAM: both maps differ by up to 200%" in figure.alt_text


def test_grades_stand_above_the_maps(one):
    maps = one.maps(layers=one.layer) | gradcam.controls(one)
    figure = figures.graded_figure(one, maps)
    titles = " ".join(axes.get_title("left") for axes in figure.axes)
    for name, heatmap in maps.items():
        if heatmap.max() > 0:
            assert f"{name}: {energy_in_mask(resize_heatmap(heatmap, one.mask.shape), one.mask):.0%} on it" in titles
