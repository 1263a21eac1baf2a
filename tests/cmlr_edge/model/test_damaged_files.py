"""Files that arrive damaged, or were made to do harm: a typed error, or they work."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks.fuzz.__main__ import Worker, fuzz
from benchmarks.fuzz.machines import CPU, GPU, Machine, compile_driver, without_driver
from benchmarks.fuzz.onnx_mutations import branch_deeply, call_itself, loop_forever, point_outside
from benchmarks.fuzz.seeds import Seed, write_seeds
from cmlr_edge import Recognizer
from cmlr_edge.backends.onnx_structure import check_structure
from cmlr_edge.errors import EngineError, SpecError
from cmlr_edge.model.embedded import seal
from cmlr_edge.model.spec import ModelSpec
from tests.conftest import make_spec, mean_color_model, write_engine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Seed]:
    return write_seeds(tmp_path_factory.mktemp("seeds") / "whole")


@pytest.fixture(scope="module")
def engines(seeds: list[Seed]) -> list[Path]:
    """ONNX files of every precision."""
    return [seed.path for seed in seeds if seed.machine == CPU]


def test_whole_files_load_and_give_their_golden_scores_but_engines_without_a_gpu(
    seeds: list[Seed], tmp_path: Path
) -> None:
    compile_driver(tmp_path)
    outcomes: dict[Machine, set[str]] = {}
    for seed in seeds:
        worker = Worker(seed.machine.environment(tmp_path))
        outcomes.setdefault(seed.machine, set()).add(worker.open(seed.path))
        worker.close()
    lacking = {machine: {"EngineError"} for machine in without_driver()}
    assert outcomes == {CPU: {"loaded"}, GPU: {"loaded"}} | lacking


def test_damaged_files_are_refused_or_work_on_every_machine(
    seeds: list[Seed], tmp_path: Path
) -> None:
    """A part of what `python -m benchmarks.fuzz` does, with other numbers."""
    record = fuzz(seeds, range(1_000_000, 1_000_800), tmp_path)
    assert record["wrong"] == []
    found = {name: set(outcomes) for name, outcomes in record["totals"].items()}
    lacking = {machine.name: {"SpecError", "EngineError"} for machine in without_driver()}
    everything = {"SpecError", "EngineError", "loaded"}
    assert found == {CPU.name: everything, GPU.name: everything} | lacking


def test_an_engine_that_loads_without_a_gpu_is_counted_as_wrong(
    seeds: list[Seed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu = next(seed for seed in seeds if seed.machine == GPU)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))  # where `fuzz` puts the made-up driver
    unaware = replace(on_gpu, machine=replace(GPU, has_gpu=False))
    record = fuzz([unaware], range(40), tmp_path)
    assert {case["outcome"] for case in record["wrong"]} == {"loaded"}


def test_an_engine_with_any_byte_flipped_is_refused_before_it_is_loaded(engine: Path) -> None:
    content = bytearray(engine.read_bytes())
    for position in range(len(content)):
        content[position] ^= 0xFF
        engine.write_bytes(content)
        with pytest.raises(EngineError, match="changed"):
            Recognizer.from_engine(engine)
        content[position] ^= 0xFF
    engine.write_bytes(content)
    Recognizer.from_engine(engine).close()


def test_a_spec_with_any_byte_flipped_is_refused_or_describes_an_engine_that_works(
    engine: Path,
) -> None:
    path = engine.with_suffix(".json")
    content, loaded = bytearray(path.read_bytes()), 0
    for position in range(len(content)):
        flipped = 1 << position % 8
        content[position] ^= flipped
        path.write_bytes(content)
        with suppress(SpecError, EngineError), Recognizer.from_engine(engine) as recognizer:
            assert recognizer(np.zeros((5, 5, 3), np.uint8)).valid
            loaded += 1
        content[position] ^= flipped
    assert 0 < loaded < len(content) / 2  # a letter of a name, a digit of a number


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (loop_forever, "branch or loop"),
        (branch_deeply, "branch or loop"),
        (call_itself, "calls another"),
        (point_outside, "another file"),
    ],
)
def test_what_could_hang_overflow_or_read_other_files_is_refused_by_name(
    engines: list[Path], change: Callable[[Random, onnx.ModelProto], None], word: str
) -> None:
    model = onnx.load(engines[0])
    change(Random(0), model)
    with pytest.raises(EngineError, match=word):
        check_structure(model.SerializeToString(), "model.onnx")


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_a_function_that_replaces_a_standard_operator_is_refused(
    engines: list[Path], domain: str
) -> None:
    model = onnx.load(engines[0])
    model.functions[0].name, model.functions[0].domain = "Add", domain
    with pytest.raises(EngineError, match="standard operator"):
        check_structure(model.SerializeToString(), "model.onnx")


def test_a_node_that_ends_on_a_missing_input_is_refused(engines: list[Path]) -> None:
    """ONNX Runtime 1.32 crashes on a float16 LayerNormalization whose bias is named ""."""
    model = onnx.load(next(path for path in engines if path.parent.name == "float16"))
    norm = next(node for node in model.graph.node if node.op_type == "LayerNormalization")
    norm.input[2] = ""
    with pytest.raises(EngineError, match="last input is missing"):
        check_structure(model.SerializeToString(), "model.onnx")


def test_constants_in_a_file_beside_the_process_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_bytes(bytes(36))
    monkeypatch.chdir(tmp_path)
    model = onnx.load_model_from_string(mean_color_model())
    constant = next(t for t in model.graph.initializer if t.name == "select")
    constant.ClearField("raw_data")
    constant.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "secret"), ("offset", "0"), ("length", "36")):
        constant.external_data.add(key=key, value=value)
    content = model.SerializeToString()
    # Neither our own look into the file nor the runtime lets it pass.
    with pytest.raises(EngineError, match="another file"):
        Recognizer.from_engine(write_engine(tmp_path, content, make_spec(content)))
    from cmlr_edge.backends.onnxruntime import OnnxRuntimeBackend

    with pytest.raises(EngineError, match="xternal data"):
        OnnxRuntimeBackend(Path("model.onnx"), content)


def test_a_name_that_is_no_text_is_an_engine_error(tmp_path: Path) -> None:
    content = mean_color_model().replace(b"scores", b"\xffcores")
    spec = make_spec(content)
    with pytest.raises(EngineError, match="cannot load"):
        Recognizer.from_engine(write_engine(tmp_path, content, spec))


@pytest.mark.parametrize(
    "content",
    [b"", b"\x08", b"\x80" * 11, b"\x3a\xff\xff\xff\xff\x0f", b"\x0b", b"\x00\x00", b"\x08\x01"],
    ids=["empty", "cut", "endless number", "too long", "group", "field 0", "no graph"],
)
def test_what_is_no_onnx_file_is_said_before_a_runtime_sees_it(content: bytes) -> None:
    with pytest.raises(EngineError, match="not an ONNX file"):
        check_structure(content, "model.onnx")


def test_the_structure_of_every_standard_value_is_read() -> None:
    """Fixed-width numbers, packed lists and unknown fields are stepped over."""
    node = helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.5, name="n")
    tensor = helper.make_tensor("t", TensorProto.DOUBLE, [2], [1.0, 2.0])
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    model = helper.make_model(helper.make_graph([node], "g", [value], [value], [tensor]))
    unknown = b"\xf9\x07" + bytes(8) + b"\xfd\x07" + bytes(4)  # fields of eight and four bytes
    check_structure(model.SerializeToString() + unknown, "model.onnx")


def test_a_spec_that_is_a_pipe_or_a_device_is_refused_and_not_waited_for(
    engine: Path, tmp_path: Path
) -> None:
    spec = engine.with_suffix(".json")
    spec.unlink()
    os.mkfifo(spec)
    with pytest.raises(SpecError, match="not a file"):
        Recognizer.from_engine(engine)
    device = tmp_path / "zero.json"
    device.symlink_to("/dev/zero")
    with pytest.raises(SpecError, match="not a file"):
        ModelSpec.load(device)


@pytest.mark.parametrize(
    "threshold", ["NaN", "Infinity", "1e999", '"0.5"', "null", "1" + "0" * 400]
)
def test_a_threshold_that_is_no_number_is_refused(engine: Path, threshold: str) -> None:
    path = engine.with_suffix(".json")
    text = path.read_text().replace("0.5", threshold, 1)
    path.write_text(text)
    with pytest.raises(SpecError):
        Recognizer.from_engine(engine)


def test_a_pickle_in_the_place_of_an_engine_is_never_unpickled(tmp_path: Path) -> None:
    trap = tmp_path / "trapped"
    bomb = b"cos\nsystem\n(S'touch " + str(trap).encode() + b"'\ntR."
    spec = make_spec(mean_color_model())
    built = replace(spec.files["model.onnx"], sha256=hashlib.sha256(bomb).hexdigest())
    path = write_engine(tmp_path, bomb, replace(spec, files={"model.onnx": built}))
    with pytest.raises(EngineError):
        Recognizer.from_engine(path)
    path.with_suffix(".json").write_bytes(bomb)
    with pytest.raises(SpecError):
        Recognizer.from_engine(path)
    assert not trap.exists()


def test_a_model_that_holds_the_place_of_a_hash_as_text_is_refused_with_a_remedy() -> None:
    with pytest.raises(EngineError, match=r"row of 64 zeros as text.*take that text out"):
        seal(b"0" * 64 + b" and " + b"0" * 64)
