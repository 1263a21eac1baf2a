"""The newest packets of a stream: whole recordings from a key picture on, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from cmlr_edge import Frame, IntakeSettings, Streams
from cmlr_edge.capture.base import ClosesItself
from cmlr_edge.packet_ring import Kept, PacketRing
from tests.cmlr_edge.pipeline.stand_ins import SlowBackend, recognizer_of
from tests.cmlr_edge.sinks.samples import frame


class Packet(bytes):
    """As the ring needs one."""

    @property
    def size(self) -> int:
        return len(self)


def new_ring(keep_s: float = 1.0) -> PacketRing:
    return PacketRing("h264", None, keep_s)


def fill(ring: PacketRing, times: Any, gop: int = 10, size: int = 100) -> None:
    for number, time_s in enumerate(times):
        ring.add(Packet(size), float(time_s), is_key=number % gop == 0)


def times_of(packets: list[Kept]) -> list[float]:
    return [round(item.time_s, 3) for item in packets]


def test_a_recording_begins_with_a_key_picture_and_forgets_what_is_old() -> None:
    ring = new_ring()
    ring.add(Packet(9), 0.0, is_key=False)  # joined in the middle
    fill(ring, np.arange(0, 60, 0.1))
    kept = ring.excerpt(-1.0, 99.0).packets
    assert kept[0].is_key
    assert 59.9 - 1 - 10 - 1 <= kept[0].time_s <= 59.9 - 1 - 10
    assert ring.excerpt(57.35, 99.0).packets[0].time_s == pytest.approx(57.0)


def test_memory_is_bounded_whatever_comes() -> None:
    from cmlr_edge import packet_ring as module

    ring, most = new_ring(keep_s=60), module._MAX_BYTES
    part = most // 8
    fill(ring, np.arange(0, 3, 0.1), gop=4, size=part)
    assert 0 < sum(item.packet.size for item in ring.excerpt(0, 99).packets) <= most
    fill(ring, np.arange(3, 6, 0.1), gop=10**6, size=part)  # no key picture ever again
    assert not ring.excerpt(0, 99).packets
    fill(ring, np.arange(6, 7, 0.1), gop=1, size=part)
    grows = ring.excerpt(6.8, 10**6)
    fill(ring, np.arange(7, 20, 0.1), gop=4, size=part)
    assert grows.is_over
    assert sum(item.packet.size for item in grows.packets) <= most + 2 * part


def test_an_excerpt_grows_until_it_is_over_and_not_into_another_recording() -> None:
    ring = new_ring()
    fill(ring, np.arange(0, 3, 0.1))
    grows, other = ring.excerpt(2.0, 4.0), ring.excerpt(2.0, 99.0)
    fill(ring, np.arange(3, 6, 0.1))
    assert grows.is_over
    assert times_of(grows.packets)[-1] == pytest.approx(4.4)  # some may be shown before 4.0
    before = other.is_over
    fill(ring, np.arange(1, 3, 0.1))  # its clock starts again
    assert [before, other.is_over] == [False, True]
    assert times_of(other.packets)[-1] == pytest.approx(5.9)
    assert ring.excerpt(0, 99).packets[0].time_s == 1.0


def test_what_nobody_is_to_look_at_is_not_kept() -> None:
    ring = new_ring()
    fill(ring, np.arange(0, 3, 0.1))
    grows = ring.excerpt(2.0, 9.0)
    ring.listen(wanted=False)
    assert grows.is_over
    fill(ring, np.arange(3, 6, 0.1))
    assert not ring.excerpt(0, 99).packets
    ring.listen(wanted=True)
    fill(ring, np.arange(6, 9, 0.1))
    assert ring.excerpt(0, 99).packets[0].time_s == 6.0
    ring.end()
    assert ring.excerpt(0, 99).is_over
    ring.add(Packet(1), 9.0, is_key=True)
    assert ring.excerpt(0, 99).packets[-1].time_s == pytest.approx(8.9)


class Film(ClosesItself):
    """Two frames of two connections, between which the mask goes."""

    name, fps, num_frames, files, damaged = "door", 10.0, None, (), 0

    def __init__(self, rings: list[PacketRing]) -> None:
        self.rings, self.streams = rings, cast("Streams", None)

    def __iter__(self) -> Iterator[Frame]:
        for number, ring in enumerate(self.rings):
            if number:
                self.streams.change_rules("door", None, IntakeSettings())
            yield replace(frame(number), ring=ring)

    def close(self) -> None:
        pass


def test_nothing_from_before_a_mask_went_is_kept_of_any_connection() -> None:
    rings = [new_ring(), new_ring()]
    for ring in rings:
        fill(ring, np.arange(0, 1, 0.1))
    film = Film(rings)
    mask = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))
    with Streams(recognizer_of(SlowBackend())) as film.streams:
        film.streams.add(film, intake=IntakeSettings(masks=(mask,)))
        assert len([*film.streams.results()]) == 2
    assert [ring.excerpt(0.0, 9.0).packets for ring in rings] == [[], []]
    fill(rings[1], np.arange(1, 2, 0.1))
    assert rings[1].excerpt(0.0, 9.0).packets
