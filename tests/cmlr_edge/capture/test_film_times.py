"""When the frames of films are shown, where their packets lie in another order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cmlr_edge import open_source
from tests.cmlr_edge.capture.films import write_film


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "mpeg2video", "mjpeg"])
def test_an_avi_is_as_long_as_it_is_whatever_the_order_of_its_packets(
    tmp_path: Path, codec: str
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 428, 3), np.uint8)
    path = write_film(
        tmp_path / "film.avi",
        [np.ascontiguousarray(noise[:, 5 * i : 5 * i + 128]) for i in range(50)],
        codec=codec,
        pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p",
        fps=25,
        options={} if codec == "mjpeg" else {"bf": "3"},
    )
    with open_source(path) as source:
        times_s = [frame.time_s for frame in source]
    assert len(times_s) == 50
    assert times_s == pytest.approx([i / 25 for i in range(50)], abs=0.01)
