"""What the pipeline costs over calling the recognizer on each frame of one file.

python -m benchmarks.streams.overhead clip.mp4 --out benchmarks/results/streams/overhead.json
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from cmlr_edge import Recognizer, Streams, demo_engine, open_source
from cmlr_edge.machine.facts import describe_machine
from cmlr_edge.model.files import write_atomically
from cmlr_edge.sinks.jsonl import JsonLines


def seconds(run: Callable[[], int]) -> float:
    """Time of one frame."""
    start = time.perf_counter()
    frames = run()
    return (time.perf_counter() - start) / frames


def ways(recognizer: Recognizer, clip: Path, folder: Path, frames: int) -> dict[str, float]:
    """Take each way once, in turn; seconds per frame."""

    def directly() -> int:
        with open_source(clip) as source:
            return len([recognizer(frame).valid for frame in islice(source, frames)])

    def streamed() -> int:
        streams = Streams(recognizer)
        streams.add(open_source(clip), max_frames=frames)
        return sum(1 for _ in streams.results())

    def written() -> int:
        streams = Streams(recognizer)
        streams.add(open_source(clip), sinks=[JsonLines(folder / "o.jsonl")], max_frames=frames)
        return sum(1 for _ in streams.results())

    return {run.__name__: seconds(run) for run in (directly, streamed, written)}


def main(
    clip: Annotated[Path, typer.Argument(help="A video.")],
    engine: Annotated[Path | None, typer.Option(help="Default: the bundled model.")] = None,
    frames: Annotated[int, typer.Option(min=1)] = 150,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    out: Annotated[Path | None, typer.Option(help="JSON.")] = None,
) -> None:
    """Time every way in turn; ratios are to calling the recognizer, medians of the rounds."""
    engine = engine or demo_engine()
    with Recognizer.from_engine(engine) as recognizer, tempfile.TemporaryDirectory() as folder:
        ways(recognizer, clip, Path(folder), frames)  # warms up
        taken = [ways(recognizer, clip, Path(folder), frames) for _ in range(rounds)]
        record = {
            "machine": describe_machine(),
            "runtime": recognizer.runtime,
            "model": recognizer.spec.name,
            "clip": clip.name,
            "frames": frames,
            "ms_per_frame": {n: [round(t[n] * 1e3, 3) for t in taken] for n in taken[0]},
            "ratio": {
                name: round(statistics.median(t[name] / t["directly"] for t in taken), 4)
                for name in taken[0]
            },
        }
    text = json.dumps(record, indent=2)
    if out is not None:
        write_atomically(out, f"{text}\n".encode())
    print(text)  # noqa: T201


if __name__ == "__main__":
    typer.run(main)
