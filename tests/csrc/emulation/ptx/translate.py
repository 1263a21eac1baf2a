"""Translates the PTX that nvcc emitted to C++ for the emulated GPU.

    python -m tests.csrc.emulation.ptx.translate attention.ptx attention_ptx.cpp

What runs then is what the compiler made of the device branches and of every inline assembly
string, not the host branch of the source. Linked into a program, it replaces the kernels of the
same mangled names.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.csrc.emulation.ptx.instructions import C_TYPES, Translator, variable
from tests.csrc.emulation.ptx.program import Block, Kernel, parse


def cpp_from_ptx(text: str) -> str:
    """Raises PtxError for anything unknown."""
    program = parse(text)
    kernels = [_kernel(i, kernel, program.shared) for i, kernel in enumerate(program.kernels)]
    entries = ", ".join(f"&kernel{i}" for i in range(len(kernels)))
    return "\n".join(
        [
            '#include "emulation/ptx/ptx_machine.h"',
            "namespace {",
            "using namespace emulation;",
            "using namespace emulation::ptx;",
            *kernels,
            f"const bool registered = register_kernels({{{entries}}});",
            "}",
        ]
    )


def _kernel(number: int, kernel: Kernel, shared: str) -> str:
    translator = Translator(kernel, shared)
    statements = "\n".join(_block(i, block, translator) for i, block in enumerate(kernel.blocks))
    declared = "\n".join(
        f"{C_TYPES[kind]} {variable(name)}{{}};" for name, kind in kernel.registers.items()
    )
    opcodes = ", ".join(
        f'"{" ".join(x.opcode for x in block.instructions)}"' for block in kernel.blocks
    )
    sites = ", ".join(f'"{site}"' for site in translator.sites)
    counter = f"executed{number}"
    return f"""
uint64_t {counter}[{len(kernel.blocks)}];
void body{number}() {{
uint64_t* executed = {counter};
{declared}
{statements}
}}
const Kernel kernel{number}{{"{kernel.name}", body{number}, {kernel.parameter_bytes},
                             {kernel.max_threads}, {counter}, {{{opcodes}}}, {{{sites}}}}};
"""


def _block(number: int, block: Block, translator: Translator) -> str:
    label = [f"{block.label}:"] if block.label else []
    statements = [translator.statement(instruction) for instruction in block.instructions]
    return "\n".join([*label, f"++executed[{number}];", *statements])


def main(source: str, target: str) -> None:
    """Writes `target` from the PTX file `source`."""
    Path(target).write_text(cpp_from_ptx(Path(source).read_text()))


if __name__ == "__main__":
    main(*sys.argv[1:])
