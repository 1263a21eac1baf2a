"""A spec inside the ONNX file that it describes, so that one file is enough.

It stands in the file's metadata. Its `sha256` is that of the file with these 64 digits as zeros: a file
cannot hold its own hash, and a changed byte is noticed all the same.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cmlr_edge.errors import EngineError, SpecError
from cmlr_edge.model.files import sha256_of
from cmlr_edge.model.protobuf import fields
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.model.strict_json import MAX_BYTES

SPEC_KEY = "cmlr_edge.spec"
UNSEALED = "0" * 64
_METADATA, _KEY, _VALUE = 14, 1, 2  # field numbers of onnx.proto


def metadata(content: bytes) -> dict[str, str]:
    """Return the metadata of an ONNX file.

    Raises:
        ValueError: It is none.
    """
    found = {}
    for number, value, _ in fields(memoryview(content)):
        if number == _METADATA:
            entry = {key: bytes(text) for key, text, _ in fields(value)}
            key, text = (entry.get(part, b"").decode() for part in (_KEY, _VALUE))
            found[key] = text
    return found


def seal(content: bytes) -> bytes:
    """Put the hash into a file whose embedded spec has zeros in its place.

    Raises:
        EngineError: The zeros are not there once.
    """
    zeros = UNSEALED.encode()
    if content.count(zeros) != 1:
        raise EngineError(
            "the model holds a row of 64 zeros as text: its spec cannot be put inside"
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
