"""The Open Inference Protocol, version 2, over HTTP: what KServe's and Triton's clients ask for."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Header, HTTPException, Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect

from cmlr_edge.errors import EngineError, FrameError
from cmlr_edge.page.gate import PROTOCOL, refusal
from cmlr_edge.page.looking import TooBusyError
from cmlr_edge.page.state import LiveState
from cmlr_edge.page.tensors import metadata

_LENGTH = "Inference-Header-Content-Length"
_ERROR = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/V2Error"}}}}
_TENSORS: dict[str, Any] = {
    "application/json": {
        "example": {
            "inputs": [
                {
                    "name": "frames",
                    "datatype": "UINT8",
                    "shape": [1, 1, 2, 3],
                    "data": [255, 0, 0, 0, 0, 255],
                }
            ],
            "outputs": [{"name": "scores"}, {"name": "labels"}],
        },
        "schema": {"type": "object", "required": ["inputs"]},
    },
    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Scores, what is present, and the labels",
        "content": {
            "application/json": {
                "schema": {"type": "object"},
                "example": {
                    "model_name": "photos",
                    "model_version": "1",
                    "outputs": [
                        {"name": "scores", "datatype": "FP32", "shape": [1, 2], "data": [0.9, 0.1]},
                        {"name": "labels", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]},
                    ],
                },
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    },
    400: {"description": "It is no request, or holds no picture", **_ERROR},
    401: {"description": "The token is missing or wrong", **_ERROR},
    404: {"description": "No such model", **_ERROR},
    413: {"description": "The request has too many bytes", **_ERROR},
    500: {"description": "The model failed", **_ERROR},
    503: {"description": "Too many pictures at once", **_ERROR},
}
SCHEMAS = {
    "V2Error": {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "string"}},
    }
}

_TOLD: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"example": metadata("photos", 80)}}},
    404: _ANSWERS[404],
}

router = APIRouter(prefix=PROTOCOL, tags=["Open Inference Protocol 2"])


class ProtocolError(Exception):
    """What the protocol answers with an object that has `error`."""

    def __init__(self, status: int, message: str) -> None:
        """Keep both."""
        super().__init__(message)
        self.status = status


def answer_error(request: Request, error: Exception) -> Response:
    """Tell a `ProtocolError` as the protocol wants it."""
    assert isinstance(error, ProtocolError)
    headers = {"Retry-After": "1"} if error.status == 503 else None
    return refusal(request.url.path, str(error), error.status, headers)


def _model(request: Request, name: str, given: str = "1") -> LiveState:
    live: LiveState = request.app.state.live
    known = live.desk.recognizer.spec.name
    if name != known or given != "1":
        raise ProtocolError(404, f"there is no model of this name and version: {known}, 1")
    return live


@router.get("")
def server() -> dict[str, Any]:
    """Tell what this is."""
    return {
        "name": "cmlr_edge",
        "version": version("cmlr-edge"),
        "extensions": ["binary_tensor_data"],
    }


@router.get("/health/live")
def live() -> dict[str, bool]:
    """Tell that the server answers; needs no token."""
    return {"live": True}


@router.get("/health/ready")
def ready() -> dict[str, bool]:
    """Tell that the model can be asked; needs no token. Cameras are not looked at, see /healthz."""
    return {"ready": True}


@router.get("/models/{name}", responses=_TOLD)
@router.get("/models/{name}/versions/{number}", responses=_TOLD)
def model(request: Request, name: str, number: str = "1") -> dict[str, Any]:
    """Tell the tensors of the model."""
    recognizer = _model(request, name, number).desk.recognizer
    return metadata(recognizer.spec.name, len(recognizer.labels))


@router.get("/models/{name}/ready", responses={404: _ANSWERS[404]})
@router.get("/models/{name}/versions/{number}/ready", responses={404: _ANSWERS[404]})
def model_ready(request: Request, name: str, number: str = "1") -> dict[str, Any]:
    """Tell that this model can be asked."""
    _model(request, name, number)
    return {"name": name, "ready": True}


@router.post(
    "/models/{name}/infer",
    response_class=Response,
    responses=_ANSWERS,
    openapi_extra={"requestBody": {"required": True, "content": _TENSORS}},
)
@router.post("/models/{name}/versions/{number}/infer", include_in_schema=False)
async def infer(
    request: Request,
    name: str,
    number: str = "1",
    json_length: Annotated[str | None, Header(alias=_LENGTH)] = None,
) -> Response:
    """Recognise pictures: `pictures` of BYTES (files; base64 in JSON), or `frames` of UINT8 (N, H, W, 3), RGB."""
    desk = _model(request, name, number).desk
    if json_length is not None and not (json_length.isascii() and json_length.isdecimal()):
        raise ProtocolError(400, f"{_LENGTH} should be a number of bytes")
    try:
        body = await request.body()
    except ClientDisconnect as error:
        raise HTTPException(400, "the request did not come as a whole") from error
    length = None if json_length is None else int(json_length[:12])
    try:
        answer = await desk.in_turn(partial(desk.infer, body, length))
    except FrameError as error:
        raise ProtocolError(400, str(error)) from error
    except EngineError as error:
        raise ProtocolError(500, str(error)) from error
    except TooBusyError as error:
        raise ProtocolError(503, "too many pictures at once: try again") from error
    if answer.json_length is None:
        return Response(answer.body, media_type="application/json")
    headers = {_LENGTH: str(answer.json_length)}
    return Response(answer.body, headers=headers, media_type="application/octet-stream")
