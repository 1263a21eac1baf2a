"""One connection of a live source, and the thread that reads it."""

from __future__ import annotations

from dataclasses import dataclass

from cmlr_edge.capture.readers import Reader


@dataclass(frozen=True)
class SourceStats:
    """Counts since the source was opened."""

    received: int = 0
    delivered: int = 0
    dropped: int = 0  # replaced by a newer frame before anybody took them
    frozen: int = 0
    stale: int = 0
    reconnects: int = 0


class Connection:
    """How one connection is doing; guarded by the source's lock."""

    def __init__(self, now_s: float) -> None:
        """Start with one that is not opened yet."""
        self.progress_s = now_s  # when it last did something
        self.opened = False
        self.waits = False  # for room, or until its picture is due
        self.abandoned = False
        self.first_frame_s: float | None = None
        self.film_from_s: float | None = None  # where a film begins, on the line of our times
        self.reader: Reader | None = None
        self.lost_because = ""
        self.is_refused = False  # by an answer
        self.may_lock = False  # whether trying again soon could lock the account
        self.ended = False

    def due_in_s(self, film_s: float, now_s: float) -> float:
        """How long until a picture of a film is to be shown, so that it plays at its own pace."""
        return 0.0 if self.first_frame_s is None else max(0.0, self.first_frame_s + film_s - now_s)

    def place(self, film_s: float, given_s: float) -> float:
        """The time of a picture of a film, behind what an earlier connection gave of it.

        Args:
            film_s: Since its first picture.
            given_s: The time of the newest picture of a film so far, in any connection.
        """
        self.film_from_s = given_s if self.film_from_s is None else self.film_from_s
        return self.film_from_s + film_s
