"""The sources of a run: opened as its configuration says, each under a name of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cmlr_edge.capture import Source, open_source
from cmlr_edge.capture.live import LiveSettings
from cmlr_edge.errors import CaptureError
from cmlr_edge.session.config import SessionConfig, SourceSettings
from cmlr_edge.session.secrets import put_in
from cmlr_edge.sinks.guarded import GuardedSink
from cmlr_edge.sinks.opening import SinkSettings


@dataclass(eq=False)
class Place:
    """One source of the run, and the outputs that are its own."""

    settings: SourceSettings
    source: Source
    name: str
    number: int  # of its files; no other source of the run has it, before or after
    count: int  # of the sources beside which it started: one alone has files without numbers
    fps: float | None
    outputs: list[tuple[SinkSettings, GuardedSink]] = field(default_factory=list)
    metrics: list[GuardedSink] = field(default_factory=list)


def open_configured(settings: SourceSettings, folder: Path) -> Source:
    """Open a source as a configuration says.

    Args:
        settings: Of it.
        folder: What relative paths of secrets start from.

    Raises:
        CaptureError: It cannot be opened.
    """
    live = LiveSettings(
        frozen_after_s=settings.frozen_after_s or None,
        first_frame_timeout_s=settings.give_up_after_s,
    )
    uri = put_in(settings.uri, folder)
    return open_source(uri, policy=settings.policy, live=live, loop=settings.loop)


def unlike(name: str, others: Sequence[str]) -> str:
    """A name, with a number where others have it already."""
    number, unlike = 1, name
    while unlike in others:
        number += 1
        unlike = f"{name} #{number}"
    return unlike


def check_times(config: SessionConfig, sources: Sequence[Source]) -> None:
    """Refuse outputs of events beside sources whose frames have no times.

    Raises:
        CaptureError: It names the source.
    """
    if not any(sink.needs_times for sink in config.sinks):
        return
    for source in sources:
        if source.fps is None:
            raise CaptureError(
                f"{source.name} has no times, so there are no events: leave out events, mqtt and "
                "webhook, or give a video, camera or stream"
            )
