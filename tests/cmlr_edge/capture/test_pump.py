"""Pieces of pictures, as RTP brings them, put together again."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from cmlr_edge.capture.doubles import Doubles
from cmlr_edge.capture.pump import PAUSE_S, Pump
from tests.cmlr_edge.capture.films import shade, write_film

PIECE = 40  # bytes
_NEXT = re.compile(b"(?=\x00\x00\x00\x01)|(?<!\x00)(?=\x00\x00\x01)")  # unit of a stream


class Pieces:
    """A connection that brings a film in pieces, each with the time that its picture is given."""

    def __init__(
        self,
        film: Path,
        times: list[int],
        *,
        doubled: str = "",
        stalls_at: int = -1,
        pauses: bool = False,
    ) -> None:
        self._film, self._times, self._doubled = av.open(str(film)), times, doubled
        self._pauses = pauses  # between pictures
        self._stalls_at = stalls_at  # number of a picture, within a unit of which it waits

    @property
    def stream(self) -> Any:
        return self._film.streams.video[0]

    def demux(self, *_: object) -> Iterator[Any]:
        number = 0
        for packet in self._film.demux(video=0):
            data = bytes(packet)
            time.sleep(2 * PAUSE_S * self._pauses)
            pieces = [*self._pieces(data)]
            if self._doubled == "pieces":
                pieces = [piece for piece in pieces for _ in range(2)]
            for content in pieces * (1 + (self._doubled == "pictures")):
                piece = av.Packet(content)
                piece.pts = piece.dts = self._times[number]
                piece.time_base = Fraction(1, 90_000)
                yield piece
                if number == self._stalls_at and content[0] and len(content) == PIECE:
                    time.sleep(2 * PAUSE_S)
                    self._stalls_at = -1
            number += bool(data)

    @staticmethod
    def _pieces(data: bytes) -> Iterator[bytes]:
        for unit in re.split(_NEXT, data):
            for at in range(0, len(unit), PIECE):
                yield unit[at : at + PIECE]

    def close(self) -> None:
        self._film.close()


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("doubled", ["", "pieces", "pictures"])
@pytest.mark.parametrize(
    "times", [[0, 0, 1, 2, 3], [7] * 5, [1, 2, 3, 4, 5]], ids=["begin with 0", "stand still", "go"]
)
def test_pictures_are_told_apart_whatever_their_times(
    tmp_path: Path, codec: str, times: list[int], doubled: str
) -> None:
    options = {"bf": "0", "x265-params": "bframes=0:log-level=none"}
    suffix = "h264" if codec == "libx264" else "hevc"
    pictures = [shade(50 * number) for number in range(5)]
    for picture in pictures:
        picture[::3, ::5] = 255  # so that it has many pieces
    film = write_film(tmp_path / f"film.{suffix}", pictures, codec=codec, options=options)
    with av.open(str(film)) as container:
        sizes = [packet.size for packet in container.demux(video=0) if packet.size]
    assert len(sizes) == 5
    connection = Pieces(film, times, doubled=doubled)
    pump = Pump(connection, connection.stream, in_pieces=True)
    units = []
    while (unit := pump.take(5.0)) is not None:
        units.append(unit)
    pump.close()
    given = [sum(packet.size for packet in unit.packets) for unit in units]
    assert given[1:] == sizes[1:]
    # Its settings, which may come twice as well.
    assert given[0] == sizes[0] or (doubled == "pictures" and given[0] > sizes[0])
    assert not any(unit.is_behind_gap or unit.is_partial for unit in units)


def test_what_stands_before_a_picture_is_no_late_piece_of_another(tmp_path: Path) -> None:
    options = {"bf": "0", "g": "1", "x264-params": "aud=1"}
    film = write_film(
        tmp_path / "film.h264", [shade(50 * number) for number in range(5)], options=options
    )
    connection = Pieces(film, [7] * 5, pauses=True)
    pump = Pump(connection, connection.stream, in_pieces=True)
    units = [*iter(lambda: pump.take(5.0), None)]
    pump.close()
    assert [unit.is_behind_gap or unit.is_partial for unit in units] == [False] * 5
    assert all(any(head[0] & 31 == 7 for head in unit.heads) for unit in units)  # its settings


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_network_that_stalls_within_a_unit_cuts_no_picture(tmp_path: Path, codec: str) -> None:
    options = {"bf": "0", "x265-params": "bframes=0:log-level=none"}
    noise = np.random.default_rng(1)
    pictures = [noise.integers(0, 256, (96, 128, 3), np.uint8) for _ in range(5)]
    suffix = "h264" if codec == "libx264" else "hevc"
    film = write_film(tmp_path / f"film.{suffix}", pictures, codec=codec, options=options)
    connection = Pieces(film, [1, 2, 3, 4, 5], stalls_at=2)
    pump = Pump(connection, connection.stream, in_pieces=True)
    units = [*iter(lambda: pump.take(5.0), None)]
    pump.close()
    assert [unit.is_behind_gap or unit.is_partial for unit in units] == [False] * 5


def test_parts_of_a_picture_that_are_alike_are_no_doubles() -> None:
    contents = [b"\0\0\0\1e" + b"7" * 35, *[b"7" * PIECE] * 4, b"7" * 9]

    def number_of(pieces: list[bytes]) -> int:
        doubles, count = Doubles(), 0
        for content in pieces:
            count += not doubles.has(5, content)
        return count

    assert number_of(contents) == len(contents)
    assert number_of([content for content in contents for _ in range(2)]) == len(contents)


def test_a_part_in_the_middle_of_a_unit_that_comes_twice_alone_is_a_double() -> None:
    middle = bytes(range(PIECE))
    doubles = Doubles()
    contents = [b"\0\0\0\1e" + b"7" * 35, middle, middle, middle[::-1], middle]
    assert [doubles.has(5, content) for content in contents] == [False, False, True, False, False]


def test_settings_that_come_alone_do_not_hide_that_slices_are_missing(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.h264", [shade(0)])
    first, second, settings = b"\0\0\0\1\x41\x80a", b"\0\0\0\1\x41\x20b", b"\0\0\0\1\x67\x42"

    class Slices(Pieces):
        def demux(self, *_: object) -> Iterator[Any]:
            for time_of, content in [(1, first), (1, second), (2, settings), (3, first)]:
                yield self._packet(time_of, content)
            time.sleep(3 * PAUSE_S)
            yield self._packet(3, second)

        @staticmethod
        def _packet(time_of: int, content: bytes) -> Any:
            packet = av.Packet(content)
            packet.pts = packet.dts = time_of
            packet.time_base = Fraction(1, 90_000)
            return packet

    connection = Slices(film, [])
    pump = Pump(connection, connection.stream, in_pieces=True)
    units = [*iter(lambda: pump.take(5.0), None)]
    pump.close()
    assert [len(unit.packets) for unit in units] == [2, 1, 2]
