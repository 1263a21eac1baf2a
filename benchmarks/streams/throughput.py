"""`python -m benchmarks.streams.throughput`: what many sources get of the model's own pace, and when.

The model's own pace is that of batches which are ready in memory, on all cores. Sources then deliver
frames of 640 x 480 from memory as fast as they are taken, so that all that is timed beside the model is
ours: resizing, queues, stability, results. Latency is measured at 70 % of the pace that the sources
reached, from a frame's arrival to its result.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.peers.frames import frames
from benchmarks.records import write_json
from cmlr_edge import Frame, Recognizer, Streams
from cmlr_edge.capture.base import ClosesItself
from cmlr_edge.machine.facts import describe_machine
from cmlr_edge.model.files import model_path, spec_path
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.preprocess import preprocess

_LOAD = 0.7
_BATCHES = (1, 2, 4, 8)
GOALS = {"share_of_own_pace": 0.95, "p99_over_p50": 2.0}


class FromMemory(ClosesItself):
    """A source of frames that cost nothing; with a pace it waits until each is due."""

    num_frames = None
    fps = None

    def __init__(
        self,
        name: str,
        images: NDArray[np.uint8],
        end_s: float,
        *,
        first_s: float = 0.0,
        every_s: float = 0.0,
    ):
        """Plan the frames.

        Args:
            name: Of the source.
            images: BGR, (N, H, W, 3), given again and again.
            end_s: When to stop, on time.monotonic().
            first_s: When the first is due, likewise.
            every_s: From one to the next; 0 for as fast as they are taken.
        """
        self.name, self.files = name, tuple[Path, ...]()
        self._end_s, self._first_s, self._every_s = end_s, first_s, every_s
        self._images = images

    def __enter__(self) -> FromMemory:
        """Return itself."""
        return self

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the end; see `Source`."""
        index = 0
        while time.monotonic() < self._end_s:
            due_s = time.monotonic()
            if self._every_s:
                due_s = self._first_s + index * self._every_s
                time.sleep(max(0.0, due_s - time.monotonic()))
            image = self._images[index % len(self._images)]
            # It has arrived when it was due, though it may be taken later.
            yield Frame(image, index, index * 1.0, time.time(), 0.0, self.name, arrived_s=due_s)
            index += 1


def own_pace(recognizer: Recognizer, seconds: float) -> dict[str, float]:
    """Frames per second of the model alone, by batch: pixels ready, scores not looked at."""
    spec = recognizer.spec.preprocess
    ready = np.stack([preprocess(image, spec) for image in frames()[: max(_BATCHES)]])
    backend = recognizer._backend
    pace = {}
    for batch in _BATCHES:
        backend.infer(ready[:batch])
        start, count = time.perf_counter(), 0
        while (took := time.perf_counter() - start) < seconds:
            backend.infer(ready[:batch])
            count += batch
        pace[str(batch)] = count / took
    return pace


def run(
    recognizer: Recognizer, number: int, *, seconds: float, fps: float | None
) -> tuple[float, list[float]]:
    """Frames per second of all sources, and each frame's milliseconds from arrival to result.

    Args:
        recognizer: Stays open.
        number: Of sources.
        seconds: Of the run; its first tenth is not counted.
        fps: Of each source, or None for as fast as frames are taken.
    """
    images = frames()
    begin_s = time.monotonic() + 0.5
    every_s = 0.0 if fps is None else 1 / fps
    finished_s: list[float] = []
    latencies_ms: list[float] = []
    with Streams(recognizer) as streams:
        for i in range(number):
            # Sources are not in step: each begins a share of a period after the one before.
            first_s = begin_s + every_s * i / number
            source = FromMemory(str(i), images, begin_s + seconds, first_s=first_s, every_s=every_s)
            streams.add(source)
        for result in streams.results():
            now_s = time.monotonic()
            assert result.frame.arrived_s is not None
            if now_s > begin_s + seconds / 10:
                finished_s.append(now_s)
                latencies_ms.append((now_s - result.frame.arrived_s) * 1e3)
    return (len(finished_s) - 1) / (finished_s[-1] - finished_s[0]), latencies_ms


def measure(
    path: Path, provider: str, sources: Sequence[int], *, seconds: float, rounds: int
) -> dict[str, Any]:
    """The model's own pace and that of so many sources, in turn, and latency at 70 % of the latter."""
    with Recognizer.from_engine(path, provider=provider) as recognizer:
        own, reached = [], {number: list[float]() for number in sources}
        for _ in range(rounds):
            own.append(max(own_pace(recognizer, seconds / len(_BATCHES)).values()))
            for number in sources:
                reached[number].append(run(recognizer, number, seconds=seconds, fps=None)[0])
        many = max(sources)
        pace = float(np.median(reached[many]))
        offered = _LOAD * pace / many
        fps, latencies = run(recognizer, many, seconds=3 * seconds, fps=offered)
        shares = {f"p{rank}": float(np.percentile(latencies, rank)) for rank in (50, 95, 99)}
        return {
            "runtime": recognizer.runtime,
            "own_fps": {"each": own, "median": float(np.median(own))},
            "streams_fps": {
                str(n): {"each": values, "median": float(np.median(values))}
                for n, values in reached.items()
            },
            "share_of_own_pace": pace / float(np.median(own)),
            "at_load": {
                "load": _LOAD,
                "offered_fps": offered * many,
                "answered_fps": fps,
                "frames": len(latencies),
                "arrival_to_result_ms": shares,
                "p99_over_p50": shares["p99"] / shares["p50"],
            },
        }


def main(
    models: Annotated[list[Path], typer.Argument(help="Exported models, or their folders.")],
    provider: Annotated[str, typer.Option(help="As for cmlr-edge label.")] = "openvino-bf16",
    sources: Annotated[str, typer.Option(help="Numbers of sources, by commas.")] = "1,4,8",
    seconds: Annotated[float, typer.Option(help="Of each run.")] = 4.0,
    rounds: Annotated[int, typer.Option(min=1, help="Of runs in turn.")] = 3,
    out: Annotated[Path, typer.Option(help="Record.")] = Path(
        "benchmarks/results/streams/throughput.json"
    ),
) -> None:
    """Measure, write the record and print the ratios beside the goals."""
    numbers = [int(number) for number in sources.split(",")]
    record: dict[str, Any] = {"machine": describe_machine(), "goals": GOALS, "models": {}}
    for folder in models:
        path = model_path(folder)
        found = measure(path, provider, numbers, seconds=seconds, rounds=rounds)
        record["models"][ModelSpec.load(spec_path(path)).name] = found
        write_json(out, record)
        print(  # noqa: T201
            f"{folder}: {found['share_of_own_pace']:.2f} of the model's own pace, "
            f"p99 / p50 {found['at_load']['p99_over_p50']:.2f} at {_LOAD:.0%} load"
        )


if __name__ == "__main__":
    typer.run(main)
