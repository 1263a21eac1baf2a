"""What is looked at of a source, as visitors see and send it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Corner = tuple[float, float]
Hours = Annotated[str, Field(max_length=50)]
Name = Annotated[str, Field(max_length=100)]


def _named_once(names: list[str]) -> list[str]:
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise ValueError(f"{twice[0]!r} is named twice")
    return names


class SourceEdit(BaseModel):
    """What is looked at of one source, as docs/service.md has it; all of it, for each edit is whole."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    labels: Annotated[list[Name], AfterValidator(_named_once)] = Field(
        max_length=1000
    )  # that may be said; [] for all
    thresholds: dict[Name, float] = Field(max_length=1000)  # instead of the model's
    masks: list[Annotated[list[Corner], Field(max_length=50)]] = Field(max_length=20)
    region: list[Corner] = Field(max_length=50)  # [] for the whole picture
    tiles: Annotated[str, Field(max_length=10)]  # "" for none
    max_fps: float | None
    active: Annotated[list[Hours], AfterValidator(_named_once)] = Field(max_length=50)


@dataclass(frozen=True)
class SourceSettingsView:
    """What is looked at of one source, and whether that can be changed here."""

    reason: str  # why it cannot be changed, for people; "" where it can
    version: str  # to be sent along with a change
    settings: dict[str, Any]  # as `SourceEdit`
