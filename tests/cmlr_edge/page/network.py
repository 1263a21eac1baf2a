"""A network between a browser and a server, which may swallow what is sent and tell nobody."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Network:
    """Hands bytes on, both ways, until the connections that there are are forgotten."""

    def __init__(self, server: socket.socket, port: int) -> None:
        self.port = int(server.getsockname()[1])
        self._server, self._to = server, port
        self._forgotten = threading.Event()
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def forget(self) -> None:
        """Hand on nothing more of what is connected; whoever connects from now on is served."""
        self._forgotten.set()
        self._forgotten = threading.Event()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._ends += [near, far]
                for ends in ((near, far), (far, near)):
                    given = (*ends, self._forgotten)
                    threading.Thread(target=self._relay, args=given, daemon=True).start()

    @staticmethod
    def _relay(of: socket.socket, to: socket.socket, forgotten: threading.Event) -> None:
        with suppress(OSError):
            while (said := of.recv(65536)) and not forgotten.is_set():
                to.sendall(said)
            if not forgotten.is_set():
                to.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End everything."""
        self._server.shutdown(socket.SHUT_RDWR)
        for end in self._ends:
            end.close()


@contextmanager
def network(port: int) -> Iterator[Network]:
    """A way to a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        made = Network(server, port)
        yield made
        made.close()
