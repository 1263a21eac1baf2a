"""What an engine was taught from: what the network sees in each picture, never the picture.

One file beside the spec, `model.examples.npz`. It is read where something is taught, and nowhere else: an
engine runs without it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.errors import DataError
from cmlr_edge.model.files import read_file
from cmlr_edge.teaching.fitting import Array, Basis

MOST = 2000  # pictures kept; then the oldest that say nothing of any label go first
UNKNOWN, ABSENT, PRESENT = -1, 0, 1
_MOST_BYTES = 2**30
_FIELDS = {"mean", "directions", "features", "digests", "says", "labels", "background"}


def examples_path(engine: Path) -> Path:
    """Where the examples of an engine lie: the same name, and .examples.npz."""
    return engine.with_name(f"{engine.stem}.examples.npz")


@dataclass(frozen=True)
class Examples:
    """N pictures as coordinates of their tokens, and what is known of K taught labels on them."""

    basis: Basis
    features: NDArray[np.float16]  # (N, T, R)
    digests: tuple[str, ...]  # N, SHA-256 of the model's input
    says: NDArray[np.int8]  # (N, K): UNKNOWN, ABSENT or PRESENT
    labels: tuple[str, ...]  # K
    background: NDArray[np.bool_]  # (N,): without any label that will be taught, as far as is known
    base: str = ""  # SHA-256 of the network that saw them; "" where nobody wrote it down

    @classmethod
    def empty(cls, basis: Basis, number: int, base: str) -> Examples:
        """None of pictures with so many tokens."""
        features = np.zeros((0, number, basis.directions.shape[1]), np.float16)
        return cls(basis, features, (), np.zeros((0, 0), np.int8), (), np.zeros(0, bool), base)

    def of(self, label: str) -> tuple[Array, NDArray[np.bool_]]:
        """Pictures that say something of a label, as float32 (n, T, R), and whether it is there (n,)."""
        column = self.says[:, self.labels.index(label)]
        column = np.where((column == UNKNOWN) & self.background, ABSENT, column)
        known = column != UNKNOWN
        return self.features[known].astype(np.float32), column[known] == PRESENT

    def with_label(self, label: str) -> Examples:
        """Make room for a label that there may be already."""
        if label in self.labels:
            return self
        column = np.full((len(self.digests), 1), UNKNOWN, np.int8)
        return replace(self, labels=(*self.labels, label), says=np.hstack([self.says, column]))

    def without_label(self, label: str) -> Examples:
        """Forget a label, and pictures that say nothing then."""
        column = self.labels.index(label)
        labels = tuple(name for name in self.labels if name != label)
        left = replace(self, labels=labels, says=np.delete(self.says, column, axis=1))
        return left._kept((left.says != UNKNOWN).any(axis=1) | left.background)

    def renamed(self, label: str, name: str) -> Examples:
        """Call a label otherwise."""
        return replace(self, labels=tuple(name if x == label else x for x in self.labels))

    def add(
        self, label: str, digests: Sequence[str], tokens: Iterable[Array], *, present: bool
    ) -> Examples:
        """Take the tokens of pictures in, (T, D) each; what was said of the same ones is replaced."""
        known = self.with_label(label)
        column, said = known.labels.index(label), PRESENT if present else ABSENT
        places = {digest: i for i, digest in enumerate(known.digests)}
        features, says = [], known.says.copy()
        for digest, seen in zip(digests, tokens, strict=True):
            if digest not in places:
                places[digest] = len(places)
                features.append(_narrow(known.basis(seen)))
                says = np.vstack([says, np.full((1, len(known.labels)), UNKNOWN, np.int8)])
            says[places[digest], column] = said
        return replace(
            known,
            features=np.concatenate(
                [known.features, np.array(features).reshape(-1, *known.features.shape[1:])]
            ).astype(np.float16),
            digests=tuple(places),
            says=says,
            background=np.append(known.background, np.zeros(len(features), bool)),
        )._bounded()

    def _bounded(self) -> Examples:
        if len(self.digests) <= MOST:
            return self
        worth = (self.says == PRESENT).any(axis=1)
        spare = np.flatnonzero(~worth) if not worth.all() else np.arange(len(worth))
        keep = np.ones(len(worth), bool)
        keep[spare[: len(self.digests) - MOST]] = False
        return self._kept(keep)

    def _kept(self, keep: NDArray[np.bool_]) -> Examples:
        return replace(
            self,
            features=self.features[keep],
            digests=tuple(np.array(self.digests, object)[keep]),
            says=self.says[keep],
            background=self.background[keep],
        )

    def to_bytes(self) -> bytes:
        """Return what `load` reads."""
        buffer = BytesIO()
        digests = np.array([[*bytes.fromhex(text)] for text in self.digests], np.uint8)
        np.savez(
            buffer,
            mean=self.basis.mean,
            directions=self.basis.directions,
            features=self.features,
            digests=digests.reshape(-1, 32),
            says=self.says,
            labels=np.array(self.labels, "U64"),
            background=self.background,
            base=np.frombuffer(bytes.fromhex(self.base), np.uint8),
        )
        return buffer.getvalue()

    @classmethod
    def load(cls, path: Path, *, width: int, number: int, base: str) -> Examples:
        """Read what `to_bytes` gave for an engine of so many channels and tokens, and of this hash.

        Raises:
            DataError: It is damaged, far too large, or of another engine.
        """
        try:
            arrays = _read_arrays(path)
            found = cls._checked(arrays, width, number, base)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError, MemoryError) as error:
            raise DataError(
                f"{path} holds no examples of this engine: {error}; move it away, and teach from "
                "pictures again"
            ) from error
        return found

    @classmethod
    def _checked(
        cls, arrays: dict[str, NDArray[np.generic]], width: int, number: int, base: str
    ) -> Examples:
        features = arrays["features"]
        n, rank = len(features), arrays["directions"].shape[-1]
        k = len(arrays["labels"])
        wanted = {
            "mean": ((width,), "f"), "directions": ((width, rank), "f"),
            "features": ((n, number, rank), "f"), "digests": ((n, 32), "u"),
            "says": ((n, k), "i"), "labels": ((k,), "U"), "background": ((n,), "b"),
        }  # fmt: skip
        for name, (shape, kind) in wanted.items():
            if arrays[name].shape != shape or arrays[name].dtype.kind != kind:
                raise ValueError(f"{name} is {arrays[name].dtype} {arrays[name].shape}")
        if not all(np.isfinite(arrays[name]).all() for name in ("mean", "directions", "features")):
            raise ValueError("some of its numbers are none")
        seen_by = arrays.get("base", np.zeros(0, np.uint8)).tobytes().hex()
        if seen_by not in {"", base}:
            raise ValueError("another network saw these pictures")
        basis = Basis(arrays["mean"].astype(np.float32), arrays["directions"].astype(np.float32))
        digests = tuple(bytes(row).hex() for row in arrays["digests"])
        labels = tuple(str(name) for name in arrays["labels"])
        return cls(
            basis,
            features.astype(np.float16),
            digests,
            arrays["says"].astype(np.int8),
            labels,
            arrays["background"].astype(bool),
            seen_by,
        )


def _narrow(coordinates: Array) -> NDArray[np.float16]:
    """As they are kept; an infinity would make every number of the fit none."""
    if not np.abs(coordinates).max() <= np.finfo(np.float16).max:
        raise DataError(
            "a picture is too far from those of the lessons before: forget what was taught from them "
            "(--forget), and teach from all pictures together"
        )
    return coordinates.astype(np.float16)


def _read_arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    content = read_file(path, _MOST_BYTES + 1)
    with zipfile.ZipFile(BytesIO(content)) as archive:
        sizes = [item.file_size for item in archive.infolist()]  # before anything is unpacked
        if len(content) > _MOST_BYTES or sum(sizes) > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES} bytes")
        names = {item.filename.removesuffix(".npy") for item in archive.infolist()}
    if names - {"base"} != _FIELDS or len(sizes) != len(names):
        raise ValueError(f"it holds {sorted(names)}")
    with np.load(BytesIO(content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in names}
