"""`cmlr_edge._cuda` by the CPU's operators, on the made-up GPU: wrong by FAKE_ERROR, if that is set."""

from __future__ import annotations

import ctypes
import os

import numpy as np
from cuda.bindings import runtime as cudart

from cmlr_edge import _native
from cmlr_edge.model.spec import PreprocessSpec
from cmlr_edge.preprocess import preprocess

_ERROR = float(os.environ.get("FAKE_ERROR", "0"))


def _array(address, shape, dtype):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype).reshape(shape)


def attention(
    *, element, out, batches, queries, tokens, dim, num_heads, scale, stream, **addresses
):
    def run():
        assert addresses["key_bias"] == 0
        rows = (queries, tokens, tokens)
        inputs = [
            _array(addresses[name], (batch, count, dim), element).astype(np.float32)
            for name, batch, count in zip(("query", "key", "value"), batches, rows, strict=True)
        ]
        result = _native.attention(*inputs, num_heads=num_heads, scale=scale) + _ERROR
        _array(out, result.shape, element)[:] = result

    cudart.put(stream, run)


def resize_frame(*, format, pixels, chroma, size_hw, out, out_hw, stream):
    def run():
        assert (format, chroma) == ("bgr", 0)
        image = _array(pixels, (*size_hw, 3), np.uint8)
        result = preprocess(image, PreprocessSpec(tuple(out_hw), (0.0,) * 3, (1.0,) * 3))
        _array(out, result.shape, np.uint8)[:] = result + np.uint8(np.ceil(_ERROR) * 2)

    cudart.put(stream, run)
