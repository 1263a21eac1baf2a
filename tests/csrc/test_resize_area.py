"""Area means: the bytes of OpenCV's INTER_AREA, and the formula."""

from __future__ import annotations

import mmap
import os
import platform
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cmlr_edge._native import resize_area, resize_instruction_sets

Image = NDArray[np.uint8]
SIZES = [
    ((480, 640), (224, 224)),
    ((480, 640), (448, 448)),
    ((720, 1280), (320, 320)),
    ((333, 517), (100, 200)),
    ((227, 225), (224, 224)),
    ((50, 50), (7, 9)),
    ((480, 640), (480, 300)),
    ((500, 640), (224, 640)),
    ((3, 5), (2, 3)),
    ((61, 643), (60, 641)),
    ((48, 700), (16, 126)),
]


def draw(size_hw: tuple[int, int], seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), np.uint8)


def resized(
    image: Image,
    size_hw: tuple[int, int],
    *,
    swap: bool = False,
    instruction_set: str | None = None,
) -> Image:
    out = np.empty((*size_hw, 3), np.uint8)
    resize_area(image, out, swap_channels=swap, instruction_set=instruction_set)
    return out


def overlaps(size: int, outputs: int) -> NDArray[np.float64]:
    """(outputs, size): the share of each output that each source pixel covers."""
    edges = np.arange(outputs + 1) * size / outputs
    pixels = np.arange(size)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(covered, 0, None) * outputs / size


@pytest.mark.parametrize(("size", "wanted"), SIZES)
def test_the_bytes_are_those_of_opencv(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    image = draw(size)
    expected = cv2.resize(image, wanted[::-1], interpolation=cv2.INTER_AREA)
    actual = resized(image, wanted)
    # Elsewhere OpenCV's compiler may fuse multiply and add, which rounds some ties otherwise.
    allowed = 0 if platform.machine() == "x86_64" else 1
    np.testing.assert_allclose(actual.astype(int), expected.astype(int), rtol=0, atol=allowed)
    np.testing.assert_array_equal(resized(image, wanted, swap=True), actual[..., ::-1])


@pytest.mark.parametrize("name", resize_instruction_sets())
@pytest.mark.parametrize(("size", "wanted"), SIZES)
def test_every_instruction_set_gives_the_same_bytes(
    size: tuple[int, int], wanted: tuple[int, int], name: str
) -> None:
    image = draw(size, seed=2)
    for swap in (False, True):
        actual = resized(image, wanted, swap=swap, instruction_set=name)
        np.testing.assert_array_equal(
            actual, resized(image, wanted, swap=swap, instruction_set="plain")
        )


def test_nothing_behind_the_last_pixel_is_read(tmp_path: Path) -> None:
    """The image ends where a page does, and touching the next one would end the process."""
    page, (height, width) = mmap.PAGESIZE, (8, 170)
    file = tmp_path / "pixels"
    file.write_bytes(draw((2, page)).tobytes()[: 2 * page])
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 2 * page) as mapped:
        os.truncate(opened.fileno(), page)
        size = height * width * 3
        image = np.frombuffer(mapped, np.uint8, size, page - size).reshape(height, width, 3)
        for name in resize_instruction_sets():
            resized(image, (5, 68), instruction_set=name)
        del image  # mapped cannot be closed before


def test_an_instruction_set_of_another_machine_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no instruction set sve here, there are .*plain"):
        resized(draw((8, 9)), (4, 4), instruction_set="sve")


@pytest.mark.parametrize(("size", "wanted"), SIZES)
def test_every_pixel_is_the_mean_of_what_it_covers(
    size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    image = draw(size, seed=1)
    rows, columns = overlaps(size[0], wanted[0]), overlaps(size[1], wanted[1])
    mean = np.einsum("ah,hwc,bw->abc", rows, image.astype(np.float64), columns, optimize=True)
    # Overlaps below a thousandth of a pixel are not looked at.
    np.testing.assert_allclose(resized(image, wanted), mean, atol=0.5 + 255e-3)


def test_a_cut_out_is_read_in_place_and_nothing_around_it() -> None:
    around = draw((100, 120))
    image = around[10:70, 20:101]
    np.testing.assert_array_equal(
        resized(image, (24, 32)), resized(np.ascontiguousarray(image), (24, 32))
    )


def test_sizes_may_change_from_call_to_call() -> None:
    first = resized(draw((90, 70)), (30, 40))
    resized(draw((33, 44)), (16, 16))
    np.testing.assert_array_equal(resized(draw((90, 70)), (30, 40)), first)


@pytest.mark.parametrize(
    ("image", "out", "word"),
    [
        (draw((8, 8)), np.empty((9, 4, 3), np.uint8), "cannot shrink 8 x 8 pixels to 9 x 4"),
        (draw((8, 8)).astype(np.float32), np.empty((4, 4, 3), np.uint8), "source .* float32"),
        (draw((8, 8))[:, ::2], np.empty((4, 4, 3), np.uint8), "pixels in a row"),
        (draw((8, 8)), np.empty((4, 4, 4), np.uint8), "out should be"),
        (draw((8, 8)), np.empty((8, 4, 3), np.uint8)[::2], "contiguous"),
    ],
)
def test_what_cannot_be_shrunk_is_named(image: Image, out: Image, word: str) -> None:
    with pytest.raises((TypeError, ValueError), match=word):
        resize_area(image, out, swap_channels=False)


def test_rows_are_not_written_through_a_read_only_array() -> None:
    out = np.zeros((4, 4, 3), np.uint8)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="not writeable"):
        resize_area(draw((8, 9)), out, swap_channels=False)
