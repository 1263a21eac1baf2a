"""Measures the CUDA kernels without a GPU, as JSON and as the tables of csrc/README.md.

    python -m tests.csrc.kernel_report --json csrc/cuda/kernels.json --readme csrc/README.md

Registers, stack and machine instructions are read from the library that CMake builds. What a launch executes is counted
on the emulated GPU, in instructions of the PTX for sm_87: moves that ptxas removes are counted too.
Nothing here is a time: unverified on hardware.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from csrc.cuda import cubin
from tests.csrc.conftest import configure
from tests.csrc.emulation.emulated_gpu import build_ptx_runner, build_runner
from tests.csrc.emulation.stored_objects import content_of, stored

# What a kernel may use: the one place that says so.
BUDGET = {
    "registers": 168,  # three blocks of 128 threads on a multiprocessor of 65536 registers
    "shared_bytes": 32 * 1024,
    "stack_bytes": 0,
    "local_bytes": 0,
    "instructions_per_mma": 25.0,  # of every launch below
    "excess_wavefronts": 0,  # passes over the banks of shared memory beyond the fewest possible
}
REQUIRED = {"f16": ("HMMA", "LDSM", "LDGSTS"), "f32": ("FFMA", "LDGSTS")}
FORBIDDEN = ("LDL", "STL")
# Both Jetsons, the data centre's, and what a driver makes of the PTX that is stored beside them.
ARCHITECTURES = ("sm_87", "sm_110", "sm_90", "compute_80:sm_90")
# One launch of every kernel, at least.
TOKENS = {np.float16: (32, 40, 49, 80, 100, 160, 196, 784), np.float32: (49, 196, 784)}
QUERIES, HEADS = 80, 2

Record = dict[str, Any]


def measure(folder: Path, library: Path) -> Record:
    """`compiled`: each kernel by each compiler; `executed`: launches on the emulated GPU.

    library: libcmlr_cuda.a, as CMake builds it. Raises FileNotFoundError, naming the tool, without
    nvcc, ptxas, cuobjdump or nvdisasm; NVRTC 12.6 is left out if it is not installed.
    """
    nvcc = require_tool("nvcc")
    version = re.search(r"release ([\d.]+)", _output(nvcc, "--version"))
    cubins = {
        ("nvcc " + (version[1] if version else "?"), architecture): path
        for architecture, path in machine_code(library, "attention", folder).items()
    }
    if nvrtc := cubin.find_nvrtc():
        cubins["NVRTC 12.6", "sm_87"] = stored(
            folder / "nvrtc.cubin",
            ["NVRTC cubin", str(nvrtc), "sm_87", *content_of(cubin.CSRC)],
            partial(cubin.cubin_from_nvrtc, nvrtc, "sm_87"),
        )
    compiled = [row for key, path in cubins.items() for row in _compiled(*key, path)]
    return {"compiled": compiled, "executed": _executed(nvcc, folder)}


def built_library(folder: Path) -> Path:
    """The library of this checkout's kernels, built in a folder."""
    configure("cmake", folder, require_tool("nvcc"), "-DCMLR_TENSORRT=OFF").check_returncode()
    subprocess.run(["cmake", "--build", folder, "--target", "cmlr_cuda"], check=True)
    return next(folder.rglob("libcmlr_cuda.a"))


def machine_code(library: Path, source: str, folder: Path) -> dict[str, Path]:
    """What is in the library of `source`.cu for each of `ARCHITECTURES`."""
    command = [require_tool("cuobjdump"), "-xelf", "all", "-xptx", "all", str(library.resolve())]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    members = iter(re.split(r":(\w+)\.cu\.o:", said)[1:])  # a name, what was taken out of it, ...
    taken = " ".join(text for name, text in zip(members, members, strict=True) if name == source)
    found = {}
    for architecture in ARCHITECTURES:
        virtual, _, real = architecture.rpartition(":")
        ending = f"{virtual.replace('compute', 'sm')}.ptx" if virtual else f"{real}.cubin"
        name = re.search(rf"\S+\.{ending}", taken)
        assert name is not None, f"nothing for {architecture} in {library}"
        found[architecture] = folder / name[0]
        if virtual:
            assembled = folder / f"{source}.{real}.of_ptx.cubin"
            assemble = [require_tool("ptxas"), f"-arch={real}", name[0], "-o", str(assembled)]
            subprocess.run(assemble, cwd=folder, check=True)
            found[architecture] = assembled
    return found


def require_tool(name: str) -> str:
    """The path of a program of the CUDA toolkit."""
    tool = cubin.find_tool(name)
    if tool is None:
        raise FileNotFoundError(
            f"{name} of CUDA 13 is not installed: it comes with the toolkit, or with the package "
            f"nvidia-cuda-{name}"
        )
    return tool


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _compiled(compiler: str, architecture: str, path: Path) -> list[Record]:
    used = cubin.resources(require_tool("cuobjdump"), path)
    written = cubin.opcodes(require_tool("nvdisasm"), path)
    rows = [
        {
            "kernel": readable(name),
            "compiler": compiler,
            "architecture": architecture,
            "registers": used[name]["REG"],
            "stack_bytes": used[name]["STACK"],
            "local_bytes": used[name]["LOCAL"],
            "instructions": {
                opcode: written[name][opcode]
                for opcode in (*dict.fromkeys(sum(REQUIRED.values(), ())), *FORBIDDEN)
            },
            "all_instructions": written[name].total(),
        }
        for name in used
    ]
    return sorted(rows, key=lambda row: str(row["kernel"]))


def readable(mangled: str) -> str:
    """`attention_f16_kernel<32, 4, 4, 1>`: head width, warps, chunks of a step, stages.

    `attention_f32_kernel<32, 1>`: head width, chunks of a step.
    """
    name = re.search(r"attention_f\d\d_kernel", mangled)
    arguments = re.findall(r"Li(\d+)E", mangled)
    return f"{name[0] if name else mangled}<{', '.join(arguments)}>"


def _executed(nvcc: str, folder: Path) -> list[Record]:
    gpu = build_ptx_runner(folder / "ptx", build_runner(folder / "source"), nvcc, "sm_87")
    rows = []
    for dtype, numbers in TOKENS.items():
        for width in (32, 64):
            for tokens in numbers:
                random = np.random.default_rng(0)
                query, key, value = (
                    random.standard_normal((1, rows_, HEADS * width)).astype(dtype)
                    for rows_ in (QUERIES, tokens, tokens)
                )
                counts = gpu.counts(query, key, value, heads=HEADS)
                rows.append({"tokens": tokens, **_launch(counts, width)})
    return rows


def _launch(counts: Record, width: int) -> Record:
    instructions = sum(counts["instructions"].values())
    mma = sum(n for name, n in counts["instructions"].items() if name.startswith("mma"))
    products = mma * (width / 4) / (width / 4 + 1)  # every chunk has one more, for its weights
    wavefronts, least = (sum(s[key] for s in counts["shared"]) for key in ("wavefronts", "least"))
    return {
        "kernel": readable(counts["kernel"]),
        "shared_bytes": counts["shared_bytes"],
        "warp_instructions": round(instructions),
        "mma": round(products),
        "instructions_per_mma": round(instructions / products, 1) if products else None,
        "excess_wavefronts": wavefronts - least,
        "wavefronts": wavefronts,
    }


def tables(report: Record) -> str:
    """The report in Markdown."""
    return "\n".join(
        [*_compiled_table(report["compiled"]), "", *_executed_table(report["executed"])]
    )


def _compiled_table(rows: list[Record]) -> list[str]:
    """A line for each kernel; the opcodes are those of the first compiler."""
    compilers = list(dict.fromkeys((row["compiler"], row["architecture"]) for row in rows))
    kernels: dict[str, list[Record]] = {}
    for row in rows:
        kernels.setdefault(row["kernel"], []).append(row)
    heads = [" for ".join(compiler) for compiler in compilers]
    lines = [
        f"| kernel | registers: {' / '.join(heads)} | HMMA | LDSM | LDGSTS | instructions |",
        "|---|---|--:|--:|--:|---|",
    ]
    for name, versions in kernels.items():
        registers, written = (
            " / ".join(str(row[key]) for row in versions)
            for key in ("registers", "all_instructions")
        )
        opcodes = versions[0]["instructions"]
        lines.append(
            f"| `{name}` | {registers} | {opcodes['HMMA']} | {opcodes['LDSM']} "
            f"| {opcodes['LDGSTS']} | {written} |"
        )
    return lines


def _executed_table(rows: list[Record]) -> list[str]:
    lines = [
        "| tokens | kernel | shared bytes | warp instructions | mma | instructions per mma |",
        "|--:|---|--:|--:|--:|--:|",
    ]
    for row in rows:
        per_mma = row["instructions_per_mma"] or "-"
        lines.append(
            f"| {row['tokens']} | `{row['kernel']}` | {row['shared_bytes']} "
            f"| {row['warp_instructions']} | {row['mma'] or '-'} | {per_mma} |"
        )
    return lines


def replace_tables(readme: str, report: Record) -> str:
    """The README's text with the tables of `report` between its two markers."""
    begin, end = "<!-- kernel_report -->\n", "<!-- /kernel_report -->"
    before, rest = readme.split(begin)
    return before + begin + tables(report) + "\n" + end + rest.split(end)[1]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="where to write the measurements")
    parser.add_argument("--readme", type=Path, help="the file whose tables to renew")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = measure(Path(folder), built_library(Path(folder)))
    text = json.dumps(report, indent=1) + "\n"
    if options.json:
        options.json.write_text(text)
    if options.readme:
        options.readme.write_text(replace_tables(options.readme.read_text(), report))
    if not options.json and not options.readme:
        print(text)


if __name__ == "__main__":
    main()
