"""From a configuration to guarded outputs: the kinds there are, and how each is opened.

A kind of one's own is an entry point in the group `cmlr_edge.sinks`, named like the kind: a function that
takes a `SinkRequest` and returns a `Sink`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, get_args
from urllib.parse import urlsplit

from cmlr_edge.errors import OutputError, SpecError
from cmlr_edge.machine.entry_points import call_theirs, entry_points, having
from cmlr_edge.model.files import followed
from cmlr_edge.redaction import redact, redact_place
from cmlr_edge.sinks.base import Sink, Takes
from cmlr_edge.sinks.collect import Collect, CollectSettings
from cmlr_edge.sinks.guarded import GuardedSink
from cmlr_edge.sinks.home_assistant import is_prefix
from cmlr_edge.sinks.later import Later
from cmlr_edge.sinks.line_file import KEEP

if TYPE_CHECKING:
    import ssl

_ENTRY_POINTS = "cmlr_edge.sinks"
_MOST_MB = 1e9
_PRINTED = (1, 2)  # file descriptors: stdout, stderr


@dataclass(frozen=True)
class SinkSettings:
    """One output; docs/service.md has all kinds."""

    kind: str  # which output: jsonl, events, csv, mqtt, webhook and others
    path: str = ""  # of a file; relative to the configuration
    url: str = ""  # of a server
    rotate_mb: float | None = 100.0  # lines go on in a new file from this size on; None, 0: never
    append: bool = True  # go on behind what is in the file; else that is renamed to PATH.1
    ca_file: str = ""  # PEM, of a server: whom to trust instead of the system's authorities
    cert_file: str = ""  # PEM: how this program shows who it is
    key_file: str = ""  # PEM: that certificate's key, if it is not in the same file
    keep_mb: float = 1000.0  # of snapshots or clips: older ones make room
    keep_days: float | None = 30.0  # of snapshots or clips; None: as long as there is room
    before_s: float = 5.0  # of clips: what they show before the event
    after_s: float = 5.0  # of clips: what they show after it
    longest_s: float = 60.0  # of clips: of a longer event they show the beginning
    collect: CollectSettings = field(default_factory=CollectSettings)  # of collect, as [collect]
    home_assistant: str = ""  # of mqtt: where Home Assistant looks for devices; "": not told
    options: dict[str, str] = field(default_factory=dict)  # of a kind of one's own

    def __post_init__(self) -> None:
        """Refuse an output that could not be opened."""
        known = _KINDS.get(self.kind)
        if known is not None:
            self._check_place(known)
        elif not self.kind in entry_points(_ENTRY_POINTS):
            raise SpecError(
                f"kind is {self.kind!r}: expected one of {', '.join(_KINDS)}, or a kind that an "
                f"installed package names in the entry points {_ENTRY_POINTS}"
            )
        if self.home_assistant and (self.kind != "mqtt" or not is_prefix(self.home_assistant)):
            raise SpecError(
                f"home_assistant is {self.home_assistant!r} on the output {self.kind}: expected the "
                'prefix "homeassistant", on mqtt'
            )
        if self.rotate_mb is not None and not 0 <= self.rotate_mb <= _MOST_MB:
            raise SpecError(f"rotate_mb is {self.rotate_mb}: expected 0 to {_MOST_MB:g}")
        if not self.keep_mb > 0 or (self.keep_days is not None and not self.keep_days > 0):
            raise SpecError(
                f"keep_mb is {self.keep_mb} and keep_days {self.keep_days}: expected more than 0"
            )

        if not (0 <= self.before_s <= 60 and 0 <= self.after_s <= 60):
            raise SpecError(
                f"before_s is {self.before_s} and after_s {self.after_s}: expected 0 to 60"
            )
        if not self.before_s < self.longest_s <= 600:
            raise SpecError(
                f"longest_s is {self.longest_s}: expected more than before_s, and at most 600"
            )

    def _check_place(self, known: _Kind) -> None:
        other = "url" if known.takes == "path" else "path"
        if not getattr(self, known.takes) or getattr(self, other):
            raise SpecError(
                f"the output {self.kind} has path {self.path!r} and url {redact_place(self.url)!r}: "
                f"give it a {known.takes}, and no {other}"
            )
        if known.takes == "path" and any(self.tls_files):
            raise SpecError(
                f"ca_file, cert_file or key_file is given to the output {self.kind}, which asks no "
                "server: leave them out"
            )
        if PurePath(self.path).name == "-":
            raise SpecError(
                f"the output {self.kind} is called -, and standard output has the summary: give the "
                f"name of a {'folder' if known.folder else 'file'}"
            )

    @property
    def tls_files(self) -> tuple[str, str, str]:
        """What a connection with TLS is made with; empty for what is not given."""
        return self.ca_file, self.cert_file, self.key_file

    @property
    def per_source(self) -> bool:
        """Whether each source has an output of its own."""
        return self.kind in _KINDS and _KINDS[self.kind].per_source

    @property
    def is_folder(self) -> bool:
        """Whether it writes many files into a folder."""
        return self.kind in _KINDS and _KINDS[self.kind].folder

    @property
    def needs_times(self) -> bool:
        """Whether it tells events, which pictures have not."""
        return self.kind in {"events", "mqtt", "webhook", "snapshots", "clips"}

    def file(self, folder: Path, index: int = 0, count: int = 1) -> Path | None:
        """The file it writes: `o.mp4`, or `o-1.mp4`, `o-2.mp4` for each of several sources."""
        if not self.path:
            return None
        path = folder / self.path
        if not self.per_source or count == 1:
            return path
        return path.with_name(f"{path.stem}-{index + 1}{path.suffix}")


@dataclass(frozen=True)
class SinkRequest:
    """What an output may want to know when it is opened."""

    settings: SinkSettings
    file: Path | None
    labels: tuple[str, ...]  # of the model, in the order of the scores
    name_source: bool  # whether several sources share it
    fps: float | None  # of its source, where it belongs to one that has a fixed pace
    folder: Path = Path()  # what relative paths start from
    after_another: bool = False  # which is to say farewell first, for it has the same place

    def tls(self) -> ssl.SSLContext | None:
        """What a connection with TLS is made with; None for what is usual."""
        if not any(self.settings.tls_files):
            return None
        if urlsplit(self.settings.url).scheme not in {"mqtts", "https"}:
            raise OutputError("ca_file, cert_file and key_file need an mqtts:// or https:// url")
        from cmlr_edge.sinks.tls import tls_context

        return tls_context(
            *(self.folder / name if name else None for name in self.settings.tls_files)
        )

    @property
    def path(self) -> Path:
        """The file, where there must be one."""
        assert self.file is not None
        return self.file

    @property
    def rotate_bytes(self) -> int | None:
        """The limit of a file in bytes."""
        limit = self.settings.rotate_mb
        return max(1, round(limit * 1e6)) if limit else None


@dataclass(frozen=True)
class _Kind:
    open: Callable[[SinkRequest], Sink]
    takes: str = "path"  # or "url"
    per_source: bool = False
    lines: bool = False  # it has a file that it alone may write
    folder: bool = False  # its path is one


def open_sink(
    settings: SinkSettings,
    *,
    folder: Path,
    labels: tuple[str, ...],
    name_source: bool,
    fps: float | None = None,
    index: int = 0,
    count: int = 1,
    after: GuardedSink | None = None,
) -> GuardedSink:
    """Open one output, behind its guard; files are created by their first line.

    Args:
        settings: What is wanted.
        folder: What relative paths start from.
        labels: Of the model.
        name_source: Lines say which source they are of.
        fps: Of the source, for an output of its own.
        index: Of that source.
        count: How many sources there are.
        after: See `GuardedSink`.

    Raises:
        OutputError: It cannot work.
        DependencyError: It needs a package that is not installed.
    """
    file = settings.file(folder, index, count)
    known = _KINDS.get(settings.kind)
    if file is not None and (
        not file.absolute().parent.is_dir() or (file.is_dir() and not settings.is_folder)
    ):
        wanted = "" if settings.is_folder else ", and it must be a file"
        raise OutputError(f"cannot write {file}: its folder must exist{wanted}")
    if file is not None and settings.is_folder and file.exists() and not file.is_dir():
        raise OutputError(f"cannot write into {file}: it is a file, and a folder is wanted")
    request = SinkRequest(settings, file, labels, name_source, fps, folder, after is not None)
    sink = _open_theirs(request) if known is None else known.open(request)
    if known is not None and known.lines and after is None:
        sink.claim()  # type: ignore[attr-defined]
    shown = redact(settings.url) if settings.kind == "mqtt" else redact_place(settings.url)
    name = str(file) if file else shown
    return GuardedSink(sink, name, after=after, may_inline=False)  # for it may be anybody's


def check_files(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Refuse to start a run that could not write, or would write over what it reads.

    Raises:
        OutputError: There is no folder, two outputs are one file, or an output is an input, or
            where this program prints.
    """
    printed: set[object] = set()
    for number in _PRINTED:
        with suppress(OSError):  # it is closed
            printed |= _marks_of(os.fstat(number))
    known_inputs = {mark for item in inputs for mark in _marks(item)}
    for path in outputs:
        if not path.absolute().parent.is_dir():
            raise OutputError(f"cannot write {path}: there is no folder {path.parent}; create it")
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder; give a file name")
        if known_inputs & _marks(path):
            raise OutputError(
                f"{path} belongs to the source, the model or the configuration: choose another name for the output"
            )
        if printed & _marks(path):
            raise OutputError(
                f"{path} is the file that messages are printed to: choose another name, or print to another file"
            )
    seen: set[object] = set()
    for path in outputs:
        if seen & _marks(path):
            raise OutputError("two outputs have the same name: give each its own")
        seen |= _marks(path)
    for path in outputs:
        for number in range(1, KEEP + 1):
            older = followed(path).with_name(f"{followed(path).name}.{number}")
            if seen & _marks(older):
                raise OutputError(f"{older} would hold older lines of {path}: choose another name")


def _marks(path: Path) -> set[object]:
    """What tells a file, whatever it is called: a hard link is another name of the same one."""
    try:
        about = path.stat()
    except (OSError, ValueError):  # not there yet, or a name that none can have
        return {followed(path)}
    return {followed(path), *_marks_of(about)}


def _marks_of(about: os.stat_result) -> set[object]:
    return {(about.st_dev, about.st_ino)} if stat.S_ISREG(about.st_mode) else set()


def _open_theirs(request: SinkRequest) -> Sink:
    """Open an output that an installed package brings."""
    kind = request.settings.kind
    point, what = entry_points(_ENTRY_POINTS)[kind], f"the output {kind}"
    return call_theirs(point, request, what, _usable, OutputError)


def _usable(sink: Sink) -> Sink:
    having("write", "close")(sink)
    for name in ("name", "pictures", "watch", "tend", "files_of"):
        getattr(sink, name, None)  # fails here and now, if it does
    if (takes := getattr(sink, "takes", "results")) not in get_args(Takes):
        raise ValueError(f"takes is {takes!r}: expected one of {', '.join(get_args(Takes))}")
    return sink


def _jsonl(request: SinkRequest) -> Sink:
    from cmlr_edge.sinks.jsonl import JsonLines

    return JsonLines(
        request.path,
        rotate_bytes=request.rotate_bytes,
        name_source=request.name_source,
        keep_old=request.settings.append,
    )


def _events(request: SinkRequest) -> Sink:
    from cmlr_edge.sinks.jsonl import EventLines

    keep_old = request.settings.append
    return EventLines(request.path, rotate_bytes=request.rotate_bytes, keep_old=keep_old)


def _csv(request: SinkRequest) -> Sink:
    from cmlr_edge.sinks.csv_table import CsvTable

    limit, keep_old = request.rotate_bytes, request.settings.append
    return CsvTable(request.path, request.labels, rotate_bytes=limit, keep_old=keep_old)


def _overlay(request: SinkRequest) -> Sink:
    from cmlr_edge.sinks.overlay import OverlayVideo

    return OverlayVideo(request.path, request.fps)


def _contact_sheet(request: SinkRequest) -> Sink:
    from cmlr_edge.sinks.contact_sheet import ContactSheet

    return ContactSheet(request.path)


def _snapshots(request: SinkRequest) -> Sink:
    from cmlr_edge.sinks.snapshots import Snapshots

    settings = request.settings
    return Snapshots(
        request.path,
        request.labels,
        keep_bytes=settings.keep_mb * 1e6,
        keep_days=settings.keep_days,
    )


def _clips(request: SinkRequest) -> Sink:
    from cmlr_edge.sinks.clips import Clips

    settings = request.settings
    return Clips(
        request.path,
        before_s=settings.before_s,
        after_s=settings.after_s,
        longest_s=settings.longest_s,
        keep_bytes=settings.keep_mb * 1e6,
        keep_days=settings.keep_days,
    )


def _collect(request: SinkRequest) -> Sink:
    return Collect(request.path, request.labels, request.settings.collect)


def _mqtt(request: SinkRequest) -> Sink:
    from cmlr_edge.sinks.mqtt import MqttEvents
    from cmlr_edge.sinks.mqtt_client import paho_client, parse_address

    url, home = request.settings.url, request.settings.home_assistant
    opening = partial(MqttEvents, url, tls=request.tls(), home_assistant=home)
    if not request.after_another:
        return opening()
    parse_address(url)  # what is wrong is told now
    paho_client()
    return Later(opening)


def _webhook(request: SinkRequest) -> Sink:
    from cmlr_edge.sinks.webhook import Webhook

    return Webhook(request.settings.url, tls=request.tls())


_KINDS: Mapping[str, _Kind] = {
    "jsonl": _Kind(_jsonl, lines=True),
    "events": _Kind(_events, lines=True),
    "csv": _Kind(_csv, lines=True),
    "overlay": _Kind(_overlay, per_source=True),
    "contact_sheet": _Kind(_contact_sheet, per_source=True),
    "snapshots": _Kind(_snapshots, folder=True),
    "clips": _Kind(_clips, folder=True),
    "collect": _Kind(_collect, folder=True),
    "mqtt": _Kind(_mqtt, "url"),
    "webhook": _Kind(_webhook, "url"),
}
