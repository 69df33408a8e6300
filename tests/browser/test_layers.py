"""LayerExplorer in a file without kernel and network: its pixels, numbers and keys against the library."""

import base64
import io
import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from melanoma_lib.data.images import read_square
from melanoma_lib.explain.cam import resize_heatmap
from melanoma_lib.explain.figures import SIGNED
from melanoma_lib.inference import predict_logits
from melanoma_lib.widgets.layer_states import choose_cases, outcome, recorded_metadata
from melanoma_lib.widgets.layers import SIDE, LayerExplorer
from tests.browser.lab import watch_faults
from tests.widgets.test_layers import answered_cases

pytest_plugins = ["tests.browser.lab"]

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
from playwright.sync_api import Page, expect, sync_playwright  # noqa: E402


@pytest.fixture(scope="module")
def explorer(tiny_run) -> LayerExplorer:
    cases = answered_cases(tiny_run)
    return LayerExplorer(tiny_run, choose_cases(cases, tiny_run.operating_point.threshold, 4))


@pytest.fixture(scope="module")
def saved(explorer, lab, tmp_path_factory):
    """The explorer opened from a file, offline; it may ask for nothing."""
    path = explorer.save_page(tmp_path_factory.mktemp("page") / "page.html", "Layers")
    launch = {"executable_path": lab.browser, "args": ["--no-sandbox"]}
    with sync_playwright() as playwright, playwright.chromium.launch(**launch) as browser:
        page = browser.new_context(offline=True, viewport={"width": 1180, "height": 1100}).new_page()
        faults = watch_faults(page)
        page.goto(path.as_uri())
        page.locator(".mk-l-pictures[data-drawn]").wait_for()
        yield page
        assert faults == []


@pytest.fixture
def page(saved: Page, explorer) -> Page:
    """The page as it was opened."""
    saved.reload()
    saved.locator(".mk-l-pictures[data-drawn]").wait_for()
    return saved


def drawn(page: Page) -> dict:
    """What the page says that its pictures show."""
    return json.loads(page.locator(".mk-l-pictures").get_attribute("data-drawn"))


def pixels(page: Page, index: int) -> np.ndarray:
    """What a canvas holds, shape ``(SIDE, SIDE, 3)``, from 0 to 255."""
    png = page.locator(".mk-l-panel canvas").nth(index).evaluate("canvas => canvas.toDataURL()")
    picture = Image.open(io.BytesIO(base64.b64decode(png.partition(",")[2]))).convert("RGB")
    return np.asarray(picture).astype(float)


def row_of(explorer: LayerExplorer, image_id: str) -> pd.Series:
    return explorer.table[explorer.table["image_id"] == image_id].iloc[0]


def overlay(explorer: LayerExplorer, shown: dict, letter: str, limit: float | None = None) -> np.ndarray:
    """A map over the grey image as explain.figures draws it, without lines."""
    grey = (read_square(row_of(explorer, shown["case"])["image_path"], SIDE).mean(axis=2) + 100) * 255 / 355
    key = shown[f"method_{letter}"], shown[f"layer_{letter}"], shown["direction"]
    values = explorer.maps_of(shown["case"])[key].values
    shares = resize_heatmap(values, SIDE) / (limit or np.abs(values).max())
    colours = SIGNED((shares + 1) / 2)
    alpha = colours[..., 3:] * shown["opacity"]
    return grey[..., None] * (1 - alpha) + 255 * colours[..., :3] * alpha


def choose(page: Page, label: str, value: str) -> None:
    page.get_by_label(label, exact=True).select_option(value)


def test_every_pixel_is_the_map_over_the_image(page, explorer):
    page.get_by_label("half-height lines").uncheck()
    page.get_by_label("lesion outline").uncheck()
    layers = list(explorer.layers)
    for method, layer, direction in [("gradcam", layers[0], "1"), ("layercam", layers[-1], "-1"), ("eigencam", layers[1], "-1")]:
        choose(page, "method A", method)
        choose(page, "layer A", layer)
        choose(page, "direction", direction)
        found, expected = pixels(page, 1), overlay(explorer, drawn(page), "a")
        # JPEG and one byte a point: a few of 255 grey values
        assert np.abs(found - expected).mean() < 2
        assert np.quantile(np.abs(found - expected), 0.999) < 12
    slider = page.get_by_label("opacity", exact=True)
    slider.press("Home")
    assert drawn(page)["opacity"] == 0
    grey = pixels(page, 1)
    assert np.ptp(grey, axis=2).max() <= 1


def test_one_scale_for_both_maps_pales_the_smaller(page, explorer):
    page.get_by_label("half-height lines").uncheck()
    page.get_by_label("lesion outline").uncheck()
    layers = list(explorer.layers)
    choose(page, "layer A", layers[0])
    choose(page, "layer B", layers[-1])
    choose(page, "scale", "one")
    shown = drawn(page)
    maps = explorer.maps_of(shown["case"])
    sizes = {letter: np.abs(maps["gradcam", shown[f"layer_{letter}"], 1].values).max() for letter in "ab"}
    for index, letter in enumerate("ab"):
        expected = overlay(explorer, shown, letter, limit=max(sizes.values()))
        assert np.abs(pixels(page, index + 1) - expected).mean() < 2
    expect(page.get_by_role("group", name="map A")).to_contain_text("on a scale of ±")


def test_lines_and_outline_are_drawn_and_can_be_taken_away(page, explorer):
    dark = {}
    for lines in (True, False):
        page.get_by_label("half-height lines").set_checked(lines)
        dark[lines] = (pixels(page, 2).max(axis=2) == 0).sum()
    assert dark[True] > dark[False]
    if explorer.mask(row_of(explorer, drawn(page)["case"]), SIDE) is not None:
        with_edge = pixels(page, 0)
        page.get_by_label("lesion outline").uncheck()
        assert (pixels(page, 0) != with_edge).any()


def test_numbers_and_decision_follow_the_metadata_exactly(page, explorer, tiny_run):
    threshold, case = tiny_run.operating_point.threshold, drawn(page)["case"]
    row = row_of(explorer, case)
    image = explorer._image(row)
    rng = np.random.default_rng(0)
    for _ in range(6):
        age_index = int(rng.integers(0, 19))
        page.get_by_label("age", exact=True).fill(str(age_index))
        choose(page, "sex", str(rng.integers(0, 3)))
        choose(page, "site", str(rng.integers(0, 7)))
        shown = drawn(page)
        encoded = torch.from_numpy(tiny_run.encoder.encode(shown["age"], shown["sex"], shown["site"]))
        logit = predict_logits(explorer.model, [{"image": image, "metadata": encoded}])[0]
        value = float(page.locator("[data-number=logit]").get_attribute("data-value"))
        assert value == pytest.approx(logit, abs=1e-4)
        risk = float(page.locator("[data-number=risk]").get_attribute("data-value"))
        assert risk == pytest.approx(tiny_run.calibrator.risk(logit), abs=1e-4)
        called = outcome({"target": 1, "probability": 1 / (1 + np.exp(-logit))}, threshold) == "found"
        expect(page.locator("[data-number=decision]")).to_have_text("suspicious" if called else "let go")
        assert f"{100 * risk:.{1 if risk < 0.1 else 0}f}% with the age chosen" in page.get_by_role(
            "img", name="Risk by age"
        ).get_attribute("aria-label")
    page.get_by_role("button", name="Recorded values").click()
    own = recorded_metadata(row)
    assert {name: drawn(page)[name] for name in own} == own


def test_a_saved_page_says_what_was_found_when_it_was_made(page, explorer):
    page.get_by_label("age", exact=True).press("Home")
    found = explorer.check(drawn(page)["case"], None, None, None)
    told = page.get_by_role("status").filter(has_text="Maps are not computed again in this page")
    expect(told).to_contain_text(f"largest change of any of the {found['n']} maps: {100 * found['change']:.1f}%")
    choose(page, "method A", "scorecam")
    expect(page.get_by_role("group", name="map A")).to_contain_text("Not computed when this page was saved")
    choose(page, "sex", "2")
    choose(page, "site", "6")
    expect(page.get_by_role("status").filter(has_text="Computed again with these values")).to_be_visible()


def test_arrow_keys_turn_to_other_cases_with_their_own_metadata(page, explorer):
    ids = list(explorer.table["image_id"])
    pictures = page.locator(".mk-l-pictures")
    pictures.focus()
    for key, at in [("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("ArrowLeft", 0), ("ArrowLeft", 0)]:
        pictures.press(key)
        shown = drawn(page)
        assert shown["case"] == ids[at]
        own = recorded_metadata(row_of(explorer, ids[at]))
        assert {name: shown[name] for name in own} == own
    page.get_by_role("button", name="Next").click()
    assert drawn(page)["case"] == ids[1]
    choose(page, "case", ids[-1])
    expect(page.get_by_role("button", name="Next")).to_be_disabled()


def test_flags_and_words_are_those_of_the_map(page, explorer):
    layers = list(explorer.layers)
    choose(page, "method B", "eigencam")
    panel = page.get_by_role("group", name="map B")
    for case in explorer.table["image_id"]:
        choose(page, "case", case)
        for layer in layers:
            choose(page, "layer B", layer)
            values, doubtful = explorer.maps_of(case)["eigencam", layer, 1]
            assert panel.get_by_text("Sign doubtful").count() == int(doubtful)
            expect(panel).to_contain_text("Both directions have the very same map.")
            assert f"±{float(f'{np.abs(values).max():.2g}'):g}" in panel.inner_text().replace(",", "")
    choose(page, "method B", "gradcam")
    expect(panel).not_to_contain_text("very same map")


@pytest.mark.parametrize("width", [1180, 820, 600])
def test_nothing_sticks_out_and_everything_has_a_name(page, width):
    page.set_viewport_size({"width": width, "height": 1100})
    assert page.locator(".mk").evaluate("box => box.scrollWidth <= box.clientWidth")
    boxes = page.evaluate(
        "() => [...document.querySelectorAll('.mk-l-panel canvas')].map((one) => Math.round(one.getBoundingClientRect().top))"
    )
    assert len(set(boxes)) == 1  # the three pictures stand in line
    names = page.evaluate("() => [...document.querySelectorAll('.mk canvas, .mk svg')].map((e) => e.getAttribute('aria-label'))")
    assert len(names) == 6
    assert all(names)
    spoken = page.locator(".mk").evaluate("box => box.textContent")
    assert not any(word in spoken + "".join(names) for word in ("NaN", "undefined", "Infinity", "null"))
    page.set_viewport_size({"width": 1180, "height": 1100})


def test_with_only_keys_everything_can_be_reached(page):
    page.locator("body").press("Tab")
    reached = []
    for _ in range(30):
        reached.append(page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.textContent.trim()"))
        page.keyboard.press("Tab")
    for name in ("case", "direction", "opacity", "scale", "method A", "layer A", "method B", "layer B", "age", "sex", "site"):
        assert name in reached
    assert any(name.startswith("pictures") for name in reached)
