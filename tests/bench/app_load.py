"""Twenty users at once: does the app answer all of them, how soon, and does its memory stay level?

    python -m tests.bench.app_load --run-dir RUN --users 20 --seconds 60

Each user does what the page does: sends a picture, asks for answer and heatmap, changes the age, asks again, asks the JSON
API once, and lets the picture go. Educational, not for diagnosis.
"""

import asyncio
import base64
import secrets
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pandas as pd

from tests.app.live import Server
from tests.app.pictures import encoded, lesion
from tests.bench.turns import options


@dataclass
class Load:
    """Seconds of every answered request by kind, failures by their text, and MB of the server once a second."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    failures: Counter = field(default_factory=Counter)
    memory: list[float] = field(default_factory=list)

    @property
    def n(self) -> int:
        return sum(map(len, self.seconds.values()))

    def report(self, users: int, duration: float) -> str:
        shown = pd.DataFrame({kind: pd.Series(values).describe(percentiles=[0.5, 0.95]) for kind, values in self.seconds.items()})
        thirds = ", ".join(f"{np.median(part):.0f}" for part in np.array_split(self.memory, 3))
        return "\n".join([
            f"{users} users for {duration:.0f} s: {self.n} requests answered, {self.failures.total()} failed",
            shown.T[["count", "50%", "95%", "max"]].to_string(float_format="{:.3f}".format),
            *(f"failure: {what} ({count} times)" for what, count in self.failures.items()),
            f"memory of the server, MB: medians of the three thirds {thirds}; most {max(self.memory):.0f}",
        ])  # fmt: skip


class User:
    """One user of the page, told from others by an age; ``config`` of Gradio tells the numbers of the page's functions."""

    def __init__(self, client: httpx.AsyncClient, config: dict, load: Load, age: int) -> None:
        self.client, self.load, self.age = client, load, age
        self.session = secrets.token_hex(8)  # of this page, as long as it is open
        self.function = next(one["id"] for one in config["dependencies"] if len(one["outputs"]) == 4)
        labelled = {one["props"].get("label", ""): one["props"].get("value") for one in config["components"]}
        self.layer = next(value for label, value in labelled.items() if label.startswith("Layer"))
        self.image = encoded(lesion(600, 450).rotate(age), "JPEG", quality=92)

    async def once(self) -> None:
        token = (await self.timed("upload", self.client.post("/api/images", content=self.image))).json()["image"]
        for age in ("", str(self.age)):
            patient = [token, age, "unknown", "torso"]
            _, verdict, _, drawn = await self.timed("answer", self.event([*patient, 10, self.layer, "gradcam", ""]))
            if "Uncalibrated probability" not in verdict or drawn.count("<img") != 3:
                raise ValueError(f"answer: {verdict[:80]}")
        body = {"image": base64.b64encode(self.image).decode(), "age": self.age}
        said = await self.timed("API", self.client.post("/api/predict", json=body))
        _ = said.json()["risk"]
        await self.timed("delete", self.client.delete(f"/api/images/{token}"))

    async def timed(self, kind: str, asked):
        """Wait for an answer and note how long it took."""
        start = time.perf_counter()
        answer = await asked
        if isinstance(answer, httpx.Response):
            answer.raise_for_status()
        self.load.seconds.setdefault(kind, []).append(time.perf_counter() - start)
        return answer

    async def event(self, data: list) -> list:
        """What the page's own script does to call its function."""
        body = {"data": data, "fn_index": self.function, "session_hash": self.session}
        said = await self.client.post("/gradio_api/run/respond", json=body)
        return said.raise_for_status().json()["data"]


async def press(server: Server, users: int, seconds: float) -> Load:
    """Let users ask for some seconds; each ends the round that it is in."""
    load = Load(memory=[server.memory()])
    limits, patience = httpx.Limits(max_connections=None), httpx.Timeout(120)
    async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=patience, trust_env=False) as client:
        config = (await client.get("/config")).json()
        end = time.monotonic() + seconds

        async def live(number: int) -> None:
            user = User(client, config, load, 20 + number)
            while time.monotonic() < end:
                try:
                    await user.once()
                except (httpx.HTTPError, ValueError, KeyError) as error:
                    load.failures[f"{type(error).__name__}: {error}"[:120]] += 1

        async def watch() -> None:
            while time.monotonic() < end:
                await asyncio.sleep(1)
                load.memory.append(server.memory())

        await asyncio.gather(watch(), *map(live, range(users)))
    return load


def main(words: list[str] | None = None) -> None:
    given = options(__doc__, words, run_dir="", users=20, seconds=60, backend="torch")
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(given.run_dir).resolve(), Path(folder) / "server", "--backend", given.backend)
        try:
            server.start()
            print(asyncio.run(press(server, given.users, given.seconds)).report(given.users, given.seconds))
            print(f"new lines in the log: {len(server.said())}")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
