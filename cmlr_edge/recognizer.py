"""The SDK's front door."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from cmlr_edge.backends.base import Backend, ExplainingBackend, no_explanation, require_scores
from cmlr_edge.engines.opening import Opening
from cmlr_edge.engines.signature import refuse_signed_rebuild
from cmlr_edge.errors import EngineError
from cmlr_edge.frame import ColorOrder, Frame, ImageLike, as_images
from cmlr_edge.machine.closing import Closing
from cmlr_edge.machine.process_lock import ProcessLock
from cmlr_edge.model.files import model_path
from cmlr_edge.model.label_names import merged_thresholds
from cmlr_edge.model.pair import ModelPair
from cmlr_edge.model.spec import OUTPUT_NAME, ModelSpec
from cmlr_edge.model.stability import LabelStability, StabilityRules
from cmlr_edge.model.thresholds import reaches
from cmlr_edge.prediction import Latency, Prediction, rank_labels
from cmlr_edge.preprocess import Prepared, Preparing, room_for, together
from cmlr_edge.why import Explain, Reasons, as_explain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cmlr_edge.capture.base import Policy
    from cmlr_edge.sinks.base import Result

_ONE_PROCESS = "a Recognizer cannot be copied or forked: call from_engine in each process instead"
# How `Recognizer.stream` does it. `cmlr_edge.pipeline`, which is built upon this module, puts it here
# when the package is imported, so that imports point one way.
_streaming: Callable[..., Generator[Result, None, None]] | None = None
_streaming_async: Callable[..., AsyncGenerator[Result, None]] | None = None


def use_streaming(
    streaming: Callable[..., Generator[Result, None, None]],
    streaming_async: Callable[..., AsyncGenerator[Result, None]],
) -> None:
    """Let `Recognizer.stream` and `astream` be done by these functions."""
    global _streaming, _streaming_async
    _streaming, _streaming_async = streaming, streaming_async


class Recognizer(Closing):
    """Names the objects in images. Close it, or use it in a `with` block.

    Several threads may use it: one image, or one batch, is recognised at a time.

    Example:
        >>> with Recognizer.from_engine(demo_engine()) as recognizer:
        ...     prediction = recognizer(image_bgr)
        >>> [(item.label, item.score) for item in prediction.labels]
    """

    def __init__(
        self,
        backend: Backend,
        spec: ModelSpec,
        *,
        thresholds: Mapping[str, float] | float | None = None,
        why: str = "",
    ) -> None:
        """Combine a loaded runtime with the spec of the model it runs.

        Args:
            backend: Owned by the Recognizer from here on.
            spec: Input format, labels and thresholds.
            thresholds: Override the spec's: one value for all labels, or a value for some of them.
            why: This runtime was chosen, for `runtime`.
        """
        self._backend = backend
        self._why = why
        self._spec = spec
        self._thresholds = merged_thresholds(spec.thresholds_by_label, thresholds)
        self._preparing = Preparing(backend, spec.preprocess)
        self._buffer = np.empty((1, *spec.preprocess.size_hw, 3), np.uint8)
        self._lock = ProcessLock(_ONE_PROCESS)  # guards buffer and backend

    @classmethod
    def from_engine(
        cls,
        path: str | Path,
        *,
        provider: str | None = None,
        thresholds: Mapping[str, float] | float | None = None,
        rebuild: bool = False,
        require_signature: str | Path | None = None,
    ) -> Recognizer:
        """Open a model that export/build_engine.py or `cmlr-edge adopt` wrote, and its spec.

        The file's hash, and for an engine this machine, are checked before it is loaded; a stored
        golden sample is run after.

        Args:
            path: The `.onnx` or `.engine` file, or the folder with `model.onnx` in it; its spec has the same name,
                ending in .json, or is inside the file.
            provider: What runs it. "cpu" and "cuda" are ONNX Runtime's, as is any other device of the
                installed build; "openvino" computes in float32 on the CPU, "openvino-bf16" in bfloat16,
                which moves scores. Another is never taken instead. "auto" takes the fastest that passes the
                self-test and decides as the first does, measured once on this machine for this model;
                `runtime` says what it took and why. By default what the environment's CMLR_PROVIDER
                says, else "auto" for an `.onnx` file ("cpu" for one below 1 MiB), and the GPU for an
                engine, "cuda"; "cuda-graph" replays an engine's launches as one where that can be done, and
                `provider` says whether it was. "cpu" computes the same scores whatever else is installed.
            rebuild: Where an `.engine` is missing or was built for another machine, build it here
                from the `.onnx` beside it, in minutes, and write it and its spec.
            thresholds: Override the spec's: one value for all labels, or a value for some of them.
            require_signature: The PEM file of a public key, whose owner has to have signed model and
                spec (SECURITY.md). None: nobody has to. An engine that was built here is not signed.

        Raises:
            SpecError: The spec is missing, malformed, or a threshold is not usable; or `rebuild` and
                `require_signature` are asked for together.
            EngineError: The file is missing or changed, not signed as it has to be, cannot be loaded,
                or fails its self-test.
            DependencyError: The runtime is not installed, or model-signing, where it is needed.
        """
        if rebuild:
            refuse_signed_rebuild(require_signature)
        path = model_path(Path(path))
        if rebuild and path.suffix == ".engine":
            from cmlr_edge.engines.rebuild import rebuild_where_needed

            rebuild_where_needed(path)
        return cls._from_opening(Opening.of(path, provider), thresholds, require_signature)

    @classmethod
    def from_pair(
        cls,
        pair: ModelPair,
        *,
        provider: str | None = None,
        thresholds: Mapping[str, float] | float | None = None,
        require_signature: str | Path | None = None,
    ) -> Recognizer:
        """Open what was read already, whatever has become of the files; otherwise as `from_engine`."""
        opening = Opening.of_pair(pair, provider)
        return cls._from_opening(opening, thresholds, require_signature)

    @classmethod
    def _from_opening(
        cls,
        opening: Opening,
        thresholds: Mapping[str, float] | float | None,
        require_signature: str | Path | None,
    ) -> Recognizer:
        opening.public_key = None if require_signature is None else Path(require_signature)
        backend = opening.require()
        try:
            return cls(backend, opening.spec, thresholds=thresholds, why=opening.why)
        except BaseException:
            backend.close()
            raise

    @property
    def spec(self) -> ModelSpec:
        """What the model was trained for."""
        return self._spec

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names, in the order of `Prediction.scores`."""
        return self._spec.labels

    @property
    def thresholds(self) -> dict[str, float]:
        """The threshold in force for each label."""
        return dict(zip(self.labels, self._thresholds.tolist(), strict=True))

    @property
    def runtime(self) -> str:
        """The runtime and the device that really run the model, and why where that was chosen.

        Of an engine also where frames are resized, on the GPU or the CPU.
        """
        return self._backend.description + self._why

    @property
    def provider(self) -> str:
        """The provider that really runs the model, as `from_engine` takes it."""
        return self._backend.provider

    @property
    def explains(self) -> bool:
        """Whether its engine can say why it gave a score."""
        backend, meaning = self._backend, self._spec.explanation
        return meaning is not None and isinstance(backend, ExplainingBackend) and backend.explains

    def __call__(
        self, image: ImageLike, *, color: ColorOrder = "bgr", explain: bool | Explain = False
    ) -> Prediction:
        """Recognise one image.

        Args:
            image: A `Frame`, a uint8 array (H, W, 3) or grey (H, W), or a PIL image.
            color: Channel order of an array; a Frame is BGR and a PIL image RGB by themselves.
            explain: Say why, as `Prediction.why`; the first time loads the engine once more, for it.

        Raises:
            FrameError: It is not an image.
            EngineError: The runtime failed, or the engine was exported without explanations.
        """
        with self._lock:
            return self._recognize([image], color, self._buffer, explain)[0]

    def recognize_batch(
        self,
        images: Iterable[ImageLike] | NDArray[np.uint8],
        *,
        color: ColorOrder = "bgr",
        explain: bool | Explain = False,
    ) -> list[Prediction]:
        """Recognise several images, of any sizes, in one run of the model.

        Args:
            images: Each as in `__call__`. May be empty.
            color: Channel order of arrays.
            explain: As for `__call__`.
        """
        batch = as_images(images)
        if len(batch) == 0:
            return []
        buffer = room_for(len(batch), self._spec.preprocess.size_hw)
        return self._recognize(batch, color, buffer, explain)

    def _recognize(
        self,
        images: Sequence[Any] | NDArray[np.uint8],
        color: ColorOrder,
        buffer: NDArray[np.uint8],
        explain: bool | Explain,
    ) -> list[Prediction]:
        called_at, start = time.time(), time.perf_counter()
        inputs = self._preparing.several(images, color, buffer)
        share_ms = (time.perf_counter() - start) * 1e3 / len(images)
        return self._score(inputs, images, [share_ms] * len(images), called_at, explain)

    def _score(
        self,
        inputs: Any,
        images: Sequence[Any] | NDArray[np.uint8],
        preprocess_ms: Sequence[float],
        called_at: float,
        explain: bool | Explain,
    ) -> list[Prediction]:
        """Run the model on what this backend takes, see `Preparing`; `images` tell times and status."""
        why: Sequence[Reasons | None] = [None] * len(images)
        with self._lock:
            start = time.perf_counter()
            if (settings := as_explain(explain)) is None:
                scores = self._backend.infer(inputs)
                require_scores(scores, len(images), len(self.labels), self._spec.name)
            else:
                scores, why = self._explain(inputs, settings)
        inferred = time.perf_counter()
        finite = np.logical_and.reduce(np.isfinite(scores), axis=1)
        reached = reaches(scores, self._thresholds)
        valid = [
            bool(ok) and getattr(image, "status", "ok") == "ok"
            for ok, image in zip(finite, images, strict=True)
        ]
        selected = [
            rank_labels(row, self.labels, mask) if ok else ()
            for row, mask, ok in zip(scores, reached, valid, strict=True)
        ]
        share = 1e3 / len(images)
        stages = (inferred - start) * share, (time.perf_counter() - inferred) * share
        return [
            Prediction(
                scores=scores[i],
                labels=selected[i],
                latency_ms=Latency(getattr(image, "capture_ms", 0.0), preprocess_ms[i], *stages),
                captured_at=getattr(image, "captured_at", called_at),
                valid=valid[i],
                why=why[i],
            )
            for i, image in enumerate(images)
        ]

    def _explain(
        self, inputs: Any, settings: Explain
    ) -> tuple[NDArray[np.float32], list[Reasons | None]]:
        """Scores (N, L), and why."""
        meaning, name = self._spec.explanation, self._spec.name
        if meaning is None or not isinstance(self._backend, ExplainingBackend):
            raise no_explanation(name)
        found = self._backend.explain(inputs)
        require_scores(found[OUTPUT_NAME], len(inputs), len(self.labels), name)
        reasons = Reasons.of(found, meaning, self.labels, self._thresholds, settings, model=name)
        return found[OUTPUT_NAME], [*reasons]

    def prepare(self, frame: Frame) -> Prepared:
        """Do to a frame what precedes the model. Any thread may call it while the model runs.

        Raises:
            FrameError: It holds no image.
        """
        start = time.perf_counter()
        pixels = self._preparing.one(frame, "bgr")
        took_ms = (time.perf_counter() - start) * 1e3
        return Prepared(frame, pixels, self._spec.preprocess, took_ms)

    def recognize_prepared(
        self, prepared: Sequence[Prepared], *, explain: bool | Explain = False
    ) -> list[Prediction]:
        """Recognise what `prepare` returned, in one run of the model.

        Args:
            prepared: May be empty. What another model's Recognizer prepared is prepared again.
            explain: As for `__call__`.
        """
        takes = self._preparing.takes
        items = [item if takes(item) else self.prepare(item.frame) for item in prepared]
        if not items:
            return []
        inputs = together([item.input for item in items])
        preprocess_ms = [item.preprocess_ms for item in items]
        frames = [item.frame for item in items]
        return self._score(inputs, frames, preprocess_ms, time.time(), explain)

    def stream(
        self,
        source: str | Path | int,
        *,
        policy: Policy | None = None,
        stability: Mapping[str, LabelStability] | StabilityRules | None = None,
        explain: bool | Explain = False,
    ) -> Generator[Result, None, None]:
        """Open a source, recognise what it delivers, and follow each label over time.

        The source is closed when the generator ends or is closed.

        Example:
            >>> for result in recognizer.stream("rtsp://camera/1"):
            ...     print(result.frame.time_s, result.prediction.labels, result.events)

        Args:
            source: As for `open_source`.
            policy: Likewise.
            stability: By label, or rules, instead of what spec and thresholds say.
            explain: As for `__call__`.

        Raises:
            CaptureError: The source cannot be opened, or has failed for good.
            SpecError: `stability` names a label that the model does not know.
        """
        assert _streaming is not None
        return _streaming(self, source, policy=policy, stability=stability, explain=explain)

    def astream(
        self,
        source: str | Path | int,
        *,
        policy: Policy | None = None,
        stability: Mapping[str, LabelStability] | StabilityRules | None = None,
        explain: bool | Explain = False,
    ) -> AsyncGenerator[Result, None]:
        """Do as `stream`, for `async for`: the event loop goes on while frames are awaited.

        Example:
            >>> async for result in recognizer.astream("rtsp://camera/1"):
            ...     await tell(result.prediction.to_dict())
        """
        assert _streaming_async is not None
        return _streaming_async(self, source, policy=policy, stability=stability, explain=explain)

    def __repr__(self) -> str:
        """What it recognises, and where."""
        return f"<Recognizer {self._spec.name}: {len(self.labels)} labels, {self.runtime}>"

    def __reduce__(self) -> NoReturn:
        """Refuse copies and pickles with an EngineError: a runtime belongs to one process."""
        raise EngineError(_ONE_PROCESS)

    def close(self) -> None:
        """Free the runtime. Calling it twice is harmless, as it is after a fork, where it does nothing."""
        if self._lock.is_ours:
            with self._lock:
                self._backend.close()
