"""`cmlr-edge doctor`: what is here, what is missing, and what to do about it.

The machine is read in `hardware.py` and the libraries are asked in `probes.py`; here it is judged, a
function per line of the report.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from cmlr_edge.diagnosis.findings import Finding, Report, State
from cmlr_edge.diagnosis.machine_findings import cameras, clocks, disk, memory
from cmlr_edge.diagnosis.probes import Answer, ask, ask_all
from cmlr_edge.engines.opening import memory_to_load
from cmlr_edge.machine import hardware
from cmlr_edge.machine.hardware import ROOT

_GIB = 2**30
_EXTRAS = {
    "mqtt": "paho",
    "prometheus": "prometheus_client",
    "serve": "fastapi",
    "signing": "model_signing",
}
_OLD_NUMPY = "pip install 'numpy<2'"


_SOFTWARE, _GPU = Report("software"), Report("gpu")
_JETSON, _ENGINE = Report("jetson"), Report("engine")


def examine(
    engine: Path | None = None,
    *,
    provider: str | None = None,
    heard: Callable[[str], object] = str,
) -> list[Finding]:
    """Look at this machine, and at whether an engine would run on it. Never raises, never hangs.

    Args:
        engine: As for `Recognizer.from_engine`; None to look at the machine alone.
        provider: The device to try the engine on; see `Recognizer.from_engine`.
        heard: Gets the name of each library and driver that has answered.
    """
    findings = judge(ask_all(heard=heard))
    if engine is not None:
        findings += _safely(lambda: _engine(engine, provider))
    return findings


def judge(answers: Mapping[str, Answer], root: Path = ROOT) -> list[Finding]:
    """Judge what `ask_all` answered and what the files below `root` say."""
    board = hardware.jetson(root)
    is_jetson = board is not None
    checks: list[Callable[[], Iterable[Finding]]] = [
        lambda: _python(answers["native"]),
        lambda: _numpy(answers["numpy"]),
        lambda: _pyav(answers["pyav"], answers["opencv"]),
        lambda: _opencv(answers["opencv"], is_jetson=is_jetson),
        lambda: _onnxruntime(answers["onnxruntime"], has_gpu=bool(answers["cuda_driver"].found)),
        lambda: _openvino(answers["openvino"]),
        lambda: _tensorrt(answers["tensorrt"], root, is_jetson=is_jetson),
        _extras,
        lambda: _cuda(answers["cuda_driver"], root, is_jetson=is_jetson),
        lambda: _jetson(board, root) if board else (),
        lambda: clocks(root, is_jetson=is_jetson),
        lambda: memory(root),
        disk,
        lambda: cameras(root, is_jetson=is_jetson),
    ]
    findings = [finding for check in checks for finding in _safely(check)]
    return [_patient(finding, answers.values()) for finding in findings]


def _patient(finding: Finding, answers: Iterable[Answer]) -> Finding:
    """A library that answered too late may be whole: first look again, then the remedy."""
    if not any(answer.late and answer.error in finding.found for answer in answers):
        return finding
    again = "look again when this machine is less busy; if it still gives no answer: "
    return replace(finding, remedy=again + finding.remedy)


def worst(findings: Iterable[Finding]) -> State:
    """Return the worst state among them."""
    order: tuple[State, ...] = ("ok", "warning", "problem")
    return max((finding.state for finding in findings), key=order.index, default="ok")


def _safely(check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return list(check())
    except Exception as error:  # noqa: BLE001 (an odd machine costs one line, not the report)
        return [
            _SOFTWARE.warning("doctor", f"one look failed: {error!r}", "please report this line")
        ]


def _install(what: str, answer: Answer) -> str:
    """The command; pip leaves a package as it is that is there and does not work, unless forced."""
    return f"pip install {'--force-reinstall ' if answer.error else ''}{what}"


def _python(native: Answer) -> Iterator[Finding]:
    name = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    where = "a virtual environment" if sys.prefix != sys.base_prefix else "the system's Python"
    yield _SOFTWARE.ok("Python", f"{name}, {where}")
    if native.error:
        yield _SOFTWARE.warning(
            "cmlr_edge",
            f"{version('cmlr-edge')}, its native operators cannot be loaded: {native.error}",
            "build the package on this machine: pip install --force-reinstall --no-deps cmlr-edge",
        )
    else:
        yield _SOFTWARE.ok("cmlr_edge", f"{version('cmlr-edge')}, native operators work")


def _numpy(answer: Answer) -> Iterator[Finding]:
    if answer.found is None:
        why = answer.error or "not installed"
        yield _SOFTWARE.problem("NumPy", why, "pip install --force-reinstall numpy")
    else:
        yield _SOFTWARE.ok("NumPy", answer.found["version"])


def _pyav(answer: Answer, opencv: Answer) -> Iterator[Finding]:
    """PyAV reads video files and network streams; without it OpenCV does, if its build can."""
    install = _install("'av>=15'", answer)
    fault = answer.error or (answer.found or {}).get("fault", "")
    if answer.found is None and not fault:
        if opencv.found is not None and not opencv.found["interlaced"]:
            fault = "not installed, and this OpenCV leaves pictures of interlaced video unwritten"
        else:
            yield _SOFTWARE.ok("PyAV", "not installed: OpenCV reads videos and streams")
            return
    if fault:
        version_of = f"{answer.found['version']}: " if answer.found else ""
        yield _SOFTWARE.warning("PyAV", version_of + fault, install)
    elif answer.found is not None:
        yield _SOFTWARE.ok("PyAV", f"{answer.found['version']}, reads videos and streams")


def _opencv(answer: Answer, *, is_jetson: bool) -> Iterator[Finding]:
    install = "JetPack's python3-opencv" if is_jetson else _install("'cmlr-edge[cpu]'", answer)
    if answer.found is None:
        remedy = _OLD_NUMPY if "numpy" in answer.error.lower() else f"install it: {install}"
        yield _SOFTWARE.problem("OpenCV", answer.error or "not installed", remedy)
        return
    found, backends = answer.found, answer.found["backends"]
    text = f"{found['version']} with {', '.join(backends) or 'no video back end'}"
    if len(found["distributions"]) > 1:
        both = " and ".join(found["distributions"])
        yield _SOFTWARE.warning(
            "OpenCV",
            f"{text}; {both} overwrite each other's files",
            f"pip uninstall {' '.join(found['distributions'])}, then install one of them",
        )
    elif "FFMPEG" not in backends and "GSTREAMER" not in backends:
        yield _SOFTWARE.problem("OpenCV", f"{text}: no video files, no streams", install)
    elif is_jetson and "GSTREAMER" not in backends:
        yield _SOFTWARE.warning(
            "OpenCV",
            f"{text}, without GStreamer: csi:// cannot be opened",
            "pip uninstall opencv-python opencv-python-headless, then use JetPack's python3-opencv "
            "(in a virtual environment: --system-site-packages)",
        )
    else:
        missing = "; no GStreamer: csi:// and pipelines need it, Debian's python3-opencv has it"
        yield _SOFTWARE.ok("OpenCV", text + ("" if "GSTREAMER" in backends else missing))


def _onnxruntime(answer: Answer, *, has_gpu: bool) -> Iterator[Finding]:
    if answer.found is None:
        remedy = _install("'cmlr-edge[cpu]'", answer)
        yield _SOFTWARE.problem("ONNX Runtime", answer.error or "not installed", remedy)
        return
    found = answer.found
    working = [_short(name) for name in found["working"]]
    broken = [_short(name) for name in found["listed"] if name not in found["working"]]
    text = f"{found['version']}, runs on {', '.join(working) or 'nothing'}"
    if len(found["distributions"]) > 1:
        yield _SOFTWARE.warning(
            "ONNX Runtime",
            f"{text}; {' and '.join(found['distributions'])} overwrite each other's files",
            f"pip uninstall {' '.join(found['distributions'])}, then install one of them",
        )
    elif "CUDA" in broken:
        missing = re.search(r"(lib[\w.+-]+): cannot open shared object", answer.messages)
        why = f", for there is no {missing[1]}" if missing else ""
        yield _SOFTWARE.problem(
            "ONNX Runtime",
            f"{text}; lists CUDA and cannot use it{why}",
            "install the CUDA and cuDNN versions that this ONNX Runtime was built for",
        )
    elif has_gpu and "CUDA" not in working:
        yield _SOFTWARE.warning(
            "ONNX Runtime",
            f"{text}: the GPU is not used",
            "for --provider cuda: pip uninstall onnxruntime, pip install onnxruntime-gpu",
        )
    else:
        yield _SOFTWARE.ok("ONNX Runtime", text)


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider")


def _openvino(answer: Answer) -> Iterator[Finding]:
    if answer.error:
        yield _SOFTWARE.warning("OpenVINO", answer.error, _install("openvino", answer))
    elif answer.found is None:
        yield _SOFTWARE.ok(
            "OpenVINO", "not installed; may be faster on Intel: pip install 'cmlr-edge[openvino]'"
        )
    else:
        devices = ", ".join(answer.found["devices"])
        yield _SOFTWARE.ok("OpenVINO", f"{answer.found['version']}, runs on {devices}")


def _tensorrt(answer: Answer, root: Path, *, is_jetson: bool) -> Iterator[Finding]:
    hidden = hardware.system_tensorrt(root)
    if answer.error:
        remedy = _OLD_NUMPY if "numpy" in answer.error.lower() else "reinstall TensorRT as a whole"
        yield _SOFTWARE.problem("TensorRT", answer.error, remedy)
    elif answer.found and answer.found["numpy_error"]:
        text = f"{answer.found['version']} does not fit this NumPy: {answer.found['numpy_error']}"
        yield _SOFTWARE.problem("TensorRT", text, "pip install 'numpy<1.24'")
    elif answer.found and answer.found["missing"]:
        text = f"{answer.found['version']}, which runs no .engine files here"
        yield _SOFTWARE.warning("TensorRT", text, "; ".join(answer.found["missing"]))
    elif answer.found:
        yield _SOFTWARE.ok("TensorRT", f"{answer.found['version']}, fits this NumPy")
    elif hidden:
        yield _SOFTWARE.warning(
            "TensorRT",
            f"installed in {hidden}, which this Python does not see",
            "make the virtual environment with the system's Python and --system-site-packages",
        )
    elif is_jetson:
        yield _SOFTWARE.warning("TensorRT", "not installed", "sudo apt install nvidia-jetpack")
    else:
        yield _SOFTWARE.ok("TensorRT", "not installed; only .engine files need it")


def _extras() -> Iterator[Finding]:
    missing = [name for name, module in _EXTRAS.items() if find_spec(module) is None]
    found = ", ".join(name for name in _EXTRAS if name not in missing) or "none"
    more = f"; for more: pip install 'cmlr-edge[{','.join(missing)}]'" if missing else ""
    yield _SOFTWARE.ok("extras", found + more)


def _cuda(answer: Answer, root: Path, *, is_jetson: bool) -> Iterator[Finding]:
    if answer.error:
        yield _GPU.problem(
            "CUDA driver",
            answer.error,
            "try nvidia-smi; after an update of the driver restart the machine, and in a container "
            "use the NVIDIA runtime",
        )
        return
    if answer.found is None:
        if is_jetson or hardware.has_nvidia_kernel_driver(root):
            remedy = "start the container with --runtime nvidia, or reinstall the driver"
            yield _GPU.problem("CUDA driver", "the GPU is there, libcuda.so.1 is not", remedy)
        else:
            yield _GPU.ok("CUDA driver", "none: models run on the CPU")
        return
    gpu, memory = answer.found, f"{answer.found['memory_bytes'] / _GIB:.1f} GiB"
    yield _GPU.ok("CUDA driver", f"CUDA {gpu['cuda']}")
    yield _GPU.ok("GPU", f"{gpu['name']}, compute capability {gpu['compute_capability']}, {memory}")


def _jetson(board: hardware.Jetson, root: Path) -> Iterator[Finding]:
    if board.l4t is None:
        yield _JETSON.warning(
            "board",
            f"{board.model}, L4T unknown",
            "in a container mount /etc/nv_tegra_release; elsewhere reinstall nvidia-l4t-core",
        )
    else:
        jetpack = f"JetPack {board.jetpack}" if board.jetpack else "a JetPack not known here"
        yield _JETSON.ok("board", f"{board.model}, L4T {board.l4t}, {jetpack}")
    if hardware.argus_socket(root):
        yield _JETSON.ok("Argus", "/tmp/argus_socket answers for csi:// cameras")
    else:
        yield _JETSON.warning(
            "Argus",
            "no /tmp/argus_socket: csi:// cameras cannot be opened",
            "sudo systemctl restart nvargus-daemon; in a container -v /tmp/argus_socket:/tmp/argus_socket",
        )
    mode = hardware.power_mode(root)
    if mode is None:
        yield _JETSON.warning("power mode", "unknown", "sudo nvpmodel -q tells it")
    elif "MAXN" in mode.upper():
        yield _JETSON.ok("power mode", mode)
    else:
        yield _JETSON.warning(
            "power mode",
            f"{mode}: not the fastest",
            "sudo nvpmodel -m 0, where supply and cooling allow it",
        )


def _engine(path: Path, provider: str | None) -> Iterator[Finding]:
    memory = memory_to_load(path)
    answer = ask("engine", str(path), provider or "", memory=memory)
    if answer.found is None:
        remedy = "copy engine and spec again, both together; or build the engine on this machine"
        yield _patient(_ENGINE.problem("engine", answer.error, remedy), [answer])
        return
    for check in answer.found["checks"]:
        state: State = "problem" if check["state"] == "failed" else check["state"]
        yield Finding("engine", check["name"], state, check["found"], check["remedy"])
