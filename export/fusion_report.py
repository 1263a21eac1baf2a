"""What fusion did, node by node: operations and bytes saved, and what was left and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Fold:
    """One node of the network."""

    node: str
    what: str  # was folded; or why nothing was
    multiply_adds_saved: int = 0  # per image, in matrix products
    bytes_saved: int = 0  # of float32 constants; negative where a folded one is larger


@dataclass(frozen=True)
class FusionReport:
    """All nodes, in the order of the network."""

    folds: tuple[Fold, ...]

    @property
    def multiply_adds_saved(self) -> int:
        """Per image."""
        return sum(fold.multiply_adds_saved for fold in self.folds)

    @property
    def bytes_saved(self) -> int:
        """Of float32 constants."""
        return sum(fold.bytes_saved for fold in self.folds)

    def with_folds(self, folds: Iterable[Fold]) -> FusionReport:
        """The same report with what was folded later."""
        return FusionReport((*self.folds, *folds))

    def to_json(self) -> dict[str, Any]:
        """The report as plain values, totals included."""
        return {
            "multiply_adds_saved": self.multiply_adds_saved,
            "bytes_saved": self.bytes_saved,
            "folds": [asdict(fold) for fold in self.folds],
        }

    def to_text(self) -> str:
        """The report as a table, one line for each node."""
        total = Fold("total", "", self.multiply_adds_saved, self.bytes_saved)
        width = max(len(fold.node) for fold in (*self.folds, total))
        lines = [f"{'node':{width}} {'multiply-adds':>14} {'bytes':>12}  saved by"]
        for fold in (*self.folds, total):
            numbers = f"{fold.multiply_adds_saved:>14,} {fold.bytes_saved:>12,}"
            lines.append(f"{fold.node:{width}} {numbers}  {fold.what}".rstrip())
        return "\n".join(lines)


@dataclass
class Ledger:
    """Collects folds while the network is rewritten."""

    folds: list[Fold] = field(default_factory=list)

    def add(
        self,
        node: str,
        what: Iterable[str],
        *,
        before: Iterable[nn.Module | Tensor | None] = (),
        after: Iterable[nn.Module | Tensor | None] = (),
        multiply_adds: int = 0,
    ) -> None:
        """Note one node.

        Args:
            node: Its name in the trained network.
            what: Was folded.
            before: Modules and tensors of the trained network that it owned.
            after: What stands in the deployed network for them.
            multiply_adds: Saved, for one image.
        """
        saved = _bytes(before) - _bytes(after)
        self.folds.append(Fold(node, "; ".join(what), multiply_adds, saved))

    def report(self) -> FusionReport:
        """Everything noted so far."""
        return FusionReport(tuple(self.folds))


def _bytes(parts: Iterable[nn.Module | Tensor | None]) -> int:
    """Counted as float32, which is what a network is trained and exported in."""
    return 4 * sum(count_values(part) for part in parts if part is not None)


def count_values(part: nn.Module | Tensor) -> int:
    """Numbers that a module's parameters and buffers hold."""
    if isinstance(part, Tensor):
        return part.numel()
    return sum(p.numel() for p in part.parameters()) + sum(b.numel() for b in part.buffers())
