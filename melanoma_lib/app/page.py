"""The page itself: Gradio's controls on the left, what they lead to on the right, put into the HTML of ``words.html.j2``."""

import asyncio
import base64
import io
import json
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, wraps
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from melanoma_lib.app.service import BACKENDS, PREVALENCE, Case, Patient, Service
from melanoma_lib.app.uploads import MAX_BYTES, READS, Store
from melanoma_lib.errors import KitError
from melanoma_lib.inference.document import licence_of

FOLDER = Path(__file__).parent
TEMPLATES = Environment(
    loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
UNKNOWN = "unknown"
TITLE = "melanoma_lib: one lesion"
# Each with the true risk that a painted lesion comes closest to. A model of photographs is shown none as its case: it gets one,
# and says why it gives no answer to rely on.
LESIONS = {"high": 0.7, "low": 0.05, "middling": 0.4, "moderate": 0.2}
DARK, PAINTING = "Painted lesion, photographed in the dark", "A painting by this kit, no photograph"
OFFERS = {
    True: "or try a painted example (nobody’s skin)",
    False: "or a painting, to see how the page refuses what is no photograph",
}


def percent(share: float | None) -> str:
    """A share for people: whole percents, one decimal below ten, never a rounded 0% or 100%."""
    if share is None or share != share:
        return "unknown"
    if share < 0.001:
        return "<0.1%"
    if share > 0.99:
        return ">99%"
    return f"{share:.1%}" if share < 0.0995 else f"{share:.0%}"


TEMPLATES.filters["percent"] = percent


def html(part: str, *values: Any) -> str:
    """A part of the page, a macro of ``words.html.j2``, with its values put in."""
    return str(getattr(TEMPLATES.get_template("words.html.j2").module, part)(*values))


def pictures_html(shown: np.ndarray, values: np.ndarray, doubtful_sign: bool, layer: str, method: str) -> str:
    """An image, shape ``(H, W, 3)``, and its heatmap, shape ``(h, w)``, with what the colours mean and do not mean."""
    from melanoma_lib.explain import METHOD_NAMES
    from melanoma_lib.explain.figures import signed_overlay

    row, column = np.unravel_index(np.abs(values).argmax(), values.shape)
    peak = {"across": (column + 0.5) / values.shape[1], "down": (row + 0.5) / values.shape[0], "size": np.abs(values).max()}
    images = data_uri(shown), data_uri(signed_overlay(shown, values))
    return html("pictures", images, peak, values.shape, layer, method, METHOD_NAMES[method], doubtful_sign)


def data_uri(pixels: np.ndarray) -> str:
    """A JPEG file of uint8 pixels as an address that holds it, so that nothing is fetched and nothing written."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


@cache
def paint_examples() -> list[tuple[bytes, Patient]]:
    """JPEG files of lesions of some true risks, and one in the dark, which no model should answer; and who has each."""
    from melanoma_lib.data.synthetic import SyntheticDermoscopy, painted_jpeg

    generator = SyntheticDermoscopy(n_patients=40, seed=20, image_size=256)
    cases, made = generator.cases.astype(object).where(generator.cases.notna(), None), []
    for risk in LESIONS.values():
        row = (generator.cases["true_risk"] - risk).abs().idxmin()
        patient = Patient(*cases.loc[row, ["age_approx", "sex", "anatom_site_general_challenge"]])
        made.append((painted_jpeg(generator.render(row).image), patient))
    return [*made, (painted_jpeg((generator.render(0).image * 0.04).astype(np.uint8)), Patient())]


class Page:
    """What the controls do; each handler takes their values and returns HTML.

    Args:
        service: of a run.
        store: where uploads are between two requests.
    """

    def __init__(self, service: Service, store: Store) -> None:
        self.service, self.store, self.settings = service, store, service.run.settings
        self.reads_images, self.reads_metadata = ("image" in self.settings.modalities, "metadata" in self.settings.modalities)
        names = [f"Painted lesion, {name} true risk" for name in LESIONS]
        names = [*names, DARK] if self.settings.source == "synthetic" else [PAINTING]
        self.names = {f"example-{i}": name for i, name in enumerate(names)} if self.reads_images else {}
        self._painting, self._examples = threading.Lock(), {}

    def example(self, token: str) -> tuple[bytes, Patient]:
        """An example by its name; all are painted when the first is asked for, as the page need not wait for them."""
        with self._painting:
            return paint_examples()[list(self.names).index(token)]

    def case(self, token: str) -> Case | None:
        """The case of a name, None where there is none yet; DataError if it is no longer kept."""
        if token not in self.names:
            return self.store.get(token) if token else None
        key = token, self.service.reference is None  # what was admitted before there was a reference has no warnings
        if key not in self._examples:
            self._examples[key] = self.service.admit(self.example(token)[0])
        return self._examples[key]

    def patient_of(self, token: str, *given: str) -> tuple:
        """Age, sex and site that go with an example; of an upload those ``given`` in the form stay, unless an example's do."""

        def form(name: str) -> tuple:
            age, sex, site = self.example(name)[1]
            return "" if age is None else f"{age:g}", sex or UNKNOWN, site or UNKNOWN

        if token in self.names:
            return form(token)
        return ("", UNKNOWN, UNKNOWN) if given in map(form, self.names) else (gr.skip(), gr.skip(), gr.skip())

    def answer(self, token: str, age: str, sex: str, site: str, tta: bool, prevalence: float | None) -> tuple[str, str]:
        """The answer and what its operating point means, as HTML; the prevalence in percents, which may be typed wrongly."""
        share = PREVALENCE if prevalence is None else min(max(prevalence / 100, 0.001), 0.999)
        try:
            case = self.case(token)
            if case is None and self.reads_images:
                return html("empty"), ""
            said = self.service.ask(case, _patient(age, sex, site), tta, share)
        except KitError as error:
            return html("problem", token, str(error).replace("age_approx expects", "Age: expected")), ""
        return html("verdict", token, said), html("meaning", said)

    def choices(self) -> tuple:
        """Layers, methods and averaging as they can be chosen, once the model is loaded."""
        service = self.service
        try:
            service.load()
        except KitError:  # which ends the server
            return gr.skip(), gr.skip(), gr.skip()
        points = {name: math.ceil(self.settings.image_size / layer.stride) for name, layer in service.layers.items()}
        layers = [(f"{name} ({n} x {n} points)", name) for name, n in points.items()]
        methods = [(name, method) for method, name in service.methods.items()]
        info = {(1, 8): "own calibration and threshold", (8,): "always on for this run", (1,): "not calibrated on this server"}
        views = tuple(sorted(service.readings))
        return (
            gr.update(choices=layers, value=service.first_layer),
            gr.update(choices=methods, value="gradcam" if methods else None),
            gr.update(value=views == (8,), interactive=views == (1, 8), info=info[views]),
        )

    def pictures(self, token: str, age: str, sex: str, site: str, layer: str | None, method: str | None) -> str:
        """Image and heatmap as HTML; empty where there is nothing to show, whose reason the answer tells."""
        try:
            case = self.case(token)
            if case is None:
                return html("no_pictures")
            if not self.service.layers:
                return html("no_pictures", "This network has no layer that a heatmap could show.")
            layer, method = layer or self.service.first_layer, method or "gradcam"  # chosen before there was a choice
            values, doubtful = self.service.heatmap(case, _patient(age, sex, site), layer, method)
        except KitError:
            return html("no_pictures", "Not drawn for such values; above is what is wrong with them.")
        # Which image it is about stands in it, so that it always differs from another image's.
        return f'<div data-case="{escape(token)}">{pictures_html(case.shown, values, doubtful, layer, method)}</div>'


def _patient(age: str, sex: str, site: str) -> Patient:
    """What the form says; an age that is no number is refused by the encoder, in words."""
    return Patient(
        age.strip().replace(",", ".") or None, *(None if value in (UNKNOWN, None, "") else value for value in (sex, site))
    )


def in_order(function: Callable) -> Callable:
    """The function, called on a thread of its own in the order of asking: the newest answer must come last."""
    thread = ThreadPoolExecutor(1)

    @wraps(function)
    async def called(*given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(thread, function, *given)

    return called


def build_page(page: Page) -> gr.Blocks:
    """All controls and what they trigger."""
    service, settings, encoder = page.service, page.settings, page.service.run.encoder
    offer = OFFERS[settings.source == "synthetic"]
    # The file goes to a route that keeps it in memory; only a name for it comes back as the picker's value.
    template = html("picker", page.names, READS, MAX_BYTES // 1024**2, offer)
    script = (FOLDER / "picker.js").read_text(encoding="utf-8").replace("@max", json.dumps(MAX_BYTES))
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=False) as blocks:
        gr.HTML(html("banner"), elem_id="ml-banner")
        gr.HTML(html("header", settings, BACKENDS[service.backend], service.run.path.name))
        with gr.Row(elem_id="ml-main", equal_height=False):
            with gr.Column(scale=5, min_width=320, elem_id="ml-left"):
                picker = gr.HTML(
                    "", html_template=template, js_on_load=script, elem_id="ml-picker", visible=page.reads_images,
                    apply_default_css=False,
                )  # fmt: skip
                with gr.Group(visible=page.reads_metadata, elem_classes="ml-group", elem_id="ml-patient"):
                    gr.HTML('<h3>Patient <span class="ml-soft">each may stay unknown</span></h3>', padding=True)
                    # Gradio's own Number would send 0 for a field that was never filled in.
                    age = gr.Textbox("", label="Age in years", placeholder=UNKNOWN, max_lines=1, max_length=8, elem_id="ml-age")
                    sex = gr.Dropdown([UNKNOWN, *encoder.sexes], value=UNKNOWN, label="Sex", filterable=False)
                    site = gr.Dropdown([UNKNOWN, *encoder.sites], value=UNKNOWN, label="Site", filterable=False)
                with gr.Group(elem_classes="ml-group", elem_id="ml-settings"):
                    gr.HTML("<h3>How to read the answer</h3>", padding=True)
                    prevalence = gr.Slider(
                        0.5, 50, 100 * PREVALENCE, step=0.1, label="Prevalence, % of lesions that are melanomas",
                        info="about 2 in ISIC 2020, 11 in HAM10000; a referral clinic has more than a screening",
                    )  # fmt: skip
                    # What is typed comes before the page brings it into range; Gradio's own would refuse the request.
                    prevalence.preprocess = lambda percents: percents
                    tta = gr.Checkbox(label="Average eight flips and turns", interactive=False, visible=page.reads_images)
            with gr.Column(scale=8, min_width=340, elem_id="ml-right"):
                answer = gr.HTML(html("empty") if page.reads_images else "", elem_id="ml-answer")
                with gr.Column(visible=page.reads_images, elem_id="ml-look"):
                    gr.HTML("<h3>Where it looked</h3>")
                    with gr.Row():
                        looks = [gr.Dropdown(label=label, filterable=False) for label in ("Layer, early to late", "Method")]
                    pictures = gr.HTML(html("no_pictures"), elem_id="ml-pictures")
                meaning = gr.HTML("", elem_id="ml-meaning")
        gr.HTML(html("footer", licence_of(settings.source)))

        # Each event is a request of its own. Gradio's queue answers on one stream, which it closes after the last event; an
        # event that joins at that moment is never answered. "always_last" sends one request at a time and then, where something
        # changed meanwhile, another one, for all listeners of the event: two of them would keep each other busy.
        private = {"api_visibility": "private", "show_progress": "minimal", "queue": False, "trigger_mode": "always_last"}
        given = [picker, age, sex, site]
        asked = {"fn": in_order(page.answer), "inputs": [*given, tta, prevalence], "outputs": [answer, meaning], **private}
        drawn = {"fn": in_order(page.pictures), "inputs": [*given, *looks], "outputs": pictures, **private}
        picker.change(page.patient_of, given, given[1:], **private).then(**asked).then(**drawn)
        # A text box tells of typing by "change" alone, reliably, a slider of its reset; the others also "change" when an example
        # fills them in.
        gr.on([age.change, sex.input, site.input, tta.input, prevalence.change], **asked).then(**drawn)
        gr.on([control.input for control in looks], **drawn)
        blocks.load(page.choices, None, [*looks, tta], **private)
        if not page.reads_images:
            blocks.load(**asked)
    return blocks
