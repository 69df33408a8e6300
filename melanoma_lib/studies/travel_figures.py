"""The travel study and the left-out sources drawn, from their tables of results alone."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FixedFormatter,
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    PercentFormatter,
)

from melanoma_lib.evaluation.canvas import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    VERMILLION,
    DescribedFigure,
    describe,
    kit_figure,
)
from melanoma_lib.studies.recalibration import AS_IT_IS, BOTH, INTERCEPT, LOCAL_THRESHOLD, PRIOR
from melanoma_lib.studies.results import ResultTable, interval_text
from melanoma_lib.studies.skin_tone import TONES
from melanoma_lib.studies.travel_words import named_sources

WIDTH = 10.5  # inches
METHOD_STYLE = {
    AS_IT_IS: (GREY, "o"), PRIOR: (ORANGE, "s"), INTERCEPT: (BLUE, "D"), BOTH: (VERMILLION, "^"), LOCAL_THRESHOLD: (GREEN, "v"),
}  # fmt: skip
CLASS_STYLE = {"melanoma": (VERMILLION, "^"), "other": (BLUE, "o")}
RATE_STYLE = {
    "auroc": (BLACK, "D", "AUROC"),
    "sensitivity": (VERMILLION, "^", "sensitivity"),
    "specificity": (BLUE, "o", "specificity"),
}
TONE_COLOURS = ("#FDE3CC", "#EFBF94", "#D39A6A", "#A8703F", "#6F4526", "#3A2413")  # from very light to dark
CAST = "#9AA7D9"
Mark = tuple[dict | None, str, str]  # an interval, its colour and its marker


def _dots(axes: Axes, rows: Sequence[tuple[str, Sequence[Mark]]], xlabel: str) -> None:
    """Dots with intervals, one line a row from top to bottom; hollow where the cases are too few for an interval."""
    for y, (_, marks) in enumerate(rows):
        for i, (interval, colour, marker) in enumerate(marks):
            if interval is None or interval["value"] is None:
                continue
            at = y + 0.26 * (i - (len(marks) - 1) / 2)
            known = interval.get("low") is not None and interval.get("high") is not None
            if known:
                axes.plot([interval["low"], interval["high"]], [at, at], color=colour, linewidth=4, alpha=0.4)
            edges = {"markeredgecolor": "white"} if known else {"markerfacecolor": "white", "markeredgewidth": 1.5}
            axes.plot(interval["value"], at, marker, color=colour, markersize=9, zorder=3, **edges)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel=xlabel)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def _key(axes: Axes, entries: Sequence[tuple[str, str, str]], columns: int = 4) -> None:
    """A legend above the frame of ``(name, colour, marker)``."""
    for name, colour, marker in entries:
        axes.plot([], [], marker, color=colour, markersize=9, label=name)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, borderaxespad=0.3, columnspacing=1.2, handletextpad=0.2)


def external_figure(table: ResultTable) -> DescribedFigure:
    """AUROC, sensitivity and specificity at home and abroad: each model a stroke, their mean with its interval.

    Args:
        table: of ``travel_table.travel``.
    """
    mean, singles = table.rows[0], [row for row in table.rows[1:] if "auroc_home" in row]
    said = []
    with kit_figure(WIDTH, 4.6) as figure:
        axes = figure.add_subplot()
        rows: list[tuple[str, list[Mark]]] = []
        for name, title in (("auroc", "AUROC"), ("sensitivity", "sensitivity"), ("specificity", "specificity")):
            for place, colour, marker in (("home", GREY, "o"), ("abroad", VERMILLION, "D")):
                y = len(rows) + (len(rows) > 1 and "metadata_alone" in table.details)  # which gets the third line
                values = [row[f"{name}_{place}"]["value"] for row in singles]
                axes.plot(values, [y + 0.22] * len(values), "|", color=colour, markersize=11, markeredgewidth=2)
                interval = mean[f"{name}_{place}"]
                rows.append((f"{title}, {place}", [(interval, colour, marker)]))
                said.append(f"{title} {place} {interval_text(interval)}")
        if alone := table.details.get("metadata_alone"):
            rows.insert(2, ("AUROC of metadata\nalone, abroad", [(alone["auroc"], GREEN, "s")]))
            said.append(f"AUROC of metadata alone abroad {interval_text(alone['auroc'])}")
        _dots(axes, rows, "95% intervals by lesion at home, by patient abroad; a stroke: one model")
        axes.set(xlim=(min(0.4, axes.get_xlim()[0]), 1.01))
        aim = table.details.get("min_sensitivity")
        axes.set_title("Thresholds were set at home" + (f", for sensitivity {aim:g}" if aim else ""))
    return describe(figure, f"{table.title}. {'; '.join(said)}. Each of {len(singles)} models is drawn as a stroke.")


def recalibration_figure(table: ResultTable) -> DescribedFigure:
    """What few local patients mend: observed over expected, and what the decisions find and clear, over draws of patients.

    Args:
        table: of ``travel_table.travel``.
    """
    found = table.details["few_cases"]
    sizes = sorted({row["patients"] for row in found})
    melanomas = {row["patients"]: row["melanomas"] for row in found}
    risks, decisions = (AS_IT_IS, PRIOR, INTERCEPT, BOTH), (AS_IT_IS, INTERCEPT, BOTH, LOCAL_THRESHOLD)
    panels = {"observed_over_expected": risks, "sensitivity": decisions, "specificity": decisions}
    said = []
    with kit_figure(WIDTH, 5.4) as figure:
        for axes, (name, methods) in zip(figure.subplots(1, 3), panels.items(), strict=True):
            said += _draws(axes, found, name, methods, sizes)
            axes.set_xticks(range(len(sizes)), [f"{size}\n({melanomas[size]:.1f})" for size in sizes])
            axes.set_title(name.replace("_over_", " / "))
            axes.grid(visible=False, axis="x")
            if name in RATE_STYLE:
                axes.set_ylim(-0.03, 1.03)
        _log_ratio(figure.axes[0])
        figure.axes[1].set_xlabel("local patients (melanomas among them, mean)")
        marks = [
            Line2D([], [], color=colour, marker=marker, linestyle="", markersize=9) for colour, marker in METHOD_STYLE.values()
        ]
        figure.legend(marks, list(METHOD_STYLE), loc="outside upper left", ncols=len(marks), columnspacing=1.2, handletextpad=0.2)
    return describe(figure, f"Median and 95% range over random draws of local patients, tested on all others. {'; '.join(said)}.")


def _draws(axes: Axes, found: Sequence[dict], name: str, methods: Sequence[str], sizes: Sequence[int]) -> list[str]:
    """Median and range of one measure by method and number of patients; returns what was drawn, in words."""
    said = []
    for i, method in enumerate(methods):
        colour, marker = METHOD_STYLE[method]
        own = {row["patients"]: row for row in found if row["method"] == method and row[name] is not None}
        at = [sizes.index(size) + 0.2 * (i - (len(methods) - 1) / 2) for size in own]
        for x, row in zip(at, own.values(), strict=True):
            axes.plot([x, x], [row[f"{name}_low"], row[f"{name}_high"]], color=colour, linewidth=4, alpha=0.4)
            said.append(f"{name.replace('_', ' ')}, {row['patients']} patients, {method}: {row[name]:.2f}")
        axes.plot(at, [row[name] for row in own.values()], marker, color=colour, markersize=8)
    return said


def _log_ratio(axes: Axes) -> None:
    axes.axhline(1, color=BLACK, linewidth=1.2, linestyle="--")
    axes.set_yscale("log")
    ticks = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())


def within_figure(table: ResultTable) -> DescribedFigure:
    """The pooled AUROC taken apart, and the AUROC within each source.

    Args:
        table: of ``travel_table.travel``, of a collection whose sources are named.

    Raises:
        ValueError: if they are not.
    """
    found = named_sources(table)
    share = found["share_between"]
    rows: list[tuple[str, list[Mark]]] = [
        ("pooled, all pairs", [(found["pooled"], BLACK, "D")]),
        (f"pairs across sources ({share:.0%})", [(found["between"], ORANGE, "s")]),
        (f"pairs within a source ({1 - share:.0%})", [(found["within"], BLUE, "o")]),
        ("the source alone, no picture", [(found["source_alone"], GREY, "X")]),
    ]
    rows += [(f"{row['source']} ({row['prevalence']:.1%} melanoma)", [(row["auroc"], SKY, "o")]) for row in found["sources"]]
    with kit_figure(WIDTH, 0.5 * len(rows) + 1.3) as figure:
        axes = figure.add_subplot()
        _dots(axes, rows, "AUROC")
        axes.axhline(3.5, color=GREY, linewidth=1)
        axes.axvline(0.5, color=GREY, linestyle=":", linewidth=1.5)
    said = "; ".join(f"{label} {interval_text(marks[0][0])}" for label, marks in rows)
    return describe(
        figure, f"AUROC at home: {said}. The pooled number exceeds the one within by {interval_text(found['excess'])}."
    )


def tone_figure(table: ResultTable) -> DescribedFigure:
    """The skin-tone proxy by source, and ranking and decisions by tone group at home.

    Args:
        table: of ``travel_table.travel``.
    """
    tone = table.details["tone"]
    rows, said = [], []
    for row in tone["performance"]["home"]:
        rows.append(
            (f"{row['tone']}\n{row['images']:,}, {row['melanomas']} mel.", [(row[n], *RATE_STYLE[n][:2]) for n in RATE_STYLE])
        )
        said.append(f"{row['tone']}: " + ", ".join(f"{RATE_STYLE[n][2]} {interval_text(row[n], 2)}" for n in RATE_STYLE))
    sources = tone["checks"]["sources"]
    with kit_figure(WIDTH, 6.2) as figure:
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.25])
        for y, row in enumerate(sources):
            start = 0.0
            shares = [*row["tones"].values(), 0.0]
            scale = row["images"] / row["all"]
            for share, colour in zip([*(scale * part for part in shares[:-1]), 1 - scale], [*TONE_COLOURS, CAST], strict=True):
                left.barh(y, share, left=start, color=colour, edgecolor="white", height=0.7)
                start += share
        left.set_yticks(range(len(sources)), [row["source"].replace("_", "\n") for row in sources])
        left.set(xlim=(0, 1), xlabel="share of images", ylim=(len(sources) - 0.5, -0.5))
        left.xaxis.set_major_formatter(PercentFormatter(1))
        left.grid(visible=False)
        for name, colour in zip((*TONES, "no colour of skin"), (*TONE_COLOURS, CAST), strict=True):
            left.plot([], [], "s", color=colour, markersize=11, label=name)
        left.legend(
            loc="lower left", bbox_to_anchor=(-0.3, 1.0), ncols=2, borderaxespad=0.3, columnspacing=1.0, handletextpad=0.2
        )
        _dots(right, rows, "95% intervals by lesion; hollow: too few for one")
        right.set_xlim(0, 1.02)
        _key(right, [(label, colour, marker) for colour, marker, label in RATE_STYLE.values()], 3)
    medians = "; ".join(f"{row['source']} median {row['median']:.0f} degrees" for row in sources)
    return describe(figure, f"Skin-tone proxy (typology angle of the picture's skin): {medians}. By group: {'; '.join(said)}.")


def stress_figure(table: ResultTable) -> DescribedFigure:
    """Share of decisions that an artefact flips, and what it does to the mean risk, for melanomas and others.

    Args:
        table: of ``travel_table.travel``, with artefacts.

    Raises:
        ValueError: if the artefacts were left out.
    """
    found = [row for row in table.details.get("stress", ()) if row["part"] == "all"]
    if not found:
        raise ValueError("this table has no artefacts; make it with --stressed above 0")
    artefacts = list(dict.fromkeys(row["artefact"] for row in found))
    with kit_figure(WIDTH, 0.62 * len(artefacts) + 1.9) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, name, label in zip(
            panels, ("flips", "risk_change"), ("decisions that flip", "change of mean risk, percentage points"), strict=True
        ):
            rows = []
            for artefact in artefacts:
                own = {row["class"]: row[name] for row in found if row["artefact"] == artefact}
                rows.append((artefact, [(own[kind], *CLASS_STYLE[kind]) for kind in CLASS_STYLE]))
            _dots(axes, rows, label)
            axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))  # steps that a label says without rounding
            axes.xaxis.set_major_formatter(FuncFormatter(_percent if name == "flips" else _points))
            axes.axvline(0, color=GREY, linewidth=1.2)
        panels[1].tick_params(axis="y", labelleft=False)
        _key(panels[0], [(kind, *style) for kind, style in CLASS_STYLE.items()], 2)
    said = "; ".join(
        f"{row['artefact']}, {row['class']}: flips {interval_text(row['flips'], 2)}, "
        f"risk {interval_text(row['risk_change'], 3, '+')}"
        for row in found
    )
    return describe(figure, f"The same photographs with and without a pasted artefact. {said}.")


def _percent(share: float, _: int) -> str:
    return f"{100 * share:.6g}%"


def _points(change: float, _: int) -> str:
    return f"{100 * change:+.6g}".replace("-", "\N{MINUS SIGN}") if abs(change) > 1e-9 else "0"


def sources_figure(table: ResultTable) -> DescribedFigure:
    """AUROC and sensitivity within each source, of the models that know it and of the one that does not.

    Args:
        table: of ``sources_out.compare_sources``.
    """
    styles = {"seen": (GREY, "o"), "unseen": (VERMILLION, "D")}
    with kit_figure(WIDTH, 0.75 * len(table.rows) + 1.9) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, name, label in zip(panels, ("auroc", "sensitivity"), ("AUROC within the source", "sensitivity"), strict=True):
            rows = []
            for row in table.rows:
                title = f"{row['source']}\n{row['images']:,} images, {row['melanomas']} mel."
                rows.append((title, [(row[f"{name}_{side}"], *style) for side, style in styles.items()]))
            _dots(axes, rows, label)
        panels[1].tick_params(axis="y", labelleft=False)
        _key(panels[0], [("source known in training", *styles["seen"]), ("source left out", *styles["unseen"])], 2)
    said = "; ".join(
        f"{row['source']}: AUROC seen {interval_text(row['auroc_seen'])}, unseen {interval_text(row['auroc_unseen'])}, "
        f"change {interval_text(row['auroc_change'], 3, '+')}"
        for row in table.rows
    )
    return describe(figure, f"{table.title}. {said}.")
