"""The pictures of a unit: files, members of a tar, rows of a Parquet file; read whole before they are decoded."""

from __future__ import annotations

import io
import lzma
import os
import tarfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.archive.inputs import Item, kind_of
from cmlr_edge.archive.packages import arrow
from cmlr_edge.archive.plan import Unit, is_stream, shown_path
from cmlr_edge.archive.stores import is_address, opened_address
from cmlr_edge.capture.bounds import MAX_PICTURE_BYTES
from cmlr_edge.capture.images import check_bytes, decode_picture, read_image
from cmlr_edge.errors import CaptureError, CmlrError, FrameError
from cmlr_edge.machine.pillow import exif_time, open_picture
from cmlr_edge.redaction import printable

_AHEAD = 8  # pictures that are fetched over a network while others are looked at
_LONGEST_MEMBER = 2**36  # bytes, of a tar
_LONGEST_END = 2**20  # zeros between two tars that were joined
_BLOCK = 2**22  # bytes that are asked for at once of a file that is not read whole
_AHEAD_BYTES = 2**25  # larger ones are fetched alone
_COLUMNS = ("image", "img", "picture", "jpg", "jpeg", "png", "bytes", "content", "data")

# Codes of S3 that tell of who asks, and not of what is asked for.
_CREDENTIALS = {
    "AccountProblem", "ExpiredToken", "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidSecurity",
    "InvalidToken", "NotSignedUp", "RequestTimeTooSkewed", "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}  # fmt: skip


class StorageError(CmlrError):
    """The storage did not answer: not the picture's fault, so it is tried again."""


@dataclass(frozen=True)
class Found:
    """A picture of a unit, or why there is none."""

    item: Item
    member: str | None
    decode: Callable[[], tuple[NDArray[np.uint8], datetime | None]]

    @property
    def path(self) -> str:
        """Of its file, for rows."""
        return shown_path(self.item)


def find_pictures(unit: Unit) -> Iterator[Found]:
    """Yield the pictures of a unit, in order.

    Raises:
        CaptureError: The file that should hold them cannot be read.
        StorageError: A storage did not answer.
    """
    if unit.kind == "tar":
        yield from _in_tar(unit)
    elif unit.kind == "parquet":
        yield from _in_parquet(unit)
    elif any(is_address(item.path) for item in unit.items):
        yield from _fetched(unit)
    else:
        for item in unit.items:
            yield Found(item, None, lambda item=item: _read_here(Path(item.path)))  # type: ignore[misc]


def find_again(item: Item, member: str | None) -> NDArray[np.uint8]:
    """Decode the picture of a row once more: uint8 (H, W, 3), BGR.

    Raises:
        CaptureError: It cannot be read, or is no longer there.
    """
    for found in find_pictures(Unit(item.kind, (item,))):
        if found.member == member:
            return found.decode()[0]
    raise CaptureError(f"{shown_path(item)} no longer holds {member}")


def open_file(item: Item) -> IO[bytes]:
    """Open a file of this machine, or one in a storage for reading here and there.

    Raises:
        CaptureError: It cannot be opened.
        StorageError: The storage did not answer.
    """
    try:
        if not is_address(item.path):
            return open(item.path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK))
        fs, path = opened_address(item.path)
        return cast("IO[bytes]", Watched(fs.open(path, "rb", block_size=_BLOCK), item))
    except Exception as error:  # noqa: BLE001 (whatever a client of some storage raises)
        _refuse(item, error)


@contextmanager
def opened_here(item: Item) -> Iterator[Path | IO[bytes]]:
    """What a film is opened by: its path, or a file of its storage."""
    if not is_address(item.path):
        yield Path(item.path)
        return
    with open_file(item) as file:
        yield file


class Watched(io.RawIOBase):
    """A file in a storage, whose faults are told from the end of the file by whoever swallows errors."""

    def __init__(self, file: Any, item: Item) -> None:
        """Take an opened file."""
        super().__init__()
        self.fault: StorageError | None = None
        self._file, self._item = file, item

    def read(self, size: int = -1, /) -> bytes:
        """Read so many bytes, or all."""
        left = (getattr(self._file, "size", None) or 0) - self.tell()
        wanted = left if size < 0 else min(size, left)
        content = bytes(self._guarded(self._file.read, size))
        if (
            len(content) < wanted
        ):  # of a proxy that cuts answers, say: the end of the file it is not
            text = f"cannot read {shown_path(self._item)}: {len(content)} bytes came, not {wanted}"
            self.fault = StorageError(text)
            raise self.fault
        return content

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to another place."""
        return int(self._guarded(self._file.seek, offset, whence))

    def tell(self) -> int:
        """Where it is."""
        return int(self._file.tell())

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It can."""
        return True

    def close(self) -> None:
        """Close it."""
        self._file.close()
        super().close()

    def _guarded(self, action: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return action(*arguments)
        except Exception as error:
            self.fault = StorageError(f"cannot read {shown_path(self._item)}: {error}")
            raise self.fault from error


def _refuse(item: Item, error: Exception) -> NoReturn:
    """Tell what the file's owner has to mend from what trying again may mend."""
    name = shown_path(item)
    if isinstance(error, CaptureError):
        raise error
    known = {
        FileNotFoundError: "missing",
        PermissionError: "unreadable",
        IsADirectoryError: "unreadable",
    }
    kind = next((kind for cause, kind in known.items() if isinstance(error, cause)), "")
    if _is_of_credentials(error):
        kind = ""
    if not kind and not is_address(item.path):
        kind = "unreadable"
    if not kind:
        raise StorageError(f"cannot read {name}: {str(error) or type(error).__name__}") from error
    refusal = CaptureError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}")
    refusal.kind = kind
    raise refusal from error


def _is_of_credentials(error: BaseException | None) -> bool:
    """Whether S3 refuses everything: what has come to an end, or a clock that is wrong, and no picture."""
    while error is not None:
        response = getattr(error, "response", None)
        about = response.get("Error") if isinstance(response, dict) else None
        if isinstance(about, dict) and about.get("Code") in _CREDENTIALS:
            return True
        error = error.__cause__
    return False


def _read_here(path: Path) -> tuple[NDArray[np.uint8], datetime | None]:
    image = read_image(path)
    with path.open("rb") as file:
        return image, _taken_at(file)


def _decoded(content: bytes, name: str) -> tuple[NDArray[np.uint8], datetime | None]:
    image = decode_picture(io.BytesIO(content), len(content), name)
    return image, _taken_at(io.BytesIO(content))


def _taken_at(file: IO[bytes]) -> datetime | None:
    try:
        text = exif_time(open_picture(file))
        return datetime.strptime(text[:19], "%Y:%m:%d %H:%M:%S") if text else None
    except (FrameError, ValueError):
        return None


def _fetched(unit: Unit) -> Iterator[Found]:
    """Pictures of a storage: some are fetched while those before them are looked at."""
    waiting: deque[tuple[Item, Future[bytes]]] = deque()
    with ThreadPoolExecutor(_AHEAD) as pool:
        try:
            for item in unit.items:
                is_large = item.size > _AHEAD_BYTES
                while waiting and (len(waiting) >= _AHEAD or is_large):
                    yield _when_fetched(*waiting.popleft())
                waiting.append((item, pool.submit(_fetch, item)))
            while waiting:
                yield _when_fetched(*waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _when_fetched(item: Item, content: Future[bytes]) -> Found:
    return Found(item, None, lambda: _decoded(content.result(), shown_path(item)))


def _fetch(item: Item) -> bytes:
    try:
        check_bytes(item.size, shown_path(item))
        fs, path = opened_address(item.path)
        # Whatever it has become since it was listed: whole, but no more than would have been fetched ahead.
        most = max(item.size, _AHEAD_BYTES) if item.size else MAX_PICTURE_BYTES
        return bytes(fs.cat_file(path, start=0, end=min(most, MAX_PICTURE_BYTES)))
    except Exception as error:  # noqa: BLE001 (likewise)
        _refuse(item, error)


def _in_tar(unit: Unit) -> Iterator[Found]:
    """Members of a tar that are named like pictures; of a part of it, those that begin in it."""
    [item] = unit.items
    first, last = (item.size * i // unit.parts for i in (unit.part, unit.part + 1))
    with (
        open_file(item) as file,
        _blaming(item),
        _as_divided(unit, file),
        tarfile.open(
            fileobj=file,
            mode="r|*" if is_stream(item) else "r:",
            tarinfo=_Member,
            ignore_zeros=True,
        ) as tar,
    ):
        for member in tar:
            vars(tar)["members"] = []  # which it would keep for ever
            if unit.parts > 1 and member.offset >= last:
                return
            is_inside = unit.parts == 1 or member.offset >= first
            is_named = member.isfile() or member.islnk() or member.issym()
            if is_inside and is_named and kind_of(member.name) is not None:
                yield Found(item, printable(member.name), _of_member(item, tar, member))
            if (
                member.size > _LONGEST_MEMBER
            ):  # which would be looked through to an end that is not there
                raise _damaged(item, f"{printable(member.name)} claims {member.size} bytes")


class _Member(tarfile.TarInfo):
    """What lies behind a tar's first end is read too: tars are joined, and blocks of disks lost.

    What `tarfile` takes for the end, behind the first member, is one only where a tar says so.
    """

    @classmethod
    def fromtarfile(cls, tar: Any) -> Any:
        """Read the next header.

        Raises:
            EmptyHeaderError: There is none behind a mark of the end, or none within `_LONGEST_END`.
            ReadError: There is none, and no mark of the end.
        """
        empty = tarfile.EmptyHeaderError  # type: ignore[attr-defined]
        blocks = vars(tar).get("blocks_of_end", 0)
        try:
            member = super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            if blocks >= _LONGEST_END // tarfile.BLOCKSIZE:
                raise empty("long end") from None
            vars(tar)["blocks_of_end"] = blocks + 1
            raise
        except empty as error:
            if blocks:
                raise
            raise tarfile.ReadError("it has no mark of its end, and may be cut short") from error
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error
        vars(tar)["blocks_of_end"] = 0
        return member

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Any:
        """Read a header; zeros that fill no block are a mark of the end as well: no member is in them."""
        if 0 < len(buf) < tarfile.BLOCKSIZE and not any(buf):
            raise tarfile.EOFHeaderError("end of file header")  # type: ignore[attr-defined]
        return super().frombuf(buf, encoding, errors)


@contextmanager
def _as_divided(unit: Unit, file: IO[bytes]) -> Iterator[None]:
    """Refuse a part of a file that has become another: of its pictures some would be lost, or there twice.

    Raises:
        CaptureError: It has.
    """
    [item] = unit.items
    if unit.parts > 1:  # else it may be a pipe
        if (size := file.seek(0, io.SEEK_END)) != item.size:
            text = (
                f"it was changed, from {item.size} bytes to {size}: label it into another dataset"
            )
            raise _damaged(item, text)
        file.seek(0)
    yield


@contextmanager
def _blaming(item: Item) -> Iterator[None]:
    """Tell a file that is damaged from a storage that does not answer."""
    try:
        yield
    except (tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise _damaged(item, error) from error
    except CaptureError:
        raise
    except OSError as error:
        if is_address(item.path):
            raise StorageError(f"cannot read {shown_path(item)}: {error}") from error
        raise _damaged(item, error) from error


def _of_member(
    item: Item, tar: Any, member: Any
) -> Callable[[], tuple[NDArray[np.uint8], datetime | None]]:
    def decode() -> tuple[NDArray[np.uint8], datetime | None]:
        name = printable(member.name)
        if not member.isfile():
            raise _damaged(item, f"{name} in it is a link: unpack it", "unreadable")
        if kind_of(name) != "picture":
            raise _damaged(item, f"{name} in it is no picture: unpack it", "unreadable")
        check_bytes(member.size, name)
        with _blaming(item):
            file = tar.extractfile(member)
            content = b"" if file is None else file.read()
        return _decoded(content, name)

    return decode


def _in_parquet(unit: Unit) -> Iterator[Found]:
    """Rows of a Parquet file with encoded pictures; of a part of it, those of some row groups."""
    [item], pa = unit.items, arrow()
    with open_file(item) as file, _blaming(item), _as_divided(unit, file):
        parquet = pa.parquet.ParquetFile(file, pre_buffer=False)
        column = _column_of(parquet.schema_arrow, pa, item)
        groups = parquet.num_row_groups
        chosen = [groups * i // unit.parts for i in (unit.part, unit.part + 1)]
        number = sum(parquet.metadata.row_group(i).num_rows for i in range(chosen[0]))
        for batch in parquet.iter_batches(16, row_groups=[*range(*chosen)], columns=[column]):
            values = batch.column(0)
            if pa.types.is_struct(values.type):
                values = values.field("bytes")
            if pa.types.is_dictionary(values.type):
                values = values.dictionary_decode()
            for value in values:
                content = value.as_buffer() if value.is_valid else None
                yield Found(item, str(number), _of_value(content, f"row {number}"))
                number += 1


def _of_value(content: Any, name: str) -> Callable[[], tuple[NDArray[np.uint8], datetime | None]]:
    def decode() -> tuple[NDArray[np.uint8], datetime | None]:
        check_bytes(0 if content is None else content.size, name)
        return _decoded(b"" if content is None else content.to_pybytes(), name)

    return decode


def _column_of(schema: Any, pa: Any, item: Item) -> str:
    """The column of encoded pictures: bytes, or a struct with `bytes` as data sets of pictures have."""
    fitting = []
    for column in schema:
        kind = column.type
        if pa.types.is_struct(kind):
            kind = next((part.type for part in kind if part.name == "bytes"), pa.null())
        if pa.types.is_dictionary(kind):  # of equal pictures, stored once
            kind = kind.value_type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            fitting.append(column.name)
    known = [name for name in _COLUMNS if name in fitting]
    if not (known or len(fitting) == 1):
        raise _damaged(
            item, f"it has no column of encoded pictures among {schema.names[:20]}", "no picture"
        )
    return str((known or fitting)[0])


def _damaged(item: Item, error: object, kind: str = "damaged") -> CaptureError:
    refusal = CaptureError(f"{shown_path(item)} cannot be read to its end: {error}")
    refusal.kind = kind
    return refusal
