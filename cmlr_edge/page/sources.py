"""Sources added and removed while a run goes on, by who knows the token."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from fastapi import APIRouter, HTTPException, Request, Response
from starlette.requests import ClientDisconnect

from cmlr_edge.errors import CmlrError
from cmlr_edge.model.strict_json import json_value
from cmlr_edge.page.source_edit import SourceEdit, SourceSettingsView

_EXAMPLE = {"name": "door", "uri": "rtsp://user:password@camera/1", "labels": ["person"]}
router = APIRouter(prefix="/api/sources", tags=["sources"])


class SourceControl(Protocol):
    """Changes the sources of a run; any thread may ask."""

    def add(self, settings: Any) -> str:
        """Begin with a source.

        Args:
            settings: An object as a `[[sources]]` of a configuration.

        Returns:
            Its name.

        Raises:
            CmlrError: It may not be added, or cannot be opened; nothing has changed.
            TimeoutError: The run does not answer.
        """
        ...

    def remove(self, name: str) -> None:
        """End with a source; raises as `add` does."""
        ...

    def view(self, name: str) -> tuple[str, str, dict[str, Any]]:
        """What is looked at of a source.

        Returns:
            Why it cannot be changed here, "" where it can; what to send along with a change; the settings.

        Raises:
            CmlrError: There is no such source.
        """
        ...

    def change(self, name: str, settings: dict[str, Any], version: str) -> None:
        """Look at a source otherwise, and write that into the configuration; raises as `add` does."""
        ...


@dataclass(frozen=True)
class AddedSource:
    """A source that was added."""

    id: int  # in this run's addresses
    name: str


def _control(request: Request) -> SourceControl:
    """Who may change what cameras are looked at: a person with the token, and no other site's script."""
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    if origin is not None and urlsplit(origin).netloc != host:
        raise HTTPException(403, "asked by another site")
    if not request.app.state.has_token:
        raise HTTPException(
            403, "sources are changed only where a token is asked for: give --token"
        )
    control: SourceControl | None = request.app.state.live.control
    if control is None:
        raise HTTPException(403, "this run takes no other sources")
    return control


_REFUSED: dict[int | str, dict[str, Any]] = {
    403: {"description": "There is no token, or another site asks"},
    409: {"description": "It cannot be done now; nothing has changed"},
    503: {"description": "The run does not answer"},
}


@router.post(
    "",
    status_code=201,
    responses={
        **_REFUSED,
        201: {"content": {"application/json": {"example": {"id": 1, "name": "door"}}}},
        422: {"description": "It is no source that may be added"},
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "example": _EXAMPLE,
                    "schema": {
                        "type": "object",
                        "required": ["name", "uri"],
                        "properties": {
                            "name": {"type": "string", "maxLength": 64},
                            "uri": {"type": "string"},
                        },
                    },
                }
            },
        }
    },
)
async def add(request: Request) -> AddedSource:
    """Add a source, with the settings of a `[[sources]]` in the configuration; until the next reload or start.

    `curl -H 'Authorization: Bearer TOKEN' -d '{"name": "door", "uri": "rtsp://camera/1"}' HOST/api/sources`
    """
    control = _control(request)
    try:
        settings = json_value(await request.body())
    except ClientDisconnect as error:
        raise HTTPException(400, "the request did not come as a whole") from error
    except ValueError as error:
        raise HTTPException(422, f"the body is no JSON: {error}") from error
    try:
        name = await asyncio.to_thread(control.add, settings)
    except (CmlrError, TimeoutError) as error:
        raise HTTPException(503 if isinstance(error, TimeoutError) else 422, str(error)) from error
    number = request.app.state.live.id_of(name)
    if number is None:
        raise HTTPException(409, "it was removed again")
    return AddedSource(number, name)


@router.delete(
    "/{source_id}",
    status_code=204,
    response_class=Response,
    responses={**_REFUSED, 404: {"description": "No such source"}},
)
async def remove(request: Request, source_id: int) -> None:
    """End with a source; its id is never given again."""
    control = _control(request)
    name = request.app.state.live.name_of(source_id)
    if name is None:
        raise HTTPException(404, f"there is no source {source_id}")
    try:
        await asyncio.to_thread(control.remove, name)
    except (CmlrError, TimeoutError) as error:
        raise HTTPException(503 if isinstance(error, TimeoutError) else 409, str(error)) from error


@router.get("/{source_id}/settings", responses={404: {"description": "No such source"}})
async def settings(request: Request, source_id: int) -> SourceSettingsView:
    """Tell what is looked at of a source, and whether that can be changed here."""
    name = request.app.state.live.name_of(source_id)
    control: SourceControl | None = request.app.state.live.control
    if name is None or control is None:
        raise HTTPException(404, f"there is no source {source_id} whose settings are known")
    try:
        reason, version, told = await asyncio.to_thread(control.view, name)
    except CmlrError as error:
        raise HTTPException(404, str(error)) from error
    if not request.app.state.has_token:
        reason = "sources are changed only where a token is asked for: give --token"
    return SourceSettingsView(reason, version, told)


@router.put(
    "/{source_id}/settings",
    status_code=204,
    response_class=Response,
    responses={**_REFUSED, 404: {"description": "No such source"}},
)
async def change(request: Request, source_id: int, edit: SourceEdit, version: str) -> None:
    """Look at a source otherwise, and write that into the configuration file, its comments kept.

    All settings are sent, and the `version` that GET told. What is refused (409) changes nothing.
    """
    control = _control(request)
    name = request.app.state.live.name_of(source_id)
    if name is None:
        raise HTTPException(404, f"there is no source {source_id}")
    try:
        await asyncio.to_thread(control.change, name, edit.model_dump(mode="json"), version)
    except (CmlrError, TimeoutError) as error:
        raise HTTPException(503 if isinstance(error, TimeoutError) else 409, str(error)) from error
