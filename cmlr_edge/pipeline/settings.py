"""Limits of a run of many sources."""

from __future__ import annotations

from dataclasses import dataclass

from cmlr_edge.errors import SpecError
from cmlr_edge.why import Explain


@dataclass(frozen=True)
class StreamsSettings:
    """Limits of a run."""

    max_batch: int = 8  # frames in one run of the model
    latency_budget_s: float = 0.2  # for waiting and being recognised; limits the batches
    frames_ahead: int = 4  # of a source that gives every frame, decoded and not yet handed on
    explain: Explain | None = None  # say why in every prediction; the engine has to be able to
    drain_s: float = 10.0  # `close` waits so long for frames under way and for sinks

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if min(self.max_batch, self.frames_ahead) < 1:
            raise SpecError("max_batch and frames_ahead must be at least 1")
        if min(self.latency_budget_s, self.drain_s) < 0:
            raise SpecError("latency_budget_s and drain_s must not be negative")
