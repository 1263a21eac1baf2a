"""Pictures that are too large are refused by their header, before memory is spent on them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PilImage

from cmlr_edge import open_source
from cmlr_edge.capture.bounds import MAX_STREAM_PIXELS, check_size, encoded_size
from cmlr_edge.errors import CaptureError
from tests.cmlr_edge.capture.films import packets, shade, write_film

BOMB = Path(__file__).with_name("bomb.py")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "exif": b"Exif\0\0" + b"\xff" * 3000}),
        ("PNG", {}),
        ("BMP", {}),
        ("GIF", {}),
        ("WebP", {"lossless": True}),
        ("WebP", {"lossless": False}),
        ("TIFF", {}),
        ("TIFF", {"big_endian": True}),
    ],
)
def test_the_size_stands_in_the_header(kind: str, options: dict[str, object]) -> None:
    file = io.BytesIO()
    image = PilImage.new("I;16B", (321, 123)) if options.pop("big_endian", 0) else None
    image = image or PilImage.new("RGB", (321, 123), (9, 99, 200))
    image.save(file, kind, **options)
    content = file.getvalue()
    assert encoded_size(content) == (321, 123)
    for length in range(min(len(content), 300)):
        assert encoded_size(content[:length]) in {None, (321, 123)}
    picture_with_alpha = io.BytesIO()
    PilImage.new("RGBA", (70, 50)).save(picture_with_alpha, "WebP", exif=b"Exif\0\0x")
    assert encoded_size(picture_with_alpha.getvalue()) == (70, 50)


@given(st.sampled_from([b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF89a", b"RIFF1234WEBPVP8X",
                        b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]), st.binary(max_size=80))  # fmt: skip
def test_no_header_is_an_exception(start: bytes, rest: bytes) -> None:
    encoded_size(start + rest)


def test_a_size_beyond_the_bound_is_named() -> None:
    check_size(7680, 4320, MAX_STREAM_PIXELS, "it sends pictures")
    with pytest.raises(CaptureError, match=r"it sends pictures of 16000 x 16000 pixels"):
        check_size(16000, 16000, MAX_STREAM_PIXELS, "it sends pictures")


def huge(path: Path) -> Path:
    """A film whose header says 16000 x 16000."""
    write_film(path, [shade(20)] * 3, codec="mpeg4")
    content = bytearray(path.read_bytes())
    for side in (128, 96):  # in the sample description
        at = content.index(b"mp4v") + 4 + 24 + (2 if side == 96 else 0)
        assert int.from_bytes(content[at : at + 2], "big") == side
        content[at : at + 2] = (16000).to_bytes(2, "big")
    path.write_bytes(content)
    return path


def test_a_film_that_says_it_is_huge_is_refused_or_is_not_huge(tmp_path: Path) -> None:
    with open_source(huge(tmp_path / "a.mp4")) as source:  # its pictures are as before
        assert [frame.image_bgr.shape for frame in source] == [(96, 128, 3)] * 3
    path = write_film(tmp_path / "b.avi", [shade(20)] * 3, codec="mjpeg", pix_fmt="yuvj420p")
    content = path.read_bytes()
    sizes = content[content.index(b"\xff\xc0") + 5 :][:4]
    path.write_bytes(content.replace(sizes, (16000).to_bytes(2, "big") * 2))
    with pytest.raises(CaptureError, match="not a video"):
        open_source(path)


def test_a_film_that_becomes_huge_is_damaged_there_and_goes_on(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.avi", [shade(20)] * 20, codec="mjpeg", pix_fmt="yuvj420p")
    content = bytearray(path.read_bytes())
    position, size = packets(path)[10]
    at = content.index(b"\xff\xc0", position, position + size + 8)
    content[at + 5 : at + 9] = (16000).to_bytes(2, "big") * 2
    path.write_bytes(content)
    with open_source(path) as source:
        shapes = [frame.image_bgr.shape for frame in source]
        assert source.damaged == 1  # type: ignore[attr-defined]
    assert shapes == [(96, 128, 3)] * 19


@pytest.fixture(scope="module")
def huge_jpeg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16000 x 16000 pixels in 4 MB."""
    path = tmp_path_factory.mktemp("huge") / "huge.jpg"
    assert cv2.imwrite(str(path), np.full((16000, 16000, 3), 90, np.uint8))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("before", [0, 20])
@pytest.mark.parametrize("library", ["pyav", "opencv"])
def test_a_camera_that_sends_huge_pictures_costs_little_memory_and_says_why(
    huge_jpeg: Path, before: int, library: str
) -> None:
    done = subprocess.run(
        [sys.executable, str(BOMB), str(before), library, str(huge_jpeg)],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["peak_mb"] < (150 if library == "pyav" else 550)  # OpenCV makes them small again
    assert set(map(tuple, told["shapes"])) <= {(240, 320, 3)}
    if library == "pyav" or not before:
        assert "it sends pictures of 16000 x 16000 pixels" in told["reason"]
    assert np.array_equal(told["states"], sorted(set(told["states"])))
