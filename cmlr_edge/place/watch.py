"""Watches the place of one source while it runs: counts surroundings, tells drift, averages scores."""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.errors import OutputError, SpecError
from cmlr_edge.frame import Frame
from cmlr_edge.machine.claim import IN_USE, Claim
from cmlr_edge.machine.opencv import jpeg_of, opencv
from cmlr_edge.machine.rarely import Rarely
from cmlr_edge.model.explanation import TrainedSurroundings
from cmlr_edge.model.files import write_atomically
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.place import store
from cmlr_edge.place.asking import no_place, trained_surroundings
from cmlr_edge.place.drift import END_SHARE, DriftTest
from cmlr_edge.place.histogram import MOST_BLOCKS, PlaceHistogram, distance
from cmlr_edge.place.prior import average_over
from cmlr_edge.place.settings import PlaceSettings
from cmlr_edge.place.words import record_of, speaks_for
from cmlr_edge.prediction import Prediction
from cmlr_edge.redaction import printable
from cmlr_edge.why import Reasons

_WIDTH, _QUALITY = 320, 85  # of the pictures
_BETTER = 1.05  # a frame so much more unlike training is worth another picture of its block
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlaceStatus:
    """How a source's place is, for people and metrics."""

    blocks: int  # of time, that were counted
    distance: (
        float  # from training's surroundings: 0 the same, 1 nothing in common; 0 before a block
    )
    statistic: float  # of the test; 1 is usual, 0 while there are too few blocks
    threshold: float  # of the test
    unlike: bool  # whether an alarm stands


@dataclass(frozen=True)
class PlaceNotice:
    """A place became unlike what training saw, or is like it again."""

    id: str  # the same for both
    unlike: bool
    record: dict[str, Any]  # what an event tells of it


@dataclass
class _Shown:
    """The frame of a block that is least like training."""

    distance: float
    context: NDArray[np.float32]  # (K,)
    jpeg: bytes


class PlaceWatch:
    """Counts the surroundings of one source; used by the thread that hands its results on."""

    def __init__(
        self,
        source: str,
        settings: PlaceSettings,
        folder: Path,
        spec: ModelSpec,
        *,
        tell_why: bool,
    ) -> None:
        """Go on with what is kept of the source; takes a second, in which chance is drawn.

        Args:
            source: Its name.
            settings: How to watch.
            folder: Where places are kept; made where it is missing.
            spec: Of the model, which has to tell the surroundings of its training.
            tell_why: Whether predictions keep saying why, which counting needs.

        Raises:
            EngineError: It does not.
            OutputError: Another program keeps its places in the folder.
        """
        self._source, self._settings, self._model = printable(source), settings, spec.name
        self._path = store.path_of(folder, source)
        self._tell_why = tell_why
        self._rarely = Rarely()
        # A place whose alarm another engine ends, and why its file is to be set aside.
        self._over: tuple[store.StoredPlace, str] | None = None
        if (training := trained_surroundings(spec)) is None:
            raise no_place(spec)
        self._claim = Claim(folder / IN_USE, f"the folder {folder}")
        self._begin(training, spec.labels)

    def take(self, frame: Frame, prediction: Prediction) -> tuple[Prediction, PlaceNotice | None]:
        """Count a frame; return what it says in this place, and whether something is to be told.

        Args:
            frame: With its masks painted over: pictures of it may be kept.
            prediction: Of the frame, with `why`.
        """
        why, notice = prediction.why, None
        if why is None or prediction.repeated or not prediction.valid:
            return prediction, None
        training, context = why.meaning.training, why.context
        if training is not None and context is not None and np.isfinite(context).all():
            if training is not self._training:  # another engine
                self._change(training, why)
            ended = self._end_former()
            notice = self._count(frame, context) or ended
            prediction = self._averaged(prediction, why)
        return prediction if self._tell_why else replace(prediction, why=None), notice

    def close(self) -> None:
        """Keep what is known. Calling it twice is harmless."""
        if self._histogram.num_blocks or self._histogram.open_frames:
            self._save()
        self._claim.close()

    def forget_pictures(self) -> None:
        """Keep no frame from before now: what may be seen of the source changes."""
        self._shown.clear()

    def _averaged(self, prediction: Prediction, why: Reasons) -> Prediction:
        if not self._settings.average:
            return prediction
        reasons = average_over(why, self._histogram.prior)
        return replace(prediction, scores=reasons.scores, why=reasons)

    @property
    def averages(self) -> bool:
        """Whether it changes scores; then it needs predictions that say why."""
        return self._settings.average

    def compared(self, prediction: Prediction) -> Prediction:
        """What another engine's word on a frame is in this place; nothing is counted. Any thread may ask."""
        why = prediction.why
        if not self.averages or why is None or (training := why.meaning.training) is None:
            return prediction
        same = store.digest_of(training) == self._digest
        prior = (self._histogram if same else PlaceHistogram(training)).prior
        return replace(prediction, scores=average_over(why, prior).scores, why=None)

    def _change(self, training: TrainedSurroundings, why: Reasons) -> None:
        """Go on with another engine; of one that was trained in other surroundings, anew."""
        former, self._model = self._stored(), why.model or self._model
        if store.digest_of(training) == self._digest:  # taught a label, or built again
            self._training, self._labels = training, why.labels
            return
        if former.num_blocks or former.open_frames:
            self._save(former)  # what is set aside is whole
        self._begin(training, why.labels)
        if self._over is None and former.alarm and former.blocks:  # its file could not be written
            self._over = former, ""

    def _begin(self, training: TrainedSurroundings, labels: tuple[str, ...]) -> None:
        """Hold the place against these surroundings."""
        self._histogram = PlaceHistogram(training)
        self._test = DriftTest(
            training,
            block_s=self._settings.block_s,
            false_alarms_a_day=self._settings.false_alarms,
        )
        self._training, self._labels = training, labels
        self._digest: str = store.digest_of(training)
        self._shown: dict[int, _Shown] = {}  # by the number of its block
        self._clock = _BlockClock(self._settings.block_s)
        self._alarm, self._num_pictures, self._statistic, self._looks = "", 0, 0.0, 1.0
        self._unlike_since: float | None = None
        self._over = None
        self._load(training)
        self._update_status()

    def _load(self, training: TrainedSurroundings) -> None:
        kept = None
        try:
            store.clear_parts(self._path)
            kept = store.load(self._path)
            if kept.block_s != self._settings.block_s:
                raise SpecError(f"{printable(self._path)} is of blocks of {kept.block_s:g} s")  # noqa: TRY301
            self._histogram = kept.histogram(training)
        except FileNotFoundError:
            return
        except (SpecError, OSError) as error:
            if kept is not None and kept.alarm and kept.blocks:
                self._over = kept, str(error)  # a frame takes the word along: a run may have none
            else:
                store.set_aside(self._path, str(error))
            return
        self._clock.past_s = kept.open_s
        self._alarm, self._unlike_since = kept.alarm, kept.unlike_since
        self._num_pictures, self._statistic = kept.num_pictures, kept.statistic
        self._looks = kept.blocks_a_look

    def _count(self, frame: Frame, context: NDArray[np.float32]) -> PlaceNotice | None:
        histogram, notice = self._histogram, None
        if self._clock.is_over(frame.time_s) and histogram.open_frames:
            notice = self._end_block()
        histogram.add(context)
        self._show(frame, context)
        return notice

    def _end_block(self) -> PlaceNotice | None:
        self._histogram.end_block()
        found, looks = self._test.measure(np.array(self._histogram.blocks))
        # While an alarm stands: a place that moved is like itself before and after, and seems to stand still.
        self._looks = self._looks if self._alarm else looks
        self._statistic = found / self._looks
        for old in [n for n in self._shown if n <= self._histogram.num_blocks - MOST_BLOCKS]:
            del self._shown[old]
        notice = None
        if not self._alarm and self._statistic > self._test.threshold:
            self._alarm, self._unlike_since = uuid.uuid4().hex, time.time()
            notice = self._notice(unlike=True)
        elif self._alarm and self._statistic < END_SHARE * self._test.threshold:
            notice = self._notice(unlike=False)
            self._alarm, self._unlike_since = "", None
        self._update_status()
        self._save()
        return notice

    def _notice(self, *, unlike: bool) -> PlaceNotice:
        if unlike:
            self._keep_pictures()
        what = "is unlike what training saw" if unlike else "is again like what training saw"
        return self._told(self._stored(), what, unlike=unlike)

    def _end_former(self) -> PlaceNotice | None:
        """Let an alarm be over that nobody goes on with: whoever heard it begin waits for its end."""
        if self._over is None:
            return None
        (place, why), self._over = self._over, None
        if why:
            store.set_aside(self._path, why)
        what = f"begins anew, and its alarm, of {place.model}, is over"
        return self._told(place, what, unlike=False)

    def _told(self, place: store.StoredPlace, what: str, *, unlike: bool) -> PlaceNotice:
        record = record_of(place)
        record["pictures"] = [
            str(store.picture_of(self._path, i + 1)) for i in range(place.num_pictures)
        ]
        _log.warning(
            "%s %s: distance %.2f, test %.2f of %.2f",
            self._source, what, record["distance"], place.statistic, place.threshold,
        )  # fmt: skip
        return PlaceNotice(place.alarm, unlike, {"unlike": unlike, **record})

    def _show(self, frame: Frame, context: NDArray[np.float32]) -> None:
        """Keep a small picture of the frame of this block that is least like training."""
        number = self._histogram.num_blocks
        far = float(np.square(context - self._training.mean).sum())
        best = self._shown.get(number)
        if best is not None and far < _BETTER * best.distance:
            return
        cv2, image = opencv(), frame.image_bgr
        height = max(1, round(image.shape[0] * _WIDTH / image.shape[1]))
        small = cv2.resize(image, (_WIDTH, min(height, 2 * _WIDTH)), interpolation=cv2.INTER_AREA)
        self._shown[number] = _Shown(far, context.copy(), jpeg_of(small, _QUALITY, self._source))

    def _keep_pictures(self) -> None:
        """Write those that lie farthest in the direction in which the place has gone."""
        trained = self._training.mean
        gone = self._histogram.mean() - trained
        shown = sorted(
            self._shown.values(), key=lambda item: -float((item.context - trained) @ gone)
        )
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            for number, item in enumerate(shown[: store.MOST_PICTURES], start=1):
                write_atomically(store.picture_of(self._path, number), item.jpeg)
            for number in range(len(shown) + 1, store.MOST_PICTURES + 1):
                store.picture_of(self._path, number).unlink(missing_ok=True)
            self._num_pictures = min(len(shown), store.MOST_PICTURES)
        except OSError as error:
            self._complain(error)

    def _update_status(self) -> None:
        blocks = self._histogram.num_blocks
        far = distance(self._histogram.mean(), self._training.mean) if blocks else 0.0
        self.status = PlaceStatus(
            blocks, far, self._statistic, self._test.threshold, bool(self._alarm)
        )

    def _stored(self) -> store.StoredPlace:
        histogram = self._histogram
        return store.StoredPlace(
            source=self._source,
            model=self._model,
            training=self._digest,
            trained=_rounded(self._training.mean),
            speaks_for=speaks_for(self._training, self._labels),
            block_s=self._settings.block_s,
            num_blocks=histogram.num_blocks,
            blocks=tuple(_rounded(block) for block in histogram.blocks),
            shares=_rounded(histogram.shares),
            open_sum=_rounded(histogram.open_sum),
            open_shares=_rounded(histogram.open_shares),
            open_frames=histogram.open_frames,
            open_s=self._clock.past_s,
            unlike_since=self._unlike_since,
            alarm=self._alarm,
            num_pictures=self._num_pictures,
            threshold=self._test.threshold,
            statistic=self._statistic,
            blocks_a_look=self._looks,
            false_alarms_a_day=self._settings.false_alarms,
        )

    def _save(self, place: store.StoredPlace | None = None) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._claim.renew()
            store.save(self._path, place or self._stored())
        except (OSError, OutputError) as error:
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        if self._rarely.may_say():
            _log.warning("%s cannot be written: %s", printable(self._path), error.strerror or error)


class _BlockClock:
    """Tells when a block is whole, by the times of frames; what a run before had of it counts."""

    def __init__(self, block_s: float) -> None:
        self._block_s = block_s
        self._last_s: float | None = None
        self.past_s = 0.0  # of the block

    def is_over(self, time_s: float | None) -> bool:
        """Whether another block begins with this frame; a picture without a time is a block of its own."""
        if time_s is None:
            return True
        if self._last_s is not None:
            self.past_s += max(0.0, time_s - self._last_s)
        self._last_s = time_s
        over = self.past_s >= self._block_s
        self.past_s = 0.0 if over else self.past_s
        return over


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)
