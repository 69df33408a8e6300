"""Heatmaps drawn: sign, zero and scale survive; what cannot be drawn is refused."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg

from melanoma_lib.explain import heatmap_figure
from melanoma_lib.explain.cam import resize_heatmap

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
MASK = np.zeros((60, 80), bool)
MASK[10:30, 10:50] = True
PEAK = np.zeros((6, 8), np.float32)
PEAK[1, 3], PEAK[4, 6], PEAK[4, 1] = 0.02, -0.005, 0.007
MAPS = {"early": PEAK, "late": 100 * PEAK, "nothing": 0 * PEAK, "against": np.full((3, 4), -7, np.float32)}


def overlays(figure):
    """What is painted over the grey image, and between which values, panel by panel."""
    panels = [axes for axes in figure.axes if len(axes.images) == 2]
    return [(np.asarray(axes.images[1].get_array()), axes.images[1].get_clim()) for axes in panels]


@pytest.mark.parametrize(("count", "mask", "raw"), [(1, None, False), (3, MASK, True), (11, MASK, False)])
def test_the_figure_is_described_whole_and_leaves_pyplot_alone(count, mask, raw):
    figure = heatmap_figure(IMAGE, {f"layer {i}": PEAK * (i + 1) for i in range(count)}, mask, "Grad-CAM", raw)
    data, metadata = figure._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")
    assert data["text/plain"] == metadata["image/png"]["alt"] == figure.alt_text
    assert len(overlays(figure)) == count
    FigureCanvasAgg(figure).draw()
    label = figure.axes[-1].xaxis.label.get_window_extent()
    assert label.x0 >= 0 and label.x1 <= figure.bbox.width and label.y0 >= 0
    assert plt.get_fignums() == []


def test_sign_and_zero_survive_on_a_symmetric_scale():
    fine = resize_heatmap(PEAK, (60, 80))
    early, late, nothing, against = overlays(heatmap_figure(IMAGE, MAPS))
    assert {limits for _, limits in (early, late, nothing, against)} == {(-1, 1)}
    for heatmap, expected in ((early, fine / 0.02), (late, fine / 0.02), (nothing, 0), (against, -1)):
        np.testing.assert_allclose(heatmap[0], np.broadcast_to(expected, (60, 80)), atol=1e-6)  # each by its own magnitude
    raw = [heatmap for heatmap, _ in overlays(heatmap_figure(IMAGE, MAPS, raw=True))]
    np.testing.assert_allclose(raw[1], 100 * fine / 7, atol=1e-6)  # one scale for all: the largest of them is 7


def test_the_alt_text_says_where_the_peak_lies_and_how_much_falls_on_the_lesion():
    text, fine = heatmap_figure(IMAGE, MAPS, MASK).alt_text, np.maximum(resize_heatmap(PEAK, (60, 80)), 0)
    share = fine[MASK].sum() / fine.sum()
    assert f"early: peak 0.02 at 44% from the left and 25% from the top, {share:.0%} of the positive energy" in text
    assert "nothing: nothing positive, lowest 0;" in text and "against: nothing positive, lowest -7." in text


@pytest.mark.parametrize(
    ("image", "maps", "mask", "message"),
    [
        (IMAGE / 255, MAPS, None, "expected uint8"),
        (IMAGE[..., 0], MAPS, None, r"shape \(60, 80\)"),
        (IMAGE, {}, None, "one to 11, got 0"),
        (IMAGE, {"batch": PEAK[None]}, None, r"'batch'.*\(h, w\).*got \(1, 6, 8\)"),
        (IMAGE, {"broken": PEAK * np.nan}, None, "'broken'.*finite"),
        (IMAGE, MAPS, MASK.T, r"mask: expected booleans of shape \(60, 80\), .*, got bool of shape \(80, 60\)"),
        (IMAGE, MAPS, MASK & False, "mask: .* some of them True"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(image, maps, mask, message):
    with pytest.raises(ValueError, match=message):
        heatmap_figure(image, maps, mask)
