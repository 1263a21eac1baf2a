"""Slices that never came, of pictures whose other slices did."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from cmlr_edge.capture.footing import Footing
from cmlr_edge.capture.slices import Slices
from cmlr_edge.capture.units import read_units
from tests.cmlr_edge.capture.films import shade, write_film

START, GROUP, PICTURES = b"\0\0\0\1", 12, 36
KEYS_AND_OTHERS = {1, 5}


def pictures(tmp_path: Path, parameters: str = "slices=3") -> list[bytes]:
    """Packets of H.264, in pictures of three slices."""
    options = {
        "bf": "0",
        "g": str(GROUP),
        "sc_threshold": "0",
        "threads": "1",
        "x264-params": parameters,
    }
    frames = [shade(5 * number) for number in range(PICTURES)]
    for number, frame in enumerate(frames):
        frame[number :: 2 + number % 3] = 255
    film = write_film(tmp_path / "film.h264", frames, options=options)
    with av.open(str(film)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def heads(packet: bytes, codec: str = "h264") -> tuple[bytes, ...]:
    return read_units(codec, packet).heads


def without(picture: bytes, lost: int) -> bytes:
    """A packet that lacks one of its slices."""
    units = [
        unit for unit in picture.replace(b"\0" + START[1:], START[1:]).split(START[1:]) if unit
    ]
    slices = [unit for unit in units if unit[0] & 31 in KEYS_AND_OTHERS]
    return b"".join(START + unit for unit in units if unit is not slices[lost])


@pytest.mark.parametrize("lost", [0, 1, 2])
@pytest.mark.parametrize("at", [GROUP, GROUP + 3, 2 * GROUP])
def test_a_slice_that_never_came_is_missed_and_none_that_did(
    tmp_path: Path, at: int, lost: int
) -> None:
    sent = pictures(tmp_path)
    slices = Slices("h264")
    lack = [
        slices.lack(heads(without(data, lost) if n == at else data)) for n, data in enumerate(sent)
    ]
    assert lack == [number == at for number in range(PICTURES)]


@pytest.mark.parametrize("lost", [1, 2])
def test_what_builds_upon_a_first_picture_that_lacks_a_slice_is_told_by_the_next_one(
    tmp_path: Path, lost: int
) -> None:
    first, *sent = pictures(tmp_path)
    slices = Slices("h264")
    lack = [slices.lack(heads(data)) for data in (without(first, lost), *sent)]
    assert lack == [number == 1 for number in range(PICTURES)]


def test_a_camera_that_cuts_some_pictures_otherwise_does_not_stay_blind(tmp_path: Path) -> None:
    sent = [without(data, 2) if n % 4 == 3 else data for n, data in enumerate(pictures(tmp_path))]
    slices = Slices("h264")
    assert sum(slices.lack(heads(data)) for data in sent * 10) <= 6


def test_pictures_that_are_cut_by_bytes_lack_nothing(tmp_path: Path) -> None:
    sent = pictures(tmp_path, "slice-max-size=90")
    assert len({len(heads(data)) for data in sent}) > 2
    slices = Slices("h264")
    assert not any(slices.lack(heads(data)) for data in sent)


def test_of_hevc_a_picture_that_does_not_begin_is_missed(tmp_path: Path) -> None:
    options = {"x265-params": "bframes=0:log-level=none:slices=2"}
    frames = [np.ascontiguousarray(np.tile(shade(50 * n), (4, 4, 1))) for n in range(3)]
    film = write_film(tmp_path / "film.hevc", frames, codec="libx265", options=options)
    with av.open(str(film)) as container:
        sent = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    slices = Slices("hevc")
    assert not any(slices.lack(heads(data, "hevc")) for data in sent)
    units = [unit for unit in sent[1].split(START[1:]) if unit.strip(b"\0")]
    assert len(units) > 1
    assert slices.lack(heads(START + units[-1], "hevc"))


def test_a_key_picture_that_lacks_a_slice_is_no_footing(tmp_path: Path) -> None:
    sent, slices, states = pictures(tmp_path), Slices("h264"), []
    sent[GROUP] = without(sent[GROUP], 1)
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_type = "SLICE"
    footing = Footing(decoder)
    for number, data in enumerate(sent):
        packet = av.Packet(data)
        packet.pts = packet.dts = number
        footing.take(packet, is_partial=slices.lack(heads(data)))
        states += [footing.holds(frame, is_whole=True) for frame in decoder.decode(packet)]
    expected = [not GROUP <= number < 2 * GROUP for number in range(PICTURES)]
    assert states == expected[: len(states)]
    assert len(states) > 2 * GROUP


def test_any_bytes_are_taken() -> None:
    slices = Slices("h264")
    for seed in range(200):
        slices.lack(heads(START + np.random.default_rng(seed).bytes(30)))
