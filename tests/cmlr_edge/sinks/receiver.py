"""A web server for webhooks that fails and hangs as it is told."""

from __future__ import annotations

import json
import threading

from tests.cmlr_edge.web import Quiet, start, stop


class Receiver:
    """A web server that answers as it is told and notes what it took."""

    def __init__(self, port: int = 0) -> None:
        self.location = "/elsewhere"  # that it sends along
        self.answers: list[int | str] = []  # a status, or "hang"; 200 when it is empty
        self.taken: list[str] = []
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        self.requests: list[dict[str, str]] = []
        self.released = threading.Event()
        receiver = self

        class Handler(Quiet):
            def do_POST(self) -> None:
                receiver.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                body = json.loads(receiver.bodies[-1])
                receiver.paths.append(self.path)
                receiver.requests.append(dict(self.headers))
                answer = receiver.answers.pop(0) if receiver.answers else 200
                if answer == "hang":
                    receiver.released.wait(30)
                    return
                if answer == 200:
                    receiver.taken.append(body["id"])
                self.send_response(int(answer))
                self.send_header("Location", receiver.location)
                self.end_headers()

        self.server = start(Handler, port)
        self.url = f"http://user:p%40ss@127.0.0.1:{self.server.server_port}/hook?token=t"

    def close(self) -> None:
        self.released.set()
        stop(self.server)
