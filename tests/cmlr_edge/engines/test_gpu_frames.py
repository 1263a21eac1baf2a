"""Images of any size on the way to an engine: uploaded once, resized by the GPU, or by the CPU after all.

The GPU is made up (see test_engines.py), and its frame kernel is `preprocess`, or the real kernel's source
on the emulated GPU.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.cmlr_edge.backends.seeded_frame_bugs import BUGS
from tests.cmlr_edge.engines.fake_gpu import BUILT, on_fake_gpu, write
from tests.conftest import make_spec, mean_color_model, write_engine
from tests.csrc.emulation.emulated_frames import build_frame_runner

on_gpu = partial(on_fake_gpu, module="tests.cmlr_edge.backends.frames_on_fake_gpu")


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    for name, smallest in (("one", 1), ("three", 3)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, replace(BUILT, batch=(smallest, smallest, 8)))
    (tmp_path / "onnx").mkdir()
    write_engine(tmp_path / "onnx", mean_color_model(), make_spec(mean_color_model()))
    return tmp_path


def test_an_engine_sees_of_any_image_what_preprocess_makes_of_it(
    driver: Path, engines: Path
) -> None:
    assert on_gpu(driver, "all_ways", engines) == {"problems": [], "left": [0, 0, 0]}


@pytest.mark.slow
@pytest.mark.timeout(900)  # where nothing is stored, compiling the emulation takes a minute
def test_the_kernels_own_source_makes_it_to_a_grey_level(
    driver: Path, engines: Path, tmp_path: Path
) -> None:
    runner = str(build_frame_runner(tmp_path / "frames", "quick").program)
    answer = on_gpu(driver, "all_ways", engines, FAKE_FRAME_RUNNER=runner)
    assert answer == {"problems": [], "left": [0, 0, 0]}


def test_seeded_bugs_are_noticed(driver: Path, engines: Path) -> None:
    noticed = on_gpu(driver, "seeded", engines)
    assert noticed.pop("none") == []
    assert [name for name in BUGS if not noticed[name]] == []


def test_a_frame_and_its_tiles_are_uploaded_once(driver: Path, engines: Path) -> None:
    answer = on_gpu(driver, "uploads", engines)
    assert answer["copied"] == [answer["frame"]]


def test_threads_do_not_mix_their_frames(driver: Path, engines: Path) -> None:
    answer = on_gpu(driver, "threads", engines)
    assert answer["number"] == 60
    assert answer["error"] < 1e-6
    assert answer["left"] == [0, 0, 0]


SAID = {
    "no kernel": "this installation has no CUDA kernels: install with",
    "wrong": "the GPU's pixels differ by 2 grey levels",
    "launch": "the launch failed: no kernel image",
    "memory": "cudaMallocHost failed: cudaErrorMemoryAllocation",
}


def test_where_the_gpu_cannot_do_it_the_cpu_does_and_the_log_says_so_once(
    driver: Path, engines: Path
) -> None:
    answer: dict[str, Any] = on_gpu(driver, "falls_back", engines)
    for name, text in SAID.items():
        [said] = answer[name]["said"]
        assert said.startswith("model.engine: frames are resized on the CPU: "), name
        assert text in said, name
        assert answer[name]["runtime"].endswith(", frames are resized on the CPU"), name
    assert answer["too large"]["said"] == []
    assert answer["too large"]["runtime"].endswith(", frames are resized on the GPU")
    assert {found["worst"] for found in answer.values()} == {0}
    assert {(*found["left"],) for found in answer.values()} == {(0, 0, 0)}


def test_a_model_that_is_not_fed_by_area_asks_for_no_kernel(driver: Path, engines: Path) -> None:
    answer = on_gpu(driver, "not_asked", engines)
    assert answer == {"worst": 0, "said": [], "runtime": "TensorRT 10.3.0, Orin"}


def test_who_wants_the_cpu_to_do_it_gets_that(driver: Path, engines: Path) -> None:
    answer = on_gpu(driver, "left_out", engines, CMLR_RESIZE="cpu")
    assert answer == {"worst": 0, "runtime": "TensorRT 10.3.0, Orin"}


def test_frames_under_way_go_from_one_recognizer_to_another(driver: Path, engines: Path) -> None:
    answer = on_gpu(driver, "taken_over", engines)
    assert answer["input"] == "Unresized"
    assert answer["pixels"] == [24, 32, 3]
    assert max(answer["worst"]) < 1e-6
