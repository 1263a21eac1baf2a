"""What is known of one source's place, as a file: read whatever it holds, and written whole."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from cmlr_edge.errors import SpecError
from cmlr_edge.model.explanation import TrainedSurroundings
from cmlr_edge.model.files import write_atomically
from cmlr_edge.model.strict_json import json_text, read_json
from cmlr_edge.place.histogram import MOST_BLOCKS, PlaceHistogram
from cmlr_edge.redaction import printable, safe_name

FORMAT_VERSION = 1
SUFFIX = ".place.json"
MOST_PICTURES = 4
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredPlace:
    """What `FOLDER/SOURCE.place.json` holds; see `PlaceHistogram`."""

    source: str
    model: str  # its name, for people
    training: str  # tells the surroundings that it is held against from others
    trained: tuple[float, ...]  # (K,), their mean
    speaks_for: tuple[str, ...]  # (K,), the labels that each confounder speaks for most
    block_s: float
    num_blocks: int
    blocks: tuple[tuple[float, ...], ...]  # (B, K), the newest last
    shares: tuple[float, ...]  # (C,)
    open_sum: tuple[float, ...]  # (K,), of the block that was not yet whole
    open_shares: tuple[float, ...]  # (C,)
    open_frames: int
    open_s: float  # seconds of it that were over
    unlike_since: float | None = None  # seconds since the epoch
    alarm: str = ""  # id of the alarm that is not over
    num_pictures: int = 0  # that show what is unlike; see `picture_of`
    threshold: float = 0.0  # of the statistic
    statistic: float = 0.0
    blocks_a_look: float = 1.0  # how many blocks are worth one independent look
    false_alarms_a_day: float = 0.0
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Refuse what no place can be."""
        if self.format_version != FORMAT_VERSION:
            raise SpecError(f"format_version is {self.format_version}: expected {FORMAT_VERSION}")
        rows = (self.shares, self.trained, self.open_sum, self.open_shares, *self.blocks)
        numbers = [*chain.from_iterable(rows)]
        least = min([*numbers, self.open_s, self.open_frames, self.num_blocks, 0.0])
        if least < 0 or max(map(abs, numbers), default=0) > 1e12:
            raise SpecError("it has numbers below 0, or beyond all sense")
        if self.blocks_a_look < 1:
            raise SpecError(f"blocks_a_look is {self.blocks_a_look}: expected at least 1")
        if len(self.blocks) != min(MOST_BLOCKS, self.num_blocks) or self.block_s <= 0:
            raise SpecError(f"it has {len(self.blocks)} blocks of {self.num_blocks}")
        if {len(self.trained), len(self.speaks_for), *map(len, self.blocks)} != {
            len(self.open_sum)
        }:
            raise SpecError("its rows are not of one length")
        if not 0 <= self.num_pictures <= MOST_PICTURES:
            raise SpecError(
                f"it has {self.num_pictures} pictures: expected at most {MOST_PICTURES}"
            )

    def histogram(self, training: TrainedSurroundings) -> PlaceHistogram:
        """Go on from here.

        Raises:
            SpecError: It is of another model.
        """
        found = PlaceHistogram(training)
        if self.training != digest_of(training):
            raise SpecError(f"it is of another model, {self.model}")
        sizes = len(self.open_sum), len(self.shares), len(self.open_shares)
        if sizes != (len(training.spread), len(training.prior), len(training.prior)):
            raise SpecError("its rows are not as long as the model's")
        found.blocks.extend(map(np.array, self.blocks))
        found.num_blocks = self.num_blocks
        found.shares = np.array(self.shares)
        found.open_sum, found.open_shares = np.array(self.open_sum), np.array(self.open_shares)
        found.open_frames = self.open_frames
        return found


def path_of(folder: Path, source: str) -> Path:
    """Where the place of a source is kept; the name is nobody else's, for what is not ours is set aside."""
    return folder / f"{safe_name(source)}{SUFFIX}"


def picture_of(path: Path, number: int) -> Path:
    """Where a picture of what is unlike is kept, beside the place's file; from 1 on."""
    return path.with_name(f"{path.stem}-{number}.jpg")


def digest_of(training: TrainedSurroundings) -> str:
    """Tells the surroundings of one model's training from those of others."""
    return hashlib.sha256(json_text(training)).hexdigest()[:16]


def load(path: Path) -> StoredPlace:
    """Read what `save` wrote.

    Raises:
        SpecError: It holds something else.
        OSError: It cannot be read.
    """
    try:
        return read_json(path, StoredPlace)
    except SpecError as error:
        raise SpecError(f"{printable(path)} holds no place: {error}") from error
    except ValueError as error:
        raise SpecError(f"{printable(path)} holds no place: {str(error)[:200]}") from error


def save(path: Path, place: StoredPlace) -> None:
    """Write it whole, or not at all.

    Raises:
        OSError: It cannot be written.
    """
    write_atomically(path, json_text(place))


def clear_parts(path: Path) -> None:
    """Delete what a process that was killed left half-written.

    Raises:
        OSError: It cannot be deleted.
    """
    for pattern in (f".{path.name}.*.part", f".{path.stem}-?.jpg.*.part"):
        for part in path.parent.glob(pattern):
            part.unlink(missing_ok=True)


def set_aside(path: Path, why: str) -> None:
    """Keep a file that cannot be gone on from under another name, and say so."""
    aside = path.with_suffix(".json.old")
    _log.warning("%s: kept as %s, and the place begins anew", why, aside.name)
    try:
        path.replace(aside)
    except OSError as error:
        _log.warning("%s cannot be renamed: %s", printable(path), error.strerror)
