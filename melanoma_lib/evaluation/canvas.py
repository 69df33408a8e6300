"""The kit's figures: Okabe-Ito colours, letters that carry to the last row, and a description in words.

A `DescribedFigure` says in ``figure.alt_text`` what it shows, with its numbers, and a notebook displays it with that
text as the alternative. Nothing touches pyplot's global state.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito 2008: told apart under every common colour blindness, and by lightness in grey.
BLUE, VERMILLION, GREEN, ORANGE, SKY, GREY, BLACK = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#56B4E9",
    "#767676",
    "#000000",
)
STYLE = {
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.titlelocation": "left",
    "axes.labelsize": 13,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "legend.fontsize": 12,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "lines.linewidth": 2.2,
    "figure.facecolor": "white",
}


class DescribedFigure(Figure):
    """A figure that says in words what it shows."""

    alt_text: str = ""

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, object], dict[str, object]]:
        """PNG and description for a notebook, which asks an object for this by name."""
        picture = io.BytesIO()
        self.savefig(picture, format="png", dpi=100)
        return (
            {"image/png": picture.getvalue(), "text/plain": self.alt_text},
            {"image/png": {"alt": self.alt_text}},
        )


def describe(figure: DescribedFigure, text: str) -> DescribedFigure:
    """Attach the description, as one paragraph, and return the figure."""
    figure.alt_text = " ".join(text.split())
    return figure


@contextmanager
def kit_figure(width: float = 6.4, height: float = 6.0) -> Iterator[DescribedFigure]:
    """A figure in the kit's style, inches; what is drawn inside the ``with`` block takes the style."""
    with matplotlib.rc_context(STYLE):
        figure = DescribedFigure(figsize=(width, height), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
        yield figure


def draw_table(axes: Axes, heads: Sequence[str], cells: Sequence[Sequence[str]], widths: Sequence[float] | None = None) -> None:
    """Fill an axes with a table of text: numbers to the right, names in the first column, a head of two lines."""
    axes.axis("off")
    place = {"loc": "center", "edges": "horizontal", "cellLoc": "right", "bbox": (0, 0, 1, 1)}
    box = axes.table(cells, colLabels=heads, colWidths=widths, **place)
    box.auto_set_font_size(False)
    box.set_fontsize(12)
    for (row, column), cell in box.get_celld().items():
        cell.set_edgecolor("#CFCFCF")
        if column == 0:
            cell.get_text().set_ha("left")
        if row == 0:
            cell.set_height(1.6 * cell.get_height())
