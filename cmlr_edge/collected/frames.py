"""The frames of a folder that `Collect` filled."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cmlr_edge.errors import CaptureError, SpecError
from cmlr_edge.model.files import read_file
from cmlr_edge.model.strict_json import parse_json
from cmlr_edge.redaction import printable
from cmlr_edge.sinks.collect_record import RANDOM, SUFFIX, FrameRecord, KeptName
from cmlr_edge.sinks.jpeg_record import record_in

_HEAD = 4 * 2**20  # bytes of a file in which its record is: 100,000 labels have no longer one
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """One frame."""

    path: Path
    record: FrameRecord

    @property
    def name(self) -> str:
        """Short, and no other frame's of the folder: SOURCE_DIGEST.jpg."""
        return f"{self.path.parent.name}_{KeptName.of(self.path).digest}.jpg"


def read_kept(folder: Path) -> list[Kept]:
    """Read the records of all frames; one that cannot be read is said and left out.

    Returns:
        The most worthy first, and behind them those that were drawn: their worth is another.

    Raises:
        CaptureError: There is no such folder, or no frame in it.
    """
    if not folder.is_dir():
        raise CaptureError(f"{printable(folder)} is no folder: give the one of --collect")
    found, left_out = [], list[str]()
    for path in sorted(folder.glob(f"*/*{SUFFIX}")):
        try:
            record = parse_json(record_in(read_file(path, _HEAD)), FrameRecord)
        except (OSError, ValueError) as error:  # noqa: PERF203 (the others are whole)
            left_out.append(f"{printable(path)}: {printable(str(error))}")
        else:
            found.append(Kept(path, record))
    if left_out:
        _log.warning("%d frames have no record and are left out, as %s", len(left_out), left_out[0])
    if not found:
        raise CaptureError(f"{printable(folder)} holds no frame that --collect has kept")
    return sorted(found, key=_rank)


def chosen(
    frames: Sequence[Kept],
    *,
    kinds: Sequence[str] = (),
    labels: Sequence[str] = (),
    sources: Sequence[str] = (),
) -> list[Kept]:
    """Those of these kinds, about these labels, of these sources; of any where none is given.

    Raises:
        SpecError: There is none.
    """
    wanted = [(kinds, "kind"), (labels, "label"), (sources, "source")]
    found = [
        kept
        for kept in frames
        if all(not names or getattr(kept.record, field) in names for names, field in wanted)
    ]
    if not found:
        for names, field in wanted:
            there = sorted({getattr(kept.record, field) for kept in frames})
            if names and not {*names} & {*there}:
                raise SpecError(f"no frame was kept of the {field} {[*names]}, but of {there}")
        raise SpecError(f"none of {len(frames)} frames is all that at once")
    return found


def _rank(kept: Kept) -> tuple[bool, float, str]:
    return kept.record.kind == RANDOM, -kept.record.worth, kept.path.name


def classes_of(frames: Sequence[Kept]) -> tuple[str, ...]:
    """The labels of the models that saw the frames, in their order."""
    return tuple(dict.fromkeys(name for kept in frames for name in kept.record.scores))
