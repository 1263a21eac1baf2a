"""The addresses of the live server: the page, REST, metrics and health."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, HTTPException, Path, Query, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, Response, StreamingResponse
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cmlr_edge import __version__
from cmlr_edge.errors import FrameError
from cmlr_edge.page import kserve, sources
from cmlr_edge.page.forms import files_of
from cmlr_edge.page.gate import PICTURES, Gate, refusal
from cmlr_edge.page.looking import NoExplanationError, TooBusyError
from cmlr_edge.page.state import LiveState, StateView
from cmlr_edge.page.tensors import MAX_PICTURES
from cmlr_edge.page.viewer import show
from cmlr_edge.page.visits import Visit

_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/live.js": ("live.js", "text/javascript; charset=utf-8"),
    "/edit.js": ("edit.js", "text/javascript; charset=utf-8"),
    "/shapes.js": ("shapes.js", "text/javascript; charset=utf-8"),
    "/small.js": ("small.js", "text/javascript; charset=utf-8"),
    "/events.js": ("events.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_MEDIA_TYPES = {".jpg": "image/jpeg", ".mp4": "video/mp4", ".mkv": "video/x-matroska"}
_VIDEO_TICK_S = 1 / 15
_BOUNDARY = "frame"
_METRICS = "text/plain; version=0.0.4; charset=utf-8"
_SAFE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self' ws: wss:; frame-ancestors 'self'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_PICTURE_BODIES = {
    "image/jpeg": {"schema": {"type": "string", "format": "binary"}},
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {"p": {"type": "array", "items": {"type": "string", "format": "binary"}}},
        }
    },
}
_RECOGNISED = {
    "labels": [{"label": "person", "score": 0.93}],
    "latency_ms": {"capture": 0.0, "preprocess": 1.2, "inference": 14.8, "postprocess": 0.1},
    "captured_at": 1790000000.0,
    "valid": True,
    "repeated": False,
    "width": 640,
    "height": 480,
}

router = APIRouter()
VisitId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
SourceId = Annotated[int, Path(ge=0, lt=100_000)]


@dataclass(frozen=True)
class Health:
    """Whether the recognition does its work."""

    status: Literal["ok", "degraded"]  # degraded: some source gives no frames, or no results
    sources: int
    sources_ok: int


def create_app(live: LiveState, *, token: str | None = None) -> FastAPI:
    """Build the application.

    Args:
        live: What to show.
        token: Asked of every visitor; None admits those who come by a loopback name.
    """
    app = FastAPI(
        title="cmlr_edge live",
        version=__version__,
        openapi_url="/api/openapi.json",
        docs_url=None,  # they load scripts from other hosts
        redoc_url=None,
    )
    app.state.live, app.state.has_token = live, token is not None
    for part in (router, sources.router, kserve.router):
        app.include_router(part)
    app.add_exception_handler(kserve.ProtocolError, kserve.answer_error)
    app.add_exception_handler(StarletteHTTPException, _answer_refused)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    for address, (name, media_type) in _PAGE.items():
        content = (resources.files("cmlr_edge.page") / "static" / name).read_bytes()
        app.add_api_route(address, _fixed(content, media_type), include_in_schema=False)
    app.add_middleware(Gate, token=token)
    app.add_middleware(_SafeHeaders)
    app.add_middleware(_Heads)
    return app


def _answer_refused(request: Request, error: Exception) -> Response:
    """Tell what a path of nobody, a wrong method or the routes themselves refuse."""
    assert isinstance(error, StarletteHTTPException)
    return refusal(request.url.path, error.detail, error.status_code, error.headers)


def _answer_invalid(_request: Request, error: Exception) -> Response:
    """Tell what is wrong, without what came: a NaN or half a character could not be sent back."""
    assert isinstance(error, RequestValidationError)
    told = [{key: item[key] for key in ("type", "loc", "msg")} for item in error.errors()]
    return Response(json.dumps({"detail": told}), 422, media_type="application/json")


def _described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description, with what FastAPI cannot find by itself."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, routes=app.routes)
        found.setdefault("components", {}).setdefault("schemas", {}).update(kserve.SCHEMAS)
        app.openapi_schema = found
    return app.openapi_schema


def create_metrics_app(render: Callable[[], bytes], *, token: str | None) -> FastAPI:
    """Build an application that tells metrics and nothing else.

    Args:
        render: Gives the text that Prometheus reads.
        token: As for `create_app`.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(render(), media_type=_METRICS)

    app.add_middleware(Gate, token=token)
    app.add_middleware(_SafeHeaders)
    app.add_middleware(_Heads)
    return app


def _fixed(content: bytes, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        return Response(content, media_type=media_type)

    return answer


class _SafeHeaders:
    """Adds the headers that keep other sites out of the page; an ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _SAFE_HEADERS.items():
                    headers[name] = value
            await send(message)

        await self._app(scope, receive, send_with_headers)


class _HeadIsToldError(Exception):
    """All that was asked for is said."""


class _Heads:
    """Answers HEAD as GET without what follows the headers, as monitors ask; an ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_head(message: Message) -> None:
            if message["type"] != "http.response.start":
                raise _HeadIsToldError  # a video would go on for ever
            await send(message)
            await send({"type": "http.response.body", "body": b""})

        if scope.get("method") != "HEAD":
            await self._app(scope, receive, send)
            return
        with suppress(_HeadIsToldError):
            await self._app({**scope, "method": "GET"}, receive, send_head)


def _live(request: Request | WebSocket) -> LiveState:
    live: LiveState = request.app.state.live
    return live


def _source(request: Request, source_id: int) -> LiveState:
    live = _live(request)
    if source_id >= live.num_sources:
        raise HTTPException(
            404, f"there is no source {source_id}, ids are below {live.num_sources}"
        )
    return live


@router.get("/api/state")
def state(request: Request) -> StateView:
    """Tell everything but events and pictures: model, sources, newest scores, latencies."""
    return _live(request).state()


@router.get("/api/events")
def events(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    source: Annotated[str | None, Query(max_length=1000)] = None,
    label: Annotated[str | None, Query(max_length=1000)] = None,
    lasting: bool | None = None,
) -> list[Visit]:
    """Tell the newest visits of labels, the last changed first."""
    visits = _live(request).visits.newest(100_000)
    wanted = [
        visit
        for visit in visits
        if source in {None, visit.source}
        and label in {None, visit.label}
        and lasting in {None, visit.end_at is None}
    ]
    return wanted[:limit]


@router.get(
    "/api/events/{visit_id}/{what}",
    response_class=FileResponse,
    responses={
        200: {"content": {"image/jpeg": {}, "video/mp4": {}}},
        404: {"description": "No such file"},
    },
)
def evidence(request: Request, visit_id: VisitId, what: Literal["picture", "clip"]) -> FileResponse:
    """Return the picture or the clip of an event, as long as it is kept; ranges of bytes are served."""
    visit = _live(request).visits.find(visit_id)
    path = getattr(visit, what, "")
    if not path or not os.path.isfile(path):  # noqa: PTH113 (a name too long is no file either)
        raise HTTPException(404, f"event {visit_id} has no {what}: not yet, or no longer")
    name = os.path.basename(path)  # noqa: PTH119
    media_type = _MEDIA_TYPES.get(os.path.splitext(name)[1], "application/octet-stream")  # noqa: PTH122
    return FileResponse(
        path, media_type=media_type, content_disposition_type="inline", filename=name
    )


@router.get(
    "/api/sources/{source_id}/frame.jpg",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}, 404: {"description": "No such frame"}},
)
def frame(request: Request, source_id: SourceId) -> Response:
    """Return the newest recognised frame of a source."""
    live = _source(request, source_id)
    result = live.result(source_id)
    if result is None:
        raise HTTPException(404, f"source {source_id} has given no frame yet")
    return Response(live.jpeg(source_id, result), media_type="image/jpeg")


@router.get("/api/sources/{source_id}/video", include_in_schema=False)
def video(request: Request, source_id: SourceId) -> StreamingResponse:
    """Send the newest frames of a source as MJPEG, for other programs and other pages."""
    live = _source(request, source_id)
    media_type = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
    return StreamingResponse(_mjpeg(live, source_id), media_type=media_type)


async def _mjpeg(live: LiveState, source_id: int) -> AsyncIterator[bytes]:
    sent = None
    while not live.closing:
        result = live.result(source_id)
        if result is not None and result is not sent:
            jpeg = await asyncio.to_thread(live.jpeg, source_id, result)
            head = (
                f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            )
            yield head.encode() + jpeg + b"\r\n"
            sent = result
        await asyncio.sleep(_VIDEO_TICK_S)


@router.post(
    PICTURES,
    openapi_extra={"requestBody": {"required": True, "content": _PICTURE_BODIES}},
    responses={
        200: {"content": {"application/json": {"example": _RECOGNISED}}},
        409: {"description": "The engine cannot say why"},
        413: {"description": "The pictures have too many bytes"},
        422: {"description": "It is no picture that can be read"},
        503: {"description": "Too many pictures at once"},
    },
)
async def recognize(
    request: Request, *, scores: bool = False, why: bool | None = None
) -> dict[str, Any]:
    """Recognise a picture: the body is a JPEG, PNG, WebP, AVIF, TIFF or BMP; or several, as a form.

    With `why` it says why each label is said; by default, if the run does.

    `curl --data-binary @photo.jpg http://127.0.0.1:8000/api/recognize`
    `curl -F p=@a.jpg -F p=@b.jpg http://127.0.0.1:8000/api/recognize` gives `pictures`, one of each.
    """
    desk = _live(request).desk
    kind = request.headers.get("content-type", "")
    try:
        body = await request.body()
        if kind.lower().startswith("multipart/form-data"):
            files = files_of(body, kind, most=MAX_PICTURES)
            found = await desk.in_turn(partial(desk.look_at_all, files, scores=scores, why=why))
            return {"pictures": found}
        return await desk.in_turn(partial(desk.look, body, scores=scores, why=why))
    except ClientDisconnect as error:
        raise HTTPException(400, "the picture did not come as a whole") from error
    except FrameError as error:
        raise HTTPException(422, str(error)) from error
    except NoExplanationError as error:
        raise HTTPException(409, str(error)) from error
    except TooBusyError as error:
        later = {"Retry-After": "1"}
        raise HTTPException(503, "too many pictures at once: try again", later) from error


@router.websocket("/api/live")
async def follow(socket: WebSocket) -> None:
    """Send frames with their scores, and the state; see `viewer`."""
    await show(socket, _live(socket))


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(request: Request) -> Response:
    """Tell counts and latencies to Prometheus."""
    text = _live(request).metrics.render()
    return Response(text, media_type=_METRICS)


@router.get("/healthz")
def healthz(request: Request) -> Health:
    """Tell whether every source gives frames and the model answers them; needs no token."""
    live = _live(request)
    num_ok = live.num_healthy()
    return Health("ok" if num_ok == live.num_shown else "degraded", live.num_shown, num_ok)
