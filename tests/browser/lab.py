"""A real JupyterLab in a real browser, and pages opened from a file, for tests that look at what a reader sees.

One server serves the whole session; each notebook gets a browser, a kernel and a copy of its own. Limits are generous, since a
loaded machine is no failure; every wait ends with what it waits for, so that a quiet machine is fast.
"""

import ast
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import nbformat

from melanoma_lib.settings import ENV_PREFIX

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 180.0  # seconds for whatever a loaded machine may take: start, kernel, a cell
SETTINGS = {  # no dialog about news, no request for updates; every output is in the page, scrolled to or not
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none", "autoStartDefaultKernel": True},
}
PANEL = "window.jupyterapp?.shell?.currentWidget"
KERNEL = f"{PANEL}?.sessionContext?.session?.kernel"
ERRORS_OF_CELLS = f"""[...{PANEL}.content.model.cells].flatMap((cell) => cell.toJSON().outputs ?? [])
    .filter((output) => output.output_type === "error").map((output) => output.traceback.join("\\n"))"""


class Lab:
    """A running JupyterLab that writes into ``root`` alone, looked at with the chromium at ``browser``."""

    def __init__(self, root: Path, browser: str) -> None:
        self.browser, self.files, self.log, self.url = browser, root / "files", root / "server.log", ""
        self.files.mkdir()
        for name, values in SETTINGS.items():
            path = root / f"config/lab/user-settings/@jupyterlab/{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        self._runtime, self._token = root / "runtime", secrets.token_hex(16)
        # The developer's own settings stay out, the kit's and Jupyter's alike.
        kept = {key: value for key, value in os.environ.items() if not key.startswith((ENV_PREFIX, "JUPYTER"))}
        folders = {f"JUPYTER_{name.upper()}_DIR": str(root / name) for name in ("config", "data", "runtime")}
        options = {
            "IdentityProvider.token": self._token,
            "LabApp.expose_app_in_browser": True,
            "ServerApp.allow_root": True,
            "ServerApp.open_browser": False,
            "ServerApp.root_dir": self.files,
        }
        command = [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())]
        environment = kept | folders | {"IPYTHONDIR": str(root / "ipython")}
        with self.log.open("wb") as log:
            self._server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def start(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._server.poll() is None:
            # It takes the next port if one is in use, so ask for the one it got.
            for facts in self._runtime.glob(f"jpserver-{self._server.pid}.json"):
                with suppress(OSError, ValueError):  # half written, or not yet listening
                    self.url = json.loads(facts.read_text())["url"]
                    urlopen(f"{self.url}api/status?token={self._token}", timeout=PATIENCE).close()
                    return
            time.sleep(0.1)
        raise RuntimeError(f"JupyterLab did not start within {PATIENCE:g} s:\n{self.log.read_text()[-3000:]}")

    def stop(self) -> None:
        self._server.terminate()
        self._server.wait(PATIENCE)

    @contextmanager
    def open(self, notebook: Path, *, height: int = 900) -> Iterator:
        """The page of a copy of a notebook whose cells have run; fails if it asked for another machine or a script raised."""
        from playwright.sync_api import expect

        folder = self.files / secrets.token_hex(4)
        folder.mkdir()
        shutil.copy(notebook, folder)
        with running_browser(self.browser) as browser:
            page = browser.new_page(viewport={"width": 1280, "height": height})
            page.set_default_timeout(PATIENCE * 1000)
            expect.set_options(timeout=PATIENCE * 1000)
            faults = watch_faults(page)
            page.goto(f"{self.url}lab/tree/{folder.name}/{quote(notebook.name)}?reset&token={self._token}")
            page.wait_for_function(f"{PANEL}?.sessionContext?.isReady && {KERNEL}?.status === 'idle'")
            page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells').then(() => { window.ran = true; }); }")
            page.wait_for_function(f"window.ran && {KERNEL}.status === 'idle'")
            assert page.evaluate(ERRORS_OF_CELLS) == []
            yield page
            page.evaluate(f"{PANEL}.sessionContext.shutdown()")  # it may hold a GB
        assert not faults, "the page misbehaved:\n" + "\n".join(faults)


def watch_faults(page) -> list[str]:
    """Cut the page off from other machines; returns a list that fills with what it asks of them and with script errors."""
    faults: list[str] = []

    def refuse(route) -> None:
        faults.append(f"asked for {route.request.url}")
        route.abort()

    page.route(re.compile(r"^https?://(?!(127\.0\.0\.1|localhost)[:/])"), refuse)
    page.on("pageerror", lambda error: faults.append(f"script error: {error}"))
    return faults


def ask_kernel(page, expression: str) -> Any:
    """Value of an expression in the kernel of the notebook in view; its repr must be a literal."""
    script = f"""async (expression) => {{
        const future = {KERNEL}.requestExecute({{ code: "", user_expressions: {{ value: expression }} }});
        return (await future.done).content.user_expressions.value;
    }}"""
    answer = page.evaluate(script, expression)
    assert answer["status"] == "ok", f"{expression}: {answer}"
    return ast.literal_eval(answer["data"]["text/plain"])


def expect_kernel(page, expression: str, wanted: Any) -> None:
    """The kernel's value comes to be ``wanted``: a page holds a change back while the kernel is busy with the one before."""
    deadline = time.monotonic() + PATIENCE
    while (found := ask_kernel(page, expression)) != wanted and time.monotonic() < deadline:
        page.wait_for_timeout(100)
    assert found == wanted, f"{expression} in the kernel"


_running: list = []  # the browser whose pages are open: there can be one Playwright at a time


@contextmanager
def running_browser(path: str) -> Iterator:
    """The browser that is open already, or a new one, which closes with the block: its event loop would run under other tests."""
    if _running:
        yield _running[0]
        return
    from playwright.sync_api import sync_playwright

    launch = {"executable_path": path, "args": ["--no-sandbox"], "timeout": PATIENCE * 1000}
    with sync_playwright() as playwright, playwright.chromium.launch(**launch) as browser:
        _running.append(browser)
        try:
            yield browser
        finally:
            _running.clear()


def notebook_of(folder: Path, *cells: str) -> Path:
    path = folder / "page.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)
    return path


@contextmanager
def offline(browser: str, path: Path, **options: Any) -> Iterator:
    """A page opened from a file, without a network. Leaving the block fails if it asked for anything, or its scripts raised."""
    with running_browser(browser) as opened:
        page = opened.new_context(**{"offline": True, "viewport": {"width": 1180, "height": 1100}} | options).new_page()
        faults = watch_faults(page)
        page.goto(path.as_uri())
        page.locator(".mk").first.wait_for()
        yield page
    assert faults == []


def assert_legible(page: Any, *selectors: str) -> None:
    """Text against its paper reaches the contrast of WCAG AA, 4.5 to 1, in both themes."""
    from playwright.sync_api import expect

    style = "(name) => [...document.querySelectorAll(name)].map((one) => getComputedStyle(one))"
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        expect(page.locator("html.mk-dark")).to_have_count(int(scheme == "dark"))  # the page hears of it a frame later
        (paper,) = page.evaluate(f"({style})('.mk').map((one) => one.backgroundColor)")
        for selector in selectors:
            inks = page.evaluate(f"({style})('{selector}').map((one) => one.{'fill' if 'text' in selector else 'color'})")
            for ink in set(inks):
                low, high = sorted((luminance(paper), luminance(ink)))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (scheme, selector, ink)
    page.emulate_media(color_scheme="light")


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)`` after WCAG 2."""
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def press(page, label: str, key: str, times: int = 1) -> None:
    control = page.get_by_label(label, exact=True)
    control.focus()
    for _ in range(times):
        control.press(key)
