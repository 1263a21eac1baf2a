"""What visitors may cost: how many connections, for how long, and how many lines in the log.

uvicorn bounds headers and the time between two requests. It waits for ever for a request that never
comes or comes byte by byte, and refuses everybody once too many wait; this adds what is missing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from h11 import LocalProtocolError
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from cmlr_edge.machine.rarely import Rarely

MAX_CONNECTIONS, MAX_PER_ADDRESS = 256, 64
FOR_HEALTH = 8  # more, that are told of the health and nothing else
REQUEST_S = 10.0  # for a whole request, from the connection or the answer before
_STALL_S = 30.0  # for a visitor who takes nothing of an answer, or is gone without a word
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_IDLE = {"IDLE", "SEND_BODY"}  # states of h11 in which the visitor is to speak


class Connection(H11Protocol):
    """One visitor's connection. Where there are too many, the oldest that says nothing makes room."""

    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    opened_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, if there is room."""
        super().connection_made(transport)
        self.opened_s = self.loop.time()
        _watch(transport.get_extra_info("socket"))
        self._await_request()
        self._find_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget all timers."""
        self._cancel()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a part of a request; a whole one ends the wait for it."""
        super().data_received(data)
        if not self.is_waiting:
            self._cancel()

    def on_response_complete(self) -> None:
        """Wait for the next request, anew."""
        super().on_response_complete()
        self._cancel()
        if self.is_waiting:
            self._await_request()

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Leave it to the web socket, which asks by itself whether the other end lives."""
        self._cancel()
        if isinstance(self.app, _HealthAlone):  # the web socket would ask the whole application
            self.transport.write(_BUSY)
            self.transport.close()
            return
        super().handle_websocket_upgrade(event)

    def pause_writing(self) -> None:
        """Wait for a visitor who does not read, but not for ever."""
        super().pause_writing()
        self._stalled = self._stalled or self.loop.call_later(_STALL_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    @property
    def is_waiting(self) -> bool:
        """Whether the visitor has yet to say what it wants."""
        return str(self.conn.their_state) in _IDLE and not self.transport.is_closing()

    def _await_request(self) -> None:
        self._deadline = self.loop.call_later(REQUEST_S, self.transport.abort)

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _find_room(self) -> None:
        """Let the oldest that waits make room: at this address, or where there are most."""
        there = [item for item in self.connections if not _transport(item).is_closing()]
        mine = [item for item in there if _host(item) == _host(self)]
        if len(mine) > MAX_PER_ADDRESS:
            crowd: list[Any] = mine
        elif len(there) > MAX_CONNECTIONS:
            ((most, count),) = Counter(map(_host, there)).most_common(1)
            crowd = [item for item in there if _host(item) == most] if count > 1 else there
        else:
            return
        if (oldest := _oldest(crowd) or _oldest(there)) is not None and oldest is not self:
            oldest.transport.abort()
        elif len(there) > MAX_CONNECTIONS + FOR_HEALTH:
            self.transport.abort()
        else:
            self.app = _HealthAlone(self.app)


class _HealthAlone:
    """Answers whether all is well, and refuses everything else; an ASGI application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/healthz":
            await self._app(scope, receive, send)
            return
        headers = {"Retry-After": "10", "Connection": "close"}
        await JSONResponse({"detail": "too many visitors"}, 503, headers)(scope, receive, send)


class RareLines(logging.Filter):
    """Lets a line through that was seldom written: visitors must not fill the log."""

    def __init__(self) -> None:
        """Start with nothing written."""
        super().__init__()
        self._by_text: defaultdict[str, Rarely] = defaultdict(Rarely)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write a line, by its text without what is filled in."""
        if "graceful shutdown exceeded" in str(record.msg):
            return False  # at the end visitors who do not leave are cut off: nobody has to act
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, LocalProtocolError):  # a visitor broke it off while it was answered
            record.msg, record.args = "a request was broken off: %s", (error,)
        if isinstance(error, (LocalProtocolError, UnicodeDecodeError)):  # of visitors, not of ours
            record.exc_info = None
        return self._by_text[str(record.msg)[:100]].may_say()


def _oldest(connections: Iterable[Any]) -> Connection | None:
    waiting = [c for c in connections if isinstance(c, Connection) and c.is_waiting]
    return min(waiting, key=lambda item: item.opened_s, default=None)


def _transport(connection: Any) -> asyncio.Transport:
    transport: asyncio.Transport = connection.transport
    return transport


def _host(connection: Any) -> str:
    """Whom a connection is of: an address, or the network of one in IPv6, where each has many."""
    peer = _transport(connection).get_extra_info("peername")
    return network_of(str(peer[0])) if peer else ""


@lru_cache(MAX_CONNECTIONS * 4)
def network_of(host: str) -> str:
    """The address itself, or the first 64 bits of one in IPv6.

    Args:
        host: As the kernel tells it; with the interface for a link's own addresses.
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.version == 4 or address.ipv4_mapped is not None:
        return host
    return str(ipaddress.ip_network((address, 64), strict=False))


def _watch(connection: socket.socket) -> None:
    """Let the kernel notice a visitor whose machine or network is gone."""
    options = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (options | {"TCP_USER_TIMEOUT": int(_STALL_S * 1e3)}).items():
        connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
