"""The doctor on copies of Jetson file trees, and beside libraries that crash, hang and lie."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from cmlr_edge.diagnosis.doctor import judge, worst
from cmlr_edge.diagnosis.findings import Finding
from cmlr_edge.diagnosis.probes import _IDENTITY_ONNX, Answer, ask, ask_all
from cmlr_edge.machine.child import run_limited
from tests.cmlr_edge.cli.command import run

# As an Orin Nano with JetPack 6 shows itself.
JETSON_FILES = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, "
    "EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n"
    "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n",
    "var/lib/nvpmodel/status": "pmode:0000",
    "proc/meminfo": "MemTotal:        7802180 kB\nMemAvailable:    5302180 kB\nSwapTotal: 0 kB\n",
    "proc/self/cgroup": "0::/\n",
    "sys/fs/cgroup/memory.max": "max\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq": "729600",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": "1728000",
    "sys/class/devfreq/17000000.gpu/min_freq": "306000000",
    "sys/class/devfreq/17000000.gpu/max_freq": "1020000000",
    "sys/class/devfreq/15340000.vic/min_freq": "1",
    "sys/class/devfreq/15340000.vic/max_freq": "2",
    "sys/class/thermal/thermal_zone0/type": "gpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "91500",
    "dev/video0": "",
    "dev/video1": "",
    "sys/class/video4linux/video0/name": "HD Pro Webcam C920",
    "sys/class/video4linux/video0/index": "0",
    "sys/class/video4linux/video1/name": "HD Pro Webcam C920",
    "sys/class/video4linux/video1/index": "1",
    "usr/lib/python3.10/dist-packages/tensorrt/__init__.py": "",
}


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture(scope="module")
def answers() -> dict[str, Answer]:
    """Of the libraries of this machine."""
    return ask_all()


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def plant_package(folder: Path, name: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(folder, {f"{name}/__init__.py": code})
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.slow
def test_the_report_agrees_with_the_packages_themselves() -> None:
    done = run("doctor", "--json")
    findings = {item["name"]: item for item in json.loads(done.stdout)["findings"]}
    assert findings["NumPy"]["found"] == np.__version__
    assert findings["ONNX Runtime"]["found"].startswith(onnxruntime.__version__)
    assert "CPU" in findings["ONNX Runtime"]["found"]
    assert all((item["state"] == "ok") == (item["remedy"] == "") for item in findings.values())
    text = run("doctor")
    assert text.returncode == done.returncode
    assert all(name in text.stdout for name in findings)


@pytest.mark.slow
def test_a_provider_that_is_named_is_tried_with_the_bundled_model() -> None:
    done = run("doctor", "--provider", "tpu")
    assert done.returncode == 1
    assert "provider 'tpu' was asked for" in done.stdout


@pytest.mark.slow
def test_a_jetson_is_known_by_its_files(
    answers: dict[str, Answer],
    no_driver: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", no_driver["LD_LIBRARY_PATH"])
    answers = answers | {"cuda_driver": ask("cuda_driver", timeout_s=3)}
    found = by_name(judge(answers, plant(tmp_path, JETSON_FILES)))
    assert found["board"].found == "NVIDIA Jetson Orin Nano Developer Kit, L4T 36.4.3, JetPack 6"
    assert found["power mode"].found.startswith("15W")
    assert "nvpmodel -m" in found["power mode"].remedy
    assert "nvargus-daemon" in found["Argus"].remedy
    assert found["clocks"].found.startswith("CPU policy0 730 to 1728 MHz; GPU 306 to 1020 MHz")
    assert "jetson_clocks" in found["clocks"].remedy
    assert "gpu-thermal 92 °C" in found["temperature"].found
    assert "without GStreamer" in found["OpenCV"].found
    assert "--system-site-packages" in found["TensorRT"].remedy
    assert found["CUDA driver"].state == "problem"
    assert [f.found for f in judge(answers, tmp_path) if f.name == "camera"] == [
        "/dev/video0: HD Pro Webcam C920"
    ]


def test_a_tuned_jetson_has_nothing_to_say_of_it(
    answers: dict[str, Answer], tmp_path: Path
) -> None:
    pinned = {
        "var/lib/nvpmodel/status": "pmode:0002",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq": "1728000",
        "sys/class/devfreq/17000000.gpu/min_freq": "1020000000",
        "sys/class/thermal/thermal_zone0/temp": "45000",
    }
    plant(tmp_path, JETSON_FILES | pinned)
    (tmp_path / "tmp").mkdir()
    with socket.socket(socket.AF_UNIX) as argus:
        argus.bind(str(tmp_path / "tmp/argus_socket"))
        found = by_name(judge(answers, tmp_path))
    for name in ("board", "Argus", "power mode", "clocks", "memory", "swap"):
        assert found[name].state == "ok", found[name]
    assert found["power mode"].found == "MAXN_SUPER"
    assert "temperature" not in found


def test_too_little_memory_is_a_problem_and_no_swap_a_warning(
    answers: dict[str, Answer], tmp_path: Path
) -> None:
    meminfo = "MemTotal: 1980000 kB\nMemAvailable: 180000 kB\nSwapTotal: 0 kB\n"
    found = by_name(judge(answers, plant(tmp_path, {"proc/meminfo": meminfo})))
    assert found["memory"].state == "problem"
    assert found["swap"].state == "warning"
    assert "mkswap" in found["swap"].remedy


def test_memory_that_a_control_group_does_not_grant_is_not_free(
    answers: dict[str, Answer], tmp_path: Path
) -> None:
    files = {
        "proc/meminfo": "MemTotal: 7802180 kB\nMemAvailable: 5302180 kB\nSwapTotal: 0 kB\n",
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": f"{300 * 2**20}\n",
        "sys/fs/cgroup/memory.current": f"{200 * 2**20}\n",
    }
    found = by_name(judge(answers, plant(tmp_path, files)))["memory"]
    assert found.state == "problem"
    assert "the control group grants 0.1 GiB more" in found.found


@pytest.mark.parametrize("junk", ["", "\0\xff", "R36", "9" * 5000, "pmode:x < POWER_MODEL ID= >"])
def test_files_full_of_junk_never_end_the_report(
    answers: dict[str, Answer], tmp_path: Path, junk: str
) -> None:
    plant(tmp_path, dict.fromkeys(JETSON_FILES, junk))
    findings = judge(answers, tmp_path)
    assert {"Python", "OpenCV", "camera"} <= set(by_name(findings))
    assert not any(finding.name == "doctor" for finding in findings)


CRASH = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
HANG = "import time; time.sleep(60)"
WORDS = "raise ImportError('numpy.core.multiarray failed to import')"
OLD_TYPES = """
__version__ = '8.5.2'
float32 = float16 = int32 = int8 = bool = 0
def nptype(kind):
    raise AttributeError("module 'numpy' has no attribute 'bool'")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "found", "remedy"),
    [
        (CRASH, "crashed with SIGSEGV", "reinstall TensorRT"),
        (HANG, "gave no answer in 3 s", "reinstall TensorRT"),
        (WORDS, "multiarray failed to import", "numpy<2"),
        (OLD_TYPES, "no attribute 'bool'", "numpy<1.24"),
        ("import not_there", "No module named 'not_there'", "reinstall TensorRT"),
    ],
    ids=["crash", "hang", "binary interface", "old types", "half installed"],
)
def test_a_broken_tensorrt_costs_one_line(
    answers: dict[str, Answer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    found: str,
    remedy: str,
) -> None:
    plant_package(tmp_path, "tensorrt", code, monkeypatch)
    start = time.monotonic()
    answer = ask("tensorrt", timeout_s=3)
    assert time.monotonic() - start < 10
    assert answer.late == (code == HANG)
    findings = by_name(judge(answers | {"tensorrt": answer}, tmp_path))
    assert findings["TensorRT"].state == "problem"
    assert found in findings["TensorRT"].found
    assert remedy in findings["TensorRT"].remedy
    assert findings["OpenCV"].state == "ok"


@pytest.mark.parametrize("probe", ["numpy", "pyav", "opencv", "onnxruntime", "openvino", "native"])
def test_what_answers_too_late_is_to_be_asked_again_before_it_is_installed_again(
    answers: dict[str, Answer], tmp_path: Path, probe: str
) -> None:
    late = Answer(None, "gave no answer in 30 s", late=True)
    worse = [item for item in judge(answers | {probe: late}, tmp_path) if late.error in item.found]
    assert worse
    assert all(
        item.remedy.startswith("look again when this machine is less busy") for item in worse
    )
    assert all("install" in item.remedy for item in worse)
    crashed = judge(answers | {probe: Answer(None, "crashed with SIGSEGV")}, tmp_path)
    [broken] = [item for item in crashed if "SIGSEGV" in item.found]
    assert broken.remedy.count("--force-reinstall") == 1
    assert "less busy" not in broken.remedy


def test_a_provider_that_is_listed_and_takes_no_model_is_a_problem(
    answers: dict[str, Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
import sys
print("noise on the standard output")
print("Failed to load providers_cuda.so with error: libcublasLt.so.13: cannot open shared object "
      "file: No such file or directory", file=sys.stderr)
__version__ = '1.20.0'
class SessionOptions:
    def add_session_config_entry(self, key, value): pass
class InferenceSession:
    def __init__(self, content, options, providers, enable_fallback): pass
    def get_providers(self): return ['CPUExecutionProvider']
def get_available_providers(): return ['CUDAExecutionProvider', 'CPUExecutionProvider']
"""
    plant_package(tmp_path, "onnxruntime", code, monkeypatch)
    lying = answers | {"onnxruntime": ask("onnxruntime")}
    finding = by_name(judge(lying, tmp_path))["ONNX Runtime"]
    assert finding.state == "problem"
    assert finding.found == (
        "1.20.0, runs on CPU; lists CUDA and cannot use it, for there is no libcublasLt.so.13"
    )


def test_the_model_for_providers_is_the_identity() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "i", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    assert model.SerializeToString() == _IDENTITY_ONNX


DRIVER = """
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int cuInit(unsigned flags) {{ {init} }}
int cuDriverGetVersion(int *v) {{ *v = 12060; return 0; }}
int cuDeviceGetCount(int *n) {{ *n = 1; return 0; }}
int cuDeviceGet(int *d, int i) {{ *d = i; return 0; }}
int cuDeviceGetName(char *s, int n, int d) {{ strncpy(s, "Orin", n); return 0; }}
int cuDeviceTotalMem_v2(size_t *b, int d) {{ *b = (size_t)8 << 30; return 0; }}
int cuDeviceGetAttribute(int *v, int a, int d) {{ *v = a == 75 ? 8 : 7; return 0; }}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("init", "found"),
    [
        ("return 0;", "CUDA 12.6"),
        ("return 100;", "cuInit gave CUDA error 100"),
        ("abort();", "crashed with SIGABRT"),
        ("sleep(60); return 0;", "gave no answer in 3 s"),
    ],
    ids=["works", "fails", "crashes", "hangs"],
)
def test_a_cuda_driver_may_work_fail_crash_or_hang(
    answers: dict[str, Answer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    init: str,
    found: str,
) -> None:
    source = tmp_path / "driver.c"
    source.write_text(DRIVER.format(init=init))
    library = tmp_path / "libcuda.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    answer = ask("cuda_driver", timeout_s=3)
    findings = by_name(judge(answers | {"cuda_driver": answer}, tmp_path))
    assert found in findings["CUDA driver"].found
    assert (findings["CUDA driver"].state == "ok") == (init == "return 0;")
    if init == "return 0;":
        assert findings["GPU"].found == "Orin, compute capability 8.7, 8.0 GiB"
        assert "the GPU is not used" in findings["ONNX Runtime"].found


def test_a_module_in_the_current_folder_is_not_taken_for_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("__version__ = 'forged'")
    monkeypatch.chdir(tmp_path)
    assert ask("numpy").found == {"version": np.__version__}


def test_a_command_that_is_not_there_is_an_answer_too() -> None:
    assert "No such file" in run_limited(["/no/such/command"], timeout_s=3).error
    code = "import sys; sys.exit('the last words')"
    assert run_limited([sys.executable, "-c", code], timeout_s=10).error == "the last words"


@pytest.mark.slow
def test_an_engine_is_tried_and_its_trouble_is_a_problem(engine: Path) -> None:
    healthy = run("doctor", engine, "--json")
    findings = [f for f in json.loads(healthy.stdout)["findings"] if f["group"] == "engine"]
    assert [f["name"] for f in findings] == [
        "spec", "file", "runtime", "provider", "labels", "golden sample",
    ]  # fmt: skip
    engine.write_bytes(engine.read_bytes() + b"x")
    changed = run("doctor", engine, "--json")
    assert changed.returncode == 1
    (bad,) = [f for f in json.loads(changed.stdout)["findings"] if f["state"] == "problem"]
    assert bad["name"] == "file"
    assert "copy engine and spec" in bad["found"]
    missing = run("doctor", engine.with_name("none.onnx"), "--json")
    assert missing.returncode == 1
    assert "no engine at" in json.loads(missing.stdout)["findings"][-1]["found"]


def test_the_worst_state_counts() -> None:
    assert worst([]) == "ok"
    states = [Finding("g", "n", state, "") for state in ("ok", "problem", "warning")]
    assert worst(states) == "problem"
    assert worst(states[::2]) == "warning"
