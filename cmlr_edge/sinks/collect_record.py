"""What is known of a frame that was kept to be labelled: by its name, and by the record in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cmlr_edge.errors import SpecError

RANDOM = "random"  # the kind of frames that were drawn
SUFFIX = ".frame.jpg"  # snapshots may lie in the same folder


class KeptName(NamedTuple):
    """What the name of a kept frame tells."""

    label: str  # made safe
    kind: str
    worth: str  # in ten thousandths
    digest: str

    @classmethod
    def of(cls, path: Path) -> KeptName:
        """Read it; a file that only ends like ours is worth nothing."""
        parts = path.name.removesuffix(SUFFIX).rsplit("_", 3)
        return cls(*parts) if len(parts) == 4 else cls("", "", "", parts[-1])


@dataclass(frozen=True)
class KeptDoubt:
    """One of `cmlr_edge.events.doubts`, with the label's name."""

    kind: str
    label: str
    worth: float


@dataclass(frozen=True)
class FrameRecord:
    """What the model said of a frame."""

    source: str
    index: int  # of the frame in its source
    time_s: float | None
    captured_at: float  # seconds since the epoch
    width: int
    height: int
    kind: str  # why it was kept
    label: str  # of which; "" of a frame that was drawn
    worth: float  # in (0, 1)
    explained: bool  # whether contradictions were looked for
    doubts: tuple[KeptDoubt, ...]  # the most worthy first
    why: tuple[str, ...]  # the sums of the labels that contradict themselves, in words
    said: dict[str, float]  # labels at or above their thresholds, and their scores
    scores: dict[str, float]  # of all labels, in the model's order

    def __post_init__(self) -> None:
        """Refuse what no frame has."""
        if not (0 < self.width < 2**16 and 0 < self.height < 2**16):
            raise SpecError(f"a frame of {self.width} x {self.height} pixels")
        named = {*self.said} | ({self.label} - {""})
        if named - {*self.scores}:
            raise SpecError("it says labels that the model does not have")
        if not all(0 <= score <= 1 for score in (*self.scores.values(), *self.said.values())):
            raise SpecError("it has scores below 0 or above 1")
