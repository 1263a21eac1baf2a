"""Pictures that build upon nothing, or upon one that is lost, are never taken for whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from cmlr_edge import open_source
from tests.cmlr_edge.capture.films import packets, write_film
from tests.cmlr_edge.web import Quiet, serving

GROUP, PICTURES = 8, 24
KINDS = {  # by codec: how the file is called, and what the encoder is told
    "mpeg4": ("film.avi", {}),
    "h263": ("film.3gp", {}),
    "flv": ("film.flv", {}),
    "wmv2": ("film.wmv", {}),
    "cinepak": ("film.mov", {}),
    "h261": ("film.avi", {}),
    "libx264": ("film.mp4", {"preset": "ultrafast", "bf": "0"}),
    "ffv1": ("film.mkv", {"context": "1"}),
    "libvpx": ("film.webm", {"cpu-used": "8", "auto-alt-ref": "0"}),
}


def scene() -> list[NDArray[np.uint8]]:
    """Pictures of a pattern that stands still, and of one square that moves over it."""
    across, down = np.meshgrid(np.arange(176), np.arange(144))
    still = np.stack([across, 255 - down, (across * down) % 256], axis=-1).astype(np.uint8)
    pictures = []
    for number in range(PICTURES):
        picture = still.copy()
        picture[40:60, 5 * number : 5 * number + 20] = 255
        pictures.append(picture)
    return pictures


def film_of(codec: str, folder: Path) -> Path:
    name, options = KINDS[codec]
    pix_fmt = {"cinepak": "rgb24"}.get(codec, "yuv420p")
    options = {"g": str(GROUP), **options}
    return write_film(folder / name, scene(), codec=codec, pix_fmt=pix_fmt, options=options)


def without(film: Path, to: Path, lost: int = 0) -> Path:
    """Copy a film's packets, but for one: the first key picture, if not told."""
    with av.open(str(film)) as container, av.open(str(to), "w") as target:
        stream = container.streams.video[0]
        copy = target.add_stream_from_template(stream)
        kept = [packet for packet in container.demux(stream) if packet.size]
        for packet in kept[:lost] + kept[lost + 1 :]:
            packet.stream = copy
            target.mux(packet)
    return to


def errors(film: Path) -> list[tuple[str, float]]:
    """Of each frame: its status, and how far its worst part is from the nearest picture that was there."""
    there = [in_blocks(picture) for picture in scene()]
    with open_source(film) as source:
        return [
            (
                frame.status,
                min(float(np.abs(in_blocks(frame.image_bgr) - one).max()) for one in there),
            )
            for frame in source
        ]


def in_blocks(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean brightness of blocks of 8 x 8 pixels."""
    means: NDArray[np.float64] = picture.reshape(18, 8, 22, 8, 3).mean(axis=(1, 3, 4))
    return means


@pytest.mark.parametrize("codec", ["mpeg4", "h263", "flv", "wmv2", "cinepak", "h261", "libx264"])
def test_a_film_without_its_first_key_picture_begins_with_the_next(
    codec: str, tmp_path: Path
) -> None:
    whole = film_of(codec, tmp_path)
    usual = max(error for _, error in errors(whole))

    found = errors(without(whole, tmp_path / f"late{whole.suffix}"))

    good = [error for status, error in found if status == "ok"]
    assert len(good) >= PICTURES - GROUP
    assert max(good) <= usual + 12


@pytest.mark.parametrize("codec", KINDS)
def test_of_a_whole_film_every_picture_is_whole(codec: str, tmp_path: Path) -> None:
    found = errors(film_of(codec, tmp_path))

    assert len(found) == PICTURES
    assert {status for status, _ in found} == {"ok"}


@pytest.mark.parametrize("codec", ["mpeg4", "ffv1", "libx264", "libvpx"])
@pytest.mark.parametrize("lost", [3, GROUP, GROUP + 2])
def test_what_builds_upon_a_damaged_packet_is_not_whole(
    codec: str, lost: int, tmp_path: Path
) -> None:
    film = film_of(codec, tmp_path)
    usual = max(error for _, error in errors(film))
    position, size = packets(film)[lost]
    content = bytearray(film.read_bytes())
    content[position : position + size] = b"\xff" * size
    film.write_bytes(content)

    found = errors(film)

    good = [error for status, error in found if status == "ok"]
    assert PICTURES - 2 * GROUP <= len(good) <= PICTURES - 1
    assert max(good) <= usual + 12
    assert [status for status, _ in found[-GROUP + 1 :]] == ["ok"] * (GROUP - 1)


@pytest.mark.parametrize(
    ("renewing", "after"), [("intra-refresh=1:keyint=20", 60), ("keyint=infinite:scenecut=0", 300)]
)
def test_a_stream_without_key_pictures_is_whole_again(
    renewing: str, after: int, tmp_path: Path
) -> None:
    lost, pictures = 10, [*scene() * 15][: 10 + after + 20]
    options = {"preset": "ultrafast", "x264-params": f"{renewing}:bframes=0"}
    film = write_film(tmp_path / "film.mp4", pictures, codec="libx264", options=options)
    position, size = packets(film)[lost]
    content = bytearray(film.read_bytes())
    content[position : position + size] = b"\xff" * size
    film.write_bytes(content)

    found = [status for status, _ in errors(film)]

    assert found[:lost] == ["ok"] * lost
    assert found[lost + 1] != "ok"
    assert found[-15:] == ["ok"] * 15
    if after < 100:  # a camera that refreshes its picture in parts is not blind for long
        assert found.count("ok") > len(found) - after


@contextmanager
def served(content: bytes) -> Iterator[str]:
    """A camera that sends these bytes."""

    class Handler(Quiet):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

    with serving(Handler) as port:
        yield f"http://127.0.0.1:{port}/live"


def test_a_camera_that_is_joined_in_the_middle_shows_nothing_that_builds_upon_nothing(
    tmp_path: Path,
) -> None:
    options = {"g": str(PICTURES)}
    film = write_film(tmp_path / "film.flv", scene(), codec="flv", options=options)
    late = without(film, tmp_path / "late.flv")

    with (
        served(late.read_bytes()) as address,
        open_source(address, policy="every") as source,
    ):
        states = [frame.status for frame in source]

    assert states == ["damaged"] * (PICTURES - 1)


@pytest.mark.parametrize("lost", [3, GROUP + 2])
def test_a_picture_of_a_camera_that_never_came_is_missed_by_what_builds_upon_it(
    lost: int, tmp_path: Path
) -> None:
    options = {"preset": "ultrafast", "bf": "0", "g": str(GROUP)}
    film = write_film(tmp_path / "film.ts", scene(), options=options)

    with (
        served(without(film, tmp_path / "late.ts", lost).read_bytes()) as address,
        open_source(address, policy="every") as source,
    ):
        states = [frame.status for frame in islice(source, PICTURES - 3)]  # it is asked again then

    gone = GROUP - 1 - lost % GROUP
    assert states == ["ok"] * lost + ["damaged"] * gone + ["ok"] * (PICTURES - 3 - lost - gone)
