"""Cameras that tell a decoder's settings in their packets alone, and are joined anywhere."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest

from cmlr_edge.sinks.clips import remux
from tests.cmlr_edge.capture.films import write_film
from tests.cmlr_edge.capture.rtp_camera import grabs_of, pictures_of, rtp_camera

GROUP, PICTURES = 8, 24
OPTIONS = {
    "g": str(GROUP),
    "bf": "0",
    "sc_threshold": "0",
    "x265-params": f"keyint={GROUP}:min-keyint={GROUP}:scenecut=0:bframes=0:repeat-headers=1:log-level=none",
}


def film_of(codec: str, folder: Path) -> Path:
    """Of noise, so that a picture takes many packets of RTP."""
    noise = np.random.default_rng(1)
    pictures = [noise.integers(0, 256, (96, 128, 3), np.uint8) for _ in range(PICTURES)]
    suffix = {"libx264": "h264", "libx265": "hevc"}[codec]
    return write_film(folder / f"film.{suffix}", pictures, codec=codec, options=OPTIONS)


@pytest.mark.parametrize("joined_at", [0, 3])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_one_that_tells_its_settings_in_its_packets_alone_is_opened_wherever_it_is_joined(
    tmp_path: Path, codec: str, joined_at: int
) -> None:
    name, sent = pictures_of(film_of(codec, tmp_path))
    with rtp_camera(name, sent[joined_at:]) as url:
        grabs = grabs_of(url)
    expected = PICTURES if joined_at == 0 else PICTURES - GROUP
    assert len(grabs) == expected
    ring = grabs[-1].ring
    assert ring is not None
    packets = ring.finish(ring.excerpt(0.0, 100.0))
    clip = remux(ring, packets, packets[0].time_s, 100.0)
    with av.open(io.BytesIO(clip)) as container:
        assert sum(1 for _ in container.decode(video=0)) == expected
