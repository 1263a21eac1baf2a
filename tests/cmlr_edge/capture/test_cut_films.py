"""Films that are cut off: told whatever their kind, and no half picture passes for a whole one; whole films are not told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cmlr_edge import open_source
from cmlr_edge.capture import video
from cmlr_edge.capture.endings import is_cut
from cmlr_edge.frame import Frame
from tests.cmlr_edge.capture.films import packets, write_film
from tests.cmlr_edge.cli.command import run

FASTSTART, FRAGMENTS = {"movflags": "faststart"}, {"movflags": "frag_keyframe+empty_moov"}
JPEG: dict[str, Any] = {"codec": "mjpeg", "pix_fmt": "yuvj420p"}
X265: dict[str, Any] = {"codec": "libx265", "options": {"x265-params": "log-level=none"}}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "H.264 in MP4": ("a.mp4", {"container_options": FASTSTART}),
    "in fragments": ("a.mp4", {"container_options": FRAGMENTS, "options": {"g": "10"}}),
    "JPEG in MP4": ("a.mp4", {**JPEG, "container_options": FASTSTART}),
    "H.264 in Matroska": ("a.mkv", {}),
    "HEVC in Matroska": ("a.mkv", X265),
    "VP8 in WebM": ("a.webm", {"codec": "libvpx"}),
    "VP8 in Ogg": ("a.ogv", {"codec": "libvpx"}),
    "VP8 in IVF": ("a.ivf", {"codec": "libvpx"}),
    "MPEG-4 in AVI": ("a.avi", {"codec": "mpeg4"}),
    "JPEG in AVI": ("a.avi", JPEG),
    "with sound in AVI": ("a.avi", {"codec": "mpeg4", "audio_s": 3.0}),
    "H.264 in FLV": ("a.flv", {}),
    "Sorenson in FLV": ("a.flv", {"codec": "flv"}),
    "H.264 in MPEG-TS": ("a.ts", {}),
    "HEVC in MPEG-TS": ("a.ts", X265),
    "with sound in MPEG-TS": ("a.ts", {"audio_s": 3.0}),
    "MPEG-2 in MPEG-PS": ("a.mpg", {"codec": "mpeg2video", "fps": 25}),
    "WMV": ("a.wmv", {"codec": "wmv2"}),
    "ASF": ("a.asf", {"codec": "wmv2"}),
    "GIF": ("a.gif", {"codec": "gif", "pix_fmt": "rgb8"}),
    "APNG": ("a.apng", {"codec": "apng", "pix_fmt": "rgb24"}),
    "bare JPEGs": ("a.mjpeg", JPEG),
}
# Sizes of the file say nothing there, and OpenCV keeps to itself what FFmpeg says of packets.
UNTOLD_BY_OPENCV = {"H.264 in FLV", "Sorenson in FLV", "VP8 in IVF", "APNG", "bare JPEGs"}


def moving(count: int = 30) -> list[NDArray[np.uint8]]:
    """Pictures that never repeat, in any part of theirs."""
    rng = np.random.default_rng(0)
    block = np.kron(rng.integers(0, 256, (12, 16, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    return [np.roll(block, (5 * i, 7 * i), (0, 1)) for i in range(count)]


def film(folder: Path, kind: str) -> Path:
    name, how = KINDS[kind]
    if str(how.get("codec", "libx264")) not in av.codecs_available:
        pytest.skip(f"PyAV CANNOT MAKE {kind} here, so it is not tested")
    return write_film(folder / name, moving(), **how)


def read_to_end(path: Path) -> tuple[list[Frame], int]:
    with open_source(path) as source:
        frames = [*source]
        return frames, source.damaged  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS)
def test_a_film_that_is_cut_off_is_told_and_shows_no_half_picture_as_whole(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = film(tmp_path, kind)
    whole, damaged = read_to_end(path)
    assert (len(whole), damaged, caplog.text) == (30, 0, "")
    content, expected = path.read_bytes(), [frame.image_bgr.astype(int) for frame in whole]
    assert not is_cut(path)
    for share in (0.55, 0.89, 0.96):
        size = int(len(content) * share)
        path.write_bytes(content[: size + (size % 188 == 0)])  # between packets nobody can tell
        caplog.clear()
        frames, damaged = read_to_end(path)
        assert damaged
        assert "damaged" in caplog.text or "cut short" in caplog.text
        assert 0 < len(frames) <= 30
        for frame in frames:
            assert frame.status in {"ok", "damaged"}
            far = np.abs(frame.image_bgr - expected[frame.index]).mean()
            assert far < 1 or frame.status == "damaged"
        assert sum(frame.status == "damaged" for frame in frames) <= 1


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in UNTOLD_BY_OPENCV])
def test_opencv_tells_likewise_what_the_file_tells(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(tmp_path, kind)
    monkeypatch.setattr(video, "pyav", lambda: None)
    assert read_to_end(path)[1] == 0
    content = path.read_bytes()
    size = int(len(content) * 0.89)
    path.write_bytes(content[: size + (size % 188 == 0)])
    frames, damaged = read_to_end(path)
    assert damaged
    assert frames[-1].status == "damaged"


WHOLE: dict[str, tuple[str, dict[str, Any]]] = {
    "Matroska": ("a.mkv", {"audio_s": 3.0}),
    "WebM": ("a.webm", {"codec": "libvpx"}),
    "AVI": ("a.avi", {"codec": "mpeg4", "audio_s": 3.0}),
    "FLV": ("a.flv", {}),
    "ASF": ("a.asf", {"codec": "wmv2"}),
    "Ogg": ("a.ogv", {"codec": "libvpx"}),
    "MP4 in fragments": ("a.mp4", {"container_options": FRAGMENTS}),
}


class Pipe:
    """What cannot be gone back in, as where a recorder writes to another program."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, data: bytes) -> int:
        return self._file.write(data)

    def close(self) -> None:
        self._file.close()


@pytest.mark.parametrize("kind", WHOLE)
def test_a_whole_film_that_was_written_to_a_pipe_is_not_called_cut(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, how = WHOLE[kind]
    path, pipe = tmp_path / name, Pipe(tmp_path / name)
    opened: Any = av.open
    suffix = {"mkv": "matroska", "ogv": "ogg"}.get(path.suffix[1:], path.suffix[1:])

    def open_pipe(_path: str, mode: str, **more: Any) -> Any:
        return opened(pipe, mode, format=suffix, **more)

    with monkeypatch.context() as patch:
        patch.setattr(av, "open", open_pipe)
        write_film(path, moving(), **how)
    pipe.close()
    frames, damaged = read_to_end(path)
    assert (len(frames), damaged, caplog.text) == (30, 0, "")
    assert all(frame.status == "ok" for frame in frames)


@pytest.mark.parametrize("more", [bytes(99), b"appended by somebody\n", b"\xff\x80\x90\xa0" * 20])
@pytest.mark.parametrize("kind", ["H.264 in MP4", "H.264 in Matroska", "MPEG-4 in AVI", "GIF"])
def test_what_is_appended_to_a_whole_film_does_not_make_it_cut(
    tmp_path: Path, kind: str, more: bytes
) -> None:
    path = film(tmp_path, kind)
    with path.open("ab") as file:
        file.write(more)
    assert not is_cut(path)
    frames, damaged = read_to_end(path)
    assert (len(frames), damaged) == (30, 0)


def test_an_avi_of_several_parts_and_one_larger_than_its_numbers_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    for parts in ([100, 300], [100, 2**32 - 1], [0]):
        content = [b"RIFF" + size.to_bytes(4, "little") + bytes(min(size, 300)) for size in parts]
        path.write_bytes(b"".join(content))
        assert not is_cut(path), parts
    path.write_bytes(b"".join(content) + b"RIFF" + (99).to_bytes(4, "little"))
    assert not is_cut(path)  # behind a part without size nothing is known
    path.write_bytes(b"RIFF" + (100).to_bytes(4, "little") + bytes(99))
    assert is_cut(path)


def test_sizes_that_never_end_or_lead_nowhere_take_no_time(tmp_path: Path) -> None:
    path = tmp_path / "a"
    rng = np.random.default_rng(3)
    heads = [
        b"\0\0\0\x08free",
        b"\x1a\x45\xdf\xa3\x80",
        b"GIF89a" + b"\x80" * 7,
        b"OggS" + bytes(23),
    ]
    for head in (*heads, b"\0\0\1\xba", b"\x47"):
        for more in (b"", head * 9999, rng.bytes(40_000), b"\0\0\0\1free" + b"\xff" * 8):
            path.write_bytes(head + more)
            is_cut(path)


def test_one_jpeg_that_lacks_its_end_is_damaged_and_the_film_goes_on(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.avi", moving(), **JPEG)
    content, (at, size) = bytearray(path.read_bytes()), packets(path)[9]
    content[at + size // 2 : at + size] = bytes(size - size // 2)
    path.write_bytes(content)
    frames, damaged = read_to_end(path)
    assert (len(frames), damaged) == (30, 1)
    assert [frame.index for frame in frames if frame.status == "damaged"] == [9]


@pytest.mark.parametrize("cut", [0, 30])
def test_what_a_camera_sent_is_whole_but_for_what_is_cut_off(tmp_path: Path, cut: int) -> None:
    head = b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    encoded = [cv2.imencode(".jpg", picture)[1].tobytes() for picture in moving(5)]
    content = b"".join(head % len(jpeg) + jpeg + b"\r\n" for jpeg in encoded)
    path = tmp_path / "a.mjpeg"
    path.write_bytes(content[: len(content) - cut])
    frames, damaged = read_to_end(path)
    assert (len(frames), damaged > 0) == (5, cut > 0)
    assert [frame.status for frame in frames[:4]] == ["ok"] * 4
    assert (frames[4].status == "damaged") == (cut > 0)


@pytest.mark.slow
def test_label_ends_with_1_where_a_film_is_cut_off(tmp_path: Path, engine: Path) -> None:
    path = write_film(tmp_path / "a.mkv", moving())
    path.write_bytes(path.read_bytes()[:-20])
    done = run("label", path, "--engine", engine, "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["damaged_packets"], report["state"]) == (1, 1, "ended")
    assert "may be cut short" in done.stderr
