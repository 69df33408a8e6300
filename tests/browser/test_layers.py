"""LayerExplorer in a file without kernel and network, against the library; and in a real JupyterLab, in step with its kernel."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
from playwright.sync_api import expect

from melanoma_lib.data.images import read_square
from melanoma_lib.explain.cam import resize_heatmap
from melanoma_lib.explain.figures import SIGNED
from melanoma_lib.inference import predict_logits
from melanoma_lib.widgets.layers import SIDE, LayerExplorer, choose_cases, recorded_metadata
from tests.browser.lab import ask_kernel, expect_kernel, notebook_of, offline

CELL = """from melanoma_lib.runs import Run
from melanoma_lib.widgets import LayerExplorer
run = Run({path!r})
explorer = LayerExplorer(run, run.cases("test"))
explorer"""


@pytest.fixture(scope="module")
def explorer(tiny_run):
    return LayerExplorer(tiny_run, choose_cases(tiny_run.cases("test"), tiny_run.operating_point.threshold, 1))


@pytest.fixture(scope="module")
def page(explorer, chromium, tmp_path_factory):
    path = explorer.save_page(tmp_path_factory.mktemp("page") / "page.html", "Layers")
    with offline(chromium, path) as page:
        page.locator(".mk-l-pictures[data-drawn]").wait_for()
        yield page


# Pairs of texts, controls and pictures that lie on each other, none of them within the other.
OVERLAPS = """() => {
  const boxes = [], add = (node, name, rect) => rect.width > 1 && rect.height > 1 && boxes.push({ node, name, rect });
  const walker = document.createTreeWalker(document.querySelector(".mk"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode, range = document.createRange();
    if (!text.textContent.trim() || text.parentElement.closest("select, .mk-spoken")) continue;
    range.selectNodeContents(text);
    for (const rect of range.getClientRects()) add(text, text.textContent.trim(), rect);
  }
  const parts = document.querySelectorAll(".mk :is(select, button, input, canvas, svg)");
  parts.forEach((node) => add(node, node.tagName, node.getBoundingClientRect()));
  const across = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left);
  const down = (a, b) => Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
  return boxes.flatMap((a, i) => boxes.slice(i + 1).filter((b) => !a.node.contains(b.node) && !b.node.contains(a.node)
    && across(a.rect, b.rect) > 2 && down(a.rect, b.rect) > 3).map((b) => [a.name, b.name]));
}"""


def drawn(page):
    """What the page says that its pictures show."""
    return json.loads(page.locator(".mk-l-pictures").get_attribute("data-drawn"))


def pixels(page):
    """What the canvas of the first map holds, shape ``(SIDE, SIDE, 3)``, from 0 to 255."""
    png = page.locator(".mk-l-panel canvas").nth(1).evaluate("canvas => canvas.toDataURL()")
    picture = Image.open(io.BytesIO(base64.b64decode(png.partition(",")[2]))).convert("RGB")
    return np.asarray(picture).astype(float)


def overlay(explorer, shown):
    """The first map over the grey image as explain.figures draws it, without lines."""
    path = explorer.table.set_index("image_id")["image_path"][shown["case"]]
    grey = (read_square(path, SIDE).mean(axis=2) + 100) * 255 / 355
    values = explorer.maps[shown["case"]][shown["method_a"], shown["layer_a"], shown["direction"]].values
    colours = SIGNED((resize_heatmap(values, SIDE) / np.abs(values).max() + 1) / 2)
    alpha = colours[..., 3:] * shown["opacity"]
    return grey[..., None] * (1 - alpha) + 255 * colours[..., :3] * alpha


def choose(page, **choices):
    for label, value in choices.items():
        page.get_by_label(label.replace("_", " "), exact=True).select_option(str(value))


def test_every_pixel_is_the_map_over_the_image(page, explorer):
    page.get_by_label("half-height lines").uncheck()
    page.get_by_label("lesion outline").uncheck()
    layers = list(explorer.layers)
    for method, layer, direction in [("gradcam", layers[0], 1), ("layercam", layers[-1], -1), ("eigencam", layers[1], -1)]:
        choose(page, method_A=method, layer_A=layer, direction=direction)
        found, expected = pixels(page), overlay(explorer, drawn(page))
        # JPEG and one byte a point: a few of 255 grey values
        assert np.abs(found - expected).mean() < 2
        assert np.quantile(np.abs(found - expected), 0.999) < 12


def test_numbers_and_decision_follow_the_metadata_exactly(page, explorer, tiny_run):
    threshold, case = tiny_run.operating_point.threshold, drawn(page)["case"]
    row = explorer.table[explorer.table["image_id"] == case].iloc[0]
    image = tiny_run.batch(row.to_frame().T).images
    rng = np.random.default_rng(0)
    for _ in range(6):
        page.get_by_label("age", exact=True).fill(str(rng.integers(0, 19)))
        choose(page, sex=rng.integers(0, 3), site=rng.integers(0, 7))
        shown = drawn(page)
        encoded = torch.from_numpy(tiny_run.encoder.encode(shown["age"], shown["sex"], shown["site"]))
        logit = predict_logits(explorer.model, [{"image": image, "metadata": encoded}])[0]
        value = float(page.locator("[data-number=logit]").get_attribute("data-value"))
        assert value == pytest.approx(logit, abs=1e-4)
        risk = float(page.locator("[data-number=risk]").get_attribute("data-value"))
        assert risk == pytest.approx(tiny_run.calibrator.risk(logit), abs=1e-4)
        called = 1 / (1 + np.exp(-logit)) >= threshold
        expect(page.locator("[data-number=decision]")).to_have_text("flagged" if called else "not flagged")
    page.get_by_role("button", name="Recorded values").click()
    own = recorded_metadata(row)
    assert {name: drawn(page)[name] for name in own} == own


@pytest.mark.parametrize("width", [1280, 980, 900, 600])  # JupyterLab's sidebar leaves 900 of a projector's 1280 pixels
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_lies_on_anything(page, width, theme):
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 800})
    for name in page.get_by_label("case", exact=True).locator("option").evaluate_all("found => found.map((one) => one.value)"):
        page.get_by_label("case", exact=True).select_option(name)
        assert page.evaluate(OVERLAPS) == []
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1180, "height": 1100})


@pytest.mark.parametrize("width", [900, 600])  # JupyterLab's sidebar leaves 900 of a projector's 1280 pixels
def test_nothing_sticks_out_and_everything_has_a_name_and_is_reached_by_keys(page, width):
    page.set_viewport_size({"width": width, "height": 1100})
    assert page.locator(".mk").evaluate("box => box.scrollWidth <= box.clientWidth")
    names = page.evaluate("() => [...document.querySelectorAll('.mk canvas, .mk svg')].map((e) => e.getAttribute('aria-label'))")
    assert len(names) == 6 and all(names)
    assert not re.search("NaN|Infinity|undefined|null", page.locator(".mk").inner_text())
    page.locator("body").press("Tab")
    reached = set()
    for _ in range(30):
        reached.add(page.evaluate("document.activeElement.ariaLabel"))
        page.keyboard.press("Tab")
    assert reached >= {"case", "direction", "opacity", "scale", "method A", "layer A", "method B", "age", "sex", "site"}


def test_page_and_kernel_keep_step(lab, tiny_run, tmp_path):
    with lab.open(notebook_of(tmp_path, CELL.format(path=str(tiny_run.path))), height=1300) as page:
        page.locator(".mk-l-pictures[data-drawn]").wait_for()
        before = page.locator("[data-number=risk]").get_attribute("data-value")
        page.get_by_label("age", exact=True).press("ArrowLeft")
        expect(page.locator("[data-number=risk]")).not_to_have_attribute("data-value", before)
        expect_kernel(page, "explorer.shown", drawn(page))
        risk = ask_kernel(page, "explorer.risk(*[explorer.shown[name] for name in ('age', 'sex', 'site')])")
        assert float(page.locator("[data-number=risk]").get_attribute("data-value")) == pytest.approx(risk, abs=1e-4)

        case = ask_kernel(page, "explorer.table['image_id'].iloc[2]")
        ask_kernel(page, f"explorer.show(case={case!r}, method_b='layercam', direction=-1, opacity=0.5)")
        expect(page.get_by_label("case", exact=True)).to_have_value(case)
        expect(page.get_by_label("method B", exact=True)).to_have_value("layercam")
        assert (drawn(page)["opacity"], drawn(page)["direction"]) == (0.5, -1)
