"""Streams of scores whose visits are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cmlr_edge.events.recordings import Recording, Visit


def recording(
    seed: int, *, visits: int = 2, frames: int = 900, strength: float = 4.0, fps: float = 1.0
) -> Recording:
    """Scores that flicker around a level, higher while a visit lasts."""
    rng = np.random.default_rng(seed)
    times = np.arange(frames) / fps
    noise, level = rng.normal(size=frames) * 0.7, 0.0
    values = np.zeros(frames)
    for i in range(frames):
        level = 0.7 * level + noise[i]
        values[i] = level
    begins = np.sort(rng.choice(np.arange(1, 12), visits, replace=False)) * frames / fps / 13
    found = []
    for begin in begins:
        visit = Visit(float(begin), float(begin + rng.uniform(8, 0.7 * frames / fps / 13)))
        values[(times >= visit.begin_s) & (times <= visit.end_s)] += strength
        found.append(visit)
    scores = 1 / (1 + np.exp(2.5 - values))
    return Recording(f"{seed}.csv", times, scores.astype(np.float32), tuple(found))


def write_recordings(folder: Path, recordings: list[Recording], label: str = "car") -> Path:
    """As `label --csv` writes them, and visits.csv beside."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["file,label,begin,end"]
    for item in recordings:
        rows = ["frame,time_s,captured_at,source,status,valid,person," + label]
        pairs = zip(item.times_s, item.scores, strict=True)
        rows += [f"{i},{t:.4f},0,x,ok,true,0.1,{s:.5f}" for i, (t, s) in enumerate(pairs)]
        (folder / item.name).write_text("\n".join(rows) + "\n")
        lines += [f"{item.name},{label},{v.begin_s},{v.end_s}" for v in item.visits]
        lines += [] if item.visits else [f"{item.name},,,"]
    (folder / "visits.csv").write_text("\n".join(lines) + "\n")
    return folder
