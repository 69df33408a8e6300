"""The shortcut figures say what they draw, also where no artefact misses the lesion or an interval is unknown."""

import numpy as np
import pandas as pd
import pytest

from melanoma_lib.evaluation import Interval
from melanoma_lib.lessons import shortcut_figures
from melanoma_lib.lessons.artefact_pairs import artefact_pair
from melanoma_lib.lessons.shortcut import HONEST, TIED, TRAPPED, UNTIED, Worlds
from tests.lessons.test_artefact_pairs import effect_of
from tests.lessons.test_eda import legible


def test_worlds_are_bars_of_their_aurocs_and_an_unknown_interval_draws_no_whisker():
    perfect = Interval(1.0, np.nan, np.nan)
    aurocs = {
        TRAPPED: {TIED: perfect, UNTIED: Interval(0.7, 0.6, 0.8)},
        HONEST: {w: Interval(0.9, 0.8, 0.95) for w in (TIED, UNTIED)},
    }
    loss = {TRAPPED: Interval(0.3, 0.2, 0.4), HONEST: Interval(0.0, -0.1, 0.1)}
    figure = shortcut_figures.worlds_figure(Worlds(aurocs, loss, 0.948, 123))
    legible(figure)
    assert [bar.get_y() + bar.get_height() for bar in figure.axes[0].patches] == pytest.approx([1.0, 0.7, 0.9, 0.9])
    for said in ("with the label: 1.000;", "0.700 [0.600, 0.800]", f"{TRAPPED} +0.300 [+0.200, +0.400]", "allow is 0.948", "123"):
        assert said in figure.alt_text


def test_the_contact_sheet_shows_the_pair_and_what_each_model_answers(trap):
    chosen = trap.cases[trap.cases["target"] == 1].iloc[:2]
    figure = shortcut_figures.pairs_figure(trap, cases=chosen)
    legible(figure)
    first = artefact_pair(chosen.iloc[0], "patch", trap.untied.image_size, trap.untied)
    shown = [axes.images[0].get_array() for axes in figure.axes[:2]]
    assert np.array_equal(shown[0], first.without) and np.array_equal(shown[1], first.painted)
    for run in trap.runs.values():
        stored = run.predictions("test").set_index("image_id")["risk"]
        if run is trap.honest and not chosen.iloc[0]["truth_artefact_patch"]:
            said = figure.alt_text.partition(HONEST)[2].partition("%")[0].rpartition(" ")[2]
            assert int(said) == pytest.approx(100 * stored[chosen.iloc[0]["image_id"]], abs=5)  # the stored picture is a JPEG
    assert figure.alt_text.count("melanoma): ") == 2 and "patch" in figure.alt_text
    with pytest.raises(ValueError, match="at least one to show"):
        shortcut_figures.pairs_figure(trap, cases=chosen.iloc[:0])


def test_by_itself_it_shows_other_lesions_that_the_artefact_does_not_touch(trap):
    chosen = shortcut_figures._plain_to_see(trap, 2)
    assert (chosen["target"] == 0).all() and chosen["group_id"].is_unique
    assert not any(artefact_pair(case, "patch", trap.untied.image_size, trap.untied).touches for _, case in chosen.iterrows())


def test_slopes_join_each_case_with_itself():
    risks = np.array([0.1, 0.2, 0.9]), np.array([0.8, 0.2, 0.1])
    effect = effect_of([0, 0, 1], [1, 0, 0], risks=risks)
    figure = shortcut_figures.slope_figure({TRAPPED: effect, HONEST: effect_of([0] * 3, [0] * 3)})
    legible(figure)
    joined = sorted(tuple(line.get_ydata()) for line in figure.axes[0].lines if len(line.get_ydata()) == 2 and line.get_alpha())
    expected = sorted(zip(*risks, strict=True))
    assert [pair for pair in joined if pair in expected] == expected
    assert f"{TRAPPED}: the decision on 0.667 of 3 cases flips, mean change of risk -0.033" in figure.alt_text
    with pytest.raises(ValueError, match="at least one"):
        shortcut_figures.slope_figure({})


def test_energies_stand_beside_the_area():
    table = pd.DataFrame({"group_id": range(12), "area": 0.03, "energy_with": [0.2, 0.1] * 6, "energy_without": 0.04})
    figure = shortcut_figures.energy_figure({TRAPPED: table, HONEST: table.assign(energy_with=0.05)}, "ink")
    legible(figure)
    assert f"{TRAPPED}: 0.150 [" in figure.alt_text and f"{HONEST}: 0.050 [" in figure.alt_text
    assert figure.alt_text.count("area 0.030") == 2


def test_effects_of_all_and_of_untouched_lesions_with_their_verdicts():
    on = [True] * 15 + [False] * 15
    risks = np.full(30, 0.2), np.full(30, 0.5)
    some = effect_of([0] * 30, [1] * 5 + [0] * 25, on_lesion=on, risks=risks)
    rarely_off = effect_of([0] * 30, [0] * 30, on_lesion=[True] * 21 + [False] * 9)
    figure = shortcut_figures.effects_figure([some, rarely_off], "On photographs")
    legible(figure)
    assert "all (30 cases): risk +0.300 [+0.300, +0.300], fails, flips 0.167 [" in figure.alt_text
    assert "off the lesion (15 cases): risk +0.300 [+0.300, +0.300], fails, flips 0.000 [0.000, 0.2" in figure.alt_text
    assert figure.alt_text.count("off the lesion") == 1
    assert "9 cases: too few" in [text.get_text() for text in figure.axes[0].texts]
    with pytest.raises(ValueError, match="at least one"):
        shortcut_figures.effects_figure([])
