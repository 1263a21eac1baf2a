"""`provider="auto"`: the fastest provider that computes what the model should, measured once.

Every provider that the installed runtimes offer is loaded in turn, for two engines alive at once
disturb each other. One that fails the golden self-test, or whose label decisions differ from those of
the first, is not taken however fast it is. The result is kept per model, processor and versions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cmlr_edge.backends import find_providers, load_backend
from cmlr_edge.backends.golden import check_golden, golden_frames
from cmlr_edge.errors import CmlrError, EngineError
from cmlr_edge.machine.facts import cpu_name, runtime_versions, usable_cores
from cmlr_edge.model.agreement import MAX_SHARE, Agreement
from cmlr_edge.model.files import sha256_of
from cmlr_edge.model.spec import BuiltFile, ModelSpec
from cmlr_edge.model.strict_json import read_json, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cmlr_edge.backends.base import Backend

_CACHE = Path(".cache") / "cmlr_edge" / "providers"  # in the user's home
_CHECK_FRAMES = 16
_MIN_RUNS, _MIN_SECONDS = 20, 0.4
_WORTH = 0.95  # of the time of the best so far: less is noise, and the earlier provider stays
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """One provider, as it was found."""

    provider: str
    latency_ms: float | None  # of one frame, median; None where it cannot be taken
    reason: str  # why not, else ""


@dataclass(frozen=True)
class Choice:
    """What is taken, and everything it was chosen from."""

    provider: str
    candidates: tuple[Candidate, ...]

    @property
    def reason(self) -> str:
        """One line for people."""
        return "; ".join(
            f"{c.provider} {c.reason}"
            if c.latency_ms is None
            else f"{c.provider} {c.latency_ms:.2f} ms"
            for c in self.candidates
        )


def resolve_provider(
    path: Path, content: bytes, spec: ModelSpec, built: BuiltFile, provider: str | None
) -> tuple[str | None, str]:
    """Turn "auto" into a provider, and say why; leave any other as it is.

    An engine of TensorRT names its device itself.
    """
    if provider != "auto":
        return provider, ""
    if path.suffix != ".onnx":
        return None, ""
    choice = choose_provider(path, content, spec, built)
    return choice.provider, f"; auto took {choice.provider} of: {choice.reason}"


def choose_provider(
    path: Path, content: bytes, spec: ModelSpec, built: BuiltFile, *, cache: Path | None = None
) -> Choice:
    """Look the choice up, or measure for a few seconds and remember it.

    Args:
        path: Of the model file, for its suffix and for messages.
        content: Its bytes.
        spec: For thresholds and the input size.
        built: For the golden sample.
        cache: Folder of the remembered choices, instead of ~/.cache/cmlr_edge/providers.

    Raises:
        EngineError: No provider can run the model; every reason is in the message.
    """
    providers = find_providers()
    file = (cache or Path.home() / _CACHE) / f"{_key(spec, built, providers)}.json"
    choice = _remembered(file, providers)
    if choice is None:
        choice = _measure(path, content, spec, built, providers)
        _remember(file, choice)
        _log.info("provider auto takes %s of: %s", choice.provider, choice.reason)
    return choice


def _key(spec: ModelSpec, built: BuiltFile, providers: list[str]) -> str:
    facts = [
        built.sha256,
        spec.thresholds,
        cpu_name(),
        usable_cores(),
        runtime_versions(),
        providers,
    ]
    return sha256_of(repr(facts).encode())[:32]


def _remembered(file: Path, providers: list[str]) -> Choice | None:
    try:
        choice = read_json(file, Choice)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _log.warning("measuring again, %s cannot be read: %s", file, error)
        return None
    return choice if choice.provider in providers else None


def _remember(file: Path, choice: Choice) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, choice)
    except OSError as error:
        _log.warning("the measured choice of a provider is not kept: %s", error)


def _measure(
    path: Path, content: bytes, spec: ModelSpec, built: BuiltFile, providers: list[str]
) -> Choice:
    size_hw = spec.preprocess.size_hw
    frames = np.concatenate([golden_frames(seed, size_hw) for seed in range(_CHECK_FRAMES)])
    expected: NDArray[np.float32] | None = None

    def try_one(provider: str) -> float:
        nonlocal expected
        backend = load_backend(path, content, provider=provider)
        try:
            check_golden(backend, built.golden, size_hw, provider=provider)
            scores = np.concatenate([backend.infer(frames[i : i + 1]) for i in range(len(frames))])
            expected = scores if expected is None else expected
            _check_decisions(scores, expected, spec, built.precision)
            return _time(backend, frames[:1])
        finally:
            backend.close()

    candidates = [_explain_failure(provider, try_one) for provider in providers]
    choice = Choice(_fastest(candidates), tuple(candidates))
    if not choice.provider:
        raise EngineError(
            f"no provider can run {path.name}: {choice.reason or 'none is installed'}"
        )
    return choice


def _explain_failure(provider: str, try_one: Callable[[str], float]) -> Candidate:
    try:
        return Candidate(provider, try_one(provider), "")
    except CmlrError as error:
        return Candidate(provider, None, " ".join(str(error).split())[:200])


def _check_decisions(
    scores: NDArray[np.float32], expected: NDArray[np.float32], spec: ModelSpec, precision: str
) -> None:
    thresholds = np.asarray(spec.thresholds, np.float32)
    found = Agreement.of(spec.labels, expected >= thresholds, scores >= thresholds)
    if objections := found.objections(MAX_SHARE[precision]):
        raise EngineError("; ".join(objections))


def _time(backend: Backend, frame: NDArray[np.uint8]) -> float:
    """Median latency of one frame in ms."""
    times: list[float] = []
    while len(times) < _MIN_RUNS or sum(times) < _MIN_SECONDS:
        start = time.perf_counter()
        backend.infer(frame)
        times.append(time.perf_counter() - start)
    return round(float(np.median(times)) * 1e3, 4)


def _fastest(candidates: list[Candidate]) -> str:
    best, best_ms = "", float("inf")
    for candidate in candidates:
        if candidate.latency_ms is not None and candidate.latency_ms < _WORTH * best_ms:
            best, best_ms = candidate.provider, candidate.latency_ms
    return best
