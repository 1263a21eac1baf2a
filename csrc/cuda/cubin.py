"""Reads what a compiler made of the kernels for a GPU that need not be there.

CMake compiles them with CUDA 13's nvcc, for JetPack 7. JetPack 6 has CUDA 12.6, whose compiler comes
as a library, NVRTC, from the package nvidia-cuda-nvrtc-cu12.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from sysconfig import get_paths

CSRC = Path(__file__).parents[1]
PACKAGES = Path(get_paths()["purelib"]) / "nvidia"

NVRTC_SOURCE = '#include "cuda/attention_f16.cuh"\n#include "cuda/attention_f32.cuh"\n'
# Every kernel that attention.cu launches: (head width, warps, chunks, stages) in float16, and
# (head width, chunks) in float32.
_ONE_PASS = ((1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (4, 3), (4, 4))
F16_KERNELS = [(w, *k) for w in (32, 64) for k in (*((*k, 1) for k in _ONE_PASS), (4, 2, 2))]
F32_KERNELS = [(w, c) for w in (32, 64) for c in (1, 2)]


def find_tool(name: str) -> str | None:
    """A program of the CUDA toolkit: on the path, in its usual folder, or from its package."""
    folders = [os.environ["PATH"], "/usr/local/cuda/bin", str(PACKAGES / "cu13" / "bin")]
    return shutil.which(name, path=os.pathsep.join(folders))


def find_nvrtc() -> Path | None:
    """CUDA 12.6's compiler library."""
    return next((PACKAGES / "cuda_nvrtc" / "lib").glob("libnvrtc.so.12"), None)


def cubin_from_nvrtc(library: Path, architecture: str, output: Path) -> Path:
    """Compiles every kernel. Raises RuntimeError with the compiler's log."""
    nvrtc = ctypes.CDLL(str(library))
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), NVRTC_SOURCE.encode(), b"attention.cu", 0, None, None
    )
    names = [("attention_f16_kernel", k) for k in F16_KERNELS]
    for name, arguments in [*names, *(("attention_f32_kernel", k) for k in F32_KERNELS)]:
        expression = f"cmlr::cuda::{name}<{', '.join(map(str, arguments))}>"
        nvrtc.nvrtcAddNameExpression(program, expression.encode())
    options = [f"--gpu-architecture={architecture}", "-std=c++17", f"-I{CSRC}"]
    encoded = (ctypes.c_char_p * len(options))(*(x.encode() for x in options))
    if nvrtc.nvrtcCompileProgram(program, len(options), encoded) != 0:
        raise RuntimeError(_nvrtc_bytes(nvrtc, program, "ProgramLog").decode())
    output.write_bytes(_nvrtc_bytes(nvrtc, program, "CUBIN"))
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return output


def _nvrtc_bytes(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, buffer)
    return buffer.raw


def resources(cuobjdump: str, cubin: Path) -> dict[str, dict[str, int]]:
    """Mangled kernel name -> REG, STACK, LOCAL (spills live there), SHARED (static), in bytes."""
    text = _run(cuobjdump, "-res-usage", cubin)
    found = re.findall(r"Function (\w+):\s*\n\s*(REG:.*)", text)
    return {
        name: {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL|SHARED):(\d+)", use)}
        for name, use in found
    }


def opcodes(nvdisasm: str, cubin: Path) -> dict[str, Counter[str]]:
    """Mangled kernel name -> how often each machine instruction is written, without modifiers."""
    counts: dict[str, Counter[str]] = {}
    text = _run(nvdisasm, "-c", cubin)
    line = re.compile(
        r"^\.text\.(\w+):|^\s+/\*[0-9a-f]+\*/\s+\{?\s*(?:@!?\w+\s+)?([A-Z][A-Z0-9_]*)"
    )
    for row in text.splitlines():
        match = line.match(row)
        if match and match[1]:
            current = counts.setdefault(match[1], Counter())
        elif match:
            current[match[2]] += 1
    return counts


def _run(tool: str, option: str, cubin: Path) -> str:
    done = subprocess.run([tool, option, cubin], capture_output=True, text=True, check=True)
    return done.stdout
