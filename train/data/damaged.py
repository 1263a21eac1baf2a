"""Pictures that cannot be read: left out and listed, where the user asks for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from rich.progress import Progress

from cmlr_edge.capture.images import read_image
from cmlr_edge.errors import CaptureError, DataError
from train.data.base import LabeledImage, LabeledImages
from train.reporting import progress_bars

_NAMED = 3  # of those left out: in a phone's folder half may be HEIC
_log = logging.getLogger(__name__)


def leave_out_damaged(
    data: LabeledImages, progress: Progress, *, tell: bool = True
) -> tuple[LabeledImages, dict[str, str]]:
    """Read every picture once, and leave out those that cannot be.

    Args:
        data: Of all splits.
        progress: Shows how far it is.
        tell: Name some of them in the log.

    Returns:
        The other pictures, and for each one left out its path and what was wrong.

    Raises:
        DataError: None is left.
    """
    kept, skipped = [], {}
    for image, fault in _look(data, progress):
        if fault is None:
            kept.append(image)
        else:
            skipped[str(image.path)] = fault
    if not kept:
        raise DataError(f"none of the {len(data.images)} pictures of {data.name} can be read")
    for fault in [*skipped.values()][: _NAMED * tell]:
        _log.warning("left out: %s", fault)
    if tell and len(skipped) > _NAMED:
        _log.warning(
            "%d of %d pictures are left out; the first %d are named above, and the skipped.json of "
            "`fit` lists all",
            len(skipped),
            len(data.images),
            _NAMED,
        )
    return replace(data, images=tuple(kept)), skipped


def whole_pictures(data: LabeledImages, *, skip_damaged: bool) -> LabeledImages:
    """All pictures, or those that can be read."""
    if not skip_damaged:
        return data
    with progress_bars() as progress:
        return leave_out_damaged(data, progress)[0]


def refuse_damaged(data: LabeledImages, progress: Progress) -> None:
    """Read every picture once: those that training looks at last would end it after its first epoch.

    Raises:
        DataError: One cannot be read.
    """
    faults = [fault for _, fault in _look(data, progress) if fault is not None]
    if faults:
        raise DataError(
            f"{len(faults)} of {len(data.images)} pictures to validate on cannot be read: "
            f"{faults[0]}; --skip-damaged leaves such pictures out"
        )


def _look(data: LabeledImages, progress: Progress) -> Iterator[tuple[LabeledImage, str | None]]:
    """Yield every picture with what is wrong with it."""
    task = progress.add_task("checking pictures", total=len(data.images))
    with ThreadPoolExecutor() as threads:
        found = threads.map(_fault, [image.path for image in data.images])
        for image, fault in zip(data.images, found, strict=True):
            yield image, fault
            progress.advance(task)
    progress.remove_task(task)


def _fault(path: Path) -> str | None:
    try:
        read_image(path)
    except CaptureError as error:
        return str(error)
    return None
