"""The sources of a run: opened as its configuration says, each under a name of its own."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import NamedTuple

from cmlr_edge.capture import Source, beside, has_packets, is_of_files, open_source, require_there
from cmlr_edge.capture.live import LiveSettings, LiveSource
from cmlr_edge.errors import CaptureError
from cmlr_edge.pipeline.intake import IntakeSettings
from cmlr_edge.redaction import redact, source_name
from cmlr_edge.session.config import SessionConfig, SourceSettings
from cmlr_edge.session.secrets import has_reference, put_in, secret_files
from cmlr_edge.sinks.guarded import GuardedSink
from cmlr_edge.sinks.opening import SinkSettings

_log = logging.getLogger(__name__)


class Given(NamedTuple):
    """What an output is opened with; where that is the same at a reload, the output goes on."""

    settings: SinkSettings
    secrets: str  # a hash, of what is put in and of the files of TLS
    place: object  # that it has alone: a file, or a topic at a broker; None for none


@dataclass(eq=False)
class Place:
    """One source of the run, and the outputs that are its own."""

    settings: SourceSettings
    source: Source
    name: str
    number: int  # of its files; no other source of the run has it, before or after
    count: int  # of the sources beside which it started: one alone has files without numbers
    fps: float | None
    keep_s: float | None = None  # of packets, for clips
    address: str = field(default="", repr=False)  # with the secrets that it was opened with
    outputs: list[tuple[Given, GuardedSink]] = field(default_factory=list)
    metrics: list[GuardedSink] = field(default_factory=list)

    def can_go_on(self, config: SessionConfig, settings: SourceSettings, folder: Path) -> bool:
        """Whether other settings need no other connection: they change what is looked at alone."""
        looked_at = {item.name: getattr(settings, item.name) for item in fields(IntakeSettings)}
        is_same = replace(self.settings, **looked_at) == settings
        address = address_of(settings.uri, folder)
        has_same = is_same and self.keep_s == kept_s(config, address)
        return has_same and self.address == address


def address_of(uri: str, folder: Path, environment: Mapping[str, str] = os.environ) -> str:
    """A source with its secrets put in; a file that these name starts from `folder`, as any other.

    Raises:
        SecretError: A secret is missing.
    """
    if not has_reference(uri):
        return uri
    return beside(folder / "any", put_in(uri, folder, environment))


def named_files(config: SessionConfig, folder: Path) -> list[Path]:
    """Files that a configuration names beside its sources: secrets, certificates, keys and the model."""
    texts = [config.page.token or "", *(source.uri for source in config.sources)]
    texts += [text for sink in config.sinks for text in (sink.url, *sink.options.values())]
    files = [file for text in texts for file in secret_files(text, folder)]
    named = [name for sink in config.sinks for name in sink.tls_files]
    named += [config.engine.require_signature, config.engine.path]
    return [*files, *(folder / name for name in named if name)]


def require_given(
    config: SessionConfig, folder: Path, environment: Mapping[str, str] = os.environ
) -> None:
    """Fail where a file or a secret is missing, before a model is loaded: that can take long.

    Args:
        config: Of the run.
        folder: What relative paths of secrets start from.
        environment: Holds those that are no files.

    Raises:
        CaptureError: A source's file is missing.
        SecretError: A secret is.
    """
    for source in config.sources:
        require_there(address_of(source.uri, folder, environment))
    for sink in config.sinks:
        for text in (sink.url, *sink.options.values()):
            put_in(text, folder, environment)


def check_sources(
    config: SessionConfig, folder: Path, environment: Mapping[str, str] = os.environ
) -> list[Path]:
    """Open the sources that are files, as a start would, and close them; return the files.

    Raises:
        CaptureError: One holds nothing to look at, or has no times where they are asked for.
        SecretError: A secret is missing.
    """
    with ExitStack() as opened:
        sources = [
            opened.enter_context(open_source(address, policy=item.policy, loop=item.loop))
            for item in config.sources
            if is_of_files(address := address_of(item.uri, folder, environment))
        ]
        check_times(config, sources)
        return [Path(file) for source in sources for file in source.files]


def open_place(
    config: SessionConfig,
    settings: SourceSettings,
    folder: Path,
    others: Sequence[str],
    number: tuple[int, int],
) -> Place:
    """Open a source as a configuration says.

    Args:
        config: Of the run.
        settings: Of the source.
        folder: What relative paths of secrets start from.
        others: Names that are taken.
        number: Of its files, and of the sources beside which it starts.

    Raises:
        CaptureError: It cannot be opened.
        SecretError: A secret is missing.
    """
    address = address_of(settings.uri, folder)
    keep_s = kept_s(config, address)
    live = LiveSettings(
        frozen_after_s=settings.frozen_after_s or None,
        first_frame_timeout_s=settings.give_up_after_s,
    )
    source = open_source(
        address, policy=settings.policy, live=live, loop=settings.loop, keep_packets_s=keep_s
    )
    name = unlike(redact(settings.name) or source_name(source.name), others)
    if isinstance(source, LiveSource):
        source.call(name)  # it may have something to say before it is added
    note_without_clips(config, settings, name, address)
    return Place(settings, source, name, *number, source.fps, keep_s, address)


def kept_s(config: SessionConfig, address: str) -> float | None:
    """Seconds of packets to keep of a source; None where there are no clips, or can be none."""
    wanted = [sink.before_s for sink in config.outputs if sink.kind == "clips"]
    return max(wanted, default=None) if has_packets(address) else None


def note_without_clips(
    config: SessionConfig, settings: SourceSettings, name: str, address: str
) -> None:
    """Say in a line that a source has no clips, where they are wanted, and why."""
    if not any(sink.kind == "clips" for sink in config.outputs):
        return
    if settings.masks:
        _log.warning("%s has no clips: its packets would show what its masks hide", name)
    elif not has_packets(address):
        _log.warning(
            "%s has no clips: only streams of the network and video files have packets, read by PyAV",
            name,
        )


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
    if not any(sink.needs_times for sink in config.outputs):
        return
    for source in sources:
        if source.fps is None:
            raise CaptureError(
                f"{source.name} has no times, so there are no events: leave out events, mqtt and "
                "webhook, or give a video, camera or stream"
            )
