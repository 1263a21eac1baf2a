"""The frame kernel on the emulated GPU, against what the SDK does to a frame on the CPU."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.gpu import frames
from cmlr_edge import Recognizer, demo_engine
from cmlr_edge.model.spec import PreprocessSpec
from cmlr_edge.preprocess import preprocess
from csrc.cuda import cubin
from tests.csrc import kernel_report
from tests.csrc.emulation.emulated_frames import EmulatedFrames, build_frame_runner
from tests.csrc.emulation.emulated_gpu import CSRC, EmulatedGpu, build_ptx_runner, compile_ptx
from tests.csrc.frame_reference import draw_frame, nv12_of, resized
from tests.csrc.requirements import require_nvcc, require_sanitizer
from tests.csrc.seeded_bugs import BUGS

# Compiling takes minutes where nothing is stored.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SLIVER = 0.26  # grey levels: what is left out where a pixel covers less than 1/1000 of another
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = {  # frame, result
    "the same": ((64, 96), (64, 96)),
    "by whole numbers": ((96, 128), (32, 64)),
    "by fractions": ((98, 142), (33, 47)),
    "by two": ((96, 128), (48, 64)),
    "by a lot": ((270, 480), (7, 5)),
    "one axis alone": ((64, 96), (64, 50)),
    "larger": ((20, 30), (64, 96)),
    "larger by fractions": ((22, 38), (33, 47)),
    "wider and lower": ((60, 20), (33, 47)),
    "larger where the last bit decides": ((14, 20), (50, 52)),
    "one pixel": ((2, 2), (1, 1)),
}


@pytest.fixture(scope="module", params=["fast", "address"])
def gpu(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EmulatedFrames:
    folder = tmp_path_factory.mktemp("frames")
    if request.param == "address":
        require_sanitizer(folder, "address")
    return build_frame_runner(folder, request.param)


def spec_of(size_hw: tuple[int, int]) -> PreprocessSpec:
    return PreprocessSpec(size_hw, MEAN, STD)


def difference(actual: NDArray[Any], expected: NDArray[Any]) -> int:
    return int(np.abs(actual.astype(int) - expected.astype(int)).max())


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("color", ["bgr", "rgb"])
def test_a_packed_frame_is_what_preprocess_makes_of_it(
    gpu: EmulatedFrames, name: str, color: str
) -> None:
    from_hw, size_hw = SIZES[name]
    image = draw_frame(*from_hw)
    expected = preprocess(image, spec_of(size_hw), color="bgr" if color == "bgr" else "rgb")
    actual = gpu.resize([image], "bgr" if color == "bgr" else "rgb", size_hw, padding=(13, 0))
    assert np.array_equal(actual, expected)


def test_frames_of_any_size_become_the_bytes_that_preprocess_makes(gpu: EmulatedFrames) -> None:
    random = np.random.default_rng(5)
    for _ in range(200):
        size_hw = tuple(random.integers(1, 60, 2).tolist())
        from_hw = tuple(random.integers(1, 130, 2).tolist())
        image = random.integers(0, 256, (*from_hw, 3), np.uint8)
        actual = gpu.resize([image], "bgr", size_hw)
        assert np.array_equal(actual, preprocess(image, spec_of(size_hw))), (from_hw, size_hw)


def test_labels_of_photos_are_decided_alike(gpu: EmulatedFrames, photos: Path) -> None:
    with Recognizer.from_engine(demo_engine(), provider="cpu") as recognizer:
        spec, files = recognizer.spec.preprocess, sorted(photos.rglob("*.jpg"))[:12]
        images = [np.asarray(cv2.imread(str(file)), np.uint8) for file in files]
        by_cpu = recognizer.recognize_batch(images)
        resized_by_gpu = [gpu.resize([image], "bgr", spec.size_hw) for image in images]
        by_gpu = recognizer.recognize_batch(resized_by_gpu, color="rgb")
    assert len(images) == 12
    for cpu, emulated in zip(by_cpu, by_gpu, strict=True):
        assert np.array_equal(cpu.scores, emulated.scores)


@pytest.mark.parametrize("name", SIZES)
def test_an_nv12_frame_is_what_opencv_and_preprocess_make_of_it(
    gpu: EmulatedFrames, name: str
) -> None:
    (height, width), size_hw = SIZES[name]
    planes = nv12_of(height, width)
    image = cv2.cvtColorTwoPlane(planes[0], planes[1].reshape(height // 2, -1, 2),
                                 cv2.COLOR_YUV2BGR_NV12)  # fmt: skip
    expected = preprocess(image, spec_of(size_hw))
    assert difference(gpu.resize(planes, "nv12", size_hw, padding=(7, 10)), expected) <= 1


@pytest.mark.parametrize("name", SIZES)
def test_a_pixel_is_the_mean_and_normalised_it_is_not_rounded(
    gpu: EmulatedFrames, name: str
) -> None:
    from_hw, size_hw = SIZES[name]
    image = draw_frame(*from_hw)
    exact = resized(image[..., ::-1], size_hw)
    if "larger" not in name and "wider" not in name:  # there OpenCV cuts digits off twice
        rounded = gpu.resize([image], "bgr", size_hw)
        assert np.abs(rounded - exact).max() <= 0.5 + SLIVER
    actual = gpu.resize([image], "bgr", size_hw, mean_std=(MEAN, STD))
    mean, std = (np.array(values)[:, None, None] for values in (MEAN, STD))
    assert np.abs((actual * std + mean) * 255 - exact.transpose(2, 0, 1)).max() <= SLIVER


def test_a_camera_of_standard_definition_is_enlarged_as_opencv_does(gpu: EmulatedFrames) -> None:
    image = draw_frame(576, 720)
    expected = cv2.resize(image, (640, 640), interpolation=cv2.INTER_AREA)[..., ::-1]
    assert np.array_equal(gpu.resize([image], "bgr", (640, 640)), expected)


@pytest.mark.parametrize("std", [0.0, -1.0, np.inf, np.nan])
def test_what_does_not_normalise_is_refused_by_name(gpu: EmulatedFrames, std: float) -> None:
    with pytest.raises(subprocess.CalledProcessError) as error:
        gpu.resize([draw_frame(4, 4)], "bgr", (2, 2), mean_std=(MEAN, (0.2, std, 0.2)))
    assert "every std finite and above 0" in error.value.stderr.decode()


def test_a_full_hd_frame_fits(gpu: EmulatedFrames) -> None:
    planes = nv12_of(1080, 1920)
    image = cv2.cvtColorTwoPlane(planes[0], planes[1].reshape(540, -1, 2), cv2.COLOR_YUV2BGR_NV12)
    actual = gpu.resize(planes, "nv12", (40, 40))
    assert difference(actual, preprocess(image, spec_of((40, 40)))) <= 1


def test_what_is_no_frame_is_refused_by_name(gpu: EmulatedFrames) -> None:
    with pytest.raises(subprocess.CalledProcessError) as error:
        gpu.resize(nv12_of(6, 5), "nv12", (2, 2))
    assert "NV12 needs even sides" in error.value.stderr.decode()
    with pytest.raises(subprocess.CalledProcessError) as error:
        gpu.resize([draw_frame(4, 4)], "bgr", (2, 0))
    assert "a side is 0, expected 1 to 16384" in error.value.stderr.decode()
    with pytest.raises(subprocess.CalledProcessError) as error:
        gpu.resize([draw_frame(4, 4)], "bgr", (2, 2), padding=(-1, 0))
    assert "does not fit into 11 bytes" in error.value.stderr.decode()


def machine_code(folder: Path, csrc: Path = CSRC) -> EmulatedFrames:
    """What nvcc makes of the frame kernel of `csrc`, in place of its source."""
    source = EmulatedGpu(build_frame_runner(folder / "source", "quick").program)
    kernel = csrc / "cuda" / "frame.cu"
    built = build_ptx_runner(folder / "ptx", source, require_nvcc(), "sm_87", csrc, kernel)
    return EmulatedFrames(built.program)


def test_machine_code_gives_the_same_bytes(tmp_path: Path) -> None:
    gpu = machine_code(tmp_path)
    for name, (from_hw, size_hw) in SIZES.items():
        image = draw_frame(*from_hw)
        expected = preprocess(image, spec_of(size_hw))
        actual = gpu.resize([image], "bgr", size_hw, padding=(13, 0))
        assert np.array_equal(actual, expected), name
        actual = gpu.resize([image], "rgb", size_hw, mean_std=(MEAN, STD))
        mean, std = (np.array(values)[:, None, None] for values in (MEAN, STD))
        exact = resized(image, size_hw).transpose(2, 0, 1)
        assert np.abs((actual * std + mean) * 255 - exact).max() <= SLIVER, name
        planes = nv12_of(*from_hw)
        pairs = planes[1].reshape(from_hw[0] // 2, -1, 2)
        picture = cv2.cvtColorTwoPlane(planes[0], pairs, cv2.COLOR_YUV2BGR_NV12)
        actual = gpu.resize(planes, "nv12", size_hw, padding=(7, 10))
        assert difference(actual, preprocess(picture, spec_of(size_hw))) <= 1, name


def test_it_is_the_machine_code_that_was_run(tmp_path: Path) -> None:
    bug = BUGS["pixels cut off, not rounded"]
    gpu, image = machine_code(tmp_path, bug.copy_with_bug(tmp_path)), draw_frame(98, 142)
    expected = preprocess(image, spec_of((33, 47)))
    assert difference(gpu.resize([image], "bgr", (33, 47)), expected) == 1


def test_the_compiler_fuses_no_product_of_a_byte_with_a_sum(tmp_path: Path) -> None:
    """The emulation rounds each by itself, as OpenCV does; so must the GPU, or last bits differ."""
    source = CSRC / "cuda" / "frame.cu"
    ptx = compile_ptx(require_nvcc(), "sm_87", tmp_path / "frame.ptx", source=source).read_text()
    kernels = ptx.split(".entry ")[1:]
    [of_bytes] = [text for text in kernels if "PackedELb0" in text.partition("(")[0]]
    assert len(kernels) == 4
    assert "fma" not in of_bytes
    assert of_bytes.count("mul.rn.f32") > 10


@pytest.mark.parametrize("architecture", kernel_report.ARCHITECTURES)
def test_the_compiler_needs_no_stack_and_spills_nothing(
    cuda_library: Path, tmp_path: Path, architecture: str
) -> None:
    cuobjdump = cubin.find_tool("cuobjdump")
    if cuobjdump is None:
        pytest.skip("cuobjdump is not installed: what nvcc makes of the kernel is not tested")
    code = kernel_report.machine_code(cuda_library, "frame", tmp_path)
    kernels = cubin.resources(cuobjdump, code[architecture])
    assert len(kernels) == 4
    for used in kernels.values():
        assert (used["STACK"], used["LOCAL"], used["SHARED"]) == (0, 0, 0)
        assert used["REG"] <= 64


@pytest.mark.parametrize("gpu", ["fast"], indirect=True)
@pytest.mark.parametrize("kind", ["bgr", "nv12"])
@pytest.mark.parametrize("sizes", [((120, 160), (448, 448)), ((480, 640), (224, 224))])
def test_the_check_on_a_gpu_passes_where_the_kernel_is_right(
    kind: Any, sizes: Any, gpu: EmulatedFrames, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its frames and its limits, the larger and the smaller; else a right kernel fails there."""

    def resize(
        _: object, kind: Any, planes: Any, size_hw: Any, padding: int, normalised: bool
    ) -> tuple[NDArray[np.float64], float]:
        mean_std = (MEAN, STD) if normalised else None
        behind = (padding, padding if kind == "nv12" else 0)
        pixels = gpu.resize(planes, kind, size_hw, padding=behind, mean_std=mean_std)
        pixels = pixels.astype(np.float64)
        if normalised:
            mean, std = (np.array(values)[:, None, None] for values in (MEAN, STD))
            pixels = ((pixels.reshape(3, *size_hw) * std + mean) * 255).transpose(1, 2, 0)
        return pixels, 0.0

    assert sizes in frames.SIZES
    monkeypatch.setattr(frames, "_resize", resize)
    assert frames.compare(None, kind, *sizes).startswith("differs by ")
