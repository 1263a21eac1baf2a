"""One provider tried on one model: what it scores and how long it takes, in a process of its own.

A runtime may crash on a model, hang or eat all memory; that costs its candidate, never the caller.
Two engines alive at once disturb each other, so providers are tried one after the other.
"""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cmlr_edge.backends import load_backend
from cmlr_edge.backends.golden import golden_frames
from cmlr_edge.errors import CmlrError, EngineError
from cmlr_edge.machine.child import python_command, run_limited
from cmlr_edge.machine.memory_bound import memory_for
from cmlr_edge.model.files import require_unchanged
from cmlr_edge.model.strict_json import from_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cmlr_edge.backends.base import Backend

LIMIT_S = 30.0  # for one provider, its start and the loading of the model included
# Beside the golden one; always as many, for what is decided hangs on them. Blocks are far from any photo and
# move scores more than photos do: alone they refuse what decides alike on photos.
_BLOCKS, _SCENES = 2, 6
_MIN_SECONDS = 0.3  # of frames, for the time of one
_MOST_RUNS = 200


@dataclass(frozen=True)
class Trial:
    """What a provider did; scores (9, L), the golden sample first."""

    scores: tuple[tuple[float, ...], ...]
    latency_ms: float


def try_provider(
    path: Path, sha256: str, provider: str, golden_seed: int, size_hw: tuple[int, int]
) -> Trial:
    """Try a provider in a child process.

    Args:
        path: Of the model file.
        sha256: Of its content, as its spec says.
        provider: As for `load_backend`.
        golden_seed: Of the golden sample.
        size_hw: The model's input size.

    Raises:
        EngineError: It cannot run the model, crashed, took too much memory, or longer than LIMIT_S.
    """
    arguments = (str(path), sha256, provider, str(golden_seed), *map(str, size_hw))
    command = python_command(__name__, main.__name__, *arguments)
    memory = memory_for(path.stat().st_size)
    ended = run_limited(command, timeout_s=LIMIT_S, memory=memory)
    if ended.error:
        raise EngineError(ended.error)
    try:
        return from_json(Trial, json.loads(ended.output.splitlines()[-1]))
    except (IndexError, ValueError) as error:
        raise EngineError(f"gave no answer that can be read: {ended.output[-100:]!r}") from error


def main(path: str, sha256: str, provider: str, seed: str, height: str, width: str) -> str | None:
    """What the child does: print a `Trial`, or return why there is none."""
    size_hw = int(height), int(width)
    frames = check_frames(int(seed), size_hw)
    try:
        content = Path(path).read_bytes()
        require_unchanged(Path(path), content, sha256)
        with closing(load_backend(Path(path), content, provider=provider)) as backend:
            trial = _run(backend, frames)
    except (CmlrError, OSError) as error:
        return " ".join(str(error).split())
    print(json.dumps(asdict(trial)))  # noqa: T201 (to the parent)
    return None


def check_frames(golden_seed: int, size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """The golden sample, blocks of colours, and blurred scenes: uint8 (9, *size_hw, 3), RGB."""
    seeds = [golden_seed, *(golden_seed + 1 + i for i in range(_BLOCKS))]
    blocks = [golden_frames(seed, size_hw) for seed in seeds]
    scenes = [_scene(i, size_hw)[None] for i in range(_SCENES)]
    return np.concatenate([*blocks, *scenes])


def _scene(seed: int, size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Noise that falls with frequency as photos do, the sharper the higher the seed, mostly grey."""
    rng, (height, width) = np.random.default_rng(seed), size_hw
    down = np.fft.fftfreq(height)[:, None] * height
    frequencies = np.hypot(down, np.fft.rfftfreq(width) * width).clip(1)
    waves = rng.standard_normal((2, 3, *frequencies.shape)) / frequencies ** (2 - seed / _SCENES)
    planes = np.fft.irfft2(waves[0] + 1j * waves[1], s=size_hw)
    light, *colors = planes / planes.std(axis=(1, 2), keepdims=True).clip(1e-9)
    shares = ((1, 0.5, 0.2), (1, 0, -0.4), (1, -0.5, 0.2))
    rgb = np.stack([a * light + b * colors[0] + c * colors[1] for a, b, c in shares], axis=-1)
    return np.clip(rng.uniform(90, 150) + 55 * rgb, 0, 255).astype(np.uint8)


def _run(backend: Backend, frames: NDArray[np.uint8]) -> Trial:
    """Every frame once, then again until there is a time to rely on; the first two warm up."""
    scores: list[tuple[float, ...]] = []
    times: list[float] = []
    while len(times) < len(frames) or (sum(times) < _MIN_SECONDS and len(times) < _MOST_RUNS):
        index, start = len(times) % len(frames), time.perf_counter()
        found = backend.infer(frames[index : index + 1])
        times.append(time.perf_counter() - start)
        if len(scores) < len(frames):
            scores.append(tuple(found[0].tolist()))
    # What else runs here adds to some of the runs, and takes from none.
    return Trial(tuple(scores), round(float(np.quantile(times[2:], 0.25)) * 1e3, 4))
