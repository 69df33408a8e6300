"""The server: the page, a small JSON API, and nothing else of what Gradio could serve."""

import base64
import binascii
import json
import os
import re
import socket
from contextlib import suppress

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # asked at import

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from melanoma_lib.app.answers import Patient
from melanoma_lib.app.examples import paint_examples
from melanoma_lib.app.page import FOLDER, START_PREVALENCE, Page, build_page
from melanoma_lib.app.service import BACKENDS, Service
from melanoma_lib.app.store import Store
from melanoma_lib.app.uploads import MAX_BYTES, too_large
from melanoma_lib.errors import DataError, KitError

FIELDS = {"image": str, "age": (int, float), "sex": str, "site": str, "tta": bool, "prevalence": (int, float)}
# What the page needs. Gradio's upload, file, proxy and history routes write to disk or reach out, so they are not served.
SERVED = re.compile(
    r"/(|config|theme\.css|favicon\.ico|manifest\.json|robots\.txt|(assets|static|svelte)/.*"
    r"|api/(facts|predict|images(/[\w-]+)?)"
    r"|gradio_api/(info|app_id|startup-events|theme\.css|reset|cancel|queue/(join|data)|(heartbeat|call|run)/[\w/-]+))/?"
)
# The browser itself refuses to load from, or send to, any other machine.
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; form-action 'self'; "
        "base-uri 'self'; object-src 'none'; frame-ancestors 'self'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")


class OnlyThePage:
    """Refuses every address that the page does not need, and tells the browser to stay on this machine."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: dict) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                kept = [pair for pair in message.get("headers", []) if pair[0].decode().lower() not in HEADERS]
                message = {**message, "headers": [*kept, *added]}
            await send(message)

        if SERVED.fullmatch(scope["path"]):
            await self.app(scope, receive, send_with_headers)
        else:
            await JSONResponse({"error": "There is nothing at this address."}, 404)(scope, receive, send_with_headers)


def create_app(service: Service, store: Store | None = None) -> FastAPI:
    """Page and API of a service, as an application for any ASGI server."""
    store = store or Store()
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    _add_api(app, service, store)
    page = Page(service, store, paint_examples() if service.reads_images else [])
    blocks = build_page(page)
    blocks.queue(default_concurrency_limit=4, api_open=False)
    theme = gr.themes.Base(
        font=FONTS, font_mono=("ui-monospace", "Consolas", "monospace"), primary_hue="sky", neutral_hue="slate"
    )
    app = gr.mount_gradio_app(
        app, blocks, path="/", footer_links=[], run_history=False, ssr_mode=False, pwa=False, mcp_server=False,
        enable_monitoring=False, theme=theme, css_paths=[FOLDER / "page.css"], show_error=True,
    )  # fmt: skip
    app.add_middleware(OnlyThePage)
    return app


def serve(service: Service, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Serve until interrupted.

    Raises:
        KitError: if the port is taken.
    """
    import uvicorn

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise KitError(f"cannot listen on {host}:{port} ({error.strerror}); choose another one with --port") from error
    _few_arenas()
    app = create_app(service)
    print(f"serving {service.run.path} by {BACKENDS[service.backend]} on http://{host}:{port}; Ctrl-C ends it", flush=True)
    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False)


def _few_arenas() -> None:
    """Tell glibc to let threads share two heaps: one for each of forty threads would keep forty times what one needs."""
    import ctypes

    arena_max = -8  # a name of malloc.h
    with suppress(OSError, AttributeError):  # macOS, Windows, musl: no such library or call
        ctypes.CDLL("libc.so.6").mallopt(arena_max, 2)


def _add_api(app: FastAPI, service: Service, store: Store) -> None:
    """The routes that programs, and the page's upload, use. Errors are ``{"error": "..."}``."""

    @app.exception_handler(KitError)
    async def refuse(_: Request, error: KitError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 422)

    @app.get("/api/facts")
    def facts() -> JSONResponse:
        return JSONResponse(service.facts())

    @app.post("/api/images")
    async def keep(request: Request) -> JSONResponse:
        case = await run_in_threadpool(service.admit, await _body(request, MAX_BYTES))
        said = {"image": store.put(case), "warnings": list(case.warnings), "notes": list(case.notes)}
        return JSONResponse(said)

    @app.delete("/api/images/{token}")
    def forget(token: str) -> JSONResponse:
        store.drop(token)
        return JSONResponse({})

    @app.post("/api/predict")
    async def predict(request: Request) -> JSONResponse:
        body = await _body(request, MAX_BYTES * 4 // 3 + 10_000)  # base64 takes four letters for three bytes
        return JSONResponse(await run_in_threadpool(predict_json, service, body))


def predict_json(service: Service, body: bytes) -> dict:
    """What ``POST /api/predict`` answers to a body of JSON; see ``docs/api.md``.

    Raises:
        DataError: if the body is not what it should be.
        CorruptImageError: if the image cannot be read.
    """
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise DataError('The body must be JSON, such as {"image": "<base64>", "age": 55}.') from None
    if not isinstance(given, dict) or (unknown := sorted(set(given) - set(FIELDS))):
        found = f"got {', '.join(unknown)[:80]} as well" if isinstance(given, dict) else f"got a {type(given).__name__}"
        raise DataError(f"The body must be a JSON object with fields among {', '.join(FIELDS)}; {found}.")
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if not isinstance(value, FIELDS[name]) or (isinstance(value, bool) and FIELDS[name] is not bool):
            raise DataError(f"{name} is a JSON value of the wrong kind ({type(value).__name__}).")
    prevalence = given.get("prevalence", START_PREVALENCE / 100)
    if not 0 < prevalence < 1:
        raise DataError("prevalence expects a share of melanomas between 0 and 1, both excluded.")
    case = None
    if "image" in given:
        try:
            data = base64.b64decode(given["image"], validate=True)
        except (binascii.Error, ValueError):
            raise DataError("image must be the base64 of an image file, without spaces and without a data: prefix.") from None
        case = service.admit(data)
    patient = Patient(given.get("age"), given.get("sex"), given.get("site"))
    return service.ask(case, patient, given.get("tta", False)).to_dict(prevalence)


async def _body(request: Request, most: int) -> bytes:
    """The body of a request, in memory alone; a larger one is read to its end, so that the refusal arrives, and thrown away.

    Raises:
        CorruptImageError: if it is larger than ``most``.
    """
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size <= most:
            parts.append(part)
        else:
            parts.clear()
        if size > 20 * most:
            raise too_large()
    if size > most:
        raise too_large(size)
    return b"".join(parts)
