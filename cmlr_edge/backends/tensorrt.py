"""TensorRT engines: the only module that imports `tensorrt`. Unverified on hardware.

Written to what TensorRT 10.3 to 11.4 have in common: tensors by name, `execute_async_v3`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.backends.base import Inputs, UnresizedImage, no_explanation
from cmlr_edge.backends.cuda_frames import FrameStage, Resizing
from cmlr_edge.backends.cuda_memory import Graph, MirroredArray, Stream, on_first_gpu
from cmlr_edge.backends.plugin import plugin_library
from cmlr_edge.backends.tensorrt_logger import logger_of
from cmlr_edge.errors import DependencyError, EngineError
from cmlr_edge.machine.driver import find_gpu
from cmlr_edge.model.explanation import OUTPUTS
from cmlr_edge.model.spec import INPUT_NAME, OUTPUT_NAME, EngineBuild

_GREY_LEVELS = 1  # by which the frame kernel may differ from the CPU
_log = logging.getLogger(__name__)


def import_tensorrt() -> Any:
    """Return the `tensorrt` module, or `tensorrt_lean`, which runs engines but builds none.

    Raises:
        DependencyError: Neither is installed.
    """
    try:
        import tensorrt
    except ImportError as error:
        try:
            import tensorrt_lean as tensorrt
        except ImportError:
            raise DependencyError(
                f"TensorRT is needed and cannot be imported ({error}): on a Jetson it comes with "
                "JetPack; make the virtual environment with --system-site-packages"
            ) from error
    return tensorrt


def load_plugin(trt: Any, library: Path) -> None:
    """Give TensorRT the operator CmlrAttention; doing it twice is harmless.

    Raises:
        EngineError: TensorRT does not take the library.
    """
    from cmlr_edge._native import ATTENTION_DOMAIN, ATTENTION_NAME, ATTENTION_VERSION

    registry = trt.get_plugin_registry()
    name = (ATTENTION_NAME, ATTENTION_VERSION, ATTENTION_DOMAIN)
    if registry.get_creator(*name) is None:
        registry.load_library(str(library))
    if registry.get_creator(*name) is None:
        raise EngineError(
            f"TensorRT {trt.__version__} does not take the plugin {library}: install cmlr-edge "
            "again on this machine, so that it is compiled for it"
        )


class TensorRtBackend:
    """Runs an engine; see `Backend`. Threads that are in `infer` at once have a context each."""

    def __init__(
        self, path: Path, content: bytes, engine: EngineBuild, *, cuda_graph: bool = False
    ) -> None:
        """Load an engine that `cmlr_edge.engines.preflight` has passed.

        Args:
            path: Where `content` came from, for messages.
            content: The engine.
            engine: What the spec says of it.
            cuda_graph: Replay the launches of a batch as one, once a batch follows one of its size.
                An engine that cannot be captured is run without, which the log says once.

        Raises:
            DependencyError: TensorRT or cuda-python is not installed.
            EngineError: There is no GPU, or TensorRT refuses the engine.
        """
        self._name, self._engine_build = path.name, engine
        self._replays = _Replays(path.name, wanted=cuda_graph)
        self._resizing = Resizing(path.name)
        gpu = find_gpu()  # without a driver, a Runtime ends the process
        trt = import_tensorrt()
        if engine.plugin_version is not None:
            load_plugin(trt, plugin_library())
        self._logger = logger_of(trt)
        self._logger.take()  # what was said of others
        with on_first_gpu():
            self._runtime: Any = trt.Runtime(self._logger)
            if engine.dla_core is not None:
                self._runtime.DLA_core = engine.dla_core
            self._engine: Any = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise EngineError(f"TensorRT cannot load {path}: {self._logger.take()}. Build it again")
        self._frame_shape, self.num_labels, self._further = _check_signature(
            trt, self._engine, path
        )
        self._description = f"TensorRT {trt.__version__}, {gpu.name}"
        self._idle: list[_Lane] = []  # the one that ran last comes last
        self._lock = threading.Lock()

    @property
    def description(self) -> str:
        """TensorRT, the GPU, and where frames are resized, once somebody has asked for that."""
        return ", ".join(filter(None, (self._description, str(self._resizing))))

    @property
    def provider(self) -> str:
        """An engine is code for a GPU and runs on nothing else: "cuda", or with graphs "cuda-graph"."""
        return "cuda-graph" if self._replays.wanted else "cuda"

    @property
    def resizes(self) -> bool:
        """Whether images are resized on the GPU; see `ResizingBackend`."""
        return self._resizing.operator is not None

    def start_resizing(self, probes: Sequence[UnresizedImage], /) -> bool:
        """Try the kernel on the probes; see `ResizingBackend`."""
        self._resizing.start()
        for probe in probes:
            if not self.resizes:
                break
            expected = np.empty(self._frame_shape, np.uint8)
            probe.resize(expected)
            with on_first_gpu(), self._lane() as lane:
                actual = lane.resized(probe)
            worst = int(np.abs(actual.astype(np.int16) - expected).max())
            if worst > _GREY_LEVELS:
                self._resizing.give_up(
                    f"the GPU's pixels differ by {worst} grey levels: install cmlr-edge again on "
                    "this machine, so that its kernels are compiled for it"
                )
        return self.resizes

    def infer(self, frames: Inputs, /) -> NDArray[np.float32]:
        """Run the model; see `ResizingBackend`. Batches beyond the engine's largest are split."""
        scores = np.empty((len(frames), self.num_labels), np.float32)
        self._run(frames, {OUTPUT_NAME: scores})
        return scores

    @property
    def explains(self) -> bool:
        """Whether it has further outputs; see `ExplainingBackend`."""
        return bool(self._further)

    def explain(self, frames: Inputs, /) -> dict[str, NDArray[np.float32]]:
        """Run the model and fetch all its outputs, which the engine computes in any case."""
        if not self._further:
            raise no_explanation(self._name)
        shapes = {OUTPUT_NAME: (self.num_labels,), **self._further}
        found = {name: np.empty((len(frames), *s), np.float32) for name, s in shapes.items()}
        self._run(frames, found)
        return found

    def _run(self, frames: Inputs, outputs: dict[str, NDArray[np.float32]]) -> None:
        """Fill these outputs."""
        if self._engine is None:
            raise EngineError(f"{self._name} was closed: open the Recognizer again")
        if isinstance(frames, np.ndarray):
            shapes = {frames.shape[1:]}
        else:
            shapes = {item.shape for item in frames if isinstance(item, np.ndarray)}
        for shape in shapes - {self._frame_shape}:
            raise EngineError(f"{self._name} takes frames {self._frame_shape}, got {shape}")
        largest = self._engine_build.batch[2]
        with on_first_gpu(), self._lane() as lane:
            for first in range(0, len(frames), largest):
                part = slice(first, first + largest)
                lane.run(frames[part], {name: array[part] for name, array in outputs.items()})

    def close(self) -> None:
        """Free contexts, buffers and engine; see `Backend.close`. No thread may be in `infer`."""
        if self._engine is None:
            return
        with on_first_gpu():
            with self._lock, ExitStack() as stack:
                for lane in self._idle:
                    stack.callback(lane.close)
                self._idle.clear()
            self._engine = self._runtime = None

    @contextmanager
    def _lane(self) -> Generator[_Lane]:
        """One for this call: there are never more than threads that were in `infer` at once."""
        with self._lock:
            lane = self._idle.pop() if self._idle else None
        if lane is None:
            lane = _Lane(
                self._name,
                self._engine,
                self._engine_build.batch,
                self._frame_shape,
                {OUTPUT_NAME: (self.num_labels,), **self._further},
                self._replays,
                self._resizing,
                self._logger,
            )
        try:
            yield lane
        except BaseException:  # what its context is set to is not known any more
            with suppress(EngineError):  # that which says why is on its way
                lane.close()
            raise
        with self._lock:
            self._idle.append(lane)


class _Replays:
    """Whether CUDA graphs are wanted, until an engine cannot be captured."""

    def __init__(self, name: str, *, wanted: bool) -> None:
        self.wanted, self._name, self._lock = wanted, name, threading.Lock()

    def give_up(self, error: EngineError) -> None:
        """Say why, once."""
        with self._lock:
            first, self.wanted = self.wanted, False
        if first:
            _log.warning("%s runs without a CUDA graph: %s", self._name, error)


class _Lane:
    """A context, its stream and its buffers, for one thread at a time."""

    def __init__(
        self,
        name: str,
        engine: Any,
        batch: tuple[int, int, int],
        frame_shape: tuple[int, ...],
        outputs: dict[str, tuple[int, ...]],
        replays: _Replays,
        resizing: Resizing,
        logger: Any,
    ) -> None:
        """Allocate for the largest batch; where one thing cannot be had, none stays."""
        self._name, self._smallest = name, batch[0]
        self._replays, self._logger = replays, logger
        self._context = engine.create_execution_context()
        if self._context is None:
            raise EngineError(
                f"not enough GPU memory to run {name}: close other programs ({logger.take()})"
            )
        with ExitStack() as stack:
            self._stream = Stream()
            stack.callback(self._stream.close)
            self._frames = MirroredArray((batch[2], *frame_shape), np.uint8)
            stack.callback(self._frames.close)
            self._stage = FrameStage(resizing, frame_shape, self._stream)
            stack.callback(self._stage.close)
            self._outputs: dict[str, MirroredArray] = {}
            for output, shape in outputs.items():
                self._outputs[output] = MirroredArray((batch[2], *shape), np.float32)
                stack.callback(self._outputs[output].close)
            self._owned = stack.pop_all()
        for tensor, array in {INPUT_NAME: self._frames, **self._outputs}.items():
            self._context.set_tensor_address(tensor, array.address)
        self._rows = 0  # that the context is set to
        self._graph: Graph | None = None  # of that many rows

    def run(self, frames: Inputs, outputs: dict[str, NDArray[np.float32]]) -> None:
        """Fill the outputs, the scores among them; a batch below the smallest is filled up."""
        rows = max(len(frames), self._smallest)
        self._bring(frames, rows)
        self._launch(rows)
        for name in outputs:  # the scores come with every launch, which a graph may replay
            if name != OUTPUT_NAME:
                self._outputs[name].download(rows, self._stream)
        self._stream.synchronize()
        for name, array in outputs.items():
            array[:] = self._outputs[name].host[: len(frames)]

    def resized(self, image: UnresizedImage) -> NDArray[np.uint8]:
        """What the model would run on."""
        self._bring([image], 1)
        self._frames.download(1, self._stream)
        self._stream.synchronize()
        pixels: NDArray[np.uint8] = self._frames.host[0].copy()
        return pixels

    def _bring(self, frames: Inputs, rows: int) -> None:
        """Put on the stream what makes the engine's input; the stream was waited for before."""
        host = self._frames.host
        if isinstance(frames, np.ndarray):
            host[: len(frames)] = frames
            self._frames.upload(rows, self._stream)
            return
        self._stage.begin()
        for row, frame in enumerate(frames):
            if isinstance(frame, np.ndarray):
                host[row] = frame
            elif self._stage.resize(frame, self._frames.address_of(row)):
                continue
            else:
                frame.resize(host[row])
            self._frames.upload(1, self._stream, first=row)
        if rows > len(frames):  # whatever fills the batch up
            self._frames.upload(rows - len(frames), self._stream, first=len(frames))

    def _launch(self, rows: int) -> None:
        first = self._rows != rows
        if first:
            self._set_rows(rows)
        # Captured only after a run of this size: TensorRT allocates and sets up in the first.
        if not (self._replays.wanted and not first and self._replay(rows)):
            self._enqueue(rows)

    def _replay(self, rows: int) -> bool:
        """Whether the launches were put on the stream as a graph."""
        try:
            if self._graph is None:
                self._graph = self._stream.capture(lambda: self._enqueue(rows))
            self._graph.launch()
        except EngineError as error:
            self._drop_graph()
            self._replays.give_up(error)
            return False
        return True

    def _drop_graph(self) -> None:
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.close()

    def _set_rows(self, rows: int) -> None:
        self._drop_graph()  # it belongs to the context as it was
        shape = (rows, *self._frames.host.shape[1:])
        if not self._context.set_input_shape(INPUT_NAME, shape):
            raise EngineError(
                f"{self._name} does not take {rows} frames at once: {self._logger.take()}"
            )
        self._rows = rows

    def _enqueue(self, rows: int) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise EngineError(f"TensorRT failed on {self._name}: {self._logger.take()}")
        self._outputs[OUTPUT_NAME].download(rows, self._stream)

    def close(self) -> None:
        """Wait, and free all of it, even where the GPU has failed."""
        with self._owned as owned:
            owned.callback(setattr, self, "_context", None)
            owned.callback(self._drop_graph)
            owned.callback(self._stream.synchronize)


def _check_signature(
    trt: Any, engine: Any, path: Path
) -> tuple[tuple[int, ...], int, dict[str, tuple[int, ...]]]:
    """The shape of a frame, the number of labels and the shapes of further outputs, checked."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    shapes = {name: tuple(engine.get_tensor_shape(name)) for name in names}
    kinds = {name: engine.get_tensor_dtype(name) for name in names}
    frames, scores = shapes.get(INPUT_NAME, ()), shapes.get(OUTPUT_NAME, ())
    further = {name: shapes[name][1:] for name in OUTPUTS if name in shapes}
    if (
        set(names) != {INPUT_NAME, OUTPUT_NAME, *further}
        or kinds[INPUT_NAME] != trt.DataType.UINT8
        or {kinds[name] for name in (OUTPUT_NAME, *further)} != {trt.DataType.FLOAT}
        or min((n for shape in further.values() for n in shape), default=1) < 1
        or len(frames) != 4
        or len(scores) != 2
        or min(*frames[1:], scores[1]) < 1
    ):
        raise EngineError(
            f"{path} is not an engine of this SDK: expected uint8 {INPUT_NAME!r} (N, H, W, 3) -> "
            f"float32 {OUTPUT_NAME!r} (N, labels), got {shapes}. Build it with "
            "export/build_engine.py --target tensorrt"
        )
    return frames[1:], scores[1], further
