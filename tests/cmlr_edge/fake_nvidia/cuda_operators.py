"""`cmlr_edge._cuda` by the CPU's operators, on the made-up GPU: wrong by FAKE_ERROR, if that is set.

With FAKE_FRAME_RUNNER, the program of the emulated frame kernel, frames are resized by that kernel.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import cv2
import numpy as np
from cuda.bindings import runtime as cudart

from cmlr_edge import _native
from cmlr_edge.model.spec import PreprocessSpec
from cmlr_edge.preprocess import preprocess

_ERROR = float(os.environ.get("FAKE_ERROR", "0"))


def _array(address, shape, dtype):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    cudart.require_allocated(address, size)
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype).reshape(shape)


def attention(
    *, element, out, batches, queries, tokens, dim, num_heads, scale, stream, key_bias, **addresses
):
    def run():
        rows = (queries, tokens, tokens)
        inputs = [
            _array(addresses[name], (batch, count, dim), element).astype(np.float32)
            for name, batch, count in zip(("query", "key", "value"), batches, rows, strict=True)
        ]
        bias = _array(key_bias, (tokens,), np.float32) if key_bias else None
        result = _native.attention(*inputs, num_heads=num_heads, scale=scale, key_bias=bias)
        _array(out, result.shape, element)[:] = result + _ERROR

    cudart.put(stream, run)


def _plane(address, shape, row_bytes):
    """Rows (H, bytes) that lie `row_bytes` apart; the last ends where it ends."""
    size = (shape[0] - 1) * row_bytes + shape[1]
    whole = _array(address, (size,), np.uint8)
    return np.lib.stride_tricks.as_strided(whole, shape, (row_bytes, 1)).copy()


def _emulated(program, image, format, out_hw, row):
    from tests.csrc.emulation.emulated_frames import EmulatedFrames

    padding = (row - 3 * image.shape[1], 0)
    return EmulatedFrames(program).resize([image], format, tuple(out_hw), padding=padding)


def resize_frame(
    *, format, pixels, chroma, size_hw, out, out_hw, stream, row_bytes=None, mean_std=None
):
    def run():
        height, width = size_hw
        packed = width if format == "nv12" else 3 * width
        rows = row_bytes or (packed, width)
        image = _plane(pixels, (height, packed), rows[0])
        if format == "nv12":
            pairs = _plane(chroma, (height // 2, width), rows[1]).reshape(height // 2, -1, 2)
            image = cv2.cvtColorTwoPlane(image, pairs, cv2.COLOR_YUV2RGB_NV12)
        image = image.reshape(height, width, 3)
        if (program := os.environ.get("FAKE_FRAME_RUNNER")) is not None:
            _array(out, (*out_hw, 3), np.uint8)[:] = _emulated(
                Path(program), image, format, out_hw, rows[0]
            )
            return
        spec = PreprocessSpec(tuple(out_hw), (0.0,) * 3, (1.0,) * 3)
        result = preprocess(image, spec, color="bgr" if format == "bgr" else "rgb")
        result = np.clip(result.astype(int) + np.ceil(_ERROR) * 2, None, 400)
        if mean_std is None:
            _array(out, result.shape, np.uint8)[:] = result.astype(np.uint8)
            return
        mean, std = (np.array(values)[:, None, None] for values in mean_std)
        result = (result.transpose(2, 0, 1) / 255 - mean) / std
        _array(out, result.shape, np.float32)[:] = result

    cudart.put(stream, run)
