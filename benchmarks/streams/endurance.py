"""Many sources for a long time, two of which fail in turn: what is kept, and what grows."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cmlr_edge import Event, Recognizer, Result, Streams, open_source
from cmlr_edge.capture.live import SourceState
from cmlr_edge.pipeline.status import SourceStatus

_NUM_FAILING = 2
_FAULT_EVERY_S = 30.0  # one of the two fails, then the other
_FAULT_LASTS_S = 8.0  # beyond the hang watchdog's 5 s
_OUTAGE_S = 4.0  # a gap beyond; slower sources and busy machines leave shorter ones
_LIMITS = {"kept": 0.95, "memory_growth": 0.02, "recovery_s": 2.0}


@dataclass
class Noted:
    """What one source delivered; a sink of frames and of events."""

    takes: ClassVar[str] = "both"

    ok_frames: int = 0
    last_s: float | None = None
    gaps_s: list[float] = field(default_factory=list)  # the outages
    kinds: Counter[str] = field(default_factory=Counter)
    open_events: set[str] = field(default_factory=set)
    misplaced_events: int = 0  # a second start, or an update or end of what is not open

    def write(self, result: Result) -> None:
        """Count a frame and its events; see `Sink`."""
        for event in result.events:
            self._count(event)
        if result.ending:
            return
        frame = result.frame
        self.ok_frames += result.prediction.valid
        assert frame.time_s is not None
        if self.last_s is not None and frame.time_s - self.last_s > _OUTAGE_S:
            self.gaps_s.append(frame.time_s - self.last_s)
        self.last_s = frame.time_s

    def _count(self, event: Event) -> None:
        """Count an event, and hold it against those before it."""
        self.kinds[event.kind] += 1
        self.misplaced_events += (event.id in self.open_events) == (event.kind == "start")
        if event.kind == "end":
            self.open_events.discard(event.id)
        else:
            self.open_events.add(event.id)

    def close(self) -> None:
        """Nothing to finish."""


@dataclass(frozen=True)
class Footprint:
    """What the process holds."""

    resident_kb: int
    threads: int  # the kernel's count: those of the runtimes are among them
    files: int


def measure_footprint() -> Footprint:
    """Ask the kernel about this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    resident_kb = pages * os.sysconf("SC_PAGE_SIZE") // 1024
    threads = len(list(Path("/proc/self/task").iterdir()))
    files = len(list(Path("/proc/self/fd").iterdir()))
    return Footprint(resident_kb, threads, files)


def endure(
    recognizer: Recognizer, *, sources: int, fps: float, duration_s: float, size: str
) -> dict[str, Any]:
    """Run, and report in a JSON-ready object; `passed` says whether all limits held."""
    frame = np.zeros((240, 320, 3), np.uint8)
    recognizer(frame)  # runtimes start threads when first used, and more for batches
    recognizer.recognize_batch([frame] * 2)
    before = measure_footprint()
    noted = [Noted() for _ in range(sources)]
    streams = Streams(recognizer)
    for index, sink in enumerate(noted):
        uri = _uri(index, fps, duration_s, size)
        streams.add(open_source(uri), name=str(index), sinks=[sink])
    streams.start()
    samples = _watch(streams, duration_s)
    streams.request_end()
    statuses = streams.status()
    streams.close()
    after = _settled(before)
    reports = [
        {"fails": index < _NUM_FAILING, **_account(sink, status, fps * duration_s)}
        for index, (sink, status) in enumerate(zip(noted, statuses, strict=True))
    ]
    report = {
        "sources": reports,
        "memory": _memory(samples),
        "before": asdict(before),
        "after": asdict(after),
        "limits": _LIMITS,
    }
    return report | {"passed": _passed(report)}


def _account(sink: Noted, status: SourceStatus, due: float) -> dict[str, Any]:
    """What became of the frames of one source."""
    return {
        "due": round(due),
        "ok_frames": sink.ok_frames,
        "kept": sink.ok_frames / due,
        "longest_gap_s": max(sink.gaps_s, default=0.0),
        "recovery_s": max((gap - _FAULT_LASTS_S for gap in sink.gaps_s), default=None),
        "outages": len(sink.gaps_s),
        "events": {kind: sink.kinds[kind] for kind in ("start", "update", "end")},
        "events_lost_or_doubled": len(sink.open_events) + sink.misplaced_events,
        "capture": asdict(status.capture) if status.capture else None,
        "latency_ms": status.latency_ms,
        "failed": status.state is SourceState.FAILED,
    }


def _uri(index: int, fps: float, duration_s: float, size: str) -> str:
    """A pattern; the first two lose the connection, or hang, in turn."""
    uri = f"test://?fps={fps:g}&size={size}"
    if index >= _NUM_FAILING:
        return uri
    # Frames number what was drawn: during an outage none is, so the numbers lag behind the clock.
    shown_s = (index + 1) * _FAULT_EVERY_S
    faults: list[str] = []
    passed_s = shown_s
    while passed_s + 2 * _FAULT_LASTS_S < duration_s:
        fault = "none" if len(faults) % 2 == 0 else "hang"
        faults.append(f"&{fault}={round(shown_s * fps)}:{_FAULT_LASTS_S:g}")
        passed_s += _NUM_FAILING * _FAULT_EVERY_S
        shown_s += _NUM_FAILING * _FAULT_EVERY_S - _FAULT_LASTS_S
    return uri + "".join(faults)


def _watch(streams: Streams, duration_s: float) -> list[int]:
    """Wait, and return the resident memory again and again, in KB."""
    samples, end_s = [], time.monotonic() + duration_s
    while (left_s := end_s - time.monotonic()) > 0:
        streams.wait(min(1.0, duration_s / 20, left_s))
        samples.append(measure_footprint().resident_kb)
    return samples


def _settled(before: Footprint) -> Footprint:
    """Give threads that were left in a hanging read the time that their fault lasts."""
    end_s = time.monotonic() + 2 * _FAULT_LASTS_S
    while time.monotonic() < end_s:
        now = measure_footprint()
        if (now.threads, now.files) == (before.threads, before.files):
            break
        time.sleep(0.2)
    return measure_footprint()


def _memory(samples: Sequence[int]) -> dict[str, Any]:
    """Compare the last tenth of the run with the second tenth: the first one warms up."""
    tenths = [float(np.median(part)) for part in np.array_split(samples, 10)]
    start, end = tenths[1], tenths[-1]
    return {
        "medians_of_tenths_kb": tenths,
        "growth": end / start - 1,
        "highest_kb": float(max(samples)),
    }


def _passed(report: dict[str, Any]) -> bool:
    good = [source for source in report["sources"] if not source["fails"]]
    bad = [source for source in report["sources"] if source["fails"]]
    before, after = report["before"], report["after"]
    return (
        all(source["kept"] >= _LIMITS["kept"] for source in good)
        and all(source["outages"] > 0 for source in bad)
        and all(source["recovery_s"] <= _LIMITS["recovery_s"] for source in bad)
        and not any(source["failed"] for source in report["sources"])
        and all(source["events"]["start"] > 0 for source in good + bad)
        and not any(source["events_lost_or_doubled"] for source in good + bad)
        and report["memory"]["growth"] < _LIMITS["memory_growth"]
        and all(before[what] == after[what] for what in ("threads", "files"))
    )
