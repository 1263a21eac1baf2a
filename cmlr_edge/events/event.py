"""What happened to a label over time: its event starts, goes on, and ends."""

from __future__ import annotations

import time
import uuid
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from cmlr_edge.frame import Frame

EventKind: TypeAlias = Literal["begin", "start", "update", "end", "place"]
RUN = uuid.uuid4().hex[:16]  # tells this process's events from those before a restart
_WORTH = {"update": 0, "start": 1, "end": 2, "begin": 2, "place": 2}


@dataclass(frozen=True)
class Event:
    """One message about one visit of a label; all messages of a visit share the id.

    "begin" is no visit: a run of this source begins, so its events of other runs are over, though no
    "end" may have come: the program may have been killed. Its label is empty. Neither is "place": what the
    source shows became unlike what training saw, or is like it again; both share the id.
    """

    kind: EventKind  # start, update, end; begin and place are no visit
    id: str  # of the visit, the same in all its messages
    source: str  # its name
    label: str  # "" of begin and place
    time_s: float  # of the frame that brought the message
    start_s: float  # of the frame that first reached the enter threshold
    end_s: float | None  # of the frame that first fell below the leave threshold; None until then
    score: float  # smoothed, at time_s
    max_score: float  # smoothed, the highest since start_s
    captured_at: float  # seconds since the epoch, of the frame at time_s
    run: str = RUN  # of the process that tells it
    picture: str = ""  # the file with its picture; "" where none is taken
    clip: str = ""  # likewise; it is there some seconds after the end
    why: dict[str, Any] | None = None  # of a start: why it was said; later: at its best moment
    place: dict[str, Any] | None = None  # how far the place is unlike training's: docs/place.md

    @classmethod
    def begin(cls, source: str) -> Event:
        """Say that a run of a source begins now."""
        now = time.time()
        return cls("begin", uuid.uuid4().hex, source, "", 0.0, 0.0, None, 0.0, 0.0, now)

    @classmethod
    def of_place(cls, frame: Frame, source: str, event_id: str, place: dict[str, Any]) -> Event:
        """Say what became of the place that a source shows; its score is the distance from training."""
        time_s, far = frame.time_s or 0.0, float(place["distance"])
        captured_at = frame.captured_at
        return cls(
            "place", event_id, source, "", time_s, time_s, None, far, far, captured_at, place=place
        )

    @property
    def is_visit(self) -> bool:
        """Whether it is about a visit of a label."""
        return self.kind in {"start", "update", "end"}

    @property
    def worth(self) -> int:
        """How much is lost with it: an end tells the whole visit, an update what follows tells too."""
        return _WORTH[self.kind]

    def to_record(self) -> dict[str, Any]:
        """Build a JSON-ready object; times and scores are rounded as in the frames' lines."""
        rounding = {"time_s": 4, "start_s": 4, "end_s": 4, "score": 5, "max_score": 5}
        record = asdict(self)
        for key in ("picture", "clip"):
            if not record[key]:
                del record[key]
        for key, digits in rounding.items():
            if record[key] is not None:
                record[key] = round(record[key], digits)
        for key in ("why", "place"):
            if record[key] is None:
                del record[key]
        return record
