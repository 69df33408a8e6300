"""From key press to changed page: explorers in a real JupyterLab and in a file, beside a slider that redraws matplotlib.

Run it with ``python -m tests.bench.explorer_latency``. ThresholdExplorer and the slider stand in one notebook over the same
400,000 predictions; LayerExplorer shows a dozen cases of a run, the one finished last unless ``--run-dir`` names another. Files
are opened offline.
"""

import argparse
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import nbformat
import numpy as np
from playwright.sync_api import Locator, Page, sync_playwright

from melanoma_lib.runs import Run
from tests.browser.lab import BROWSERS, Lab, ask_kernel

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
    "explorer = ThresholdExplorer(targets, scores)\nexplorer",
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
        axes[1].set_title(f"sensitivity {point.sensitivity:.3f}")
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
explorer = LayerExplorer(run, run.cases().merge(run.predictions("test")[["image_id", "probability", "risk"]], on="image_id"))
""",
    "explorer",
)
BACK_AND_FORTH = ("ArrowRight",) * 10 + ("ArrowLeft",) * 10
DOWN_AND_UP = ("ArrowDown",) * 4 + ("ArrowUp",) * 4
LAYER_KEYS = {  # what is moved, the part of the page that shows it, the keys
    "case": (".mk-l-pictures", DOWN_AND_UP),
    "method A": (".mk-l-pictures", DOWN_AND_UP),
    "layer B": (".mk-l-pictures", ("ArrowUp",) * 3 + ("ArrowDown",) * 3),
    "direction": (".mk-l-pictures", ("ArrowDown", "ArrowUp")),
    "opacity": (".mk-l-pictures", tuple(reversed(BACK_AND_FORTH))),
    "age": (".mk-l-metadata", ("ArrowRight",) * 4 + ("ArrowLeft",) * 4),
    "sex": (".mk-l-metadata", ("Home", "End")),
    "site": (".mk-l-metadata", ("Home", "End")),
}
# Timed from the browser's own time of the key, so that waiting counts: to the end of the change, and to the frame that shows it.
WATCH = """([target, words]) => {
  window.times = [];
  window.timeKey ??= (event) => {
    const observer = new MutationObserver(() => {
      if (!document.querySelector(window.watched).textContent.includes(window.awaited)) return;
      const changed = performance.now() - event.timeStamp;
      observer.disconnect();
      requestAnimationFrame(() => {
        const channel = new MessageChannel();
        channel.port1.onmessage = () => window.times.push([changed, performance.now() - event.timeStamp]);
        channel.port2.postMessage(0);
      });
    });
    const anything = { subtree: true, childList: true, characterData: true, attributes: true };
    observer.observe(document.querySelector(window.watched), anything);
  };
  document.addEventListener("keydown", window.timeKey, true);
  [window.watched, window.awaited] = [target, words];
}"""


def press(
    page: Page, control: Locator, watched: str, n: int, keys: Sequence[str] = BACK_AND_FORTH, words: str = ""
) -> np.ndarray:
    """Milliseconds to the changed part of the page, holding these words, and to its frame, shape ``(n, 2)``."""
    control.press(keys[-1])  # so that the first key changes something wherever the control stood
    page.evaluate(WATCH, [watched, words])
    for number, key in enumerate(islice(cycle(keys), n)):
        control.press(key)
        page.wait_for_function(f"window.times.length > {number}", polling=20)
    return np.array(page.evaluate("window.times"))


def press_layers(page: Page, n: int) -> dict[str, np.ndarray]:
    """Times of everything that LayerExplorer lets one move."""
    page.locator(".mk-l-pictures[data-drawn]").wait_for()
    return {
        name: press(page, page.get_by_label(name, exact=True), watched, n, keys) for name, (watched, keys) in LAYER_KEYS.items()
    }


def report(name: str, times: np.ndarray) -> str:
    """One line: quantiles of the change and the median of the frame."""
    quantiles = " ".join(f"{value:8.1f}" for value in np.quantile(times[:, 0], [0.1, 0.5, 0.9, 1.0]))
    return f"{name:44}{quantiles}{np.median(times[:, 1]):12.1f}{len(times):8}"


def head(title: str) -> str:
    """Title and names of the columns that `report` fills."""
    return f"{title}\n{'':44}{'10%':>8} {'median':>8} {'90%':>8} {'most':>8}{'frame':>12}{'keys':>8}"


@contextmanager
def notebook(root: Path, browser: str, cells: Sequence[str]) -> Iterator[Page]:
    """A page of a JupyterLab of its own in which these cells have run."""
    root.mkdir()
    path = root / "latency.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)
    (root / "lab").mkdir()
    server = Lab(root / "lab", browser)
    try:
        server.start()
        with server.open(path, height=1800) as page:
            yield page
    finally:
        server.stop()


@contextmanager
def offline(path: Path, browser: str) -> Iterator[Page]:
    """A page opened from a file, without a network."""
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"]) as opened:
        page = opened.new_context(offline=True, bypass_csp=True, viewport={"width": 1280, "height": 1200}).new_page()
        page.goto(path.as_uri())
        yield page


def measure_threshold(root: Path, browser: str, n: int, n_redrawn: int = 30) -> None:
    """ThresholdExplorer in a notebook and in a file, beside the redrawing slider."""
    with notebook(root, browser, CELLS) as page:
        explorer = press(page, page.get_by_label("threshold", exact=True), ".mk-t-groups", n)
        handle = page.locator(".widget-slider [role=slider], .widget-slider .noUi-handle").first
        ask_kernel(page, f"str(explorer.save_page({str(root / 'page.html')!r}, 'Threshold'))")
        redrawn = press(page, handle, ".jupyter-widgets-output-area, .jp-OutputArea-child .widget-output", n_redrawn)
    with offline(root / "page.html", browser) as page:
        saved = press(page, page.get_by_label("threshold", exact=True), ".mk-t-groups", n)
    print(head("key press to changed page, 400,000 predictions, chromium, ms"))
    print(report("ThresholdExplorer in JupyterLab", explorer))
    print(report("ThresholdExplorer in a file, offline", saved))
    print(report("JupyterLab, a slider that redraws matplotlib", redrawn))
    print(f"in JupyterLab, ratio of medians: {median(redrawn[:, 0]) / median(explorer[:, 0]):.0f}")


def layer_cells(run: Path) -> list[str]:
    """The cells that show a run's LayerExplorer, wherever their kernel is started."""
    return [cell.replace("{run!r}", repr(str(run.resolve()))) for cell in LAYER_CELLS]


def measure_layers(root: Path, browser: str, run: Run, n: int, n_again: int = 10) -> None:
    """LayerExplorer in a notebook and in a file; and how long the kernel takes to compute all maps again."""
    with notebook(root, browser, layer_cells(run.path)) as page:
        ask_kernel(page, f"str(explorer.save_page({str(root / 'page.html')!r}, 'Layers'))")
        live = press_layers(page, n)
        page.get_by_role("button", name="Next").click()
        again = press(page, page.get_by_label("age", exact=True), ".mk-l-told", n_again, ("ArrowLeft",), "Computed again")
    with offline(root / "page.html", browser) as page:
        saved = press_layers(page, n)
    print(head(f"key press to changed page, LayerExplorer, {run.path.name}, chromium, ms"))
    for place, found in (("JupyterLab", live), ("a file, offline", saved)):
        for name, times in found.items():
            print(report(f"{name}, in {place}", times))
    print(report("all maps computed again by the kernel", again))
    print(f"in JupyterLab, median over all: {median(np.concatenate([times[:, 0] for times in live.values()])):.1f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run-dir", type=Path, help="run for LayerExplorer; by default the one finished last in runs/")
    parser.add_argument("--only", choices=("threshold", "layers"), help="measure one explorer only")
    parser.add_argument("--keys", type=int, default=200, help="key presses of each kind")
    options = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"no browser: install one of {', '.join(BROWSERS)}")
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "layers":
            measure_threshold(Path(folder) / "threshold", browser, options.keys)
        if options.only != "threshold":
            run = Run(options.run_dir) if options.run_dir else Run.latest("runs")
            measure_layers(Path(folder) / "layers", browser, run, options.keys)


if __name__ == "__main__":
    main()
