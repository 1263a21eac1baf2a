"""Packets of RTP that a network loses: what is made of them, or builds upon it, is told, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TypeAlias

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from cmlr_edge.capture.bgr import Pictures
from cmlr_edge.capture.rtp import told_losses
from tests.cmlr_edge.capture.films import write_film
from tests.cmlr_edge.capture.rtp_camera import Network, grabs_of, pictures_of, rtp_camera

FilmOf: TypeAlias = Callable[..., Path]
GROUP, PICTURES, FPS = 8, 24, 100.0
CODECS = ["libx264", "libx265"]


@pytest.fixture(scope="module")
def film_of(tmp_path_factory: pytest.TempPathFactory) -> FilmOf:
    """Encodes each once."""
    return cache(partial(encode, tmp_path_factory.mktemp("films")))


def encode(folder: Path, codec: str, slices: int = 1, bframes: int = 0) -> Path:
    """Noise that moves, so that a picture takes many packets of RTP."""
    noise = np.random.default_rng(1).integers(0, 256, (96, 128, 3), np.uint8)
    pictures = [np.roll(noise, 2 * number, axis=1) for number in range(PICTURES)]
    given = (
        f"keyint={GROUP}:min-keyint={GROUP}:scenecut=0:bframes={bframes}:b-adapt=0:slices={slices}"
    )
    options = {"x264-params": given, "threads": "1"}
    own = "ctu=16:min-cu-size=8:repeat-headers=1:open-gop=0:log-level=none"
    options["x265-params"] = f"{given}:{own}"
    film = folder / f"{codec}_{slices}_{bframes}.ts"
    return write_film(film, pictures, codec=codec, options=options)


def states_of(film: Path, over: str, network: Network, *, fps: float = FPS) -> list[str]:
    """Of each picture as it is sent: "ok", "wrong" (and said to be ok), "damaged", or "" where it is not shown."""
    codec, sent = pictures_of(film)
    states = [""] * PICTURES
    pictures, ranks = whole_pictures(film)
    with rtp_camera(codec, sent, fps=fps, over=over, network=network, ranks=ranks) as url:
        for grab in grabs_of(url):
            number = ranks.index(round((grab.stream_s or 0.0) * fps))
            is_right = np.array_equal(grab.image_bgr, pictures[number])
            states[number] = ("ok" if is_right else "wrong") if grab.is_whole else "damaged"
    return states


def whole_pictures(film: Path) -> tuple[list[NDArray[np.uint8]], list[int]]:
    """Those of a film in the order in which they are sent, and their places in the one in which they are shown."""
    pictures, shown = Pictures(av), {}
    with av.open(str(film)) as container:
        times = [packet.pts for packet in container.demux(video=0) if packet.size]
    with av.open(str(film)) as container:
        for frame in container.decode(video=0):
            shown[frame.pts] = pictures.to_bgr(frame)
    return [shown[time] for time in times], [sorted(times).index(time) for time in times]


def without(place: str, picture: int) -> Network:
    """Loses one packet of a picture."""

    def network(number: int, packets: list[bytes]) -> list[bytes]:
        # First come settings, or what tells where pictures begin.
        last = len(packets) - 1
        begin = next((i for i, packet in enumerate(packets) if len(packet) > 100), last)
        at = {"first": begin, "middle": len(packets) // 2, "last": last}[place]
        return packets[:at] + packets[at + 1 :] if number == picture else packets

    return network


@pytest.mark.parametrize("over", ["UDP", "TCP"])
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_what_builds_upon_a_lost_packet_is_damaged_and_nothing_else(
    film_of: FilmOf, codec: str, place: str, over: str
) -> None:
    lost = GROUP + 3
    states = states_of(film_of(codec, 4), over, without(place, lost))
    assert states[: lost - 1] == ["ok"] * (lost - 1)
    assert {*states[lost : 2 * GROUP]} <= {"damaged", ""}
    assert states[2 * GROUP :] == ["ok"] * GROUP


@pytest.mark.parametrize("over", ["UDP", "TCP"])
def test_a_last_slice_that_is_lost_is_noticed_where_the_next_picture_is_long_in_coming(
    film_of: FilmOf, over: str
) -> None:
    lost = GROUP + 3
    states = states_of(film_of("libx265", 4), over, without("last", lost), fps=8.0)
    assert states == ["ok"] * lost + ["damaged"] * (GROUP - 3) + ["ok"] * GROUP


@pytest.mark.parametrize("codec", CODECS)
def test_a_loss_in_a_picture_upon_which_none_builds_damages_it_alone(
    film_of: FilmOf, codec: str
) -> None:
    film = film_of(codec, bframes=1)
    # In the order of sending: a key picture, then pairs of one that is leaned on and one before it.
    lost = GROUP + 2
    for network in (without("middle", lost), without("first", lost)):
        states = states_of(film, "UDP", network)
        assert states[lost] in {"damaged", ""}
        # The decoder still holds the last one when the camera is gone.
        assert states[:lost] + states[lost + 1 : -2] == ["ok"] * (PICTURES - 3)


@pytest.mark.parametrize("codec", CODECS)
def test_a_picture_that_never_came_to_whoever_sends_is_missed(film_of: FilmOf, codec: str) -> None:
    lost = GROUP + 3
    name, sent = pictures_of(film_of(codec))
    with rtp_camera(name, sent[:lost] + sent[lost + 1 :], fps=FPS) as url:
        states = [grab.is_whole for grab in grabs_of(url)]
    # FFmpeg does not show what of HEVC builds upon nothing.
    assert states[:lost] + states[-GROUP:] == [True] * (lost + GROUP)
    assert not any(states[lost:-GROUP])


@pytest.mark.parametrize("codec", CODECS)
def test_what_overtakes_or_comes_twice_is_no_loss(film_of: FilmOf, codec: str) -> None:
    def network(number: int, packets: list[bytes]) -> list[bytes]:
        at = number % max(1, len(packets) - 3)
        moved = packets[: at + 1] + packets[at + 2 : at + 3] + packets[at + 1 : at + 2]
        return (
            [*moved, *packets[at + 3 :]]
            if number % 2
            else packets[:at] + packets[at:][:1] + packets[at:]
        )

    assert states_of(film_of(codec), "UDP", network) == ["ok"] * PICTURES


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_lost_while_a_stream_is_looked_at_is_told(film_of: FilmOf, codec: str) -> None:
    states = states_of(film_of(codec), "UDP", without("middle", 0), fps=20.0)
    assert "wrong" not in states
    assert states[-1] == "ok"


def test_of_two_cameras_only_what_the_lossy_one_gives_is_damaged(film_of: FilmOf) -> None:
    film = film_of("libx265")
    found: dict[bool, list[str]] = {}

    def watch(loses: bool) -> None:
        network = without("middle", 2) if loses else without("middle", -1)
        found[loses] = states_of(film, "UDP", network)

    watchers = [threading.Thread(target=watch, args=(loses,)) for loses in (True, False)]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join()
    assert found[False] == ["ok"] * PICTURES
    assert "wrong" not in found[True]
    assert found[True].count("ok") == PICTURES - GROUP + 2


def test_the_log_of_a_program_that_reads_it_itself_stays_its_own() -> None:
    av.logging.set_level(av.logging.WARNING)
    try:
        lost_packets, _ = told_losses(av)
        before = lost_packets()
        with av.logging.Capture() as lines:
            av.logging.log(av.logging.WARNING, "rtsp", "RTP: missed 1 packets\n")
        assert [line for _, _, line in lines] == ["RTP: missed 1 packets\n"]
        assert lost_packets() == before
    finally:
        av.logging.set_level(None)
