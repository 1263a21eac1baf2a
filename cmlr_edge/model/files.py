"""A model's files: where they lie, what identifies them, and how one is written whole."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import os
import select
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cmlr_edge.errors import EngineError

_STREAMS = ("/dev/std", "/dev/fd/", "/proc/")  # lead to what somebody else has opened
_PATIENCE_S = 60.0  # with whoever reads a pipe, and may show it page by page
_BEGINNING_S = 10.0  # a younger part may not have its lock yet


def model_path(path: Path) -> Path:
    """Where the model is that `path` means: a folder means the `model.onnx` in it."""
    return path / "model.onnx" if path.is_dir() else path


def spec_path(engine_path: Path) -> Path:
    """Where the spec of `engine_path` lies: the same name, ending in .json."""
    return engine_path.with_suffix(".json")


def signature_path(engine_path: Path) -> Path:
    """Where the signature of `engine_path` and its spec lies: the same name, and .sig."""
    return engine_path.with_name(f"{engine_path.name}.sig")


def sha256_of(content: bytes) -> str:
    """64 lower-case hexadecimal digits, as specs keep them."""
    return hashlib.sha256(content).hexdigest()


def require_unchanged(path: Path, content: bytes, sha256: str) -> None:
    """Compare the content of a file with what its spec says of it.

    Raises:
        EngineError: It is another file than the one that export wrote.
    """
    if (digest := sha256_of(content)) != sha256:
        raise EngineError(
            f"{path} has sha256 {digest[:12]}..., its spec says {sha256[:12]}...: the "
            "file was changed or cut short; copy engine and spec again, both together"
        )


def read_file(path: Path, most: int = -1) -> bytes:
    """Read a file, and nothing else: a pipe or a device may never end.

    Args:
        path: Of the file.
        most: Bytes to read at most; -1 for all.

    Raises:
        OSError: It cannot be read, or is no file.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a file", str(path))
        return file.read(most)


def followed(path: Path) -> Path:
    """Follow the links of a path; of links that lead in a circle, keep one (`Path.resolve` raises)."""
    return Path(os.path.realpath(path))


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe may have nobody at its other end


def is_plain(path: Path) -> bool:
    """Whether it is, or will be, a file; devices and pipes are written as they are, never renamed."""
    if str(path.absolute()).startswith(_STREAMS):
        return False
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part.

    A device or a pipe gets it as it is: in its place, a file would hide it from all other programs.

    Raises:
        OSError: It cannot be written, or is a folder, or a pipe that nobody reads.
    """
    try:
        if is_plain(path):
            with whole_file(path) as file:
                file.write(content)
        else:
            _write_as_it_is(path, content)
    except OSError as error:
        error.filename = str(path)  # what the user knows, and not the part of it
        raise


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files that say something of each other: all get their names, or none does and all is as it was.

    Raises:
        OSError: As `write_atomically`; or two of the names lead to one file.
    """
    reals = {path: followed(path) for path in files if is_plain(path)}
    for path, real in reals.items():
        if [*reals.values()].count(real) > 1:
            raise OSError(errno.EINVAL, "leads to the same file as another name", str(path))
    path, parts = Path(), dict[Path, BinaryIO]()
    try:
        with ExitStack() as stack:
            for path, content in files.items():
                if path not in reals:
                    write_atomically(path, content)
                    continue
                real = reals[path]
                clear_parts(real.with_name(glob.escape(real.name)))
                parts[real] = file = stack.enter_context(part_of(real))
                file.write(content)
                _flush(file)  # what has no room fails before the first gets its name
            _name_all(parts)
    except OSError as error:
        # Closing tries to write what is left, and knows no name; of a rename the second counts.
        error.filename, error.filename2 = error.filename2 or str(path), None
        raise


def _name_all(parts: Mapping[Path, BinaryIO]) -> None:
    """Give every part its name; where one cannot get it, those before are again what they were."""
    with ExitStack() as stack:
        # Open files keep what they hold when another takes their name.
        former = {
            path: stack.enter_context(path.open("rb")) if path.exists() else None for path in parts
        }
        named: list[Path] = []
        try:
            for path, part in parts.items():
                Path(part.name).replace(path)
                named.append(path)
        except OSError:
            for path in named:
                if (file := former[path]) is not None:
                    write_atomically(path, file.read())
                else:
                    path.unlink()
            raise


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which gets the name `path` when all is in it; a link goes on to lead to it."""
    real = followed(path)
    with part_of(real) as file:
        yield file
        give_name(file, real)


@contextmanager
def part_of(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which is gone afterwards unless `give_name` gave it one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            # Tells `clear_parts` that somebody writes it; not every disk has locks.
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file
    finally:
        partial.unlink(missing_ok=True)


def give_name(file: BinaryIO, path: Path) -> None:
    """Let what `part_of` has written take the place of `path`, when all is on the disk."""
    _flush(file)
    Path(file.name).replace(path)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def clear_parts(path: Path) -> None:
    """Delete what `whole_file` has half written of a file whose writer was killed.

    What one writes that is alive stays, on whichever machine.

    Args:
        path: Its name may have a `*`.
    """
    for part in path.parent.glob(f".{path.name}.*.part"):
        with suppress(OSError), open(part, "rb", opener=_without_waiting) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(file.fileno())
            is_old = time.time() - found.st_mtime > _BEGINNING_S
            if is_old and os.path.samestat(found, part.stat()):
                part.unlink()


def _write_as_it_is(path: Path, content: bytes) -> None:
    with open(path, "wb", buffering=0, opener=_without_waiting) as file:
        has_room, left = select.poll(), memoryview(content)
        has_room.register(file, select.POLLOUT)
        while left:
            if not has_room.poll(_PATIENCE_S * 1000):
                raise TimeoutError(errno.ETIMEDOUT, f"nobody read it for {_PATIENCE_S:.0f} s")
            left = left[file.write(left) or 0 :]
