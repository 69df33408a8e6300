"""What all explorers share: the page's frame, errors that are seen, and a labelled picture where nothing can move."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from melanoma_lib.evaluation.canvas import DescribedFigure

HERE = Path(__file__).parent
SHARED_SCRIPT = HERE / "common.js"
SHARED_STYLE = HERE / "common.css"


def script(name: str) -> str:
    """The shared helpers followed by one explorer's own script, as the single module that a page loads."""
    return f"{SHARED_SCRIPT.read_text(encoding='utf-8')}\n{(HERE / name).read_text(encoding='utf-8')}"


class Explorer(anywidget.AnyWidget):
    """An explorer that a live notebook moves and a static page shows as a labelled picture of presets.

    A subclass sets ``_esm = script("name.js")``, answers the page in methods marked :func:`answering`, and draws
    :meth:`presets_figure` through the very functions that answer, so that a callback that fails also fails without a page.

    Attributes:
        problem: what the last answer failed with, shown in the page; empty after one that went well.
    """

    _css = SHARED_STYLE.read_text(encoding="utf-8")
    problem = traitlets.Unicode("").tag(sync=True)

    def presets_figure(self) -> DescribedFigure:
        """A labelled picture of a few settings, for pages without a kernel: PDF, HTML report, repository view."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live view for a notebook; picture and description for everything else."""
        data, metadata = super()._repr_mimebundle_(**options)
        picture, description = self.presets_figure()._repr_mimebundle_()
        return data | picture, metadata | description


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
