"""What happened to a label over time: its event starts, goes on, and ends."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

EventKind: TypeAlias = Literal["start", "update", "end"]


@dataclass(frozen=True)
class Event:
    """One message about one visit of a label; all messages of a visit share the id."""

    kind: EventKind
    id: str
    source: str
    label: str
    time_s: float  # of the frame that brought the message
    start_s: float  # of the frame that first reached the enter threshold
    end_s: float | None  # of the frame that first fell below the leave threshold; None until then
    score: float  # smoothed, at time_s
    max_score: float  # smoothed, the highest since start_s
    captured_at: float  # seconds since the epoch, of the frame at time_s

    def to_record(self) -> dict[str, Any]:
        """Build a JSON-ready object; times and scores are rounded as in the frames' lines."""
        rounding = {"time_s": 4, "start_s": 4, "end_s": 4, "score": 5, "max_score": 5}
        record = asdict(self)
        for key, digits in rounding.items():
            if record[key] is not None:
                record[key] = round(record[key], digits)
        return record
