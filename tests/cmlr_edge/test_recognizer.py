from __future__ import annotations

import copy
import gc
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from PIL import Image as PilImage

from cmlr_edge import Recognizer, open_source
from cmlr_edge.backends.golden import check_golden
from cmlr_edge.errors import EngineError, FrameError, SpecError
from cmlr_edge.model.spec import GoldenSample, PreprocessSpec
from cmlr_edge.preprocess import preprocess
from tests.cmlr_edge.pipeline.stand_ins import NanBackend
from tests.conftest import make_spec, mean_color_model, solid, write_engine


def test_each_label_is_held_against_its_own_threshold(color_engine: Path) -> None:
    with Recognizer.from_engine(color_engine) as recognizer:
        prediction = recognizer(solid(127, 127, 127))  # every score 0.498
    assert [item.label for item in prediction.labels] == ["red", "blue"]
    np.testing.assert_allclose(prediction.scores, 127 / 255, rtol=1e-5)


def test_a_score_equal_to_its_threshold_counts_as_present(engine: Path) -> None:
    with Recognizer.from_engine(engine, thresholds=0.0) as recognizer:
        assert len(recognizer(solid(0, 0, 0)).labels) == 3


def test_a_threshold_of_one_switches_a_label_off_though_its_score_is_one(engine: Path) -> None:
    with Recognizer.from_engine(engine, thresholds={"red": 1.0}) as recognizer:
        prediction = recognizer(solid(255, 255, 255))
    assert prediction.scores.tolist() == [1, 1, 1]
    assert [item.label for item in prediction.labels] == ["green", "blue"]


def test_labels_come_most_probable_first(engine: Path) -> None:
    with Recognizer.from_engine(engine, thresholds=0.1) as recognizer:
        labels = recognizer(solid(100, 200, 50)).labels
    assert [item.label for item in labels] == ["green", "red", "blue"]
    assert [item.score for item in labels] == pytest.approx([200 / 255, 100 / 255, 50 / 255])


def test_array_is_bgr_unless_said_otherwise_and_pil_is_rgb(engine: Path) -> None:
    bgr = solid(250, 10, 10)
    with Recognizer.from_engine(engine) as recognizer:
        expected = recognizer(bgr).scores
        np.testing.assert_array_equal(recognizer(bgr[..., ::-1], color="rgb").scores, expected)
        pil = PilImage.fromarray(np.ascontiguousarray(bgr[..., ::-1]))
        np.testing.assert_array_equal(recognizer(pil).scores, expected)
    np.testing.assert_allclose(expected, np.array([250, 10, 10]) / 255, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (7, 333), (501, 3), (24, 32), (13, 17)])
def test_any_size_works_and_a_single_colour_stays_itself(
    engine: Path, shape: tuple[int, int]
) -> None:
    with Recognizer.from_engine(engine) as recognizer:
        scores = recognizer(solid(30, 60, 90, shape)).scores
    np.testing.assert_allclose(scores, np.array([30, 60, 90]) / 255, atol=1e-6)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1)])
def test_grey_images_count_as_three_equal_channels(engine: Path, shape: tuple[int, ...]) -> None:
    with Recognizer.from_engine(engine) as recognizer:
        scores = recognizer(np.full(shape, 51, np.uint8)).scores
    np.testing.assert_allclose(scores, 0.2, atol=1e-6)


def test_batch_equals_one_by_one_whatever_the_sizes(engine: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in [(5, 9), (60, 40), (24, 32)]]
    with Recognizer.from_engine(engine) as recognizer:
        together = recognizer.recognize_batch(images)
        for image, prediction in zip(images, together, strict=True):
            alone = recognizer(image)
            np.testing.assert_allclose(alone.scores, prediction.scores, atol=1e-6)
            assert [item.label for item in alone.labels] == [
                item.label for item in prediction.labels
            ]
        assert recognizer.recognize_batch([]) == []


def test_predictions_do_not_share_memory(engine: Path) -> None:
    with Recognizer.from_engine(engine) as recognizer:
        first = recognizer(solid(255, 0, 0))
        recognizer(solid(0, 0, 255))
    np.testing.assert_allclose(first.scores, [1, 0, 0], atol=1e-6)


def test_frames_of_a_source_keep_their_capture_time(engine: Path, clip: Path) -> None:
    with Recognizer.from_engine(engine) as recognizer, open_source(clip) as frames:
        frame = next(iter(frames))
        prediction = recognizer(frame)
    assert prediction.captured_at == frame.captured_at
    assert prediction.latency_ms.capture == frame.capture_ms > 0
    assert prediction.latency_ms.total >= prediction.latency_ms.inference > 0


def test_threshold_overrides_reach_some_or_all_labels(engine: Path) -> None:
    with Recognizer.from_engine(engine, thresholds={"red": 0.9}) as recognizer:
        assert recognizer.thresholds == pytest.approx({"red": 0.9, "green": 0.5, "blue": 0.5})
    with pytest.raises(SpecError, match="purple"):
        Recognizer.from_engine(engine, thresholds={"purple": 0.1})
    with pytest.raises(SpecError, match=r"\[0, 1\]"):
        Recognizer.from_engine(engine, thresholds=1.5)


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (np.zeros((4, 4, 3)), "float64"),
        (np.zeros((4, 4, 4), np.uint8), "alpha"),
        (np.zeros((4, 4, 2), np.uint8), r"\(4, 4, 2\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), "recognize_batch"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        (np.zeros(4, np.uint8), r"\(4,\)"),
        (PilImage.new("RGB", (0, 5)), "empty"),
        (PilImage.new("I;16", (5, 0)), "empty"),
        ("photo.jpg", "open_source"),
        (None, "NoneType"),
        (MagicMock(), "MagicMock"),  # has whatever is looked for
    ],
)
def test_what_is_not_an_image_is_named(engine: Path, image: Any, word: str) -> None:
    with Recognizer.from_engine(engine) as recognizer, pytest.raises(FrameError, match=word):
        recognizer(image)


def test_resize_is_the_area_mean_where_sizes_divide() -> None:
    image = np.random.default_rng(1).integers(0, 256, (48, 96, 3), np.uint8)
    spec = PreprocessSpec((12, 16), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    blocks = image[..., ::-1].reshape(12, 4, 16, 6, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(preprocess(image, spec), blocks, atol=0.5001)


def test_missing_engine_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no engine at .*build_engine\.py"):
        Recognizer.from_engine(tmp_path / "model.onnx")


def test_engine_without_spec_names_the_file_and_the_remedy(engine: Path) -> None:
    engine.with_suffix(".json").unlink()
    with pytest.raises(SpecError, match="copy both files together"):
        Recognizer.from_engine(engine)


def test_spec_with_fewer_labels_than_outputs_is_refused(tmp_path: Path) -> None:
    content = mean_color_model(num_labels=80)
    names = tuple(f"label {i}" for i in range(79))
    path = write_engine(tmp_path, content, make_spec(content, names))
    with pytest.raises(SpecError, match=r"lists 79 labels but model.onnx returns 80"):
        Recognizer.from_engine(path)


def test_changed_engine_is_refused_before_it_is_loaded(engine: Path) -> None:
    content = bytearray(engine.read_bytes())
    content[len(content) // 2] ^= 1
    engine.write_bytes(content)
    with pytest.raises(EngineError, match="changed or cut short"):
        Recognizer.from_engine(engine)


def test_truncated_onnx_is_one_error_even_where_the_hash_agrees(tmp_path: Path) -> None:
    content = mean_color_model()[:150]
    path = write_engine(tmp_path, content, make_spec(content))
    with pytest.raises(EngineError, match="cannot load"):
        Recognizer.from_engine(path)


def test_renamed_engine_is_not_taken_for_the_one_described(engine: Path) -> None:
    other = engine.rename(engine.with_name("other.onnx"))
    engine.with_suffix(".json").rename(other.with_suffix(".json"))
    with pytest.raises(SpecError, match=r"describes \['model.onnx'\]"):
        Recognizer.from_engine(other)


@pytest.mark.parametrize("shape", [(8, 3), (0, 3), (1, 2), (3,)])
def test_scores_of_another_shape_than_declared_are_refused(shape: tuple[int, ...]) -> None:
    class Odd(NanBackend):
        def infer(self, frames: np.ndarray) -> np.ndarray:
            return np.resize(frames[:0].astype(np.float32), shape)

    with (
        Recognizer(Odd(), make_spec(mean_color_model())) as recognizer,
        pytest.raises(EngineError, match="gave scores of shape"),
    ):
        recognizer(solid(1, 2, 3))
    golden = GoldenSample(seed=0, scores=(0.0, 0.0, 0.0), tolerance=0.15)
    with pytest.raises(EngineError, match="gave scores of shape"):
        check_golden(Odd(), golden, (8, 8))


@pytest.mark.parametrize("wrong", ["x", [0.5], {"red": "x"}, {"red": None}, {1: 0.5}])
def test_thresholds_of_another_kind_are_one_line(engine: Path, wrong: Any) -> None:
    with pytest.raises(SpecError, match="thresholds"):
        Recognizer.from_engine(engine, thresholds=wrong)


def test_a_batch_is_its_numbers_and_one_that_no_memory_can_hold_is_one_line(engine: Path) -> None:
    class Odd(np.ndarray):
        def __len__(self) -> int:
            return 7

    with Recognizer.from_engine(engine) as recognizer:
        assert len(recognizer.recognize_batch(np.zeros((2, 4, 4, 3), np.uint8).view(Odd))) == 2
        with pytest.raises(FrameError, match="no memory for 100000000000 images at once"):
            recognizer.recognize_batch(np.broadcast_to(np.uint8(0), (10**11, 4, 4, 3)))
        with pytest.raises(FrameError, match=r"color is \[\]"):
            recognizer(np.zeros((4, 4, 3), np.uint8), color=[])  # type: ignore[arg-type]


def test_an_array_that_no_memory_can_hold_is_one_line(engine: Path) -> None:
    code = (
        "import resource, sys, numpy as np; from cmlr_edge import Recognizer, FrameError\n"
        "recognizer = Recognizer.from_engine(sys.argv[1], provider='cpu')\n"
        "resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30,) * 2)\n"
        "try: recognizer(np.broadcast_to(np.uint8(3), (100_000, 100_000, 3)))\n"
        "except FrameError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(engine)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr  # it crashed
    assert "no memory" in done.stdout


def test_failed_golden_sample_is_refused(tmp_path: Path) -> None:
    content = mean_color_model()
    spec = make_spec(content)
    golden = GoldenSample(seed=7, scores=(0.0, 0.0, 0.0), tolerance=1e-3)
    files = {"model.onnx": replace(spec.files["model.onnx"], golden=golden)}
    path = write_engine(tmp_path, content, replace(spec, files=files))
    with pytest.raises(EngineError, match="golden self-test failed"):
        Recognizer.from_engine(path)


def test_a_provider_that_is_not_there_is_never_replaced_by_another(engine: Path) -> None:
    with pytest.raises(EngineError, match="'tpu' was asked for"):
        Recognizer.from_engine(engine, provider="tpu")
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA, so asking for it is no error")
    with pytest.raises(EngineError, match="'cuda' was asked for"):
        Recognizer.from_engine(engine, provider="cuda")


def test_another_suffix_is_refused_by_name(engine: Path) -> None:
    content = engine.read_bytes()
    spec = make_spec(content)
    path = engine.with_name("model.pt")
    path.write_bytes(content)
    replace(spec, files={"model.pt": spec.files["model.onnx"]}).save(path.with_suffix(".json"))
    with pytest.raises(EngineError, match=r"ending in .onnx or .engine, got '.pt'"):
        Recognizer.from_engine(path)


def test_arrays_of_other_kinds_are_their_numbers(engine: Path) -> None:
    picture = solid(10, 200, 90)
    grey = np.full((4, 5), 7, np.uint8)
    with Recognizer.from_engine(engine) as recognizer:
        hidden = recognizer(np.ma.array(picture, mask=True)).scores
        np.testing.assert_array_equal(hidden, recognizer(picture).scores)
        as_matrix = recognizer(grey.view(np.matrix)).scores
        np.testing.assert_array_equal(as_matrix, recognizer(grey).scores)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_recognizer_is_not_copied_and_says_what_to_do(engine: Path, copied: Any) -> None:
    with Recognizer.from_engine(engine) as recognizer:
        with pytest.raises(EngineError, match="from_engine in each process"):
            copied(recognizer)
        assert recognizer(solid(1, 2, 3)).valid


def test_a_recognizer_is_refused_after_a_fork_and_never_waited_for(engine: Path) -> None:
    with Recognizer.from_engine(engine) as recognizer, recognizer._lock:
        if (child := os.fork()) == 0:
            code = 1
            try:
                recognizer(solid(1, 2, 3))
            except EngineError as error:
                recognizer.close()
                code = 0 if "from_engine in each process" in str(error) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert recognizer(solid(1, 2, 3)).valid


def test_a_closed_recognizer_says_so(engine: Path) -> None:
    recognizer = Recognizer.from_engine(engine)
    recognizer.close()
    recognizer.close()
    with pytest.raises(EngineError, match="was closed"):
        recognizer(solid(1, 2, 3))


def test_nan_scores_make_the_prediction_invalid_and_name_no_label() -> None:
    spec = make_spec(mean_color_model())
    prediction = Recognizer(NanBackend(), spec, thresholds=0.0)(solid(1, 2, 3))
    assert not prediction.valid
    assert prediction.labels == ()


def test_two_recognizers_of_one_engine_are_independent(engine: Path) -> None:
    with Recognizer.from_engine(engine) as first:
        Recognizer.from_engine(engine).close()
        assert first(solid(255, 0, 0)).labels[0].label == "red"


def test_the_spec_of_an_engine_is_plain_json(engine: Path) -> None:
    record = json.loads(engine.with_suffix(".json").read_text())
    assert record["labels"] == ["red", "green", "blue"]


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_frames_leave_no_memory_behind(engine: Path, provider: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    with Recognizer.from_engine(engine, provider=provider) as recognizer:
        held = []
        tracemalloc.start()
        try:
            for count in (200, 300, 300):  # caches fill first; another test's thread may work once
                for _ in range(count):
                    recognizer(image)
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
    assert min(np.diff(held)) < 300 * 48  # an array a frame would be 112 bytes each
