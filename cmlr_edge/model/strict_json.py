"""JSON to frozen dataclasses and back, refusing everything that was not asked for.

A spec travels between machines and versions, so an unknown key, a missing key or a wrong type is
an error that names the place, never a silent default.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from cmlr_edge.model.files import read_file, write_atomically
from cmlr_edge.redaction import is_secret, redact
from cmlr_edge.wording import did_you_mean, listed

T = TypeVar("T")


class MismatchError(ValueError):
    """A value is not what was asked for."""

    def __init__(self, where: str, message: str) -> None:
        """Say what is wrong, and where.

        Args:
            where: The path to the value, such as "sources[1].name"; empty for the top level.
            message: For people; it names the place too.
        """
        super().__init__(message)
        self.where = where


MAX_BYTES = 64 * 2**20  # far above any real spec; bounds what a hostile file can make us read
_INTEGERS = range(-(2**63), 2**63)  # JSON has no limit, and floats and sizes do


def write_json(path: Path, record: Any) -> None:
    """Write a dataclass as JSON, whole or not at all: to a temporary file, then renamed.

    Args:
        path: Its folder must exist.
        record: The dataclass.
    """
    write_atomically(path, json_text(record))


def json_text(record: Any, *, omit: Collection[str] = ()) -> bytes:
    """Return a dataclass as JSON.

    Args:
        record: The dataclass.
        omit: Fields to leave out, as "field" or "field.field".
    """
    values = dataclasses.asdict(record)
    for name in omit:
        *places, last = name.split(".")
        place = values
        for key in places:
            place = place[key]
        del place[last]
    return (json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def read_json(path: Path, kind: type[T]) -> T:
    """Read `path` as the dataclass `kind`.

    Raises:
        ValueError: Not JSON, too large, or not exactly the fields of `kind`; the text says where.
        OSError: The file cannot be read.
    """
    return parse_json(read_bounded(path), kind)


def read_bounded(path: Path, most: int = MAX_BYTES) -> bytes:
    """Read a file that holds JSON, a configuration or the like, of so many bytes at most.

    Raises:
        ValueError: It is too large.
        OSError: It is no file, or cannot be read.
    """
    content = read_file(path, most + 1)
    if len(content) > most:
        raise ValueError(f"too large, expected at most {most} bytes")
    return content


def parse_json(content: bytes, kind: type[T]) -> T:
    """Take `content` as the dataclass `kind`.

    Raises:
        ValueError: Not JSON, a key twice, or not exactly the fields of `kind`; the text says where.
    """
    return from_json(kind, json_value(content))


def json_value(content: str | bytes) -> Any:
    """Parse JSON of any form.

    Raises:
        ValueError: Not JSON, nested too deeply, or a key twice.
    """
    try:
        return json.loads(content, object_pairs_hook=_once_each)
    except RecursionError as error:
        raise ValueError("nested too deeply to be read") from error


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key given twice: Python would take the last one and forget the other."""
    found = dict(pairs)
    if len(found) != len(pairs):
        [(repeated, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"an object gives {redact(repr(repeated))[:60]} twice")
    return found


def from_json(kind: type[T], value: object, where: str = "") -> T:
    """Check `value`, parsed JSON, against the annotations of `kind` and build it.

    Supported annotations: dataclasses, str, int, float (finite), bool, None, Literal, unions,
    `tuple[X, ...]`, `tuple[X, Y]` and `dict[str, X]`.

    Args:
        kind: The wanted type.
        value: What `json.loads` returned.
        where: The path to `value`, for messages.
    """
    result: T = _read(kind, value, where)
    return result


def _read(kind: Any, value: object, where: str) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    if origin in {Union, types.UnionType}:
        return _read_union(args, value, where)
    if origin is Literal:
        if value not in args:
            raise _mismatch(where, f"one of {', '.join(map(repr, args))}", value)
        return value
    if origin is tuple:
        return _read_tuple(args, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise _mismatch(where, "an object", value)
        keys = [_read(str, key, f"a key of {where or 'the top level'}") for key in value]
        return {key: _read(args[1], value[key], f"{where}.{key}") for key in keys}
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _read_float(value, where)
    if type(value) is not kind:
        raise _mismatch(where, getattr(kind, "__name__", str(kind)), value)
    if kind is int and value not in _INTEGERS:
        raise _mismatch(where, "a whole number of 64 bits", value)
    if isinstance(value, str) and not value.isprintable():
        # A lone surrogate cannot be written as UTF-8, and a line break would tear a table apart.
        raise _mismatch(where, "printable text", value)
    return value


def _read_float(value: float, where: str) -> float:
    try:
        number = float(value)
    except OverflowError:  # JSON integers have no upper limit
        number = math.inf
    if not math.isfinite(number):
        raise _mismatch(where, "a finite number", value)
    return number


def _read_dataclass(kind: Any, value: object, where: str) -> Any:
    if not isinstance(value, dict):
        raise _mismatch(where, f"an object ({kind.__name__})", value)
    hints = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if unknown := sorted(set(value) - set(fields)):
        meant = " ".join([did_you_mean(unknown, fields), f"known: {[*fields]}"]).strip()
        raise MismatchError(
            f"{where}.{unknown[0]}".lstrip("."),
            f"{where or 'top level'} has unknown keys {listed(unknown)}; {meant}",
        )
    missing = [
        name
        for name, field in fields.items()
        if name not in value
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise MismatchError(where, f"{where or 'top level'} lacks {missing}")
    return kind(**{n: _read(hints[n], v, f"{where}.{n}".lstrip(".")) for n, v in value.items()})


def _read_union(kinds: tuple[Any, ...], value: object, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    options = [kind for kind in kinds if kind is not type(None)]
    if len(options) != 1:
        raise TypeError(f"only `X | None` unions are supported, got {kinds}")
    return _read(options[0], value, where)


def _read_tuple(kinds: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _mismatch(where, "a list", value)
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise _mismatch(where, f"a list of {len(kinds)}", value)
    items = zip(kinds, value, strict=True)
    return tuple(_read(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(items))


def _mismatch(where: str, wanted: str, value: object) -> MismatchError:
    came = "***" if is_secret(where.rpartition(".")[2]) else redact(repr(value))
    came = came if len(came) <= 60 else f"{came[:57]}..."
    return MismatchError(where, f"{where or 'top level'} should be {wanted}, got {came}")
