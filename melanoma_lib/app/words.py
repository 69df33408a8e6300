"""Answers as the page shows them: escaped HTML with the numbers said in words."""

import base64
import io
from html import escape

import numpy as np
from PIL import Image

from melanoma_lib.app.service import Answer, Case, Heatmap

BANNER = """<div class="ml-banner" role="note"><strong>Educational, not for diagnosis.</strong>
    <span>No decision about a person may rest on this page. Show a lesion that worries you to a doctor.</span></div>"""
EMPTY = """<div class="ml-card ml-empty"><p class="ml-big">No image yet</p><p>Choose one on the left, or try an example.
    It stays on this computer, in memory, and is forgotten afterwards.</p></div>"""
METHOD_NOTES = {
    "gradcam": "Each channel counts by its mean gradient.",
    "gradcam++": "Each channel counts by its positive gradients alone; blue is no evidence against melanoma.",
    "layercam": "Each point counts by its own positive gradient; blue is no evidence against melanoma.",
    "xgradcam": "Each channel counts by its gradients, averaged in proportion to its activations.",
    "hirescam": "Each point counts by its own gradient.",
    "eigencam": "Uses no gradient and ignores the class. Its colours only mean “responds more, or less, than elsewhere”.",
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
    """Warnings, risk and decision, for a share of melanomas in (0, 1) among the lesions that the user has in mind."""
    items = "".join(f"<li>{escape(text)}</li>" for text in answer.warnings)
    warnings = f"""<div class="ml-warning" role="alert"><strong>This image is unlike those the model was tested on.</strong>
        <ul>{items}</ul></div>"""
    notes = f'<div class="ml-note">{"<br>".join(escape(text) for text in answer.notes)}</div>'
    said = f"{warnings if answer.warnings else ''}{notes if answer.notes else ''}{_verdict(answer, prevalence)}"
    return f'<div class="ml-card ml-answer">{said}</div>'


def problem_html(text: str) -> str:
    """A problem that the user can mend."""
    return f'<div class="ml-card"><div class="ml-problem" role="alert">{escape(text)}</div></div>'


def _verdict(answer: Answer, prevalence: float) -> str:
    sign, kind = ("≥", "flagged") if answer.flagged else ("<", "clear")
    decision = "Suspicious: to be looked at again" if answer.flagged else "Not suspicious at this threshold"
    views = ", eight views averaged" if answer.views == 8 else ""
    because = f"Uncalibrated probability {answer.probability:.3f} {sign} threshold {answer.threshold:.3f}{views}."
    if answer.warnings:
        return f"""<div class="ml-verdict ml-withheld"><div><h2>No answer to rely on</h2>
            <p>The model would still put out a number. On an image like this nobody knows what it means.</p></div></div>
            <details><summary>What the model puts out nevertheless</summary>
            <p>{decision}; risk {percent(answer.risk)}. {because}</p></details>"""
    alike, seen = answer.similar, answer.similar.observed
    outside = not seen.low <= answer.risk <= seen.high
    return f"""<div class="ml-verdict ml-{kind}">
        <div class="ml-risk"><span class="ml-number">{percent(answer.risk)}</span><span>risk of melanoma</span></div>
        <div><h2>{decision}</h2><p>{because}</p></div></div>
        <div class="ml-scale" role="img" aria-label="Risk {percent(answer.risk)} on a line from 0 to 100%; similar test cases:
        {percent(seen.low)} to {percent(seen.high)}">
        <span class="ml-span" style="left:{seen.low:.1%};width:{seen.high - seen.low:.1%}"></span>
        <span class="ml-mark" style="left:{answer.risk:.1%}"></span></div>
        <div class="ml-ticks" aria-hidden="true"><span>0</span><span>25</span><span>50</span><span>75</span>
        <span>100%</span></div>
        <p class="ml-key" aria-hidden="true"><span class="ml-dot"></span> this lesion <span class="ml-bar"></span>
        test cases of similar risk, 95% interval</p>
        <p class="ml-small">Calibrated on validation cases, {percent(answer.reading.prevalence)} of them melanomas. How it held
        on the test: of the {alike.n} images with the most similar risk ({percent(alike.risk_from)} to
        {percent(alike.risk_to)}), {alike.melanomas} were melanomas: <strong>{percent(seen.value)}</strong>, 95% interval
        {percent(seen.low)} to {percent(seen.high)}.{" The risk lies outside that interval." if outside else ""}</p>
        <p class="ml-small">Where {percent(prevalence)} of lesions are melanomas, the same evidence means
        {percent(answer.risk_at(prevalence))}.</p>"""


def meaning_html(answer: Answer, prevalence: float) -> str:
    """What the operating point means; nothing for an image unlike those its rates were counted on."""
    if answer.warnings:
        return ""
    point, many = answer.point, answer.point.per_thousand(prevalence)
    sensitivity, specificity = answer.rate("sensitivity"), answer.rate("specificity")
    rows = (
        ("Sensitivity", sensitivity.value, _ends(sensitivity), "of melanomas are flagged"),
        ("Specificity", specificity.value, _ends(specificity), "of other lesions are not flagged"),
        ("PPV", point.ppv_at(prevalence), f"at {percent(prevalence)}", "of flagged lesions are melanomas"),
        ("NPV", point.npv_at(prevalence), f"at {percent(prevalence)}", "of lesions not flagged are no melanomas"),
    )
    tiles = "".join(
        f'<div class="ml-tile"><dt>{name}</dt><dd><b>{percent(value)}</b> <span>{ends}</span><br>{means}</dd></div>'
        for name, value, ends, means in rows
    )
    counts = {"tp": "melanomas flagged", "fn": "melanomas missed", "fp": "others flagged", "tn": "others not flagged"}
    named = [(kind, getattr(many, kind), text) for kind, text in counts.items()]
    bar = "".join(f'<span class="ml-{kind}" style="flex:{n} 0 0"></span>' for kind, n, _ in named if n)
    legend = "".join(f'<li><span class="ml-box ml-{kind}"></span><b>{n}</b> {text}</li>' for kind, n, text in named)
    return f"""<div class="ml-card ml-answer"><h3>What this decision point means</h3>
        <p class="ml-small">Threshold: {escape(answer.reading.rule)}; rates counted on {point.tp + point.fn} melanomas and
        {point.tn + point.fp} other test images, intervals resample patients.</p><dl class="ml-tiles">{tiles}</dl>
        <p>Of <strong>1,000 lesions</strong> like these with a prevalence of {percent(prevalence)}, {many.tp + many.fn} are
        melanomas. The model flags {many.tp} of them and misses {many.fn}; it also flags {many.fp} of the
        {many.fp + many.tn} others.</p>
        <div class="ml-thousand" aria-hidden="true">{bar}</div><ul class="ml-legend">{legend}</ul></div>"""


def _ends(interval) -> str:
    if not np.isfinite([interval.low, interval.high]).all():
        return "interval unknown"
    return f"{percent(interval.low)} to {percent(interval.high)}"


def pictures_html(case: Case, heatmap: Heatmap) -> str:
    """The image and its heatmap side by side, with what the colours mean and do not mean."""
    from melanoma_lib.explain import METHOD_NAMES
    from melanoma_lib.explain.figures import signed_overlay

    values, size = heatmap.values, float(np.abs(heatmap.values).max())
    row, column = np.unravel_index(np.abs(values).argmax(), values.shape)
    across, down = (column + 0.5) / values.shape[1], (row + 0.5) / values.shape[0]
    strongest = f"strongest at {across:.0%} from the left and {down:.0%} from the top" if size else "zero everywhere"
    title = f"{METHOD_NAMES[heatmap.method]} of {escape(heatmap.layer.name)}"
    eigen = heatmap.method == "eigencam"
    doubt = " Here even the sign is little better than a toss of a coin." if heatmap.doubtful_sign else ""
    return f"""<div class="ml-pictures">
        <figure><img alt="The image as it was read" src="{data_uri(jpeg(case.shown))}"><figcaption>Image</figcaption></figure>
        <figure><img alt="Heatmap, {title}: {strongest}" src="{data_uri(jpeg(signed_overlay(case.shown, heatmap.values)))}">
        <figcaption>{title}, {" x ".join(map(str, values.shape))} points</figcaption></figure></div>
        <div class="ml-colours"><span>{"responds less" if eigen else "lowers the risk"}</span><span class="ml-gradient"></span>
        <span>{"responds more" if eigen else "raises it"}</span></div>
        <p class="ml-small">{METHOD_NOTES[heatmap.method]}{doubt} Colours are scaled to this map’s own largest value
        ({size:.2g}, no unit). A heatmap tells where the layer responds; that does not make it the reason for the answer.</p>"""


def jpeg(pixels: np.ndarray) -> bytes:
    """A JPEG file of uint8 pixels, shape ``(H, W, 3)``."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=88)
    return file.getvalue()


def data_uri(data: bytes) -> str:
    """A JPEG file as an address that holds it, so that nothing is fetched and nothing written."""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()
