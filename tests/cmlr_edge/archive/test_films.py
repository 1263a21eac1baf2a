"""Films that are cut at keyframes give the rows and events of one process that reads them whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cmlr_edge import IntakeSettings, Recognizer, Streams, open_source
from cmlr_edge.archive.plan import Cutting
from tests.cmlr_edge.archive.archives import events_of, label_here, read, rows_of
from tests.cmlr_edge.capture.films import write_film
from tests.conftest import Image

_FRAMES = 60


@pytest.fixture
def recognizer(engine: Path) -> Iterator[Recognizer]:
    with Recognizer.from_engine(engine) as opened:
        yield opened


def changing(count: int = _FRAMES) -> list[Image]:
    """Pictures whose colours come and go, none like another."""
    steps = np.arange(count)[:, None] / 9 + np.array([0, 2, 4])
    colors = (127 + 120 * np.sin(steps)).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 8, (count, 48, 64, 3), np.uint8)
    return [
        np.clip(color + part, 0, 255).astype(np.uint8)
        for color, part in zip(colors, noise, strict=True)
    ]


def h264(path: Path, keyint: int = 8, more: str = "") -> Path:
    options = {"x264-params": f"keyint={keyint}:min-keyint=2:scenecut=0{more}"}
    return write_film(path, changing(), options=options)


def joined(path: Path) -> Path:
    """Two recordings, appended one to the other: times start again in the middle."""
    parts = [h264(path.with_name(f"{name}.ts")) for name in "ab"]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()
    return path


def damaged(path: Path) -> Path:
    content = bytearray(h264(path).read_bytes())
    for place in range(len(content) // 3, len(content) // 3 + 400):
        content[place] ^= 0x5A
    path.write_bytes(content)
    return path


def late(path: Path) -> Path:
    """A variable rate, and times that begin late."""
    times = np.cumsum(np.random.default_rng(1).uniform(0.02, 0.3, _FRAMES)) + 7
    options = {"x264-params": "keyint=8:scenecut=0"}
    return write_film(path, changing(), times_s=times.tolist(), options=options)


FILMS: dict[str, Callable[[Path], Path]] = {
    "closed.mp4": h264,
    "open.mp4": lambda path: h264(path, more=":open-gop=1:bframes=3:b-pyramid=2"),
    "open.mkv": lambda path: h264(path, more=":open-gop=1:bframes=3"),
    "intra.ts": lambda path: h264(path, more=":intra-refresh=1:bframes=0"),
    "stream.ts": h264,
    "one_key.mp4": lambda path: h264(path, keyint=1000),
    "every_key.mp4": lambda path: h264(path, keyint=1),
    "joined.ts": joined,
    "damaged.ts": damaged,
    "damaged.mkv": damaged,
    "late.mkv": late,
    "raw.h264": h264,
    "mjpeg.avi": lambda path: write_film(path, changing(), codec="mjpeg", pix_fmt="yuvj420p"),
    "mpeg4.avi": lambda path: write_film(path, changing(), codec="mpeg4"),
    "vp9.webm": lambda path: write_film(path, changing(), codec="libvpx-vp9", options={"g": "8"}),
    "mpeg2.mpg": lambda path: write_film(
        path, changing(), codec="mpeg2video", fps=25, options={"g": "8", "bf": "2"}
    ),
}


@pytest.mark.parametrize(
    ("name", "parts"), [*((name, 5) for name in FILMS), ("damaged.ts", 1), ("mpeg4.avi", 1)]
)
def test_rows_and_events_are_those_of_the_whole_film(
    recognizer: Recognizer, tmp_path: Path, name: str, parts: int
) -> None:
    film, out = FILMS[name](tmp_path / name), tmp_path / "labels"
    expected = [*recognizer.stream(film)]
    cutting = Cutting(part_mb=film.stat().st_size / parts / 2**20)
    units = label_here(recognizer, [film], out, cutting)
    assert len(units) == parts
    complained = {row["error_kind"] for row in rows_of(out) if row["error"] is not None}
    assert complained <= ({"damaged"} if "damaged" in name else set())
    rows = [row for row in rows_of(out) if row["error"] is None]
    assert [row["frame"] for row in rows] == [r.frame.index for r in expected]
    assert [row["time_s"] for row in rows] == [r.frame.time_s for r in expected]
    assert [row["status"] for row in rows] == [r.frame.status for r in expected]
    assert [row["labels"] for row in rows] == [
        [item.label for item in r.prediction.labels] for r in expected
    ]
    scores = np.array([row["scores"] for row in rows])
    np.testing.assert_array_equal(scores, [r.prediction.scores for r in expected])
    told = [
        (e.kind, e.label, e.time_s, e.start_s, e.end_s, e.score, e.max_score)
        for r in expected
        for e in r.events
    ]
    names = ("kind", "label", "time_s", "start_s", "end_s", "score", "max_score")
    events = [tuple(row[key] for key in names) for row in events_of(out)]
    open_ended = [event for event in events if event not in told]
    assert events[: len(told)] == told
    assert {event[0] for event in open_ended} <= {"end"}  # which a stream leaves to its outputs
    assert len({row["id"] for row in events_of(out)}) == len([e for e in events if e[0] == "start"])
    assert list(out.glob("_parts/*")) == []


@pytest.mark.parametrize(
    ("name", "files"),
    [("closed.mp4", 5), ("open.mkv", 5), ("stream.ts", 5), ("joined.ts", 1), ("mpeg2.mpg", 1)],
)
def test_a_film_is_shared_where_its_times_let_it(
    recognizer: Recognizer, tmp_path: Path, name: str, files: int
) -> None:
    film, out = FILMS[name](tmp_path / name), tmp_path / "out"
    label_here(recognizer, [film], out, Cutting(part_mb=film.stat().st_size / 5 / 2**20))
    counts = [len(read(path)) for path in out.glob("rows/kind=frame/*")]
    assert len(counts) == files
    assert max(counts) <= 24 or files == 1


@pytest.mark.parametrize(
    ("name", "parts", "max_fps"),
    [("closed.mp4", 5, 3.0), ("stream.ts", 5, 1.0), ("late.mkv", 5, 3.0), ("joined.ts", 1, 3.0)],
)
def test_fewer_frames_are_those_that_label_takes(
    recognizer: Recognizer, tmp_path: Path, name: str, parts: int, max_fps: float
) -> None:
    film, out = FILMS[name](tmp_path / name), tmp_path / "out"
    with Streams(recognizer) as streams:
        streams.add(open_source(film), intake=IntakeSettings(max_fps=max_fps))
        expected = [*streams.results()]
    cutting = Cutting(part_mb=film.stat().st_size / parts / 2**20)
    label_here(recognizer, [film], out, cutting, max_fps)
    rows = [row for row in rows_of(out) if row["error"] is None]
    assert [(row["frame"], row["time_s"]) for row in rows] == [
        (result.frame.index, result.frame.time_s) for result in expected
    ]
    assert len(rows) < _FRAMES
    if name in {"closed.mp4", "stream.ts"}:  # at a steady pace it is shared all the same
        assert len([*out.glob("rows/kind=frame/*")]) == parts
