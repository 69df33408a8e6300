"""The server: the page, a small JSON API, and nothing else of what Gradio could serve."""

import asyncio
import base64
import os
import re
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # asked at import

import gradio as gr
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from markdown_it import MarkdownIt
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import ClientDisconnect

from melanoma_lib.app.page import FOLDER, Page, build_page, html, paint_example
from melanoma_lib.app.service import BACKENDS, PREVALENCE, Patient, Service
from melanoma_lib.app.uploads import MAX_BYTES, TOO_LARGE, Store
from melanoma_lib.errors import CorruptImageError, DataError, KitError
from melanoma_lib.export import card_text

# What the page needs. Gradio's upload, file, proxy and history routes write to disk or reach out, so they are not served.
SERVED = re.compile(
    r"/(|card|config|theme\.css|favicon\.ico|manifest\.json|robots\.txt|(assets|static|svelte)/.*"
    r"|api/(facts|card|predict|images(/[\w-]+)?|examples/[\w-]+)"
    r"|gradio_api/(info|app_id|startup-events|theme\.css|run/[\w/-]+))/?"
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
DECODERS = ThreadPoolExecutor(2)  # the memory of twenty large pictures at once is not there
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")


class Question(BaseModel, extra="forbid", strict=True):
    """The body of ``POST /api/predict``; null and left out mean the same."""

    image: str | None = None
    age: float | None = None
    sex: str | None = None
    site: str | None = None
    prevalence: float | None = Field(None, gt=0, lt=1)


def create_app(service: Service, root_path: str = "") -> FastAPI:
    """Page and API of a run's service, for any ASGI server; a proxy strips ``root_path`` from the path of each request."""
    app, store = FastAPI(openapi_url=None, docs_url=None, redoc_url=None), Store()
    page = Page(service, store)

    @app.exception_handler(KitError)
    async def refuse(_: Request, error: KitError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 422)

    async def decoding(function: Callable, *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(DECODERS, function, *given)

    @app.middleware("http")
    async def only_the_page(request: Request, answer: Callable) -> Response:
        served = SERVED.fullmatch(request.scope["path"])
        given = await answer(request) if served else JSONResponse({"error": "There is nothing at this address."}, 404)
        given.headers.update(HEADERS)
        return given

    @app.get("/api/facts")
    def facts() -> JSONResponse:
        return JSONResponse(service.facts())

    @app.get("/api/card")
    def card() -> Response:
        return Response(card_text(service.run), media_type="text/plain; charset=utf-8")

    @app.get("/card")
    def card_page() -> HTMLResponse:
        return HTMLResponse(
            html("card", MarkdownIt("commonmark", {"html": False}).enable("table").render(card_text(service.run)))
        )

    @app.post("/api/images")
    async def keep(request: Request) -> JSONResponse:
        case = await decoding(service.admit, await _body(request, MAX_BYTES))
        return JSONResponse({"image": store.put(case), "warnings": list(case.warnings), "notes": list(case.notes)})

    @app.delete("/api/images/{token}")
    def forget(token: str) -> JSONResponse:
        store.drop(token)
        return JSONResponse({})

    @app.get("/api/examples/{token}")
    def example(token: str) -> Response:
        if token not in page.names:
            raise DataError(f"examples are {', '.join(page.names) or 'none'}")
        return Response(paint_example(token), media_type="image/jpeg")

    @app.post("/api/predict")
    async def predict(request: Request) -> JSONResponse:
        body = await _body(request, MAX_BYTES * 4 // 3 + 10_000)  # base64 takes four letters for three bytes
        try:
            asked = await decoding(Question.model_validate_json, body)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where, fields = f"{first['loc'][0]}: " if first["loc"] else "", ", ".join(Question.model_fields)
            raise DataError(f"The body must be a JSON object with fields among {fields}. {where}{first['msg']}.") from None
        try:
            data = None if asked.image is None else base64.b64decode(asked.image, validate=True)
        except ValueError:
            raise DataError("image must be the base64 of an image file, without spaces and without a data: prefix.") from None
        case = None if data is None else await decoding(service.admit, data)
        patient = Patient(asked.age, asked.sex, asked.site)
        return JSONResponse(await decoding(service.ask, case, patient, asked.prevalence or PREVALENCE))

    sizes = gr.themes.Size(*(f"{rem}rem" for rem in (0.7, 0.8, 0.85, 0.9, 1, 1.4, 1.6)))  # which follow the browser's font size
    mono = ("ui-monospace", "Consolas", "monospace")
    theme = gr.themes.Base(font=FONTS, font_mono=mono, text_size=sizes, primary_hue="sky", neutral_hue="slate")
    return gr.mount_gradio_app(
        app, build_page(page), path="/", footer_links=[], run_history=False, ssr_mode=False, pwa=False, mcp_server=False,
        enable_monitoring=False, theme=theme, css_paths=[FOLDER / "page.css"], show_error=True,
        root_path=f"/{root_path.strip('/')}" if root_path else None,
    )  # fmt: skip


def serve(service: Service, host: str = "127.0.0.1", port: int = 7860, root_path: str = "") -> None:
    """Serve until interrupted, and meanwhile find out what training looks like; KitError if the port is taken."""
    try:
        listening = socket.create_server((host, port))
    except OSError as error:
        raise KitError(f"cannot listen on {host}:{port} ({error.strerror}); choose another one with --port") from error
    print(f"serving {service.run.path} by {BACKENDS[service.backend]} on http://{host}:{port}; Ctrl-C ends it", flush=True)
    threading.Thread(target=service.learn_training, daemon=True).start()
    server = uvicorn.Server(uvicorn.Config(create_app(service, root_path), log_level="warning", access_log=False))
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listening])


async def _body(request: Request, most: int) -> bytes:
    """The body of a request, in memory alone; one beyond ``most`` bytes is read to its end, so that the refusal arrives."""
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            parts.append(part)
            if size > most:
                parts.clear()
            if size > 20 * most:
                break
    except ClientDisconnect:
        raise CorruptImageError("The upload broke off before its end. Send the file again.") from None
    if size > most:
        raise CorruptImageError(TOO_LARGE.format(size / 1024**2))
    return b"".join(parts)
