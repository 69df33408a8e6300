"""Heatmaps drawn: sign, zero and scale survive; what cannot be drawn is refused."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg

from melanoma_lib.explain import heatmap_figure
from melanoma_lib.explain.cam import resize_heatmap
from melanoma_lib.explain.figures import signed_overlay

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
MASK = np.zeros((60, 80), bool)
MASK[10:30, 10:50] = True
PEAK = np.zeros((6, 8), np.float32)
PEAK[1, 3], PEAK[4, 6], PEAK[4, 1] = 0.02, -0.005, 0.007
MAPS = {"early": PEAK, "late": 100 * PEAK, "nothing": 0 * PEAK, "against": np.full((3, 4), -7, np.float32)}


@pytest.mark.parametrize(("count", "mask"), [(1, None), (11, MASK)])
def test_the_figure_is_described_whole_and_leaves_pyplot_alone(count, mask):
    open_before = plt.get_fignums()
    figure = heatmap_figure(IMAGE, {f"layer {i}": PEAK * (i + 1) for i in range(count)}, mask, "Grad-CAM")
    assert figure._repr_mimebundle_()[1]["image/png"]["alt"] == figure.alt_text
    assert sum(len(axes.images) for axes in figure.axes) == count + 1
    FigureCanvasAgg(figure).draw()
    label = figure.axes[-1].xaxis.label.get_window_extent()
    assert label.x0 >= 0 and label.x1 <= figure.bbox.width and label.y0 >= 0
    assert plt.get_fignums() == open_before


def test_sign_and_zero_survive_on_a_symmetric_scale():
    grey = np.rint((IMAGE.mean(axis=2) + 100) * 255 / 355)
    early, late, nothing, against = (signed_overlay(IMAGE, heatmap).astype(int) for heatmap in MAPS.values())
    np.testing.assert_array_equal(early, late)  # each by its own magnitude
    np.testing.assert_allclose(nothing, np.repeat(grey[..., None], 3, 2), atol=1)
    full = 0.1 * grey[..., None] + 0.9 * np.array([0, 114, 178])  # blue at its full strength
    np.testing.assert_allclose(against, full, atol=1)
    fine = resize_heatmap(PEAK, (60, 80))
    assert (early[..., 0] - early[..., 2])[fine > 0.01].min() > 30 > -5 > (early[..., 0] - early[..., 2])[fine < -0.003].max()


def test_the_alt_text_says_where_the_peak_lies_and_how_much_falls_on_the_lesion():
    text, fine = heatmap_figure(IMAGE, MAPS, MASK).alt_text, np.maximum(resize_heatmap(PEAK, (60, 80)), 0)
    share = fine[MASK].sum() / fine.sum()
    assert f"early: peak 0.02 at 44% from the left and 25% from the top, {share:.0%} of the positive energy" in text
    assert "on the lesion, lowest -0.005;" in text and f"({len(MAPS)})" in text
    assert "nothing: nothing positive, lowest 0;" in text and "against: nothing positive, lowest -7." in text
