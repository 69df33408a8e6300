"""The exam of all heatmaps on one slide: a mark for every question."""

from itertools import product

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from melanoma_lib.evaluation.canvas import BLACK, BLUE, GREY, VERMILLION, DescribedFigure, describe, kit_figure
from melanoma_lib.explain.league import League
from melanoma_lib.explain.league_exam import (
    ABOUT_THE_MODEL,
    EXAM,
    FAILS,
    OPEN,
    PASSES,
    asked_of_the_model,
    exam_table,
    last_stage,
    of_maps,
    speaks_of_the_model,
)
from melanoma_lib.explain.league_words import name_of

MARKS = {PASSES: ("o", VERMILLION), FAILS: ("X", BLUE), OPEN: (".", GREY)}


def league_exam_figure(league: League) -> DescribedFigure:
    """Who passes what: layers against methods, in each cell a mark for every question, and the controls beside them.

    Where all was asked that makes a map a statement about the model, the maps that pass it are framed.

    Args:
        league: of any run.
    """
    told, layers, methods = exam_table(league.scores), league.facts["layers"], league.facts["methods"]
    controls, questions, speaks = list(told.loc[""].index), list(told.columns), speaks_of_the_model(told)
    step = len(questions) + 1  # marks of a cell stand 1 apart, cells have one more between them
    with kit_figure(max(11.0, 0.25 * step * (len(methods) + 1) + 3.4), 0.5 * max(len(layers), len(controls)) + 3.4) as figure:
        axes = figure.subplots()
        for (i, layer), (j, method) in product(enumerate(layers), enumerate(methods)):
            _marks(axes, told.loc[(layer, method)], j * step, i)
            if speaks.loc[(layer, method)]:
                frame = (j * step - 0.55, i - 0.42), len(questions) + 0.1, 0.84
                axes.add_patch(Rectangle(*frame, fill=False, edgecolor=BLACK, linewidth=2.2))
        for i, control in enumerate(controls):
            _marks(axes, told.loc[("", control)], len(methods) * step, i)
        for j in range(1, len(methods) + 1):
            axes.axvline(j * step - 1, color=GREY, linewidth=0.6)
        _label_exam(axes, [*methods, "controls"], layers, controls, len(questions))
        for result, (marker, colour) in MARKS.items():
            axes.plot([], [], marker, color=colour, markersize=11, markeredgewidth=0, label=result)
        figure.legend(loc="outside upper right", ncols=len(MARKS))
        notes = [",  ".join(f"{k + 1} {question}" for k, question in enumerate(questions)), _notes(told, league.scores)]
        figure.supxlabel("\n".join(notes), fontsize=12)
    maps = of_maps(told)
    counts = "; ".join(
        f"{question}: {', '.join(f'{(maps[question] == result).sum()} {result}' for result in MARKS)}" for question in questions
    )
    said = [f"Results of {len(maps)} maps of {league.facts['run']} by layer and method, question by question. {counts}."]
    if asked_of_the_model(maps).any():
        passed = ", ".join(name_of(*index) for index in maps.index[speaks_of_the_model(maps)])
        wanted = ", ".join(ABOUT_THE_MODEL)
        said.append(f"What makes a map a statement about the model ({wanted}) is passed by {passed or 'no map'}.")
    passing = {control: told.columns[told.loc[("", control)] == PASSES] for control in controls}
    said += [f"Of the controls {control} passes: {', '.join(own)}." for control, own in passing.items() if len(own)]
    return describe(figure, " ".join(said))


def _marks(axes: Axes, results: pd.Series, left: float, row: float) -> None:
    for k, result in enumerate(results):
        if result in MARKS:  # nothing where nobody asked
            marker, colour = MARKS[result]
            axes.plot(left + k, row, marker, color=colour, markersize=11, markeredgewidth=0)


def _label_exam(axes: Axes, columns: list[str], layers: list[str], controls: list[str], n_questions: int) -> None:
    """Methods below, numbers of questions above, layers at the left, controls at the right of the last column."""
    step, rows = n_questions + 1, max(len(layers), len(controls))
    axes.set_xticks([j * step + (n_questions - 1) / 2 for j in range(len(columns))], columns)
    axes.set_yticks(range(len(layers)), layers)
    axes.set(ylabel="layer, early to late", xlim=(-1, step * len(columns) - 1), ylim=(rows - 0.4, -0.6))
    above, right = axes.secondary_xaxis("top"), axes.secondary_yaxis("right")
    above.set_xticks([j * step + k for j in range(len(columns)) for k in range(n_questions)])
    above.set_xticklabels([f"{k + 1}" for _ in columns for k in range(n_questions)], fontsize=12)
    right.set_yticks(range(len(controls)), controls)
    for each in (axes, above, right):
        each.tick_params(length=0)
        each.spines[:].set_visible(False)
    axes.grid(False)


def _notes(told: pd.DataFrame, scores: pd.DataFrame) -> str:
    """How many cases each question was asked of, and what a frame means, where there can be one."""
    cases: dict[int, list[str]] = {}
    for k, question in enumerate(told.columns):
        score = EXAM[question][0] or last_stage(scores["score"])
        cases.setdefault(int(scores.loc[scores["score"] == score, "cases"].max()), []).append(f"{k + 1}")
    said = [f"{', '.join(numbers)}: {n} cases" for n, numbers in cases.items()]
    if asked_of_the_model(told).any():
        numbers = [f"{k + 1}" for k, question in enumerate(told.columns) if question in ABOUT_THE_MODEL]
        said.append(f"framed: passes {', '.join(numbers)}")
    return f"{'; '.join(said)}. Educational, not for diagnosis."
