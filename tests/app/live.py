"""The page as users meet it: a server process of its own, whose files and log can be looked at, and requests to it."""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from melanoma_lib.settings import ENV_PREFIX

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0  # seconds for the stack to be imported on a loaded machine


class Server:
    """``python -m melanoma_lib app`` on a run, with home, temporary files, working directory and log in an empty folder."""

    def __init__(self, run_dir: Path | None, folder: Path, *words: str, path: str = str(ROOT)) -> None:
        self.run_dir, self.folder, self.log = run_dir or folder / "work", folder, folder / "server.log"
        for name in ("home", "tmp", "work"):
            (folder / name).mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        environment = {key: value for key, value in os.environ.items() if not key.startswith(ENV_PREFIX)} | {
            "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1",
            "MPLCONFIGDIR": str(folder / "home/mpl"), "XDG_CACHE_HOME": str(folder / "home/.cache"),
        }  # fmt: skip
        run = [str(run_dir)] if run_dir else []
        command = [sys.executable, "-m", "melanoma_lib", "app", *run, *words, "--port", str(self.port)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=folder / "work", env=environment, stdout=log, stderr=subprocess.STDOUT)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Wait until it serves; RuntimeError, with its log, if it ends or takes too long."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                httpx.get(f"{self.url}/api/facts", trust_env=False).raise_for_status()
                self._at_start = self.log.read_text()
                return
            except httpx.HTTPError:
                time.sleep(0.2)
        raise RuntimeError(f"the app did not start:\n{self.log.read_text()[-3000:]}")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)

    def files(self) -> set[str]:
        found = (path for root in (self.folder, self.run_dir) for path in root.rglob("*"))
        return {str(path) for path in found if path.is_file() and path != self.log}

    def said(self) -> list[str]:
        later = self.log.read_text().removeprefix(self._at_start).splitlines()
        return [line for line in later if line.strip() and not line.startswith("serving ")]

    def holds(self, marker: bytes) -> list[str]:
        return [name for name in [*self.files(), str(self.log)] if marker in Path(name).read_bytes()]

    def memory(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def send(self, path: str, body: bytes, method: str = "POST") -> tuple[int, Any]:
        answer = httpx.request(method, self.url + path, content=body, timeout=PATIENCE, trust_env=False)
        return answer.status_code, answer.json()

    def predict(self, image: bytes | None = None, **fields: Any) -> tuple[int, Any]:
        given = fields if image is None else {"image": base64.b64encode(image).decode(), **fields}
        return self.send("/api/predict", json.dumps(given).encode())
