"""Answers as the page shows them: escaped HTML with the numbers said in words."""

import base64
import io
from html import escape

import numpy as np
from PIL import Image

from melanoma_lib.app.answers import Answer, Case
from melanoma_lib.app.service import Heatmap, enlarged
from melanoma_lib.explain.figures import SIGNED

BANNER = (
    '<div class="ml-banner" role="note"><strong>Educational, not for diagnosis.</strong> '
    "<span>No decision about a person may rest on this page. Show a lesion that worries you to a doctor.</span></div>"
)
EMPTY = (
    '<div class="ml-card ml-empty"><p class="ml-big">No image yet</p>'
    "<p>Choose one on the left, or try an example. It stays on this computer, in memory, and is forgotten afterwards.</p></div>"
)
RAISES, LOWERS = "raises the risk", "lowers it"
METHOD_NAMES = {
    "gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++", "layercam": "LayerCAM", "xgradcam": "XGrad-CAM", "hirescam": "HiResCAM",
    "eigencam": "EigenCAM", "eigengradcam": "EigenGradCAM",
}  # fmt: skip
METHOD_NOTES = {
    "gradcam": "Each channel counts by its mean gradient.",
    "gradcam++": "Each channel counts by its positive gradients alone; blue is no evidence against melanoma.",
    "layercam": "Each point counts by its own positive gradient; blue is no evidence against melanoma.",
    "xgradcam": "Each channel counts by its gradients, averaged in proportion to its activations.",
    "hirescam": "Each point counts by its own gradient.",
    "eigencam": (
        "Uses no gradient and ignores the class: melanoma and benign get the same map. Its colours only mean “responds more, or "
        "less, than elsewhere”."
    ),
    "eigengradcam": "The direction in which gradient times activation differs most; turned so that vermillion raises the risk.",
}


def percent(share: float) -> str:
    """A share for people: whole percents, one decimal below ten, never a rounded 0% or 100%."""
    if share < 0.001:
        return "<0.1%"
    if share > 0.99:
        return ">99%"
    return f"{share:.1%}" if share < 0.0995 else f"{share:.0%}"


def verdict_html(answer: Answer, prevalence: float) -> str:
    """Warnings, risk and decision.

    Args:
        answer: of the service.
        prevalence: share of melanomas among the lesions that the user has in mind, in (0, 1).
    """
    return f'<div class="ml-card ml-answer">{_alerts(answer)}{_verdict(answer, prevalence)}</div>'


def meaning_html(answer: Answer, prevalence: float) -> str:
    """What the operating point means; nothing for an image unlike those its rates were counted on."""
    if answer.warnings:
        return ""
    return f'<div class="ml-card ml-answer">{_meaning(answer, prevalence)}</div>'


def problem_html(text: str) -> str:
    """A problem that the user can mend."""
    return f'<div class="ml-card"><div class="ml-problem" role="alert">{escape(text)}</div></div>'


def _alerts(answer: Answer) -> str:
    parts = []
    if answer.warnings:
        items = "".join(f"<li>{escape(text)}</li>" for text in answer.warnings)
        parts.append(
            '<div class="ml-warning" role="alert"><strong>This image is unlike those the model was tested on.</strong>'
            f"<ul>{items}</ul></div>"
        )
    if answer.notes:
        parts.append(f'<div class="ml-note">{"<br>".join(escape(text) for text in answer.notes)}</div>')
    return "".join(parts)


def _verdict(answer: Answer, prevalence: float) -> str:
    sign, kind = ("≥", "flagged") if answer.flagged else ("<", "clear")
    decision = "Suspicious: to be looked at again" if answer.flagged else "Not suspicious at this threshold"
    because = f"Model output {answer.probability:.3f} {sign} threshold {answer.reading.threshold:.3f}"
    views = ", eight views averaged" if answer.views == 8 else ""
    here, alike = answer.reading.prevalence, answer.similar
    # Ends of the interval are shown to the same precision as the value.
    calibration = (
        f"Calibrated on validation cases, {percent(here)} of them melanomas. How it held on the test: of the {alike.n} images "
        f"with the most similar risk ({percent(alike.low)} to {percent(alike.high)}), {alike.n_melanoma} were melanomas: "
        f"<strong>{percent(alike.observed.value)}</strong>, 95% interval {percent(alike.observed.low)} to "
        f"{percent(alike.observed.high)}."
    )
    if not alike.observed.low <= answer.risk <= alike.observed.high:
        calibration += " The risk lies outside that interval: the test does not bear it out to the letter."
    carried = (
        f"Where {percent(prevalence)} of lesions are melanomas, the same evidence means {percent(answer.risk_at(prevalence))}."
    )
    risk = f'<div class="ml-risk"><span class="ml-number">{percent(answer.risk)}</span><span>risk of melanoma</span></div>'
    rest = f'{_scale(answer)}<p class="ml-small">{calibration}</p><p class="ml-small">{carried}</p>'
    if answer.warnings:
        return (
            '<div class="ml-verdict ml-withheld"><div><h2>No answer to rely on</h2>'
            "<p>The model would still put out a number. On an image like this nobody knows what it means.</p></div></div>"
            f"<details><summary>What the model puts out nevertheless</summary>"
            f"<p>{decision}; risk {percent(answer.risk)}. {because}{views}.</p></details>"
        )
    return f'<div class="ml-verdict ml-{kind}">{risk}<div><h2>{decision}</h2><p>{because}{views}.</p></div></div>{rest}'


def _scale(answer: Answer) -> str:
    """The risk on a line from 0 to 100%, with the interval of what became of similar cases."""
    low, high = answer.similar.observed.low, answer.similar.observed.high
    text = f"Risk {percent(answer.risk)} on a line from 0 to 100%; similar test cases: {percent(low)} to {percent(high)}"
    return (
        f'<div class="ml-scale" role="img" aria-label="{text}">'
        f'<span class="ml-span" style="left:{low:.1%};width:{high - low:.1%}"></span>'
        f'<span class="ml-mark" style="left:{answer.risk:.1%}"></span></div>'
        '<div class="ml-ticks" aria-hidden="true"><span>0</span><span>25</span><span>50</span><span>75</span><span>100%</span>'
        "</div>"
        '<p class="ml-key" aria-hidden="true"><span class="ml-dot"></span> this lesion <span class="ml-bar"></span> '
        "test cases of similar risk, 95% interval</p>"
    )


def _meaning(answer: Answer, prevalence: float) -> str:
    point = answer.point
    sensitivity, specificity = answer.rate("sensitivity"), answer.rate("specificity")
    rows = (
        ("Sensitivity", percent(sensitivity.value), _ends(sensitivity), "of melanomas are flagged"),
        ("Specificity", percent(specificity.value), _ends(specificity), "of other lesions are let go"),
        ("PPV", percent(point.ppv_at(prevalence)), f"at {percent(prevalence)}", "of flagged lesions are melanomas"),
        ("NPV", percent(point.npv_at(prevalence)), f"at {percent(prevalence)}", "of lesions let go are no melanomas"),
    )
    tiles = "".join(
        f'<div class="ml-tile"><dt>{name}</dt><dd><b>{value}</b> <span>{ends}</span><br>{means}</dd></div>'
        for name, value, ends, means in rows
    )
    return (
        "<h3>What this decision point means</h3>"
        f'<p class="ml-small">Threshold: {escape(answer.reading.rule)}; rates counted on {point.tp + point.fn} melanomas and '
        f"{point.tn + point.fp} other test images, intervals resample patients.</p>"
        f'<dl class="ml-tiles">{tiles}</dl>{_frequencies(answer, prevalence)}'
    )


def _ends(interval) -> str:
    if not np.isfinite([interval.low, interval.high]).all():
        return "interval unknown"
    return f"{percent(interval.low)} to {percent(interval.high)}"


def _frequencies(answer: Answer, prevalence: float) -> str:
    """The rates as counts among a thousand lesions, in words and as a bar."""
    many = answer.point.per_thousand(prevalence)
    parts = (
        ("tp", many.tp, "melanomas flagged"), ("fn", many.fn, "melanomas missed"),
        ("fp", many.fp, "others flagged"), ("tn", many.tn, "others let go"),
    )  # fmt: skip
    bar = "".join(f'<span class="ml-{name}" style="flex:{count} 0 0"></span>' for name, count, _ in parts if count)
    legend = "".join(f'<li><span class="ml-box ml-{name}"></span><b>{count}</b> {label}</li>' for name, count, label in parts)
    flagged = many.tp + many.fp
    share = f"Of the {flagged} flagged, {many.tp} are melanomas." if flagged else "None is flagged."
    return (
        f"<p>Of <strong>1,000 lesions</strong> like these with a prevalence of {percent(prevalence)}, "
        f"{many.tp + many.fn} are melanomas. The model flags {many.tp} of them and misses {many.fn}; it also flags {many.fp} of "
        f"the {many.fp + many.tn} others. {share}</p>"
        f'<div class="ml-thousand" aria-hidden="true">{bar}</div><ul class="ml-legend">{legend}</ul>'
    )


def pictures_html(case: Case, heatmap: Heatmap) -> str:
    """The image and its heatmap side by side, with what the colours mean and do not mean."""
    shown, values = case.shown, enlarged(heatmap, case.shown.shape[:2])
    size = float(np.abs(heatmap.values).max())
    row, column = np.unravel_index(np.abs(heatmap.values).argmax(), heatmap.values.shape)
    across, down = (column + 0.5) / heatmap.values.shape[1], (row + 0.5) / heatmap.values.shape[0]
    strongest = f"strongest at {across:.0%} from the left and {down:.0%} from the top" if size else "zero everywhere"
    method = METHOD_NAMES[heatmap.method]
    alt = f"Heatmap, {method} of {heatmap.layer.name}: {strongest}"
    less, more = ("responds less", "responds more") if heatmap.method == "eigencam" else (LOWERS, RAISES)
    doubt = " Here even the sign is little better than a toss of a coin." if heatmap.doubtful_sign else ""
    cells = " x ".join(map(str, heatmap.values.shape))
    return (
        '<div class="ml-pictures">'
        f'<figure><img alt="The image as it was read" src="{_jpeg_uri(shown)}"><figcaption>Image</figcaption></figure>'
        f'<figure><img alt="{escape(alt)}" src="{_jpeg_uri(overlay(shown, values))}">'
        f"<figcaption>{method} of {escape(heatmap.layer.name)}, {cells} points</figcaption></figure></div>"
        f'<div class="ml-colours"><span>{less}</span><span class="ml-gradient"></span><span>{more}</span></div>'
        f'<p class="ml-small">{METHOD_NOTES[heatmap.method]}{doubt} Colours are scaled to this map’s own largest value '
        f"({size:.2g}, no unit). A heatmap tells where the layer responds; that does not make it the reason for the answer.</p>"
    )


def overlay(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The map, within -1 and 1, shape ``(H, W)``, in colours over the pale grey image; uint8, shape ``(H, W, 3)``."""
    grey = (image.mean(axis=2, keepdims=True) + 100) * (255 / 355)  # as explain.figures draws it
    colours = SIGNED((values + 1) / 2)  # (H, W, 4)
    alpha = colours[..., 3:]
    return np.rint(grey * (1 - alpha) + 255 * colours[..., :3] * alpha).astype(np.uint8)


def _jpeg_uri(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=88)
    return data_uri(file.getvalue())


def data_uri(jpeg: bytes) -> str:
    """A JPEG file as an address that holds it, so that nothing is fetched and nothing written."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
