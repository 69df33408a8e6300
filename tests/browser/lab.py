"""A real JupyterLab in a real browser, and pages opened from a file, for tests that look at what a reader sees.

One server serves the whole session; each notebook gets a browser, a kernel and a copy of its own. Limits are generous, since a
loaded machine is no failure; every wait ends with what it waits for, so that a quiet machine is fast.

PYTEST_DONT_REWRITE: the assertions say all there is to say, and a test module may import helpers before it names the plugin.
"""

import ast
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from urllib.request import urlopen

import nbformat

from melanoma_lib.settings import ENV_PREFIX, TEST_ENV_PREFIX

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 180.0  # seconds for whatever a loaded machine may take: start, kernel, a cell
CONFIGURATION = {
    # News and updates ask in a dialog over the page, and would go online.
    "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false", "checkForUpdates": False},
    # Every output is in the page, scrolled to or not; a notebook that names no kernel does not ask for one.
    "settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {
        "windowingMode": "none",
        "autoStartDefaultKernel": True,
    },
    "config/labconfig/page_config.json": {"buildCheck": False},  # takes seconds and finds nothing to do
}
FOLDERS = {
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "IPYTHONDIR": "ipython",
}
PANEL = "window.jupyterapp?.shell?.currentWidget"
KERNEL = f"{PANEL}?.sessionContext?.session?.kernel"
ERRORS_OF_CELLS = f"""() => [...{PANEL}.content.model.cells].flatMap((cell, index) => (cell.toJSON().outputs ?? [])
    .filter((output) => output.output_type === "error")
    .map((output) => `cell ${{index + 1}}: ${{output.ename}}: ${{output.evalue}}\\n${{output.traceback.join("\\n")}}`))"""


class Lab:
    """A running JupyterLab that writes into ``root`` alone, looked at with the chromium at ``browser``."""

    def __init__(self, root: Path, browser: str) -> None:
        self.browser = browser
        self.files = root / "files"
        self.files.mkdir()
        for name, values in CONFIGURATION.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(json.dumps(values))
        self.log = root / "server.log"
        self.url = ""
        self._runtime = root / FOLDERS["JUPYTER_RUNTIME_DIR"]
        self._token = secrets.token_hex(16)
        # The developer's own settings stay out, the kit's and Jupyter's alike.
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(ENV_PREFIX) or key.startswith(TEST_ENV_PREFIX)
        }
        environment = kept | {variable: str(root / folder) for variable, folder in FOLDERS.items()}
        options = {
            "IdentityProvider.token": self._token,
            "LabApp.expose_app_in_browser": True,
            "LanguageServerManager.autodetect": False,  # takes seconds
            "ServerApp.allow_root": True,
            "ServerApp.ip": "127.0.0.1",
            "ServerApp.open_browser": False,
            "ServerApp.root_dir": self.files,
            "ServerApp.terminals_enabled": False,
        }
        command = [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())]
        with self.log.open("wb") as log:
            self._server = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def start(self) -> None:
        """Wait until the server answers; a RuntimeError with the end of its log if it stops or takes too long."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._server.poll() is None:
            # It takes the next port if one is in use, so ask for the one it got.
            for facts in self._runtime.glob(f"jpserver-{self._server.pid}.json"):
                try:
                    self.url = json.loads(facts.read_text())["url"]
                    with urlopen(f"{self.url}api/status?token={self._token}", timeout=PATIENCE):
                        return
                except (OSError, ValueError):
                    pass  # half written, or not yet listening
            time.sleep(0.1)
        raise RuntimeError(f"JupyterLab did not start within {PATIENCE:g} s:\n{self.log.read_text()[-3000:]}")

    def stop(self) -> None:
        """End the server, which ends its kernels."""
        self._server.send_signal(signal.SIGTERM)
        try:
            self._server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._server.pid, signal.SIGKILL)  # kernels notice that their server is gone
            self._server.wait()

    @contextmanager
    def open(
        self,
        notebook: Path,
        *,
        run: bool = True,
        height: int = 900,
    ) -> "Iterator[Page]":
        """Open a copy of a notebook, run all its cells, and yield the page once the kernel is idle.

        The page can only reach this machine. Leaving the block fails if the page asked for another, or its scripts raised. A
        failure inside the block says where a picture of the page is.
        """
        from playwright.sync_api import expect

        folder = self.files / secrets.token_hex(4)
        folder.mkdir()
        shutil.copy(notebook, folder)
        with running_browser(self.browser) as browser:
            page = browser.new_page(viewport={"width": 1280, "height": height})
            page.set_default_timeout(PATIENCE * 1000)
            expect.set_options(timeout=PATIENCE * 1000)
            faults = watch_faults(page)
            try:
                page.goto(f"{self.url}lab/tree/{folder.name}/{quote(notebook.name)}?reset&token={self._token}")
                page.wait_for_function(f"{PANEL}?.sessionContext?.isReady && {KERNEL}?.status === 'idle'")
                if run:
                    run_all(page)
                yield page
                page.evaluate(f"{PANEL}.sessionContext.shutdown()")  # it may hold a GB
            except Exception as error:
                picture = self.log.with_name(f"{folder.name}.png")
                page.screenshot(path=picture)
                error.add_note(f"What the page showed: {picture}")
                raise
        assert not faults, "the page misbehaved:\n" + "\n".join(faults)


def watch_faults(page: "Page") -> list[str]:
    """Cut the page off from other machines; returns a list that fills with what it asks of them and with script errors."""
    faults: list[str] = []

    def refuse(route: "Route") -> None:
        faults.append(f"asked for {route.request.url}")
        route.abort()

    page.route(re.compile(r"^https?://(?!(127\.0\.0\.1|localhost)[:/])"), refuse)
    page.on("pageerror", lambda error: faults.append(f"script error: {error}"))
    return faults


def wait_idle(page: "Page") -> None:
    """Wait until the kernel has nothing left to do for the notebook in view."""
    page.wait_for_function(f"{KERNEL}.status === 'idle'")


def ask_kernel(page: "Page", expression: str) -> Any:
    """Value of an expression in the kernel of the notebook in view; its repr must be a literal."""
    script = f"""async (expression) => {{
        const future = {KERNEL}.requestExecute({{ code: "", user_expressions: {{ value: expression }} }});
        return (await future.done).content.user_expressions.value;
    }}"""
    answer = page.evaluate(script, expression)
    assert answer["status"] == "ok", f"{expression}: {answer['ename']}: {answer['evalue']}"
    return ast.literal_eval(answer["data"]["text/plain"])


def keep_kernel_busy(page: "Page", seconds: float) -> None:
    """Let the kernel of the notebook in view hear nothing for a while; returns at once."""
    code = f"import time; time.sleep({seconds})"
    page.evaluate(f"(code) => {{ {KERNEL}.requestExecute({{ code }}); }}", code)


def run_all(page: "Page") -> None:
    """Run all cells of the notebook in view and wait until they are done and the kernel is idle; they may not raise."""
    run = "jupyterapp.commands.execute('notebook:run-all-cells')"
    page.evaluate(f"() => {{ window.allCellsRan = false; {run}.then(() => {{ window.allCellsRan = true; }}); }}")
    page.wait_for_function("window.allCellsRan")
    wait_idle(page)
    problems = page.evaluate(ERRORS_OF_CELLS)
    assert not problems, "\n".join(problems)


_running: list = []  # the browser whose pages are open: there can be one Playwright at a time


@contextmanager
def running_browser(path: str) -> "Iterator[Browser]":
    """The browser that is open already, or a new one.

    It is closed with the block that opened it: one of the session would leave Playwright's event loop running under other tests.
    """
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
    """A notebook of these cells, unexecuted."""
    path = folder / "page.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)
    return path


@contextmanager
def offline(browser: str, path: Path, **options: Any) -> "Iterator[Page]":
    """A page opened from a file, without a network. Leaving the block fails if it asked for anything, or its scripts raised."""
    with running_browser(browser) as opened:
        page = opened.new_context(**{"offline": True, "viewport": {"width": 1180, "height": 1100}} | options).new_page()
        faults = watch_faults(page)
        page.goto(path.as_uri())
        page.locator(".mk").first.wait_for()
        yield page
    assert faults == []


def spoken(page: "Page") -> str:
    """All words of an explorer, seen and told by its pictures; fails where a number came out as none."""
    text = page.locator(".mk").evaluate("box => box.textContent + [...box.querySelectorAll('svg')].map((one) => one.ariaLabel)")
    assert not re.search("NaN|Infinity|undefined|null", text), text
    return text


def assert_legible(page: "Page", *selectors: str) -> None:
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


def press(page: "Page", label: str, key: str, times: int = 1) -> None:
    """Press a key on the control of this label."""
    control = page.get_by_label(label, exact=True)
    control.focus()
    for _ in range(times):
        control.press(key)
