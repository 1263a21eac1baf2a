"""OpenVINO: with `openvino_attention`, the only module that imports `openvino`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from threading import Lock
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.backends.base import RuntimeErrors, no_explanation
from cmlr_edge.backends.openvino_attention import attention_extensions
from cmlr_edge.errors import EngineError
from cmlr_edge.machine.facts import usable_cores
from cmlr_edge.machine.memory_bound import FirstRuns
from cmlr_edge.machine.needed import needed
from cmlr_edge.machine.no_telemetry import import_runtime
from cmlr_edge.model.spec import INPUT_NAME, OUTPUT_NAME

Precision: TypeAlias = Literal["f32", "bf16"]
_CORES: list[Any] = []
_CORE_LOCK = Lock()
_SUMS = {"FullyConnected", "Convolution", "GroupConvolution", "MatMul"}  # layers that cost time


class OpenVinoBackend:
    """Runs an exported ONNX model on the CPU; see `Backend`.

    The graph is compiled for one image, without shapes to work out while it runs: on all cores for
    one image, and a second time, when the first batch comes, with a core for each of several images.
    (A graph for any batch size gave scores that differ in the third decimal, and was slower.)
    """

    def __init__(
        self,
        path: Path,
        content: bytes,
        *,
        precision: Precision = "f32",
        whole: bytes | None = None,
    ) -> None:
        """Load the model.

        Args:
            path: Where `content` came from, for messages.
            content: The ONNX file, of scores alone.
            whole: The same file with the outputs that `explain` wants, loaded when it first does.
            precision: Of layers that the file leaves in float32. Quantised layers stay int8.

        Raises:
            DependencyError: OpenVINO is not installed.
            EngineError: This CPU does not compute in `precision`, or the file is not a model of ours.
        """
        self._name, self._ov, self._core = path.name, _import_openvino(), shared_core()
        _require_precision(self._core, precision)
        self._precision, self._cores = precision, usable_cores()
        self._bounds = FirstRuns(path.name, len(content))
        self._queue: Any = None
        self._whole, self._explaining_bounds = whole, FirstRuns(path.name, len(whole or b""))
        self._explaining: Any = None
        self._errors = RuntimeErrors(f"OpenVINO failed on {path.name}")
        with (
            RuntimeErrors(f"OpenVINO cannot load {path}", ". Export the model again"),
            self._bounds.of(0),
        ):
            self._load(path, content)

    def _load(self, path: Path, content: bytes) -> None:
        self._model: Any = self._core.read_model(content)
        self.num_labels = _check_signature(self._model, path)
        _, height, width, _ = self._model.input(0).partial_shape
        self._size_hw = height.get_length(), width.get_length()
        self._model.reshape([1, *self._size_hw, 3])
        single = self._compile(self._model, streams=1)
        self.description = _describe(self._ov, single)
        self.provider = _provider_in_use(single)
        self._single = single.create_infer_request()
        self._requests: Any = None

    def infer(self, frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Run the model; see `Backend.infer`."""
        self._require(frames)
        with self._errors, self._bounds.of(len(frames)):
            return self._infer_one(frames) if len(frames) == 1 else self._infer_many(frames)

    @property
    def explains(self) -> bool:
        """Whether it has further outputs; see `ExplainingBackend`."""
        return self._whole is not None or self._explaining is not None

    def explain(self, frames: NDArray[np.uint8], /) -> dict[str, NDArray[np.float32]]:
        """Run the model with all its outputs; see `ExplainingBackend`."""
        self._require(frames)
        with self._errors, self._explaining_bounds.of(1):
            return self._explained(frames)

    def _explained(self, frames: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """All outputs of the frames, one after the other; the graph is loaded when it first is asked."""
        if self._whole is not None:
            model = self._core.read_model(self._whole)
            model.reshape([1, *self._size_hw, 3])
            self._explaining = self._compile(model, streams=1).create_infer_request()
            self._whole = None
        if self._explaining is None:
            raise no_explanation(self._name)
        outputs = {output.get_any_name(): output for output in self._explaining.model_outputs}
        rows: dict[str, list[NDArray[np.float32]]] = {name: [] for name in outputs}
        for i in range(len(frames)):
            tensor = self._ov.Tensor(frames[i : i + 1], shared_memory=True)
            self._explaining.set_input_tensor(tensor)
            self._explaining.infer()
            for name, output in outputs.items():
                rows[name].append(self._explaining.get_tensor(output).data.copy())
        return {name: np.concatenate(parts) for name, parts in rows.items()}

    def close(self) -> None:
        """Free the graphs; see `Backend.close`."""
        self._model = self._single = self._requests = self._explaining = self._whole = None

    def _require(self, frames: NDArray[np.uint8]) -> None:
        if self._model is None:
            raise EngineError(f"{self._name} was closed: open the Recognizer again")
        if frames.dtype != np.uint8 or frames.shape[1:] != (*self._size_hw, 3):
            raise EngineError(
                f"OpenVINO failed on {self._name}: expected uint8 (N, {self._size_hw[0]}, "
                f"{self._size_hw[1]}, 3), got {frames.dtype} {frames.shape}"
            )

    def _infer_one(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        # Read where it lies, without a copy.
        self._single.set_input_tensor(self._ov.Tensor(frames, shared_memory=True))
        self._single.infer()
        scores: NDArray[np.float32] = self._single.get_output_tensor(0).data.copy()
        return scores

    def _infer_many(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        scores = np.empty((len(frames), self.num_labels), np.float32)
        if self._requests is None:
            compiled = self._compile(self._model, streams=self._cores)
            self._requests = [compiled.create_infer_request() for _ in range(self._cores)]
        # Waited for one by one: a queue that calls back into Python, freed while a thread of it is
        # on its way out of the last call, waits for that thread, which waits for Python, for ever.
        number = len(self._requests)
        for i in range(len(frames) + number):
            request = self._requests[i % number]
            if 0 <= (done := i - number) < len(frames):
                request.wait()
                scores[done] = request.get_output_tensor(0).data
            if i < len(frames):
                request.set_input_tensor(self._ov.Tensor(frames[i : i + 1], shared_memory=True))
                request.start_async()
        return scores

    def _compile(self, model: Any, *, streams: int) -> Any:
        """A graph for one image at a time in each of so many streams."""
        settings = {
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": self._cores,
            "INFERENCE_PRECISION_HINT": self._precision,
        }
        return self._core.compile_model(model, "CPU", settings)


def supported_precisions() -> list[Precision]:
    """What this CPU computes in, the fastest first; see `OpenVinoBackend`.

    Raises:
        DependencyError: OpenVINO is not installed.
    """
    has_bf16 = "BF16" in _capabilities(shared_core())
    return ["bf16", "f32"] if has_bf16 else ["f32"]


def shared_core() -> Any:
    """The one `openvino.Core` of this process, which reads our operators; it is never freed.

    Its CPU plugin gives the thread that first needs it a stack for signals, and unmaps it in whichever
    thread frees it. Freed in another one, the next signal - SIGTERM, the end of a child - would find no
    stack and end the process.

    Raises:
        DependencyError: OpenVINO is not installed.
    """
    with _CORE_LOCK:
        if not _CORES:
            core = _import_openvino().Core()
            for extension in attention_extensions():
                core.add_extension(extension)
            _CORES.append(core)
        return _CORES[0]


def _import_openvino() -> Any:
    with needed("OpenVINO is needed and cannot be imported", "pip install 'cmlr-edge[openvino]'"):
        return import_runtime("openvino")


def _capabilities(core: Any) -> list[str]:
    try:
        found: list[str] = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except RuntimeError:  # its plugin finds no memory: whoever loads a model there is told why
        return []
    return found


def _require_precision(core: Any, precision: Precision) -> None:
    if precision == "bf16" and "BF16" not in (found := _capabilities(core)):
        raise EngineError(
            f"bf16 was asked for, but OpenVINO offers only {sorted(found)} on this CPU: "
            "ask for provider='openvino'"
        )


def _check_signature(model: Any, path: Path) -> int:
    """Return the number of labels after checking names, types and ranks against our contract."""
    names = [[*item.get_names()] for item in (*model.inputs, *model.outputs)]
    if len(model.inputs) == len(model.outputs) == 1:
        frames, scores = model.input(0), model.output(0)
        shapes = frames.partial_shape, scores.partial_shape
        if (
            INPUT_NAME in frames.get_names()
            and OUTPUT_NAME in scores.get_names()
            and frames.get_element_type().get_type_name() == "u8"
            and [shape.rank.get_length() for shape in shapes] == [4, 2]
            and all(side.is_static for side in [*shapes[0]][1:] + [*shapes[1]][1:])
        ):
            num_labels: int = shapes[1][1].get_length()
            return num_labels
    raise EngineError(
        f"{path} is not a model of this SDK: expected uint8 {INPUT_NAME!r} (N, H, W, 3) -> "
        f"{OUTPUT_NAME!r} (N, labels), got {names}. Export it with export/build_engine.py"
    )


def _provider_in_use(compiled: Any) -> str:
    hint: str = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return "openvino" if hint == "f32" else f"openvino-{hint}"


def _describe(ov: Any, compiled: Any) -> str:
    """The types that the costly layers really run in, as the compiled graph says."""
    layers = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    types = Counter(
        info["runtimePrecision"].astype(str)
        for info in layers
        if info["layerType"].astype(str) in _SUMS
    )
    precisions = ", ".join(f"{count} layers {name}" for name, count in types.most_common())
    threads = compiled.get_property("INFERENCE_NUM_THREADS")
    version = ov.__version__.partition("-")[0]
    return f"OpenVINO {version}, CPU, {precisions or 'f32'}, {threads} threads"
