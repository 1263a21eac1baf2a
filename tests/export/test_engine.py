"""TensorRT engines: NVIDIA's own builder on our files, and the whole way on a made-up GPU."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cmlr_edge.backends.onnx_functions import without_function
from cmlr_edge.cli.usage import run_command
from cmlr_edge.engines.builder import BuildOptions, BuildReport, build_plan
from cmlr_edge.errors import EngineError
from cmlr_edge.model.spec import ModelSpec
from csrc.tensorrt import packages
from export import attention
from export.build_engine import main
from export.building import build_engine
from export.calibrate import quantize
from export.engine import compare, require_plugin_layers
from export.fold_graph import fold_graph
from export.onnx_graph import export_fused, store_as_float16
from export.precision import to_float16
from tests.conftest import make_spec
from tests.export.networks import BACKBONES, input_spec, on_backbone

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FAKES = ROOT / "tests" / "cmlr_edge" / "fake_nvidia"


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch) -> Callable[..., BuildOptions]:
    """Options for NVIDIA's builder that needs no GPU."""
    folder = packages.find("rtx")
    if folder is None:
        pytest.skip("tensorrt-rtx: run `python -m csrc.tensorrt.packages`")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return lambda **options: BuildOptions(module="tensorrt_rtx", **options)


@pytest.fixture(scope="module", params=BACKBONES)
def exported(request: pytest.FixtureRequest) -> onnx.ModelProto:
    model = on_backbone(request.param)
    return export_fused(model, input_spec(model), norms=False)[0]


def to_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """As the command writes it: batch-norms folded, products of the backbone between Q and DQ."""
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    fold_graph(folded, norms=True)
    sizes = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    return quantize(folded, np.random.default_rng(0).integers(0, 256, (2, *sizes), np.uint8))


PRECISIONS: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "float32": lambda model: model,
    "float16": to_float16,
    "fp32, stored as fp16": store_as_float16,
    "int8": to_int8,
}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_nvidias_builder_takes_every_precision_with_a_batch_profile(
    exported: onnx.ModelProto, precision: str, rtx: Callable[..., BuildOptions], tmp_path: Path
) -> None:
    model = PRECISIONS[precision](exported)
    cache = tmp_path / "timing.cache"
    options = rtx(batch=(1, 2, 8), workspace_mib=64, timing_cache=str(cache))
    plan, report = build_plan(model.SerializeToString(), options)
    assert len(plan) > model.ByteSize() / 2
    assert report.layers["FLOAT"] > 0
    assert (report.layers.get("HALF", 0) > report.layers["FLOAT"]) == (precision == "float16")
    integers = sum(node.op_type == "QuantizeLinear" for node in model.graph.node)
    assert report.layers.get("INT8", 0) >= integers  # none was taken out again
    assert (integers > 20) == (precision == "int8")
    assert report.tensorrt == "1.7.1.116"
    assert cache.stat().st_size > 0


def small(inputs: dict[str, tuple[Any, list[Any]]], *nodes: onnx.NodeProto) -> bytes:
    values = [helper.make_tensor_value_info(n, *kind) for n, kind in inputs.items()]
    out = helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)
    graph = helper.make_graph([*nodes], "small", values, [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content


def test_mixed_types_fail_with_nvidias_words(rtx: Callable[..., BuildOptions]) -> None:
    inputs = {"a": (TensorProto.FLOAT, ["n", 4]), "b": (TensorProto.FLOAT16, ["n", 4])}
    content = small(inputs, helper.make_node("Add", ["a", "b"], ["scores"], name="mixed"))
    with pytest.raises(
        EngineError, match=r"(?s)cannot read the model: .*mixed.*same input types"
    ) as error:
        build_plan(content, rtx())
    assert "Half" in str(error.value)


def test_a_profile_that_does_not_fit_fails_with_nvidias_words(
    rtx: Callable[..., BuildOptions],
) -> None:
    inputs = {"a": (TensorProto.FLOAT, [2, 4])}
    content = small(inputs, helper.make_node("Relu", ["a"], ["scores"]))
    with pytest.raises(EngineError, match=r"TensorRT 1\.7.* cannot build the engine: .*imension"):
        build_plan(content, rtx(batch=(1, 1, 8)))


def test_what_is_no_model_fails_with_nvidias_words(rtx: Callable[..., BuildOptions]) -> None:
    with pytest.raises(
        EngineError, match=r"cannot read the model: .*Failed to parse the ONNX model"
    ):
        build_plan(b"no model", rtx())


@pytest.mark.parametrize(
    ("end", "message"),
    [(signal.SIGKILL, "the build was killed, most likely because memory ran out"),
     (signal.SIGSEGV, "the build crashed with SIGSEGV")],
)  # fmt: skip
def test_a_build_that_dies_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: signal.Signals, message: str
) -> None:
    (tmp_path / "dying.py").write_text(f"import os\nos.kill(os.getpid(), {int(end)})\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EngineError, match=message):
        build_plan(b"", BuildOptions(module="dying"))


def test_a_build_without_enough_memory_does_not_start() -> None:
    with pytest.raises(EngineError, match=r"needs about \d+ MiB of memory, \d+ MiB are free"):
        build_plan(b"", BuildOptions(workspace_mib=10**9, module="nowhere"))


@pytest.mark.parametrize("batch", [(0, 1, 8), (2, 1, 8), (1, 9, 8)])
def test_a_batch_that_is_no_range_is_refused(batch: tuple[int, int, int]) -> None:
    with pytest.raises(EngineError, match="smallest, tuned and largest"):
        BuildOptions(batch=batch)


def test_the_operators_body_and_nothing_else_is_taken_out(exported: onnx.ModelProto) -> None:
    assert {f.name for f in exported.functions} == {attention.NAME, attention.PLAIN_NAME}
    expected = onnx.ModelProto()
    expected.CopyFrom(exported)
    kept = [f for f in exported.functions if f.name == attention.PLAIN_NAME]
    del expected.functions[:]
    expected.functions.extend(kept)
    content = without_function(exported.SerializeToString(), attention.NAME)
    assert onnx.load_from_string(content) == expected


def test_damaged_files_are_an_error_or_lose_no_other_field() -> None:
    function = helper.make_function("d", "f", ["x"], ["y"], [], [helper.make_opsetid("", 18)])
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(np.ones(9), "ones")])
    content = helper.make_model(graph, functions=[function]).SerializeToString()
    random, errors = np.random.default_rng(0), 0
    for _ in range(3000):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 3):
            damaged[place] = random.integers(256)
        try:
            without_function(bytes(damaged[: random.integers(1, len(content) + 1)]), "f")
        except EngineError:
            errors += 1
    assert 1000 < errors < 3000


def test_a_node_that_did_not_become_a_plugin_layer_is_noticed(exported: onnx.ModelProto) -> None:
    content, report = exported.SerializeToString(), BuildReport("10.3.0", 1, 0, {}, 0)
    require_plugin_layers(content, report)
    with pytest.raises(EngineError, match="0 of 1 CmlrAttention nodes became plugin layers"):
        require_plugin_layers(content, replace(report, plugin_layers=0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (0.2, "differs from ONNX Runtime by 0.2 on 100 images, allowed 0.05"),
        (np.nan, "differs from ONNX Runtime by nan"),
        (0.04, "flips 3 of 300 label decisions of ONNX Runtime, allowed is 0.5%"),
    ],
)
def test_an_engine_is_held_against_onnx_runtime_on_numbers_and_on_decisions(
    change: float, message: str
) -> None:
    spec, path = make_spec(b""), Path("model.engine")
    expected = np.full((100, 3), 0.3, np.float32)
    expected[0] = 0.48  # thresholds are 0.5
    actual = expected.copy()
    actual[0] += np.float32(change)
    with pytest.raises(EngineError, match=re.escape(message)):
        compare(path, actual, expected, spec, "float16")
    if change == 0.04:
        report = compare(path, actual, expected, spec, "float16", max_flips=0.01)
        assert (report.num_images, report.decision_flips) == (100, 3)
        assert report.max_score_difference == pytest.approx(0.04, abs=1e-6)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("driver")
    command = ["gcc", "-shared", "-fPIC", str(FAKES / "libcuda.c"), "-w"]
    subprocess.run([*command, "-o", str(folder / "libcuda.so.1")], check=True)
    return folder


def command(
    run: Path, out: Path, *options: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, "export/build_engine.py", "--checkpoint", str(run), "--out", str(out)]
    return subprocess.run(
        [*script, "--target", "tensorrt", *options],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_builds_verifies_and_writes_an_engine_that_the_sdk_runs(
    tiny_run: Path, tiny_data: Path, driver: Path, tmp_path: Path
) -> None:
    fake = {"LD_LIBRARY_PATH": str(driver), "PYTHONPATH": str(FAKES)}
    out = tmp_path / "out"
    cache = tmp_path / "timing.cache"
    options = ["--no-plugin", "--batch", "1,2,4", "--timingCacheFile", str(cache)]
    done = command(tiny_run, out, *options, "--data", str(tiny_data), **fake)
    assert done.returncode == 0, done.stderr
    spec = ModelSpec.load(out / "model.json")
    built, source = spec.files["model.engine"], spec.files["model.onnx"]
    assert built.sha256 == hashlib.sha256((out / "model.engine").read_bytes()).hexdigest()
    engine = built.engine
    assert engine is not None
    assert (engine.tensorrt, engine.compute_capability, engine.gpu) == ("10.3.0", "8.7", "Orin")
    assert (engine.batch, engine.plugin_version) == ((1, 2, 4), None)
    assert (engine.source, engine.source_sha256) == ("model.onnx", source.sha256)
    assert engine.layers == {"Half": 2, "Float": 1}  # as the made-up inspector says
    assert (built.parity.num_images, built.parity.decision_flips) == (21, 0)
    assert cache.read_bytes() == b"timed"
    recognize = "from cmlr_edge import Recognizer; import sys, numpy as np\n"
    recognize += "with Recognizer.from_engine(sys.argv[1], rebuild=True) as recognizer:\n"
    recognize += "    print(recognizer.runtime, recognizer(np.zeros((9, 9, 3), np.uint8)).valid)"

    def run_engine(**environment: str) -> str:
        script = [sys.executable, "-c", recognize, str(out / "model.engine")]
        # Frames on the GPU are looked at elsewhere.
        variables = {**os.environ, "CMLR_RESIZE": "cpu", **fake, **environment}
        done = subprocess.run(script, env=variables, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr[-2000:]

    before = (out / "model.json").read_bytes()
    assert run_engine() == "TensorRT 10.3.0, Orin True\n"
    assert (out / "model.json").read_bytes() == before  # nothing was built again
    assert run_engine(FAKE_TENSORRT="10.13.2") == "TensorRT 10.13.2, Orin True\n"
    again = ModelSpec.load(out / "model.json").files["model.engine"].engine
    assert again == replace(engine, tensorrt="10.13.2")
    (out / "model.engine").unlink()
    before = (out / "model.json").read_bytes()
    refused = run_engine(FAKE_BUILD="wrong")
    assert "golden self-test failed" in refused
    assert not (out / "model.engine").exists()
    assert (out / "model.json").read_bytes() == before
    assert run_engine() == "TensorRT 10.3.0, Orin True\n"


def test_an_engine_that_computes_something_else_is_not_written(
    tiny_run: Path, driver: Path, tmp_path: Path
) -> None:
    fake = {"LD_LIBRARY_PATH": str(driver), "PYTHONPATH": str(FAKES), "FAKE_BUILD": "wrong"}
    done = command(tiny_run, tmp_path / "out", "--no-plugin", **fake)
    assert done.returncode == 2
    *progress, error = done.stderr.splitlines()  # a slow machine is told how far it is
    assert "model.engine differs from ONNX Runtime by" in error
    assert not [line for line in progress if "error" in line]
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_driver")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--no-plugin"], "no NVIDIA driver here"),
        ([], "no NVIDIA driver here"),
        (["--batch", "1,8", "--no-plugin"], "expected smallest,tuned,largest such as 1,1,8"),
        (["--batch", "4,1,8", "--no-plugin"], "1 or more and rising"),
    ],
    ids=lambda value: str(value[:3]) if isinstance(value, list) else "",
)
def test_an_engine_that_cannot_be_had_is_one_sentence_before_anything_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    where = ["--checkpoint", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["build_engine", *where, "--target", "tensorrt", *options])
    with pytest.raises(EngineError) as error:
        run_command(main, "build_engine")
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_plugin_is_asked_for_where_there_is_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ["--checkpoint", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["build_engine", *where, "--target", "tensorrt"])
    monkeypatch.setattr("export.build_engine.find_gpu", lambda: None)
    with pytest.raises(EngineError, match="this installation has no TensorRT plugin"):
        run_command(main, "build_engine")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dla_core": 0}, "this machine has 0: leave --useDLACore away"),
        ({"batch": (1, 1, 99)}, r"does not take the batch profile \(1, 1, 99\)"),
        ({"timing_cache": "cache"}, "is a timing cache of another machine"),
    ],
)
def test_options_that_the_machine_does_not_have_are_named(
    engine: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FAKES))
    (engine.parent / "cache").write_bytes(b"other")
    if "timing_cache" in options:
        options = {"timing_cache": str(engine.parent / "cache")}
    with pytest.raises(EngineError, match=message):
        build_plan(engine.read_bytes(), BuildOptions(**options))


def test_a_model_without_the_operator_needs_no_plugin(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FAKES))
    content = engine.read_bytes()
    plan, report = build_plan(content, BuildOptions(plugin="/nowhere/libcmlr_plugin.so"))
    assert plan == content
    assert report.plugin_layers == 0
    require_plugin_layers(content, report)


@pytest.mark.usefixtures("no_driver")
def test_python_callers_get_the_same_error_before_anything_is_exported(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no NVIDIA driver here"):
        build_engine(tmp_path / "no run", tmp_path / "out", tensorrt=BuildOptions())
