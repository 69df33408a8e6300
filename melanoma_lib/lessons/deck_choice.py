"""What the deck of the cross-validation lesson may ask of a run, and what decks may ask of the tables of studies."""

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np

from melanoma_lib.evaluation import comparison_figure
from melanoma_lib.lessons import cross_validation, cross_validation_figures, model_choice
from melanoma_lib.lessons.eda import unit_of
from melanoma_lib.plotting import DescribedFigure
from melanoma_lib.runs import Run
from melanoma_lib.studies.results import load_results
from melanoma_lib.studies.views import interval_of
from melanoma_lib.widgets.luck import PLACES, LuckExplorer, melanomas_for

SPLITS, REPEATS, RIVALS = 100, 6, 7
AUROC = 0.9  # of the planned test
RATIO = PLACES["HAM10000, every lesion once"][1]  # other lesions for each melanoma
ONE_SPLIT = PLACES["HAM10000, one split of 15%"]


class AskedOfSplits:
    """Intermediate results of a run's cases that several values and figures of the deck need.

    Args:
        run: finished, its images still there.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    @cached_property
    def quick(self) -> cross_validation.QuickCases:
        """The cases as the quick model sees them."""
        return cross_validation.quick_cases(self.run.settings.with_changes(progress=False))

    @cached_property
    def roles(self) -> list:
        """Of every case in five folds."""
        return cross_validation.roles_of(self.quick.cases)

    def values(self) -> dict[str, Callable[[], Any]]:
        """By the first word of a path."""
        widths = {"wide": 0.04, "fine": 0.02, "finer": 0.01}
        return {
            "needed": lambda: {
                name: {"width": width, "melanomas": melanomas_for(width, AUROC, RATIO)} for name, width in widths.items()
            },
            "planned": lambda: {"auroc": AUROC, "ratio": round(RATIO)},
            "rivals": lambda: model_choice.equal_rivals(RIVALS, *ONE_SPLIT),
            "league": lambda: {"command": load_results("league").command},
            "travel": lambda: {"command": load_results("travel").command},
        }

    def figures(self) -> dict[str, Callable[[], DescribedFigure]]:
        """By name."""
        return {
            "splits": lambda: cross_validation_figures.splits_figure(
                cross_validation.single_splits(self.quick, SPLITS), cross_validation.first_split(self.quick)
            ),
            "luck": lambda: LuckExplorer(ratio=RATIO, auroc=AUROC).presets_figure(),
            "leak": lambda: cross_validation_figures.leak_figure(
                cross_validation.leak(self.quick, REPEATS), unit_of(self.quick.cases)
            ),
            "folds": lambda: cross_validation_figures.folds_figure(self.roles),
            "two_models": self._two_models,
            "pareto": lambda: cross_validation_figures.performance_cost_figure(load_results("league")),
            "external": external_figure,
        }

    def _two_models(self) -> DescribedFigure:
        answer = partial(cross_validation.out_of_fold, self.quick, self.roles, self.run.settings.min_sensitivity)
        both, blind = answer(), answer(inputs="image")
        truth, groups = both["target"].to_numpy(), both["group_id"].to_numpy(str)
        scores = np.stack([both["logit"], blind["logit"]])
        return cross_validation_figures.two_models_figure(truth, *scores, groups, ("all inputs", "picture alone"))


def external_figure() -> DescribedFigure:
    """AUROC, sensitivity and specificity of the committed external validation: internal, external, and of metadata alone."""
    table = load_results("travel")
    mean = table.rows[0]
    rows = {
        f"{title}, {place}": interval_of(mean[f"{name}_{key}"])
        for name, title in (("auroc", "AUROC"), ("sensitivity", "sensitivity"), ("specificity", "specificity"))
        for key, place in (("home", "internal"), ("abroad", "external"))
    }
    return comparison_figure(rows | {"AUROC of metadata alone, external": interval_of(table.details["metadata_alone"]["auroc"])})
