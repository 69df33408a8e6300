"""Move alpha and gamma and see what focal loss pays, how it pulls, and what its output means."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from melanoma_lib.losses import FocalLoss
from melanoma_lib.plotting import BLUE, GREY, ORANGE, VERMILLION, DescribedFigure, kit_figure, with_alt_text
from melanoma_lib.widgets.base import HERE, Explorer, Number, script

OUTPUTS = np.linspace(0.005, 0.995, 199)  # at which the picture of presets draws its curves
PRESETS = {  # alpha, gamma
    "cross-entropy": (None, 0.0),
    "focal, γ 2": (None, 2.0),
    "focal, γ 2, α 0.25": (0.25, 2.0),
    "focal, γ 2, α 0.9": (0.9, 2.0),
}


def focal_numbers(alpha: float | None, gamma: float, logits: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """Losses, derivatives in the logit (``slope``) and true risk by the library's own loss, of logits, shape ``(N,)``."""
    loss, numbers = FocalLoss(alpha, gamma, "none"), {}
    for name, target in (("melanoma", 1.0), ("other", 0.0)):
        z = torch.tensor(np.asarray(logits, dtype=np.float64), requires_grad=True)
        values = loss(z, torch.full_like(z, target))
        values.sum().backward()
        numbers |= {f"{name}_loss": values.detach().numpy(), f"{name}_slope": z.grad.numpy()}
    outputs = torch.sigmoid(torch.tensor(np.asarray(logits, dtype=np.float64))).numpy()
    return numbers | {"risk": loss.true_risk(outputs)}


class FocalLossExplorer(Explorer):
    """Sliders for alpha, gamma and one output; loss, gradient and decoder are computed and drawn in the page, without a kernel.

    ``alpha``, in (0, 1) or None, ``gamma``, from 0 to 10, and ``output``, the p looked at, in (0, 1), are traits that follow
    the page and that the page follows; TraitError if one is out of range.
    """

    _esm = script("plot.js", "focal_numbers.js", "focal.js")
    _css = Explorer._css + (HERE / "focal.css").read_text(encoding="utf-8")
    alpha = Number(0.25, allow_none=True, min=1e-6, max=1 - 1e-6).tag(sync=True)
    gamma = Number(2.0, min=0.0, max=10.0).tag(sync=True)
    output = Number(0.5, min=1e-6, max=1 - 1e-6).tag(sync=True)

    def presets_figure(self) -> DescribedFigure:
        """Four losses: loss, gradient in the logit and true risk against the output."""
        logits, at_half = np.log(OUTPUTS / (1 - OUTPUTS)), []
        with kit_figure(12, 4.6) as figure:
            loss, slope, decoder = panels = figure.subplots(1, 3)
            for (name, (alpha, gamma)), colour in zip(PRESETS.items(), (GREY, BLUE, VERMILLION, ORANGE), strict=True):
                numbers = focal_numbers(alpha, gamma, logits)
                for kind, style in (("melanoma", "-"), ("other", ":")):
                    loss.plot(OUTPUTS, numbers[f"{kind}_loss"], style, color=colour)
                    slope.plot(OUTPUTS, numbers[f"{kind}_slope"], style, color=colour)
                decoder.plot(OUTPUTS, numbers["risk"], color=colour, label=name)
                half = {key: array[len(OUTPUTS) // 2] for key, array in numbers.items()}
                at_half.append(
                    "{}: loss of a melanoma {melanoma_loss:.3f}, of another lesion {other_loss:.3f}, risk {risk:.2f}"
                    .format(name, **half)
                )  # fmt: skip
            heads = ("loss (dotted: another lesion)", "gradient in the logit", "true risk")
            for axes, head, limits in zip(panels, heads, ((0, 3), (-1.5, 1.5), (0, 1)), strict=True):
                axes.set(title=head, xlabel="output p", xlim=(0, 1), ylim=limits)
            figure.legend(loc="outside lower center", ncols=4)
        return with_alt_text(
            figure,
            "Four losses: loss, gradient in the logit and true risk against the output; at an output of 0.5: "
            + "; ".join(at_half) + ".",
        )  # fmt: skip
