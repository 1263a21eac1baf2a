"""How places are watched."""

from __future__ import annotations

from dataclasses import dataclass

from cmlr_edge.errors import SpecError

_BLOCK_S = (1.0, 86_400.0)
_FALSE_ALARMS = (0.001, 0.5)  # more often none could begin: windows reach a day back


@dataclass(frozen=True)
class PlaceSettings:
    """How the place of every source is watched."""

    block_s: float = 600.0  # frames within it count as one look at the place
    false_alarms: float = 0.03  # a day, of a place that is like training: one a month
    average: bool = False  # average scores over the place's surroundings instead of training's

    def __post_init__(self) -> None:
        """Refuse what could not be meant.

        Raises:
            SpecError: It says what.
        """
        if not _BLOCK_S[0] <= self.block_s <= _BLOCK_S[1]:
            raise SpecError(
                f"place_block_s is {self.block_s}: expected seconds from {_BLOCK_S[0]:g} to {_BLOCK_S[1]:g}"
            )
        if not _FALSE_ALARMS[0] <= self.false_alarms <= _FALSE_ALARMS[1]:
            raise SpecError(
                f"place_false_alarms is {self.false_alarms}: expected {_FALSE_ALARMS[0]:g} to "
                f"{_FALSE_ALARMS[1]:g} a day"
            )
