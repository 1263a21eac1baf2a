"""Which provider runs an ONNX file where none is named: the fastest that computes what the model should.

Measured once per model, processor and versions, and remembered. A provider that fails the golden
self-test, or whose label decisions differ from those of the first, is not taken however fast it is.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from cmlr_edge.backends import OPENVINO, OPENVINO_BF16, find_providers
from cmlr_edge.backends.golden import require_golden
from cmlr_edge.backends.onnx_structure import check_structure
from cmlr_edge.engines.measuring import Trial, try_provider
from cmlr_edge.errors import CmlrError, EngineError
from cmlr_edge.machine.facts import cpu_name, runtime_versions, usable_cores
from cmlr_edge.machine.waiting import await_lock, while_waiting
from cmlr_edge.model.agreement import MAX_SHARE, Agreement
from cmlr_edge.model.files import sha256_of
from cmlr_edge.model.spec import BuiltFile, ModelSpec
from cmlr_edge.model.strict_json import read_json, write_json
from cmlr_edge.model.thresholds import reaches

if TYPE_CHECKING:
    from numpy.typing import NDArray

VARIABLE = "CMLR_PROVIDER"  # in the environment: the provider where none is named
_CACHE = Path("cmlr_edge") / "providers"  # in the user's folder of caches
_SMALL_BYTES = 2**20  # a network in so small a file is quicker run than measured
_WORTH = 0.95  # of the time of the best so far: less is noise, and the earlier provider stays
_SILENCE_S = 1.5  # of another process that measures, which shows many times a second that it lives
_LEFT_OUT = "left out: it computes the same in more time"
_log = logging.getLogger(__name__)
_in_process = threading.Lock()
_known: dict[str, Choice] = {}  # of this process, where nothing else can be kept


@dataclass(frozen=True)
class Candidate:
    """One provider, as it was found."""

    provider: str
    latency_ms: float | None  # of one frame; None where it cannot be taken
    reason: str  # why not, else ""


@dataclass(frozen=True)
class Choice:
    """What is taken, and everything it was chosen from."""

    provider: str  # "" if none can be
    candidates: tuple[Candidate, ...]

    @property
    def reason(self) -> str:
        """One line for people: what was measured, and what failed."""
        measured = {c.provider: c.latency_ms for c in self.candidates if c.latency_ms is not None}
        parts = [
            f"{c.provider} {c.reason}"
            if c.latency_ms is None
            else f"{c.provider} {c.latency_ms:.2f} ms"
            for c in self.candidates
            if c.reason != _LEFT_OUT
        ]
        quickest = min(measured.values(), default=0.0)
        if measured.get(self.provider, 0.0) > quickest:
            parts.append(f"less than {1 - _WORTH:.0%} faster counts as equal")
        return "; ".join(parts)


def resolve_provider(
    path: Path, content: bytes, spec: ModelSpec, built: BuiltFile, provider: str | None
) -> tuple[str | None, str]:
    """Turn "auto", or nothing, into a provider, and say why; leave any other as it is.

    An engine of TensorRT names its device itself.
    """
    if path.suffix != ".onnx":
        return (None if provider == "auto" else provider), ""
    provider = provider or os.environ.get(VARIABLE)
    if provider not in {None, "", "auto"}:
        return provider, ""
    if not provider and (len(content) < _SMALL_BYTES or not _has_choice()):
        return "cpu", ""
    choice = choose_provider(path, content, spec, built)
    if choice.provider:
        return choice.provider, f"; auto took {choice.provider} of: {choice.reason}"
    if provider:
        raise EngineError(
            f"no provider can run {path.name}: {choice.reason or 'none is installed'}"
        )
    return "cpu", ""  # which will say itself what is wrong


def _has_choice() -> bool:
    """Whether anything but ONNX Runtime's CPU may be here; imports nothing."""
    others = set(runtime_versions()) & {"openvino", "onnxruntime-gpu"}
    return bool(others) or importlib.util.find_spec("openvino") is not None


def choose_provider(
    path: Path, content: bytes, spec: ModelSpec, built: BuiltFile, *, cache: Path | None = None
) -> Choice:
    """Look the choice up, or measure for a few seconds and remember it.

    Of several threads and processes that want the same choice, one measures and the others wait.

    Args:
        path: Of the model file.
        content: Its bytes.
        spec: For thresholds and the input size.
        built: For the golden sample.
        cache: Folder of the remembered choices, instead of `cache_folder`.

    Returns:
        The choice; its provider is "" where none can run the model.

    Raises:
        EngineError: The file is built as none of ours is.
    """
    check_structure(content, path.name)
    key = _key(spec, built)
    folder = cache or cache_folder()
    file = None if folder is None else folder / f"{key}.json"
    with _in_process:
        if (choice := _known.get(key) or _remembered(file)) is not None:
            return choice
        with _alone(file):
            if (choice := _remembered(file)) is not None:
                return choice
            choice = _measure(path, spec, built)
            _tell(path, choice)
            if choice.provider:
                _known[key] = choice
                _remember(file, choice)
    return choice


def cache_folder() -> Path | None:
    """Where choices are kept: in $XDG_CACHE_HOME, or ~/.cache; None for a user without a home."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if named.is_absolute():  # any other is to be ignored, says its standard
        return named / _CACHE
    try:
        return Path.home() / ".cache" / _CACHE
    except RuntimeError:
        return None


def _key(spec: ModelSpec, built: BuiltFile) -> str:
    facts = [built.sha256, spec.thresholds, cpu_name(), usable_cores(), runtime_versions()]
    return sha256_of(repr(facts).encode())[:32]


def _remembered(file: Path | None) -> Choice | None:
    try:
        choice = None if file is None else read_json(file, Choice)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _log.warning("measuring again, %s cannot be read: %s", file, error)
        return None
    if choice is None or choice.provider == "cpu" or choice.provider in find_providers():
        return choice
    _log.warning("measuring again, %s is not offered here any more", choice.provider)
    return None


def _remember(file: Path | None, choice: Choice) -> None:
    reason: object = "there is no home folder"
    if file is not None:
        try:
            write_json(file, choice)
        except OSError as error:
            reason = error
        else:
            return
    _log.warning(
        "the choice of a provider cannot be kept and is measured at every start (%s): name one by "
        "provider=, --provider or %s, or let XDG_CACHE_HOME be a folder that can be written to",
        reason,
        VARIABLE,
    )


@contextmanager
def _alone(file: Path | None) -> Iterator[None]:
    """Wait while another process measures the same and shows that it lives; else go on."""
    lock = None if file is None else _lock_beside(file)
    if lock is None:
        yield
        return
    with lock:  # closing it lets go, and so does the end of the process
        is_ours = False
        with suppress(OSError):  # there are file systems without locks
            is_ours = await_lock(lock, _Silence(lock).is_long)
        with while_waiting(partial(_show_life, lock)) if is_ours else nullcontext():
            yield


class _Silence:
    """How long whoever holds a lock has given no sign of life: it was stopped, or it hangs."""

    def __init__(self, lock: TextIO) -> None:
        self._lock, self._seen_ns = lock, -1
        self._since_s = time.monotonic()

    def is_long(self) -> bool:
        """Look at the time of the file's last change: not at its age, for clocks are set."""
        changed_ns, now_s = os.fstat(self._lock.fileno()).st_mtime_ns, time.monotonic()
        if changed_ns != self._seen_ns:
            self._seen_ns, self._since_s = changed_ns, now_s
        return now_s - self._since_s > _SILENCE_S


def _show_life(lock: TextIO) -> None:
    """Change the time of the file's last change."""
    with suppress(OSError):
        os.utime(lock.fileno())


def _lock_beside(file: Path) -> TextIO | None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # A pipe in its place would wait for somebody who reads.
        descriptor = os.open(
            file.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_NONBLOCK, 0o644
        )
    except OSError:
        return None
    return os.fdopen(descriptor, "w")


def _tell(path: Path, choice: Choice) -> None:
    if choice.provider:
        _log.info(
            "measured once for %s and its thresholds on this machine, a frame each: %s; %s runs it from now on, "
            "--provider names another",
            path.name,
            choice.reason,
            choice.provider,
        )
    else:
        _log.warning(
            "no provider could be measured on %s: %s; it runs unmeasured, and the next start measures "
            "again, best when the machine is idle: --provider cpu needs no measuring",
            path.name,
            choice.reason,
        )


def _measure(path: Path, spec: ModelSpec, built: BuiltFile) -> Choice:
    """Try every provider, the first as the one that the others are compared with."""
    candidates: list[Candidate] = []
    expected: NDArray[np.float32] | None = None  # of the first that passed the self-test
    for provider in find_providers():
        if provider == OPENVINO and _fastest(candidates) == OPENVINO_BF16:
            candidates.append(Candidate(provider, None, _LEFT_OUT))
            continue
        try:
            trial = _try_one(path, spec, built, provider)
            scores = np.asarray(trial.scores, np.float32)
            expected = scores if expected is None else expected
            _check_decisions(scores, expected, spec, built.precision)
        except CmlrError as error:
            reason = " ".join(str(error).split())[:200]
            candidates.append(Candidate(provider, None, reason))
        else:
            candidates.append(Candidate(provider, trial.latency_ms, ""))
    return Choice(_fastest(candidates), tuple(candidates))


def _try_one(path: Path, spec: ModelSpec, built: BuiltFile, provider: str) -> Trial:
    golden, size_hw = built.golden, spec.preprocess.size_hw
    trial = try_provider(path.absolute(), built.sha256, provider, golden.seed, size_hw)
    require_golden(np.asarray(trial.scores[0], np.float32), golden, provider=provider)
    return trial


def _check_decisions(
    scores: NDArray[np.float32], expected: NDArray[np.float32], spec: ModelSpec, precision: str
) -> None:
    thresholds = np.asarray(spec.thresholds, np.float32)
    found = Agreement.of(spec.labels, reaches(expected, thresholds), reaches(scores, thresholds))
    if objections := found.objections(MAX_SHARE[precision]):
        raise EngineError("; ".join(objections))


def _fastest(candidates: list[Candidate]) -> str:
    best, best_ms = "", float("inf")
    for candidate in candidates:
        if candidate.latency_ms is not None and candidate.latency_ms < _WORTH * best_ms:
            best, best_ms = candidate.provider, candidate.latency_ms
    return best
