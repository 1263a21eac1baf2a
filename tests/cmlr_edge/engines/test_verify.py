"""`cmlr-edge verify`, and that no device ever takes the place of the one that was asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cmlr_edge import Recognizer
from cmlr_edge.model.files import spec_path
from cmlr_edge.model.spec import GoldenSample, ModelSpec
from tests.cmlr_edge.cli.command import run
from tests.cmlr_edge.engines import fake_gpu
from tests.conftest import golden_scores, make_spec, mean_color_model, write_engine

pytestmark = pytest.mark.slow


def checks_of(engine: Path, *options: str) -> tuple[int, dict[str, dict[str, object]]]:
    done = run("verify", engine, "--json", *options)
    record = json.loads(done.stdout)
    assert record["passed"] == (done.returncode == 0)
    return done.returncode, {check["name"]: check for check in record["checks"]}


def change_spec(engine: Path, **changes: object) -> None:
    spec = ModelSpec.load(spec_path(engine))
    built = replace(spec.files["model.onnx"], **changes)  # type: ignore[arg-type]
    replace(spec, files={"model.onnx": built}).save(spec_path(engine))


def test_a_sound_engine_passes_every_check(engine: Path) -> None:
    code, checks = checks_of(engine, "--provider", "cpu")
    assert code == 0
    assert [*checks] == ["spec", "file", "runtime", "provider", "labels", "golden sample"]
    assert all(check["passed"] and not check["remedy"] for check in checks.values())
    assert "CPUExecutionProvider" in str(checks["runtime"]["found"])
    assert checks["provider"]["found"] == "asked for cpu, runs on cpu"
    assert run("verify").returncode == 0  # the bundled model


def test_scores_that_differ_from_the_stored_ones_fail_by_their_distance(engine: Path) -> None:
    red, green, blue = golden_scores()
    change_spec(engine, golden=GoldenSample(7, (red, green + 0.25, blue), 0.1))
    code, checks = checks_of(engine)
    assert code == 1
    assert str(checks["golden sample"]["found"]).startswith("scores differ by 0.25 ")
    assert not checks["golden sample"]["passed"]


def test_a_changed_file_is_not_even_loaded(engine: Path) -> None:
    engine.write_bytes(b"not a model, and it was never looked at")
    code, checks = checks_of(engine)
    assert code == 1
    assert [*checks] == ["spec", "file"]


def test_labels_of_another_model_are_counted(tmp_path: Path) -> None:
    content = mean_color_model(num_labels=2)
    engine = write_engine(tmp_path, content, make_spec(content))
    code, checks = checks_of(engine)
    assert code == 1
    assert checks["labels"]["found"] == "2 scores for 3 labels"


def test_auto_is_checked_as_the_provider_that_it_takes(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where the choice is remembered
    code, checks = checks_of(engine, "--provider", "auto")
    assert code == 0
    (choice,) = (tmp_path / ".cache" / "cmlr_edge" / "providers").glob("*.json")
    taken = json.loads(choice.read_text())["provider"]
    assert checks["provider"]["found"] == f"asked for {taken}, runs on {taken}"


def test_a_provider_that_is_not_here_fails_and_no_other_runs(engine: Path) -> None:
    code, checks = checks_of(engine, "--provider", "cuda")
    assert code == 1
    assert "'cuda' was asked for" in str(checks["runtime"]["found"])
    assert "golden sample" not in checks


@pytest.mark.parametrize("missing", ["model.onnx", "model.json"])
def test_nothing_to_check_is_exit_code_2(engine: Path, missing: str) -> None:
    engine.with_name(missing).unlink()
    done = run("verify", engine, "--json")
    assert done.returncode == 2
    assert done.stdout == ""


def test_a_tensorrt_engine_passes_on_its_gpu_and_fails_on_another(
    driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fake_gpu.write(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(fake_gpu.FAKES))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    code, checks = checks_of(path)
    assert code == 0
    assert checks["provider"]["found"] == "runs on cuda"
    assert checks["golden sample"]["passed"]
    code, checks = checks_of(path, "--provider", "cpu")
    assert code == 1
    assert "machine code for a GPU" in str(checks["runtime"]["found"])
    monkeypatch.setenv("FAKE_CAPABILITY", "110")
    code, checks = checks_of(path)
    assert code == 1
    assert "was built on Orin with 8.7: build it" in str(checks["gpu"]["found"])
    assert "runtime" not in checks
    findings = json.loads(run("doctor", path, "--json").stdout)["findings"]
    problems = {item["name"]: item["group"] for item in findings if item["state"] == "problem"}
    assert problems == {"gpu": "engine"}
    (gpu,) = [item["found"] for item in findings if item["name"] == "GPU"]
    assert gpu == "Orin, compute capability 11.0, 7.5 GiB"


# An ONNX Runtime whose CUDA does what {cuda} says and which, as the real one, has a fall-back that
# is on unless it is switched off.
UNRELIABLE_RUNTIME = """
import numpy
__version__ = '1.20.0'
class SessionOptions:
    def add_session_config_entry(self, key, value): pass
class Tensor:
    def __init__(self, name, type, shape): self.name, self.type, self.shape = name, type, shape
class InferenceSession:
    def __init__(self, content, options, providers, enable_fallback=1, disabled_optimizers=()):
        self.providers, self.enable_fallback = providers + ['CPUExecutionProvider'], enable_fallback
        self.load()
    def get_providers(self): return self.providers
    def get_inputs(self): return [Tensor('frames', 'tensor(uint8)', ['n', 24, 32, 3])]
    def get_outputs(self): return [Tensor('scores', 'tensor(float)', ['n', 3])]
    def run(self, names, feeds):
        if self.enable_fallback:
            return [feeds['frames'].mean((1, 2)).astype(numpy.float32) / 255]
        raise RuntimeError('CUDA failure 999')
    def load(self): {cuda}
def get_available_providers(): return ['CUDAExecutionProvider', 'CPUExecutionProvider']
"""


NO_NODES = """
        part = type('Part', (), {'ep_name': 'CPUExecutionProvider', 'get_nodes': lambda _: [1, 2]})
        self.get_provider_graph_assignment_info = lambda: [part()]"""


@pytest.mark.parametrize(
    ("cuda", "words"),
    [
        ("self.providers = ['CPUExecutionProvider']", "would run on CPUExecutionProvider instead"),
        ("pass", "CUDA failure 999"),
        (
            NO_NODES,
            "took none of the model's 2 nodes",
        ),
    ],
    ids=["at the start", "in the middle", "node by node"],
)
def test_a_runtime_that_falls_back_is_an_error(
    engine: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: str, words: str
) -> None:
    package = tmp_path / "packages" / "onnxruntime"
    package.mkdir(parents=True)
    package.joinpath("__init__.py").write_text(UNRELIABLE_RUNTIME.replace("{cuda}", cuda))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    done = run("label", clip, "--engine", engine, "--provider", "cuda", "--json")
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stdout == ""


def test_the_device_in_use_is_told(engine: Path, clip: Path) -> None:
    with Recognizer.from_engine(engine) as recognizer:
        assert recognizer.provider == "cpu"
    record = json.loads(run("label", clip, "--engine", engine, "--json").stdout)
    assert record["provider"] == "cpu"
    assert record["runtime"].endswith("CPUExecutionProvider")
