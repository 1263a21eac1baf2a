"""What many tests share: a tiny engine with a known formula, clips and pictures to read."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before NumPy and PyTorch start as many as there are cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# What is not about the choice of a provider computes the same on every machine, at once.
os.environ.setdefault("CMLR_PROVIDER", "cpu")

import fcntl
import gc
import hashlib
import itertools
import re
import shutil
import socket
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from _pytest.runner import runtestprotocol
from numpy.typing import NDArray

from benchmarks.streams import stand_in
from cmlr_edge.backends.golden import golden_frames
from cmlr_edge.model.spec import (
    BuiltFile,
    GoldenSample,
    MethodSpec,
    ModelSpec,
    ParityReport,
    PreprocessSpec,
    Provenance,
    ThresholdFit,
)

SIZE_HW = (24, 32)
LABELS = ("red", "green", "blue")
Image = NDArray[np.uint8]

_NEEDS_TORCH = re.compile(
    r"^(?:from|import) (?:torch|train|export|benchmarks|tests\.(?:train|export|tiny_training))\b",
    re.MULTILINE,
)
_NOT_QUICK = {"slow", "pages"}
# Files that take longest, the longest first; of the others, the number of slow tests says it.
LONGEST = (
    "csrc/test_seeded_bugs.py",
    "export/test_fold_network.py",
    "export/test_engine.py",
    "csrc/test_plugin.py",
    "train/fitting/test_distributed.py",
    "test_no_telemetry.py",
    "export/test_build_engine.py",
    "benchmarks/test_papers.py",
    "train/fitting/test_official_training.py",
    "benchmarks/test_collect.py",
    "benchmarks/test_place.py",
    "export/test_fold_graph.py",
    "csrc/test_kernel_report.py",
)
_COMPUTING = {"benchmarks", "csrc", "export", "train"}
_FIRST_TRY = "first try"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick",
        action="store_true",
        help="run without torch; leave out what is marked slow or pages",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--quick"):
        sys.modules["torch"] = None  # type: ignore[assignment]  # importing it is an error now


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files that cannot be imported without torch, where it shall not be."""
    if not config.getoption("--quick") or not collection_path.match("test_*.py"):
        return None
    return True if _NEEDS_TORCH.search(collection_path.read_text()) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def marked(item: pytest.Item, names: set[str]) -> bool:
        return any(mark.name in names for mark in item.iter_markers())

    if config.getoption("--quick"):
        left_out = [item for item in items if marked(item, _NOT_QUICK)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not marked(item, _NOT_QUICK)]
    # Long files first: of several processes none shall begin one at the end.
    slow = Counter(item.path for item in items if marked(item, {"slow"}))
    turns = _turns(sorted({item.path for item in items}, key=lambda x: length_of(x, slow)), slow)
    items.sort(key=lambda item: turns[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Nobody looks again and again through a million objects of PyTorch and others for what can go."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """A test that fails leaves no process behind that it started: nobody else would end it."""
    started: list[subprocess.Popen[Any]] = []

    def noted(process: subprocess.Popen[Any], *given: Any, **options: Any) -> None:
        begin(process, *given, **options)
        started.append(process)

    with pytest.MonkeyPatch.context() as patch:
        begin = subprocess.Popen.__init__
        patch.setattr(subprocess.Popen, "__init__", noted)
        try:
            return (yield)
        except BaseException:
            for process in started:
                process.kill()
                process.wait()
            raise


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Try a test once more where it fails, and name it in the summary.

    What else a machine does can delay any of them; a fault fails twice.
    """
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    failed = next((report for report in reports if report.failed), None)
    # One that was stopped has used up its time.
    if failed is not None and "Failed: Timeout" not in failed.longreprtext:
        _forget(item)
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        for report in reports:
            report.user_properties.append((_FIRST_TRY, failed.longreprtext))
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _forget(item: pytest.Item) -> None:
    """What the first try said and left open is not the second one's."""
    item._report_sections.clear()
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):  # hold its variables
        vars(sys).pop(name, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for outcomes, title in (
        (("passed",), "PASSED ONLY WHEN TRIED ONCE MORE"),
        (("failed", "error"), "FAILED TWICE, THE FIRST TIME SO"),
    ):
        first = {
            report.nodeid: tried
            for outcome in outcomes
            for report in terminalreporter.stats.get(outcome, [])
            for name, tried in report.user_properties
            if name == _FIRST_TRY
        }
        if first:
            terminalreporter.section(f"{len(first)} {title}")
        for nodeid, tried in first.items():
            terminalreporter.line(f"{nodeid}\n{tried}\n")


def length_of(path: Path, slow: Counter[Path]) -> tuple[int, int, Path]:
    """Sorts the longest file first."""
    name = path.relative_to(Path(__file__).parent).as_posix()
    place = LONGEST.index(name) if name in LONGEST else len(LONGEST)
    return place, -slow[path], path


def _turns(paths: list[Path], slow: Counter[Path]) -> dict[Path, tuple[bool, float]]:
    """When each file's turn is: what computes is spread evenly among what waits for cameras and servers."""
    turns: dict[Path, tuple[bool, float]] = {}
    for is_slow, computes in itertools.product((True, False), repeat=2):
        kind = [path for path in paths if ((path in slow), _computes(path)) == (is_slow, computes)]
        turns |= {path: (not is_slow, number / len(kind)) for number, path in enumerate(kind)}
    return turns


def _computes(path: Path) -> bool:
    """Whether a file's tests compile or calculate, and nothing in them depends on when."""
    return bool(_COMPUTING & {*path.relative_to(Path(__file__).parents[1]).parts[1:2]})


def _set_nice(value: int) -> None:
    os.setpriority(os.PRIO_PROCESS, 0, value)


@pytest.fixture(scope="session")
def _nice() -> int | None:
    """How nice this process is; None if it could not come back from being nicer."""
    now = os.getpriority(os.PRIO_PROCESS, 0)
    with ThreadPoolExecutor(1) as pool:  # a thread has a niceness of its own
        tried = [pool.submit(_set_nice, value).exception() for value in (now + 1, now)]
    return None if any(tried) or "PYTEST_XDIST_WORKER" not in os.environ else now


@pytest.fixture(scope="module", autouse=True)
def _give_way(request: pytest.FixtureRequest, _nice: int | None) -> Iterator[None]:
    """What computes takes what is left of processors: others hold a clock to what they see."""
    if _nice is None or not _computes(request.path):
        yield
        return
    _set_nice(_nice + 5)
    yield
    _set_nice(_nice)


def mean_color_model(num_labels: int = 3) -> bytes:
    """Score of label i: the mean of channel i, scaled to [0, 1]."""
    content: bytes = stand_in.mean_color_model(SIZE_HW, num_labels).SerializeToString()
    return content


def golden_scores(num_labels: int = 3) -> tuple[float, ...]:
    means = golden_frames(7, SIZE_HW)[0].reshape(-1, 3).mean(axis=0) / 255
    return tuple(np.pad(means, (0, num_labels))[:num_labels].tolist())


def make_spec(content: bytes, labels: tuple[str, ...] = LABELS) -> ModelSpec:
    built = BuiltFile(
        sha256=hashlib.sha256(content).hexdigest(),
        runtime="onnx",
        precision="float32",
        parity=ParityReport(1, 0.0, 0),
        golden=GoldenSample(seed=7, scores=golden_scores(len(labels)), tolerance=1e-3),
    )
    return ModelSpec(
        name="mean colour",
        labels=labels,
        thresholds=(0.5,) * len(labels),
        preprocess=PreprocessSpec(SIZE_HW, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        method=MethodSpec("none", "none", "prior", 0, 1, 0),
        provenance=Provenance("none", 0, 0, 0, "0"),
        threshold_fit=ThresholdFit("fixed", "none", 0, "float32", 0.0),
        files={"model.onnx": built},
    )


def write_engine(folder: Path, content: bytes, spec: ModelSpec) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(content)
    spec.save(folder / "model.json")
    return path


@pytest.fixture
def no_driver(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """This process finds no NVIDIA driver, nor does one with this environment: on a GPU's machine too."""
    from cmlr_edge.machine import driver

    monkeypatch.setattr(driver, "_LIBRARY", "libcuda-of-nobody.so.1")
    folder = tmp_path_factory.mktemp("no_driver")
    (folder / "libcuda.so.1").touch()  # no library, and the loader looks no further
    return {"LD_LIBRARY_PATH": str(folder)}


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    folder = tmp_path / "engine"
    folder.mkdir()
    content = mean_color_model()
    return write_engine(folder, content, make_spec(content))


@pytest.fixture
def color_engine(tmp_path: Path) -> Path:
    """Like `engine`, with another threshold for each label."""
    folder = tmp_path / "thresholds"
    folder.mkdir()
    content = mean_color_model()
    spec = replace(make_spec(content), thresholds=(0.2, 0.6, 0.4))
    return write_engine(folder, content, spec)


def solid(red: int, green: int, blue: int, size_hw: tuple[int, int] = (40, 60)) -> Image:
    """A BGR picture of one colour."""
    image: Image = np.empty((*size_hw, 3), np.uint8)
    image[:] = (blue, green, red)
    return image


def write_video(path: Path, frames: list[Image], fps: float = 10) -> Path:
    height, width = frames[0].shape[:2]
    codec = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), codec, fps, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """2 s at 10 frames per second: one second red, one second blue."""
    frames = [solid(250, 5, 5)] * 10 + [solid(5, 5, 250)] * 10
    return write_video(tmp_path / "clip.avi", frames)


def _folder_from_environment(variable: str, what: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set: point it to {what} to run this test")
    return Path(value)


@pytest.fixture(scope="session")
def photos() -> Path:
    return _folder_from_environment("CMLR_PHOTOS", "a folder of photos with labels.json")


@pytest.fixture(scope="session")
def clips() -> Path:
    return _folder_from_environment("CMLR_CLIPS", "a folder with the sample clips")


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """What the first of all processes of this run of the tests makes: nobody writes to it later."""
    base = factory.getbasetemp()
    path = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    path.parent.mkdir(exist_ok=True)
    done = path.with_name(f"{path.name}.done")
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(path, ignore_errors=True)  # of a try that failed
            make(path)
            done.touch()
    return path


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny_training import write_dataset

    return made_once(tmp_path_factory, "squares", write_dataset)


@pytest.fixture(scope="session")
def tiny_run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder, trained once for all tests: read it, never write to it."""
    from tests.tiny_training import tiny_config
    from train.data import read_dataset
    from train.fitting.loop import fit

    return made_once(
        tmp_path_factory, "run", lambda run: fit(read_dataset(tiny_data), run, tiny_config())
    )


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
