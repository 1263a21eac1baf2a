"""When a new engine may replace the one in service."""

from __future__ import annotations

from dataclasses import dataclass

from cmlr_edge.errors import SpecError


@dataclass(frozen=True)
class UpdateSettings:
    """When a new engine may replace the one in service."""

    shadow_frames: int = 50  # live frames that both engines judge
    shadow_timeout_s: float = 60.0  # an offer that saw fewer frames by then is refused
    max_flip_share: float = 0.05  # of all decisions on those frames that may differ
    trial_s: float = 60.0  # in service without a failure before it is trusted
    check_timeout_s: float = 600.0  # for loading it in a process of its own

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.shadow_frames < 0 or not 0 <= self.max_flip_share <= 1:
            raise SpecError("shadow_frames must be at least 0, and max_flip_share lie in [0, 1]")
        if min(self.shadow_timeout_s, self.trial_s, self.check_timeout_s) < 0:
            raise SpecError("times must not be negative")
