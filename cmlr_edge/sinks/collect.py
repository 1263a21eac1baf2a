"""Frames that are worth labelling: where the model contradicts itself, and a random share besides.

FOLDER/SOURCE/LABEL_KIND_WORTH_DIGEST.jpg, each with a record of what the model said in its comments. The name
is all that decides over room, and the digest is of the pixels: a frame that comes again is there already.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.errors import OutputError, SpecError
from cmlr_edge.events.doubts import CONTRADICTIONS, Doubt, Flicker, doubts_of
from cmlr_edge.frame import Frame, mean_colors
from cmlr_edge.machine.claim import IN_USE, Claim
from cmlr_edge.machine.opencv import jpeg_of
from cmlr_edge.model.label_names import require_known
from cmlr_edge.model.thresholds import reaches
from cmlr_edge.prediction import Prediction
from cmlr_edge.redaction import printable, safe_name
from cmlr_edge.sinks.base import Result, Takes
from cmlr_edge.sinks.collect_record import RANDOM, SUFFIX, FrameRecord, KeptDoubt, KeptName
from cmlr_edge.sinks.frame_ranking import FrameRanking
from cmlr_edge.sinks.jpeg_record import with_record
from cmlr_edge.sinks.kept_files import KeptFiles

_QUALITY = 92  # of JPEG: people look closely
_ALIKE = (
    5.0  # of 255; a frame whose cells differ by less from one kept of its label shows nothing new
)
_REMEMBERED = 32  # frames of each source and label that new ones are compared with
_SHY_S = 2.0  # after a label that keeps frames out was last likely
_LIKELY = 0.5  # of its threshold
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CollectSettings:
    """Frames kept to be labelled; docs/collect.md says which."""

    folder: str = ""  # for the frames; "": none are kept
    every_s: float = 10.0  # of each source one frame for each kind of doubt, and no more often
    # Of all moments of `every_s`, and of all pictures without times: kept whatever they show.
    random_share: float = 0.01
    most: int = 2000  # frames in the folder, for all sources together
    keep_mb: float = 1000.0  # of frames: those worth least make room
    keep_days: float | None = 30.0  # older frames are deleted; None: as long as there is room
    without: tuple[str, ...] = ()  # no frame is kept in which one of these labels is likely

    def __post_init__(self) -> None:
        """Refuse what could not be meant.

        Raises:
            SpecError: It says what.
        """
        if not (0 <= self.every_s < math.inf and 0 <= self.random_share <= 1):
            raise SpecError(
                f"every_s is {self.every_s} and random_share {self.random_share}: expected "
                "seconds from 0, and a share from 0 to 1"
            )
        if self.most < 1 or not self.keep_mb > 0:
            raise SpecError(f"most is {self.most} and keep_mb {self.keep_mb}: expected more than 0")
        if self.keep_days is not None and not self.keep_days > 0:
            raise SpecError(f"keep_days is {self.keep_days}: expected more than 0")


@dataclass
class _Source:
    """What is remembered of one."""

    flicker: Flicker
    last_s: float = -math.inf
    due_s: dict[str, float] = field(default_factory=dict)  # by kind
    moment: int | None = None  # the last one that the random share has looked at
    likely_s: float = -math.inf  # when a label that keeps frames out was last likely
    seen: dict[int, list[NDArray[np.float32]]] = field(default_factory=dict)  # by label

    def has_seen(self, label: int, cells: NDArray[np.float32]) -> bool:
        """Whether a frame with these colours shows nothing new beside those kept for a label."""
        return any(float(np.abs(cells - c).max()) < _ALIKE for c in self.seen.get(label, []))

    def note(self, doubt: Doubt, cells: NDArray[np.float32]) -> None:
        """Remember a frame that is kept."""
        seen = self.seen.setdefault(doubt.label, [])
        seen.append(cells)
        del seen[:-_REMEMBERED]
        if doubt.kind == "flicker":
            self.flicker.changes[doubt.label] = 0.0


class Collect:
    """Keeps frames that are worth a person's look; see `Sink`."""

    takes: Takes = "results"

    def __init__(
        self, folder: Path, labels: tuple[str, ...], settings: CollectSettings | None = None
    ) -> None:
        """Look at what is there already.

        Args:
            folder: See `KeptFiles`.
            labels: Of the model, in the order of the scores.
            settings: Their folder counts for nothing here.

        Raises:
            SpecError: A label that keeps frames out is not one of the model's.
            OutputError: The folder cannot be used, or another program fills it.
        """
        self.name, self._labels = str(folder), labels
        self._settings = settings or CollectSettings()
        require_known(self._settings.without, labels, "collect.without names")
        self._out = np.array([label in self._settings.without for label in labels])
        self._ranking = FrameRanking()
        self._files = KeptFiles(
            folder,
            (SUFFIX,),
            keep_bytes=self._settings.keep_mb * 1e6,
            keep_days=self._settings.keep_days,
            most=self._settings.most,
            ranking=self._ranking,
        )
        self._claim = Claim(folder / IN_USE, f"the folder {folder}")
        self._taken = ""  # who else has it by now
        self._sources: dict[str, _Source] = {}
        self._is_said = False

    def write(self, result: Result) -> None:
        """Keep the frame, if it is worth it; see `Sink`.

        Raises:
            OutputError: It cannot be written.
        """
        self.tend()
        frame, prediction = result.frame, result.prediction
        if not prediction.valid or prediction.repeated or frame.status != "ok":
            return
        if (thresholds := result.thresholds) is None or (wanted := result.wanted) is None:
            raise OutputError(f"a result of {result.source} does not tell its thresholds")
        self._say(prediction)
        source = self._sources.setdefault(result.source, _Source(Flicker(len(self._labels))))
        if frame.time_s is not None and frame.time_s < source.last_s:  # another run of it
            source = self._sources[result.source] = _Source(Flicker(len(self._labels)))
        if frame.time_s is not None:
            source.last_s = frame.time_s
            source.flicker.add(reaches(prediction.scores, thresholds), frame.time_s)
        if self._is_kept_out(source, frame, prediction, thresholds):
            return
        changes = None if frame.time_s is None else source.flicker.changes
        doubts = doubts_of(prediction, thresholds, wanted, changes)
        if (drawn := self._draw(source, frame)) is not None:
            self._keep(result, RANDOM, None, drawn, doubts)
            return
        for doubt in doubts:
            if frame.time_s is not None and frame.time_s < source.due_s.get(doubt.kind, -math.inf):
                continue
            cells = mean_colors(frame.image_bgr)
            if source.has_seen(doubt.label, cells):
                continue
            if frame.time_s is not None:
                source.due_s[doubt.kind] = frame.time_s + self._settings.every_s
            if self._keep(result, doubt.kind, doubt.label, doubt.worth, doubts):
                source.note(doubt, cells)
            return

    @property
    def trouble(self) -> str:
        """Why nothing can be written there; see `Sink`."""
        return self._taken or self._files.trouble

    def tend(self) -> None:
        """Delete frames that are too old; see `Sink`."""
        self._files.tend()

    def close(self) -> None:
        """Everything is written already; see `Sink`."""
        self._claim.close()

    def _say(self, prediction: Prediction) -> None:
        """Say once what frames are chosen by, where that is the lesser way."""
        if not self._is_said and prediction.why is None:
            _log.warning(
                "%s: frames are chosen by uncertainty and flicker, for nothing is explained; with "
                "--explain, of an engine that can, by contradictions too",
                self.name,
            )
        self._is_said = True

    def _is_kept_out(
        self,
        source: _Source,
        frame: Frame,
        prediction: Prediction,
        thresholds: NDArray[np.float32],
    ) -> bool:
        """Whether a label that keeps frames out is likely, or was a moment ago."""
        if not self._out.any():
            return False
        # Also where it may not be said of this source.
        is_likely = bool((prediction.scores >= _LIKELY * thresholds)[self._out].any())
        if frame.time_s is None:
            return is_likely
        if is_likely:
            source.likely_s = frame.time_s
        return frame.time_s - source.likely_s < _SHY_S

    def _draw(self, source: _Source, frame: Frame) -> float | None:
        """Draw the random share by the pixels; the same frame is drawn again in another run.

        Returns:
            Its worth beside others that were drawn: those that stay are a random share again.
        """
        if frame.time_s is not None and self._settings.every_s:
            moment = int(frame.time_s // self._settings.every_s)
            if moment == source.moment:
                return None
            source.moment = moment
        if not self._settings.random_share:
            return None
        drawn = int(digest_of(frame.image_bgr)[:12], 16) / 16**12
        return None if drawn >= self._settings.random_share else 1 - drawn

    def _keep(
        self, result: Result, kind: str, label: int | None, worth: float, doubts: Sequence[Doubt]
    ) -> bool:
        """Write the frame, unless it is there; False where it is worth too little to stay."""
        frame = result.frame
        folder = Path(self.name) / safe_name(result.source or "frames")
        digest = digest_of(frame.image_bgr)
        about = "any" if label is None else safe_name(self._labels[label])[:80]
        name = KeptName(about, kind, f"{round(worth * 1e4):05d}", digest)
        path = folder / f"{'_'.join(name)}{SUFFIX}"
        self._files.look()  # first: it sees whether the folder was taken away
        try:
            self._claim.renew()
        except OutputError as error:
            self._taken = str(error)
            raise
        self._taken = ""
        if self._ranking.has(folder.name, digest):
            return True
        record = self._record(result, kind, label, worth, doubts)
        encoded = jpeg_of(frame.image_bgr, _QUALITY, frame.source)
        return self._files.keep(path, with_record(encoded, asdict(record)))

    def _record(
        self, result: Result, kind: str, label: int | None, worth: float, doubts: Sequence[Doubt]
    ) -> FrameRecord:
        frame, prediction, names = result.frame, result.prediction, self._labels
        why, told = prediction.why, {*CONTRADICTIONS.values()}
        odd = dict.fromkeys(names[d.label] for d in doubts if d.kind in told)
        scores = zip(names, prediction.scores.tolist(), strict=True)
        return FrameRecord(
            source=printable(result.source),
            index=frame.index,
            time_s=frame.time_s,
            captured_at=frame.captured_at,
            width=frame.image_bgr.shape[1],
            height=frame.image_bgr.shape[0],
            kind=kind,
            label="" if label is None else names[label],
            worth=round(worth, 4),
            explained=why is not None,
            doubts=tuple(KeptDoubt(d.kind, names[d.label], round(d.worth, 4)) for d in doubts),
            why=() if why is None else tuple(str(why[name]) for name in odd),
            said={item.label: round(item.score, 4) for item in prediction.labels},
            scores={name: round(score, 4) for name, score in scores},
        )


def digest_of(image: NDArray[np.uint8]) -> str:
    """32 hexadecimal digits of the pixels of a picture (H, W, 3)."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()[:32]
