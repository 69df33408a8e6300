"""Figures of the threshold lesson: scores under a cut, costs, intervals, prevalence, subgroups and worlds with a known truth."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, PercentFormatter
from numpy.typing import ArrayLike

from melanoma_lib.evaluation import Calibrator, Interval, OperatingCurve, OperatingPoint
from melanoma_lib.evaluation.canvas import BLACK, BLUE, GREY, ORANGE, VERMILLION, DescribedFigure, describe, kit_figure
from melanoma_lib.lessons.eda import CLASSES, WIDTH, Row, forest, height_of
from melanoma_lib.lessons.threshold import NAMES, cheapest_threshold, expected_cost, output_for_risk
from melanoma_lib.lessons.threshold_worlds import WAYS, Coverage, optimism_table

BINS = 40
DARK_GREEN = "#006B4E"  # the kit's green, dark enough for text


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
        names = ("melanomas", "other lesions")
        for axes, name, (target, _, colour, _) in zip(panels, names, CLASSES, strict=True):
            part = scores[targets == target]
            axes.hist(part, np.linspace(0, 1, BINS + 1), color=colour, alpha=0.85)
            axes.set(ylabel="images", xlim=(0, 1))
            axes.set_title(f"{len(part):,} {name}", color=colour, fontweight="bold")
            for (label, threshold), style in zip(thresholds.items(), ("--", "-", ":"), strict=False):
                axes.axvline(threshold, color=BLACK, linestyle=style, linewidth=2, label=label)
        panels[0].legend(loc="upper right", ncols=3)
        panels[1].set_xlabel("output of the model (not a risk); at or to the right of the line: called melanoma")
    said = []
    for label, threshold in thresholds.items():
        point = curve.at(threshold)
        said.append(f"{label} finds {point.tp} of {curve.n_positive} melanomas and flags {point.fp} of {curve.n_negative} others")
    return describe(figure, f"Histograms of the model's output, melanomas above other lesions. {'; '.join(said)}.")


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
    places = np.unique(np.concatenate([curve.thresholds, np.nextafter(curve.thresholds, 2), [0.0, 1.0]]))
    places = places[places <= 1]
    marks = {
        "cheapest on these cases": (cheapest_threshold(curve, fn_cost, fp_cost, prevalence), VERMILLION, "o"),
        f"risk ≥ {formula:.3f}, the formula": (output_for_risk(calibrator, formula), BLUE, "s"),
        f"output ≥ {formula:.3f}, an output taken for a risk": (formula, ORANGE, "D"),
    }
    everybody, nobody = (1000 * expected_cost(curve, t, fn_cost, fp_cost, prevalence) for t in (-np.inf, np.inf))
    top = 1.1 * min(max(everybody, nobody), 2.3 * min(everybody, nobody))  # the valley is what there is to see
    with kit_figure(WIDTH, 5.4) as figure:
        axes = figure.add_subplot()
        axes.plot(places, 1000 * expected_cost(curve, places, fn_cost, fp_cost, prevalence), color=BLACK, linewidth=1.8)
        for cost, name, style in ((everybody, "flag everybody", "--"), (nobody, "flag nobody", ":")):
            label = f"{name}: {cost:,.0f}{', above the frame' if cost > top else ''}"
            axes.axhline(cost, color=GREY, linestyle=style, linewidth=1.8, label=label)
        said = []
        for name, (threshold, colour, marker) in marks.items():
            cost = 1000 * float(expected_cost(curve, threshold, fn_cost, fp_cost, prevalence))
            axes.plot(
                min(threshold, 1.0), cost, marker, color=colour, markersize=12, markeredgecolor="white", zorder=4,
                clip_on=False, label=f"{name}: {cost:,.0f}",
            )  # fmt: skip
            said.append(f"{name}, a cut at output {threshold:.3f}, costs {cost:,.0f}")
        axes.set(xlim=(0, 1), ylim=(0, top), xlabel="threshold on the output", ylabel="expected cost of 1,000 lesions")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.3, columnspacing=1.4)
    return describe(
        figure,
        f"""Expected cost of 1,000 lesions against the threshold, a missed melanoma costing {fn_cost:g} and a false alarm
        {fp_cost:g}: {"; ".join(said)}; flagging everybody costs {everybody:,.0f}, nobody {nobody:,.0f}.""",
    )


# --- how sure -----------------------------------------------------------------------------------------------------------------


def unit_figure(intervals: Mapping[str, tuple[Interval, Interval]], unit: str) -> DescribedFigure:
    """The same rates with intervals that take images to be independent, and that resample whole patients or lesions.

    Args:
        intervals: by metric, from ``threshold.intervals_by_unit``.
        unit: "patient" or "lesion".
    """
    rows = [
        Row(
            NAMES.get(name, name),
            ((image, GREY, "o"), (group, BLUE, "s")),
            "\n".join(f"{i.low:.3f} to {i.high:.3f}" for i in (image, group)),
        )
        for name, (image, group) in intervals.items()
    ]
    with kit_figure(WIDTH, 0.8 + height_of(rows)) as figure:
        axes = figure.add_subplot()
        forest(axes, rows, "validation cases, 95% interval")
        for label, colour, marker in (("single images resampled", GREY, "o"), (f"whole {unit}s resampled", BLUE, "s")):
            axes.plot([], [], marker, color=colour, markersize=11, label=label)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.3, handletextpad=0.2)
    said = "; ".join(
        f"{NAMES.get(name, name)} {image:.3f} by image, {group:.3f} by {unit}" for name, (image, group) in intervals.items()
    )
    return describe(figure, f"95% intervals by what is resampled: {said}.")


def coverage_figure(coverages: Sequence[Coverage], repetitions: int = 1000) -> DescribedFigure:
    """Share of intervals that hold the truth against the number of patients or lesions with a melanoma.

    Args:
        coverages: by rising number of groups.
        repetitions: behind each of them, for the noise band around 95%.
    """
    n_groups = [one.n_groups for one in coverages]
    noise = 2 * np.sqrt(0.95 * 0.05 / repetitions)
    with kit_figure(WIDTH, 4.4) as figure:
        axes = figure.add_subplot()
        axes.axhspan(0.95 - noise, 0.95 + noise, color="#E4E4E4", label="95%, give or take chance")
        for name, label, colour, style in (
            ("by_group", "whole patients resampled", BLUE, "-s"),
            ("by_image", "single images resampled", GREY, "--o"),
        ):
            axes.plot(n_groups, [getattr(one, name) for one in coverages], style, color=colour, markersize=9, label=label)
        axes.set(xscale="log", ylim=(0.6, 1.0), xlabel="patients with a melanoma", ylabel="intervals that\nhold the truth")
        axes.set_xticks(n_groups, [str(n) for n in n_groups])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.3, columnspacing=1.4)
    said = "; ".join(f"{one.n_groups}: {one.by_group:.1%} by patient, {one.by_image:.1%} by image" for one in coverages)
    return describe(figure, f"Share of 95% intervals that hold the true sensitivity, by patients with a melanoma: {said}.")


# --- elsewhere, and for whom --------------------------------------------------------------------------------------------------


def prevalence_figure(point: OperatingPoint, places: Mapping[str, float]) -> DescribedFigure:
    """PPV and NPV of one threshold against the prevalence, its sensitivity and specificity taken to stay as they are.

    Args:
        point: of the threshold.
        places: prevalences to mark, by name.
    """
    scale = np.geomspace(0.005, 0.6, 300)
    said = []
    with kit_figure(WIDTH, 5.0) as figure:
        axes = figure.add_subplot()
        axes.plot(scale, [point.npv_at(p) for p in scale], "--", color=DARK_GREEN, label="NPV: all-clears that are right")
        axes.plot(scale, [point.ppv_at(p) for p in scale], color=VERMILLION, label="PPV: alarms that are melanomas")
        previous = 0.0
        for name, prevalence in sorted(places.items(), key=lambda place: place[1]):
            ppv, npv = point.ppv_at(prevalence), point.npv_at(prevalence)
            crowded, previous = prevalence < 1.6 * previous, prevalence
            axes.axvline(prevalence, color=GREY, linestyle=":", linewidth=1.5)
            axes.annotate(
                f"{name}\n{100 * prevalence:.3g}%", (prevalence, 1.17 if crowded else 1.02), xycoords=("data", "axes fraction"),
                ha="center", va="bottom", fontsize=12,
            )  # fmt: skip
            # NPV falls and PPV rises to the right: below left and below right of the dots no curve runs.
            above = ppv < 0.15
            for value, said_so, colour, side, lift in (
                (npv, f"NPV {npv:.1%}", DARK_GREEN, -1, -17),
                (ppv, f"PPV {ppv:.0%}", VERMILLION, -1 if above else 1, 10 if above else -17),
            ):
                axes.plot(prevalence, value, "o", color=colour, markersize=11, markeredgecolor="white", zorder=4)
                if not crowded:
                    align = "right" if side < 0 else "left"
                    place = {"xytext": (9 * side, lift), "textcoords": "offset points", "ha": align, "color": colour}
                    axes.annotate(said_so, (prevalence, value), **place)
            said.append(f"{name} ({prevalence:.2%}): PPV {ppv:.1%}, NPV {npv:.1%}")
        axes.set(xscale="log", xlim=(0.005, 0.75), ylim=(0, 1.04), xlabel="prevalence of melanoma where the threshold is used")
        axes.set_xticks([0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda p, _: f"{p:.1%}" if p < 0.01 else f"{p:.0%}"))
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.legend(loc="center left", bbox_to_anchor=(0.27, 0.64))
    return describe(
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
    panels: dict[str, list[Row]] = {"sensitivity": [], "specificity": []}
    said, seen = [], ""
    for row in table.to_dict("records"):
        if row["variable"] not in ("all", seen):
            seen = row["variable"]
            for rows in panels.values():
                rows.append(Row(seen))
        small = bool(row["note"])
        for name, rows in panels.items():
            interval = Interval(row[name], row[f"{name}_low"], row[f"{name}_high"])
            n = row["n_melanoma"] if name == "sensitivity" else row["n"] - row["n_melanoma"]
            rows.append(Row(row["subgroup"], ((interval, GREY if small else BLUE, "D" if small else "o"),), f"{n:,}"))
        rates = ", ".join(f"{name} {rows[-1].marks[0][0]:.2f}".replace("nan", "undefined") for name, rows in panels.items())
        said.append(f"{row['variable']} {row['subgroup']}{' (few cases)' if small else ''}: {rates}")
    with kit_figure(WIDTH, 0.6 + height_of(panels["sensitivity"])) as figure:
        for axes, (name, rows), counted in zip(
            figure.subplots(1, 2), panels.items(), ("melanomas", "other lesions"), strict=True
        ):
            forest(axes, rows, f"{name}, 95% interval")
            axes.axvline(rows[0].marks[0][0].value, color=GREY, linestyle="--", linewidth=1.5)
            axes.set_xlim(-0.02, 1.05)
            axes.annotate(
                counted, (1.0, -0.75), xycoords=("axes fraction", "data"), ha="center", va="bottom", annotation_clip=False
            )
            if name == "specificity":
                axes.set_yticklabels([])
        left = figure.axes[0]
        for label, colour, marker in (("enough cases", BLUE, "o"), ("few cases", GREY, "D"), ("all cases", GREY, "--")):
            left.plot([], [], marker, color=colour, markersize=11, label=label)
        figure.legend(*left.get_legend_handles_labels(), loc="outside upper left", ncols=3, handletextpad=0.3, borderaxespad=0.0)
    return describe(figure, f"Subgroups at threshold {threshold:.3f}: {'; '.join(said)}.")


# --- the optimism of choosing on test -----------------------------------------------------------------------------------------


def optimism_figure(by_sensitivity: pd.DataFrame, by_cost: pd.DataFrame) -> DescribedFigure:
    """What is reported on test less the truth, over many studies, for both ways of choosing.

    Args:
        by_sensitivity: from ``choose_and_report("sensitivity")``.
        by_cost: from ``choose_and_report("cost")``.
    """
    panels = (
        ("sensitivity", by_sensitivity, 100, "rule: sensitivity", "reported less true sensitivity, in points"),
        ("cost", by_cost, 1000, "rule: lowest cost", "reported less true cost of 1,000 lesions"),
    )
    said = []
    with kit_figure(WIDTH, 4.8) as figure:
        for axes, (quantity, table, unit, rule, label) in zip(figure.subplots(1, 2), panels, strict=True):
            off = unit * (table[quantity] - table[f"true_{quantity}"])
            bins = np.linspace(*np.quantile(off, [0.001, 0.999]), 45)
            means = unit * optimism_table({"": table}, quantity)["difference"].loc[""]
            axes.axvline(0, color=BLACK, linewidth=1)
            for way, colour, style in zip(WAYS, (BLUE, ORANGE), ("-", "--"), strict=True):
                axes.hist(off[table["chosen"] == way], bins, color=colour, alpha=0.45, density=True)
                axes.hist(off[table["chosen"] == way], bins, color=colour, histtype="step", linewidth=2, density=True)
                axes.axvline(means[way], color=colour, linestyle=style, linewidth=2.5, label=f"chosen {way}: {means[way]:+.1f}")
            axes.set(xlabel=label, yticks=[])
            axes.spines["left"].set_visible(False)
            axes.legend(
                loc="lower left", bbox_to_anchor=(0, 1.0), title=f"{rule}; mean difference", alignment="left", borderaxespad=0.3
            )
            said.append(f"{label}: chosen on validation {means[WAYS[0]]:+.1f} on average, on test {means[WAYS[1]]:+.1f}")
    return describe(figure, f"Distributions over {len(by_cost) // 2:,} simulated studies. {'; '.join(said)}.")
