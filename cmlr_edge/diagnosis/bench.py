"""How fast a model is here: every stage of every frame, unclipped, with the machine beside it.

`Recognizer.from_engine` checks the model's hash and its golden sample first; what fails is not timed.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.backends.golden import golden_frames
from cmlr_edge.capture import open_source
from cmlr_edge.errors import CaptureError, DataError
from cmlr_edge.frame import Frame
from cmlr_edge.machine.facts import describe_machine
from cmlr_edge.machine.tegrastats import BoardMonitor
from cmlr_edge.model.files import sha256_of
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.redaction import redact_source

STAGES = ("capture", "preprocess", "inference", "postprocess")
TOTAL = "capture_to_label"
_PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
_SHARE_OF_RATE = 0.1  # of the duration, for each batch size and number of streams
_SYNTHETIC_HW = (480, 640)
_GATED = ("p50", "p95")  # of capture_to_label; throughput is the third number that is compared


@dataclass(frozen=True)
class BenchSettings:
    """What is measured, and for how long; words and defaults as trtexec's where it has them."""

    warm_up_ms: float = 200.0
    duration_s: float = 10.0  # at least
    iterations: int = 10  # at least
    percentiles: tuple[float, ...] = ()  # beside the usual ones
    batches: tuple[int, ...] = (1, 2, 4, 8)
    streams: tuple[int, ...] = (1, 2)

    @property
    def least_s(self) -> float:
        """Seconds that measuring takes at least."""
        rates_s = _SHARE_OF_RATE * self.duration_s * (len(self.batches) + len(self.streams))
        return self.warm_up_ms / 1e3 + self.duration_s + rates_s


def run_bench(
    engine: Path,
    source: str | None,
    *,
    provider: str | None,
    settings: BenchSettings,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Load, check and time a model.

    Args:
        engine: The model file.
        source: What `open_source` takes, read again from its start as often as needed; None: one
            seeded picture of 640 x 480 in memory.
        provider: As for `Recognizer.from_engine`.
        settings: How long, and which batches and streams.
        tell: Takes a line before all that takes long.

    Returns:
        A JSON-ready record; all times in ms unless the name says otherwise.
    """
    before, started = resident_mb(), time.perf_counter()
    with Recognizer.from_engine(engine, provider=provider) as recognizer:
        loaded = time.perf_counter()
        synthetic = golden_frames(0, _SYNTHETIC_HW)[0]
        recognizer(synthetic)
        first_label = time.perf_counter()
        tell(f"{engine.name} works here; timing it takes {settings.least_s:.0f} s at least")
        with ExitStack() as cleanup:
            frames = _repeat(source, cleanup) if source else itertools.repeat(synthetic)
            _warm_up(recognizer, synthetic, settings)
            with BoardMonitor() as board:
                times, elapsed = _time_frames(recognizer, frames, settings)
        memory = {"before_load": before, "steady": resident_mb(), "peak": peak_mb()}
        throughput = {
            "frames_per_second": len(times) / elapsed,
            "by_batch": _by_batch(recognizer, synthetic, settings),
            "by_streams": _by_streams(engine, provider, synthetic, settings),
        }
        about = _about(recognizer, engine, source)
    return {
        **about,
        "load_s": loaded - started,
        "load_to_first_label_s": first_label - started,
        "iterations": len(times),
        "latency_ms": _latencies(times, settings.percentiles),
        "throughput": throughput,
        "memory_mb": memory,
        "board": board.report(),
        "valid": not board.throttled,
    }


def _about(recognizer: Recognizer, engine: Path, source: str | None) -> dict[str, Any]:
    return {
        "engine": engine.name,
        "sha256": sha256_of(engine.read_bytes()),
        "provider": recognizer.provider,
        "runtime": recognizer.runtime,
        "source": redact_source(source) if source else "one picture of 640 x 480 in memory",
        "machine": describe_machine(),
        "check": "hash and golden self-test passed",
    }


def find_regressions(new: dict[str, Any], old: dict[str, Any], max_regression: float) -> list[str]:
    """What became slower by more than this share; see `_GATED`.

    Raises:
        DataError: The records are of another model, machine, runtime or source, or one is invalid.
    """
    for key in ("sha256", "provider", "source"):
        if new.get(key) != old.get(key):
            raise DataError(
                f"the runs cannot be compared: {key} is {new.get(key)!r} now and was {old.get(key)!r}"
            )
    for key in ("cpu", "cores", "board"):
        now, was = (record.get("machine", {}).get(key) for record in (new, old))
        if now != was:
            raise DataError(f"the runs cannot be compared: {key} is {now!r} now and was {was!r}")
    if not (new["valid"] and old["valid"]):
        raise DataError("the runs cannot be compared: the board throttled in one of them")
    ratios = {
        f"{TOTAL} {name}": new["latency_ms"][TOTAL][name] / old["latency_ms"][TOTAL][name]
        for name in _GATED
    }
    speeds = [record["throughput"]["frames_per_second"] for record in (old, new)]
    ratios["time per frame"] = speeds[0] / speeds[1]
    return [
        f"{name} is {ratio - 1:+.1%}"
        for name, ratio in ratios.items()
        if ratio > 1 + max_regression
    ]


def resident_mb() -> float:
    """Memory that this process holds now."""
    return _status_mb("VmRSS")


def peak_mb() -> float:
    """The most it ever held."""
    return _status_mb("VmHWM")


def _status_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def _repeat(source: str, cleanup: ExitStack) -> Iterator[Frame]:
    while True:
        frames = cleanup.enter_context(open_source(source))
        count = 0
        for frame in frames:
            count += 1
            yield frame
        frames.close()
        if not count:
            raise CaptureError(f"{source} gave no frame")


def _warm_up(recognizer: Recognizer, image: NDArray[np.uint8], settings: BenchSettings) -> None:
    end = time.perf_counter() + settings.warm_up_ms / 1e3
    while time.perf_counter() < end:
        recognizer(image)


def _time_frames(
    recognizer: Recognizer, frames: Iterable[Any], settings: BenchSettings
) -> tuple[list[tuple[float, ...]], float]:
    """Ms of each stage and of the whole, for every frame; and the seconds all of it took."""
    times: list[tuple[float, ...]] = []
    start = time.perf_counter()
    for frame in frames:
        arrived_s = getattr(frame, "arrived_s", None) or time.monotonic()
        latency = recognizer(frame).latency_ms
        # From the clock, not the stages' sum: a live frame may have waited.
        whole = latency.capture + (time.monotonic() - arrived_s) * 1e3
        times.append(
            (latency.capture, latency.preprocess, latency.inference, latency.postprocess, whole)
        )
        done = time.perf_counter() - start
        if done >= settings.duration_s and len(times) >= settings.iterations:
            break
    return times, time.perf_counter() - start


def _latencies(
    times: Sequence[tuple[float, ...]], percentiles: tuple[float, ...]
) -> dict[str, dict[str, float]]:
    table = np.asarray(times)
    shares = sorted({*_PERCENTILES, *percentiles})
    return {
        name: {f"p{share:g}": float(np.percentile(column, share)) for share in shares}
        | {"mean": float(column.mean()), "max": float(column.max())}
        for name, column in zip((*STAGES, TOTAL), table.T, strict=True)
    }


def _by_batch(
    recognizer: Recognizer, image: NDArray[np.uint8], settings: BenchSettings
) -> dict[str, float]:
    """Frames per second."""
    rates = {}
    for size in settings.batches:
        work = partial(recognizer.recognize_batch, [image] * size)
        rates[str(size)] = size * _rate(work, settings)
    return rates


def _rate(work: Callable[[], object], settings: BenchSettings) -> float:
    """Calls per second, over a share of the duration."""
    work()
    calls, start = 0, time.perf_counter()
    while calls < 3 or time.perf_counter() - start < _SHARE_OF_RATE * settings.duration_s:
        work()
        calls += 1
    return calls / (time.perf_counter() - start)


def _by_streams(
    engine: Path, provider: str | None, image: NDArray[np.uint8], settings: BenchSettings
) -> dict[str, float]:
    """Frames per second of several threads, each with an engine of its own."""
    return {str(n): _threads_rate(n, engine, provider, image, settings) for n in settings.streams}


def _threads_rate(
    number: int,
    engine: Path,
    provider: str | None,
    image: NDArray[np.uint8],
    settings: BenchSettings,
) -> float:
    rates: list[float] = []
    ready = threading.Barrier(number)

    def work(recognizer: Recognizer) -> None:
        recognizer(image)
        ready.wait()
        rates.append(_rate(lambda: recognizer(image), settings))

    with ExitStack() as stack:
        recognizers = [
            stack.enter_context(Recognizer.from_engine(engine, provider=provider))
            for _ in range(number)
        ]
        threads = [threading.Thread(target=work, args=(each,)) for each in recognizers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return sum(rates)
