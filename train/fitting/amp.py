"""Mixed precision where it helps: measured, because a CPU without bf16 units is slower with it."""

from __future__ import annotations

import copy
import logging
import time

import torch
from torch import nn

from train import distributed

_GAIN = 0.85  # bf16 is taken only if it needs at most this share of the float32 time
_PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)
_found: dict[tuple[int, tuple[tuple[torch.Size, bool], ...]], bool] = {}
_log = logging.getLogger(__name__)


def choose_precision(mode: str, backbone: nn.Module, image_size: int) -> torch.dtype:
    """Decide what convolutions and products are computed in, the same for all processes.

    Args:
        mode: "off", "bf16", "fp16", or "auto": on a GPU bf16 where it has it, else fp16; on a CPU
            bf16 where a timed step gains by it.
        backbone: Takes (B, 3, S, S).
        image_size: S.
    """
    if mode in {"off", "bf16", "fp16"}:
        return _PRECISIONS[("off", "bf16", "fp16").index(mode)]
    if distributed.device().type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    fast = distributed.decide(lambda: int(gains(backbone, image_size)))
    return torch.bfloat16 if fast else torch.float32


def has_bfloat16() -> bool:
    """Whether this processor computes in bfloat16; elsewhere it is emulated, and far slower than float32."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def gains(backbone: nn.Module, image_size: int) -> bool:
    """Whether a CPU is to compute in bfloat16: time one step each way, where the processor can do both.

    What was found of a network holds for all of its shape: those that are compared compute alike.

    Args:
        backbone: Takes (B, 3, S, S); a copy of it is timed.
        image_size: S.
    """
    if not has_bfloat16():
        # Emulated: a step took 46 times as long as in float32, minutes to learn what is known.
        _log.info("training computes in float32: this processor has no bfloat16")
        return False
    shapes = tuple((weight.shape, weight.requires_grad) for weight in backbone.parameters())
    if (image_size, shapes) not in _found:
        _found[image_size, shapes] = _measure(backbone, image_size)
    return _found[image_size, shapes]


def _measure(backbone: nn.Module, image_size: int) -> bool:
    # Noise in training mode would spoil batch norm, and drawing it would move the run's own stream.
    timed = copy.deepcopy(backbone).eval()
    shape, generator = (4, 3, image_size, image_size), torch.Generator().manual_seed(0)
    images = torch.randn(shape, generator=generator).contiguous(memory_format=torch.channels_last)
    _log.info("trying which is faster here, float32 or bfloat16")
    times = {flag: _time_step(timed, images, autocast=flag) for flag in (False, True)}
    faster = times[True] < _GAIN * times[False]
    _log.info(
        "training computes in %s: a step of 4 pictures takes %.2f s in float32, %.2f s in bfloat16",
        "bfloat16" if faster else "float32",
        times[False],
        times[True],
    )
    return faster


def _time_step(backbone: nn.Module, images: torch.Tensor, *, autocast: bool) -> float:
    best = float("inf")
    for _ in range(2):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            total = backbone(images).float().square().mean()
        if total.requires_grad:
            total.backward()
        best = min(best, time.perf_counter() - start)
    return best
