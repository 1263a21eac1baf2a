"""What a dataset is made of: a run goes on with nothing but the same."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cmlr_edge.archive.inputs import HEADER
from cmlr_edge.archive.packages import arrow
from cmlr_edge.archive.plan import Cutting
from cmlr_edge.archive.stores import Store
from cmlr_edge.errors import SpecError
from cmlr_edge.machine.facts import runtime_versions
from cmlr_edge.model.pair import ModelPair
from cmlr_edge.model.strict_json import parse_json

FORMAT_VERSION = 1
_LONGEST = 300  # characters of what differs, in a message


@dataclass(frozen=True)
class ModelFacts:
    """Which model labelled, and how its scores were judged."""

    name: str
    sha256: str  # of the model file
    identity: str  # of model and spec
    provider: str  # that runs it
    labels: tuple[str, ...]  # in the order of the scores
    thresholds: tuple[float, ...]  # likewise

    @classmethod
    def of(cls, pair: ModelPair, provider: str, thresholds: Sequence[float]) -> ModelFacts:
        """Describe a model that was read."""
        spec = pair.spec
        sha256 = spec.files[pair.path.name].sha256
        return cls(spec.name, sha256, pair.identity, provider, spec.labels, tuple(thresholds))


@dataclass(frozen=True)
class Header:
    """What a dataset is made of."""

    inputs: tuple[str, ...]
    model: ModelFacts
    cutting: Cutting
    max_fps: float | None = None
    explain_margin: float | None = None  # logits; None where rows do not say why
    versions: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def about(self) -> dict[str, Any]:
        """What every file of the dataset says."""
        return {
            "format_version": self.format_version,
            "model": asdict(self.model),
            "versions": self.versions,
        }

    def write(self, store: Store) -> None:
        """Write it."""
        store.put_bytes(HEADER, (json.dumps(asdict(self), indent=2) + "\n").encode())

    @classmethod
    def read(cls, store: Store) -> Header | None:
        """Read that of a dataset; None where there is none.

        Raises:
            SpecError: It is not one that this version wrote.
        """
        try:
            content = store.read(HEADER)
        except FileNotFoundError:
            return None
        try:
            return parse_json(content, cls)
        except ValueError as error:
            raise SpecError(f"{store.root}/{HEADER} is no header of a dataset: {error}") from error

    def require_same(self, other: Header, where: str) -> None:
        """Refuse to go on with something else.

        Args:
            other: What is asked for now.
            where: The dataset, for the message.

        Raises:
            SpecError: It differs; the message says in what.
        """
        pairs = {
            "inputs": (list(self.inputs), list(other.inputs)),
            "--chunk and --part-mb": (self.cutting, other.cutting),
            "--max-fps": (self.max_fps, other.max_fps),
            "--explain": (self.explain_margin, other.explain_margin),
            "model": (self.model.identity, other.model.identity),
            "provider": (self.model.provider, other.model.provider),
            "thresholds": (self.model.thresholds, other.model.thresholds),
        }
        for what, (begun, asked) in pairs.items():
            if begun != asked:
                difference = f" ({begun}, and not {asked})"
                if len(difference) > _LONGEST:  # of many labels
                    difference = ""
                raise SpecError(
                    f"{where} was begun with other settings, {what}{difference}: go on with the same, or "
                    "name another --out"
                )


def versions() -> dict[str, str]:
    """Versions of what labels and writes."""
    return {"python": sys.version.split()[0], "pyarrow": arrow().__version__, **runtime_versions()}
