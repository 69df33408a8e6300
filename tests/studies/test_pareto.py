import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma_lib.errors import StudyError
from melanoma_lib.studies.backbones_words import OWN
from melanoma_lib.studies.pareto import apart, front, kind_of, pareto_figure
from tests.studies.leagues import made_up, row

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


@given(POINTS)
def test_the_front_is_what_nobody_beats(points):
    costs, worths = zip(*points, strict=True)

    def beaten(i):
        return any(
            costs[j] <= costs[i] and worths[j] >= worths[i] and (costs[j], worths[j]) != (costs[i], worths[i])
            for j in range(len(points))
        )

    found = front(costs, worths)
    assert sorted(found) == [i for i in range(len(points)) if not beaten(i)]
    assert [costs[i] for i in found] == sorted(costs[i] for i in found)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=15).map(sorted))
def test_names_come_apart_in_their_order_and_stay_inside(heights):
    moved = apart(heights, 0.05)
    assert all(b - a >= 0.05 - 1e-9 for a, b in itertools.pairwise(moved))
    assert max(moved) <= 1


def test_names_far_apart_stay_where_they_are():
    assert apart([0.1, 0.5, 0.9], 0.05) == [0.1, 0.5, 0.9]


def test_the_figure_says_what_it_shows():
    table = made_up()
    figure = pareto_figure(table)
    assert all(entry["name"] in figure.alt_text for entry in table.rows)
    arithmetic = figure.alt_text.split(". ")[1]
    assert "Good (ImageNet, 64 px) (30)" in arithmetic and "Dear" not in arithmetic
    names = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert names == {"Good, 64 px", "Bare, 64 px", "Dear, 64 px", "frozen features, 128 px"}


@pytest.mark.parametrize("size", [(14, 7), (10.5, 4.8)])  # inches: of a notebook and of a slide
def test_the_legend_fits_the_figure(size):
    figure = pareto_figure(made_up(*made_up().rows, row("Own (own weights, 64 px)", 0.8, 40_000_000, weights=OWN)))
    figure.set_size_inches(*size)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 6
    box, page = legend.get_window_extent(), figure.bbox
    assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1


def test_kinds_tell_weights_and_training_apart():
    kinds = {entry["name"].split()[0]: kind_of(entry) for entry in made_up().rows if entry["macs"] > 100}
    assert kinds["Good"] == "trained, from ImageNet" and kinds["Bare"] == "trained from scratch"
    assert kinds["frozen"] == "frozen features"
    assert kind_of(row("Own", 0.8, 30, weights=OWN)) == "trained, from own weights"


def test_a_table_without_rates_is_refused():
    table = made_up()
    for entry in table.rows:
        entry["inference_rate"] = None
    with pytest.raises(StudyError, match="inference rate"):
        pareto_figure(table)
