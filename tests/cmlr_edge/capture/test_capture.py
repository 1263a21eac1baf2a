from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as PilImage

from cmlr_edge import open_source
from cmlr_edge.capture.images import read_image
from cmlr_edge.capture.live import LiveSettings
from cmlr_edge.errors import CaptureError
from tests.conftest import solid, write_video


def test_a_video_gives_every_frame_in_order_with_its_time(tmp_path: Path) -> None:
    shades = [solid(10 * i, 10 * i, 10 * i) for i in range(12)]
    path = write_video(tmp_path / "shades.avi", shades, fps=5)
    with open_source(path) as frames:
        assert frames.fps == 5
        assert frames.num_frames == 12
        got = list(frames)
    assert [frame.index for frame in got] == list(range(12))
    assert [frame.time_s for frame in got] == pytest.approx([i / 5 for i in range(12)])
    assert [int(frame.image_bgr.mean()) for frame in got] == pytest.approx(
        [10 * i for i in range(12)], abs=3
    )


def test_a_folder_gives_its_pictures_by_name_and_nothing_else(tmp_path: Path) -> None:
    for name, shade in [("b.png", 20), ("a.JPG", 10), ("c.bmp", 30)]:
        cv2.imwrite(str(tmp_path / name), solid(shade, shade, shade))
    (tmp_path / "notes.txt").write_text("no picture")
    with open_source(tmp_path) as frames:
        got = list(frames)
    assert [Path(frame.source).name for frame in got] == ["a.JPG", "b.png", "c.bmp"]
    assert [frame.time_s for frame in got] == [None] * 3
    assert [int(frame.image_bgr.mean()) for frame in got] == [10, 20, 30]


def test_a_glob_and_a_single_picture_are_sources(tmp_path: Path) -> None:
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), solid(i, i, i))
    with open_source(str(tmp_path / "[01].png")) as frames:
        assert frames.num_frames == len(list(frames)) == 2
    with open_source(tmp_path / "2.png") as frames:
        assert frames.num_frames == 1


def test_pictures_of_every_depth_become_bgr_bytes(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((5, 4), 77, np.uint8))
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((5, 4, 3), 128 * 256, np.uint16))
    cv2.imwrite(str(tmp_path / "alpha.png"), np.full((5, 4, 4), 99, np.uint8))
    for name, value in [("grey", 77), ("deep", 128), ("alpha", 99)]:
        image = read_image(tmp_path / f"{name}.png")
        assert image.dtype == np.uint8
        assert image.shape == (5, 4, 3)
        assert (image == value).all()


def test_the_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = PilImage.Exif()
    exif[0x0112] = 6  # turn right by 90 degrees to show
    PilImage.new("RGB", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (40, 20, 3)


def make_bad_sources(folder: Path) -> dict[str, str]:
    (folder / "text.mp4").write_text("this is not a video")
    (folder / "empty.mp4").touch()
    (folder / "text.jpg").write_text("this is not a picture")
    (folder / "nothing").mkdir()
    return {
        "missing.mp4": "there is no",
        "text.mp4": "not a video",
        "empty.mp4": "not a video",
        "text.jpg": "not a picture",
        "nothing": "holds no pictures",
        "*.png": "no picture",
    }


@pytest.mark.parametrize(
    "name", ["missing.mp4", "text.mp4", "empty.mp4", "text.jpg", "nothing", "*.png"]
)
def test_a_bad_source_is_one_error_that_says_what_is_wrong(tmp_path: Path, name: str) -> None:
    expected = make_bad_sources(tmp_path)[name]
    with pytest.raises(CaptureError, match=expected), open_source(tmp_path / name) as frames:
        list(frames)


@pytest.mark.parametrize("uri", ["ftp://user:secret@host/clip.mp4", "srt://host?passphrase=secret"])
def test_schemes_that_are_not_supported_are_named_without_their_password(uri: str) -> None:
    with pytest.raises(CaptureError, match=uri.split(":", maxsplit=1)[0]) as caught:
        open_source(uri)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("camera", [9, "9", "/dev/video9", "v4l2:///dev/video9"])
def test_a_camera_that_is_not_there_is_awaited_and_says_what_to_check(camera: int | str) -> None:
    if Path("/dev/video9").exists():
        pytest.skip("this machine has ten cameras")
    settings = LiveSettings(first_frame_timeout_s=0.1)
    source = open_source(camera, live=settings)
    with source, pytest.raises(CaptureError, match="no such device"):
        list(source)


def test_a_video_cut_short_gives_what_is_there_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(40)]
    path = write_video(tmp_path / "whole.avi", noise)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with caplog.at_level(logging.WARNING), open_source(path) as frames:
        count, expected = len(list(frames)), frames.num_frames
    assert 5 < count < 35
    if expected is not None and expected > count:
        assert "may be cut short" in caplog.text


@pytest.mark.parametrize(
    ("source", "word"),
    [
        (-1, "index from 0"),
        (2**31, "index from 0"),
        ("9" * 30, "index from 0"),
        ("", "empty"),
        ("x" * 5000, "too long"),
    ],
)
def test_sources_that_cannot_exist_are_refused_before_opencv_sees_them(
    source: int | str, word: str
) -> None:
    with pytest.raises(CaptureError, match=word):
        open_source(source)


@pytest.mark.parametrize("name", ["x:y.avi", "a=b c:ü.avi", "p%d.avi"])
def test_a_video_of_an_odd_name_in_the_current_folder_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_video(tmp_path / "v.avi", [solid(1, 2, 3)] * 3).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with open_source(name) as source:
        assert (source.name, len([*source])) == (name, 3)
