"""Looking at a case table before anything is trained on it: who is in it, what is missing, what belongs together."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike

from melanoma_lib.data.audit import GAPS, CaseAudit
from melanoma_lib.evaluation.intervals import Interval, group_codes, wilson_interval
from melanoma_lib.evaluation.subgroups import AGE_BANDS, COLUMNS, subgroup_labels
from melanoma_lib.plotting import BLUE, GREY, VERMILLION, DescribedFigure, kit_figure, with_alt_text

WIDTH = 10.5  # inches: as wide as a notebook's column on a screen of 1280 pixels
CLASSES = ((1, "melanoma", VERMILLION, "^"), (0, "not melanoma", BLUE, "o"))  # target, name, colour, marker
MISSING = "not recorded"
LARGEST = 10  # cameras or clinics, and diagnoses, that get a row of their own


def grouped_share(flags: ArrayLike, groups: ArrayLike) -> Interval:
    """Share of flagged rows with a 95% interval that knows that rows of one patient or lesion resemble each other.

    Wilson's interval with as many observations as the rows are worth: ``p (1 - p) / variance``, where the variance of the
    share lets whole groups vary (Korn and Graubard 1998), and no more than there are rows. Where all rows agree, each group
    counts once.

    Args:
        flags: shape ``(N,)``, true or false, N at least 1.
        groups: patient, lesion or image id of each row, shape ``(N,)``.

    Raises:
        ValueError: if the shapes differ, there is no row or a group is missing.
    """
    flags = np.asarray(flags, dtype=bool)
    if flags.size == 0:
        raise ValueError("flags: expected at least one row, got none")
    codes, n_groups = group_codes(groups, flags.size)
    share, worth = flags.mean(), float(n_groups)
    if 0 < share < 1 and n_groups > 1:
        excess = np.bincount(codes, weights=flags - share)  # (G,) flagged rows above what the share promises
        variance = n_groups / (n_groups - 1) * (excess**2).sum() / flags.size**2
        worth = min(flags.size, share * (1 - share) / max(variance, 1e-12))
    return wilson_interval(share * worth, worth)


def unit_of(cases: pd.DataFrame) -> str:
    """What most groups of the table are: ``patient``, ``lesion`` or ``image``."""
    return str(cases["group_id"].str.partition(":")[0].mode()[0])


# --- dots with intervals ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One line of a `forest`; without marks it is a heading.

    Attributes:
        label: to the left.
        marks: each an interval, its colour and its marker.
        note: to the right.
    """

    label: str
    marks: tuple[tuple[Interval, str, str], ...] = ()
    note: str = ""


def forest(axes: Axes, rows: Sequence[Row], xlabel: str, percent: bool = False) -> None:
    """Draw dots with intervals, one line a row from top to bottom.

    Args:
        axes: where.
        rows: what.
        xlabel: of the scale.
        percent: the scale is of percent, from 0 on.
    """
    places = [
        (y + 0.36 * (i - (len(row.marks) - 1) / 2), *mark) for y, row in enumerate(rows) for i, mark in enumerate(row.marks)
    ]
    for y, interval, colour, marker in places:
        axes.plot([interval.low, interval.high], [y, y], color=colour, linewidth=5, alpha=0.35, solid_capstyle="butt")
        axes.plot(interval.value, y, marker, color=colour, markersize=10, markeredgecolor="white", clip_on=False, zorder=3)
    for y, row in enumerate(rows):
        axes.annotate(row.note, (1.015, y), xycoords=("axes fraction", "data"), va="center", annotation_clip=False)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel=xlabel)
    axes.set_yticks(range(len(rows)), [textwrap.fill(row.label, 34) for row in rows])
    for row, tick in zip(rows, axes.get_yticklabels(), strict=True):
        tick.set_fontweight("normal" if row.marks else "bold")
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if percent:
        axes.set_xlim(0, 1.05 * max(interval.high for _, interval, *_ in places))
        axes.xaxis.set_major_formatter(PercentFormatter(1))


def height_of(rows: Sequence[Row]) -> float:
    """Inches that a figure with this forest needs."""
    return 1.3 + sum(0.38 if len(row.marks) < 2 else 0.55 for row in rows)


def two_classes(label: str, flags: pd.Series, cases: pd.DataFrame) -> Row:
    """A row with the share of flagged cases among melanomas and among the others, and how many these are."""
    marks, notes = [], []
    for target, _, colour, marker in CLASSES:
        of_class = (cases["target"] == target).to_numpy()
        if of_class.any():
            flagged = flags.to_numpy(bool)[of_class]
            marks.append((grouped_share(flagged, cases["group_id"][of_class]), colour, marker))
            notes.append(f"{flagged.sum():,} of {flagged.size:,}")
    return Row(label, tuple(marks), "\n".join(notes))


def class_legend(axes: Axes) -> None:
    """Name the colours of the two classes above the frame."""
    for _, name, colour, marker in CLASSES:
        axes.plot([], [], marker, color=colour, markersize=11, label=name)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.3, handletextpad=0.2)


def listed(rows: Iterable[Row]) -> str:
    """Labels with their intervals, for a figure's description."""
    return "; ".join(f"{row.label} {', '.join(f'{interval:.3f}' for interval, *_ in row.marks)}" for row in rows if row.marks)


def nothing_to_show(reason: str) -> DescribedFigure:
    """A figure that says why there is none."""
    with kit_figure(WIDTH, 1.0) as figure:
        figure.text(0.02, 0.5, textwrap.fill(reason, 100), va="center", fontsize=15)
    return with_alt_text(figure, reason)


# --- the table ----------------------------------------------------------------------------------------------------------------


def class_figure(cases: pd.DataFrame) -> DescribedFigure:
    """How many images each diagnosis has, melanoma picked out."""
    counts = cases["diagnosis"].value_counts()
    shown, rarer = counts.iloc[:LARGEST], counts.iloc[LARGEST:]
    if len(rarer):
        shown = pd.concat([shown, pd.Series({f"{len(rarer)} rarer diagnoses": rarer.sum()})])
    title = f"{cases['target'].sum():,} of {len(cases):,} images show a melanoma: {cases['target'].mean():.2%}"
    melanoma = shown.index.isin(cases.loc[cases["target"] == 1, "diagnosis"])
    with kit_figure(WIDTH, 1.4 + 0.42 * len(shown)) as figure:
        axes = figure.add_subplot()
        names = [textwrap.shorten(name, 40, placeholder="…") for name in shown.index]
        bars = axes.barh(names, shown, color=np.where(melanoma, VERMILLION, BLUE))
        axes.bar_label(bars, [f"{n:,}  ({n / len(cases):.1%})" for n in shown], padding=5, fontsize=13)
        axes.set(xlim=(0, 1.2 * shown.max()), xlabel="images", title=title)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
    return with_alt_text(figure, f"Images by diagnosis: {'; '.join(f'{name} {n:,}' for name, n in shown.items())}; {title}.")


def share_rows(cases: pd.DataFrame, variable: str) -> list[Row]:
    """Share of melanomas at each level of a variable; what is not recorded is a level of its own.

    Args:
        cases: case table.
        variable: ``age``, ``sex``, ``site``, or ``acquisition``, of which the ten largest get a row each.
    """
    if variable == "acquisition":
        labels = cases["acquisition"].astype(object).fillna("missing")
        order = [*labels[labels != "missing"].value_counts().index[:LARGEST], "others"]
        labels = labels.where(labels.isin([*order, "missing"]), "others")
    else:
        labels = subgroup_labels(cases)[variable]
        order = AGE_BANDS if variable == "age" else sorted(set(labels) - {"missing"})
    rows = []
    for level in [*order, "missing"]:
        part = cases[(labels == level).to_numpy()]
        if len(part):
            mark = (grouped_share(part["target"] == 1, part["group_id"]), VERMILLION, "^")
            rows.append(Row(MISSING if level == "missing" else level, (mark,), f"{part['target'].sum():,} of {len(part):,}"))
    return rows


def share_figure(cases: pd.DataFrame, variables: Sequence[str] = ("age", "sex", "site")) -> DescribedFigure:
    """Share of melanomas by each variable, with intervals, counts, and the share among all as a line."""
    rows = [row for variable in variables for row in (Row(variable), *share_rows(cases, variable))]
    overall = cases["target"].mean()
    with kit_figure(WIDTH, 0.3 + height_of(rows)) as figure:
        axes = figure.add_subplot()
        forest(axes, rows, "share of images that show a melanoma, with 95% interval", percent=True)
        axes.axvline(overall, color=GREY, linestyle="--", linewidth=1.5)
        axes.set_title(f"dashed: all images, {overall:.1%}")
    return with_alt_text(figure, f"Share of melanomas by {', '.join(variables)}; among all {overall:.3f}. {listed(rows)}.")


def missing_figure(cases: pd.DataFrame) -> DescribedFigure:
    """How often each field is empty, among melanomas and among the others."""
    names = {column: name for name, column in COLUMNS.items()}
    empty = {names.get(column, column): cases[column].isna() for column in GAPS}
    kinds = {
        "empty in every row": [name for name, flags in empty.items() if flags.all()],
        "filled in every row": [name for name, flags in empty.items() if not flags.any()],
    }
    rest = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names)
    rows = [two_classes(name, flags, cases) for name, flags in empty.items() if 0 < flags.mean() < 1]
    if not rows:
        return nothing_to_show(f"No field is empty in some rows only; {rest}.")
    with kit_figure(WIDTH, 0.9 + height_of(rows)) as figure:
        axes = figure.add_subplot()
        note = "\n" + textwrap.fill(rest, 90) if rest else ""
        forest(axes, rows, f"share of images whose field is empty, with 95% interval{note}", percent=True)
        class_legend(axes)
    return with_alt_text(figure, f"Share of empty fields, melanomas then others: {listed(rows)}. {rest}.")


def repeats_figure(audit: CaseAudit) -> DescribedFigure:
    """How many images lesions and patients have, as the audit counted them."""
    if audit.sizes.empty:
        return nothing_to_show("This source names neither patients nor lesions: nobody can tell which images belong together.")
    with kit_figure(WIDTH, 4.2) as figure:
        said = []
        panels = figure.subplots(1, len(audit.sizes.columns), squeeze=False)[0]
        for axes, (column, sizes) in zip(panels, audit.sizes.items(), strict=True):
            unit, bins = column.removesuffix("_id"), {k: n for k, n in sizes.items() if k != "largest"}
            while not list(bins.values())[-1]:
                bins.popitem()
            bars = axes.bar(list(bins), list(bins.values()), color=BLUE)
            axes.bar_label(bars, [f"{n:,}" for n in bins.values()], padding=2, fontsize=13)
            axes.set(xlabel=f"images of one {unit} (at most {sizes['largest']})", ylabel=f"{unit}s")
            axes.set_ylim(0, 1.12 * max(bins.values()))
            axes.grid(visible=False, axis="x")
            said.append(f"{unit}s by number of images: " + ", ".join(f"{k}: {n:,}" for k, n in bins.items()))
    return with_alt_text(figure, "; ".join(said) + ".")
