"""What a visitor sends to change a source."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Corner = tuple[float, float]
Name = Annotated[str, Field(max_length=200)]


class SourceEdit(BaseModel):
    """What is looked at of one source, as docs/service.md has it; all of it, for each edit is whole."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    labels: list[Name] = Field(max_length=10_000)  # that may be said; [] for all
    thresholds: dict[Name, float]  # instead of the model's
    masks: list[Annotated[list[Corner], Field(max_length=100)]] = Field(max_length=100)
    region: list[Corner] = Field(max_length=100)  # [] for the whole picture
    tiles: Annotated[str, Field(max_length=10)]  # "" for none
    max_fps: float | None
    active: list[Annotated[str, Field(max_length=50)]] = Field(max_length=50)
