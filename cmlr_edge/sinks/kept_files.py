"""A folder of files by source, kept for as long as there is room: FOLDER/SOURCE/LABEL_ID.SUFFIX."""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from cmlr_edge.errors import OutputError
from cmlr_edge.events.event import Event
from cmlr_edge.machine.clocks import CLOCK_WAS_SET_S, since_start_s
from cmlr_edge.model.files import write_atomically
from cmlr_edge.redaction import printable, safe_name

_LEAST_FREE_BYTES = 200 * 10**6  # of the disk; others need room, too
_DAY_S = 86_400.0
_LOOK_S = 600.0  # between looks for what is too old
_PROBE_S = 10.0  # between looks whether the disk takes files again
_WRITING_S = 60.0  # at most, for one file: an older part is of a process that was killed


class Ranking(Protocol):
    """Says which file makes room; follows what is kept, in the order in which it came."""

    def clear(self) -> None:
        """Forget all."""

    def add(self, path: Path) -> None:
        """Take a file in, the youngest of all."""

    def remove(self, path: Path) -> None:
        """Let a file go: one that was taken in."""

    def least(self) -> Path:
        """The one that is worth least."""


class KeptFiles:
    """Writes files, each as a whole; the oldest or the least worthy make room, and nothing but our own."""

    def __init__(
        self,
        folder: Path,
        suffixes: Collection[str],
        *,
        keep_bytes: float,
        keep_days: float | None,
        most: int | None = None,
        ranking: Ranking | None = None,
        clock: Callable[[], float] = since_start_s,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Make the folder; what is there already is looked at when it is first used, and now and then.

        So whoever used it before may still write, until then.

        Args:
            folder: Made where it is missing; the one it lies in must exist.
            suffixes: Of our files, with their dots.
            keep_bytes: Of files at most.
            keep_days: Older ones are deleted; None keeps them.
            most: Files; None for any number.
            ranking: Which makes room, the newcomer last among them; the oldest by default.
            clock: Seconds that only rise: a wall clock that is set makes no file old.
            wall_clock: Seconds since the epoch, for the files that are there already.

        Raises:
            OutputError: The folder cannot be made.
        """
        self._folder, self._keep_bytes, self._clock = folder, keep_bytes, clock
        self._most = math.inf if most is None else most
        self._ranking = ranking
        self._keep_s = None if keep_days is None else keep_days * _DAY_S
        ends = "|".join(map(re.escape, suffixes))
        self._ours = re.compile(rf".+_[0-9a-f]{{32}}({ends})(?P<part>\.\d+\.part)?")
        self._wall_clock, self._has_looked = wall_clock, False
        self._kept: dict[Path, tuple[float, int]] = {}  # when on our clock, bytes; the oldest first
        self._bytes = 0
        self._due_s = clock()  # when to look for old ones
        self.trouble = ""  # why nothing can be written; "" once something can
        self._probe_s = 0.0  # when to see whether it can
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise self._unwritten(folder, error) from error

    def path_of(self, event: Event, suffix: str) -> Path:
        """Where a file of an event is."""
        name = f"{safe_name(event.label)}_{event.id}{suffix}"
        return self._folder / safe_name(event.source) / name

    def keep(self, path: Path, content: bytes) -> bool:
        """Write a file, or another in its place.

        Returns:
            False where there is no room for it among others that are worth more.

        Raises:
            OutputError: It cannot be written.
        """
        self.look()
        try:
            if not self._make_room(len(content), path):
                return False
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
        except OSError as error:
            raise self._unwritten(path, error) from error
        self.trouble = ""
        self._forget(path)
        self._kept[path] = self._clock(), len(content)
        if self._ranking is not None:
            self._ranking.add(path)
        self._bytes += len(content)
        return True

    def tend(self) -> None:
        """Delete what is too old, also where nothing new comes; looks now and then, however often asked.

        Raises:
            OutputError: Something cannot be deleted.
        """
        if self.trouble and self._clock() >= self._probe_s:
            self._probe()
        if self._clock() < self._due_s:
            return
        self._due_s = self._clock() + _LOOK_S
        self._has_looked = False  # people take files away, and other programs put some there
        self.look()
        try:
            self._make_room(0)
        except OSError as error:
            raise self._unwritten(self._folder, error) from error

    def look(self) -> None:
        """Take what is there for ours, now and then; parts of files that nobody writes any more go."""
        if self._has_looked and self._folder.is_dir():
            return
        about, now_s, wall_s = [], self._clock(), self._wall_clock()
        try:
            self._folder.mkdir(exist_ok=True)  # where somebody took it away
            for path in self._folder.glob("*/*"):
                if (ours := self._ours.fullmatch(path.name)) is None or not path.is_file():
                    continue
                with suppress(FileNotFoundError):  # whoever else uses the folder took it away
                    about_it = path.stat()
                    age_s = _age_s(about_it.st_mtime, wall_s)
                    if not ours["part"]:
                        about.append((now_s - age_s, about_it.st_mtime, about_it.st_size, path))
                    elif age_s > _WRITING_S:
                        path.unlink()
        except OSError as error:
            raise self._unwritten(self._folder, error) from error
        known = self._kept
        found = [(path, known.get(path, (when_s, size))) for when_s, _, size, path in sorted(about)]
        self._kept = dict(sorted(found, key=lambda item: item[1][0]))
        if self._ranking is not None and [*self._kept] != [*known]:
            self._ranking.clear()
            for path in self._kept:
                self._ranking.add(path)
        self._bytes = sum(size for _, size in self._kept.values())
        self._has_looked = True

    def _make_room(self, size: int, newcomer: Path | None = None) -> bool:
        """Delete files until there is room for one more; False where that one is worth least."""
        oldest_s = -math.inf if self._keep_s is None else self._clock() - self._keep_s
        while self._kept:
            path, (when_s, _) = next(iter(self._kept.items()))
            if when_s >= oldest_s:
                if not self._is_full(size, newcomer):
                    break
                if self._ranking is not None:
                    path = self._least_worthy(self._ranking, newcomer)
                    if path == newcomer:
                        return False
            self._forget(path)
            path.unlink(missing_ok=True)
            with suppress(OSError):  # other files are in it
                path.parent.rmdir()
        if self._ranking is not None and newcomer is not None and self._is_disk_full(size):
            raise OSError(errno.ENOSPC, f"less than {_LEAST_FREE_BYTES // 10**6} MB are left")
        return True

    @staticmethod
    def _least_worthy(ranking: Ranking, newcomer: Path | None) -> Path:
        if newcomer is None:
            return ranking.least()
        ranking.add(newcomer)
        least = ranking.least()
        ranking.remove(newcomer)
        return least

    def _is_full(self, size: int, newcomer: Path | None) -> bool:
        """Whether something has to go. What others fill costs the oldest files, but none of the worthy."""
        return (
            self._bytes + size > self._keep_bytes
            or len(self._kept) + (newcomer is not None) > self._most
            or (self._ranking is None and self._is_disk_full(size))
        )

    def _is_disk_full(self, size: int) -> bool:
        return shutil.disk_usage(self._folder).free - size < _LEAST_FREE_BYTES

    def _probe(self) -> None:
        """See whether the disk takes files again: what is to be kept next may be long in coming."""
        self._probe_s = self._clock() + _PROBE_S
        with suppress(OSError), tempfile.TemporaryFile(dir=self._folder, buffering=0) as file:
            file.write(b"x")
            if self._ranking is None or not self._is_disk_full(0):
                self.trouble = ""

    def _unwritten(self, path: Path, error: OSError) -> OutputError:
        self._probe_s = self._clock() + _PROBE_S
        reason = error.strerror or os.strerror(error.errno or 0)
        self.trouble = f"cannot write {printable(path)}: {reason}"
        return OutputError(self.trouble)

    def _forget(self, path: Path) -> None:
        """Let a file count no longer, if it does."""
        if (known := self._kept.pop(path, None)) is None:
            return
        self._bytes -= known[1]
        if self._ranking is not None:
            self._ranking.remove(path)


def _age_s(written_at: float, now_at: float) -> float:
    """Of a file; one that was written, or is looked at, while no clock was set counts as new."""
    return max(0.0, now_at - written_at) if written_at >= CLOCK_WAS_SET_S else 0.0
