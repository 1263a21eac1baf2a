"""What clips cost: eight films that play at their own pace, with and without them, in turn.

python -m benchmarks.streams.clips --out benchmarks/results/streams/clips.json
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.streams.stand_in import write_stand_in
from cmlr_edge.capture import open_source
from cmlr_edge.machine.facts import describe_machine
from cmlr_edge.machine.pyav import pyav
from cmlr_edge.model.files import write_atomically
from cmlr_edge.packet_ring import PacketRing
from cmlr_edge.session import Session, SessionConfig
from cmlr_edge.session.config import EngineSettings, SourceSettings
from cmlr_edge.sinks.clips import remux
from cmlr_edge.sinks.opening import SinkSettings

_SOURCES, _FPS, _SIZE_HW = 8, 15, (720, 1280)
_PERIOD_S, _EVENT_S, _GOP_S = 10, 3, 2
_BITRATE = 2_000_000


def write_film(path: Path) -> None:
    """H.264 with noise, as a camera's, which turns red for a few seconds."""
    av: Any = pyav()
    rng = np.random.default_rng(7)
    ground = rng.integers(0, 20, (*_SIZE_HW, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=_FPS, options={"preset": "veryfast"})
        stream.height, stream.width = _SIZE_HW
        stream.pix_fmt, stream.bit_rate = "yuv420p", _BITRATE
        stream.codec_context.gop_size = _GOP_S * _FPS
        for number in range(_PERIOD_S * _FPS):
            picture = np.roll(ground, 8 * number, axis=1)
            if number >= (_PERIOD_S - _EVENT_S) * _FPS:
                picture[..., 2] += 200
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def parts(film: Path, rounds: int = 20) -> dict[str, float]:
    """What is done for clips, alone and in one thread: CPU time, which other work does not change."""
    with open_source(film, keep_packets_s=60.0) as source:
        ring = [*source][-1].ring
    assert ring is not None
    packets = ring.finish(ring.excerpt(0.0, 60.0))
    ring = PacketRing(ring.codec, ring.template, 5.0)
    began_s = time.thread_time()
    for number in range(rounds):
        for item in packets:
            ring.add(item.packet, item.time_s + number * _PERIOD_S, is_key=item.is_key)
    kept_s = time.thread_time() - began_s
    began_s = time.thread_time()
    for _ in range(rounds):
        content = remux(ring, packets, 0.5, 60.0)
    made_s = time.thread_time() - began_s
    return {
        "us_to_keep_a_packet": round(kept_s / rounds / len(packets) * 1e6, 2),
        "ms_to_make_a_clip": round(made_s / rounds * 1e3, 2),
        "clip_s": len(packets) / _FPS - 0.5,
        "clip_mb": round(len(content) / 1e6, 2),
    }


def run_once(folder: Path, seconds: float, *, clips: bool) -> dict[str, Any]:
    """Run in this process; return what it cost."""
    out = Path(tempfile.mkdtemp(dir=folder))
    sources = tuple(
        SourceSettings(str(folder / "film.mp4"), f"camera {i}", policy="newest", loop=True)
        for i in range(_SOURCES)
    )
    sinks = [SinkSettings("events", path=str(out / "events.jsonl"))]
    sinks += [SinkSettings("clips", path=str(out / "clips"))] if clips else []
    config = SessionConfig(
        EngineSettings(path=str(folder / "model.onnx")), sources, tuple(sinks), threshold=0.4
    )
    with Session(config) as session:
        session.streams.start()
        session.streams.wait(5)
        frames = sum(status.frames for status in session.status())
        before, began_s = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        session.streams.wait(seconds)
        after, took_s = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - began_s
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        frames = sum(status.frames for status in session.status()) - frames
    written = [path.stat().st_size for path in out.glob("clips/*/*.mp4")]
    return {
        "cores": round(cpu_s / took_s, 4),
        "frames": frames,
        "cpu_ms_per_frame": round(cpu_s / frames * 1e3, 3),
        "peak_mb": round(after.ru_maxrss / 1024, 1),
        "clips": len(written),
        "clip_mb": round(sum(written) / 1e6, 1),
    }


def main(
    seconds: Annotated[float, typer.Option(help="Of each run.")] = 40.0,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    out: Annotated[Path | None, typer.Option(help="JSON.")] = None,
    child: Annotated[str, typer.Option(hidden=True)] = "",
    folder: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure in processes of their own; every source has an event every ten seconds."""
    if folder is not None:
        print(json.dumps(run_once(folder, seconds, clips=child == "with clips")))  # noqa: T201
        return
    with tempfile.TemporaryDirectory() as made:
        write_stand_in(Path(made))
        write_film(Path(made) / "film.mp4")
        alone = parts(Path(made) / "film.mp4")
        runs: dict[str, list[Any]] = {"without": [], "with clips": []}
        command = [sys.executable, "-m", "benchmarks.streams.clips", "--seconds", str(seconds)]
        for _ in range(rounds):
            for name, found in runs.items():
                more = ["--child", name, "--folder", made]
                told = subprocess.run([*command, *more], check=True, stdout=subprocess.PIPE).stdout
                found.append(json.loads(told.splitlines()[-1]))
    record = {
        "machine": describe_machine(),
        "load_at_end": os.getloadavg()[0],
        "sources": _SOURCES,
        "film": f"{_SIZE_HW[1]}x{_SIZE_HW[0]}, {_FPS} frames/s, {_BITRATE / 1e6:g} Mbit/s, H.264",
        "seconds": seconds,
        "parts": alone,
        "runs": runs,
    }
    text = json.dumps(record, indent=2)
    if out is not None:
        write_atomically(out, f"{text}\n".encode())
    print(text)  # noqa: T201


if __name__ == "__main__":
    typer.run(main)
