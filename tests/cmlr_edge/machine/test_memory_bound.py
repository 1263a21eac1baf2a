"""Files of a few bytes that ask for all memory: refused, and the process is as it was."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto, helper, load_model_from_string, numpy_helper

from cmlr_edge import Recognizer
from cmlr_edge.errors import EngineError
from cmlr_edge.machine import memory_bound
from cmlr_edge.machine.memory_bound import bounded_memory
from tests.cmlr_edge.cli.command import run
from tests.conftest import make_spec, mean_color_model, solid, write_engine

_MIB = 2**20


def filled() -> list[NodeProto]:
    """16 GiB of one number."""
    fill = numpy_helper.from_array(np.array([0.5], np.float32))
    return [helper.make_node("ConstantOfShape", ["large"], ["big"], value=fill)]


def doubled() -> list[NodeProto]:
    """The input, put together with itself again and again."""
    nodes = [helper.make_node("Flatten", ["pixels"], ["d0"])]
    nodes += [
        helper.make_node("Concat", [f"d{i}", f"d{i}"], [f"d{i + 1}"], axis=1) for i in range(22)
    ]
    return [*nodes, helper.make_node("Identity", ["d22"], ["big"])]


def multiplied() -> list[NodeProto]:
    """The input as a column and as a row."""
    return [
        helper.make_node("Reshape", ["pixels", "column"], ["c"]),
        helper.make_node("Reshape", ["pixels", "row"], ["r"]),
        helper.make_node("MatMul", ["c", "r"], ["square"]),
        helper.make_node("Reshape", ["square", "column"], ["c2"]),
        helper.make_node("Reshape", ["square", "row"], ["r2"]),
        helper.make_node("Add", ["c2", "r2"], ["big"]),
    ]


def of_many_images() -> list[NodeProto]:
    """Harmless for one image: the number of images to the power of 14."""
    nodes = [helper.make_node("ReduceMean", ["pixels", "all"], ["x0"], keepdims=0)]
    for i in range(4):
        nodes += [
            helper.make_node("Reshape", [f"x{i}", "column"], [f"c{i}"]),
            helper.make_node("Reshape", [f"x{i}", "row"], [f"r{i}"]),
            helper.make_node("Mul", [f"c{i}", f"r{i}"], [f"x{i + 1}"]),
        ]
    return [*nodes, helper.make_node("Identity", ["x4"], ["big"])]


def bomb(folder: Path, make: Callable[[], list[NodeProto]]) -> Path:
    """An engine with the usual scores that makes `big` on the way."""
    model = load_model_from_string(mean_color_model())
    (last,) = (node for node in model.graph.node if "scores" in node.output)
    last.output[:] = ["right"]
    for name, value in {
        "large": [2**32],
        "column": [-1, 1],
        "row": [1, -1],
        "all": [1, 2, 3],
    }.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    model.graph.node.extend(
        [
            *make(),
            helper.make_node("ReduceSum", ["big"], ["total"], keepdims=0),
            helper.make_node("Sub", ["total", "total"], ["nothing"]),
            helper.make_node("Add", ["right", "nothing"], ["scores"]),
        ]
    )
    content = model.SerializeToString()
    return write_engine(folder, content, make_spec(content))


@pytest.fixture
def small_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where 400 MiB are much."""
    monkeypatch.setattr(memory_bound, "_RUNTIME_BYTES", 400 * _MIB)
    monkeypatch.setattr(memory_bound, "_IMAGE_BYTES", 10 * _MIB)


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
@pytest.mark.parametrize("make", [filled, doubled, multiplied])
@pytest.mark.usefixtures("small_bound")
def test_a_small_file_that_asks_for_all_memory_is_one_error(
    tmp_path: Path,
    make: Callable[[], list[NodeProto]],
    provider: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if provider == "openvino":
        pytest.importorskip("openvino")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(
        EngineError, match="asks for more memory than there is, or than the 400 MiB"
    ):
        Recognizer.from_engine(bomb(tmp_path, make), provider=provider)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("small_bound")
def test_one_that_waits_for_several_images_is_one_error_and_goes_on_with_single_ones(
    tmp_path: Path,
) -> None:
    with Recognizer.from_engine(bomb(tmp_path, of_many_images), provider="cpu") as recognizer:
        red = solid(250, 5, 5)
        assert recognizer(red).labels[0].label == "red"
        for _ in range(2):
            with pytest.raises(EngineError, match="asks for more memory"):
                recognizer.recognize_batch([red] * 8)
        assert recognizer(red).labels[0].label == "red"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["label", "verify"])
def test_commands_refuse_it_in_one_line(tmp_path: Path, command: str) -> None:
    path = bomb(tmp_path, filled)
    arguments: list[str | Path] = ["verify", path, "--json"] if command == "verify" else ["label", "test://", "--engine", path]  # fmt: skip
    done = run(*arguments)
    assert done.returncode == (1 if command == "verify" else 2)
    said = json.loads(done.stdout)["checks"][-1] if command == "verify" else done.stderr
    assert "asks for more memory than there is, or than the 2048 MiB" in str(said)
    assert done.stderr.count("\n") == (command == "label")


def test_bounds_of_several_threads_end_with_the_last_of_them() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    inside, leave = threading.Barrier(3), threading.Event()

    def work() -> None:
        with bounded_memory(200 * _MIB):
            inside.wait()
            leave.wait()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait()
    with bounded_memory(100 * _MIB):
        assert resource.getrlimit(resource.RLIMIT_DATA) != before
    assert resource.getrlimit(resource.RLIMIT_DATA) != before
    leave.set()
    for thread in threads:
        thread.join()
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_limit_that_is_smaller_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (64 * _MIB, -1))
    monkeypatch.setattr(resource, "setrlimit", lambda _what, limits: set_to.append(limits))
    with bounded_memory(2**30):
        assert not set_to
    assert set_to == [(64 * _MIB, -1)]


def test_a_sandbox_without_proc_is_bounded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_bound, "_STATM", tmp_path / "statm")
    # What threads and libraries of other tests reserve and do not touch counts against it.
    with bounded_memory(4096 * _MIB):
        assert np.ones(64 * _MIB, np.uint8).all()
        with pytest.raises(MemoryError):
            np.empty(64 * 2**30, np.uint8)


def test_what_is_reserved_and_not_touched_costs_a_model_nothing_without_proc(
    tmp_path: Path,
) -> None:
    script = """
import sys
from pathlib import Path
import numpy as np
from cmlr_edge.machine import memory_bound
memory_bound._STATM = Path(sys.argv[1])
reserved = np.empty(2**30, np.uint8)
with memory_bound.bounded_memory(2**28):
    np.ones(2**27, np.uint8)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "statm")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
