"""Pictures that move: one alone is a film, among others a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage
from PIL import features

from cmlr_edge import open_source
from cmlr_edge.capture import has_packets
from cmlr_edge.errors import CaptureError
from tests.cmlr_edge.cli.command import read_lines, run

LEVELS = (250, 160, 90, 20)
DURATIONS_MS = (100, 200, 300, 400)
_NOISE = np.random.default_rng(0).integers(0, 6, (24, 32, 3), np.uint8)


def write(path: Path, *, levels: tuple[int, ...] = LEVELS) -> Path:
    first, *others = (PilImage.fromarray(_NOISE + np.uint8(level)) for level in levels)
    durations = list(DURATIONS_MS[: len(levels)])
    first.save(path, save_all=True, append_images=others, duration=durations)
    return path


@pytest.mark.parametrize("suffix", [".webp", ".png", ".avif"])
def test_every_picture_is_a_frame_at_its_time(tmp_path: Path, suffix: str) -> None:
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    path = write(tmp_path / f"moves{suffix}")
    with open_source(path) as source:
        frames = list(source)
        assert source.num_frames == 4
    assert [frame.image_bgr.mean() for frame in frames] == pytest.approx(
        [level + 2.5 for level in LEVELS], abs=3
    )
    assert [frame.time_s for frame in frames] == pytest.approx([0.0, 0.1, 0.3, 0.6])
    assert not has_packets(path)


def test_among_others_it_is_a_picture(tmp_path: Path) -> None:
    write(tmp_path / "a.webp")
    write(tmp_path / "b.webp")
    with open_source(tmp_path) as source:
        assert [frame.time_s for frame in source] == [None, None]


@pytest.mark.parametrize("suffix", [".webp", ".png", ".tif"])
def test_one_that_does_not_move_stays_a_picture(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"still{suffix}"
    PilImage.new("RGB", (32, 24), (250, 0, 0)).save(path)
    with open_source(path) as source:
        assert [frame.time_s for frame in source] == [None]
    with pytest.raises(CaptureError, match="newest"):
        open_source(path, policy="newest")


def test_one_that_is_cut_off_gives_whole_pictures_and_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "moves.png")
    with open_source(path) as source:
        whole = [frame.image_bgr for frame in source]
    content = path.read_bytes()
    for share in (0.4, 0.7, 0.95):
        path.write_bytes(content[: round(share * len(content))])
        with open_source(path) as source:
            frames = list(source)
            assert source.damaged > 0  # type: ignore[attr-defined]
        assert 0 < len(frames) < 4
        for frame, image in zip(frames, whole, strict=False):
            assert np.array_equal(frame.image_bgr, image)


def test_label_follows_events_in_it(tmp_path: Path, engine: Path) -> None:
    path = write(tmp_path / "moves.webp", levels=(20, 250, 160, 250))
    out = tmp_path / "out.jsonl"
    done = run("label", path, "--engine", engine, "--out", out, "--events", tmp_path / "e.jsonl")
    assert done.returncode == 0, done.stderr
    assert [line["time_s"] for line in read_lines(out)] == pytest.approx([0.0, 0.1, 0.3, 0.6])
