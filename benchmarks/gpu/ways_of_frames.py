"""Frames on their way to an engine: resized by the GPU and by the CPU, timed, and what is decided of them.

$CMLR_PHOTOS is a folder of photos to decide of; without, frames are drawn.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.device import closing
from benchmarks.gpu.report import Report, Skipped
from cmlr_edge.backends.cuda_frames import VARIABLE, FrameStage, Resizing
from cmlr_edge.backends.cuda_memory import MirroredArray, Stream
from cmlr_edge.errors import EngineError
from cmlr_edge.model.spec import PreprocessSpec
from cmlr_edge.preprocess import Unresized, preprocess
from cmlr_edge.recognizer import Recognizer

SIZES = ((480, 640), (720, 1280), (1080, 1920), (2160, 3840))
BATCHES = (1, 8)
PHOTOS, REPEATS = 64, 50
_SIZE_HW = (320, 320)


class Ways:
    """Both, to the input of a model of `size_hw`, for some images at once."""

    def __init__(self, stack: ExitStack, size_hw: tuple[int, int], images: int = 1) -> None:
        """Allocate."""
        self.spec = PreprocessSpec(size_hw, (0.0,) * 3, (1.0,) * 3)
        self._resizing = Resizing("the lease")
        self._resizing.start()
        if self._resizing.operator is None:
            raise Skipped(f"{self._resizing}: see the log")
        self._stream = closing(stack, Stream())
        self._input = closing(stack, MirroredArray((images, *size_hw, 3), np.uint8))
        self._stage = closing(stack, FrameStage(self._resizing, size_hw, self._stream))

    def by_cpu(self, images: list[NDArray[np.uint8]]) -> None:
        """Resize, then upload what is small."""
        for row, image in enumerate(images):
            preprocess(image, self.spec, out=self._input.host[row])
        self._input.upload(len(images), self._stream)
        self._stream.synchronize()

    def by_gpu(self, images: list[NDArray[np.uint8]]) -> None:
        """Upload what is large, and resize it there.

        Raises:
            EngineError: The GPU left it to the CPU.
        """
        self._stage.begin()
        for row, image in enumerate(images):
            given = Unresized(image, "bgr", self.spec)
            if not self._stage.resize(given, self._input.address_of(row)):
                raise EngineError("the GPU left it to the CPU: see the log")
        self._stream.synchronize()

    def pixels(self, images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """What the GPU makes of them."""
        self._input.host[:] = 0
        self._input.upload(len(self._input.host), self._stream)
        self.by_gpu(images)
        self._input.download(len(images), self._stream)
        self._stream.synchronize()
        found: NDArray[np.uint8] = self._input.host[: len(images)].copy()
        return found


def check(report: Report) -> None:
    """Times of both ways, and label decisions."""
    for from_hw in SIZES:
        for batch in BATCHES:
            name = f"{batch} x {from_hw[1]} x {from_hw[0]} to an input: CPU and GPU"
            report.check(name, partial(measure, from_hw, batch), measures=True)
    report.check("decisions of both ways", compare_decisions)


def measure(from_hw: tuple[int, int], batch: int) -> str:
    """Median milliseconds of both ways, with the upload, and of a core's work in them.

    Raises:
        EngineError: A pixel differs by more than a grey level.
    """
    images = [*_drawn(batch, from_hw)]
    with ExitStack() as stack:
        ways = Ways(stack, _SIZE_HW, batch)
        worst = _difference(ways.pixels(images), images, ways.spec)
        if worst > 1:
            raise EngineError(f"pixels differ by {worst} grey levels")
        found = [_median_ms(partial(way, images)) for way in (ways.by_cpu, ways.by_gpu)]
    (cpu, cpu_core), (gpu, gpu_core) = found
    return (
        f"CPU {cpu:.2f} ms ({cpu_core:.2f} of a core), GPU {gpu:.2f} ms ({gpu_core:.2f} of a "
        f"core); pixels differ by {worst}"
    )


def compare_decisions() -> str:
    """The bundled model on ONNX Runtime, of what the GPU and the CPU made of the same photos.

    Raises:
        EngineError: A label is decided otherwise.
    """
    from cmlr_edge import demo_engine

    images, what = photos()
    with Recognizer.from_engine(demo_engine(), provider="cpu") as recognizer, ExitStack() as stack:
        ways = Ways(stack, recognizer.spec.preprocess.size_hw)
        made = [ways.pixels([image])[0] for image in images]
        by_gpu = recognizer.recognize_batch(made, color="rgb")
        by_cpu = recognizer.recognize_batch(images)
        thresholds = [recognizer.thresholds[label] for label in recognizer.labels]
    return said_of_decisions(
        np.stack([p.scores for p in by_cpu]), np.stack([p.scores for p in by_gpu]), thresholds, what
    )


def compare_engine(path: Path) -> str:
    """An engine of TensorRT, its frames resized by the GPU and by the CPU: decisions, and time for each.

    Raises:
        EngineError: A label is decided otherwise.
    """
    images, what = photos()
    full_hd = next(_drawn(1, SIZES[-2]))
    scores, times = [], []
    for resize in ("cpu", "gpu"):
        with mock.patch.dict(os.environ, {VARIABLE: resize}), Recognizer.from_engine(path) as used:
            if resize == "gpu" and "resized on the GPU" not in used.runtime:
                raise Skipped(used.runtime)
            scores.append(np.stack([p.scores for p in used.recognize_batch(images)]))
            times.append(_median_ms(partial(used, full_hd)))
            thresholds = [used.thresholds[label] for label in used.labels]
    said = said_of_decisions(scores[0], scores[1], thresholds, what)
    (cpu, cpu_core), (gpu, gpu_core) = times
    return (
        f"{said}; a frame of 1920 x 1080: CPU {cpu:.2f} ms ({cpu_core:.2f} of a core), GPU "
        f"{gpu:.2f} ms ({gpu_core:.2f} of a core)"
    )


def said_of_decisions(
    by_cpu: NDArray[np.float32], by_gpu: NDArray[np.float32], thresholds: list[float], what: str
) -> str:
    """In words.

    Raises:
        EngineError: A label is decided otherwise.
    """
    flips = int(((by_cpu >= thresholds) != (by_gpu >= thresholds)).sum())
    worst = np.abs(by_cpu - by_gpu).max()
    said = f"{flips} of {by_cpu.size} decisions differ on {what}, scores by {worst:.2g} at most"
    if flips:
        raise EngineError(said)
    return said


def photos() -> tuple[list[NDArray[np.uint8]], str]:
    """The first in the folder, or what is drawn; and what they are."""
    folder = os.environ.get("CMLR_PHOTOS")
    if folder is None:
        return [image for hw in SIZES[:3] for image in _drawn(4, hw)], "12 drawn frames"
    import cv2

    files = sorted(Path(folder).rglob("*.jpg"))[:PHOTOS]
    found = [image for file in files if (image := cv2.imread(str(file))) is not None]
    if not found:
        raise Skipped(f"no photo below {folder}")
    return [np.asarray(image, np.uint8) for image in found], f"{len(found)} photos"


def _drawn(count: int, size_hw: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    random = np.random.default_rng(size_hw[0])
    for _ in range(count):
        yield random.integers(0, 256, (*size_hw, 3), np.uint8)


def _difference(
    actual: NDArray[np.uint8], images: list[NDArray[np.uint8]], spec: PreprocessSpec
) -> int:
    expected = np.stack([preprocess(image, spec) for image in images])
    return int(np.abs(actual.astype(np.int16) - expected).max())


def _median_ms(work: Callable[[], object]) -> tuple[float, float]:
    """Of the clock, and of this thread on a core; OpenCV's other threads are not counted."""
    clock, core = [], []
    for _ in range(REPEATS):
        started, at_work = time.perf_counter(), time.thread_time()
        work()
        clock.append((time.perf_counter() - started) * 1e3)
        core.append((time.thread_time() - at_work) * 1e3)
    part = slice(REPEATS // 10, None)
    return float(np.median(clock[part])), float(np.median(core[part]))
