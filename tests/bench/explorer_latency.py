"""From key press to changed page: ThresholdExplorer in a real JupyterLab and in a file, beside a slider that redraws matplotlib.

Run it with ``python -m tests.bench.explorer_latency``. Both sliders stand in one notebook over the same 400,000 predictions; the
file is opened offline.
"""

import shutil
import tempfile
from pathlib import Path
from statistics import median

import nbformat
import numpy as np
from playwright.sync_api import sync_playwright

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
# Timed from the browser's own time of the key, so that waiting counts: to the end of the change, and to the frame that shows it.
WATCH = """(target) => {
  window.times = [];
  window.timeKey ??= (event) => {
    const observer = new MutationObserver(() => {
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
  window.watched = target;
}"""


def press(page, slider, watched: str, n: int) -> np.ndarray:
    """Milliseconds to changed page and to its frame, shape ``(n, 2)``."""
    slider.focus()
    page.evaluate(WATCH, watched)
    for number in range(n):
        slider.press("ArrowRight" if number % 20 < 10 else "ArrowLeft")
        page.wait_for_function(f"window.times.length > {number}", polling=20)
    return np.array(page.evaluate("window.times"))


def report(name: str, times: np.ndarray) -> str:
    """One line: quantiles of the change and the median of the frame."""
    quantiles = " ".join(f"{value:8.1f}" for value in np.quantile(times[:, 0], [0.1, 0.5, 0.9, 1.0]))
    return f"{name:44}{quantiles}{np.median(times[:, 1]):12.1f}{len(times):8}"


def main(n: int = 200, n_redrawn: int = 30) -> None:
    """Measure and print."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"no browser: install one of {', '.join(BROWSERS)}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
        nbformat.write(notebook, root / "latency.ipynb")
        (root / "lab").mkdir()
        server = Lab(root / "lab", browser)
        try:
            server.start()
            with server.open(root / "latency.ipynb", height=1800) as page:
                explorer = press(page, page.get_by_label("threshold", exact=True), ".mk-t-groups", n)
                handle = page.locator(".widget-slider [role=slider], .widget-slider .noUi-handle").first
                ask_kernel(page, f"str(explorer.save_page({str(root / 'page.html')!r}, 'Threshold'))")
                redrawn = press(page, handle, ".jupyter-widgets-output-area, .jp-OutputArea-child .widget-output", n_redrawn)
        finally:
            server.stop()
        with (
            sync_playwright() as playwright,
            playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"]) as opened,
        ):
            page = opened.new_context(offline=True, bypass_csp=True, viewport={"width": 1280, "height": 1200}).new_page()
            page.goto((root / "page.html").as_uri())
            saved = press(page, page.get_by_label("threshold", exact=True), ".mk-t-groups", n)
    print("key press to changed page, 400,000 predictions, chromium, ms")
    print(f"{'':44}{'10%':>8} {'median':>8} {'90%':>8} {'most':>8}{'frame':>12}{'keys':>8}")
    print(report("ThresholdExplorer in JupyterLab", explorer))
    print(report("ThresholdExplorer in a file, offline", saved))
    print(report("JupyterLab, a slider that redraws matplotlib", redrawn))
    print(f"in JupyterLab, ratio of medians: {median(redrawn[:, 0]) / median(explorer[:, 0]):.0f}")


if __name__ == "__main__":
    main()
