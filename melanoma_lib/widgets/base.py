"""What all explorers share: a frame, errors that are seen, a labelled picture where nothing can move, a page of their own."""

import base64
import functools
import html
import json
import math
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any

import anywidget
import traitlets

from melanoma_lib.plotting import DescribedFigure
from melanoma_lib.utils import write_text

HERE = Path(__file__).parent


def script(*names: str) -> str:
    """The shared helpers followed by an explorer's own scripts, as the single module that a page loads."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in ("common.js", *names))


class Number(traitlets.Float):
    """A number in its range; NaN, which compares with no limit, is in none."""

    def validate(self, explorer: Any, value: Any) -> float | None:
        """The value, or a TraitError."""
        value = super().validate(explorer, value)
        if value is not None and not math.isfinite(value):
            self.error(explorer, value)
        return value


class Explorer(anywidget.AnyWidget):
    """An explorer that a live notebook moves and a static page shows as a labelled picture of presets.

    A subclass sets ``_esm = script("name.js")``, answers the page in methods marked :func:`answering`, and draws
    :meth:`presets_figure` through the very functions that answer, so that a callback that fails also fails without a page.

    Attributes:
        problem: what the last answer failed with, shown in the page; empty after one that went well.
        alone: what to put in place of its values in a page without a kernel, where handouts keep it moving; None if its answers
            are computed in Python.
    """

    _css = (HERE / "common.css").read_text(encoding="utf-8")
    problem = traitlets.Unicode("").tag(sync=True)
    alone = traitlets.Dict(default_value={}, allow_none=True).tag(sync=True)

    def presets_figure(self) -> DescribedFigure:
        """A labelled picture of a few settings, for pages without a kernel: PDF, HTML report, repository view."""
        raise NotImplementedError

    def page_values(self) -> dict[str, Any]:
        """Value by name of everything the page's script reads."""
        own = {"alone", *anywidget.AnyWidget.class_trait_names(sync=True)}  # and Jupyter's: layout, comm, tooltip, …
        names = [name for name in self.trait_names(sync=True) if name not in own and not name.startswith("_")]
        return {name: getattr(self, name) for name in names}

    def save_page(self, path: str | Path, title: str) -> Path:
        """Write the explorer, as it stands, to one HTML file that moves without a kernel and without a network."""
        path = Path(path)
        explorer = embedded(self._esm, self.page_values(), "explorer", follow_theme=True)
        page = Template((HERE / "page.html").read_text(encoding="utf-8"))
        write_text(path, page.substitute(title=html.escape(title), style=self._css, explorer=explorer))
        return path

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live view for a notebook; picture and description for everything else."""
        data, metadata = super()._repr_mimebundle_(**options)
        picture, description = self.presets_figure()._repr_mimebundle_()
        return data | picture, metadata | description


def embedded(esm: str, values: dict[str, Any], name: str, follow_theme: bool = False) -> str:
    """HTML in which an explorer moves without a kernel; its style is left to the page.

    ``values`` are what the script ``esm`` reads, bytes allowed, or as base64 in ``{"bytes": …}``; ``name`` is the id of its
    element, unique in the page; ``follow_theme`` turns the page dark where the browser is.
    """
    # Within a script element "<" could end it; in JSON it stands in strings only, where it may be escaped.
    data = json.dumps(values, default=_bytes, allow_nan=False).replace("<", "\\u003c")
    start = f'mount("{name}", "{name}-values");' + " followTheme();" * follow_theme
    code = "\n".join([esm, (HERE / "page.js").read_text(encoding="utf-8"), start])
    return (
        f'<div id="{name}"></div>\n<script id="{name}-values" type="application/json">{data}</script>\n'
        f'<script type="module">\n{code}\n</script>'
    )


def _bytes(value: Any) -> dict[str, str]:
    if isinstance(value, bytes | memoryview):
        return {"bytes": base64.b64encode(value).decode("ascii")}
    raise TypeError(f"expected a value that a page can hold, got {type(value).__name__}")


def answering(method: Callable) -> Callable:
    """Show in the page what a callback failed with, which Jupyter would only write to the kernel's log; it is raised on."""

    @functools.wraps(method)
    def answer(self: Explorer, *arguments: Any) -> Any:
        try:
            result = method(self, *arguments)
        except Exception as error:
            self.problem = f"{type(error).__name__}: {error}"
            raise
        self.problem = ""
        return result

    return answer
