"""A TensorRT engine on a real GPU: built, compared, timed, and watched."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.gpu import ways_of_frames
from benchmarks.gpu.device import memory_in_use
from benchmarks.gpu.report import Report, Skipped
from benchmarks.gpu.stage import Place
from benchmarks.gpu.standard_attention import OLDEST_TENSORRT, with_standard_attention
from cmlr_edge.backends.plugin import plugin_library
from cmlr_edge.backends.tensorrt import TensorRtBackend, import_tensorrt
from cmlr_edge.engines.builder import BuildOptions
from cmlr_edge.engines.preflight import require_gpu_software, version_of
from cmlr_edge.errors import EngineError
from cmlr_edge.model.files import model_path, spec_path, write_atomically
from cmlr_edge.model.spec import BuiltFile, ModelSpec
from cmlr_edge.recognizer import Recognizer
from export.engine import build_engine_file
from export.verify import synthetic_frames

_REPEATS, _BATCHES = 200, (1, 2, 8)
_ALLOWED_GROWTH = 16 * 2**20  # bytes, of the process and of the GPU's free memory


def check(report: Report, place: Place, *, frames: int = 10_000) -> None:
    """An engine with the plugin, one of plain operations, each against ONNX Runtime."""
    if place.model is None:
        raise Skipped("give --model, a folder that export/build_engine.py wrote")
    require_gpu_software()
    path = model_path(place.model)
    spec = ModelSpec.load(spec_path(path))
    with tempfile.TemporaryDirectory() as folder:
        for name, options, content in _ways(report, path.read_bytes()):
            engine = Engine(path, spec, Path(folder) / name.replace(" ", "-"), options, content)
            report.check(f"engine {name}, against ONNX Runtime", engine.build)
            if engine.path is None:
                continue
            report.check(f"engine {name}: golden sample", engine.open_as_users_do)
            report.check(f"engine {name}: CUDA graph", engine.compare_cuda_graph)
            report.check(f"engine {name}: time", engine.measure, measures=True)
            compare_ways = partial(ways_of_frames.compare_engine, engine.path)
            report.check(f"engine {name}: frames by CPU and GPU", compare_ways)
            report.check(f"engine {name}: memory", partial(engine.watch_memory, frames))


def _ways(report: Report, content: bytes) -> Generator[tuple[str, BuildOptions, bytes]]:
    """Our kernel, ONNX's operator as TensorRT fuses it, and plain operations."""
    try:
        yield "with the plugin", BuildOptions(plugin=str(plugin_library())), content
    except EngineError as error:
        report.add("engine with the plugin", "skipped", str(error))
    here = import_tensorrt().__version__
    if version_of(here) >= OLDEST_TENSORRT:
        yield "of ONNX's Attention", BuildOptions(), with_standard_attention(content)
    else:
        report.add("engine of ONNX's Attention", "skipped", f"TensorRT {here} does not know it")
    yield "of plain operations", BuildOptions(), content


class Engine:
    """One way of building, and what is checked of it."""

    def __init__(
        self, model: Path, spec: ModelSpec, folder: Path, options: BuildOptions, content: bytes
    ) -> None:
        """Remember what to build, for the spec of `model`, and a folder that is not there yet."""
        self._model, self._spec, self._options = model, spec, options
        self._folder, self._content = folder, content
        self._frames = synthetic_frames(spec.preprocess.size_hw, max(_BATCHES))
        self._built: BuiltFile | None = None
        self.path: Path | None = None

    def build(self) -> str:
        """Build it and hold it against ONNX Runtime, on numbers and on label decisions."""
        path = self._folder / "model.engine"
        started = time.perf_counter()
        plan, built = build_engine_file(
            path, self._model, self._content, self._spec, self._frames, self._options
        )
        self._folder.mkdir()
        write_atomically(path, plan)
        replace(self._spec, files={path.name: built}).save(spec_path(path))
        self._built, self.path = built, path
        engine = built.engine
        layers = {} if engine is None else engine.layers
        return (
            f"differs by {built.parity.max_score_difference:.2g}, {built.parity.decision_flips} "
            f"decisions flip; {time.perf_counter() - started:.0f} s to build; layers {layers}"
        )

    def open_as_users_do(self) -> str:
        """Preflight, load and golden self-test."""
        assert self.path is not None
        with Recognizer.from_engine(self.path) as recognizer:
            return recognizer.runtime

    def compare_cuda_graph(self) -> str:
        """The same scores with and without.

        Raises:
            EngineError: They differ.
        """
        with closing(self._open()) as plain, closing(self._open(cuda_graph=True)) as graph:
            for number in (1, 1, 1, 8, 8, 8, 3, 1, 1):
                expected, actual = (b.infer(self._frames[:number]) for b in (plain, graph))
                if not np.array_equal(expected, actual):
                    difference = np.abs(expected - actual).max()
                    raise EngineError(f"a batch of {number} differs by {difference:.2g}")
        return "identical scores"

    def measure(self) -> str:
        """Median milliseconds of `infer`, copies included."""
        found = []
        for cuda_graph in (False, True):
            with closing(self._open(cuda_graph=cuda_graph)) as backend:
                times = [self._median_ms(backend, number) for number in _BATCHES]
            sizes = ", ".join(f"B={n} {t:.2f}" for n, t in zip(_BATCHES, times, strict=True))
            found.append(f"{'CUDA graph' if cuda_graph else 'launches'}: {sizes} ms")
        return "; ".join(found)

    def watch_memory(self, frames: int) -> str:
        """Growth over many frames, of the process and on the GPU.

        Raises:
            EngineError: It is more than 16 MiB.
        """
        with closing(self._open()) as backend:
            for _ in range(100):
                backend.infer(self._frames[:1])
            before = memory_in_use()
            for _ in range(frames):
                backend.infer(self._frames[:1])
            growth = [after - start for after, start in zip(memory_in_use(), before, strict=True)]
        text = f"{frames} frames: process {growth[0] >> 10} KiB, GPU {growth[1] >> 10} KiB more"
        if max(growth) > _ALLOWED_GROWTH:
            raise EngineError(text)
        return text

    def _open(self, *, cuda_graph: bool = False) -> TensorRtBackend:
        assert self.path is not None
        assert self._built is not None
        assert self._built.engine is not None
        content = self.path.read_bytes()
        return TensorRtBackend(self.path, content, self._built.engine, cuda_graph=cuda_graph)

    def _median_ms(self, backend: TensorRtBackend, number: int) -> float:
        times = []
        for _ in range(_REPEATS):
            started = time.perf_counter()
            backend.infer(self._frames[:number])
            times.append((time.perf_counter() - started) * 1e3)
        return float(np.median(times[_REPEATS // 10 :]))
