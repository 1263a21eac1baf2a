"""The frame kernel on a real GPU, against OpenCV and `preprocess`."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu import ways_of_frames
from benchmarks.gpu.device import closing, import_cuda, poison, time_in_graph, uploaded
from benchmarks.gpu.report import Report
from benchmarks.gpu.stage import Place
from cmlr_edge.backends.cuda_memory import Stream
from cmlr_edge.errors import EngineError
from cmlr_edge.model.spec import PreprocessSpec
from cmlr_edge.preprocess import preprocess

SIZES = (  # frame, result
    ((1080, 1920), (320, 320)), ((2160, 3840), (448, 448)), ((480, 640), (224, 224)),
    ((576, 720), (640, 640)), ((120, 160), (448, 448)), ((720, 300), (448, 448)),
)  # fmt: skip
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Grey levels, normalised: `preprocess` rounds, of NV12 twice, to colours and to pixels; the kernel never.
_NORMALISED = {"bgr": 1.0, "rgb": 1.0, "nv12": 1.5}


def check(report: Report, _: Place) -> None:
    """BGR, RGB and NV12, with and without a pitch and normalisation, smaller and larger; as the SDK uses it."""
    cuda = import_cuda()
    for kind in ("bgr", "rgb", "nv12"):
        for from_hw, size_hw in SIZES:
            name = f"{kind}, {from_hw[1]} x {from_hw[0]} to {size_hw[1]} x {size_hw[0]}"
            report.check(name, partial(compare, cuda, kind, from_hw, size_hw))
    ways_of_frames.check(report)


def compare(cuda: Any, kind: str, from_hw: tuple[int, int], size_hw: tuple[int, int]) -> str:
    """Packed and pitched, as bytes and normalised; and the time of the first.

    Raises:
        EngineError: A pixel differs by more than one grey level, or by what rounding explains.
    """
    planes = _draw(kind, from_hw)
    expected = preprocess(_in_rgb(kind, planes), PreprocessSpec(size_hw, MEAN, STD), color="rgb")
    said = []
    for padding in (0, 64):
        for normalised in (False, True):
            actual, microseconds = _resize(cuda, kind, planes, size_hw, padding, normalised)
            found = float(np.abs(actual - expected).max())
            if not found <= (_NORMALISED[kind] if normalised else 1):
                how = f"{padding} bytes behind each row, {'' if normalised else 'not '}normalised"
                raise EngineError(f"differs by {found:.3g} grey levels, {how}")
            said.append((found, microseconds))
    worst = max(found for found, _ in said)
    return f"differs by {worst:.2g} grey levels at most; {said[0][1]:.0f} us"


def launch_few(cuda: Any, kind: str, from_hw: tuple[int, int], size_hw: tuple[int, int]) -> None:
    """The same launches, of which nothing is compared."""
    for padding in (0, 64):
        for normalised in (False, True):
            planes = _draw(kind, from_hw)
            _resize(cuda, kind, planes, size_hw, padding, normalised, timed=False)


def _draw(kind: str, from_hw: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """The planes."""
    height, width = from_hw
    random = np.random.default_rng(height)
    shapes = [(height, width), (height // 2, width)] if kind == "nv12" else [(height, width, 3)]
    return [random.integers(0, 256, shape, np.uint8) for shape in shapes]


def _in_rgb(kind: str, planes: list[NDArray[np.uint8]]) -> Any:
    """The picture that the planes are."""
    if kind != "nv12":
        return planes[0] if kind == "rgb" else planes[0][..., ::-1]
    import cv2

    luma, chroma = planes
    pairs = chroma.reshape(len(chroma), -1, 2)
    return cv2.cvtColorTwoPlane(luma, pairs, cv2.COLOR_YUV2RGB_NV12)


def _resize(
    cuda: Any, kind: str, planes: list[NDArray[np.uint8]], size_hw: tuple[int, int], padding: int,
    normalised: bool, *, timed: bool = True,
) -> tuple[NDArray[np.float64], float]:  # fmt: skip
    """Pixels (*size_hw, 3) in grey levels, and microseconds; untimed it is one launch."""
    shape = (3, *size_hw) if normalised else (*size_hw, 3)
    with ExitStack() as stack:
        stream = closing(stack, Stream())
        flat = [plane.reshape(len(plane), -1) for plane in planes]
        sources = [uploaded(stack, np.pad(x, ((0, 0), (0, padding))), stream) for x in flat]
        out = uploaded(stack, poison(shape, "float32" if normalised else "uint8"), stream)
        rows = [source.host.shape[1] for source in sources]

        def launch() -> None:
            cuda.resize_frame(
                format=kind, pixels=sources[0].address,
                chroma=sources[1].address if kind == "nv12" else 0,
                size_hw=planes[0].shape[:2], out=out.address, out_hw=size_hw, stream=stream.handle,
                row_bytes=(rows[0], rows[-1]) if padding else None,
                mean_std=(MEAN, STD) if normalised else None,
            )  # fmt: skip

        microseconds = time_in_graph(launch, stream) if timed else 0.0
        if not timed:
            launch()
        out.download(shape[0], stream)
        stream.synchronize()
        pixels = out.host.astype(np.float64)
    if normalised:
        mean, std = (np.array(values)[:, None, None] for values in (MEAN, STD))
        pixels = ((pixels * std + mean) * 255).transpose(1, 2, 0)
    return pixels, microseconds
