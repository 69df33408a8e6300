"""Figures of a league say what its numbers say, and can be read from the last row."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from melanoma_lib.explain.league import League, score_table
from melanoma_lib.explain.league_figures import league_heat_figure, league_interval_figure, league_sanity_figure

LAYERS, METHODS = ["early", "late"], ["gradcam", "eigencam", "scorecam"]


@pytest.fixture(scope="module")
def made_up() -> League:
    """Forty cases; gradcam of late beats the centre prior, scorecam was not shuffled."""
    contestants = [(layer, method) for method in METHODS for layer in LAYERS] + [("", "random"), ("", "edges"), ("", "centre")]
    rng = np.random.default_rng(0)
    energy = 0.4 + rng.normal(0, 0.02, (40, 9)) + 0.2 * np.eye(9)[1] - 0.3 * np.eye(9)[6]
    shuffled = np.where(np.isin(np.arange(9), [4, 5]), np.nan, rng.uniform(0, 0.3, (40, 9)))
    grades = {"energy_in_mask": energy, "cascade:head": shuffled + 0.4, "cascade:stem": shuffled, "stranger": 0 * energy}
    scores = score_table(grades, contestants, pd.Series(np.arange(40) % 2), pd.Series(np.arange(40)), 200)
    facts = {"run": "made-up", "layers": LAYERS, "methods": METHODS, "n": 40, "n_sanity": 40}
    return League(facts, scores)


@pytest.mark.parametrize("draw", [league_heat_figure, league_interval_figure, league_sanity_figure])
def test_figures_are_described_legible_and_leave_pyplot_alone(made_up, draw):
    figure = draw(made_up)
    data, metadata = figure._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")
    assert metadata["image/png"]["alt"] == figure.alt_text
    written = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    assert min(text.get_fontsize() for text in written) >= 12
    assert any("not for diagnosis" in text.get_text() for text in written)
    assert plt.get_fignums() == []


def test_only_the_winner_is_outlined_and_named(made_up):
    figure = league_heat_figure(made_up)
    frames = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle) and not patch.get_fill()]
    assert [(int(frame.get_x()), int(frame.get_y())) for frame in frames] == [(0, 1)]
    value = made_up.score("energy_in_mask").loc[("late", "gradcam"), "value"]
    assert f"Highest gradcam of late with {value:.2f}" in figure.alt_text
    assert "1 of the maps are better (gradcam of late)" in figure.alt_text
    numbers = [text.get_text() for text in figure.axes[0].texts]
    assert numbers.count(f"{value:.2f}") >= 1
    assert len(numbers) == 6


def test_dots_stand_at_the_differences(made_up):
    figure = league_interval_figure(made_up)
    rows = made_up.score("energy_in_mask")
    for axes, method in zip(figure.axes, METHODS, strict=False):
        dots = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
        assert dots == [rows.loc[(layer, method), "vs_centre"] for layer in LAYERS]


def test_the_cascade_starts_at_one_and_leaves_out_what_was_not_shuffled(made_up):
    figure = league_sanity_figure(made_up)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[:2] == ["gradcam", "eigencam"]
    assert "scorecam" not in titles
    drawn = figure.axes[0].lines[2].get_ydata()  # each line is followed by its mark
    stages = [made_up.score(f"cascade:{stage}").loc[("late", "gradcam"), "value"] for stage in ("head", "stem")]
    np.testing.assert_allclose(drawn, [1, *stages])


def test_what_cannot_be_drawn_is_an_error(made_up):
    with pytest.raises(ValueError, match="not compared"):
        league_heat_figure(made_up, "stranger")
    with pytest.raises(ValueError, match="expected one of"):
        league_interval_figure(made_up, "beauty")
    bare = League(made_up.facts, made_up.scores[made_up.scores["score"] == "energy_in_mask"])
    with pytest.raises(ValueError, match="n_sanity"):
        league_sanity_figure(bare)
