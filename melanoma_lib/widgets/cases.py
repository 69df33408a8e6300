"""Look at the cases: filter them by metadata, page through their images, pick one."""

import io
import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import traitlets
from numpy.typing import NDArray
from PIL import ExifTags, Image

from melanoma_lib.data.images import read_square
from melanoma_lib.data.schema import CASE_COLUMNS, SEXES, SITES
from melanoma_lib.errors import CorruptImageError, DataError
from melanoma_lib.evaluation.canvas import BLUE, GREY, VERMILLION, DescribedFigure, describe, kit_figure
from melanoma_lib.evaluation.intervals import wilson_interval
from melanoma_lib.widgets.base import HERE, Explorer, answering, script

MISSING = "missing"  # the choice of cases where a field is empty
FIELDS = {
    "target": "target",
    "sex": "sex",
    "age": "age_approx",
    "site": "anatom_site_general_challenge",
    "diagnosis": "diagnosis",
    "acquisition": "acquisition",
    "split": "split",
    "image": "image_file",
}
VOCABULARY = {"target": (1, 0), "sex": SEXES, "site": SITES}  # known even where the table has no such case
LABELS = ("not melanoma", "melanoma")  # by target
ABSENT = "image not downloaded"
LARGE = 288  # pixels, longer side of the selected image
PATHS = ("image_path", "mask_path")  # shown by file name: a page that is passed on should not tell where it was made


# --- pure functions: values in, state out ------------------------------------------------------------------------------------


def filter_cases(cases: pd.DataFrame, **filters: Any) -> NDArray[np.intp]:
    """Positions of the cases that fit every filter, in table order.

    Args:
        cases: case table; a ``split`` column, if there is one, can be filtered too.
        **filters: value by field (``target``, ``sex``, ``site``, ``diagnosis``, ``acquisition``, ``split``), or ``"missing"``
            for the cases where it is empty; ``age`` takes a pair of years, both ends included, None for an open end.

    Returns:
        Row positions for ``cases.iloc``, shape ``(n,)``, ascending; all rows without filters.

    Raises:
        ValueError: for a field the table lacks, a value it cannot hold, or an age range that is none.
    """
    fields = {name: column for name, column in FIELDS.items() if column in cases.columns}
    fits = np.ones(len(cases), dtype=bool)
    for name, wanted in filters.items():
        if name not in fields:
            raise ValueError(f"filter {name!r} is not known; this table offers {list(fields)}")
        values = cases[fields[name]]
        if isinstance(wanted, str) and wanted == MISSING:
            fits &= values.isna().to_numpy()
        elif name == "age":
            fits &= values.between(*_age_range(wanted)).to_numpy()
        else:
            known = VOCABULARY.get(name) or sorted(values.dropna().unique())
            if wanted not in known:
                raise ValueError(f"{name} {wanted!r} is not known; expected one of {[*known, MISSING]}")
            fits &= values.isin([wanted]).to_numpy()
    return np.flatnonzero(fits)


def _age_range(wanted: Any) -> tuple[float, float]:
    try:
        low, high = wanted
        low, high = -math.inf if low is None else float(low), math.inf if high is None else float(high)
    except (TypeError, ValueError):
        low = high = math.nan
    if not low <= high:
        raise ValueError(f"age {wanted!r} is no range; expected (from, to) in years, from <= to, or {MISSING!r}")
    return low, high


def summary_of(cases: pd.DataFrame, rows: NDArray[np.intp], by_label: bool = False) -> dict[str, Any]:
    """How many cases match, how many of them are melanoma, and from how many people and lesions they come.

    Args:
        cases: case table.
        rows: positions from `filter_cases`.
        by_label: whether label or diagnosis was chosen, so that the share of melanoma tells nothing; ``text`` leaves it out.

    Returns:
        ``matches``, ``melanomas``, ``patients`` and ``lesions`` (None where the table has no such ids), ``share`` of melanoma
        as an `Interval` (Wilson, each patient or lesion one observation, since their images resemble each other), and
        ``text``, all of it in words.
    """
    matching = cases.iloc[rows]
    counts = {
        unit: matching[f"{unit}_id"].nunique() if cases[f"{unit}_id"].notna().any() else None for unit in ("patient", "lesion")
    }
    melanomas, groups = int(matching["target"].sum()), matching["group_id"].nunique()
    share = wilson_interval(melanomas / len(rows) * groups if groups else 0, groups)
    said = [f"{len(rows):,} of {len(cases):,} cases match"]
    if len(rows):
        rate = f" = {share.value:.1%} (95% interval {share.low:.1%} to {share.high:.1%})"
        said.append(f"{melanomas:,} melanoma" + ("" if by_label else rate))
    for unit, count in counts.items():
        said.append(f"{unit}s not recorded" if count is None else f"{count:,} {unit}{'' if count == 1 else 's'}")
    return {
        "matches": len(rows),
        "melanomas": melanomas,
        "patients": counts["patient"],
        "lesions": counts["lesion"],
        "share": share,
        "text": " · ".join(said),
    }


def page_of(cases: pd.DataFrame, rows: NDArray[np.intp], page: int = 1, page_size: int = 24) -> dict[str, Any]:
    """One page of the matching cases, in words.

    Args:
        cases: case table.
        rows: positions from `filter_cases`.
        page: from 1; a number out of range gives the nearest page.
        page_size: cases on a page, at least 1.

    Returns:
        ``page``, ``pages`` (at least 1), ``rows`` on the page, and ``tiles``: for each of them its ``image_id``, whether it is
        ``melanoma``, and ``person``, ``site`` and ``diagnosis`` as text.
    """
    pages = max(1, math.ceil(len(rows) / page_size))
    page = min(max(page, 1), pages)
    shown = rows[(page - 1) * page_size : page * page_size]
    tiles = [
        {
            "image_id": case.image_id,
            "melanoma": bool(case.target),
            "person": _person(case.age_approx, case.sex),
            "site": _word(case.anatom_site_general_challenge, "site"),
            "diagnosis": case.diagnosis,
        }
        for case in cases.iloc[shown][list(CASE_COLUMNS)].itertuples()
    ]
    return {"page": page, "pages": pages, "rows": shown.tolist(), "tiles": tiles}


def _person(age: float, sex: Any) -> str:
    if pd.isna(age) and pd.isna(sex):
        return f"age and sex {MISSING}"
    return f"{_word(age, 'age', ' y')}, {_word(sex, 'sex')}"


def _word(value: Any, name: str, unit: str = "") -> str:
    return f"{name} {MISSING}" if pd.isna(value) else f"{value:g}{unit}" if isinstance(value, float) else str(value)


def facts_of(cases: pd.DataFrame, row: int) -> dict[str, str]:
    """Everything the table holds about one case, as text by column; files by name only."""
    case = cases.iloc[row]
    values = {name: Path(value).name if name in PATHS and pd.notna(value) else value for name, value in case.items()}
    return {str(name): _word(value, "").strip() for name, value in values.items()}


def choices_of(cases: pd.DataFrame) -> list[dict[str, Any]]:
    """What the page offers: each field in which cases differ, with its values and how many cases have each.

    Returns:
        For each field ``field`` and ``options``, a list of ``value`` and ``text``; for the age ``low``, ``high`` (years)
        and ``missing`` (cases) instead.
    """
    choices = []
    for name, column in FIELDS.items():
        values = cases.get(column, pd.Series(dtype=object))
        counts, missing = values.value_counts(), int(values.isna().sum())
        if len(counts) + bool(missing) < 2:
            continue  # nothing to choose
        if name == "age":
            choices.append({"field": name, "low": float(values.min()), "high": float(values.max()), "missing": missing})
            continue
        known = [value for value in VOCABULARY.get(name, counts.index) if value in counts.index]
        options = [(value, LABELS[value] if name == "target" else str(value), int(counts[value])) for value in known]
        options += [(MISSING, MISSING, missing)] if missing else []
        choices.append({"field": name, "options": [{"value": v, "text": f"{text} ({n:,})"} for v, text, n in options]})
    return choices


# --- pictures ----------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)  # a few kB each
def thumbnail(path: Path, side: int, changed: int = 0) -> bytes:
    """The image as JPEG, upright.

    Args:
        path: image file.
        side: pixels of the longer side.
        changed: the file's time of change, so that a picture kept is never that of an earlier file of the name.

    Raises:
        CorruptImageError: if the file cannot be decoded.
    """
    square = read_square(path, side)  # (side, side, 3): decoded as everywhere else in the kit, and fast
    with Image.open(path) as image:
        width, height = image.size
        if image.getexif().get(ExifTags.Base.Orientation, 1) > 4:  # stored lying down
            width, height = height, width
    scale = side / max(width, height)
    picture = Image.fromarray(square).resize((max(1, round(width * scale)), max(1, round(height * scale))))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _picture(path: str, side: int) -> dict[str, Any]:
    """JPEG bytes, or None and why there are none."""
    file = Path(path)
    if not file.is_file():
        return {"picture": None, "problem": ABSENT}
    try:
        return {"picture": thumbnail(file, side, file.stat().st_mtime_ns), "problem": ""}
    except CorruptImageError as error:
        return {"picture": None, "problem": f"cannot be read: {error}".replace(str(file), file.name)}


def _pictures(cases: pd.DataFrame, rows: Sequence[int], side: int) -> list[dict[str, Any]]:
    with ThreadPoolExecutor() as pool:  # decoding lets other threads run
        return list(pool.map(lambda path: _picture(path, side), cases["image_path"].iloc[rows]))


def note_files(cases: pd.DataFrame) -> pd.DataFrame:
    """The table with a column ``image_file``: ``downloaded`` or ``not downloaded``, for `filter_cases` to choose by ``image``."""
    present = cases["image_path"].map(os.path.isfile)  # several times faster than Path
    return cases.assign(image_file=np.where(present, "downloaded", "not downloaded"))


def contact_sheet(cases: pd.DataFrame, presets: Mapping[str, Mapping[str, Any]], columns: int = 6) -> DescribedFigure:
    """The first matching images of several filters, one row each, with their labels.

    Args:
        cases: case table.
        presets: filters as for `filter_cases`, by the name of the row.
        columns: images in a row.

    Raises:
        ValueError: as `filter_cases`, or if there is no preset.
    """
    if not presets:
        raise ValueError("presets: expected at least one, got none")
    cases = cases if "image_file" in cases.columns else note_files(cases)
    said = []
    width, height = 1.9 * columns + 0.1, 2.7 * len(presets)  # inches
    with kit_figure(width, height) as figure:
        figure.set_layout_engine("none")  # a sheet with fixed places, whatever the words beside them
        for strip, (name, filters) in enumerate(presets.items()):
            rows = filter_cases(cases, **filters)
            absent = cases["image_file"].iloc[rows] == "not downloaded"
            rows = rows[np.argsort(absent, kind="stable")]  # a row of placeholders shows nothing while there are images
            top = height - 2.7 * strip
            title = f"{name}: {len(rows):,} of {len(cases):,} cases" + ("" if len(rows) else ", no image to show")
            figure.text(0.1 / width, (top - 0.35) / height, title, fontsize=15)
            said.append(title)
            page = page_of(cases, rows, 1, columns)
            pictures = _pictures(cases, page["rows"], LARGE)
            for column, (tile, picture) in enumerate(zip(page["tiles"], pictures, strict=True)):
                place = (0.1 + 1.9 * column, top - 2.0, 1.75, 1.3)
                _draw_tile(figure, [part / side for part, side in zip(place, (width, height) * 2, strict=True)], tile, picture)
    return describe(figure, f"Contact sheet, up to {columns} images a row with label, age, sex and site. {'; '.join(said)}.")


def _draw_tile(figure: DescribedFigure, place: list[float], tile: dict[str, Any], picture: dict[str, Any]) -> None:
    left, bottom, width, height = place
    axes = figure.add_axes(place, xticks=[], yticks=[], facecolor="#F0F0F0")
    axes.spines[:].set_visible(False)
    if picture["picture"]:
        axes.imshow(Image.open(io.BytesIO(picture["picture"])))
    else:
        reason = textwrap.shorten(picture["problem"], 60, placeholder=" …")
        axes.text(0.5, 0.5, textwrap.fill(reason, 18), ha="center", va="center", color=GREY, fontsize=11)
    mark, color = ("▲", VERMILLION) if tile["melanoma"] else ("●", BLUE)
    label, facts = f"{mark} {LABELS[tile['melanoma']]}", f"{tile['person']}\n{tile['site']}"
    figure.text(left + width / 2, bottom + 1.03 * height, label, color=color, fontsize=12, ha="center", va="bottom")
    figure.text(left + width / 2, bottom - 0.03 * height, facts, fontsize=11, ha="center", va="top")


# --- the explorer ------------------------------------------------------------------------------------------------------------


class CaseExplorer(Explorer):
    """Filter a case table by metadata and look at the images that match, page by page.

    Args:
        cases: case table; images may be absent. With a ``split`` column that can be chosen too.
        thumbnail: pixels, longer side of the images on a page.
        page_size: images on a page.

    Attributes:
        filters: as for `filter_cases`, set by the page or by a cell.
        page: number of the page in view, from 1.
        selected: image_id of the case shown large, "" for none.

    Raises:
        DataError: if a column of the case table is missing or the table is empty.
    """

    _esm = script("cases.js")
    _css = Explorer._css + (HERE / "cases.css").read_text(encoding="utf-8")
    filters = traitlets.Dict().tag(sync=True)
    page = traitlets.Int(1).tag(sync=True)
    selected = traitlets.Unicode("").tag(sync=True)
    thumbnail = traitlets.Int(128).tag(sync=True)
    choices = traitlets.List().tag(sync=True)
    view = traitlets.Dict().tag(sync=True)
    detail = traitlets.Dict().tag(sync=True)

    def __init__(self, cases: pd.DataFrame, thumbnail: int = 128, page_size: int = 24) -> None:
        absent = [column for column in CASE_COLUMNS if column not in cases.columns]
        if absent or cases.empty:
            raise DataError(f"expected a case table with rows, got {len(cases)} rows and no column {absent}; see load_cases")
        if thumbnail < 1 or page_size < 1:
            raise ValueError(f"thumbnail and page_size must be at least 1, got {thumbnail} and {page_size}")
        self._cases = note_files(cases)
        self._page_size = page_size
        self._rows = filter_cases(self._cases)
        super().__init__(thumbnail=thumbnail, choices=choices_of(self._cases))
        self._turn()

    @traitlets.validate("page")
    def _clip(self, proposal: dict[str, Any]) -> int:
        return page_of(self._cases, self._rows, proposal["value"], self._page_size)["page"]

    @traitlets.observe("filters")
    @answering
    def _refilter(self, _: dict[str, Any]) -> None:
        self._rows = filter_cases(self._cases, **self.filters)
        if self.page == 1:
            self._turn()
        else:
            self.page = 1  # which turns to it

    @traitlets.observe("page")
    @answering
    def _turn(self, _: dict[str, Any] | None = None) -> None:
        state = page_of(self._cases, self._rows, self.page, self._page_size)
        pictures = _pictures(self._cases, state["rows"], self.thumbnail)
        self.view = {
            "text": summary_of(self._cases, self._rows, by_label=bool({"target", "diagnosis"} & self.filters.keys()))["text"],
            "page": state["page"],
            "pages": state["pages"],
            "tiles": [tile | picture for tile, picture in zip(state["tiles"], pictures, strict=True)],
            "wider": self._wider() if not state["tiles"] else [],
        }

    def _wider(self) -> list[list[Any]]:
        """Each filter without which some cases would match, with their number, most cases first."""
        others = {name: {key: value for key, value in self.filters.items() if key != name} for name in self.filters}
        counts = {name: len(filter_cases(self._cases, **rest)) for name, rest in others.items()}
        return sorted(([name, count] for name, count in counts.items() if count), key=lambda pair: -pair[1])

    @traitlets.observe("selected")
    @answering
    def _pick(self, _: dict[str, Any]) -> None:
        if not self.selected:
            self.detail = {}
            return
        hits = np.flatnonzero(self._cases["image_id"].isin([self.selected]))
        if not hits.size:
            example = self._cases["image_id"].iloc[0]
            raise ValueError(
                f"selected: no case has the image_id {self.selected!r}; expected one of the table's, such as {example!r}"
            )
        place = np.flatnonzero(self._rows == hits[0])
        if place.size:
            self.page = int(place[0]) // self._page_size + 1
        facts = facts_of(self._cases, hits[0])
        melanoma = bool(self._cases["target"].iloc[hits[0]])
        self.detail = {"image_id": self.selected, "melanoma": melanoma, "facts": facts} | _pictures(self._cases, hits, LARGE)[0]

    def presets_figure(self) -> DescribedFigure:
        """Melanomas, other lesions, and cases with something missing, a row each."""
        presets: dict[str, dict[str, Any]] = {"Melanoma": {"target": 1}, "Not melanoma": {"target": 0}}
        gaps = [name for name in ("age", "sex", "site") if self._cases[FIELDS[name]].isna().any()]
        presets |= {f"{name.capitalize()} missing": {name: MISSING} for name in gaps[:1]}
        return contact_sheet(self._cases, presets)
