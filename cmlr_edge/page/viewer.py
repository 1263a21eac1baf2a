"""One browser that looks on: it gets the newest frames, no faster than it paints them."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from dataclasses import asdict

from starlette.websockets import WebSocket, WebSocketDisconnect

from cmlr_edge.page.state import LiveState
from cmlr_edge.sinks.base import Result

_TICK_S = 1 / 20  # the fastest pace of pictures
_STATE_EVERY_S = 0.5
_UNPAINTED = 2  # frames of a source under way to a browser; more would only grow old there
_VISITS_AT_FIRST = 500
_ASKED = re.compile(r"why ([0-9]{1,5})(?: ([0-9]{1,6}))?")


async def show(socket: WebSocket, live: LiveState) -> None:
    """Serve one browser until it leaves or the server ends."""
    await socket.accept()
    viewer = _Viewer(socket, live)
    listening = asyncio.create_task(viewer.listen())
    try:
        while not listening.done() and not live.closing:
            await viewer.send_news()
            await asyncio.wait({listening}, timeout=_TICK_S)
        if not listening.done():
            await socket.close(1001, "the server ends")
    except (WebSocketDisconnect, RuntimeError):
        pass  # it left in the middle of a message
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


class _Viewer:
    """What one browser has got so far."""

    def __init__(self, socket: WebSocket, live: LiveState) -> None:
        self._socket, self._live = socket, live
        self._unpainted: Counter[int] = Counter()
        self._asked: dict[int, int] = {}  # why of which label, by source
        self._sent: dict[int, Result] = {}
        self._state_due_s = 0.0
        self._revision = 0

    async def listen(self) -> None:
        """Note what the browser says.

        An id: a frame of that source was painted. "why ID LABEL": with its frames shall come why that
        label has its score; LABEL is its number, and "why ID" asks no more.
        """
        while (message := await self._socket.receive())["type"] == "websocket.receive":
            text = message.get("text") or ""
            if (asked := _ASKED.fullmatch(text)) is not None:
                self._ask(int(asked[1]), asked[2])
            elif text.isdecimal() and len(text) < 6 and self._unpainted[int(text)] > 0:
                self._unpainted[int(text)] -= 1

    def _ask(self, source_id: int, label: str | None) -> None:
        self._asked.pop(source_id, None)
        if source_id < self._live.num_sources and label is not None:
            self._asked[source_id] = int(label)
            self._sent.pop(source_id, None)  # the frame that is there answers, if none follows

    async def send_news(self) -> None:
        """Send the state now and then, and new frames of sources whose last ones were painted."""
        if time.monotonic() >= self._state_due_s:
            self._state_due_s = time.monotonic() + _STATE_EVERY_S
            await self._send_state()
        for source_id in range(self._live.num_sources):
            result = self._live.result(source_id)
            is_news = result is not None and result is not self._sent.get(source_id)
            if result is not None and is_news and self._unpainted[source_id] < _UNPAINTED:
                self._sent[source_id] = result
                self._unpainted[source_id] += 1
                asked = self._asked.get(source_id)
                packet = await asyncio.to_thread(self._live.packet, source_id, result, asked)
                await self._socket.send_bytes(packet)

    async def _send_state(self) -> None:
        state = await asyncio.to_thread(self._live.state)
        visits = self._live.visits.newest(_VISITS_AT_FIRST, after_revision=self._revision)
        self._revision = max((visit.revision for visit in visits), default=self._revision)
        record = asdict(state) | {"visits": [asdict(visit) for visit in visits]}
        for source in record["sources"]:
            source["status"]["state"] = source["status"]["state"].value
            del source["frame"]  # frames come with their pictures
        await self._socket.send_json(record)
