"""Whether a new engine may replace the one in service: in a process of its own, then on live frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cmlr_edge.engines.opening import memory_to_load
from cmlr_edge.errors import CmlrError
from cmlr_edge.machine.child import Child, python_command
from cmlr_edge.model.agreement import Agreement
from cmlr_edge.model.files import model_path
from cmlr_edge.model.pair import ModelPair
from cmlr_edge.prediction import Prediction
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.service.settings import UpdateSettings


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


def start_check(
    engine: Path,
    provider: str | None,
    *,
    timeout_s: float,
    identity: str = "",
    public_key: Path | None = None,
) -> Child:
    """Load an engine in a process of its own, which checks hash and golden sample; it says why not.

    A runtime may crash on an engine, or be killed for memory, which must not take the service along.

    Args:
        engine: The model file.
        provider: As for `Recognizer.from_engine`.
        timeout_s: It is ended after so long.
        identity: What `ModelPair.identity` has to be, if given.
        public_key: Of who has to have signed it, as for `Recognizer.from_engine`.
    """
    key = "" if public_key is None else str(public_key)
    given = (str(engine), provider or "", identity, key)
    command = python_command(__name__, load_once.__name__, *given)
    return Child(command, timeout_s=timeout_s, memory=memory_to_load(engine))


def load_once(engine: str, provider: str, identity: str, public_key: str) -> str | None:
    """What the process of `start_check` does; why the engine cannot be loaded, if so."""
    try:
        pair = ModelPair.read(model_path(Path(engine)))
        if identity not in {"", pair.identity}:
            return f"{engine} was changed: its content makes {pair.identity}"
        key = public_key or None
        Recognizer.from_pair(pair, provider=provider or None, require_signature=key).close()
    except CmlrError as error:
        return str(error)
    return None


def reason_of(check: Child) -> str:
    """Why an engine did not pass `start_check`; empty if it did. Waits for it."""
    ended = check.wait()
    if ended.limit == "time":
        return "it was still loading when the time for that was over"
    if ended.limit or ended.code < 0:
        return f"loading it {ended.error}"
    return (ended.messages.strip() or "loading it failed") if ended.code else ""


class ShadowRun:
    """Compares the decisions of two engines, frame by frame; each by its own thresholds."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        """Start with no frame.

        Args:
            labels: In the order of the scores.
        """
        self.frames = self.invalid = 0
        nothing = np.zeros((0, len(labels)), bool)
        self._agreement = Agreement.of(labels, nothing, nothing)
        self._max_difference = 0.0

    def add(self, served: Prediction, tried: Prediction) -> None:
        """Compare one frame; a served prediction without a number says nothing."""
        if not np.isfinite(served.scores).all():
            return
        self.frames += 1
        if not np.isfinite(tried.scores).all():
            self.invalid += 1
            return
        labels = self._agreement.labels
        said = [{item.label for item in each.labels} for each in (served, tried)]
        first, second = (np.array([[name in names for name in labels]]) for names in said)
        self._agreement += Agreement.of(labels, first, second)
        difference = float(np.abs(served.scores - tried.scores).max())
        self._max_difference = max(self._max_difference, difference)

    def report(self, engine: str, former: str, settings: UpdateSettings) -> UpdateReport:
        """Judge by `settings`."""
        found, decisions = self._agreement, self.frames * len(self._agreement.labels)
        if self.frames < settings.shadow_frames:
            reasons = [f"only {self.frames} of {settings.shadow_frames} live frames came in time"]
        elif self.invalid:
            reasons = [f"it returned no number on {self.invalid} frames"]
        else:
            reasons = found.objections(settings.max_flip_share)
        return UpdateReport(
            engine=engine,
            former=former,
            accepted=not reasons,
            reason="; ".join(reasons) or f"{found.flips} of {decisions} decisions differ",
            frames=self.frames,
            decisions=decisions,
            flips=found.flips,
            flips_by_label=found.flips_by_label,
            max_score_difference=self._max_difference,
            invalid=self.invalid,
        )
