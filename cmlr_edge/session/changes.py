"""Sources that visitors of the page add and remove: asked for by any thread, done by the run's own.

Whoever knows the token watches cameras; it does not make him a user of the machine. So he may name
network cameras, and files of one folder that the configuration gives away, and nothing else: no device, no
GStreamer pipeline, which could run anything, and no `${SECRET}`, which an address would carry elsewhere.
"""

from __future__ import annotations

import os
import queue
import re
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from cmlr_edge.errors import CaptureError, CmlrError, SpecError
from cmlr_edge.model.files import followed
from cmlr_edge.model.strict_json import from_json
from cmlr_edge.redaction import told
from cmlr_edge.session.config import SessionConfig, SourceSettings
from cmlr_edge.session.secrets import has_reference
from cmlr_edge.session.session import Session

Change: TypeAlias = Callable[[SessionConfig], SessionConfig]
_ANSWER_S = 30.0
_OVER = "the run is over"
_MOST_SOURCES = 64
_CAMERA = re.compile(r"(?:rtsp|rtsps|http|https)://[^\s!]+", re.IGNORECASE)
_NAME = re.compile(r"\w(?:[\w .#-]{0,62}\w)?")


class SourceChanges:
    """Adds and removes sources of one session; half of a `SourceControl`."""

    def __init__(self, session: Session) -> None:
        """Begin with nothing to do."""
        self._session = session
        self._waiting: queue.SimpleQueue[tuple[Callable[[], None], Future[None]]]
        self._waiting = queue.SimpleQueue()
        self._over = False

    def add(self, settings: Any) -> str:
        """Begin with a source; see `SourceControl`."""
        try:
            source = from_json(SourceSettings, settings)
        except ValueError as error:
            raise error if isinstance(error, CmlrError) else SpecError(str(error)) from error
        source = replace(source, uri=self._allowed(source))

        def changed(config: SessionConfig) -> SessionConfig:
            if source.name in self._session.names():
                raise SpecError(f"there is a source {source.name} already: remove it first")
            if len(config.sources) >= _MOST_SOURCES:
                raise SpecError(f"there are {len(config.sources)} sources: no more can be added")
            return replace(config, sources=(*config.sources, source))

        self._ask(lambda: self._apply(changed))
        return source.name

    def remove(self, name: str) -> None:
        """End with a source; see `SourceControl`."""

        def changed(config: SessionConfig) -> SessionConfig:
            settings = self._session.names().get(name)
            if settings is None:
                raise SpecError(f"there is no source {name} any more")
            left = [*config.sources]
            left.remove(settings)
            if not left:
                raise SpecError(f"{name} is the only source: add another one first")
            return replace(config, sources=tuple(left))

        self._ask(lambda: self._apply(changed))

    def tend(self) -> None:
        """Do what was asked for; called by the run's thread all the time."""
        while not self._waiting.empty():
            job, answer = self._waiting.get()
            if not answer.set_running_or_notify_cancel():
                continue
            try:
                job()
            except CmlrError as error:
                answer.set_exception(error)
            except Exception as error:  # noqa: BLE001 (whatever it is: a run that works goes on)
                answer.set_exception(CmlrError(told(error)))
            else:
                answer.set_result(None)

    def end(self) -> None:
        """Send away who waits: the run is over."""
        self._over = True
        while not self._waiting.empty():
            self._waiting.get()[1].set_exception(TimeoutError(_OVER))

    def _apply(self, change: Change) -> None:
        with ExitStack() as undo:  # any error leaves the run as it was
            self._session.apply(change(self._session.config), None, undo)

    def _ask(self, job: Callable[[], None]) -> None:
        """Let the run's thread do something, and wait for it."""
        answer: Future[None] = Future()
        self._waiting.put((job, answer))
        if self._over:
            raise TimeoutError(_OVER)
        try:
            answer.result(_ANSWER_S)
        except TimeoutError as error:
            answer.cancel()
            raise TimeoutError(
                str(error) or "the run does not answer: it loads an engine"
            ) from error

    def _allowed(self, source: SourceSettings) -> str:
        """The uri, if a visitor may name it."""
        if not _NAME.fullmatch(source.name):
            raise SpecError("name should be 1 to 64 letters, digits, and ' .#-' between them")
        if has_reference(source.uri):
            raise SpecError("uri holds ${..}: secrets are put in by the configuration alone")
        if _CAMERA.fullmatch(source.uri):
            return source.uri
        given = self._session.config.page.source_folder
        if not given or "://" in source.uri or not source.uri.isprintable():
            hint = ", or a file in source_folder" if given else ""
            raise SpecError(f"uri should be a camera, rtsp://.. or http://..{hint}")
        folder = followed(self._session.folder / given)
        path = followed(folder / source.uri)
        shown = repr(source.uri)[:100]
        # Not Path.exists, which raises for a name too long or a folder that may not be read.
        if not path.is_relative_to(folder) or not os.path.exists(path) or path == folder:  # noqa: PTH110
            raise CaptureError(f"there is no {shown} in source_folder")
        if not (path.is_file() or path.is_dir()):
            raise CaptureError(f"{shown} is no file and no folder of pictures")
        if path.is_dir() and _leads_out(path, folder):
            raise CaptureError(f"{shown} holds links out of source_folder, or cannot be read")
        return str(path)


def _leads_out(of_pictures: Path, folder: Path) -> bool:
    """Whether a picture of a folder lies elsewhere, or nobody can say."""
    try:
        return any(not followed(item).is_relative_to(folder) for item in of_pictures.iterdir())
    except OSError:
        return True
