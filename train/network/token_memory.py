"""Tokens of a backbone that is not trained, kept in memory: the same pictures give the same again."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from torch import Tensor

_ROOM = 2 * 2**30  # bytes


@dataclass
class _Store:
    room: int = _ROOM
    kept: dict[Hashable, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class TokenMemory:
    """Keeps what fits. A batch is kept whole, so that what comes back has the bits of a fresh one."""

    about: tuple[Hashable, ...] = ()  # what the tokens hang on beside their pictures
    store: _Store = field(default_factory=_Store)

    def of(self, *about: Hashable) -> TokenMemory:
        """A part of this memory, for tokens that hang on something more."""
        return TokenMemory((*self.about, *about), self.store)

    def get(self, pictures: Hashable) -> Tensor | None:
        """What was kept of a batch, (B, T, D), on the CPU."""
        return self.store.kept.get((self.about, pictures))

    def keep(self, pictures: Hashable, tokens: Tensor) -> None:
        """Keep the tokens (B, T, D) of a batch, if there is room."""
        size, key = tokens.nbytes, (self.about, pictures)
        if key not in self.store.kept and size <= self.store.room:
            self.store.room -= size
            self.store.kept[key] = tokens.detach().cpu()
