"""The page: Gradio's controls, and what they lead to, put into the HTML of ``words.html.j2``."""

import json
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.image_utils import encode_image_array_to_base64
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from melanoma_lib.app.service import PREVALENCE, Case, Patient, Service
from melanoma_lib.app.uploads import MAX_BYTES, READS, Store
from melanoma_lib.data.metadata import MAX_AGE
from melanoma_lib.data.synthetic import SyntheticDermoscopy, painted_jpeg
from melanoma_lib.errors import DataError, KitError
from melanoma_lib.explain import METHOD_NAMES
from melanoma_lib.explain.figures import signed_overlay

FOLDER = Path(__file__).parent
TEMPLATES = Environment(
    loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
UNKNOWN = "unknown"
LEAST, MOST = 0.5, 50.0  # prevalence that the slider offers, in percents
# True risks of the painted examples. A model of photographs gets the first alone, to show how the page refuses it.
LESIONS = {"high": 0.7, "moderate": 0.2, "low": 0.05}


def percent(share: float | None, tenths: bool = False) -> str:
    """A share for people: whole percents, one decimal below ten or where ``tenths`` count, never a rounded 0% or 100%."""
    if share is None or share != share:
        return "unknown"
    if share in (0, 1):
        return f"{share:.0%}"
    if tenths and share < 0.9995:
        return f"{share:.1%}"
    if share < 0.001:
        return "<0.1%"
    if share > 0.99:
        return ">99%"
    return f"{share:.1%}" if share < 0.0995 else f"{share:.0%}"


TEMPLATES.filters["percent"] = percent


def html(part: str, *values: Any) -> str:
    """A part of the page, a macro of ``words.html.j2``, with its values put in."""
    return str(getattr(TEMPLATES.get_template("words.html.j2").module, part)(*values))


@cache
def paint_example(token: str) -> bytes:
    """JPEG file of the lesion whose true risk comes closest to one of ``LESIONS``."""
    generator = SyntheticDermoscopy(n_patients=40, seed=20, image_size=256)
    distance = generator.cases["true_risk"] - list(LESIONS.values())[int(token.removeprefix("example-"))]
    return painted_jpeg(generator.render(distance.abs().idxmin()).image)


class Page:
    """What the controls do, of a run's service; uploads are in the store between two requests."""

    def __init__(self, service: Service, store: Store) -> None:
        self.service, self.store = service, store
        document = service.document
        self.reads_images, self.encoder = document.preprocessing is not None, document.encoder
        names = [f"Painted lesion, {name} true risk" for name in LESIONS]
        names = names if document.source == "synthetic" else ["A painting by this kit, no photograph"]
        self.names = {f"example-{i}": name for i, name in enumerate(names)} if self.reads_images else {}
        sizes = {name: math.ceil(service.run.settings.image_size / layer.stride) for name, layer in service.layers.items()}
        self.layers = {name: f"{i} of {len(sizes)}: {n} x {n} points" for i, (name, n) in enumerate(sizes.items(), 1)}

    def case(self, token: str) -> Case | None:
        """The case of a name, None where there is none yet; DataError if it is no longer kept."""
        if token in self.names:
            return self.service.admit(paint_example(token))
        return self.store.get(token) if token else None

    def respond(
        self, token: str, age: str, sex: str, site: str, prevalence: float | None, layer: str | None, method: str | None,
        shown: str,
    ) -> tuple:  # fmt: skip
        """All that follows from the controls, as HTML: what is wrong with the age, the answer, its meaning, the pictures.

        While the age is wrong the answer that is ``shown`` stays, if it is about the same image. The prevalence is in percents.
        """
        years = age.strip().replace(",", ".") if re.fullmatch(r"\s*(\d+([.,]\d\d?)?)?\s*", age) else "1,000 and 1e2 are no ages"
        patient = Patient(years or None, *(None if word == UNKNOWN else word for word in (sex, site)))
        percents = 100 * PREVALENCE if prevalence is None else min(max(prevalence, LEAST), MOST)
        share, nothing = round(percents / 100, 5), ("", html("no_pictures"))
        try:
            if self.encoder is not None:
                self.encoder.encode(*patient)
        except DataError:
            same = f'data-case="{token}"' in shown
            wrong = html("wrong_age", MAX_AGE, same and "ml-verdict" in shown)
            if same:
                return wrong, gr.skip(), gr.skip(), gr.skip()
            return wrong, html("problem", token, "There is no answer while the age is wrong."), *nothing
        try:
            case = self.case(token)
            if case is None and self.reads_images:
                return "", html("empty"), *nothing
            said = self.service.ask(case, patient, share)
            pictures = self._pictures(token, case, patient, layer, method)
        except KitError as error:
            return "", html("problem", token, str(error)), *nothing
        meaning = html("meaning", token, said, prevalence not in (None, percents))
        return "", html("verdict", token, said), meaning, pictures

    def _pictures(self, token: str, case: Case | None, patient: Patient, layer: str | None, method: str | None) -> str:
        if not self.layers:
            return html("no_pictures", "This network has no layer that a heatmap could show.")
        values, doubtful = self.service.heatmap(case, patient, layer, method)
        row, column = np.unravel_index(np.abs(values).argmax(), values.shape)
        peak = {"across": (column + 0.5) / values.shape[1], "down": (row + 0.5) / values.shape[0], "size": np.abs(values).max()}
        # As addresses that hold the pictures, so that nothing is fetched and nothing written.
        images = [encode_image_array_to_base64(pixels) for pixels in (case.shown, signed_overlay(case.shown, values))]
        return html(
            "pictures",
            token,
            images,
            peak,
            layer,
            self.layers[layer],
            method,
            METHOD_NAMES[method],
            doubtful,
            bool(case.warnings),
        )


def build_page(page: Page) -> gr.Blocks:
    """All controls and what they trigger."""
    service, encoder, images = page.service, page.encoder, page.reads_images
    # The file goes to a route that keeps it in memory; only a name for it comes back as the picker's value.
    template = html("picker", page.names, READS, MAX_BYTES // 1024**2)
    script = (FOLDER / "picker.js").read_text(encoding="utf-8").replace("@max", json.dumps(MAX_BYTES))
    script = script.replace("@usual", f"{100 * PREVALENCE:g}")
    with gr.Blocks(title="melanoma_lib: one lesion", analytics_enabled=False, fill_width=False) as blocks:
        gr.HTML(html("banner"), elem_id="ml-banner")
        gr.HTML(html("header", service.facts()))
        with gr.Row(elem_id="ml-main", equal_height=False):
            with gr.Column(scale=5, min_width=320, elem_id="ml-left"):
                picker = gr.HTML("", html_template=template, js_on_load=script, elem_id="ml-picker", visible=images or "hidden")
                with gr.Group(visible=encoder is not None, elem_classes="ml-group", elem_id="ml-patient"):
                    gr.HTML(
                        '<h2>Patient <span class="ml-soft">each may stay unknown; cleared with the image</span></h2>',
                        padding=True,
                    )
                    # Gradio's own Number would send 0 for a field that was never filled in.
                    age = gr.Textbox("", label="Age in years", placeholder=UNKNOWN, max_lines=1, max_length=8, elem_id="ml-age")
                    wrong = gr.HTML("", elem_id="ml-wrong")
                    sex, site = (
                        gr.Dropdown([UNKNOWN, *(names or ())], value=UNKNOWN, label=label, filterable=False)
                        for label, names in (("Sex", encoder and encoder.sexes), ("Site", encoder and encoder.sites))
                    )
            with gr.Column(scale=8, min_width=340, elem_id="ml-right"):
                answer = gr.HTML(html("empty") if images else "", elem_id="ml-answer")
                with gr.Column(elem_classes="ml-panel", elem_id="ml-prevalence"):
                    gr.HTML("<h2>What it means where you work</h2>")
                    prevalence = gr.Slider(
                        LEAST, MOST, 100 * PREVALENCE, step=0.1, label="Prevalence, % of lesions that are melanomas",
                        info="about 2 in ISIC 2020, 11 in HAM10000; a referral clinic has more than a screening",
                    )  # fmt: skip
                    # What is typed comes before the page brings it into range; Gradio's own would refuse the request.
                    prevalence.preprocess = lambda percents: percents
                    meaning = gr.HTML("", elem_id="ml-meaning")
                with gr.Column(visible=images, elem_classes="ml-panel", elem_id="ml-look"):
                    gr.HTML("<h2>Where it looked</h2>")
                    with gr.Row():
                        choices = [(label, name) for name, label in page.layers.items()]
                        layer = gr.Dropdown(choices, value=service.first_layer, label="Layer, early to late", filterable=False)
                        choices = [(name, method) for method, name in service.methods.items()]
                        method = gr.Dropdown(choices, value="gradcam" if choices else None, label="Method", filterable=False)
                        opacity = gr.Slider(0, 100, 100, step=5, label="Heatmap opacity, %")
                    pictures = gr.HTML(html("no_pictures"), elem_id="ml-pictures")
        gr.HTML(html("footer", service.document.licence))

        # Each event is a request of its own. Gradio's queue answers on one stream, which it closes after the last event; an
        # event that joins at that moment is never answered. "always_last" sends one request at a time and then, where something
        # changed meanwhile, another one, for all listeners of the event: two of them would keep each other busy.
        given = [picker, age, sex, site, prevalence, layer, method]
        gr.on(
            [blocks.load, *(control.change for control in given)], page.respond, [*given, answer],
            [wrong, answer, meaning, pictures], api_visibility="private", show_progress="minimal", queue=False,
            trigger_mode="always_last",
        )  # fmt: skip
        # In the page, at once: what is typed while the next image is on its way is of that patient, and stays.
        picker.clear(None, None, [age, sex, site], js=f"() => ['', '{UNKNOWN}', '{UNKNOWN}']")
        opacity.change(None, opacity, js="(share) => document.body.style.setProperty('--ml-opacity', share / 100)")
    return blocks
