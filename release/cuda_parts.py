"""Loads the CUDA parts of the installed package where there is no GPU; prints JSON. Runs on the device."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import cmlr_edge
from cmlr_edge import _cuda  # only where it was compiled

_SIZES = {"batches": (1, 2, 2), "queries": 3, "tokens": 4, "dim": 64, "scale": 1.0, "stream": 0}
_ADDRESSES = {"query": 4096, "key": 4096, "value": 4096, "key_bias": 0, "out": 4096}


def refusal(element: str, num_heads: int) -> str:
    """What the kernels' launcher says to these arguments, or to there being no GPU."""
    arguments: dict[str, Any] = {**_SIZES, **_ADDRESSES}
    try:
        _cuda.attention(element=element, num_heads=num_heads, **arguments)
    except (RuntimeError, ValueError) as error:
        return str(error)
    raise SystemExit("a launch without a GPU was not refused")


def creators() -> int:
    """How many plugins the library offers to TensorRT."""
    plugin = ctypes.CDLL(str(Path(cmlr_edge.__file__).with_name("libcmlr_plugin.so")))
    count = ctypes.c_int32(-1)
    plugin.getCreators.restype = ctypes.c_void_p
    if not plugin.getCreators(ctypes.byref(count)):
        raise SystemExit("the plugin offers nothing")
    return count.value


def main() -> None:
    """Print what both say."""
    arguments = [("int8", 2), ("float16", 3), ("float32", 2)]
    record = {"refusals": [refusal(*one) for one in arguments], "plugins": creators()}
    print(json.dumps(record))  # noqa: T201


if __name__ == "__main__":
    main()
