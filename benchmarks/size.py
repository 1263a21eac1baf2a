"""How much of a benchmark is done: all that its page tells of, or a small share to see that it works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import typer


@dataclass(frozen=True)
class Size:
    """A share of every number of pictures, draws and steps; 1 is what is stored and told."""

    scale: float = 1.0

    def of(self, number: int, least: int = 1) -> int:
        """So many of a number."""
        return number if self.scale == 1 else max(min(number, least), round(number * self.scale))

    def counts(self, counts: Mapping[str, int], least: int) -> dict[str, int]:
        """So many scenes of every part that has any."""
        return {name: self.of(n, least) if n else 0 for name, n in counts.items()}

    def folders(self, work: Path, out: Path, usual: Path) -> Path:
        """Where work of this size is kept.

        Raises:
            BadParameter: A share would be written over what is stored of the whole.
        """
        if self.scale == 1:
            return work
        if out.resolve() == usual.resolve():
            raise typer.BadParameter(f"--scale {self.scale:g} needs an --out that is not {usual}")
        return work / f"scale-{self.scale:g}"
