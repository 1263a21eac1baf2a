"""Whether a new engine may replace the one in service: in a process of its own, then on live frames."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cmlr_edge.prediction import Prediction
from cmlr_edge.service.settings import UpdateSettings

# A runtime may crash on an engine, or be killed for memory, which must not take the service along.
_CHECK = """
import sys
from cmlr_edge import CmlrError, Recognizer
try:
    Recognizer.from_engine(sys.argv[1], provider=sys.argv[2] or None).close()
except CmlrError as error:
    sys.exit(str(error))
"""


@dataclass(frozen=True)
class UpdateReport:
    """What became of an offered engine."""

    engine: str  # id in the store
    former: str  # id of the engine that served meanwhile, or ""
    accepted: bool
    reason: str
    frames: int = 0  # judged by both
    decisions: int = 0  # frames times labels
    flips: int = 0  # decisions that differ
    flips_by_label: dict[str, int] = field(default_factory=dict)
    max_score_difference: float = 0.0
    invalid: int = 0  # frames on which the new engine returned no number


def start_check(engine: Path, provider: str | None) -> subprocess.Popen[str]:
    """Load an engine in a process of its own, which checks hash and golden sample; it says why not."""
    command = [sys.executable, "-c", _CHECK, str(engine), provider or ""]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def reason_of(check: subprocess.Popen[str]) -> str:
    """Why an engine did not pass `start_check`, which is over; empty if it did."""
    _, errors = check.communicate()
    if check.returncode < 0:
        return f"loading it was ended by signal {-check.returncode}"
    return (errors.strip() or "loading it failed") if check.returncode else ""


class ShadowRun:
    """Compares the decisions of two engines, frame by frame."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        """Start with no frame.

        Args:
            labels: In the order of the scores.
        """
        self._labels = labels
        self.frames = self.invalid = 0
        self._flips: Counter[str] = Counter()
        self._max_difference = 0.0

    def add(self, served: Prediction, tried: Prediction) -> None:
        """Compare one frame; a served prediction without a number says nothing."""
        if not np.isfinite(served.scores).all():
            return
        self.frames += 1
        if not np.isfinite(tried.scores).all():
            self.invalid += 1
            return
        before = {item.label for item in served.labels}
        now = {item.label for item in tried.labels}
        self._flips.update(before ^ now)
        difference = float(np.abs(served.scores - tried.scores).max())
        self._max_difference = max(self._max_difference, difference)

    def report(self, engine: str, former: str, settings: UpdateSettings) -> UpdateReport:
        """Judge by `settings`."""
        decisions = self.frames * len(self._labels)
        flips = self._flips.total()
        reason = ""
        if self.frames < settings.shadow_frames:
            reason = f"only {self.frames} of {settings.shadow_frames} live frames came in time"
        elif self.invalid:
            reason = f"it returned no number on {self.invalid} frames"
        elif flips > settings.max_flip_share * decisions:
            reason = (
                f"{flips} of {decisions} decisions differ, more than {settings.max_flip_share:.1%}"
            )
        return UpdateReport(
            engine=engine,
            former=former,
            accepted=not reason,
            reason=reason or f"{flips} of {decisions} decisions differ",
            frames=self.frames,
            decisions=decisions,
            flips=flips,
            flips_by_label=dict(self._flips.most_common()),
            max_score_difference=self._max_difference,
            invalid=self.invalid,
        )
