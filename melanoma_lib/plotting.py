"""Figures with alternative text: those that a notebook draws itself, and those that the library returns.

A notebook calls ``use_theme()`` once and ends each figure of pyplot, pandas or seaborn with ``describe(ax, "...")``. The
library's own figures are a `DescribedFigure` in the kit's style and never touch pyplot's global state.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike

# Okabe and Ito 2008: told apart under every common colour blindness, and by lightness in grey.
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
ORANGE, GREY = "#E69F00", "#767676"
STYLE = {
    **dict.fromkeys(("font.size", "axes.labelsize"), 13),
    "axes.titlesize": 14,
    "axes.titlelocation": "left",
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 12),
    **dict.fromkeys(("legend.frameon", "axes.spines.top", "axes.spines.right"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    "grid.color": "#E4E4E4",
    "lines.linewidth": 2.2,
    "figure.facecolor": "white",
}


class DescribedFigure(Figure):
    """A figure that says in words what it shows."""

    alt_text: str = ""

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, object], dict[str, object]]:
        """PNG and description for a notebook, which asks an object for this by name."""
        return _described(self, self.alt_text, dpi=100)


def _described(figure: Figure, text: str, **options: Any) -> tuple[dict[str, object], dict[str, object]]:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", **options)
    return {"image/png": picture.getvalue(), "text/plain": text}, {"image/png": {"alt": text}}


def use_theme() -> None:
    """The look of the lessons' figures: seaborn's ``whitegrid``, colours that colour-blind readers tell apart, 8 x 4.5 inches."""
    import seaborn as sns

    sns.set_theme(style="whitegrid", palette="colorblind", rc={"figure.figsize": (8, 4.5), "axes.grid": True})


def describe(plot: Any, text: str) -> None:
    """Show a figure, or that of an axes or a grid of seaborn, once, with its alternative text, and close it.

    ``text`` says in one sentence what the figure shows: a screen reader reads it in place of the picture.
    """
    import matplotlib.pyplot as plt
    from IPython.display import display

    text = " ".join(text.split())
    if not text:
        raise ValueError("expected a sentence that says what the figure shows, got an empty text")
    data, metadata = _described(plot.figure, text, dpi=80, bbox_inches="tight")
    plt.close(plot.figure)
    display(data, raw=True, metadata=metadata)


def panel(
    axes: Axes, photograph: ArrayLike, title: str = "", heatmap: np.ndarray | None = None, mask: np.ndarray | None = None
) -> None:
    """Draw a photograph without ticks, with a heatmap over it, the outline of a lesion, or both.

    Args:
        axes: where to draw.
        title: above it.
        photograph: shape ``(H, W, 3)``, uint8 or from 0 to 1, or such an image of Pillow.
        heatmap: shape ``(h, w)``, from 0 to 1, finite, or ValueError; stretched, in inferno, the less transparent the higher.
        mask: lesion pixels, shape ``(h, w)``; its outline is drawn.
    """
    photograph = np.asarray(photograph)
    axes.imshow(photograph, extent=(0, 1, 1, 0), aspect=photograph.shape[0] / photograph.shape[1])
    if heatmap is not None:
        heatmap = np.asarray(heatmap, dtype=float)
        if heatmap.ndim != 2 or not np.isfinite(heatmap).all():
            raise ValueError(f"heatmap: expected finite values of shape (h, w), got shape {heatmap.shape}")
        alpha = np.clip(0.1 + 0.6 * heatmap, 0, 1)
        axes.imshow(heatmap, cmap="inferno", alpha=alpha, clim=(0, 1), extent=(0, 1, 1, 0), aspect=axes.get_aspect())
    if mask is not None and np.any(mask):
        outline = axes.contour(np.asarray(mask, dtype=float), [0.5], colors="white", linewidths=1.2, extent=(0, 1, 0, 1))
        outline.set_path_effects([withStroke(linewidth=2.6, foreground="black")])  # white alone is lost on pale skin
    axes.set_title(title, fontsize=10)
    axes.axis("off")


def with_alt_text(figure: DescribedFigure, text: str) -> DescribedFigure:
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
