"""ONNX Runtime: the only module that imports `onnxruntime`."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.backends.base import RuntimeErrors, no_explanation
from cmlr_edge.errors import EngineError
from cmlr_edge.machine.facts import usable_cores
from cmlr_edge.machine.memory_bound import FirstRuns
from cmlr_edge.machine.needed import needed
from cmlr_edge.machine.no_telemetry import import_runtime
from cmlr_edge.model.spec import INPUT_NAME, OUTPUT_NAME

_SUFFIX = "ExecutionProvider"
_CPU = f"CPU{_SUFFIX}"
# Not devices of this machine: a web service, and what has a backend of its own.
_NOT_OURS = {"azure", "openvino"}
_RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"  # older versions ignore it
_OTHER_FILES_IN = "session.model_external_initializers_file_folder_path"
# A sum and the norm behind it, as one: its kernel for the CPU takes three times as long as the two do,
# 5 % of Lite0 with 600 labels.
SLOWER = ("SkipLayerNormFusion",)
_SILENT = 4  # ONNX Runtime's log level: what ends a run comes as an exception, too


class OnnxRuntimeBackend:
    """Runs an exported ONNX model; see `Backend`."""

    def __init__(
        self, path: Path, content: bytes, *, provider: str = "cpu", whole: bytes | None = None
    ) -> None:
        """Load the model.

        Args:
            path: Where `content` came from, for messages.
            content: The ONNX file; its further outputs, if it has some, are computed in every run.
            whole: The same file with the outputs that `explain` wants, loaded when it first does.
            provider: "cpu", "cuda", or another device of this ONNX Runtime in lower case: "CoreMLExecutionProvider"
                is "coreml". Another is never taken instead.

        Raises:
            DependencyError: ONNX Runtime is not installed.
            EngineError: The provider is unknown or missing here, or the file is not a model of ours.
        """
        self._name, self._errors = path.name, RuntimeErrors(f"ONNX Runtime failed on {path.name}")
        ort = _import_onnxruntime()
        self.provider, self._path = provider, path
        self._wanted = _require_provider(ort, provider)
        # What a model asks for may depend on the size of a batch.
        self._bounds = self._bounds_of(content)
        self._session: Any
        self._session, placement = self._open(ort, content, self._bounds)
        self.num_labels = _check_signature(self._session, path)
        self.description = f"ONNX Runtime {ort.__version__}, {self._wanted}{placement}"
        # Models that were trained elsewhere may know batches of one alone.
        self._one_by_one = self._session.get_inputs()[0].shape[0] == 1
        self._whole, self._explaining_bounds = whole, self._bounds_of(whole or b"")
        self._explaining: Any = None

    def infer(self, frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Run the model; see `Backend.infer`."""
        if self._session is None:
            raise EngineError(f"{self._name} was closed: open the Recognizer again")
        with self._errors:
            if not self._one_by_one or len(frames) == 1:
                return self._run(frames)
            return np.concatenate([self._run(frames[i : i + 1]) for i in range(len(frames))])

    def _run(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self._bounds.of(len(frames)):
            (scores,) = self._session.run([OUTPUT_NAME], {INPUT_NAME: frames})
        result: NDArray[np.float32] = scores
        return result

    @property
    def explains(self) -> bool:
        """Whether it has further outputs; see `ExplainingBackend`."""
        return self._whole is not None or self._explaining is not None

    def explain(self, frames: NDArray[np.uint8], /) -> dict[str, NDArray[np.float32]]:
        """Run the model with all its outputs; see `ExplainingBackend`."""
        if self._session is None:
            raise EngineError(f"{self._name} was closed: open the Recognizer again")
        with self._errors, self._explaining_bounds.of(len(frames)):
            session = self._explainer()
            names = [item.name for item in session.get_outputs()]
            found = session.run(names, {INPUT_NAME: frames})
        return dict(zip(names, found, strict=True))

    def close(self) -> None:
        """Free the sessions; see `Backend.close`."""
        self._session = self._explaining = self._whole = None

    def _explainer(self) -> Any:
        """The session with all outputs, opened when it is first asked for."""
        if self._whole is not None:
            ort = _import_onnxruntime()
            self._explaining, _ = self._open(ort, self._whole, self._bounds_of(self._whole))
            self._whole = None
        if self._explaining is None:
            raise no_explanation(self._name)
        return self._explaining

    def _bounds_of(self, content: bytes) -> FirstRuns:
        return FirstRuns(self._name, len(content) if self._wanted == _CPU else None)

    def _open(self, ort: Any, content: bytes, bounds: FirstRuns) -> tuple[Any, str]:
        """A session, and what to say of where its nodes run."""
        options = _session_options(ort)
        options.add_session_config_entry(_RECORD_PLACEMENT, "1")
        with RuntimeErrors(f"ONNX Runtime cannot load {self._path}", ". Export the model again"):
            # Without enable_fallback=0 ONNX Runtime answers a device's failure, also in the middle of
            # a run, by going on with the CPU.
            with bounds.of(0):
                session = ort.InferenceSession(
                    content,
                    options,
                    providers=[self._wanted],
                    enable_fallback=0,
                    disabled_optimizers=SLOWER if self._wanted == _CPU else (),
                )
            _check_signature(session, self._path)
            return session, _check_placement(session, self._wanted)


class ForeignModel:
    """Runs a model of somebody else's on the CPU, whatever goes in and comes out."""

    def __init__(self, path: Path, content: bytes) -> None:
        """Load the model.

        Args:
            path: Where `content` came from, for messages.
            content: The ONNX file, whose structure was looked at.

        Raises:
            DependencyError: ONNX Runtime is not installed.
            EngineError: It cannot be loaded.
        """
        self._name, ort = path.name, _import_onnxruntime()
        self._bounds = FirstRuns(path.name, len(content))
        with RuntimeErrors(f"ONNX Runtime cannot load {path}"), self._bounds.of(0):
            self._session: Any = ort.InferenceSession(
                content, _session_options(ort), providers=[_CPU], enable_fallback=0
            )

    def run(self, name: str, array: NDArray[Any], output: str) -> NDArray[Any]:
        """Return one output for one input.

        Raises:
            EngineError: The runtime failed.
        """
        with RuntimeErrors(f"ONNX Runtime failed on {self._name}"), self._bounds.of(len(array)):
            (found,) = self._session.run([output], {name: array})
        return np.asarray(found)


def _session_options(ort: Any) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = _SILENT
    # As many threads as cores we may run on: by itself it counts those of the machine.
    options.intra_op_num_threads = usable_cores()
    # Constants are read from the file alone: there is no such folder to find others in.
    options.add_session_config_entry(_OTHER_FILES_IN, os.devnull)
    return options


def _import_onnxruntime() -> Any:
    with needed("ONNX Runtime is needed and cannot be imported", "pip install 'cmlr-edge[cpu]'"):
        return import_runtime("onnxruntime")


def available_providers() -> list[str]:
    """Devices of the installed ONNX Runtime, the CPU first; see `OnnxRuntimeBackend`.

    Raises:
        DependencyError: ONNX Runtime is not installed.
    """
    offered = _import_onnxruntime().get_available_providers()
    names = [name.removesuffix(_SUFFIX).lower() for name in offered]
    return sorted(set(names) - _NOT_OURS, key=lambda name: (name != "cpu", names.index(name)))


def _require_provider(ort: Any, provider: str) -> str:
    """ONNX Runtime's own name of the provider."""
    offered = {name.removesuffix(_SUFFIX).lower(): name for name in ort.get_available_providers()}
    if provider not in offered or provider in _NOT_OURS:
        known = sorted(set(offered) - _NOT_OURS)
        raise EngineError(
            f"provider {provider!r} was asked for, but this ONNX Runtime offers {known}: install a "
            "build that has it, or ask for one of these, for OpenVINO's 'openvino' or 'openvino-bf16', "
            "or for 'auto', the fastest"
        )
    return str(offered[provider])


def _check_placement(session: Any, wanted: str) -> str:
    """Read back where the model runs; return what to say of nodes that run elsewhere.

    Raises:
        EngineError: On another device than the wanted one.
    """
    if (actual := session.get_providers()[0]) != wanted:
        raise EngineError(
            f"asked ONNX Runtime for {wanted}, it would run on {actual} instead: the device's "
            "libraries are missing or of another version (`cmlr-edge doctor` looks), or ask for "
            "provider='cpu'"
        )
    if not hasattr(session, "get_provider_graph_assignment_info"):  # older versions do not tell
        return ""
    counts: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] += len(part.get_nodes())
    if not counts[wanted]:
        raise EngineError(
            f"asked ONNX Runtime for {wanted}, and it took none of the model's {counts.total()} "
            "nodes: this build cannot run the model there; ask for provider='cpu'"
        )
    elsewhere = counts.total() - counts[wanted]
    return f" ({elsewhere} of {counts.total()} nodes on the CPU)" if elsewhere else ""


def _check_signature(session: Any, path: Path) -> int:
    """Return the number of labels after checking names, types and ranks against our contract."""
    inputs = {item.name: item for item in session.get_inputs()}
    outputs = {item.name: item for item in session.get_outputs()}
    frames, scores = inputs.get(INPUT_NAME), outputs.get(OUTPUT_NAME)
    if (
        len(inputs) != 1
        or frames is None
        or scores is None
        or frames.type != "tensor(uint8)"
        or len(frames.shape) != 4
        or len(scores.shape) != 2
        or not isinstance(scores.shape[1], int)
    ):
        raise EngineError(
            f"{path} is not a model of this SDK: expected uint8 {INPUT_NAME!r} (N, H, W, 3) -> "
            f"{OUTPUT_NAME!r} (N, labels), got {[*inputs]} -> {[*outputs]}. Export it with "
            "export/build_engine.py"
        )
    num_labels: int = scores.shape[1]
    return num_labels
