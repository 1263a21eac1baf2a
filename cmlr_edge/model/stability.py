"""When a label is taken to be there: settings of its events, as a spec or a configuration gives them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from cmlr_edge.errors import SpecError
from cmlr_edge.model.label_names import require_known


@dataclass(frozen=True)
class LabelStability:
    """When one label is taken to be there.

    The defaults are a starting point and fitted to no data.
    """

    enter: float  # smoothed score at or above which the label comes, in [0, 1]; 1: never
    leave: float  # smoothed score below which it goes, at most `enter`
    smoothing_s: float = 0.3  # time constant of the exponential mean; 0 for none
    min_duration_s: float = 0.5  # observed so long before an event starts
    min_gap_s: float = 1.0  # missed so long before an event ends
    update_every_s: float = 5.0  # between the messages of an event that goes on
    max_step_s: float = 2.0  # the longest time that one frame may speak for

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not 0 <= self.leave <= self.enter <= 1:
            raise SpecError(
                f"enter {self.enter} and leave {self.leave}: expected 0 <= leave <= enter <= 1"
            )
        for name in ("smoothing_s", "min_duration_s", "min_gap_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SpecError(f"{name} is {getattr(self, name)}: expected seconds, at least 0")
        for name in ("update_every_s", "max_step_s"):
            if not getattr(self, name) > 0:
                raise SpecError(f"{name} is {getattr(self, name)}: expected seconds above 0")


@dataclass(frozen=True)
class StabilityChange:
    """Settings of `LabelStability` to be other than the default; None leaves one as it is."""

    enter: float | None = None
    leave: float | None = None
    smoothing_s: float | None = None
    min_duration_s: float | None = None
    min_gap_s: float | None = None
    update_every_s: float | None = None
    max_step_s: float | None = None


@dataclass(frozen=True)
class StabilityRules:
    """Changes for all labels, and for some; the latter count more."""

    all_labels: StabilityChange = StabilityChange()  # for every label
    labels: dict[str, StabilityChange] = field(default_factory=dict)  # by label


def stability_from_thresholds(
    thresholds: Mapping[str, float], *rules: StabilityRules, leave_share: float = 0.8
) -> dict[str, LabelStability]:
    """Derive settings from a model's thresholds: a label enters at its threshold.

    Args:
        thresholds: By label, as in `Recognizer.thresholds`.
        rules: Change that; later ones count more.
        leave_share: A label leaves below this share of where it enters, in [0, 1].

    Raises:
        SpecError: A rule names an unknown label, or a setting is not usable.
    """
    settings: dict[str, dict[str, float]] = {label: {} for label in thresholds}
    for rule in rules:
        require_known(rule.labels, thresholds, "stability names")
        for label, changed in settings.items():
            for change in (rule.all_labels, rule.labels.get(label, StabilityChange())):
                changed |= {k: v for k, v in vars(change).items() if v is not None}
    return {
        label: _build_stability(label, threshold, settings[label], leave_share)
        for label, threshold in thresholds.items()
    }


def _build_stability(
    label: str, threshold: float, changed: dict[str, float], leave_share: float
) -> LabelStability:
    enter = changed.get("enter", threshold)
    values = {"enter": enter, "leave": enter * leave_share} | changed
    try:
        return LabelStability(**values)
    except SpecError as error:
        raise SpecError(f"stability of {label}: {error}") from error
