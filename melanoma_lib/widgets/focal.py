"""Move alpha and gamma and see what focal loss pays, how it pulls, and what its output means."""

from typing import Any

import numpy as np
import traitlets
from numpy.typing import ArrayLike, NDArray

from melanoma_lib.errors import SettingsError
from melanoma_lib.plotting import BLUE, GREY, ORANGE, VERMILLION, DescribedFigure, kit_figure, with_alt_text
from melanoma_lib.widgets.base import HERE, Explorer, script

OUTPUTS = np.linspace(0.005, 0.995, 199)  # at which the picture of presets draws its curves
PRESETS = {  # alpha, gamma
    "cross-entropy": (None, 0.0),
    "focal, γ 2": (None, 2.0),
    "focal, γ 2, α 0.25": (0.25, 2.0),
    "focal, γ 2, α 0.9": (0.9, 2.0),
}


def focal_numbers(alpha: float | None, gamma: float, logits: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """What the page computes at an output, by the library's own loss.

    Args:
        alpha: weight of the positives, in (0, 1), or None.
        gamma: exponent, at least 0.
        logits: shape ``(N,)``, finite.

    Returns:
        Shape ``(N,)`` each: ``melanoma_loss`` and ``other_loss``; their derivatives in the logit, ``melanoma_slope`` and
        ``other_slope``; ``risk``, the true risk that the output stands for.

    Raises:
        ValueError: if alpha or gamma is out of range.
    """
    import torch

    from melanoma_lib.losses import FocalLoss

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

    All three values are traits that follow the page and that the page follows.

    Attributes:
        alpha: focal weight of the positives, in (0, 1), or None.
        gamma: focal exponent, from 0 to 10.
        output: the output p looked at, in (0, 1).

    Raises:
        SettingsError: if a value is out of range.

    Example:
        >>> explorer = FocalLossExplorer()
        >>> explorer.alpha, explorer.gamma, explorer.output
        (0.25, 2.0, 0.5)
    """

    _esm = script("plot.js", "focal_numbers.js", "focal.js")
    _css = Explorer._css + (HERE / "focal.css").read_text(encoding="utf-8")
    alpha = traitlets.Float(0.25, allow_none=True).tag(sync=True)
    gamma = traitlets.Float(2.0).tag(sync=True)
    output = traitlets.Float(0.5).tag(sync=True)

    @traitlets.validate("alpha", "gamma", "output")
    def _in_range(self, proposal: dict[str, Any]) -> float | None:
        name, value = proposal["trait"].name, proposal["value"]
        fine = {
            "alpha": value is None or 0 < value < 1,
            "gamma": value is not None and 0 <= value <= 10,
            "output": value is not None and 0 < value < 1,
        }
        if not fine[name]:
            raise SettingsError(
                f"{name}={value!r} is out of range; expected alpha none or in (0, 1), gamma in [0, 10], output in (0, 1)"
            )
        return value

    def presets_figure(self) -> DescribedFigure:
        """Four losses side by side: loss, gradient in the logit and true risk against the output."""
        logits = np.log(OUTPUTS / (1 - OUTPUTS))
        plain, at_half = focal_numbers(None, 0.0, logits), []
        with kit_figure(12, 7.45) as figure:
            panels = figure.subplots(3, len(PRESETS), sharey="row", sharex=True)
            for (name, (alpha, gamma)), (loss, slope, decoder) in zip(PRESETS.items(), panels.T, strict=True):
                numbers = focal_numbers(alpha, gamma, logits)
                for kind, colour in (("melanoma", VERMILLION), ("other", BLUE)):
                    for axes, what in ((loss, "loss"), (slope, "slope")):
                        axes.plot(OUTPUTS, plain[f"{kind}_{what}"], "--", color=colour, linewidth=1, alpha=0.7)
                        axes.plot(OUTPUTS, numbers[f"{kind}_{what}"], color=colour)
                decoder.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1)
                decoder.plot(OUTPUTS, numbers["risk"], color=ORANGE)
                half = {key: float(array[len(OUTPUTS) // 2]) for key, array in numbers.items()}
                decoder.plot(0.5, half["risk"], "o", color="black", fillstyle="none", markersize=9)
                loss.set(title=name, ylim=(0, 3), xlim=(0, 1))
                slope.set(ylim=(-1.5, 1.5))
                decoder.set(ylim=(0, 1), title=f"0.5 means {half['risk']:.0%}", xlabel="output p")
                at_half.append(
                    "{}: loss of a melanoma {melanoma_loss:.3f}, of another lesion {other_loss:.3f}, risk {risk:.2f}"
                    .format(name, **half)
                )  # fmt: skip
            for axes, words in zip(panels[:, 0], ("loss", "gradient", "true risk"), strict=True):
                axes.set_ylabel(words)
            panels[0, 0].plot([], [], color=VERMILLION, label="melanoma")
            panels[0, 0].plot([], [], color=BLUE, label="other lesion")
            panels[0, 0].plot([], [], "--", color=GREY, linewidth=1, label="cross-entropy")
            panels[0, 0].legend(loc="upper center", fontsize=10.5, handlelength=1.3, borderaxespad=0.1)
        return with_alt_text(
            figure,
            "Four losses: loss, gradient in the logit and true risk against the output, cross-entropy dashed; "
            "at an output of 0.5: " + "; ".join(at_half) + ".",
        )  # fmt: skip
