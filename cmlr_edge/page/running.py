"""Runs the live server in a thread, so that the main one keeps the signals and the recognition."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp

from cmlr_edge.errors import OutputError
from cmlr_edge.machine.closing import Closing
from cmlr_edge.machine.rarely import Rarely
from cmlr_edge.page.app import create_app, create_metrics_app
from cmlr_edge.page.connections import Connection, RareLines
from cmlr_edge.page.gate import check_exposure
from cmlr_edge.page.state import LiveState

_END_S = 3  # for connections that do not end by themselves
_BACKLOG = 64  # connections that are taken at once: each is an open file before it can be refused
_log = logging.getLogger(__name__)
_rare_lines, _rarely = RareLines(), Rarely()


class Server(Closing):
    """An application at an address; serves from `start` to `close`, or in a `with` block."""

    def __init__(self, app: ASGIApp, *, host: str, port: int) -> None:
        """Take the address.

        Args:
            app: Behind a `Gate`.
            host: To bind.
            port: 0 for any free one, see `url`.

        Raises:
            OutputError: The address cannot be taken.
        """
        self._socket = _bind(host, port)
        host = _own_address(host)
        shown = f"[{host}]" if ":" in host else host
        self.port = int(self._socket.getsockname()[1])
        self.url = f"http://{shown}:{self.port}/"
        config = uvicorn.Config(
            app,
            http=Connection,
            log_level="warning",
            access_log=False,
            lifespan="off",
            backlog=_BACKLOG,
            h11_max_incomplete_event_size=16 * 1024,  # of headers
            server_header=False,
            timeout_graceful_shutdown=_END_S,
            ws_max_size=1024,  # a browser only ever sends the number of a source
            ws_per_message_deflate=False,  # JPEG is compressed already
        )
        logging.getLogger("uvicorn.error").addFilter(_rare_lines)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="live server", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    async def _serve(self) -> None:
        asyncio.get_running_loop().set_exception_handler(_note)
        await self._server.serve([self._socket])
        for connection in [*self._server.server_state.connections]:  # too slow to say farewell
            if (transport := getattr(connection, "transport", None)) is not None:
                transport.abort()
        await asyncio.sleep(0)  # lets the transports close

    def close(self) -> None:
        """Send visitors away and stop. Calling it twice is harmless."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(2 * _END_S)
        self._socket.close()

    def __enter__(self) -> Server:
        """Start and return itself."""
        self.start()
        return self


class LiveServer(Server):
    """The live page."""

    def __init__(
        self, live: LiveState, *, host: str = "127.0.0.1", port: int = 0, token: str | None = None
    ) -> None:
        """Take the address.

        Args:
            live: What to show.
            host: To bind; only with a token may it be reached from elsewhere.
            port: 0 for any free one, see `url`.
            token: Asked of every visitor.

        Raises:
            OutputError: The address cannot be taken, or the cameras would be open to everybody.
        """
        check_exposure(host, token)
        live.may_edit = token is not None
        super().__init__(create_app(live, token=token), host=host, port=port)
        self._live = live

    def close(self) -> None:
        """Send viewers away and stop. Calling it twice is harmless."""
        self._live.closing = True
        super().close()


class MetricsServer(Server):
    """Metrics alone, at `/metrics`, for scrapers elsewhere."""

    def __init__(
        self, render: Callable[[], bytes], *, host: str, port: int, token: str | None
    ) -> None:
        """Take the address.

        Args:
            render: Gives the text that Prometheus reads.
            host: To bind.
            port: 0 for any free one.
            token: Asked of every scraper.

        Raises:
            OutputError: The address cannot be taken, or there is no token.
        """
        check_exposure(host, token, setting="[metrics] host")
        super().__init__(create_metrics_app(render, token=token), host=host, port=port)


def _note(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """Say in a line what asyncio would say with a traceback, such as that no file can be opened."""
    what = f"{context.get('message')}: {context.get('exception')}"
    if _rarely.may_say():
        _log.warning("live server: %s", " ".join(what.split()))


def _own_address(host: str) -> str:
    """Where others find a server that listens at all addresses: at the one that packets to them leave from."""
    there = {"0.0.0.0": "192.0.2.1", "::": "2001:db8::1"}.get(host)  # of documentation
    if there is None:
        return host
    kind = socket.AF_INET6 if ":" in there else socket.AF_INET
    with suppress(OSError), socket.socket(kind, socket.SOCK_DGRAM) as probe:
        probe.connect((there, 9))  # sends nothing
        return str(probe.getsockname()[0])
    return "::1" if ":" in there else "127.0.0.1"


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise OutputError(f"cannot serve at {host}: {error}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)  # whoever comes before the thread runs waits
    except OSError as error:
        bound.close()
        raise OutputError(
            f"cannot serve at {host}:{port}: {error.strerror}; choose another --port, "
            "or port under [page], 0 for any"
        ) from error
    return bound
