"""What of one source is looked at: how often, when, which part of the picture, and for which labels."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.errors import SpecError
from cmlr_edge.frame import Frame
from cmlr_edge.machine.opencv import opencv
from cmlr_edge.model.label_names import require_known
from cmlr_edge.model.stability import StabilityRules
from cmlr_edge.model.thresholds import reaches
from cmlr_edge.pipeline.tiles import Tiles
from cmlr_edge.prediction import Prediction, rank_labels
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.why import Box
from cmlr_edge.wording import counted

# Corners (x, y), as shares of width and height: the same at any size of the picture.
Polygon: TypeAlias = tuple[tuple[float, float], ...]

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = re.compile(r"(?:([a-z]{3})(?:-([a-z]{3}))? )?(\d\d):(\d\d)-(\d\d):(\d\d)")
_SLOWEST, _FASTEST = 1e-5, 100_000  # frames a second: from one a day to more than any camera gives
_SHOWN = 10  # corners, in an error
_MASK_BGR = (96, 96, 96)  # nothing that a picture is full of
_FINE = 16  # pixels of a side of a map's cell, to measure how much of it is painted over
_EARLY = 0.1  # of the interval between frames that a frame may come early: cameras are not exact


@dataclass(frozen=True)
class IntakeSettings:
    """What of one source is looked at."""

    labels: tuple[str, ...] = ()  # that may be said; () for all
    thresholds: dict[str, float] = field(default_factory=dict)  # instead of the run's, by label
    stability: StabilityRules | None = None  # of the labels' events, instead of the run's
    masks: tuple[Polygon, ...] = ()  # painted over before anything sees the picture
    region: Polygon = ()  # all that the model sees; () for the whole picture
    tiles: str = ""  # "2x2": look at so many parts of it, too, for small things; "" for none
    every: int = 1  # look at each n-th frame
    max_fps: float | None = None  # look at no more frames a second
    active: tuple[str, ...] = ()  # hours of local time, as "mon-fri 08:00-18:30"; () for always

    def __post_init__(self) -> None:
        """Refuse what could not be meant.

        Raises:
            SpecError: It says what.
        """
        if self.every < 1:
            raise SpecError(f"every is {self.every}: expected at least 1")
        if self.max_fps is not None and not _SLOWEST <= self.max_fps <= _FASTEST:
            raise SpecError(
                f"max_fps is {self.max_fps}: expected frames a second, from {_SLOWEST:.5f} to {_FASTEST}"
            )
        for label, threshold in self.thresholds.items():
            if not 0 <= threshold <= 1:
                raise SpecError(f"thresholds.{label} is {threshold}: expected 0 to 1")
        for polygon in (*self.masks, *([self.region] if self.region else [])):
            _check_polygon(polygon)
        for hours in self.active:
            _Hours.read(hours)
        if self.tiles:
            Tiles.read(self.tiles)


def read_polygon(text: str) -> Polygon:
    """Read corners as a flag gives them: "0,0 0.5,0 0.5,1".

    Raises:
        SpecError: It is written otherwise, or is no polygon.
    """
    try:
        corners = [tuple(float(part) for part in corner.split(",")) for corner in text.split()]
    except ValueError:
        corners = []
    if not corners or any(len(corner) != 2 for corner in corners):
        raise SpecError(f"cannot read the polygon {text!r}: expected corners as 0,0 0.5,0 0.5,1")
    polygon = tuple((corner[0], corner[1]) for corner in corners)
    _check_polygon(polygon)
    return polygon


class Intake:
    """Decides over the frames of one source, in order; used by the thread that takes them."""

    def __init__(self, settings: IntakeSettings, *, after_s: float | None = None) -> None:
        """Start before the first frame, or in the middle.

        Args:
            settings: What is looked at.
            after_s: Of the frame before, where frames from 0 on have kept a steady pace.
        """
        self.settings = settings
        self._hours = [_Hours.read(text) for text in settings.active]
        self._tiles = Tiles.read(settings.tiles) if settings.tiles else None
        self._count = 0
        self._due_s = -math.inf
        self._places: dict[tuple[int, int, int], tuple[Box, NDArray[np.bool_]]] = {}
        if after_s is not None and settings.max_fps is not None:
            step_s = 1 / settings.max_fps
            self._due_s = 0.0
            while after_s >= self._due_s - _EARLY * step_s:
                self._due_s += step_s  # one by one, for the sum to be the same to its last digit

    def is_active(self) -> bool:
        """Whether this is an hour in which the source is looked at."""
        if not self._hours:
            return True
        now = datetime.now()  # a TZ that nobody can read is UTC here, and an error with an offset
        return any(hours.contain(now) for hours in self._hours)

    def wants(self, frame: Frame) -> bool:
        """Whether to look at this frame; the others are let go."""
        return self.wants_at(frame.time_s)

    def wants_at(self, time_s: float | None) -> bool:
        """Whether to look at the next frame, which is of this time."""
        number, self._count = self._count, self._count + 1
        if number % self.settings.every:
            return False
        if self.settings.max_fps is None or time_s is None:
            return True
        step_s = 1 / self.settings.max_fps
        if time_s < self._due_s - _EARLY * step_s:
            return False
        # A pace, not a pause: 30 frames a second become 20, and not 15. After a gap it begins anew.
        is_late = time_s - self._due_s > step_s
        self._due_s = (time_s if is_late else self._due_s) + step_s
        return True

    def masked(self, frame: Frame) -> Frame:
        """The frame with all masks painted over, and without its packets; as it came without masks."""
        if not self.settings.masks:
            return frame
        image = frame.image_bgr.copy()
        corners = [_pixels(mask, image) for mask in self.settings.masks]
        for polygon in corners:  # one by one, for where two overlap fillPoly would leave a hole
            opencv().fillPoly(image, [polygon], _MASK_BGR)
        return replace(frame, image_bgr=image, ring=None)

    def seen(self, frame: Frame) -> Frame:
        """What the model sees of a masked frame: the region, with the rest of its box painted over."""
        region = self.settings.region
        if not region:
            return frame
        image = frame.image_bgr
        corners = _pixels(region, image)
        (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0) + 1
        inside = np.zeros(image.shape[:2], np.uint8)
        opencv().fillPoly(inside, [corners], 1)
        cropped = image[top:bottom, left:right].copy()
        cropped[inside[top:bottom, left:right] == 0] = _MASK_BGR
        return replace(frame, image_bgr=cropped)

    def looks(self, frame: Frame) -> list[Frame]:
        """All that the model is shown of a masked frame: what is seen of it, then its tiles."""
        seen = self.seen(frame)
        return [seen] if self._tiles is None else [seen, *self._tiles.cut(seen)]

    @property
    def runs_per_frame(self) -> int:
        """How often the model runs for a frame."""
        return 1 if self._tiles is None else 1 + self._tiles.columns * self._tiles.rows

    def placed(self, prediction: Prediction, look: int) -> Prediction:
        """A prediction, with its maps where the picture is, and less what nobody shall see.

        Args:
            prediction: Of one of `looks`.
            look: Which.
        """
        settings, why = self.settings, prediction.why
        changes = settings.masks or settings.region or look
        if why is None or why.map_hw is None or not changes:
            return prediction
        key = (*why.map_hw, look)
        if key not in self._places:
            self._places[key] = self._place_of(why.map_hw, look)
        return replace(prediction, why=why.placed(*self._places[key]))

    def _place_of(self, map_hw: tuple[int, int], look: int) -> tuple[Box, NDArray[np.bool_]]:
        """The part of the picture that a map covers, and which of its cells are painted over."""
        region = self.settings.region or ((0, 0), (1, 0), (1, 1), (0, 1))
        (left, top), (right, bottom) = np.min(region, axis=0), np.max(region, axis=0)
        if look and self._tiles is not None:
            part = np.array(self._tiles.boxes()[look - 1]).reshape(2, 2)
            part = (left, top) + part * (right - left, bottom - top)
            (left, top), (right, bottom) = part
        height, width = (side * _FINE for side in map_hw)

        def drawn(polygon: Polygon) -> NDArray[np.uint8]:
            shares = (np.array(polygon) - (left, top)) / (right - left, bottom - top)
            canvas = np.zeros((height, width), np.uint8)
            opencv().fillPoly(canvas, [(shares * (width, height)).round().astype(np.int32)], 1)
            return canvas

        shown = drawn(region)
        for mask in self.settings.masks:
            shown &= 1 - drawn(mask)
        cells = shown.reshape(map_hw[0], _FINE, map_hw[1], _FINE).mean(axis=(1, 3))
        return (float(left), float(top), float(right), float(bottom)), cells < 0.5


class Choice:
    """Which labels of one model may be said of one source, and from which score on."""

    def __init__(self, settings: IntakeSettings, recognizer: Recognizer) -> None:
        """Look the labels up in the model.

        Raises:
            SpecError: The model does not know one of them.
        """
        self._labels = recognizer.labels
        require_known(settings.labels, self._labels, "labels name")
        require_known(settings.thresholds, self._labels, "thresholds name")
        self.labels = settings.labels  # () for all
        self.changed = settings.thresholds  # by label, beside the model's own
        self.thresholds: Mapping[str, float] = recognizer.thresholds | settings.thresholds
        self._is_plain = not (settings.labels or settings.thresholds or settings.tiles)
        wanted = {*(settings.labels or self._labels)}
        self.wanted = np.array([label in wanted for label in self._labels])  # (L,), bool
        self.reached_from = np.array([*self.thresholds.values()], np.float32)  # (L,)

    def of(self, prediction: Prediction, *, anew: bool = False) -> Prediction:
        """What of a prediction is said; its scores stay.

        Args:
            prediction: Of the model.
            anew: Its scores are no longer those that its labels were chosen by.
        """
        if not prediction.valid or (self._is_plain and not anew):
            return prediction
        reached = self.wanted & reaches(prediction.scores, self.reached_from)
        said = rank_labels(prediction.scores, self._labels, reached)
        why = prediction.why and prediction.why.judged_by(self.reached_from)
        return replace(prediction, labels=said, why=why)

    def followed(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores (L,) for events: those of labels that are not wanted are out of any reach."""
        return scores if self._is_plain else np.where(self.wanted, scores, np.float32(-1))


@dataclass(frozen=True)
class _Hours:
    """A span of the day, on some days of the week; one that ends before it begins ends the next day."""

    days: frozenset[int]  # Monday is 0
    begin: int  # minutes since midnight
    end: int

    @classmethod
    def read(cls, text: str) -> _Hours:
        found = _HOURS.fullmatch(text.strip().lower())
        if found is None or not {*found.groups()[:2]} <= {None, *_DAYS}:
            raise SpecError(
                f"cannot read the hours {text!r}: expected 08:00-18:30, mon-fri 08:00-18:30 or "
                "sat 22:00-04:00"
            )
        first = _DAYS.index(found[1]) if found[1] else 0
        last = _DAYS.index(found[2]) if found[2] else first if found[1] else 6
        days = frozenset((first + i) % 7 for i in range((last - first) % 7 + 1))
        hours = [int(found[i]) * 60 + int(found[i + 1]) for i in (3, 5)]
        if max(hours) > 24 * 60 or int(found[4]) > 59 or int(found[6]) > 59:
            raise SpecError(f"cannot read the hours {text!r}: a day has 24 hours of 60 minutes")
        if hours[0] == hours[1]:
            raise SpecError(
                f"cannot use the hours {text!r}: they end when they begin; a day is 00:00-24:00"
            )
        return cls(days, *hours)

    def contain(self, now: datetime) -> bool:
        minute = now.hour * 60 + now.minute
        if self.begin <= self.end:
            return now.weekday() in self.days and self.begin <= minute < self.end
        yesterday = (now - timedelta(days=1)).weekday()
        late, early = minute >= self.begin, minute < self.end
        return (late and now.weekday() in self.days) or (early and yesterday in self.days)


def _check_polygon(polygon: Polygon) -> None:
    shown = f"the polygon {[*polygon[:_SHOWN]]}" + " and so on" * (len(polygon) > _SHOWN)
    if len(polygon) < 3:
        raise SpecError(f"{shown} has {counted(len(polygon), 'corner')}: expected at least 3")
    if not all(0 <= value <= 1 for corner in polygon for value in corner):
        raise SpecError(
            f"{shown} leaves the picture: expected x and y from 0 to 1, as shares of width and height; "
            "divide pixels by them"
        )
    x, y = np.array(polygon, np.float64).T
    if abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) < 1e-6:
        raise SpecError(f"{shown} has no area")


def _pixels(polygon: Polygon, image: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Corners in pixels of an image (H, W, 3): (N, 2)."""
    height, width = image.shape[:2]
    corners = np.array(polygon, np.float64) * (width, height)
    return np.clip(np.floor(corners), 0, (width - 1, height - 1)).astype(np.int32)
