"""Runs the live server in a thread, so that the main one keeps the signals and the recognition."""

from __future__ import annotations

import asyncio
import socket
import threading
from types import TracebackType

import uvicorn

from cmlr_edge.errors import OutputError
from cmlr_edge.page.app import create_app
from cmlr_edge.page.gate import check_exposure
from cmlr_edge.page.state import LiveState

_END_S = 3  # for connections that do not end by themselves
_MAX_CONNECTIONS = 200  # beyond, a visitor is told to come again


class LiveServer:
    """The live page at an address; serves from `start` to `close`, or in a `with` block."""

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
        self._live = live
        self._socket = _bind(host, port)
        shown = f"[{host}]" if ":" in host else host
        self.port = int(self._socket.getsockname()[1])
        self.url = f"http://{shown}:{self.port}/"
        config = uvicorn.Config(
            create_app(live, token=token),
            log_level="warning",
            access_log=False,  # would tell tokens in addresses
            lifespan="off",
            limit_concurrency=_MAX_CONNECTIONS,
            server_header=False,
            timeout_graceful_shutdown=_END_S,
            ws_max_size=1024,  # a browser only ever sends the number of a source
            ws_per_message_deflate=False,  # JPEG is compressed already
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="live server", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    async def _serve(self) -> None:
        await self._server.serve([self._socket])
        for connection in [*self._server.server_state.connections]:  # too slow to say farewell
            if (transport := getattr(connection, "transport", None)) is not None:
                transport.abort()
        await asyncio.sleep(0)  # lets the transports close

    def close(self) -> None:
        """Send viewers away and stop. Calling it twice is harmless."""
        self._live.closing = True
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(2 * _END_S)
        self._socket.close()

    def __enter__(self) -> LiveServer:
        """Start and return itself."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise OutputError(f"cannot serve at {host}: {error}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_MAX_CONNECTIONS)  # whoever comes before the thread runs waits
    except OSError as error:
        bound.close()
        raise OutputError(
            f"cannot serve at {host}:{port}: {error.strerror}; choose another --port, 0 for any"
        ) from error
    return bound
