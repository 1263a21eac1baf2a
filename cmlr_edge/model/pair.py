"""A model and its spec as they were read, once: what is checked is what is loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cmlr_edge.errors import EngineError
from cmlr_edge.model.embedded import embedded_spec
from cmlr_edge.model.files import read_file, sha256_of, signature_path, spec_path
from cmlr_edge.model.spec import ModelSpec, read_spec_text

_MAX_SIGNATURE_BYTES = 2**20
_READINGS = 5  # of files that somebody writes over and over


@dataclass(frozen=True)
class ModelPair:
    """The bytes of a model file and of its spec; the files may change, this does not."""

    path: Path  # of the model, for its name and for messages
    content: bytes
    spec_text: bytes
    signature: bytes | None = None  # of both; None where there is none

    @classmethod
    def read(cls, path: Path) -> ModelPair:
        """Read the model file at `path`, and the spec beside it; without one, that inside it.

        Raises:
            EngineError: The model cannot be read, or is not the one that the spec inside describes.
            SpecError: The spec is missing, or too large to be one.
        """
        if not path.exists():
            raise EngineError(
                f"no engine at {path}: export/build_engine.py writes one, "
                "and cmlr_edge.demo_engine() is the path of the bundled model"
            )
        beside = spec_path(path)
        text = _read_own_spec(path)
        for _ in range(_READINGS):
            try:
                content, signature = read_file(path), _read_signature(path)
            except OSError as error:
                raise EngineError(
                    f"{error.filename or path} cannot be read: {error.strerror}"  # or its signature
                ) from error
            # An export may give both their names in between: then the model is not that of the spec.
            before, text = text, _read_own_spec(path)
            if text == before:
                break
        text = text or embedded_spec(content, path) or read_spec_text(beside)
        return cls(path, content, text, signature)

    @cached_property
    def spec(self) -> ModelSpec:
        """The spec.

        Raises:
            SpecError: It is malformed.
        """
        return ModelSpec.parse(self.spec_text, spec_path(self.path))

    @property
    def identity(self) -> str:
        """16 hexadecimal digits that tell both contents."""
        return sha256_of(bytes.fromhex(sha256_of(self.content)) + self.spec_text)[:16]


def _read_own_spec(path: Path) -> bytes:
    """What lies beside the model; nothing where it may be inside it."""
    beside = spec_path(path)
    has_own = os.path.lexists(beside) or path.suffix != ".onnx"
    return read_spec_text(beside) if has_own else b""


def _read_signature(path: Path) -> bytes | None:
    """What lies there as a signature; whoever asks for one looks whether it is one."""
    try:
        return read_file(signature_path(path), _MAX_SIGNATURE_BYTES)
    except FileNotFoundError:
        return None
