"""Films with a hole in them: what demuxers pass over is told; whole films of any make are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from cmlr_edge import open_source
from cmlr_edge.capture import video
from cmlr_edge.capture.ffmpeg import PyAvFilm
from cmlr_edge.capture.structure import Structure
from cmlr_edge.errors import CaptureError
from tests.cmlr_edge.capture.films import packets, write_film

PICTURES, GROUP = 60, 6
_made: dict[str, bytes] = {}  # films, by kind
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "H.264 in Matroska": ("a.mkv", {"audio_s": 6.0}),
    "VP8 in WebM": ("a.webm", {"codec": "libvpx"}),
    "MPEG-4 in AVI": ("a.avi", {"codec": "mpeg4"}),
    "H.264 in FLV": ("a.flv", {"audio_s": 6.0}),
    "H.264 in MPEG-TS": ("a.ts", {"audio_s": 6.0}),
    "H.264 in M2TS": ("a.m2ts", {}),
    "MPEG-4 in ASF": ("a.asf", {"codec": "msmpeg4"}),
    "VP8 in Ogg": ("a.ogv", {"codec": "libvpx"}),
    "H.264 in MP4": ("a.mp4", {}),
    "H.264 in fragments": ("a.mp4", {"container_options": FRAGMENTS}),
}


def film(folder: Path, kind: str) -> Path:
    name, how = KINDS[kind]
    if str(how.get("codec", "libx264")) not in av.codecs_available:
        pytest.skip(f"PyAV CANNOT MAKE {kind} here, so it is not tested")
    if kind not in _made:
        fast = {"cpu-used": "8", "deadline": "realtime"} if how.get("codec") == "libvpx" else {}
        how = {"options": {"g": str(GROUP), **fast}, **how}
        _made[kind] = write_film(folder / name, moving(), **how).read_bytes()
    (folder / name).write_bytes(_made[kind])
    return folder / name


def moving() -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    block = np.kron(rng.integers(0, 256, (12, 16, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    return [np.roll(block, (5 * i, 7 * i), (0, 1)) for i in range(PICTURES)]


def read(path: Path) -> tuple[list[str], int]:
    """The status of every frame, and how much is damaged; of a film that is refused: nothing, and 1."""
    try:
        opened = open_source(path)
    except CaptureError:
        return [], 1
    with opened as source:
        return [frame.status for frame in source], source.damaged  # type: ignore[attr-defined]


def erased(content: bytearray, at: int, size: int) -> None:
    content[at : at + size] = bytes(size)


def overwritten(content: bytearray, at: int, size: int) -> None:
    content[at : at + size] = np.random.default_rng(5).bytes(size)


def removed(content: bytearray, at: int, size: int) -> None:
    del content[at : at + size]


def doubled(content: bytearray, at: int, size: int) -> None:
    content[at:at] = content[at : at + size]


@pytest.mark.parametrize("harm", [erased, overwritten, removed, doubled])
@pytest.mark.parametrize("kind", KINDS)
def test_a_hole_is_told_wherever_it_is(
    tmp_path: Path,
    kind: str,
    harm: Callable[[bytearray, int, int], None],
) -> None:
    path = film(tmp_path, kind)
    assert read(path) == (["ok"] * PICTURES, 0)
    content, places = path.read_bytes(), [at for at, _ in packets(path)]
    size = min(len(content) // 10, 5000)
    for share in (0.4, 0.9):
        harmed, at = bytearray(content), places[int(PICTURES * share)] - 20
        harm(harmed, at, size + 3)
        path.write_bytes(harmed)
        assert read(path)[1] > 0


@pytest.mark.parametrize("kind", ["H.264 in Matroska", "VP8 in WebM", "H.264 in FLV"])
def test_what_builds_upon_pictures_in_a_hole_is_not_whole(tmp_path: Path, kind: str) -> None:
    path = film(tmp_path, kind)
    content, places = bytearray(path.read_bytes()), packets(path)
    at, size = places[3 * GROUP + 1]
    erased(content, at - 20, size // 2 + 20)
    path.write_bytes(content)
    states, damaged = read(path)
    assert damaged > 0
    assert states[: 2 * GROUP] == ["ok"] * 2 * GROUP
    assert states[-GROUP:] == ["ok"] * GROUP


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "Ogg" not in kind])
def test_opencv_tells_a_hole_at_the_end(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(tmp_path, kind)
    monkeypatch.setattr(video, "pyav", lambda: None)
    states, damaged = read(path)
    assert (len(states), damaged) == (PICTURES, 0)
    content, at = bytearray(path.read_bytes()), packets(path)[PICTURES // 2][0]
    erased(content, at - 20, 3000)
    path.write_bytes(content)
    assert read(path)[1] > 0


@pytest.mark.parametrize("lost", [1, 5])
@pytest.mark.parametrize("name", ["a.mkv", "a.webm"])
def test_a_block_of_a_track_that_there_is_not_is_told(tmp_path: Path, name: str, lost: int) -> None:
    path = film(tmp_path, "VP8 in WebM" if name == "a.webm" else "H.264 in Matroska")
    content, (at, _) = bytearray(path.read_bytes()), packets(path)[-lost]
    content[at] = 0x85
    path.write_bytes(content)
    states, damaged = read(path)
    assert len(states) < PICTURES
    assert damaged == 1


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("lost", [1, 2, 5])
def test_pictures_that_a_decoder_drops_at_the_end_are_told(
    tmp_path: Path, lost: int, threads: int
) -> None:
    path = film(tmp_path, "H.264 in MP4")
    content, (at, size) = bytearray(path.read_bytes()), packets(path)[-lost]
    content[at : at + size] = b"\xff" * size
    path.write_bytes(content)
    opened = PyAvFilm(av, path)
    opened._stream.codec_context.thread_count = threads
    count = 0
    while opened.read() is not None:
        count += 1
    assert count >= PICTURES - 10
    assert count == PICTURES or opened.damaged
    opened.close()


JOINED = ["H.264 in MPEG-TS", "H.264 in M2TS"]


@pytest.mark.parametrize("kind", JOINED)
def test_recordings_that_are_joined_or_begin_anywhere_have_no_hole(
    tmp_path: Path, kind: str
) -> None:
    path = film(tmp_path, kind)
    content = path.read_bytes()
    path.write_bytes(content + content)
    assert read(path) == (["ok"] * 2 * PICTURES, 0)
    path.write_bytes(content[len(content) // 3 + 5 :])
    states, damaged = read(path)
    assert damaged == 0
    assert len(states) > PICTURES // 2


def test_a_lost_packet_of_a_transport_stream_is_told(tmp_path: Path) -> None:
    path = film(tmp_path, "H.264 in MPEG-TS")
    content = path.read_bytes()
    at = packets(path)[3 * GROUP + 2][0]
    assert content[at] == 0x47
    path.write_bytes(content[: at + 188] + content[at + 2 * 188 :])
    states, damaged = read(path)
    assert damaged > 0
    assert states[-GROUP:] == ["ok"] * GROUP


def test_a_screen_that_is_recorded_where_it_changes_has_no_hole(tmp_path: Path) -> None:
    times = np.cumsum(np.random.default_rng(2).integers(1, 60, PICTURES)) / 10
    for name, codec in {"a.mkv": "libx264", "a.ts": "libx264", "a.flv": "flv"}.items():
        path = write_film(tmp_path / name, moving(), codec=codec, times_s=times.tolist())
        assert read(path) == (["ok"] * PICTURES, 0)


def test_what_leads_nowhere_takes_no_time(tmp_path: Path) -> None:
    path, rng = tmp_path / "a", np.random.default_rng(3)
    heads = [
        b"\0\0\0\x08ftyp",
        b"RIFF\0\0\0\0AVI ",
        b"\x1a\x45\xdf\xa3\x80",
        b"FLV\x01\x05\0\0\0\x09\0\0\0\0",
        b"OggS" + bytes(23),
        bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),
        b"\x47" + bytes(187),
    ]
    for head in heads:
        for more in (b"", head * 500, rng.bytes(40_000), b"\xff" * 5000):
            path.write_bytes(head + more)
            structure = Structure(path)
            for place in (0, 7, 5, 3000, 2**40):
                structure.leads_to(place)
            structure.leads_to(None)
            structure.jump()
            structure.leads_to(2**50)
            structure.ends()
            structure.close()
