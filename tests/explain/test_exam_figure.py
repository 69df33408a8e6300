"""The exam's table and figure: every mark is a verdict, a frame is promised only where there can be one."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from melanoma_lib.explain.exam_figure import MARKS, league_exam_figure
from melanoma_lib.explain.league_exam import exam_table
from tests.explain.graded import CONTROLS, graded_league

FRAMED = "framed: passes 3, 4, 5"


def marks(figure):
    """Result by place of the mark: which mark of which cell, from the left, and row."""
    by_marker = {marker: result for result, (marker, _) in MARKS.items()}
    lines = [line for line in figure.axes[0].lines if line.get_marker() in by_marker and len(line.get_xdata())]
    return {(line.get_xdata()[0], line.get_ydata()[0]): by_marker[line.get_marker()] for line in lines}


def frames(figure):
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle) and not patch.get_fill()]


def note(figure):
    return figure._supxlabel.get_text()


def test_results_are_those_of_the_verdicts_known_beforehand():
    told = exam_table(graded_league().scores)
    won, lost, open_, nobody = "passes", "fails", "not settled", ""
    assert told.loc[("early", "gradcam")].tolist() == [lost, lost, won, won, won]
    assert told.loc[("late", "gradcam")].tolist() == [won, lost, won, won, won]
    assert told.loc[("early", "eigencam")].tolist() == [open_, open_, open_, lost, won]
    assert told.loc[("late", "eigencam")].tolist() == [open_, lost, lost, lost, lost]
    assert told.loc[("", "random")].tolist() == [lost, lost, open_, nobody, nobody]
    assert told.loc[("", "edges")].tolist() == [open_, lost, won, lost, lost]
    assert told.loc[("", "centre")].tolist() == [nobody, nobody, nobody, lost, lost]
    assert told.loc[("", "outline")].tolist() == [won, won, won, nobody, nobody]


def test_every_answer_has_its_mark_in_its_place_and_statements_about_the_model_are_framed():
    league = graded_league()
    told, figure = exam_table(league.scores), league_exam_figure(league)
    expected = {}
    for j, method in enumerate([*league.facts["methods"], "controls"]):
        for i in range(len(CONTROLS) if method == "controls" else 2):
            name = ("", CONTROLS[i]) if method == "controls" else (league.facts["layers"][i], method)
            expected |= {(6 * j + k, i): result for k, result in enumerate(told.loc[name]) if result}
    assert marks(figure) == expected
    assert sorted(frame.get_y() for frame in frames(figure)) == pytest.approx([-0.42, 0.58])
    assert all(frame.get_x() == pytest.approx(-0.55) for frame in frames(figure))  # both of gradcam, which comes first
    assert "1, 2, 4, 5: 60 cases; 3: 30 cases" in note(figure) and FRAMED in note(figure)
    assert "is passed by gradcam of early, gradcam of late. Of the controls edges passes: faithful." in figure.alt_text
    assert "outline passes: on the lesion, beyond itself centred, faithful." in figure.alt_text


@pytest.mark.parametrize("left_out", [["class_swap"], ["cascade:head", "cascade:stem"], ["deletion_insertion"]])
def test_where_not_all_was_asked_no_frame_is_drawn_or_promised(left_out):
    figure = league_exam_figure(graded_league(*left_out))
    assert not frames(figure)
    assert "framed" not in note(figure) and "statement about the model" not in figure.alt_text


def test_a_map_that_was_not_shuffled_is_not_called_unsettled():
    league = graded_league()
    slow = league.scores["method"].eq("gradcam") & league.scores["score"].isin(["class_swap", "cascade:stem"])
    league.scores.loc[slow, "verdict"] = "not graded"
    assert league.exam.loc[("late", "gradcam")].tolist()[3:] == ["", ""]
    assert "None of 2 maps beat" in league.conclusion
    assert not frames(league_exam_figure(league))


def test_the_figure_can_be_read_from_the_last_row_and_leaves_pyplot_alone():
    figure = league_exam_figure(graded_league())
    assert figure._repr_mimebundle_()[1]["image/png"]["alt"] == figure.alt_text
    written = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    assert min(text.get_fontsize() for text in written) >= 12
    assert "not for diagnosis" in note(figure)
    assert np.isin(CONTROLS, [text.get_text() for text in written]).all()
    assert plt.get_fignums() == []
