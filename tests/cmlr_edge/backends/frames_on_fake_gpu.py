"""What the made-up GPU's engines see of images that the SDK has it resize, as JSON."""

from __future__ import annotations

import json
import logging
import sys
import threading
import types
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cuda_operators  # type: ignore[import-not-found]
import numpy as np
import tensorrt
from cuda.bindings import runtime
from numpy.typing import NDArray

import cmlr_edge
from cmlr_edge import Recognizer
from cmlr_edge.backends import cuda_frames
from cmlr_edge.frame import Frame
from cmlr_edge.model.files import spec_path
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.pipeline.tiles import Tiles
from cmlr_edge.preprocess import Prepared, preprocess
from tests.cmlr_edge.backends.seeded_frame_bugs import BUGS
from tests.csrc.frame_reference import draw_frame

ODD = (37, 53)  # as the model's 24 x 32 in no axis, and no multiple of 256 bytes


def frame(image: NDArray[np.uint8]) -> Frame:
    return Frame(image, 0, None, 0.0, 0.0, "")


def images_of(count: int, size_hw: tuple[int, int] = ODD) -> list[NDArray[np.uint8]]:
    return [draw_frame(size_hw[0] + i, size_hw[1]) for i in range(count)]


class Watched:
    """A recognizer, and by how many grey levels its engine saw other pixels than `preprocess` makes."""

    def __init__(self, path: Path, provider: str = "cuda") -> None:
        self.recognizer = Recognizer.from_engine(path, provider=provider)
        self.worst = 0

    def see(
        self,
        images: Sequence[Any] | NDArray[np.uint8],
        color: Any = "bgr",
        run: Callable[[Any], object] | None = None,
    ) -> None:
        """Recognise them in one call; `run` instead of `recognize_batch`."""
        tensorrt.seen.clear()
        if run is None:
            self.recognizer.recognize_batch(images, color=color)
        else:
            run(images)
        seen = np.concatenate([batch for batch in tensorrt.seen])  # noqa: C416
        spec = self.recognizer.spec.preprocess
        pixels = [image.image_bgr if isinstance(image, Frame) else image for image in images]
        expected = np.stack([preprocess(image, spec, color=color) for image in pixels])
        assert len(seen) >= len(expected)
        difference = np.abs(seen[: len(expected)].astype(int) - expected)
        self.worst = max(self.worst, int(difference.max()))


def one_by_one(watched: Watched) -> None:
    for image in images_of(3):
        watched.see([image], run=lambda images: watched.recognizer(images[0]))
        watched.see([image], "rgb")


def of_one_memory(watched: Watched) -> None:
    """A camera's driver that writes each frame to the same place, and a batch that is one array."""
    block = np.stack([draw_frame(*ODD), draw_frame(*ODD[::-1]).reshape(*ODD, 3)])
    watched.see(block)
    for value in (0, 255, 17):
        block[0] = value
        watched.see(block[:1])
        block[1] = 255 - value
        watched.see(block)


def of_many_sizes(watched: Watched) -> None:
    """More than the stage holds, larger and smaller than the model, and edges that are black."""
    images = [draw_frame(7 + 5 * i, 9 + 7 * i) for i in range(20)]
    images[3][-1, -1], images[9][-1, -1], images[10][0, 0] = 0, 0, 0
    watched.see(images)
    watched.see(images[::-1])


def in_parts(watched: Watched) -> None:
    """A frame and its tiles, as the pipeline has them; views that are no part of it."""
    whole = frame(draw_frame(60, 91))
    tiles = Tiles(2, 2).cut(whole)
    recognizer = watched.recognizer
    together = [whole, *tiles]
    watched.see(together)
    watched.see(together, run=lambda given: recognizer.recognize_prepared(
        [recognizer.prepare(item) for item in given]
    ))  # fmt: skip
    image = whole.image_bgr
    watched.see([image, image[::-1], image[:, ::2], image[::2], image[5:, 7:], image[..., ::-1]])
    watched.see([tiles[3], tiles[1], whole, tiles[0]])
    watched.see([image[3:50, 5:70], image[5:40, 9:60]])


def with_ready_ones(watched: Watched) -> None:
    """Some of a batch were prepared by a Recognizer that leaves nothing to a GPU."""
    recognizer, spec = watched.recognizer, watched.recognizer.spec.preprocess

    def run(images: Sequence[NDArray[np.uint8]]) -> None:
        items = [recognizer.prepare(frame(image)) for image in images]
        for i in (1, 2, 5):
            items[i] = Prepared(items[i].frame, preprocess(images[i], spec), spec, 0.0)
        recognizer.recognize_prepared(items)

    watched.see(images_of(7), run=run)
    grey = np.ascontiguousarray(draw_frame(*ODD)[..., 0])
    watched.see([grey, *images_of(2)])


SCENES = (one_by_one, of_one_memory, of_many_sizes, in_parts, with_ready_ones)


def problems(folder: Path) -> list[str]:
    """What is wrong with the way of frames, on engines of other batches, with and without graphs."""
    found = []
    for name, provider in (("one", "cuda"), ("one", "cuda-graph"), ("three", "cuda-graph")):
        watched = None
        try:
            watched = Watched(folder / name / "model.engine", provider)
            for scene in SCENES:
                scene(watched)
            if watched.worst > 1:
                found.append(f"pixels differ by {watched.worst}")
            if "resized on the GPU" not in watched.recognizer.runtime:
                found.append("it is the CPU's work")
        except Exception as error:  # noqa: BLE001 (whatever a seeded bug leads to)
            found.append(f"{type(error).__name__}: {error}")
        finally:
            if watched is not None:
                watched.recognizer.close()
    return found


def all_ways(folder: Path) -> Any:
    cuda_frames._LARGEST_STAGE = 40_000
    return {"problems": problems(folder), "left": left()}


def left() -> list[int]:
    """Blocks of memory, streams and graphs that nobody freed."""
    return [len(x) for x in (runtime.memory, runtime.streams, runtime.graphs)]


def seeded(folder: Path) -> Any:
    """What is noticed of each bug, and of none."""
    logging.disable()
    answer = {}
    for name, bug in {"none": None, **BUGS}.items():
        for file in ("cuda_frames", "tensorrt"):  # in this order: the second imports the first
            module = types.ModuleType(f"cmlr_edge.backends.{file}")
            source = Path(cmlr_edge.backends.__file__).with_name(f"{file}.py")
            text = source.read_text()
            if bug is not None and bug.file == file:
                assert text.count(bug.right) == 1, name
                text = text.replace(bug.right, bug.wrong)
            sys.modules[module.__name__] = module
            exec(compile(text, str(source), "exec"), module.__dict__)  # noqa: S102
        sys.modules["cmlr_edge.backends.cuda_frames"]._LARGEST_STAGE = 40_000  # type: ignore[attr-defined]
        answer[name] = problems(folder)
    return answer


def uploads(folder: Path) -> Any:
    """Bytes that were copied to the GPU for a frame with tiles, and for a ready one."""
    watched, copied, real = Watched(folder / "one" / "model.engine"), [], runtime.cudaMemcpyAsync

    def copy(to: int, source: int, size: int, kind: Any, stream: int) -> Any:
        if kind == runtime.cudaMemcpyKind.cudaMemcpyHostToDevice:
            copied.append(size)
        return real(to, source, size, kind, stream)

    copy.__name__ = "cudaMemcpyAsync"
    runtime.cudaMemcpyAsync = copy
    whole = frame(draw_frame(60, 91))
    watched.see([whole, *Tiles(2, 2).cut(whole)])
    return {"frame": whole.image_bgr.nbytes, "copied": copied}


def threads(folder: Path) -> Any:
    recognizer = Recognizer.from_engine(folder / "one" / "model.engine")
    backend, errors = recognizer._backend, []

    def work(level: int) -> None:
        images = [np.full((*ODD, 3), level + i, np.uint8) for i in range(3)]
        for _ in range(20):
            items = [recognizer.prepare(frame(image)).input for image in images]
            expected = (level + np.arange(3))[:, None] / 255
            errors.append(float(np.abs(backend.infer(items) - expected).max()))  # type: ignore[arg-type]

    running = [threading.Thread(target=work, args=(level,)) for level in (10, 200, 90)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    recognizer.close()
    return {"error": max(errors), "number": len(errors), "left": left()}


def log_of(module: str) -> list[str]:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger(module).addHandler(handler)
    return said


def falls_back(folder: Path) -> Any:
    """What is said, and seen, where the kernel is missing or wrong, and where memory or a launch fails."""
    said, path = log_of("cmlr_edge.backends.cuda_frames"), folder / "one" / "model.engine"
    answer: dict[str, Any] = {}

    def look(name: str, watched: Watched) -> None:
        for image in images_of(2):
            watched.see([image])
        watched.see(images_of(5))
        runtimes = watched.recognizer.runtime
        watched.recognizer.close()
        answer[name] = {
            "worst": watched.worst, "said": [*said], "runtime": runtimes, "left": left()
        }  # fmt: skip
        said.clear()

    real, allocate = cuda_operators.resize_frame, runtime._allocate
    sys.modules["cmlr_edge._cuda"] = None  # type: ignore[assignment]
    look("no kernel", Watched(path))
    sys.modules["cmlr_edge._cuda"] = cuda_operators
    cuda_operators._ERROR = 0.01  # two grey levels
    look("wrong", Watched(path))
    cuda_operators._ERROR = 0.0

    watched = Watched(path)
    launches = iter(range(2))

    def failing(**given: Any) -> None:
        if next(launches, None) is None:
            raise RuntimeError("resize_frame: the launch failed: no kernel image")
        real(**given)

    cuda_frames_operator(watched, failing)
    look("launch", watched)

    watched = Watched(path)
    runtime._allocate = lambda _: (runtime.cudaError_t.cudaErrorMemoryAllocation, 0)
    watched.see([draw_frame(300, 400)])
    runtime._allocate = allocate
    look("memory", watched)

    watched = Watched(path)
    cuda_frames._LARGEST_STAGE = 3 * 38 * 53
    look("too large", watched)
    return answer


def cuda_frames_operator(watched: Watched, operator: Any) -> None:
    watched.recognizer._backend._resizing.operator = operator  # type: ignore[attr-defined]


def not_asked(folder: Path) -> Any:
    """A model whose input the kernel does not make, and a user who wants none of it."""
    said, path = log_of("cmlr_edge.backends.cuda_frames"), folder / "one" / "model.engine"
    sys.modules["cmlr_edge._cuda"] = None  # type: ignore[assignment]
    spec = ModelSpec.load(spec_path(path))
    replace(spec, preprocess=replace(spec.preprocess, resize="letterbox")).save(spec_path(path))
    watched = Watched(path)
    watched.see(images_of(3))
    return {"worst": watched.worst, "said": said, "runtime": watched.recognizer.runtime}


def left_out(folder: Path) -> Any:
    watched = Watched(folder / "one" / "model.engine")
    watched.see(images_of(3))
    return {"worst": watched.worst, "runtime": watched.recognizer.runtime}


def taken_over(folder: Path) -> Any:
    """A run goes on with an ONNX file after an engine, and the other way round, frames under way."""
    engine = Recognizer.from_engine(folder / "one" / "model.engine")
    plain = Recognizer.from_engine(folder / "onnx" / "model.onnx", provider="cpu")
    frames = [frame(image) for image in images_of(3)]
    expected = np.stack([p.scores for p in plain.recognize_batch(frames)])
    worst = []
    for first, then in ((engine, plain), (plain, engine)):
        found = then.recognize_prepared([first.prepare(item) for item in frames])
        worst.append(float(np.abs(np.stack([p.scores for p in found]) - expected).max()))
    prepared = engine.prepare(frames[0])
    return {
        "worst": worst, "input": type(prepared.input).__name__, "pixels": prepared.pixels.shape
    }  # fmt: skip


def main(what: str, folder: str) -> None:
    sys.modules["cmlr_edge._cuda"] = cuda_operators
    known = (all_ways, seeded, uploads, threads, falls_back, not_asked, left_out, taken_over)
    print(json.dumps({f.__name__: f for f in known}[what](Path(folder))))


if __name__ == "__main__":
    main(*sys.argv[1:])
