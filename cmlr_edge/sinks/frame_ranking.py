"""Which kept frame makes room: found in a few steps, however many there are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import count
from pathlib import Path

from cmlr_edge.sinks.collect_record import KeptName

_Group = tuple[str, str]  # source, label
_SLACK = 64  # entries of a heap that may be out of date, beside as many as are not


@dataclass
class _Members:
    """Frames of one source and label."""

    paths: dict[int, Path] = field(default_factory=dict)  # by number, the oldest first
    heap: list[tuple[str, str, int]] = field(default_factory=list)  # worth, digest, number


class FrameRanking:
    """Follows the kept frames; see `Ranking` of `KeptFiles`.

    Heaps hold entries that are out of date, and these are left out when they come to the top.
    """

    def __init__(self) -> None:
        """Start without frames."""
        self.clear()

    def clear(self) -> None:
        """Forget all."""
        self._numbers: dict[Path, list[int]] = {}
        self._next = count()
        self._groups: dict[_Group, _Members] = {}
        self._fullest: list[tuple[int, int, _Group]] = []  # less members, number of the oldest
        self._digests = Counter[tuple[str, str]]()  # of a source

    def add(self, path: Path) -> None:
        """Take a frame in, the youngest of all."""
        name, number = KeptName.of(path), next(self._next)
        group = path.parent.name, name.label
        members = self._groups.setdefault(group, _Members())
        self._numbers.setdefault(path, []).append(number)
        members.paths[number] = path
        heappush(members.heap, (name.worth, name.digest, number))
        self._digests[path.parent.name, name.digest] += 1
        self._note(group, members)

    def remove(self, path: Path) -> None:
        """Let a frame go."""
        numbers, name = self._numbers[path], KeptName.of(path)
        group = path.parent.name, name.label
        members = self._groups[group]
        del members.paths[numbers.pop()]
        if not numbers:
            del self._numbers[path]
        same = path.parent.name, name.digest
        self._digests[same] -= 1
        if not self._digests[same]:
            del self._digests[same]
        if not members.paths:
            del self._groups[group]
            return
        if len(members.heap) > 2 * len(members.paths) + _SLACK:
            members.heap = [entry for entry in members.heap if entry[2] in members.paths]
            heapify(members.heap)
        self._note(group, members)

    def least(self) -> Path:
        """Which makes room: of the source and label with most frames, the one that is worth least.

        Of several with as many frames it is the one whose oldest frame is the oldest.
        """
        while True:
            size, oldest, group = self._fullest[0]
            members = self._groups.get(group)
            if members is not None and (size, oldest) == _rank(members):
                break
            heappop(self._fullest)
        while members.heap[0][2] not in members.paths:
            heappop(members.heap)
        return members.paths[members.heap[0][2]]

    def has(self, source: str, digest: str) -> bool:
        """Whether a source's frame with these pixels is there, whatever it was kept for."""
        return (source, digest) in self._digests

    def _note(self, group: _Group, members: _Members) -> None:
        heappush(self._fullest, (*_rank(members), group))
        if len(self._fullest) > 4 * len(self._groups) + _SLACK:
            self._fullest = [(*_rank(known), name) for name, known in self._groups.items()]
            heapify(self._fullest)


def _rank(members: _Members) -> tuple[int, int]:
    return -len(members.paths), next(iter(members.paths))
