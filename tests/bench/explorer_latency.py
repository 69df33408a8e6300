"""From key press to changed page: explorers in a real JupyterLab, beside a slider that redraws matplotlib.

    python -m tests.bench.explorer_latency --run-dir runs/mine

ThresholdExplorer and the slider stand in one notebook over the same 400,000 predictions; with a run, LayerExplorer shows a dozen
of its cases.
"""

import argparse
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

import nbformat
import pandas as pd
from playwright.sync_api import Locator, Page

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
        axes[0].axvline(slider.value)
        axes[1].plot(*curve.roc()[:2])
        axes[1].plot(1 - point.specificity, point.sensitivity, "o")
        plt.show()

slider.observe(redraw, "value")
redraw(None)
VBox([slider, shown])
""",
)
LAYER_CELLS = (
    """
from melanoma_lib.runs import Run
from melanoma_lib.widgets import LayerExplorer
run = Run({run!r})
""",
    'LayerExplorer(run, run.cases().merge(run.predictions("test")[["image_id", "probability", "risk"]], on="image_id"))',
)
BACK_AND_FORTH = ("ArrowRight",) * 10 + ("ArrowLeft",) * 10
DOWN_AND_UP = ("ArrowDown",) * 4 + ("ArrowUp",) * 4
LAYER_KEYS = {  # what is moved, the part of the page that shows it, the keys
    "case": (".mk-l-pictures", DOWN_AND_UP),
    "method A": (".mk-l-pictures", DOWN_AND_UP),
    "opacity": (".mk-l-pictures", tuple(reversed(BACK_AND_FORTH))),
    "age": (".mk-l-metadata", ("ArrowRight",) * 4 + ("ArrowLeft",) * 4),
}
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


def press(page: Page, control: Locator, watched: str, n: int, keys: Sequence[str] = BACK_AND_FORTH) -> list[float]:
    """Milliseconds from each of ``n`` keys to the changed part of the page."""
    control.press(keys[-1])  # so that the first key changes something wherever the control stood
    page.evaluate(WATCH, watched)
    for number, key in enumerate(islice(cycle(keys), n)):
        control.press(key)
        page.wait_for_function(f"window.times.length > {number}", polling=20)
    return page.evaluate("window.times")


@contextmanager
def notebook(root: Path, browser: str, cells: Sequence[str]) -> Iterator[Page]:
    """A page of a JupyterLab of its own in which these cells have run."""
    path = root / "latency.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)
    (root / "lab").mkdir(parents=True)
    server = Lab(root / "lab", browser)
    try:
        server.start()
        with server.open(path, height=1800) as page:
            yield page
    finally:
        server.stop()


def main(words: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, help="run for LayerExplorer; without one, only ThresholdExplorer is measured")
    parser.add_argument("--keys", type=int, default=60, help="key presses of each kind (default 60)")
    given = parser.parse_args(words)
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"no browser: install one of {', '.join(BROWSERS)}")
    found = {}
    with tempfile.TemporaryDirectory() as folder, notebook(Path(folder), browser, CELLS) as page:
        found["ThresholdExplorer"] = press(page, page.get_by_label("threshold", exact=True), ".mk-t-groups", given.keys)
        handle = page.locator(".widget-slider [role=slider], .widget-slider .noUi-handle").first
        drawn = ".jupyter-widgets-output-area, .jp-OutputArea-child .widget-output"
        found["slider that redraws matplotlib"] = press(page, handle, drawn, given.keys // 2)
    if given.run_dir:
        cells = [cell.replace("{run!r}", repr(str(given.run_dir.resolve()))) for cell in LAYER_CELLS]
        with tempfile.TemporaryDirectory() as folder, notebook(Path(folder), browser, cells) as page:
            page.locator(".mk-l-pictures[data-drawn]").wait_for()
            for name, (watched, keys) in LAYER_KEYS.items():
                control = page.get_by_label(name, exact=True)
                found[f"LayerExplorer, {name}"] = press(page, control, watched, given.keys, keys)
    shown = pd.DataFrame({name: pd.Series(times).describe(percentiles=[0.1, 0.5, 0.9]) for name, times in found.items()}).T
    shown["slider's time over this"] = shown.loc["slider that redraws matplotlib", "50%"] / shown["50%"]
    print(f"key press to changed page in JupyterLab, ms\n{shown.drop(columns=['mean', 'std']).to_string(float_format='{:.1f}'.format)}")


if __name__ == "__main__":
    main()
