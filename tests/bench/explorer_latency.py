"""From key press to changed page: ThresholdExplorer in a real JupyterLab, beside a slider that redraws matplotlib.

    python -m tests.bench.explorer_latency

Both stand in one notebook over the same 400,000 predictions.
"""

import shutil
import tempfile
from itertools import cycle, islice
from pathlib import Path

import nbformat
import pandas as pd
from playwright.sync_api import Locator, Page

from tests.bench.turns import options
from tests.browser.lab import BROWSERS, Lab

CELLS = (
    """
import matplotlib.pyplot as plt
import numpy as np
from ipywidgets import FloatSlider, Output, VBox
from melanoma_lib.evaluation import OperatingCurve
from melanoma_lib.widgets import ThresholdExplorer
rng = np.random.default_rng(0)
targets = (rng.random(400_000) < 0.08).astype(int)
scores = 1 / (1 + np.exp(-rng.normal(size=400_000) - 1.8 * targets + 0.7))
""",
    "ThresholdExplorer(targets, scores)",
    """
curve, shown = OperatingCurve(targets, scores), Output()
slider = FloatSlider(0.5, min=0, max=1, step=0.001, description="redrawn")

def redraw(change):
    point = curve.at(slider.value)
    with shown:
        shown.clear_output(wait=True)
        _, axes = plt.subplots(1, 2, figsize=(9, 3.5))
        for value in (1, 0):
            axes[0].hist(scores[targets == value], 60, density=True, alpha=0.5)
        axes[1].plot(1 - point.specificity, point.sensitivity, "o")
        plt.show()

slider.observe(redraw, "value")
redraw(None)
VBox([slider, shown])
""",
)
BACK_AND_FORTH = ("ArrowRight",) * 10 + ("ArrowLeft",) * 10
# Timed from the browser's own time of the key, so that waiting counts, to the end of the change.
WATCH = """(target) => {
  window.times = [];
  window.timeKey ??= (event) => {
    const observer = new MutationObserver(() => {
      window.times.push(performance.now() - event.timeStamp);
      observer.disconnect();
    });
    const anything = { subtree: true, childList: true, characterData: true, attributes: true };
    observer.observe(document.querySelector(window.watched), anything);
  };
  document.addEventListener("keydown", window.timeKey, true);
  window.watched = target;
}"""


def press(page: Page, control: Locator, watched: str, n: int) -> list[float]:
    """Milliseconds from each of ``n`` keys to the changed part of the page."""
    control.press(BACK_AND_FORTH[-1])  # so that the first key changes something wherever the control stood
    page.evaluate(WATCH, watched)
    for number, key in enumerate(islice(cycle(BACK_AND_FORTH), n)):
        control.press(key)
        page.wait_for_function(f"window.times.length > {number}", polling=20)
    return page.evaluate("window.times")


def main(words: list[str] | None = None) -> None:
    given = options(__doc__, words, keys=60)
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"no browser: install one of {', '.join(BROWSERS)}")
    found, notebook = {}, nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(notebook, path := Path(folder) / "latency.ipynb")
        (root := Path(folder) / "lab").mkdir()
        server = Lab(root, browser)
        try:
            server.start()
            with server.open(path, height=1800) as page:
                found["ThresholdExplorer"] = press(page, page.get_by_label("threshold", exact=True), ".mk-t-groups", given.keys)
                handle = page.locator(".widget-slider [role=slider], .widget-slider .noUi-handle").first
                drawn = ".jupyter-widgets-output-area, .jp-OutputArea-child .widget-output"
                found["slider that redraws matplotlib"] = press(page, handle, drawn, given.keys // 2)
        finally:
            server.stop()
    shown = pd.DataFrame({name: pd.Series(times).describe(percentiles=[0.1, 0.5, 0.9]) for name, times in found.items()}).T
    shown["slider's time over this"] = shown["50%"].iloc[1] / shown["50%"]
    print("key press to changed page in JupyterLab, ms")
    print(shown.drop(columns=["mean", "std"]).to_string(float_format="{:.1f}".format))


if __name__ == "__main__":
    main()
