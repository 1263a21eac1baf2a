"""Builds the CUDA kernels for the emulated GPU and runs attention there, one process a case.

A process each, because the emulation, like a sanitizer, aborts at the first mistake it sees.
"""

from __future__ import annotations

import json
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tests.csrc.emulation.ptx.translate import cpp_from_ptx
from tests.csrc.emulation.stored_objects import compile_stored, content_of, stored, version_of

CSRC = Path(__file__).parents[3] / "csrc"
EMULATION = Path(__file__).parent
RUNNER_SOURCE = EMULATION / "programs" / "attention_runner.cpp"

FORWARD, REVERSE, RANDOM = ("forward",), ("reverse",), ("random", "7")
AT_ONCE, LANDING = ("at-once",), ("landing", "11")  # of copies; elsewhere they land late
SCHEDULES = (FORWARD, AT_ONCE, REVERSE, RANDOM, LANDING)

COMPILE = [
    *("g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),
    "-fno-strict-aliasing",  # device code reads memory under several types, as nvcc lets it
]
Build = Literal["fast", "quick", "address", "thread"]  # to run, to compile, or with a sanitizer
# Flags for the code under test, and what tells the uninstrumented emulation about them.
FLAGS: dict[Build, tuple[list[str], list[str]]] = {
    "fast": (["-O3", "-march=native"], []),
    "quick": (["-O0", "-march=native"], []),
    "address": (
        ["-O0", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
        ["-DEMULATION_ASAN"],
    ),
    "thread": (["-O0", "-g", "-fsanitize=thread"], ["-DEMULATION_TSAN"]),
}


def compile_object(source: Path, output: Path, *flags: str, csrc: Path = CSRC) -> Path:
    """Compiles C++, or CUDA source for the emulation, with the headers of `csrc`."""
    includes = [f"-I{csrc}", f"-I{csrc / 'include'}", f"-I{EMULATION.parent}"]
    return compile_stored([*COMPILE, *flags], includes, source, output)


def build_emulation(folder: Path, kind: Build) -> list[Path]:
    """The emulation's objects, never instrumented themselves."""
    folder.mkdir(parents=True, exist_ok=True)
    flags = ["-O3", "-march=native", *FLAGS[kind][1]]
    sources = [*EMULATION.glob("*.cpp"), *(EMULATION / "ptx").glob("*.cpp")]
    return [compile_object(s, folder / f"{s.stem}.o", *flags) for s in sources]


def build_program(
    program: Path,
    emulation: list[Path],
    *sources: Path,
    kind: Build,
    csrc: Path = CSRC,
    warnings: bool = True,
) -> Path:
    """Compiles `sources`, with the headers of `csrc`, and links them with the emulation."""
    flags = [*FLAGS[kind][0], *([] if warnings else ["-w"])]
    program.parent.mkdir(parents=True, exist_ok=True)
    objects = [
        compile_object(
            source, program.with_name(f"{program.name}_{source.stem}.o"), *flags, csrc=csrc
        )
        for source in sources
    ]
    link(program, [*objects, *emulation], *flags)
    return program


def link(program: Path, objects: list[Path], *flags: str) -> None:
    """With -rdynamic: translated PTX is found by the names of the kernels it replaces."""
    subprocess.run(["g++", *flags, "-rdynamic", *objects, "-ldl", "-o", program], check=True)


def build_runner(folder: Path) -> EmulatedGpu:
    """The kernels, compiled for the host."""
    emulation = build_emulation(folder / "emulation", "fast")
    sources = (CSRC / "cuda" / "attention.cu", RUNNER_SOURCE)
    return EmulatedGpu(build_program(folder / "runner", emulation, *sources, kind="fast"))


def compile_ptx(
    nvcc: str, architecture: str, output: Path, csrc: Path = CSRC, source: Path | None = None
) -> Path:
    """The PTX of the kernels of `csrc`, or of those that `source` asks for."""
    command = [nvcc, f"-arch={architecture}", "-std=c++17", "-O3", "-ptx"]
    source = source or csrc / "cuda" / "attention.cu"
    paths = [f"-I{csrc}", f"-I{csrc / 'include'}", str(source)]
    made_from = (*command, version_of(nvcc), source.read_text(), *content_of(csrc))
    return stored(
        output,
        made_from,
        lambda path: subprocess.run([*command, *paths, "-o", str(path)], check=True),
    )


def build_ptx_runner(
    folder: Path,
    source_gpu: EmulatedGpu,
    nvcc: str,
    architecture: str,
    csrc: Path = CSRC,
    source: Path | None = None,
) -> EmulatedGpu:
    """`source_gpu` with the PTX that nvcc emitted in the place of the kernels' source."""
    folder.mkdir(parents=True, exist_ok=True)
    ptx = compile_ptx(nvcc, architecture, folder / "attention.ptx", csrc, source)
    translated = folder / "attention_ptx.cpp"
    translated.write_text(cpp_from_ptx(ptx.read_text()))
    # A function of thousands of statements: optimising it takes longer than running it.
    unused = ["-Wno-unused-variable", "-Wno-unused-but-set-variable", "-Wno-unused-label"]
    flags = ["-O0", "-march=native", "-ffp-contract=off", *unused]
    machine_code = compile_object(translated, folder / "attention_ptx.o", *flags)
    link(folder / "runner", [*source_gpu.program.parent.rglob("*.o"), machine_code])
    return EmulatedGpu(folder / "runner")


@dataclass(frozen=True)
class EmulatedGpu:
    """A runner program, which runs one case at a time."""

    program: Path

    def attention(
        self,
        query: NDArray[Any],
        key: NDArray[Any],
        value: NDArray[Any],
        *,
        heads: int,
        scale: float,
        bias: NDArray[np.float32] | None = None,
        schedule: tuple[str, ...] = FORWARD,
    ) -> NDArray[Any]:
        """All (batch | 1, rows, dim), float32 or float16 -> (batch, queries, dim).

        Raises subprocess.CalledProcessError with the emulation's message in `stderr`.
        """
        tensors = [query, key, value] if bias is None else [query, key, value, bias]
        done = self._run(_header(query, key, value, heads, scale, bias), tensors, schedule)
        batch = max(len(query), len(key), len(value))
        return np.frombuffer(done.stdout, query.dtype).reshape(batch, *query.shape[1:])

    def counts(
        self, query: NDArray[Any], key: NDArray[Any], value: NDArray[Any], *, heads: int
    ) -> dict[str, Any]:
        """What a run of translated PTX executed; ptx/counts.h says how it is reported."""
        header = _header(query, key, value, heads, 1.0, None)
        done = self._run(header, [query, key, value], ("count",))
        counts: dict[str, Any] = json.loads(done.stderr)
        return counts

    def _run(
        self, header: bytes, tensors: list[NDArray[Any]], options: tuple[str, ...]
    ) -> subprocess.CompletedProcess[bytes]:
        data = header + b"".join(x.tobytes() for x in tensors)
        command = [str(self.program), *options]
        return subprocess.run(command, input=data, capture_output=True, check=True)


def _header(
    query: NDArray[Any],
    key: NDArray[Any],
    value: NDArray[Any],
    heads: int,
    scale: float,
    bias: NDArray[np.float32] | None,
) -> bytes:
    """The runner's struct Case."""
    batch = max(len(query), len(key), len(value))
    return struct.pack(
        "10qd",
        *(query.dtype == np.float16, batch, query.shape[1], key.shape[1], query.shape[2]),
        *(heads, len(query), len(key), len(value), bias is not None, scale),
    )
