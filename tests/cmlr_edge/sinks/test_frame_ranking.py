"""The frame that makes room is the one that a look at all of them finds, and it is found at once."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from cmlr_edge.sinks.collect_record import SUFFIX, KeptName
from cmlr_edge.sinks.frame_ranking import FrameRanking
from cmlr_edge.sinks.kept_files import KeptFiles


def named(source: str, label: str, worth: int, digest: int, kind: str = "near") -> Path:
    return Path("f", source, f"{label}_{kind}_{worth:05d}_{digest:032x}{SUFFIX}")


def looked_for(paths: list[Path]) -> Path:
    """The rule, by a look at all of them: the first of the fullest groups, and of its members the least."""
    groups = Counter((path.parent.name, KeptName.of(path).label) for path in paths)
    [(fullest, _)] = groups.most_common(1)
    members = [p for p in paths if (p.parent.name, KeptName.of(p).label) == fullest]
    return min(members, key=lambda p: (KeptName.of(p).worth, KeptName.of(p).digest))


@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_frame_that_a_look_at_all_would_find(seed: int) -> None:
    rng = random.Random(seed)
    ranking, paths = FrameRanking(), list[Path]()
    for step in range(1500):
        room = rng.randint(1, 60)  # sometimes many go at once
        if rng.random() < 0.1 and paths:  # somebody took one away
            ranking.remove(paths.pop(rng.randrange(len(paths))))
        source, label = rng.choice("ab"), rng.choice(("red", "red_2", "any", ""))
        kind = rng.choice(("near", "random"))
        path = named(source, label, rng.randint(0, 4), step // 2, kind)  # ties of all kinds
        if path in paths:
            continue
        ranking.add(path)
        paths.append(path)
        while len(paths) > room:
            least = looked_for(paths)
            assert ranking.least() == least
            ranking.remove(least)
            paths.remove(least)
        digest = KeptName.of(path).digest
        assert ranking.has(source, digest) == any(
            p.parent.name == source and KeptName.of(p).digest == digest for p in paths
        )


def test_a_full_folder_of_many_frames_costs_a_newcomer_little(tmp_path: Path) -> None:
    folder = tmp_path / "f" / "door"
    folder.mkdir(parents=True)
    rng, many = random.Random(0), 5000
    for number in range(many):
        label = f"label-{rng.randrange(80)}"
        (tmp_path / named("door", label, rng.randrange(10**4), number)).touch()
    ranking = FrameRanking()
    files = KeptFiles(
        tmp_path / "f",
        (SUFFIX,),
        keep_bytes=1e9,
        keep_days=None,
        most=many,
        ranking=ranking,
    )
    files.look()
    paths = sorted((tmp_path / "f").glob("*/*"), key=lambda p: p.stat().st_mtime_ns)
    start_s = time.process_time()
    for number in range(300):
        label = f"label-{rng.randrange(80)}"
        files.keep(tmp_path / named("door", label, rng.randrange(10**4), many + number), b"x")
    assert time.process_time() - start_s < 1.0  # no look at all of them for each
    assert len(list(folder.iterdir())) == many == len(paths)
