"""PTX text -> kernels of basic blocks. Knows the syntax that nvcc emits, and refuses the rest."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

TYPE_BYTES = {"b8": 1, "u8": 1, "b16": 2, "b32": 4, "u32": 4, "f32": 4, "b64": 8, "u64": 8}


class PtxError(ValueError):
    """Something in the PTX that the translation does not know."""


@dataclass(frozen=True)
class Instruction:
    """`@guard opcode operands`; a guard that starts with ! is negated."""

    opcode: str
    operands: tuple[str, ...] = ()
    guard: str = ""

    def __str__(self) -> str:
        """As it reads in the file."""
        return f"{self.guard} {self.opcode} {', '.join(self.operands)}".strip()


@dataclass
class Block:
    """Instructions that run one after the other; only the first can be jumped to."""

    label: str
    instructions: list[Instruction] = field(default_factory=list)


@dataclass
class Kernel:
    """Registers map names to PTX types, parameters map names to byte offsets."""

    name: str
    parameters: dict[str, int]
    parameter_bytes: int
    max_threads: int
    registers: dict[str, str]
    blocks: list[Block]


@dataclass
class Program:
    """`shared`: the symbol of dynamic shared memory, at offset 0."""

    shared: str
    kernels: list[Kernel]


def parse(text: str) -> Program:
    """Raises PtxError for static shared memory, or several dynamic arrays."""
    text = re.sub(r"//[^\n]*", "", text)
    dynamic = set(re.findall(r"\.extern\s+\.shared\s+\.align\s+\d+\s+\.b8\s+(\w+)\[\]", text))
    if len(dynamic) > 1 or re.search(r"^\s*\.shared", text, re.MULTILINE):
        raise PtxError("shared memory should be one dynamic array, and nothing static")
    entry = r"\.entry\s+(\w+)\s*\((.*?)\)(.*?)\n\{(.*?)\n\}"
    kernels = [_parse_kernel(*match) for match in re.findall(entry, text, re.DOTALL)]
    return Program("".join(dynamic), kernels)


def _parse_kernel(name: str, parameters: str, attributes: str, body: str) -> Kernel:
    offsets, size = _parse_parameters(parameters)
    bound = re.search(r"\.maxntid\s+([\d, ]+)", attributes)
    max_threads = 1
    for extent in bound[1].split(",") if bound else ["1024"]:
        max_threads *= int(extent)
    kernel = Kernel(name, offsets, size, max_threads, {}, [Block("")])
    # A statement ends at a semicolon, a label at its colon.
    for statement in re.split(r";|(?<=\w:)\s", body):
        _parse_statement(kernel, " ".join(statement.split()))
    return kernel


def _parse_parameters(text: str) -> tuple[dict[str, int], int]:
    offsets: dict[str, int] = {}
    end = 0
    pattern = r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+(\w+)(?:\[(\d+)\])?"
    for align, kind, name, count in re.findall(pattern, text):
        alignment = int(align or TYPE_BYTES[kind])
        offsets[name] = -(-end // alignment) * alignment
        end = offsets[name] + TYPE_BYTES[kind] * int(count or 1)
    return offsets, end


def _parse_statement(kernel: Kernel, statement: str) -> None:
    if not statement or statement.startswith(".pragma"):
        return
    if label := re.fullmatch(r"\$(\w+):", statement):
        kernel.blocks.append(Block(label[1]))
    elif registers := re.fullmatch(r"\.reg \.(\w+) (%\w+)<(\d+)>", statement):
        kind, prefix, count = registers.groups()
        kernel.registers |= {f"{prefix}{i}": kind for i in range(int(count))}
    elif code := re.fullmatch(r"(?:@(!?%\w+) )?([a-z][\w.:]*)(?: (.*))?", statement):
        guard, opcode, operands = code.groups()
        instruction = Instruction(opcode, _split_operands(operands or ""), guard or "")
        kernel.blocks[-1].instructions.append(instruction)
        if opcode.startswith("bra"):
            kernel.blocks.append(Block(""))
    else:
        raise PtxError(f"{kernel.name}: cannot read the statement {statement!r}")


def _split_operands(text: str) -> tuple[str, ...]:
    """At commas outside of braces and brackets."""
    pieces = re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|[^,{\[])+", text)
    return tuple(piece.strip() for piece in pieces)
