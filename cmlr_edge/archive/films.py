"""Films: the frames of one part, and a long film's parts put together, with the events of the whole.

A frame's number and time, and the events, follow from all frames before it. So the part of a long film
keeps the file's own times, and `join` counts when all parts are there: what it writes is what one
process that reads the whole film would have written. Where the parts do not fit together, for the
film's times jump, the film is read once more as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from typing import IO

import numpy as np

from cmlr_edge.archive.dataset import Row
from cmlr_edge.archive.inputs import Item
from cmlr_edge.archive.pictures import Watched, opened_here
from cmlr_edge.archive.plan import Unit, shown_path
from cmlr_edge.archive.stores import is_address
from cmlr_edge.capture.film import Film, Picture
from cmlr_edge.capture.timeline import TimeLine
from cmlr_edge.capture.video import open_film
from cmlr_edge.errors import CaptureError
from cmlr_edge.events.event import Event
from cmlr_edge.events.tracker import EventTracker
from cmlr_edge.machine.pyav import pyav
from cmlr_edge.model.files import sha256_of
from cmlr_edge.model.stability import LabelStability
from cmlr_edge.pipeline.intake import Intake, IntakeSettings


@dataclass(frozen=True)
class PartFacts:
    """What a part tells besides its frames, for putting it together with the others."""

    begin: tuple[int, int] | None  # the keyframe it begins with; None: the file's beginning
    end: tuple[int, int] | None  # the one behind it; None: the file's end
    fps: float | None
    may_jump: bool
    damaged: int  # packets that gave no picture
    missing_s: float  # at the end of the file
    taken_at: str  # of its beginning, as the file says: ISO 8601, or ""
    fits: bool = True  # False: the film cannot be cut
    failed: str = ""  # why nothing more of it could be read
    failed_kind: str = ""

    def to_json(self) -> str:
        """Write it as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> PartFacts:
        """Read what `to_json` wrote."""
        record = json.loads(text)
        for name in ("begin", "end"):
            record[name] = None if record[name] is None else tuple(record[name])
        return cls(**record)


class OpenedPart:
    """A part of a film that is being read."""

    def __init__(self, film: Film, file: Watched | None = None) -> None:
        """Take an opened film, and the file it is read from where that is in a storage."""
        self._film, self._file = film, file

    def read(self) -> Picture | None:
        """Decode the next frame; None at the end.

        Raises:
            StorageError: The storage did not answer.
        """
        picture = self._film.read()
        self._check()
        return picture

    def picks(self, max_fps: float) -> Picks:
        """Which frames are looked at; asked for when the first one was read."""
        line = TimeLine(self._film.fps, may_jump=self._film.may_jump)
        start_s, before_s = (getattr(self._film, name, None) for name in ("start_s", "before_s"))
        if start_s is None or before_s is None:
            return Picks(max_fps, line)
        return Picks(max_fps, line, start_s, before_s)

    def facts(self) -> PartFacts:
        """What is known once it was read."""
        begin, end = (getattr(self._film, name, None) for name in ("begin", "end"))
        return PartFacts(
            begin=begin and (begin.ticks, begin.position),
            end=end and (end.ticks, end.position),
            fps=self._film.fps,
            may_jump=self._film.may_jump,
            damaged=self._film.damaged,
            missing_s=self._film.missing_s(),
            taken_at=getattr(self._film, "creation_time", ""),
            fits=getattr(self._film, "fits", True),
        )

    def _check(self) -> None:
        if self._file is not None and self._file.fault is not None:
            raise self._file.fault


@contextmanager
def opened_part(unit: Unit) -> Iterator[OpenedPart]:
    """Open the part of a film; without PyAV the first part is the whole film.

    Raises:
        CaptureError: It is no film that can be read.
        StorageError: The storage did not answer.
    """
    [item] = unit.items
    with ExitStack() as opened:
        place = opened.enter_context(opened_here(item))
        file = place if isinstance(place, Watched) else None
        try:
            film = _opened(unit, place)
        except CaptureError as error:
            if file is not None and file.fault is not None:
                raise file.fault from error
            raise _unreadable(item, error) from error
        opened.callback(film.close)
        yield OpenedPart(film, file)


def _opened(unit: Unit, film: Path | IO[bytes]) -> Film:
    if (av := pyav()) is not None:
        from cmlr_edge.capture.film_part import PyAvFilmPart

        return PyAvFilmPart(av, film, unit.part, unit.parts)
    if isinstance(film, Path) and unit.parts == 1:
        return open_film(film)
    raise CaptureError("films in a storage, and long ones, are read by PyAV: pip install av")


def _unreadable(item: Item, error: CaptureError) -> CaptureError:
    missing = not is_address(item.path) and not Path(item.path).exists()
    reason = error.strerror or str(error)
    refusal = CaptureError(f"{shown_path(item)} is not a video that can be decoded ({reason})")
    refusal.kind = "missing" if missing else "no film"
    return refusal


class Picks:
    """Which frames of a film are looked at, where not all are: those that `label --max-fps` takes.

    Whoever begins in the middle of a film takes it that frames came at a steady pace until there.
    """

    def __init__(
        self,
        max_fps: float,
        line: TimeLine,
        start_s: float | None = None,
        before_s: float | None = None,
    ) -> None:
        """Start before the first frame, or in the middle.

        Args:
            max_fps: Frames a second at most.
            line: Of the film, before its first frame.
            start_s: In the middle: when the film begins, as the stream says.
            before_s: Likewise: of the frame before.
        """
        self._line, self._start_s = line, start_s
        after_s = None if start_s is None or before_s is None else before_s + (0.0 - start_s)
        self._intake = Intake(IntakeSettings(max_fps=max_fps), after_s=after_s)

    def wants(self, stream_s: float | None) -> bool:
        """Whether to look at the next frame."""
        if self._start_s is None or stream_s is None:
            return self._intake.wants_at(self._line.place(stream_s))
        return self._intake.wants_at(stream_s + (0.0 - self._start_s))


class Assembly:
    """Counts the frames of a film, in order, and follows its labels, as `label` does."""

    def __init__(
        self, unit: Unit, facts: PartFacts, stability: Mapping[str, LabelStability]
    ) -> None:
        """Start before the first frame.

        Args:
            unit: Any part of the film.
            facts: Of its first part.
            stability: For every label, in the order of the scores.
        """
        self._line = TimeLine(facts.fps, may_jump=facts.may_jump)
        self._began = _parsed(facts.taken_at)
        self._index = 0
        numbers = count()
        self._tracker = EventTracker(
            stability,
            new_id=lambda: sha256_of(f"{unit.whole} {next(numbers)}".encode())[:32],
        )
        self.events: list[Event] = []

    def place(self, row: Row) -> Row | None:
        """Give the next frame its number and time, and follow its labels; None: it was let go."""
        time_s = self._line.place(row.stream_s)
        taken_at = None if self._began is None else self._began + timedelta(seconds=time_s)
        placed = replace(row, frame=self._index, time_s=time_s, taken_at=taken_at)
        self._index += 1
        if row.scores is None:
            return None
        valid = row.status == "ok" and bool(np.isfinite(row.scores).all())
        self.events += self._tracker.add(row.scores, time_s, valid=valid)
        return placed

    def finish(self) -> list[Event]:
        """End the open events; return all."""
        self.events += self._tracker.finish()
        return self.events


def fit_together(parts: Sequence[PartFacts]) -> bool:
    """Whether each part begins where the one before it ended; those that failed are not asked."""
    expected: tuple[int, int] | None = None
    is_known, is_over = True, False
    for index, part in enumerate(parts):
        if not part.fits:
            return False
        if part.failed:
            is_known = False
            continue
        if is_known and index and part.begin != (None if is_over else expected):
            return False
        expected, is_known = part.end, True
        is_over = part.end is None
    return True


def complaints(item: Item, parts: Sequence[PartFacts], frames: int) -> Iterator[Row]:
    """Rows that say what is missing of a film."""
    path = shown_path(item)
    failed = [part for part in parts if part.failed]
    if len(failed) == len(parts):
        failed = failed[:1]
    for part in failed:
        yield Row(path, modified_at=item.modified, error_kind=part.failed_kind, error=part.failed)
    if not frames and not failed:
        text = f"{path} is not a video that can be decoded (no frame of it can be decoded)"
        yield Row(path, modified_at=item.modified, error_kind="no film", error=text)
    elif damaged := sum(part.damaged for part in parts):
        text = f"{path}: {damaged} packets are damaged and gave no picture"
        yield Row(path, modified_at=item.modified, error_kind="damaged", error=text)
    if frames and (missing_s := max(part.missing_s for part in parts)):
        text = (
            f"{path} ended {missing_s:.1f} s before the end that it announces: it may be cut short"
        )
        yield Row(path, modified_at=item.modified, error_kind="cut short", error=text)


def _parsed(text: str) -> datetime | None:
    """A time of a container, in UTC, without its zone."""
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
        zone = found.tzinfo or timezone.utc
        return found.replace(tzinfo=zone).astimezone(timezone.utc).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None
