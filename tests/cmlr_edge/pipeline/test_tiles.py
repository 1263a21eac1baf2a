"""Small things are found in tiles, which cover the picture, and cost what is said."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cmlr_edge import IntakeSettings, Recognizer, Streams
from cmlr_edge.frame import Frame
from cmlr_edge.pipeline.tiles import Tiles, combined
from cmlr_edge.prediction import Latency, Prediction
from cmlr_edge.sinks import Result
from tests.cmlr_edge.cli.command import run
from tests.cmlr_edge.pipeline.stand_ins import SlowBackend, recognizer_of
from tests.conftest import Image, write_video

LEFT = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))


def corner(size: int = 30) -> Image:
    """Red, with something green in the lower right corner."""
    image = np.zeros((80, 80, 3), np.uint8)
    image[..., 2] = 160
    image[-size:, -size:] = (0, 250, 0)
    return image


def results(engine: Path | Recognizer, clip: Path, settings: IntakeSettings) -> list[Result]:
    recognizer = engine if isinstance(engine, Recognizer) else Recognizer.from_engine(engine)
    with recognizer, Streams(recognizer) as streams:
        streams.add(clip, name="x", intake=settings)
        found = [*streams.results()]
        assert streams.status()[0].runs_per_frame == (5 if settings.tiles else 1)
    return found


@pytest.mark.parametrize("grid", [(1, 2), (2, 2), (3, 2), (4, 4), (2, 8)])
@pytest.mark.parametrize("size_hw", [(720, 1280), (97, 33), (3, 5), (1, 1)])
def test_tiles_cover_a_picture_and_overlap(grid: tuple[int, int], size_hw: tuple[int, int]) -> None:
    seen = np.zeros((*size_hw, 3), np.uint8)
    tiles = Tiles(*grid).cut(Frame(seen, 0, 0.0, 0.0, 0.0, "x"))
    assert len(tiles) == grid[0] * grid[1]
    for tile in tiles:
        assert tile.image_bgr.size
        tile.image_bgr[...] += 1  # views: nothing is copied
    assert seen.min() >= 1
    if min(size_hw) > 30:
        assert seen.max() > 1
        shares = {tile.image_bgr.shape[0] / size_hw[0] for tile in tiles}
        assert max(shares) == pytest.approx(1 / (grid[1] - (grid[1] - 1) * 0.2), abs=0.03)


def test_a_small_thing_is_found_in_its_tile_and_large_ones_as_before(
    engine: Path, tmp_path: Path
) -> None:
    clip = write_video(tmp_path / "c.mp4", [corner(40)] * 12)
    plain = results(engine, clip, IntakeSettings(thresholds={"red": 0.4}))[5].prediction
    tiled = results(engine, clip, IntakeSettings(tiles="2x2", thresholds={"red": 0.4}))[
        5
    ].prediction
    assert {item.label for item in plain.labels} == {"red"}
    assert [item.label for item in tiled.labels] == ["green", "red"]
    assert tiled.scores[1] > 0.7
    assert (tiled.scores >= plain.scores - 1e-6).all()


def test_tiles_are_cut_from_the_region(engine: Path, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "c.mp4", [corner(40)] * 12)
    found = results(engine, clip, IntakeSettings(tiles="2x2", region=LEFT))[5]
    assert found.prediction.scores[1] < 0.1  # the corner is outside
    assert found.frame.image_bgr.shape == (80, 80, 3)


def test_the_price_is_counted_and_events_are_the_same(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "c.mp4", [corner(40)] * 12)
    backend = SlowBackend()
    recognizer = recognizer_of(backend)
    found = results(recognizer, clip, IntakeSettings(tiles="2x2"))
    assert len(found) == 12
    assert sum(backend.batches) == 12 * 5
    assert [result.frame.index for result in found] == [*range(12)]


def test_a_number_that_is_missing_in_one_tile_makes_the_frame_invalid() -> None:
    good = Prediction(np.array([0.2, 0.8], np.float32), (), Latency(1, 2, 3, 4), 5.0)
    bad = replace(good, scores=np.array([np.nan, 0.1], np.float32), valid=False)
    both = combined([good, replace(good, scores=np.array([0.9, 0.1], np.float32))])
    assert both.scores.tolist() == pytest.approx([0.9, 0.8])
    assert both.latency_ms == Latency(1, 4, 6, 8)  # of the whole frame
    assert not combined([good, bad]).valid
    assert math.isnan(combined([good, bad]).scores[0])
    assert combined([good]) is good


def test_an_engine_that_is_tried_looks_at_the_same(engine: Path, tmp_path: Path) -> None:
    """At the region and its tiles, and not at the whole picture."""
    clip = write_video(tmp_path / "c.mp4", [corner(40)] * 12)
    settings = IntakeSettings(tiles="2x2", region=LEFT, labels=("red", "green"))
    with Recognizer.from_engine(engine) as recognizer, Streams(recognizer) as streams:
        streams.add(clip, name="x", intake=settings)
        result = next(streams.results())
        tried = streams.look("x", recognizer, result.frame)
    assert tried.scores.tolist() == result.prediction.scores.tolist()
    assert tried.labels == result.prediction.labels


def test_the_summary_says_the_price(engine: Path, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "c.mp4", [corner()] * 5)
    done = run("label", clip, "--engine", engine, "--tiles", "3x2")
    assert done.returncode == 0
    assert "the model runs 7 times a frame, for the tiles" in done.stdout
