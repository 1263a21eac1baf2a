"""The TensorRT plugin: in NVIDIA's registries, under sanitizers, and on the emulated GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from csrc.tensorrt import packages
from export import attention
from tests.csrc.attention_reference import draw, reference
from tests.csrc.emulation.emulated_gpu import (
    CSRC,
    FLAGS,
    EmulatedGpu,
    build_emulation,
    compile_object,
    link,
)
from tests.csrc.plugin_programs import CHECKS, compile_adapter
from tests.csrc.requirements import require_sanitizer, require_tensorrt

# Compiling takes minutes where nothing is stored.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugin_check")
    require_sanitizer(folder, "address")
    objects = compile_adapter(folder, "plugin_check", "address")
    link(folder / "check", objects, *FLAGS["address"][0])
    return folder / "check"


@pytest.mark.parametrize("name", CHECKS)
def test_the_adapter_keeps_the_contract_under_sanitizers(program: Path, name: str) -> None:
    done = subprocess.run([program, name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def plugin_gpu(tmp_path_factory: pytest.TempPathFactory) -> EmulatedGpu:
    folder = tmp_path_factory.mktemp("plugin_runner")
    objects = compile_adapter(folder, "plugin_runner", "quick")
    kernels = CSRC / "cuda" / "attention.cu"
    objects.append(compile_object(kernels, folder / "attention.o", *FLAGS["quick"][0]))
    link(folder / "runner", [*objects, *build_emulation(folder / "emulation", "quick")])
    return EmulatedGpu(folder / "runner")


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float16, 2e-3)])
@pytest.mark.parametrize("with_bias", [False, True], ids=["no-bias", "bias"])
@pytest.mark.parametrize("batches", [(2, 2, 2), (1, 2, 2), (2, 1, 1), (1, 1, 2)])
def test_a_serialised_plugin_computes_the_formula(
    plugin_gpu: EmulatedGpu,
    batches: tuple[int, int, int],
    with_bias: bool,
    dtype: Any,
    tolerance: float,
) -> None:
    rows = (17, 49, 49)
    query, key, value = (
        draw(batch, n, 64, seed=i).astype(dtype)
        for i, (batch, n) in enumerate(zip(batches, rows, strict=True))
    )
    bias = draw(49, seed=9) if with_bias else None
    actual = plugin_gpu.attention(query, key, value, heads=2, scale=0.2, bias=bias)
    expected = reference(query, key, value, 2, 0.2, bias)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def test_a_width_that_the_kernels_do_not_take_is_refused_by_name(plugin_gpu: EmulatedGpu) -> None:
    query, key = draw(1, 3, 64), draw(1, 5, 64)
    with pytest.raises(subprocess.CalledProcessError) as error:
        plugin_gpu.attention(query, key, key, heads=4, scale=1.0)
    assert "head widths 32 and 64, got 16" in error.value.stderr.decode()


def test_the_library_exports_two_symbols_and_needs_no_tensorrt(plugin_library: Path) -> None:
    exported = output("nm", "--dynamic", "--defined-only", str(plugin_library))
    assert sorted(line.split()[-1] for line in exported.splitlines()) == [
        "getCreators",
        "setLoggerFinder",
    ]
    needed = [row for row in output("readelf", "-d", str(plugin_library)).splitlines()
              if "NEEDED" in row]  # fmt: skip
    assert needed
    assert not any(name in row for row in needed for name in ("nvinfer", "cudart", "libcuda"))
    source = (CSRC / "tensorrt" / "plugin.cpp").read_text()
    assert "REGISTER_TENSORRT_PLUGIN" not in source
    assert "getPluginRegistry" not in source


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def finders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("finders") / "libfinders.so"
    source = TESTS / "logger_finders.cpp"
    subprocess.run(["g++", "-shared", "-fPIC", source, "-o", library], check=True)
    return library


def in_registry(name: str, library: Path, finders: Path, *model: Path) -> dict[str, Any]:
    script = [sys.executable, str(TESTS / "plugin_in_registry.py")]
    packages_and_module = [str(require_tensorrt(name)), packages.MODULES[name]]
    arguments = [*packages_and_module, str(library), str(finders)]
    done = subprocess.run(
        [*script, *arguments, *map(str, model)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


@pytest.mark.parametrize("name", ["lean10", "lean11", "rtx"])
def test_nvidias_registries_load_the_plugin_and_create_from_good_fields_alone(
    plugin_library: Path, finders: Path, name: str
) -> None:
    report = in_registry(name, plugin_library, finders)
    assert report["loads"][0]
    assert (report["missing"], report["foreign"]) == (False, False)
    assert report["fields"] == [["num_heads", "INT32"], ["scale", "FLOAT32"]]
    created = report["created"]
    ours = [attention.NAME, attention.VERSION, attention.DOMAIN]
    assert (created.pop("good"), created.pop("int64")) == (ours, ours)
    assert created
    assert set(created.values()) == {None}
    # TensorRT 11 moved its logger's one function; a call where it was in 10 ends the process.
    no_heads = ["ERROR: CmlrAttention: num_heads is 0, expected at least 1"]
    assert report["said through 10, logger"] == report["said through 11, logger"] == no_heads
    unknown = ("10, none", "11, none", "12, logger", "12, none")
    assert [report[f"said through {through}"] for through in unknown] == [[]] * len(unknown)
    if name == "rtx":  # whose own finder has the logger without a driver, too
        assert report["said by its own finder"][:1] == no_heads
        assert len(report["said by its own finder"]) == len(created)


LOAD = """
import sys
from pathlib import Path
import tensorrt_lean as trt
from cmlr_edge.backends.tensorrt import load_plugin
from cmlr_edge.errors import EngineError
try:
    load_plugin(trt, Path(sys.executable))
except EngineError as error:
    print(error)
for _ in range(2):
    load_plugin(trt, Path(sys.argv[1]))
print(trt.get_plugin_registry().get_creator("CmlrAttention", "1", "cmlr").name)
"""


@pytest.mark.parametrize("name", ["lean10", "lean11"])
def test_the_sdk_loads_the_plugin_and_names_a_library_that_is_none(
    plugin_library: Path, name: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(plugin_library)],
        env={**os.environ, "PYTHONPATH": str(require_tensorrt(name))},
        capture_output=True,
        text=True,
        check=False,
    )
    refused, loaded = done.stdout.splitlines()
    assert (done.returncode, loaded) == (0, "CmlrAttention")
    assert f"does not take the plugin {sys.executable}" in refused


def test_nvidias_parser_hands_the_nodes_attributes_to_the_plugin(
    plugin_library: Path, finders: Path, tmp_path: Path
) -> None:
    model = attention_node(num_heads=2, scale=0.25, plugin_version="probe")
    path = tmp_path / "node.onnx"
    path.write_bytes(model.SerializeToString())
    report = in_registry("rtx", plugin_library, finders, path)
    assert report["parsed"] == [{"fields": {"num_heads": [2], "scale": [0.25]}, "ours": True}]


def attention_node(**fields: Any) -> onnx.ModelProto:
    """A file with one node and no body, as a plugin is to see it."""
    names = ["query", "key", "value"]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 5, 64]) for n in names]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 5, 64])
    fields = {"plugin_namespace": attention.DOMAIN, **fields}
    node = helper.make_node(attention.NAME, names, ["out"], domain=attention.DOMAIN, **fields)
    graph = helper.make_graph([node], "node", inputs, [out])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(attention.DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)
