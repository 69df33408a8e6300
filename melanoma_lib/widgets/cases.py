"""Look at the cases: filter them by metadata, page through their images, pick one."""

import io
import textwrap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import traitlets
from PIL import Image, ImageOps

from melanoma_lib.data.images import read_upright
from melanoma_lib.data.schema import CASE_COLUMNS
from melanoma_lib.data.sources import on_disk
from melanoma_lib.errors import CorruptImageError, DataError
from melanoma_lib.plotting import DescribedFigure, kit_figure, panel, with_alt_text
from melanoma_lib.widgets.base import HERE, Explorer, answering, script
from melanoma_lib.widgets.case_selection import (
    LABELS,
    ORDERS,
    choices_of,
    facts_of,
    field_values,
    filter_cases,
    note_outcomes,
    page_of,
    summary_of,
    worst_first,
)

ABSENT = "image not downloaded"
LARGE, MOST_ALONE = 288, 200  # pixels, longer side of the selected image; cases that a page of its own holds


def picture_of(path: str | Path, side: int) -> dict[str, Any]:
    """The image upright as ``picture``, JPEG bytes with ``side`` pixels on the longer side, or None and the ``problem``."""
    file = Path(path)
    if not file.is_file():
        return {"picture": None, "problem": ABSENT}
    try:
        image = ImageOps.contain(read_upright(file, side), (side, side))
    except (CorruptImageError, ValueError) as error:  # the latter of a line of pixels, which has no smaller picture
        return {"picture": None, "problem": f"cannot be read: {error}".replace(str(file), file.name)}
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return {"picture": buffer.getvalue(), "problem": ""}


def _pictures(cases: pd.DataFrame, rows: Sequence[int], side: int) -> list[dict[str, Any]]:
    with ThreadPoolExecutor() as pool:  # decoding lets other threads run
        return list(pool.map(lambda path: picture_of(path, side), cases["image_path"].iloc[rows]))


class CaseExplorer(Explorer):
    """Filter a case table by metadata and answer, look at the images that match, page by page, and guess their labels.

    In a quiz, which the page keeps to itself, a label and all that tells it are hidden until the reader has guessed. A page of
    its own (:meth:`save_page`) holds the cases that match when it is written, the first 200 of them.

    Args:
        cases: case table; images may be absent. DataError if it is empty or lacks a column.
        page_size: images on a page.
        threshold: of a table with ``probability``, where a probability equal to it is flagged: false negatives and false
            positives can then be chosen, and the worst errors put first.

    Attributes:
        filters: as for `filter_cases`, set by the page or by a cell.
        order: ``table``, or with a threshold ``worst``: as `worst_first`.
        page: number of the page in view, from 1.
        selected: image_id of the case shown large, "" for none.
    """

    _esm = script("cases.js")
    _css = Explorer._css + (HERE / "cases.css").read_text(encoding="utf-8")
    alone = traitlets.Dict(default_value=None, allow_none=True).tag(sync=True)
    filters = traitlets.Dict().tag(sync=True)
    order = traitlets.Enum(list(ORDERS), "table").tag(sync=True)
    orders = traitlets.Dict().tag(sync=True)
    page = traitlets.Int(1).tag(sync=True)
    selected = traitlets.Unicode("").tag(sync=True)
    thumbnail = traitlets.Int(128, min=1).tag(sync=True)
    choices = traitlets.List().tag(sync=True)
    view = traitlets.Dict().tag(sync=True)
    detail = traitlets.Dict().tag(sync=True)
    page_size = traitlets.Int(24, min=1).tag(sync=True)

    def __init__(self, cases: pd.DataFrame, page_size: int = 24, threshold: float | None = None) -> None:
        absent = [column for column in CASE_COLUMNS if column not in cases.columns]
        if absent or cases.empty:
            raise DataError(f"expected a case table with rows, got {len(cases)} rows and no column {absent}; see load_cases")
        cases = cases.assign(image_file=np.where(on_disk(cases["image_path"]), "downloaded", "not downloaded"))
        self._cases = cases if threshold is None else note_outcomes(cases, threshold)
        self._rows = filter_cases(self._cases)
        orders = {} if threshold is None else ORDERS
        super().__init__(page_size=page_size, choices=choices_of(self._cases), orders=orders)
        self._turn()

    @traitlets.validate("page")
    def _clip(self, proposal: dict[str, Any]) -> int:
        return page_of(self._cases, self._rows, proposal["value"], self.page_size)["page"]

    @traitlets.observe("filters", "order")
    @answering
    def _refilter(self, _: dict[str, Any]) -> None:
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
        pictures = _pictures(self._cases, state.pop("rows"), self.thumbnail)
        by_label = bool({"target", "diagnosis", "outcome"} & self.filters.keys())
        tiles = [tile | picture for tile, picture in zip(state["tiles"], pictures, strict=True)]
        self.view = state | {"text": summary_of(self._cases, self._rows, by_label), "tiles": tiles}

    @traitlets.observe("selected")
    @answering
    def _pick(self, _: dict[str, Any]) -> None:
        if not self.selected:
            self.detail = {}
            return
        hits = np.flatnonzero(self._cases["image_id"].isin([self.selected]))
        if not hits.size:
            raise ValueError(f"selected: expected the image_id of a case of the table, got {self.selected!r}")
        place = np.flatnonzero(self._rows == hits[0])
        if place.size:
            self.page = int(place[0]) // self.page_size + 1
        tile = page_of(self._cases, hits)["tiles"][0]
        self.detail = tile | {"facts": facts_of(self._cases, hits[0])} | _pictures(self._cases, hits, LARGE)[0]

    def page_values(self) -> dict[str, Any]:
        """The cases that match, at most ``MOST_ALONE``, with all that a page of its own needs to filter, sort and show them."""
        rows = self._rows[:MOST_ALONE]
        part, worst = self._cases.iloc[rows], np.arange(len(rows))
        if self.orders:
            worst[worst_first(part, worst.copy())] = np.arange(len(rows))
        fields = pd.DataFrame({one["field"]: field_values(part, one["field"]) for one in self.choices}, dtype=object)
        values = fields.where(fields.notna(), None)
        tiles = page_of(self._cases, rows, page_size=MOST_ALONE)["tiles"]
        known = zip(tiles, _pictures(self._cases, rows, LARGE), values.to_dict("records"), worst.tolist(), rows, strict=True)
        held = [
            tile | picture | {"values": own, "worst": rank, "facts": facts_of(self._cases, row)}
            for tile, picture, own, rank, row in known
        ]
        start = {"filters": {}, "order": "table", "page": 1, "selected": "", "detail": {}, "view": {}}
        return super().page_values() | start | {"held": held, "choices": choices_of(part)}

    def presets_figure(self) -> DescribedFigure:
        """Six melanomas and six other lesions among the cases that match, with a threshold the worst errors."""
        rows = worst_first(self._cases, self._rows) if self.orders else self._rows
        part = self._cases.iloc[rows]
        # by class, and images that are there first: a row of placeholders shows nothing
        order = part.reset_index(drop=True).sort_values(["target", "image_file"], ascending=[False, True], kind="stable")
        rows = rows[order.groupby("target").head(6).index]
        tiles, pictures = page_of(self._cases, rows, 1, 12)["tiles"], _pictures(self._cases, rows, LARGE)
        with kit_figure(11.4, 5.4) as figure:
            grid = figure.subplots(2, 6).ravel()
            for axes in grid:
                axes.axis("off")
            for axes, tile, picture in zip(grid, tiles, pictures, strict=False):
                jpeg, problem = picture["picture"], textwrap.shorten(picture["problem"], 60)
                pixels = np.asarray(Image.open(io.BytesIO(jpeg))) if jpeg else np.full((3, 4, 3), 240, np.uint8)
                panel(axes, pixels, f"{LABELS[tile['melanoma']]}\n{tile['person']}\n{tile['site']}")
                axes.text(0.5, 0.5, textwrap.fill(problem, 18), ha="center", va="center")
        melanomas = sum(tile["melanoma"] for tile in tiles)
        said = f"{melanomas} melanomas and {len(tiles) - melanomas} other lesions with age, sex and site"
        return with_alt_text(figure, f"{said}. {self.view['text']}.")
