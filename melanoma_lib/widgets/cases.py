"""Look at the cases: filter them by metadata, page through their images, pick one."""

import io
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
from PIL import ExifTags, Image

from melanoma_lib.data.images import read_square
from melanoma_lib.data.schema import CASE_COLUMNS
from melanoma_lib.errors import CorruptImageError, DataError
from melanoma_lib.plotting import DescribedFigure, kit_figure, panel, with_alt_text
from melanoma_lib.widgets.base import HERE, Explorer, answering, script
from melanoma_lib.widgets.case_selection import (
    FIELDS,
    LABELS,
    MISSING,
    ORDERS,
    OUTCOMES,
    choices_of,
    facts_of,
    filter_cases,
    note_outcomes,
    page_of,
    summary_of,
    worst_first,
)

ABSENT = "image not downloaded"
LARGE = 288  # pixels, longer side of the selected image
MOST_ALONE = 200  # cases that a page of its own holds, with their images: a few MB


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
        cases: case table, from `note_files`.
        presets: filters as for `filter_cases`, by the name of the row.
        columns: images in a row.
    """
    said = []
    with kit_figure(1.9 * columns, 2.9 * len(presets)) as figure:
        for strip, (name, filters) in zip(figure.subfigures(len(presets), 1, squeeze=False)[:, 0], presets.items(), strict=True):
            rows = filter_cases(cases, **filters)
            rows = worst_first(cases, rows) if "outcome" in filters else rows
            absent = cases["image_file"].iloc[rows] == "not downloaded"
            rows = rows[np.argsort(absent, kind="stable")]  # a row of placeholders shows nothing while there are images
            said.append(f"{name}: {len(rows):,} of {len(cases):,} cases")
            strip.suptitle(said[-1], fontsize=14, x=0.01, ha="left")
            shown, grid = page_of(cases, rows, 1, columns), strip.subplots(1, columns)
            for axes in grid:
                axes.axis("off")
            pictures = _pictures(cases, shown["rows"], LARGE)
            for axes, tile, picture in zip(grid, shown["tiles"], pictures, strict=False):
                mark = "▲" if tile["melanoma"] else "●"
                told = f"{mark} {LABELS[tile['melanoma']]}\n{tile['person']}\n{tile['site']}"
                jpeg, problem = picture["picture"], textwrap.shorten(picture["problem"], 60)
                pixels = np.asarray(Image.open(io.BytesIO(jpeg))) if jpeg else np.full((3, 4, 3), 240, np.uint8)
                panel(axes, pixels, told)
                axes.set_aspect(pixels.shape[0] / pixels.shape[1])
                axes.text(0.5, 0.5, textwrap.fill(problem, 18), ha="center", va="center")
    return with_alt_text(figure, f"Contact sheet, up to {columns} images a row with label, age, sex and site. {'; '.join(said)}.")


# --- the explorer ------------------------------------------------------------------------------------------------------------


class CaseExplorer(Explorer):
    """Filter a case table by metadata and answer, look at the images that match, page by page, and guess their labels.

    In a quiz, which the page keeps to itself, a label and all that tells it are hidden until the reader has guessed. A page of
    its own (:meth:`save_page`) holds the cases that match when it is written, the first 200 of them.

    Args:
        cases: case table; images may be absent. With a ``split`` column that can be chosen too.
        thumbnail: pixels, longer side of the images on a page.
        page_size: images on a page.
        threshold: of a table with ``probability``, where a probability equal to it is flagged: false negatives and false
            positives can then be chosen, and the worst errors put first.

    Attributes:
        filters: as for `filter_cases`, set by the page or by a cell.
        order: ``table``, or with a threshold ``worst``: as `worst_first`.
        page: number of the page in view, from 1.
        selected: image_id of the case shown large, "" for none.

    Raises:
        DataError: if a column of the case table is missing or the table is empty.
    """

    _esm = script("cases.js")
    _css = Explorer._css + (HERE / "cases.css").read_text(encoding="utf-8")
    alone = traitlets.Dict(default_value=None, allow_none=True).tag(sync=True)
    filters = traitlets.Dict().tag(sync=True)
    order = traitlets.Enum(list(ORDERS), "table").tag(sync=True)
    orders = traitlets.Dict().tag(sync=True)
    page = traitlets.Int(1).tag(sync=True)
    selected = traitlets.Unicode("").tag(sync=True)
    thumbnail = traitlets.Int(128).tag(sync=True)
    choices = traitlets.List().tag(sync=True)
    view = traitlets.Dict().tag(sync=True)
    detail = traitlets.Dict().tag(sync=True)

    page_size = traitlets.Int(24).tag(sync=True)

    def __init__(self, cases: pd.DataFrame, thumbnail: int = 128, page_size: int = 24, threshold: float | None = None) -> None:
        absent = [column for column in CASE_COLUMNS if column not in cases.columns]
        if absent or cases.empty:
            raise DataError(f"expected a case table with rows, got {len(cases)} rows and no column {absent}; see load_cases")
        if thumbnail < 1 or page_size < 1:
            raise ValueError(f"thumbnail and page_size must be at least 1, got {thumbnail} and {page_size}")
        self._cases = note_files(cases if threshold is None else note_outcomes(cases, threshold))
        self._rows = filter_cases(self._cases)
        orders = {} if threshold is None else ORDERS
        super().__init__(thumbnail=thumbnail, page_size=page_size, choices=choices_of(self._cases), orders=orders)
        self._turn()

    @traitlets.validate("page")
    def _clip(self, proposal: dict[str, Any]) -> int:
        return page_of(self._cases, self._rows, proposal["value"], self.page_size)["page"]

    @traitlets.observe("filters", "order")
    @answering
    def _refilter(self, _: dict[str, Any]) -> None:
        if self.order != "table" and not self.orders:
            raise ValueError(f"order {self.order!r} needs the answers: give the table's probabilities and a threshold")
        rows = filter_cases(self._cases, **self.filters)
        self._rows = rows if self.order == "table" else worst_first(self._cases, rows)
        if self.page == 1:
            self._turn()
        else:
            self.page = 1  # which turns to it

    @traitlets.observe("page")
    @answering
    def _turn(self, _: dict[str, Any] | None = None) -> None:
        state = page_of(self._cases, self._rows, self.page, self.page_size)
        pictures = _pictures(self._cases, state["rows"], self.thumbnail)
        by_label = bool({"target", "diagnosis", "outcome"} & self.filters.keys())
        self.view = {
            "text": summary_of(self._cases, self._rows, by_label)["text"],
            "page": state["page"],
            "pages": state["pages"],
            "tiles": [tile | picture for tile, picture in zip(state["tiles"], pictures, strict=True)],
        }

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
            self.page = int(place[0]) // self.page_size + 1
        tile = page_of(self._cases, hits)["tiles"][0]
        self.detail = tile | {"facts": facts_of(self._cases, hits[0])} | _pictures(self._cases, hits, LARGE)[0]

    def alone_values(self) -> dict[str, Any]:
        """The cases that match, at most ``MOST_ALONE``, with all that the page needs to filter, sort and show them."""
        rows = self._rows[:MOST_ALONE]
        part, worst = self._cases.iloc[rows], np.arange(len(rows))
        if self.orders:
            worst[worst_first(part, worst.copy())] = np.arange(len(rows))
        fields = part[[FIELDS[choice["field"]] for choice in self.choices]].astype(object)
        values = fields.where(fields.notna(), None).set_axis([choice["field"] for choice in self.choices], axis=1)
        tiles = page_of(self._cases, rows, page_size=MOST_ALONE)["tiles"]
        known = zip(tiles, _pictures(self._cases, rows, LARGE), values.to_dict("records"), worst.tolist(), rows, strict=True)
        held = [
            tile | picture | {"values": own, "worst": rank, "facts": facts_of(self._cases, row)}
            for tile, picture, own, rank, row in known
        ]
        start = {"filters": {}, "order": "table", "page": 1, "selected": "", "detail": {}, "view": {}}
        return start | {"held": held, "choices": choices_of(part)}

    def presets_figure(self) -> DescribedFigure:
        """With answers the worst errors; melanomas, other lesions, and cases with something missing; a row each."""
        presets: dict[str, dict[str, Any]] = {"Melanoma": {"target": 1}, "Not melanoma": {"target": 0}}
        gaps = [name for name in ("age", "sex", "site") if self._cases[FIELDS[name]].isna().any()]
        presets |= {f"{name.capitalize()} missing": {name: MISSING} for name in gaps[:1]}
        if self.orders:
            presets = {f"{name.capitalize()}s, worst first": {"outcome": name} for name in OUTCOMES[:2]} | presets
        return contact_sheet(self._cases, presets)
