"""Looking at the pictures before anything is trained on them: side by side, as numbers, and sorted by those numbers."""

import io
import os
import textwrap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from PIL import Image

from melanoma_lib.data.artefacts import ARTEFACTS
from melanoma_lib.data.images import read_square
from melanoma_lib.lessons.eda import CLASSES, WIDTH, class_legend, forest, height_of, listed, nothing_to_show, two_classes
from melanoma_lib.plotting import BLACK, DescribedFigure, kit_figure, with_alt_text
from melanoma_lib.widgets.cases import thumbnail

LOOK, SHOW = 64, 180  # pixels a side of a picture that is measured, and of one that is shown
MEASURED = ("width", "height", "red", "green", "blue", "brightness", "dark corners", "bluish", "overexposed")
LEVELS = 6  # of each colour channel in a histogram
COLUMNS, LINES = 6, 2  # of a sheet of pictures
TRUTH = "truth_artefact_"
# Share of the pixels above which a picture stands out, where no one has labelled its artefacts
STANDS_OUT = {"dark corners": 0.25, "bluish": 0.01, "overexposed": 0.02}
NO_PICTURE = "No picture of this source is on this machine: here the table is all there is."


def with_picture(cases: pd.DataFrame) -> pd.DataFrame:
    """The rows whose image file is there."""
    return cases[cases["image_path"].map(os.path.isfile)]  # several times faster than Path


# --- side by side -----------------------------------------------------------------------------------------------------------


def contact_sheet(cases: pd.DataFrame, answers: bool = False, seed: int = 0) -> DescribedFigure:
    """Twelve pictures in random order, half of them melanomas, one a group: a quiz, or with ``answers`` its solution."""
    pictured, half = with_picture(cases.sample(frac=1, random_state=seed)), COLUMNS * LINES // 2
    melanomas = pictured[pictured["target"] == 1].drop_duplicates("group_id").head(half)
    strangers = pictured[(pictured["target"] == 0) & ~pictured["group_id"].isin(melanomas["group_id"])]
    chosen = pd.concat([melanomas, strangers.drop_duplicates("group_id").head(half)])
    if chosen.empty:
        return nothing_to_show(NO_PICTURE)
    chosen = chosen.sample(frac=1, random_state=seed)
    titles = [f"{i} {row.diagnosis}" if answers else str(i) for i, row in enumerate(chosen.itertuples(), start=1)]
    figure = _sheet(chosen, titles, answers)
    if answers:
        return with_alt_text(figure, f"{len(chosen)} pictures and what they show: {'; '.join(titles)}.")
    return with_alt_text(figure, f"{len(chosen)} numbered pictures without diagnoses; {chosen['target'].sum()} show a melanoma.")


def siblings_figure(cases: pd.DataFrame, n: int = 3, seed: int = 0) -> DescribedFigure:
    """Pictures that belong together: one row each for ``n`` lesions (patients where lesions have one picture or no name)."""
    pictured = with_picture(cases.sample(frac=1, random_state=seed))
    unit = "lesion" if pictured["lesion_id"].dropna().duplicated().any() else "patient"
    sizes = pictured.groupby(f"{unit}_id", sort=False)["target"].agg(["size", "max"])
    sizes = sizes[sizes["size"] > 1].sort_values("size", ascending=False, kind="stable")
    names = [*sizes.index[sizes["max"] == 1][: n - 1], *sizes.index[sizes["max"] == 0][:1]]
    if not names:
        return nothing_to_show("No two pictures on this machine are known to show the same lesion or patient.")
    families = [pictured[pictured[f"{unit}_id"] == name].head(5) for name in names]
    columns = max(map(len, families))
    with kit_figure(0.5 + 2.0 * columns, 1.9 * len(families)) as figure:
        for line, family in zip(figure.subplots(len(families), columns, squeeze=False), families, strict=True):
            _show(line, family, [textwrap.shorten(name, 22, placeholder="…") for name in family["diagnosis"]])
            line[0].set_ylabel(f"one {unit}", fontweight="bold")
    told = "; ".join(", ".join(family["diagnosis"]) for family in families)
    return with_alt_text(figure, f"{len(families)} rows of pictures that show the same {unit}: {told}.")


def _sheet(rows: pd.DataFrame, titles: Sequence[str], coloured: bool = False) -> DescribedFigure:
    """Up to twelve pictures with titles, in the colour of their class on request."""
    with kit_figure(WIDTH, 2.1 * LINES) as figure:
        _show(figure.subplots(LINES, COLUMNS).ravel(), rows, [textwrap.shorten(t, 20, placeholder="…") for t in titles], coloured)
    return figure


def _show(panels: Sequence[Axes], rows: pd.DataFrame, notes: Sequence[str], coloured: bool = True) -> None:
    """A picture a panel in its own proportions, without scales, and a note below in the colour of its class on request."""
    colours = {target: colour for target, _, colour, _ in CLASSES}
    for axes in panels[len(rows) :]:
        axes.set_axis_off()
    for axes, row, note in zip(panels, rows.itertuples(), notes, strict=False):
        axes.imshow(Image.open(io.BytesIO(thumbnail(Path(row.image_path), SHOW))), interpolation="bicubic")
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel(note, color=colours[row.target] if coloured else BLACK, fontsize=12)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)


# --- as numbers -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pictures:
    """What a sample of pictures measures.

    Attributes:
        table: rows of the case table with, for each picture, ``width`` and ``height`` in pixels; means in [0, 1] of ``red``,
            ``green``, ``blue`` and ``brightness``; shares in [0, 1] of pixels: ``dark corners`` (of those in the corners, nearly
            black), ``bluish`` (clearly more blue than red, as skin in white light never is) and ``overexposed`` (nearly white).
        colours: square roots of each picture's colour histogram, float32, shape ``(N, 216)``, rows of length 1. They do not
            change when a picture is turned or mirrored.
    """

    table: pd.DataFrame
    colours: np.ndarray


def look_at_pictures(cases: pd.DataFrame, n: int = 1500, seed: int = 0) -> Pictures:
    """Open a sample of the pictures that are there and measure them.

    Whole groups are sampled, so that siblings stay together; as far as they last, half of the pictures come from groups with
    a melanoma, which are rare. Compare classes, not totals.

    Args:
        cases: case table.
        n: pictures to open; the last group drawn may exceed it.
        seed: of the sample.

    Raises:
        CorruptImageError: if a file is no image or is cut short.
    """
    sample = _sample_groups(with_picture(cases), n, seed)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        seen = list(pool.map(_measure, sample["image_path"]))
    numbers = pd.DataFrame([numbers for numbers, _ in seen], index=sample.index, columns=[*MEASURED])
    colours = np.array([colours for _, colours in seen], np.float32).reshape(len(seen), LEVELS**3)
    return Pictures(pd.concat([sample, numbers], axis=1).reset_index(drop=True), colours)


def _sample_groups(cases: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    groups = cases.groupby("group_id")["target"].agg(["size", "max"]).sort_index()
    groups = groups.iloc[np.random.default_rng(seed).permutation(len(groups))]

    def first(of: pd.DataFrame, wanted: int) -> pd.DataFrame:
        return of[of["size"].cumsum() - of["size"] < wanted]

    melanoma = first(groups[groups["max"] == 1], n // 2)
    others = first(groups[groups["max"] == 0], n - melanoma["size"].sum())
    return cases[cases["group_id"].isin([*melanoma.index, *others.index])]


def _measure(path: str) -> tuple[tuple[float, ...], np.ndarray]:
    """The numbers that ``MEASURED`` names, and the colours."""
    pixels = read_square(Path(path), LOOK)  # (64, 64, 3)
    with Image.open(path) as image:
        width, height = image.size
    rgb = pixels.reshape(-1, 3) / 255  # (4096, 3)
    grey, edge = rgb.mean(axis=1).reshape(LOOK, LOOK), LOOK // 8
    corners = np.concatenate([grey[:edge], grey[-edge:]])[:, np.r_[:edge, LOOK - edge : LOOK]]  # (16, 16)
    dark, bluish, overexposed = corners < 0.15, rgb[:, 2] > rgb[:, 0] + 0.1, rgb.min(axis=1) > 0.9
    numbers = (width, height, *rgb.mean(axis=0), grey.mean(), dark.mean(), bluish.mean(), overexposed.mean())
    levels = pixels.reshape(-1, 3).astype(int) * LEVELS // 256  # (4096, 3), each 0 to 5
    histogram = np.bincount(levels @ [LEVELS**2, LEVELS, 1], minlength=LEVELS**3)
    return numbers, np.sqrt(histogram / histogram.sum())


# --- artefacts --------------------------------------------------------------------------------------------------------------


def extremes_figure(pictures: Pictures, most: int = 6) -> DescribedFigure:
    """The pictures that lead three lists: darkest corners, most bluish, most overexposed; one a group."""
    if pictures.table.empty:
        return nothing_to_show(NO_PICTURE)
    said = []
    with kit_figure(WIDTH, 0.2 + 1.75 * len(STANDS_OUT)) as figure:
        for line, name in zip(figure.subplots(len(STANDS_OUT), most), STANDS_OUT, strict=True):
            leaders = pictures.table.sort_values(name, ascending=False).drop_duplicates("group_id").head(most)
            shares = [f"{share:.0%}" for share in leaders[name]]
            _show(line, leaders, shares, coloured=False)
            line[0].set_ylabel(name, fontweight="bold")
            said.append(f"{name} {', '.join(shares)}")
    return with_alt_text(figure, f"The pictures with the largest shares of such pixels: {'; '.join(said)}.")


def artefact_flags(table: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """Which picture has which artefact.

    Returns:
        One column of booleans an artefact, and whether they are known: the synthetic source says what it has painted; of a
        real picture only ``STANDS_OUT`` is measured, which a lesion may cause as well as an artefact.
    """
    known = [column for column in table.columns if column.startswith(TRUTH)]
    if known:
        return table[known].astype(bool).rename(columns=lambda column: column.removeprefix(TRUTH)), True
    return pd.DataFrame({name: table[name] > limit for name, limit in STANDS_OUT.items()}), False


def artefact_figure(pictures: Pictures) -> DescribedFigure:
    """Two pictures of each known artefact with its outline, or, where none is labelled, a dozen pictures to search."""
    table = pictures.table
    if table.empty:
        return nothing_to_show(NO_PICTURE)
    flags, known = artefact_flags(table)
    if not known:
        some = table.drop_duplicates("group_id").head(COLUMNS * LINES)
        figure = _sheet(some, [str(i + 1) for i in range(len(some))])
        return with_alt_text(figure, f"{len(some)} numbered pictures to search for artefacts: this source labels none.")
    examples = {name: table[flags[name]].drop_duplicates("group_id") for name in ARTEFACTS}
    shown = [(name, examples[name].iloc[[k]]) for k in range(LINES) for name in ARTEFACTS if len(examples[name]) > k]
    rows = pd.concat([row for _, row in shown])
    figure = _sheet(rows, [name for name, _ in shown])
    for axes, row, (name, _) in zip(figure.axes, rows.itertuples(), shown, strict=False):
        bits = np.asarray(Image.open(Path(row.image_path).parents[1] / "artefacts" / f"{row.image_id}.png"))
        x, y = ((np.arange(side) + 0.5) * SHOW / side - 0.5 for side in bits.shape[::-1])  # on the pixels shown
        axes.contour(x, y, bits >> ARTEFACTS.index(name) & 1, levels=[0.5], colors="#00E5FF", linewidths=1.2)
    counts = ", ".join(f"{name} on {flags[name].sum()}" for name in ARTEFACTS)
    return with_alt_text(figure, f"Two pictures of each artefact with its outline. Of {len(table)} pictures opened: {counts}.")


def artefact_shares_figure(pictures: Pictures) -> DescribedFigure:
    """Share of pictures with each artefact, among melanomas and among the others."""
    if pictures.table.empty:
        return nothing_to_show(NO_PICTURE)
    flags, known = artefact_flags(pictures.table)
    rows = [two_classes(name, flags[name], pictures.table) for name in flags]
    what = "known artefacts" if known else "not labelled: measured from the pixels, lesions may cause it too"
    with kit_figure(WIDTH, 0.4 + height_of(rows)) as figure:
        axes = figure.add_subplot()
        forest(axes, rows, f"share of pictures, with 95% interval ({what})", percent=True)
        class_legend(axes)
    return with_alt_text(figure, f"Share of pictures with each artefact ({what}), melanomas then others: {listed(rows)}.")
