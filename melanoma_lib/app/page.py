"""The page itself: Gradio's controls on the left, what they lead to on the right."""

import json
import math
import threading
from dataclasses import dataclass
from html import escape
from pathlib import Path

import gradio as gr
import numpy as np

from melanoma_lib.app import words
from melanoma_lib.app.service import BACKENDS, Case, Patient, Service
from melanoma_lib.app.uploads import MAX_BYTES, READS, Store
from melanoma_lib.errors import KitError
from melanoma_lib.inference.document import licence_of

FOLDER = Path(__file__).parent
UNKNOWN = "unknown"
START_PREVALENCE = 10.0  # percent
NO_PICTURES = '<p class="ml-small">Appears with the image.</p>'
TITLE = "melanoma_lib: one lesion"
# Target and true risk that a painted lesion comes closest to. A model of photographs is shown none as its case: it gets one, and
# says why it gives no answer to rely on.
LESIONS = {
    "Painted lesion, melanoma, high true risk": (1, 0.7),
    "Painted lesion, not melanoma, low true risk": (0, 0.05),
    "Painted lesion, melanoma, middling true risk": (1, 0.4),
    "Painted lesion, not melanoma, middling true risk": (0, 0.3),
}
DARK = "Painted lesion, photographed in the dark"
PAINTING = "A painting by this kit, no photograph"
OFFERS = {
    True: "or try a painted example (nobody’s skin)",
    False: "or a painting, to see how the page refuses what is no photograph",
}


@dataclass(frozen=True)
class Example:
    """A painted lesion to try the page with: a JPEG file, and who has it."""

    data: bytes
    patient: Patient


def paint_examples() -> list[Example]:
    """Lesions of a target that come closest to a true risk, and a photograph in the dark, which no model should answer."""
    from melanoma_lib.data.synthetic import SyntheticDermoscopy, painted_jpeg

    generator = SyntheticDermoscopy(n_patients=40, seed=20, image_size=256)
    cases, made, taken = generator.cases, [], []
    for target, risk in LESIONS.values():
        open_to = cases[(cases["target"] == target) & ~cases["lesion_id"].isin(taken)]
        row = (open_to["true_risk"] - risk).abs().idxmin()
        case = cases.loc[row]
        taken.append(case["lesion_id"])
        known = [case[name] for name in ("age_approx", "sex", "anatom_site_general_challenge")]
        patient = Patient(*(None if value != value else value for value in known))
        made.append(Example(painted_jpeg(generator.render(row).image), patient))
    return [*made, Example(painted_jpeg((generator.render(0).image * 0.04).astype(np.uint8)), Patient())]


class Page:
    """What the controls do; each handler takes their values and returns HTML.

    Args:
        service: the run.
        store: where uploads are between two requests.
    """

    def __init__(self, service: Service, store: Store) -> None:
        self.service, self.store = service, store
        self.synthetic = service.run.settings.source == "synthetic"
        names = [*LESIONS, DARK] if self.synthetic else [PAINTING]
        self.names = {f"example-{i}": name for i, name in enumerate(names)} if service.reads_images else {}
        self._painting, self._painted, self._cases = threading.Lock(), [], {}

    def example(self, token: str) -> Example:
        """An example by its name; all are painted when the first is asked for, as the page need not wait for them."""
        with self._painting:
            self._painted = self._painted or paint_examples()
        return self._painted[list(self.names).index(token)]

    def case(self, token: str) -> Case | None:
        """The case of a name, None where there is none yet; DataError if it is no longer kept."""
        if token not in self.names:
            return self.store.get(token) if token else None
        key = token, self.service.reference is None  # what was admitted before there was a reference has no warnings
        if key not in self._cases:
            self._cases[key] = self.service.admit(self.example(token).data)
        return self._cases[key]

    def patient_of(self, token: str) -> tuple:
        """Age, sex and site that go with an example; of an upload those in the form stay."""
        if token not in self.names:
            return gr.skip(), gr.skip(), gr.skip()
        patient = self.example(token).patient
        return "" if patient.age is None else f"{patient.age:g}", patient.sex or UNKNOWN, patient.site or UNKNOWN

    def answer(self, token: str, age: str, sex: str, site: str, tta: bool, prevalence: float) -> tuple[str, str]:
        """The answer and what its operating point means, as HTML."""
        try:
            case = self.case(token)
            if case is None and self.service.reads_images:
                return words.EMPTY, ""
            said = self.service.ask(case, _patient(age, sex, site), tta)
        except KitError as error:
            return _of(token, words.problem_html(str(error))), ""
        return _of(token, words.verdict_html(said, _share(prevalence))), words.meaning_html(said, _share(prevalence))

    def choices(self) -> tuple:
        """Layers, methods and averaging as they can be chosen, once the model is loaded."""
        service = self.service
        try:
            service.loaded.result()
        except KitError:  # which ends the server
            return gr.skip(), gr.skip(), gr.skip()
        points = {name: math.ceil(service.run.settings.image_size / layer.stride) for name, layer in service.layers.items()}
        layers = [(f"{name} ({n} x {n} points)", name) for name, n in points.items()]
        methods = [(name, method) for method, name in service.methods.items()]
        always, never = (set(service.predictors) == {views} for views in (8, 1))
        info = (
            "always on for this run" if always else "not calibrated on this server" if never else "own calibration and threshold"
        )
        return (
            gr.update(choices=layers, value=service.first_layer),
            gr.update(choices=methods, value="gradcam" if methods else None),
            gr.update(value=always, interactive=not (always or never), info=info),
        )

    def pictures(self, token: str, age: str, sex: str, site: str, layer: str | None, method: str | None) -> str:
        """Image and heatmap as HTML; empty where there is nothing to show, whose reason the answer tells."""
        try:
            case = self.case(token)
            if case is None:
                return NO_PICTURES
            layer, method = layer or self.service.first_layer, method or "gradcam"  # chosen before there was a choice
            heatmap = self.service.heatmap(case, _patient(age, sex, site), layer, method)
            return _of(token, words.pictures_html(case, heatmap))
        except KitError:
            return NO_PICTURES  # the answer above says what is wrong with the very same values


def _patient(age: str, sex: str, site: str) -> Patient:
    """What the form says; an age that is no number is refused by the encoder, in words."""
    return Patient(age.strip() or None, *(None if value in (UNKNOWN, None, "") else value for value in (sex, site)))


def _of(token: str, html: str) -> str:
    """HTML that tells which image it is about, so that it always differs from another image's."""
    return f'<div data-case="{escape(token)}">{html}</div>'


def _share(percent: float | None) -> float:
    """A share of melanomas from percents; the slider keeps within bounds, a typed number may not."""
    share = (START_PREVALENCE if percent is None else float(percent)) / 100
    return min(max(share, 0.001), 0.999)


def build_page(page: Page) -> gr.Blocks:
    """All controls and what they trigger."""
    service = page.service
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=False) as blocks:
        gr.HTML(words.BANNER, elem_id="ml-banner")
        gr.HTML(_header(service))
        with gr.Row(elem_id="ml-main", equal_height=False):
            with gr.Column(scale=5, min_width=320, elem_id="ml-left"):
                picker = _picker(page)
                form = _form(service)
            with gr.Column(scale=8, min_width=340, elem_id="ml-right"):
                answer = gr.HTML(words.EMPTY if service.reads_images else "", elem_id="ml-answer")
                with gr.Column(visible=service.reads_images, elem_id="ml-look"):
                    gr.HTML("<h3>Where it looked</h3>")
                    with gr.Row():
                        looks = [gr.Dropdown(label=label, filterable=False) for label in ("Layer, early to late", "Method")]
                    pictures = gr.HTML(NO_PICTURES, elem_id="ml-pictures")
                meaning = gr.HTML("", elem_id="ml-meaning")
        gr.HTML(_footer(service))
        _wire(blocks, page, picker, form, looks, [answer, meaning], pictures)
    return blocks


def _wire(blocks: gr.Blocks, page: Page, picker, form: dict, looks: list, answer: list, pictures: gr.HTML) -> None:
    """Which control asks for what."""
    private = {"api_visibility": "private", "show_progress": "minimal"}
    one_by_one = {"concurrency_limit": 1}  # in the order in which they were asked: the newest answer must come last
    patient = [form[name] for name in ("age", "sex", "site")]
    asked = {"fn": page.answer, "inputs": [picker, *patient, form["tta"], form["prevalence"]], "outputs": answer, **one_by_one}
    drawn = {"fn": page.pictures, "inputs": [picker, *patient, *looks], "outputs": pictures, **one_by_one}
    filled = picker.change(page.patient_of, picker, patient, **private)
    filled.then(**asked, **private)
    filled.then(**drawn, **private)
    # A text box tells of typing by "change" alone, reliably; the others also "change" when an example fills them in.
    changed = [form["age"].change, form["sex"].input, form["site"].input]
    every = {"trigger_mode": "multiple", **private}  # "always_last" loses the last of two quick changes
    gr.on([*changed, form["tta"].input, form["prevalence"].input], **asked, **every)
    gr.on([*changed, *(control.input for control in looks)], **drawn, **every)
    blocks.load(page.choices, None, [*looks, form["tta"]], **private)
    if not page.service.reads_images:
        blocks.load(**asked, **private)


def _picker(page: Page) -> gr.HTML:
    """Drop zone and examples. The file goes to a route that keeps it in memory; only a name for it comes back as the value."""
    buttons = "".join(
        f'<button type="button" data-example="{token}" title="{escape(name)}" aria-label="{escape(name)}">'
        f'<img alt="" src="api/examples/{token}"></button>'
        for token, name in page.names.items()
    )
    template = (FOLDER / "picker.html").read_text(encoding="utf-8").replace("@buttons", buttons).replace("@reads", READS)
    template = template.replace("@offer", OFFERS[page.synthetic])
    template = template.replace("@megabytes", f"{MAX_BYTES / 1024**2:.0f}")
    script = (FOLDER / "picker.js").read_text(encoding="utf-8").replace("@max", json.dumps(MAX_BYTES))
    return gr.HTML(
        "", html_template=template, js_on_load=script, elem_id="ml-picker", visible=page.service.reads_images,
        apply_default_css=False,
    )  # fmt: skip


def _form(service: Service) -> dict:
    """Patient and settings."""
    encoder, metadata = service.encoder, service.reads_metadata
    with gr.Group(visible=metadata, elem_classes="ml-group", elem_id="ml-patient"):
        gr.HTML('<h3>Patient <span class="ml-soft">each may stay unknown</span></h3>', padding=True)
        # Gradio's own Number would send 0 for a field that was never filled in.
        age = gr.Textbox("", label="Age in years", placeholder=UNKNOWN, max_lines=1, max_length=8, elem_id="ml-age")
        sex = gr.Dropdown([UNKNOWN, *(encoder.sexes if metadata else ())], value=UNKNOWN, label="Sex", filterable=False)
        site = gr.Dropdown([UNKNOWN, *(encoder.sites if metadata else ())], value=UNKNOWN, label="Site", filterable=False)
    with gr.Group(elem_classes="ml-group", elem_id="ml-settings"):
        gr.HTML("<h3>How to read the answer</h3>", padding=True)
        prevalence = gr.Slider(
            0.5, 50, START_PREVALENCE, step=0.1, label="Prevalence, % of lesions that are melanomas",
            info="about 2 in ISIC 2020, 11 in HAM10000; a referral clinic has more than a screening",
        )  # fmt: skip
        tta = gr.Checkbox(label="Average eight flips and turns", interactive=False, visible=service.reads_images)
    return {"age": age, "sex": sex, "site": site, "prevalence": prevalence, "tta": tta}


def _header(service: Service) -> str:
    settings = service.run.settings
    reads = {"image+metadata": "image, age, sex and site", "image": "the image alone", "metadata": "age, sex and site alone"}
    return f"""<header class="ml-header"><h1>One lesion, one answer, and what it is worth</h1>
        <p>{escape(settings.backbone)} on {escape(settings.source)} cases, reads {reads[settings.modalities]}; answered by
        {BACKENDS[service.backend]}. Run <code>{escape(service.run.path.name)}</code></p></header>"""


def _footer(service: Service) -> str:
    return f"""<footer class="ml-footer">Uploads are read in memory, never written to disk or
        logs, and forgotten after half an hour or when you leave. Nothing is loaded from other computers. For programs:
        <a href="api/facts">api/facts</a>, POST api/predict.<br>{escape(licence_of(service.run.settings.source))}.</footer>"""
