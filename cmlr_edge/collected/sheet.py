"""Kept frames on one picture, each with why it was kept and what was said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cmlr_edge.capture.images import read_image
from cmlr_edge.collected.frames import Kept
from cmlr_edge.errors import CaptureError
from cmlr_edge.frame import Frame
from cmlr_edge.prediction import LabelScore, Latency, Prediction
from cmlr_edge.sinks.base import Result
from cmlr_edge.sinks.contact_sheet import ContactSheet

_CELLS = 12  # of a sheet
_MOST_SAID = 4  # labels of a frame, beside the one that it was kept for


def draw_kept(frames: Sequence[Kept], out: Path) -> int:
    """Draw up to twelve frames: the most worthy of each kind and label before the second ones of any.

    Args:
        frames: The most worthy first.
        out: PNG to write.

    Returns:
        How many are drawn.

    Raises:
        CaptureError: None can be read.
        OutputError: The sheet cannot be written.
    """
    sheet, drawn, last = ContactSheet(out), 0, ""
    for kept in _in_turn(frames):
        try:
            image = read_image(kept.path)
        except CaptureError as error:
            last = str(error)
            continue
        record = kept.record
        title = f"{record.kind} {record.label}, {record.source}".replace("/", " ")
        frame = Frame(image, drawn, None, 0.0, 0.0, title)
        about = [LabelScore(record.label, record.scores[record.label])] if record.label else []
        said = [LabelScore(*item) for item in record.said.items() if item[0] != record.label]
        shown = tuple(about + said[:_MOST_SAID])
        sheet.write(Result(frame, replace(_NOTHING, labels=shown), (), title))
        drawn += 1
        if drawn == _CELLS:
            break
    if not drawn:
        raise CaptureError(f"none of the frames can be read: {last}")
    sheet.close()
    return drawn


def _in_turn(frames: Sequence[Kept]) -> list[Kept]:
    """First the best of each kind and label, then the second ones."""
    groups: dict[tuple[str, str], int] = {}
    order = []
    for number, kept in enumerate(frames):
        key = kept.record.kind, kept.record.label
        groups[key] = groups.get(key, -1) + 1
        order.append((groups[key], number))
    return [frames[number] for _, number in sorted(order)]


_NOTHING = Prediction(np.empty(0, np.float32), (), Latency(), 0.0)
