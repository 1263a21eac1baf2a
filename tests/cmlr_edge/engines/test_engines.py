"""TensorRT engines: what is checked before one is loaded, and how it is run.

There is no GPU here. A made-up driver answers the questions about the machine; made-up `tensorrt`
and `cuda` packages run ONNX files as engines, on streams that do nothing before they are waited
for. What NVIDIA's own packages do without a driver is tested with them.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cmlr_edge import Recognizer
from cmlr_edge.errors import EngineError, SpecError
from cmlr_edge.model.spec import ModelSpec
from csrc.tensorrt import packages
from tests.cmlr_edge.engines.fake_gpu import BUILT, FAKES, TESTS, on_fake_gpu, run, write
from tests.conftest import mean_color_model
from tests.explained_engine import explained_model


def test_an_engine_recognises_an_image(driver: Path, tmp_path: Path) -> None:
    answer = on_fake_gpu(driver, "recognize", write(tmp_path))
    assert answer["runtime"] == "TensorRT 10.3.0, Orin, frames are resized on the CPU"
    assert answer["error"] < 1e-3


def test_batches_of_any_size_and_cuda_graphs_give_each_frames_scores(
    driver: Path, tmp_path: Path
) -> None:
    answer = on_fake_gpu(driver, "batches", write(tmp_path))
    assert answer["error"] < 1e-6
    # 1 1 1 | 3 | 8 | 8 8 4 | 1 1 | 2 2 2: a graph from the second launch of a size on
    assert answer["replayed"] == [0, 2 + 2 + 1 + 2]
    assert answer["leaked"] == [0, 0, 0]


def test_an_engine_tells_why_in_batches_of_any_size(driver: Path, tmp_path: Path) -> None:
    answer = on_fake_gpu(driver, "explain", write(tmp_path, content=explained_model()))
    assert max(answer["errors"].values()) < 1e-5
    assert {"own_evidence", "links", "surroundings", "scores", "plain"} == {*answer["errors"]}
    assert (answer["map"], answer["leaked"]) == ([1, 3, 2, 4], [0, 0, 0])


def test_a_batch_below_the_engines_smallest_is_filled_up(driver: Path, tmp_path: Path) -> None:
    path = write(tmp_path, replace(BUILT, batch=(4, 4, 8)))
    assert on_fake_gpu(driver, "batches", path)["error"] < 1e-6


def test_threads_do_not_mix_their_frames(driver: Path, tmp_path: Path) -> None:
    answer = on_fake_gpu(driver, "threads", write(tmp_path))
    assert answer["number"] == 150
    assert answer["error"] < 1e-6


def test_an_engine_that_cannot_be_captured_runs_without_a_graph_and_says_so_once(
    driver: Path, tmp_path: Path
) -> None:
    answer = on_fake_gpu(driver, "not_captured", write(tmp_path))
    assert len(answer) == 4
    for what, found in answer.items():
        assert found["error"] < 1e-6
        assert found["provider"] == ["cuda-graph", "cuda"]
        assert len(found["said"]) == 1, what
        assert f"runs without a CUDA graph: {what}" in found["said"][0]
        assert found["left"] == [0, 0, 0], what


def test_a_context_that_cannot_be_allocated_leaves_nothing_behind(
    driver: Path, tmp_path: Path
) -> None:
    answer = on_fake_gpu(driver, "no_memory", write(tmp_path))
    *failed, last = answer["found"]
    assert last == "works"
    for message, *left in failed:
        assert "cudaErrorMemoryAllocation" in message
        assert left == [0, 0, 0]
    assert answer["left"] == [0, 0, 0]


def test_threads_that_come_and_go_keep_no_contexts(driver: Path, tmp_path: Path) -> None:
    answer = on_fake_gpu(driver, "many_threads", write(tmp_path))
    assert answer["after"] == answer["before"]
    assert answer["left"] == [0, 0, 0]


def test_an_engine_closes_after_the_gpu_has_failed(driver: Path, tmp_path: Path) -> None:
    answer = on_fake_gpu(driver, "broken_gpu", write(tmp_path))
    # Of infer, which closed what it had, and says what failed first.
    (said,) = answer["failures"]
    assert said == "failed_synchronize failed: cudaErrorLaunchFailure"
    assert answer["left"] == [0, 0, 0]


def test_tensorrts_logger_outlives_the_engine_that_was_opened_first(
    driver: Path, tmp_path: Path
) -> None:
    """TensorRT keeps calling the logger that it saw first, and a freed one ends the process."""
    answer = on_fake_gpu(driver, "replaced", write(tmp_path))
    assert answer["error"] < 1e-6
    assert "cannot be deserialised" in answer["said"]


def test_an_engine_runs_on_the_first_gpu_whatever_the_program_has_chosen(
    driver: Path, tmp_path: Path
) -> None:
    answer = on_fake_gpu(driver, "on_another_gpu", write(tmp_path))
    assert len(answer["errors"]) == 2
    assert max(answer["errors"]) < 1e-6
    assert answer["chosen"] == 1
    assert answer["left"] == [0, 0, 0]


def test_work_of_others_on_the_default_stream_and_a_capture_leave_each_other_alone(
    driver: Path, tmp_path: Path
) -> None:
    answer = on_fake_gpu(driver, "beside_the_default_stream", write(tmp_path))
    assert max(answer["errors"]) < 1e-6
    assert answer["others"] == ["cudaSuccess"]
    assert answer["provider"] == "cuda-graph"


def test_what_tensorrt_says_of_a_launch_that_fails_is_in_the_error(
    driver: Path, tmp_path: Path
) -> None:
    why = "CmlrAttention: the launch failed: no kernel image is available"
    answer = on_fake_gpu(driver, "recognize", write(tmp_path), FAKE_ENQUEUE=why)
    assert answer["kind"] == "EngineError"
    assert answer["message"] == f"TensorRT failed on model.engine: {why}"


def test_cuda_python_for_a_later_cuda_than_the_drivers_is_refused_with_the_remedy(
    driver: Path, tmp_path: Path
) -> None:
    answer = on_fake_gpu(driver, "recognize", write(tmp_path), FAKE_CUDART="13050")
    assert answer["kind"] == "EngineError"
    assert "cuda-python is for CUDA 13, the driver runs CUDA 12.6" in answer["message"]
    assert "pip install 'cuda-bindings==12.*'" in answer["message"]


def test_an_engine_for_this_machine_passes(driver: Path, tmp_path: Path) -> None:
    answer = on_fake_gpu(driver, "find", write(tmp_path))
    states = {finding["what"]: finding["state"] for finding in answer["engine"]}
    assert set(states.values()) == {"ok"}
    assert [*states] == ["file", "driver", "gpu", "tensorrt", "cuda-python"]
    assert answer["alone"]["plugin"] == "failed"  # the wheel of the tests is built without


REFUSED = {
    "another GPU": (
        {"FAKE_CAPABILITY": "110", "FAKE_GPU": "Thor"},
        "Thor with compute capability 11.0, but the engine was built on Orin with 8.7: build it",
    ),
    "another TensorRT": (
        {"FAKE_TENSORRT": "10.13.2.6"},
        "TensorRT 10.13.2.6 is installed, the engine was built with 10.3.0",
    ),
    "TensorRT 8": ({"FAKE_TENSORRT": "8.5.2.2"}, "TensorRT 8.5.2.2 is too old: 10.3"),
    "a broken driver": ({"FAKE_CUINIT": "100"}, "cuInit gave CUDA error 100"),
    "no GPU": ({"FAKE_GPUS": "0"}, "finds no GPU: run the .onnx file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_engine_for_another_machine_is_refused_with_the_remedy(
    driver: Path, tmp_path: Path, case: str
) -> None:
    environment, message = REFUSED[case]
    answer = on_fake_gpu(driver, "recognize", write(tmp_path), **environment)
    assert answer["kind"] == "EngineError"
    assert message in answer["message"]


def test_another_board_of_the_same_kind_is_a_warning(driver: Path, tmp_path: Path) -> None:
    path = write(tmp_path)
    answer = on_fake_gpu(driver, "find", path, FAKE_GPU="Orin Nano")
    states = {finding["what"]: finding["state"] for finding in answer["engine"]}
    assert states["gpu"] == "warning"
    assert "error" in on_fake_gpu(driver, "recognize", path, FAKE_GPU="Orin Nano")


def test_an_engine_with_the_plugin_needs_the_plugin(driver: Path, tmp_path: Path) -> None:
    answer = on_fake_gpu(driver, "recognize", write(tmp_path, replace(BUILT, plugin_version="1")))
    assert "has no TensorRT plugin (libcmlr_plugin.so)" in answer["message"]
    assert "CMLR_TENSORRT=ON" in answer["message"]


def test_what_tensorrt_says_of_a_bad_engine_is_in_the_error(driver: Path, tmp_path: Path) -> None:
    answer = on_fake_gpu(driver, "recognize", write(tmp_path, content=b"not an engine"))
    assert "TensorRT cannot load" in answer["message"]
    assert "cannot be deserialised" in answer["message"]


def test_an_engine_with_other_outputs_is_refused(driver: Path, tmp_path: Path) -> None:
    other = mean_color_model().replace(b"scores", b"logits")
    answer = on_fake_gpu(driver, "recognize", write(tmp_path, content=other))
    assert "is not an engine of this SDK" in answer["message"]


def test_a_changed_engine_is_refused_before_anything_loads_it(tmp_path: Path) -> None:
    path = write(tmp_path)
    good, random = path.read_bytes(), np.random.default_rng(0)
    damaged: list[bytes] = [b"", good[:-1], good + b"0", random.bytes(999)]
    for _ in range(300):
        changed = bytearray(good[: random.integers(1, len(good) + 1)])
        changed[random.integers(len(changed))] ^= random.integers(1, 256)
        damaged.append(bytes(changed))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(EngineError, match="was changed or cut short"):
            Recognizer.from_engine(path)


def test_an_engine_never_runs_on_another_device(tmp_path: Path) -> None:
    from cmlr_edge.backends import load_backend

    path = write(tmp_path)
    with pytest.raises(EngineError, match="machine code for a GPU: it has no 'cpu'"):
        load_backend(path, path.read_bytes(), provider="cpu", engine=BUILT)


def test_the_spec_says_where_an_engine_was_built(tmp_path: Path) -> None:
    path = write(tmp_path)
    spec = ModelSpec.load(path.with_suffix(".json"))
    assert spec.files[path.name].engine == BUILT
    with pytest.raises(SpecError, match="if, and only if"):
        replace(spec.files[path.name], engine=None)
    with pytest.raises(SpecError, match="smallest <= tuned <= largest"):
        replace(BUILT, batch=(1, 9, 8))


def test_inspect_says_what_an_engine_was_built_for(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cmlr_edge", "inspect", str(write(tmp_path))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "for Orin (8.7), TensorRT 10.3.0, batches of 1 to 8" in done.stdout


@pytest.mark.parametrize("name", ["lean10", "lean11", None])
def test_without_a_driver_an_engine_is_one_error_and_never_a_crash(
    no_driver: dict[str, str], tmp_path: Path, name: str | None
) -> None:
    environment = dict(no_driver)
    if name is not None:
        folder = packages.find(name)
        if folder is None:
            pytest.skip("TensorRT's packages: run `python -m csrc.tensorrt.packages`")
        environment["PYTHONPATH"] = str(folder)
    path = write(tmp_path)
    answer = run("recognize", path, **environment)
    assert answer["kind"] == "EngineError"
    assert "no NVIDIA driver here" in answer["message"]
    found = {f["what"]: f["state"] for f in run("find", path, **environment)["engine"]}
    assert found["driver"] == "failed"
    assert "gpu" not in found
    assert found["tensorrt"] == "failed"  # not installed, or another version than 10.3.0


def write_both(folder: Path) -> Path:
    """An engine for another TensorRT and the ONNX file it came from; tolerances are loose."""
    path = write(folder)
    spec = ModelSpec.load(path.with_suffix(".json"))
    built = spec.files[path.name]
    built = replace(built, golden=replace(built.golden, tolerance=0.15))
    files = {path.name: built, "model.onnx": replace(built, runtime="onnx", engine=None)}
    replace(spec, files=files, thresholds=(0.45,) * 3).save(path.with_suffix(".json"))
    path.with_suffix(".onnx").write_bytes(path.read_bytes())
    return path


def test_an_engine_built_again_that_never_says_a_label_is_refused_by_name(
    driver: Path, tmp_path: Path
) -> None:
    path = write_both(tmp_path)
    before = path.with_suffix(".json").read_bytes()
    answer = on_fake_gpu(driver, "rebuild", path, FAKE_TENSORRT="10.13.2", FAKE_RED="0.75")
    assert answer["kind"] == "EngineError"
    assert "'red' falls silent on 1" in answer["message"]  # of the 17 frames, at least ten
    assert "'green'" not in answer["message"]
    assert path.with_suffix(".json").read_bytes() == before


def test_an_engine_built_again_with_harmless_differences_is_taken(
    driver: Path, tmp_path: Path
) -> None:
    path = write_both(tmp_path)
    answer = on_fake_gpu(driver, "rebuild", path, FAKE_TENSORRT="10.13.2", FAKE_RED="0.9999")
    assert answer["num_images"] == 17
    assert 0 < answer["max_score_difference"] < 1e-3
    assert answer["decision_flips"] <= 1


def names_of(module: str) -> dict[str, list[str]]:
    """Classes of the made-up TensorRT, and their methods."""
    source = ast.parse((FAKES / "tensorrt" / f"{module}.py").read_text())
    classes = [node for node in source.body if isinstance(node, ast.ClassDef)]
    return {
        cls.name: [
            n.name
            for n in cls.body
            if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")
        ]
        for cls in classes
        if not cls.name.startswith("_")
    }


@pytest.mark.parametrize(
    ("package", "module"), [("lean10", "__init__"), ("lean11", "__init__"), ("rtx", "builder")]
)
def test_the_made_up_tensorrt_has_no_name_that_the_real_one_lacks(
    package: str, module: str
) -> None:
    folder, real = packages.find(package), packages.MODULES[package]
    if folder is None:
        pytest.skip("TensorRT's packages: run `python -m csrc.tensorrt.packages`")
    names = names_of(module)
    names.pop("EngineInspector", None)  # the runtimes alone have none
    names.get("ICudaEngine", []).append("num_io_tensors")
    names.pop("ITimingCache", None)
    script = (
        f"import json, sys, {real} as trt; names = json.loads(sys.argv[1]);"
        "print([f'{c}.{n}' for c, ns in names.items() for n in ['__init__', *ns]"
        " if not hasattr(getattr(trt, c, None), n)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(names)],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_the_made_up_cuda_has_no_name_that_the_real_one_lacks() -> None:
    pytest.importorskip("cuda.bindings")
    source = ast.parse((FAKES / "cuda" / "bindings" / "runtime.py").read_text())
    names = [
        node.name
        for node in source.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name.startswith("cuda")
    ]
    assert len(names) > 25
    script = (
        "import sys; from cuda.bindings import runtime;"
        "print([name for name in sys.argv[1:] if not hasattr(runtime, name)])"
    )
    command = [sys.executable, "-c", script, *names, "cudaStreamNonBlocking"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_is_used_that_tensorrt_11_removed() -> None:
    removed = ("BuilderFlag.FP16", "BuilderFlag.INT8", "EXPLICIT_BATCH", "int8_calibrator",
               "set_precision", "execute_async_v2", "num_bindings", "max_workspace_size")  # fmt: skip
    sources = (
        *(TESTS.parents[1] / "cmlr_edge").rglob("*.py"),
        *(TESTS.parents[1] / "export").glob("*.py"),
    )
    assert len(sources) > 50
    assert not [(path, name) for path in sources for name in removed if name in path.read_text()]
