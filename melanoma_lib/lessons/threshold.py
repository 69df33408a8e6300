"""The threshold lesson: what a threshold decides and costs, how sure its rates are, and the run that guards its own."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, PercentFormatter
from numpy.typing import ArrayLike
from scipy.special import expit, logit

from melanoma_lib.errors import ForeignThresholdError
from melanoma_lib.evaluation import Calibrator, Interval, OperatingCurve, OperatingPoint
from melanoma_lib.evaluation.inputs import check_fraction
from melanoma_lib.lessons.eda import CLASSES, WIDTH, Row, forest, height_of, listed
from melanoma_lib.plotting import BLACK, BLUE, GREY, ORANGE, VERMILLION, DescribedFigure, kit_figure, with_alt_text
from melanoma_lib.runs import CHECKPOINT, OPERATING_POINT, PREDICTIONS, REQUIRED, Run
from melanoma_lib.widgets.threshold import preset_thresholds

BINS = 40
DARK_GREEN = "#006B4E"  # the kit's green, dark enough for text


# --- one threshold, and six rules that choose it ------------------------------------------------------------------------------


def six_rules(curve: OperatingCurve, fn_cost: float, fp_cost: float) -> dict[str, float]:
    """Each rule and the threshold it chooses: the explorer's five, and the lowest cost (infinite if flagging nobody is cheapest).

    Args:
        curve: of the predictions to choose on.
        fn_cost: cost of a missed melanoma, above 0, in any unit.
        fp_cost: cost of a false alarm, above 0, in the same unit.
    """
    return preset_thresholds(curve) | {f"cost {fn_cost:g} to {fp_cost:g}": curve.min_cost(fn_cost, fp_cost).threshold}


def decision_table(
    curve: OperatingCurve,
    thresholds: Mapping[str, float],
    calibrator: Calibrator | None = None,
    costs: tuple[float, float] | None = None,
) -> pd.DataFrame:
    """What each threshold decides on these predictions, one row a threshold.

    Args:
        curve: of outputs (sigmoid of the logit).
        thresholds: on the output, by name.
        calibrator: adds the risk that an output equal to the threshold means, and the price it implies, (1 - risk) / risk: how
            many false alarms a missed melanoma is worth to whoever acts from this calibrated risk on. It is not the price for
            which the cut is the cheapest on these predictions: there the calibrator and the few cases near the cut may disagree.
        costs: of a missed melanoma and of a false alarm; adds what 1,000 such lesions cost.
    """
    point = curve.at(np.array(list(thresholds.values()), dtype=np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = {"threshold": point.threshold}
        if calibrator is not None:
            risk = calibrator.risk(logit(point.threshold))
            columns |= {"calibrated risk": risk, "implied price": (1 - risk) / risk}
        columns |= {"sensitivity": point.sensitivity, "specificity": point.specificity, "PPV": point.ppv}
        columns["false alarms per melanoma found"] = point.fp / point.tp
    if costs is not None:
        columns["cost of 1,000 lesions"] = 1000 * curve.expected_cost(point.threshold, *costs)
    return pd.DataFrame(columns, index=list(thresholds))


def output_for_risk(calibrator: Calibrator, risk: float) -> float:
    """The output (sigmoid of the logit) that the calibrator translates into ``risk``.

    Args:
        calibrator: with a slope above 0.
        risk: in (0, 1).

    Raises:
        ValueError: if the risk lies outside (0, 1), or the calibrator's slope is not positive.
    """
    check_fraction(risk, "risk")
    if calibrator.slope <= 0:
        raise ValueError(
            f"calibrator: expected a positive slope, got {calibrator.slope:.4g}: its risk does not rise with the output, so no "
            "cut on the output stands for a risk. Check the labels and the training of this run before choosing a threshold"
        )
    return float(expit((logit(risk) - calibrator.intercept) / calibrator.slope))


def score_figure(targets: ArrayLike, scores: ArrayLike, thresholds: Mapping[str, float]) -> DescribedFigure:
    """Scores of melanomas above, of other lesions below, with one or more cuts.

    Args:
        targets: 1 melanoma, 0 not; shape ``(N,)``.
        scores: in [0, 1], shape ``(N,)``.
        thresholds: cuts by name.
    """
    curve, targets, scores = OperatingCurve(targets, scores), np.asarray(targets), np.asarray(scores)
    with kit_figure(WIDTH, 5.0) as figure:
        panels = figure.subplots(2, 1, sharex=True)
        for axes, name, (target, _, colour, _) in zip(panels, ("melanomas", "other lesions"), CLASSES, strict=True):
            part = scores[targets == target]
            axes.hist(part, np.linspace(0, 1, BINS + 1), color=colour, alpha=0.85)
            axes.set(ylabel="images", xlim=(0, 1))
            axes.set_title(f"{len(part):,} {name}", color=colour, fontweight="bold")
            for (label, threshold), style in zip(thresholds.items(), ("--", "-", ":"), strict=False):
                axes.axvline(threshold, color=BLACK, linestyle=style, linewidth=2, label=label)
        panels[0].legend(loc="upper right", ncols=3)
        panels[1].set_xlabel("output of the model (not a risk); at or to the right of the line: called melanoma")
    points = {label: curve.at(threshold) for label, threshold in thresholds.items()}
    said = "; ".join(
        f"at {label} {point.tp} of {curve.n_positive} melanomas and {point.fp} of {curve.n_negative} others are flagged"
        for label, point in points.items()
    )
    return with_alt_text(figure, f"Histograms of the model's output, melanomas above other lesions; {said}.")


def cost_figure(
    curve: OperatingCurve,
    calibrator: Calibrator,
    fn_cost: float,
    fp_cost: float,
    prevalence: float | None = None,
) -> DescribedFigure:
    """What 1,000 lesions cost against the threshold, with the formula's cut applied to a risk and, by mistake, to an output.

    Args:
        curve: of outputs (sigmoid of the logit) in [0, 1].
        calibrator: from output to risk, with a positive slope.
        fn_cost: cost of a missed melanoma.
        fp_cost: cost of a false alarm.
        prevalence: where the threshold will be used; that of the predictions if None.

    Raises:
        ValueError: if the calibrator's slope is not positive.
    """
    formula = fp_cost / (fp_cost + fn_cost)

    def cost(thresholds: ArrayLike) -> ArrayLike:
        return 1000 * curve.expected_cost(thresholds, fn_cost, fp_cost, prevalence)

    places = np.unique(np.concatenate([curve.thresholds, np.nextafter(curve.thresholds, 2), [0.0, 1.0]]))
    marks = {
        "cheapest on these cases": (curve.min_cost(fn_cost, fp_cost, prevalence).threshold, VERMILLION, "o"),
        f"risk ≥ {formula:.3f}, the formula": (output_for_risk(calibrator, formula), BLUE, "s"),
        f"output ≥ {formula:.3f}, an output taken for a risk": (formula, ORANGE, "D"),
    }
    everybody, nobody = cost([-np.inf, np.inf])
    top = 1.1 * min(max(everybody, nobody), 2.3 * min(everybody, nobody))  # the valley is what there is to see
    with kit_figure(WIDTH, 5.4) as figure:
        axes = figure.add_subplot()
        axes.plot(places, cost(places), color=BLACK, linewidth=1.8)
        for value, name, style in ((everybody, "flag everybody", "--"), (nobody, "flag nobody", ":")):
            axes.axhline(value, color=GREY, linestyle=style, linewidth=1.8, label=f"{name}: {value:,.0f}")
        for name, (threshold, colour, marker) in marks.items():
            dot = {"markersize": 12, "markeredgecolor": "white", "zorder": 4, "clip_on": False}
            axes.plot(min(threshold, 1.0), cost(threshold), marker, color=colour, label=f"{name}: {cost(threshold):,.0f}", **dot)
        axes.set(xlim=(0, 1), ylim=(0, top), xlabel="threshold on the output", ylabel="expected cost of 1,000 lesions")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.3, columnspacing=1.4)
    said = [f"{name}, a threshold of {threshold:.3f}, {cost(threshold):,.0f}" for name, (threshold, *_) in marks.items()]
    return with_alt_text(
        figure,
        f"""Expected cost of 1,000 lesions against the threshold, a missed melanoma costing {fn_cost:g} and a false alarm
        {fp_cost:g}: {"; ".join(said)}; flagging everybody costs {everybody:,.0f}, nobody {nobody:,.0f}.""",
    )


# --- elsewhere, and for whom --------------------------------------------------------------------------------------------------


def prevalence_figure(point: OperatingPoint, places: Mapping[str, float]) -> DescribedFigure:
    """PPV and NPV of one threshold against the prevalence, its sensitivity and specificity taken to stay as they are.

    Args:
        point: of the threshold.
        places: prevalences to mark, by name.
    """
    scale, said = np.geomspace(0.005, 0.6, 300), []
    with kit_figure(WIDTH, 5.0) as figure:
        axes = figure.add_subplot()
        axes.plot(scale, [point.npv_at(p) for p in scale], "--", color=DARK_GREEN, label="NPV: all-clears that are right")
        axes.plot(scale, [point.ppv_at(p) for p in scale], color=VERMILLION, label="PPV: alarms that are melanomas")
        for name, prevalence in sorted(places.items(), key=lambda place: place[1]):
            ppv, npv = point.ppv_at(prevalence), point.npv_at(prevalence)
            label = f"{name}, {100 * prevalence:.3g}%: PPV {ppv:.1%}, NPV {npv:.1%}"
            axes.axvline(prevalence, color=GREY, linestyle=":", linewidth=1.5)
            for value, colour in ((npv, DARK_GREEN), (ppv, VERMILLION)):
                axes.plot(prevalence, value, "o", color=colour, markersize=11, markeredgecolor="white", zorder=4)
            axes.plot([], [], " ", label=label)
            said.append(label)
        axes.set(xscale="log", xlim=(0.005, 0.75), ylim=(0, 1.04), xlabel="prevalence of melanoma where the threshold is used")
        axes.set_xticks([0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda p, _: f"{p:.1%}" if p < 0.01 else f"{p:.0%}"))
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.3)
    return with_alt_text(
        figure,
        f"""PPV and NPV against prevalence at sensitivity {point.sensitivity:.3f} and specificity {point.specificity:.3f}:
        {"; ".join(said)}.""",
    )


def subgroup_figure(table: pd.DataFrame, threshold: float) -> DescribedFigure:
    """Sensitivity and specificity of each subgroup at one cut; small subgroups in grey.

    Args:
        table: from ``subgroup_table``.
        threshold: the cut, for the title.
    """
    rows: dict[str, list[Row]] = {"sensitivity": [], "specificity": []}
    for variable, part in table.groupby("variable", sort=False):
        for name, drawn in rows.items():
            drawn += [Row(variable)] if variable != "all" else []
            for row in part.to_dict("records"):
                interval = Interval(row[name], row[f"{name}_low"], row[f"{name}_high"])
                n = row["n_melanoma"] if name == "sensitivity" else row["n"] - row["n_melanoma"]
                mark = (interval, GREY, "D") if row["note"] else (interval, BLUE, "o")
                drawn.append(Row(row["subgroup"], (mark,), f"{n:,}"))
    with kit_figure(WIDTH, 0.6 + height_of(rows["sensitivity"])) as figure:
        left, right = figure.subplots(1, 2)
        for axes, (name, drawn), counted in zip((left, right), rows.items(), ("melanomas", "other lesions"), strict=True):
            forest(axes, drawn, f"{name}, 95% interval; right: {counted}")
            axes.axvline(drawn[0].marks[0][0].value, color=GREY, linestyle="--", linewidth=1.5)
            axes.set_xlim(-0.02, 1.05)
        right.set_yticklabels([])
        for label, colour, marker in (("enough cases", BLUE, "o"), ("few cases", GREY, "D"), ("all cases", GREY, "--")):
            left.plot([], [], marker, color=colour, markersize=11, label=label)
        figure.legend(*left.get_legend_handles_labels(), loc="outside upper left", ncols=3, handletextpad=0.3, borderaxespad=0.0)
    said = "; ".join(f"{name}: {listed(drawn)}" for name, drawn in rows.items()).replace("nan", "undefined")
    return with_alt_text(figure, f"Subgroups at threshold {threshold:.3f}; {said}.")


# --- the contract -------------------------------------------------------------------------------------------------------------


@contextmanager
def copy_of(run: Run) -> Iterator[Run]:
    """A copy of the run in a temporary folder, to do to it what nobody should do to a run; gone after the ``with`` block."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        for name in REQUIRED:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run.path / name, copy / name)
        yield Run(copy)


def change_one_answer(run: Run) -> None:
    """Tamper: the first validation case gets a probability that differs by 0.01."""
    answers = run.predictions("val")
    first = answers.loc[0, "probability"]
    answers.loc[0, "probability"] = first - 0.01 if first > 0.5 else first + 0.01
    answers.to_csv(run.path / PREDICTIONS.format("val"), index=False)


def change_one_weight(run: Run) -> None:
    """Tamper: the checkpoint becomes another model's, one weight of which differs by 0.01."""
    import torch

    checkpoint = torch.load(run.path / CHECKPOINT, map_location="cpu", weights_only=True)
    first = next(weight for weight in checkpoint["state_dict"].values() if weight.is_floating_point())
    first[(0,) * first.ndim] += 0.01
    torch.save(checkpoint, run.path / CHECKPOINT)


def verdict(run: Run) -> str:
    """``accepted``, or ``refused: `` with the reason that whoever opens the run is told."""
    try:
        return f"accepted: threshold {Run(run.path).operating_point.threshold:.3f}"
    except ForeignThresholdError as error:
        return "refused: " + str(error).replace(str(run.path / OPERATING_POINT), OPERATING_POINT)
