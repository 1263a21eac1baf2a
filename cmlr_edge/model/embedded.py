"""A spec inside the ONNX file that it describes, so that one file is enough.

It stands in the file's metadata. Its `sha256` is that of the file with these 64 digits as zeros: a file
cannot hold its own hash, and a changed byte is noticed all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cmlr_edge.errors import EngineError, SpecError
from cmlr_edge.model.files import sha256_of
from cmlr_edge.model.protobuf import fields, write_bytes
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.model.strict_json import MAX_BYTES

SPEC_KEY = "cmlr_edge.spec"
_NAMES_KEY = "names"
UNSEALED = "0" * 64
_METADATA, _KEY, _VALUE = 14, 1, 2  # field numbers of onnx.proto


def metadata(content: bytes) -> dict[str, str]:
    """Return the metadata of an ONNX file.

    Raises:
        ValueError: It is none.
    """
    found = (
        _entry(value) for number, value, _ in fields(memoryview(content)) if number == _METADATA
    )
    return dict(found)


def _entry(message: memoryview) -> tuple[str, str]:
    """Key and value: what is no UTF-8 runtimes take all the same, and a damaged file is told by its hash."""
    try:
        parts = {number: bytes(text) for number, text, _ in fields(message)}
    except ValueError:
        parts = {}
    key, value = parts.get(_KEY, b""), parts.get(_VALUE, b"")
    return key.decode(errors="replace"), value.decode(errors="replace")


def with_metadata(content: bytes, entries: Mapping[str, str]) -> bytes:
    """Put entries into the metadata of an ONNX file, at its end; those of other keys stay.

    Raises:
        ValueError: It is none.
    """
    kept = [
        whole
        for number, value, whole in fields(memoryview(content))
        if number != _METADATA or _entry(value)[0] not in entries
    ]
    added = [
        write_bytes(_METADATA, write_bytes(_KEY, key.encode()) + write_bytes(_VALUE, text.encode()))
        for key, text in entries.items()
    ]
    return b"".join([*kept, *added])


def names_entry(labels: Sequence[str]) -> dict[str, str]:
    """The entry that names labels, as Ultralytics writes it and others read it."""
    return {_NAMES_KEY: repr(dict(enumerate(labels)))}


def renamed(content: bytes, labels: Sequence[str]) -> bytes:
    """Name other labels in a file that names its own; files of earlier versions do not, and stay.

    Raises:
        ValueError: It is no ONNX file.
    """
    if _NAMES_KEY not in metadata(content):
        return content
    return with_metadata(content, names_entry(labels))


def seal(content: bytes) -> bytes:
    """Put the hash into a file whose embedded spec has zeros in its place.

    Raises:
        EngineError: The zeros are not there once.
    """
    zeros = UNSEALED.encode()
    if content.count(zeros) != 1:
        raise EngineError(
            "the model holds a row of 64 zeros as text, which is where the hash of a spec inside it would "
            "stand: take that text out of its metadata or names, and adopt it again"
        )
    return content.replace(zeros, sha256_of(content).encode())


def embedded_spec(content: bytes, path: Path) -> bytes | None:
    """Return the spec inside an ONNX file, as it would lie beside it; None where there is none.

    Args:
        content: Of the file.
        path: Where it lies; it may have another name than it was given.

    Raises:
        EngineError: The file is not the one that the spec was put into.
        SpecError: The spec is malformed.
    """
    try:
        text = metadata(content).get(SPEC_KEY)
    except ValueError:
        return None  # whatever it is, it will be refused for that
    if text is None:
        return None
    if len(text) > MAX_BYTES:
        raise SpecError(f"{path}: the spec inside has {len(text)} characters, too many for one")
    spec = ModelSpec.parse(text.encode(), path)
    if len(spec.files) != 1:
        raise SpecError(f"{path}: the spec inside describes {sorted(spec.files)}, not one file")
    [built] = spec.files.values()
    digest = built.sha256.encode()
    if (
        content.count(digest) != 1
        or sha256_of(content.replace(digest, UNSEALED.encode())) != built.sha256
    ):
        raise EngineError(
            f"{path} is not the file that the spec inside it was written for: it was changed or cut "
            "short; copy it again"
        )
    whole = replace(built, sha256=sha256_of(content))
    return replace(spec, files={path.name: whole}).to_json()
