"""Pictures of H.264 that never came are noticed by their numbers, and nothing else is."""

from __future__ import annotations

import time
from pathlib import Path

import av
import numpy as np
import pytest

from cmlr_edge.capture.frame_numbers import FrameNumbers
from cmlr_edge.capture.units import read_units
from tests.cmlr_edge.capture.films import write_film

STREAMS = {
    "cameras": {"bf": "0", "g": "12"},
    "B-pictures": {"bf": "3", "g": "12", "x264-params": "b-pyramid=normal"},
    "renewed in parts": {"bf": "0", "x264-params": "intra-refresh=1:keyint=12"},
    "slices": {"bf": "0", "g": "50", "x264-params": "slices=4"},
    "open groups": {"bf": "2", "x264-params": "open-gop=1:keyint=6:min-keyint=3"},
    "a matrix of its own": {"g": "12", "x264-params": "cqm=jvt"},
    "turns of 18": {"bf": "0", "g": "18", "sc_threshold": "0", "refs": "1"},
    "lossless, all colours": {"g": "12", "qp": "0"},
}


def stream(folder: Path, kind: str, *, interlaced: bool = False, count: int = 30) -> list[bytes]:
    """The packets of pictures of noise that moves."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    pictures = [np.roll(noise, number, axis=1) for number in range(count)]
    film = folder / "film.h264"
    pix_fmt = "yuv444p" if kind.startswith("lossless") else "yuv420p"
    write_film(film, pictures, options=STREAMS[kind], pix_fmt=pix_fmt, interlaced=interlaced)
    with av.open(str(film)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def heads(packet: bytes) -> tuple[bytes, ...]:
    return read_units("h264", packet).heads


def is_leaned_on(packet: bytes) -> bool:
    """Whether others build upon a picture, and it is no key picture."""
    units = [part for part in packet.split(b"\0\0\1") if part]
    return any(unit[0] & 31 == 1 and unit[0] & 0x60 for unit in units)


def begins_anew(packet: bytes) -> bool:
    return any(part[:1] and part[0] & 31 == 5 for part in packet.split(b"\0\0\1"))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("kind", STREAMS)
def test_each_picture_that_others_build_upon_is_missed_and_none_that_came(
    kind: str, interlaced: bool, tmp_path: Path
) -> None:
    packets, tried = stream(tmp_path, kind, interlaced=interlaced), 0
    numbers = FrameNumbers()
    assert not any(numbers.misses(heads(packet)) for packet in packets)
    for lost in range(1, len(packets) - 1):
        if is_leaned_on(packets[lost]) and not begins_anew(packets[lost + 1]):
            numbers, tried = FrameNumbers(), tried + 1
            found = [numbers.misses(heads(p)) for number, p in enumerate(packets) if number != lost]
            assert found.index(True) == lost  # by the packet behind it
    assert tried > 5


def test_a_camera_that_counts_by_two_does_not_stay_blind(tmp_path: Path) -> None:
    numbers = FrameNumbers()
    found = [numbers.misses(heads(packet)) for packet in stream(tmp_path, "slices", count=100)[::2]]
    assert found[:3] == [False, True, True]
    assert not any(found[35:])


def test_a_lost_key_picture_is_missed_where_the_number_behind_it_is_that_of_before(
    tmp_path: Path,
) -> None:
    packets = stream(tmp_path, "turns of 18", count=40)
    assert begins_anew(packets[18])  # 17 and 1 are the same in four bits
    numbers = FrameNumbers()
    found = [numbers.misses(heads(packet)) for packet in packets[:18] + packets[19:]]
    assert [at for at, missed in enumerate(found) if missed] == [18]


def test_a_packet_of_nothing_but_settings_takes_no_time(tmp_path: Path) -> None:
    settings = stream(tmp_path, "cameras", count=1)[0].split(b"\0\0\1")[1]
    started_s = time.process_time()
    FrameNumbers().misses(heads((b"\0\0\1" + settings) * 50_000))
    assert time.process_time() - started_s < 1


def test_any_bytes_are_taken(tmp_path: Path) -> None:
    rng, packets = np.random.default_rng(0), stream(tmp_path, "B-pictures")
    numbers = FrameNumbers()
    for _ in range(300):
        packet = bytearray(packets[rng.integers(len(packets))])
        for at in rng.integers(min(60, len(packet)), size=3):
            packet[at] = rng.integers(256)
        numbers.misses(heads(bytes(packet[: rng.integers(len(packet))])))
    assert not numbers.misses(heads(b""))
