import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.contour import ContourSet
from matplotlib.text import Text

from melanoma_lib.explain import heatmap_figure
from melanoma_lib.explain.cam import resize_heatmap

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
MASK = np.zeros((60, 80), bool)
MASK[10:30, 10:50] = True
PEAK = np.zeros((6, 8), np.float32)
PEAK[1, 3], PEAK[4, 6], PEAK[4, 1] = 0.02, -0.005, 0.007
FLAT, NEGATIVE = np.zeros((3, 4), np.float32), np.full((3, 4), -7, np.float32)
MAPS = {"early": PEAK, "late": 100 * PEAK, "nothing": FLAT, "against": NEGATIVE}


def overlays(figure):
    """What is painted over the grey image, and between which values, panel by panel."""
    panels = [axes for axes in figure.axes if len(axes.images) == 2]
    return [(np.asarray(axes.images[1].get_array()), axes.images[1].get_clim()) for axes in panels]


@pytest.mark.parametrize(("count", "mask", "raw"), [(1, None, False), (3, MASK, True), (6, MASK, False), (11, None, True)])
def test_the_figure_is_described_legible_when_projected_and_leaves_pyplot_alone(count, mask, raw):
    figure = heatmap_figure(IMAGE, {f"layer {i}": PEAK * (i + 1) for i in range(count)}, mask, "Grad-CAM", raw)
    data, metadata = figure._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")
    assert data["text/plain"] == metadata["image/png"]["alt"] == figure.alt_text
    written = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    assert min(text.get_fontsize() for text in written) >= 12
    assert len(overlays(figure)) == count
    assert ("outline of the lesion" in figure.axes[-1].get_xlabel()) == (mask is not None)
    assert plt.get_fignums() == []


def test_sign_and_zero_survive_on_a_symmetric_scale():
    fine = resize_heatmap(PEAK, (60, 80))
    for (heatmap, limits), name in zip(overlays(heatmap_figure(IMAGE, MAPS)), MAPS, strict=True):
        assert limits == (-1, 1)
        if name in ("early", "late"):  # each as a share of its own largest magnitude
            np.testing.assert_allclose(heatmap, fine / np.float32(0.02), atol=1e-6)
        if name == "against":
            np.testing.assert_allclose(heatmap, -1)
        assert np.isfinite(heatmap).all()
    raw = [heatmap for heatmap, _ in overlays(heatmap_figure(IMAGE, MAPS, raw=True))]
    np.testing.assert_allclose(raw[0] * 100, raw[1], atol=1e-6)  # one scale for all: the largest of them is 7
    np.testing.assert_allclose(raw[1], 100 * fine / 7, atol=1e-6)


@pytest.mark.parametrize(("count", "panels"), [(1, 3), (3, 7), (6, 13), (11, 23)])
def test_lines_are_drawn_over_the_image_in_its_colours_on_the_same_scale(count, panels):
    blobs = PEAK.copy()
    blobs[4, 6] = -0.012
    maps = {f"layer {i}": blobs for i in range(count)}
    figure = heatmap_figure(IMAGE, maps, MASK, contours=True)
    drawn = [axes for axes in figure.axes if axes.images]
    assert len(drawn) == panels and len(overlays(figure)) == count
    lines = [axes for axes in drawn if axes.get_title(loc="left").endswith(", lines")]
    assert len(lines) == count
    for axes in lines:
        np.testing.assert_array_equal(axes.images[0].get_array(), IMAGE)
        levels = [level for drawn in axes.findobj(ContourSet) for level in drawn.levels]
        assert sorted(levels) == [-0.5, -0.25, 0.25, 0.5, 0.5, 0.75]  # one 0.5 is the outline of the lesion
    assert "25%, 50%, 75% of the scale" in figure.axes[-1].get_xlabel()
    assert "drawn over it in colour and again as lines" in figure.alt_text
    assert "lines alone" not in heatmap_figure(IMAGE, maps).axes[-1].get_xlabel()


def test_lines_follow_means_so_that_speckles_of_a_fine_map_are_not_circled():
    speckled = np.where(np.indices((128, 128)).sum(0) % 2, 1, -1).astype(np.float32)
    speckled[32:96, 32:96] = 1
    image = np.full((128, 128, 3), 200, np.uint8)
    figure = heatmap_figure(image, {"early": speckled}, contours=True)
    (axes,) = (axes for axes in figure.axes if axes.get_title(loc="left") == "early, lines")
    drawn = axes.findobj(ContourSet)
    assert {float(level) for each in drawn for level in each.levels} == {0.25, 0.5, 0.75}
    assert [len(each.get_paths()[0].to_polygons()) for each in drawn] == [1, 1, 1]  # the one patch that is no speckle


def test_the_words_say_where_the_peak_lies_and_how_much_falls_on_the_lesion():
    text = heatmap_figure(IMAGE, MAPS, MASK, "Grad-CAM, early to late").alt_text
    assert text.startswith("Grad-CAM, early to late: the image and 4 maps")
    assert "The outlined lesion covers 17% of the image" in text
    fine = np.maximum(resize_heatmap(PEAK, (60, 80)), 0)
    share = fine[MASK].sum() / fine.sum()
    assert f"early: peak 0.02 at 44% from the left and 25% from the top, {share:.0%} of the positive energy" in text
    assert "nothing: zero everywhere." in text
    assert "against: nothing positive, lowest -7." in text
    assert "lesion" not in heatmap_figure(IMAGE, MAPS).alt_text


@pytest.mark.parametrize(
    ("image", "maps", "mask", "message"),
    [
        (IMAGE / 255, MAPS, None, "expected uint8"),
        (IMAGE[..., 0], MAPS, None, r"shape \(60, 80\)"),
        (IMAGE, {}, None, "one to 11, got 0"),
        (IMAGE, {str(i): PEAK for i in range(12)}, None, "got 12"),
        (IMAGE, {"batch": PEAK[None]}, None, r"'batch'.*\(h, w\).*got \(1, 6, 8\)"),
        (IMAGE, {"broken": PEAK * np.nan}, None, "'broken'.*finite"),
        (IMAGE, MAPS, MASK.T, r"mask: expected booleans of shape \(60, 80\), .*, got bool of shape \(80, 60\)"),
        (IMAGE, MAPS, MASK.astype(np.uint8), "got uint8"),
        (IMAGE, MAPS, MASK & False, "mask: .* some of them True"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(image, maps, mask, message):
    with pytest.raises(ValueError, match=message):
        heatmap_figure(image, maps, mask)


@pytest.mark.parametrize("n_maps", [1, 2, 3])
def test_the_colour_bar_says_all_of_its_words_within_the_figure(n_maps):
    rng = np.random.default_rng(0)
    maps = {f"map {i}": rng.normal(size=(8, 8)).astype(np.float32) for i in range(n_maps)}
    mask = np.zeros((64, 64), bool)
    mask[20:40, 20:40] = True
    figure = heatmap_figure(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8), maps, mask)
    FigureCanvasAgg(figure).draw()
    label = figure.axes[-1].xaxis.label.get_window_extent()
    assert label.x0 >= 0 and label.x1 <= figure.bbox.width and label.y0 >= 0
