"""What every source of frames offers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, TypeAlias

from cmlr_edge.frame import Frame
from cmlr_edge.machine.closing import Closing

# "every" frame in order, however late; or the "newest", dropping those nobody took in time.
Policy: TypeAlias = Literal["every", "newest"]


class Source(Protocol):
    """An opened source: iterate it once, close it, or use it in a `with` block."""

    @property
    def name(self) -> str:
        """The file, folder, pattern or camera, for people."""
        ...

    @property
    def num_frames(self) -> int | None:
        """Frames to expect, where the source announces it. A container may announce wrongly."""
        ...

    @property
    def fps(self) -> float | None:
        """Frames per second of a video or camera; None for still pictures."""
        ...

    @property
    def files(self) -> Sequence[Path]:
        """The files that frames are read from; empty for a camera."""
        ...

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames in order, whose pixels are not written to afterwards: they are looked at later.

        Raises:
            CaptureError: A picture of the source cannot be read, or a camera stopped delivering.
        """
        ...

    def close(self) -> None:
        """Release the device or file. Calling it twice is harmless."""
        ...

    def __enter__(self) -> Source:
        """Return itself."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        ...


class ClosesItself(Closing):
    """What a source is in a `with` block, and how it is shown."""

    name: str

    def __repr__(self) -> str:
        """Its kind and its name."""
        return f"<{type(self).__name__} {self.name}>"
