"""What slide decks may ask of a run: values and figures by name, those of the lessons included."""

from collections.abc import Callable, Mapping
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
import pandas as pd

from melanoma_lib.classroom.slides import Content, run_values
from melanoma_lib.data import audit_cases, load_cases
from melanoma_lib.data.datamodule import source_root
from melanoma_lib.evaluation import (
    OperatingCurve,
    bootstrap_intervals,
    carry_risk,
    figures,
    subgroup_table,
    wilson_interval,
)
from melanoma_lib.explain import METHOD_NAMES, heatmap_figure
from melanoma_lib.explain.cam import ONE_PASS_METHODS
from melanoma_lib.lessons import (
    eda,
    eda_pictures,
    focal,
    gradcam,
    leakage,
    start,
    threshold,
    threshold_worlds,
)
from melanoma_lib.lessons.deck_choice import AskedOfSplits
from melanoma_lib.losses import FocalLoss
from melanoma_lib.plotting import DescribedFigure
from melanoma_lib.reports import test_figures
from melanoma_lib.runs import Run
from melanoma_lib.widgets.focal import presets_figure

FN_COST, FP_COST = 20.0, 1.0  # of a missed melanoma and of a false alarm: the lesson's assumption
ISIC_2020 = 0.0176  # its share of melanomas
PICTURES = 600  # opened and measured
BACKBONES = ("tf_efficientnet_lite0", "efficientnet_b0", "densenet121", "resnet50")
# What another project's slides report of its validation cases; nobody has reproduced it here.
REPORTED = {
    "efficientnet_b0": {"accuracy": "97.24%", "recall": "88.64%", "f1": "89.69%", "loss": ".2757"},
    "densenet121": {"accuracy": "97.10%", "recall": "88.93%", "loss": ".2401"},
    "resnet50": {"accuracy": "96.25%", "recall": "90.01%", "f1": "86.69%", "loss": ".2757"},
}


def deck_content(run: Run) -> Content:
    """Everything that decks may ask of a run with both branches, computed when asked, and values once."""
    about, splits = Asked(run), AskedOfSplits(run)
    values = {name: cache(make) for name, make in (run_values(run) | about.values() | splits.values()).items()}
    return Content(values, about.figures() | splits.figures())


def implied_prevalence(accuracy: float, recall: float, f1: float) -> float:
    """The share of positives among test cases from which these three, all shares, can have come.

    Precision follows from recall and F1. With prevalence P a share P (1 - recall) is missed and P recall (1 / precision - 1)
    falsely flagged; together they are 1 - accuracy.

    Raises:
        ValueError: if no precision in (0, 1] gives this F1 at this recall.
    """
    precision = f1 * recall / (2 * recall - f1) if 2 * recall > f1 else np.inf
    if not 0 < precision <= 1:
        raise ValueError(f"no precision gives an F1 of {f1} at a recall of {recall}; expected f1 <= 2 recall / (1 + recall)")
    return (1 - accuracy) / (1 - recall + recall * (1 / precision - 1))


class Asked:
    """Intermediate results of a run that several values and figures need.

    Args:
        run: finished, with both branches, its images still there.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.test, self.validation = run.predictions("test"), run.predictions("val")

    @cached_property
    def cases(self) -> pd.DataFrame:
        """The case table as the source has it."""
        settings = self.run.settings
        return load_cases(settings.source, source_root(settings), "keep", settings.image_dirs)

    @cached_property
    def tested(self) -> pd.DataFrame:
        """The test cases with the run's answers."""
        return start.tested_cases(self.run)

    @cached_property
    def one(self) -> gradcam.Subject:
        """The melanoma of median risk."""
        return gradcam.subject(self.run, start.choose_case(self.tested))

    @cached_property
    def pictures(self) -> eda_pictures.Pictures:
        """A sample of the pictures, measured."""
        return eda_pictures.look_at_pictures(self.cases, PICTURES)

    @cached_property
    def leaks(self) -> pd.DataFrame:
        """What random splits leak."""
        return leakage.leakage_over_splits(self.cases)

    @cached_property
    def curve(self) -> OperatingCurve:
        """Of the outputs on validation."""
        return OperatingCurve(self.validation["target"], self.validation["probability"])

    def values(self) -> dict[str, Callable[[], Any]]:
        """By the first word of a path."""
        return {
            "unit": lambda: eda.unit_of(self.run.splits),
            "leak": lambda: {name: float(share) for name, share in self.leaks.mean().items()},
            "ceiling": self._ceiling,
            "decoder": lambda: {"half": FocalLoss(0.25, 2.0).true_risk(0.5), "run": self._half()},
            "elsewhere": lambda: {"prevalence": ISIC_2020, "ppv": self._test_point().ppv_at(ISIC_2020)},
            "price": lambda: {"miss": int(FN_COST), "alarm": int(FP_COST), "risk": FP_COST / (FP_COST + FN_COST)},
            "fresh": lambda: dict(zip(("reported", "expected"), threshold_worlds.expected_true_sensitivity(50), strict=True)),
            "wilson": lambda: {f"of{n}": wilson_interval(0.9 * n, n).to_dict() for n in (10, 50, 1000)},
            "parameters": lambda: {name: millions_of_parameters(name) for name in BACKBONES},
            "swap": self._swap,
            "reported": lambda: REPORTED,
            "implied": lambda: {name: implied_prevalence(*_shares(row)) for name, row in REPORTED.items() if "f1" in row},
        }

    def _ceiling(self) -> float | None:
        return OperatingCurve(self.test["target"], self.test["true_risk"]).auroc if "true_risk" in self.test else None

    def _half(self) -> float:
        """What 0.5 would mean for a perfectly trained model of the run's loss and sampler."""
        training = self.run.splits["split"] == "train"
        prevalence = float(self.run.splits.loc[training, "target"].mean())
        loss, drawn = focal.correction_of(self.run.settings, prevalence)
        return float(carry_risk(loss.true_risk(0.5), drawn, prevalence))

    def _test_point(self):
        curve = OperatingCurve(self.test["target"], self.test["probability"])
        return curve.at(self.run.operating_point.threshold)

    def _swap(self) -> dict[str, float]:
        some = self.tested.groupby("target").head(4)
        maps = gradcam.swapped_maps(self.run, self.one.model, some, self.one.layer)
        found = {}
        for method in ONE_PASS_METHODS:
            correlations = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(*maps[METHOD_NAMES[method]], strict=True)]
            found[method] = float(np.nanmedian(correlations))
        return found

    def figures(self) -> dict[str, Callable[[], DescribedFigure]]:
        """By name."""
        return self._data_figures() | self._training_figures() | self._decision_figures() | self._map_figures()

    def _data_figures(self) -> dict[str, Callable[[], DescribedFigure]]:
        cases = lambda make, **more: lambda: make(self.cases, **more)  # noqa: E731 - read when a figure is asked for
        return {
            "contact_sheet": cases(eda_pictures.contact_sheet),
            "contact_sheet_answers": cases(eda_pictures.contact_sheet, answers=True),
            "classes": cases(eda.class_figure),
            "share_by_age": cases(eda.share_figure, variables=["age"]),
            "share_by_sex_and_site": cases(eda.share_figure, variables=["sex", "site"]),
            "missing": cases(eda.missing_figure),
            "siblings": cases(eda_pictures.siblings_figure, n=2),
            "repeats": lambda: eda.repeats_figure(audit_cases(self.cases, images=False)),
            "artefact_shares": lambda: eda_pictures.artefact_shares_figure(self.pictures),
            "leakage": lambda: leakage.leakage_figure(self.leaks, unit=eda.unit_of(self.cases)),
            "ladder": lambda: leakage.baseline_figure(
                leakage.metadata_baselines(self.cases, n=500), leakage.bayes_ceilings(self.run.settings)
            ),
        }

    def _training_figures(self) -> dict[str, Callable[[], DescribedFigure]]:
        return {
            "focal_curves": presets_figure,
            "say": lambda: focal.share_figure(focal.gradient_shares(self.validation["risk"], self.validation["target"])),
            "readings": lambda: figures.reliability_figure(focal.readings(self.run), self.validation["target"]),
        }

    def _decision_figures(self) -> dict[str, Callable[[], DescribedFigure]]:
        stored, run = self.run.operating_point.threshold, self.run
        cuts = {"0.5": 0.5, "stored": stored}
        targets = self.validation["target"]
        drawn: Mapping[str, Any] = {
            name: partial(lambda name: test_figures(self.test, run.metrics, stored)[name], name)
            for name in ("roc", "precision_recall", "confusion")
        }
        places = {"ISIC 2020": ISIC_2020, "these cases": float(self.test["target"].mean()), "almost every second": 0.45}
        return dict(drawn) | {
            "reliability": lambda: figures.reliability_figure(
                {"output": self.test["probability"], "risk": self.test["risk"]}, self.test["target"]
            ),
            "scores": lambda: threshold.score_figure(targets, self.validation["probability"], cuts),
            "cost": lambda: threshold.cost_figure(self.curve, run.calibrator, FN_COST, FP_COST),
            "decision_curve": lambda: figures.decision_curve_figure(
                {"calibrated risk": OperatingCurve(targets, self.validation["risk"]), "output taken for a risk": self.curve},
                point=FP_COST / (FP_COST + FN_COST),
            ),
            "units": self._units,
            "prevalence": lambda: threshold.prevalence_figure(self._test_point(), places),
            "subgroups": self._subgroups,
            "optimism": lambda: threshold_worlds.optimism_figure(
                threshold_worlds.choose_and_report("sensitivity"), threshold_worlds.choose_and_report("cost")
            ),
            "risks": lambda: start.risk_figure(self.tested, start.answer(run, self.one.case, self.one.model)),
        }

    def _units(self) -> DescribedFigure:
        """The same rates with intervals that resample single images, and whole patients or lesions."""
        val, stored, n = self.validation, self.run.operating_point.threshold, self.run.settings.n_resamples
        units = {"images": val["image_id"], f"whole {eda.unit_of(val)}s": val["group_id"]}
        intervals = {u: bootstrap_intervals(val["target"], val["probability"], g, stored, n) for u, g in units.items()}
        names = ("sensitivity", "specificity", "ppv", "auroc")
        rows = {f"{name}: {unit}": intervals[unit][name] for name in names for unit in units}
        return figures.comparison_figure(rows, "validation cases")

    def _subgroups(self) -> DescribedFigure:
        """By sex and age; sites are too many rows for a slide."""
        stored = self.run.operating_point.threshold
        table = subgroup_table(self.validation, stored, n=self.run.settings.n_resamples)
        sites = table["variable"] == "site"
        return threshold.subgroup_figure(table[~sites].reset_index(drop=True), stored)

    def _map_figures(self) -> dict[str, Callable[[], DescribedFigure]]:
        def graded() -> DescribedFigure:
            maps = gradcam.method_maps(self.one, self.one.layer, ("gradcam", "layercam", "eigencam"))
            return heatmap_figure(self.one.pixels, maps | gradcam.controls(self.one), self.one.mask)

        def swapped() -> DescribedFigure:
            ways = {
                words: gradcam.method_maps(self.one, self.one.layer, ("gradcam", "eigencam"), direction)
                for words, direction in (("for melanoma", 1), ("against it", -1))
            }
            maps = {f"{name}, {words}": heatmap for words, found in ways.items() for name, heatmap in found.items()}
            return heatmap_figure(self.one.pixels, dict(sorted(maps.items())), self.one.mask)

        return {
            "case_heatmap": self._case_heatmap,
            "case": lambda: gradcam.subject_figure(self.one),
            "recipe": lambda: gradcam.recipe_figure(self.one, self.one.layer),
            "reach": lambda: gradcam.field_figure(self.one),
            "layers": self._layers,
            "methods": lambda: heatmap_figure(self.one.pixels, gradcam.method_maps(self.one, self.one.layer), self.one.mask),
            "swap": swapped,
            "graded": graded,
        }

    def _case_heatmap(self) -> DescribedFigure:
        """Grad-CAM of the last layer that is fine enough to point, and EigenCAM of the same."""
        maps = gradcam.method_maps(self.one, self.one.layer, ("gradcam", "eigencam"))
        return heatmap_figure(self.one.pixels, {f"{name}, {self.one.layer}": one for name, one in maps.items()}, self.one.mask)

    def _layers(self) -> DescribedFigure:
        maps = self.one.maps("gradcam")
        early, middle, late = next(iter(maps)), self.one.layer, self.one.last_layer
        return heatmap_figure(self.one.pixels, {name: maps[name] for name in dict.fromkeys((early, middle, late))}, self.one.mask)


def millions_of_parameters(backbone: str) -> float:
    """Parameters of a timm backbone without its classifier, in millions."""
    import timm

    model = timm.create_model(backbone, pretrained=False, num_classes=0)
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


def _shares(row: Mapping[str, str]) -> list[float]:
    return [float(row[name].rstrip("%")) / 100 for name in ("accuracy", "recall", "f1")]
