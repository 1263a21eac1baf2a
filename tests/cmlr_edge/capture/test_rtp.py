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
from cmlr_edge.capture.network import NetworkReader
from cmlr_edge.capture.rtp import rtp_gaps
from cmlr_edge.errors import CaptureError
from tests.cmlr_edge.capture.films import write_film
from tests.cmlr_edge.capture.rtp_camera import Network, pictures_of, rtp_camera

FilmOf: TypeAlias = Callable[..., Path]
GROUP, PICTURES, FPS = 8, 24, 50.0
CODECS = ["libx264", "libx265"]


@pytest.fixture(scope="module")
def film_of(tmp_path_factory: pytest.TempPathFactory) -> FilmOf:
    """Encodes each once."""
    return cache(partial(encode, tmp_path_factory.mktemp("films")))


def encode(folder: Path, codec: str, slices: int = 1) -> Path:
    """Noise that moves, so that a picture takes many packets of RTP."""
    noise = np.random.default_rng(1).integers(0, 256, (96, 128, 3), np.uint8)
    pictures = [np.roll(noise, 2 * number, axis=1) for number in range(PICTURES)]
    given = f"keyint={GROUP}:min-keyint={GROUP}:scenecut=0:bframes=0:slices={slices}"
    options = {"x264-params": given, "threads": "1"}
    options["x265-params"] = f"{given}:ctu=16:min-cu-size=8:repeat-headers=1:log-level=none"
    suffix = {"libx264": "h264", "libx265": "hevc"}[codec]
    return write_film(folder / f"{slices}.{suffix}", pictures, codec=codec, options=options)


def states_of(film: Path, over: str, network: Network, *, fps: float = FPS) -> list[str]:
    """Of each picture: "ok", "wrong" (and said to be ok), "damaged", or "" where it is not shown."""
    codec, sent = pictures_of(film)
    states = [""] * PICTURES
    pictures = whole_pictures(film)
    with rtp_camera(codec, sent, fps=fps, over=over, network=network) as url:
        reader = NetworkReader(av, url, open_timeout_s=5.0, read_timeout_s=2.0, newest=False)
        try:
            while (grab := reader.read()) is not None:
                number = round((grab.stream_s or 0.0) * fps)
                is_right = np.array_equal(grab.image_bgr, pictures[number])
                states[number] = ("ok" if is_right else "wrong") if grab.is_whole else "damaged"
        except CaptureError:  # it closes without a word
            pass
        finally:
            reader.close()
    return states


def whole_pictures(film: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(film)) as container:
        pictures = Pictures(av)
        return [pictures.to_bgr(frame) for frame in container.decode(video=0)]


def without(place: str, picture: int) -> Network:
    """Loses one packet of a picture."""

    def network(number: int, packets: list[bytes]) -> list[bytes]:
        at = {"first": 0, "middle": len(packets) // 2, "last": len(packets) - 1}[place]
        return packets[:at] + packets[at + 1 :] if number == picture else packets

    return network


@pytest.mark.parametrize("over", ["UDP", "TCP"])
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("slices", [1, 4])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_what_builds_upon_a_lost_packet_is_damaged_and_nothing_else(
    film_of: FilmOf, codec: str, slices: int, place: str, over: str
) -> None:
    lost = GROUP + 3
    states = states_of(film_of(codec, slices), over, without(place, lost))
    assert states[: lost - 1] == ["ok"] * (lost - 1)
    assert {*states[lost : 2 * GROUP]} <= {"damaged", ""}
    assert states[2 * GROUP :] == ["ok"] * GROUP


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
        gaps = rtp_gaps(av)
        before = gaps()
        with av.logging.Capture() as lines:
            av.logging.log(av.logging.WARNING, "rtsp", "RTP: missed 1 packets\n")
        assert [line for _, _, line in lines] == ["RTP: missed 1 packets\n"]
        assert gaps() == before
    finally:
        av.logging.set_level(None)
