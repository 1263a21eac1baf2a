"""What explanations cost: a network exported without them, with them and not asked, and asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.intervals import t_interval
from cmlr_edge.backends import load_backend
from cmlr_edge.backends.base import ExplainingBackend
from cmlr_edge.model.spec import PreprocessSpec
from export.onnx_graph import export_explained, export_fused
from export.verify import synthetic_frames
from train.network.model import CausalRecognizer
from train.settings import build_config

LABELS, _SIDE = 80, 224
_CALLS = 9  # of a turn


def run_cost(rounds: int) -> dict[str, Any]:
    """Time EfficientNet-Lite0 with 80 labels, the three in turn, in milliseconds a picture."""
    torch.manual_seed(0)
    settings = [f"model.image_size={_SIDE}", "model.inference_context=own"]
    model = CausalRecognizer(build_config({}, settings).model, LABELS, pretrained=False).eval()
    spec = PreprocessSpec((_SIDE, _SIDE), mean=model.backbone.mean, std=model.backbone.std)
    plain, _ = export_fused(model, spec)
    explained, _, _ = export_explained(model, spec)
    files = {"without": plain.SerializeToString(), "with": explained.SerializeToString()}
    found: dict[str, Any] = {"bytes": {name: len(content) for name, content in files.items()}}
    for provider in ("cpu", "openvino"):
        found[provider] = _time(files, provider, synthetic_frames(spec.size_hw, 1), rounds)
    return found


def _time(files: dict[str, bytes], provider: str, frames: Any, rounds: int) -> dict[str, Any]:
    without, asked = (
        load_backend(Path("model.onnx"), files[name], provider=provider)
        for name in ("without", "with")
    )
    assert isinstance(asked, ExplainingBackend)
    runs: dict[str, Callable[[Any], Any]] = {
        "exported without": without.infer,
        "not asked": asked.infer,
        "asked": asked.explain,
    }
    equal = bool((without.infer(frames) == asked.infer(frames)).all())
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        order = [*runs.items()]
        for name, run in order[number % 3 :] + order[: number % 3]:
            times[name].append(_turn(partial(run, frames)))
    without.close()
    asked.close()
    base = np.array(times["exported without"])
    ratios = {name: np.log(np.array(values) / base) for name, values in times.items()}
    return {
        "scores_bit_equal": equal,
        "rounds": rounds,
        **{
            name: {
                "median_ms": float(np.median(values)),
                # Of turns that followed each other: what else the machine does is in both.
                "median_ratio": float(np.exp(np.median(ratios[name]))),
                "interval": [float(end) for end in np.exp(t_interval(ratios[name]))],
            }
            for name, values in times.items()
        },
    }


def _turn(run: Callable[[], Any]) -> float:
    """Milliseconds of a picture, the median of some in a row.

    Threads of the engine before spin on the cores for a while, and its weights fill the caches.
    """
    time.sleep(0.01)
    run()
    times: list[float] = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return float(np.median(times))
