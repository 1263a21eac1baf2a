"""One PTX instruction -> one C++ statement, on the functions of ptx_machine.h.

Only instructions listed here are known; their meaning is that of the PTX ISA. A register is a C++
variable of its bits; `as<T>` reads it as an instruction's type.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.csrc.emulation.ptx.program import Instruction, Kernel, PtxError

C_TYPES = {
    "pred": "bool",
    **{f"{kind}{bits}": f"uint{bits}_t" for kind in "bu" for bits in (8, 16, 32, 64)},
    **{f"s{bits}": f"int{bits}_t" for bits in (8, 16, 32, 64)},
    "f32": "float",
    "f64": "double",
}
SPECIAL_REGISTERS = {"tid": "index", "ctaid": "block", "ntid": "block_size", "nctaid": "grid_size"}
COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "neu": "!="}
ROUNDED = {
    "rn": "{}",
    "rzi": "std::trunc({})",
    "rni": "std::nearbyint({})",
    "rmi": "std::floor({})",
}
BINARY = {"add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^"}
FUNCTIONS = {"ex2": "std::exp2", "rcp": "reciprocal", "neg": "-", "abs": "std::abs"}


@dataclass
class Translator:
    """Knows a kernel's names; `statement` translates one of its instructions.

    `shared` is the symbol of shared memory; `sites` collects what accesses memory or meets other
    lanes, by the number given to it.
    """

    kernel: Kernel
    shared: str
    sites: list[str] = field(default_factory=list)

    def statement(self, instruction: Instruction) -> str:
        """Raises PtxError for an instruction that is not known."""
        family, *modifiers = instruction.opcode.split(".")
        translate: Callable[[list[str], tuple[str, ...]], str] | None
        translate = getattr(self, f"_{family}", None)
        if translate is None:
            translate = self._arithmetic(family)
        code = translate(modifiers, instruction.operands) if translate else ""
        if not code:
            raise PtxError(f"{self.kernel.name}: unknown instruction `{instruction}`")
        guard = instruction.guard
        if guard:
            condition = f"!{variable(guard[1:])}" if guard.startswith("!") else variable(guard)
            return f"if ({condition}) {{ {code} }}"
        return f"{{ {code} }}"

    # --- Operands
    def read(self, operand: str, kind: str) -> str:
        """The operand's value as a C++ expression of PTX type `kind`."""
        c_type = C_TYPES[kind]
        if operand in self.kernel.registers:
            if C_TYPES[self.kernel.registers[operand]] == c_type:
                return variable(operand)
            return f"as<{c_type}>({variable(operand)})"
        if re.fullmatch(r"0[fF][0-9a-fA-F]{8}", operand):
            return f"bits_as<{c_type}>(0x{operand[2:]}u)"
        if re.fullmatch(r"0[dD][0-9a-fA-F]{16}", operand):
            return f"bits_as<{c_type}>(0x{operand[2:]}ull)"
        if re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)", operand):
            return f"{c_type}({operand}ll)"
        if special := re.fullmatch(r"%(\w+)\.([xyz])", operand):
            return f"as<{c_type}>(current->{SPECIAL_REGISTERS[special[1]]}.{special[2]})"
        if operand == self.shared:
            return f"{c_type}(0)"
        raise PtxError(f"{self.kernel.name}: unknown operand {operand!r}")

    def write(self, register: str, value: str) -> str:
        """Assigns a C++ expression's bits."""
        c_type = C_TYPES[self.kernel.registers[register]]
        return f"{variable(register)} = as<{c_type}>({value});"

    def address(self, operand: str, kind: str) -> str:
        """`[base + offset]` as a number."""
        match = re.fullmatch(r"\[(%?\w+)(?:\+(-?\d+))?\]", operand)
        if not match:
            raise PtxError(f"{self.kernel.name}: unknown address {operand!r}")
        return f"{self.read(match[1], kind)} + {C_TYPES[kind]}({match[2] or 0}ll)"

    def site(self, opcode: str) -> int:
        """A number by which messages and counts name this place in the kernel."""
        self.sites.append(opcode)
        return len(self.sites) - 1

    def place(self, what: str) -> str:
        """The call site of a collective operation, which must be one and the same for a warp."""
        return f'"{self.kernel.name}", {self.site(what)}'

    # --- Arithmetic
    def _arithmetic(self, family: str) -> Callable[[list[str], tuple[str, ...]], str] | None:
        def binary(modifiers: list[str], operands: tuple[str, ...]) -> str:
            kind = unsigned(modifiers[-1])  # wraps around, as the device does
            left, right = (self.read(x, kind) for x in operands[1:3])
            value = f"{C_TYPES[kind]}({left} {BINARY[family]} {right})"
            return self.write(operands[0], value)

        def unary(modifiers: list[str], operands: tuple[str, ...]) -> str:
            return self.write(
                operands[0], f"{FUNCTIONS[family]}({self.read(operands[1], modifiers[-1])})"
            )

        return binary if family in BINARY else unary if family in FUNCTIONS else None

    def _mov(self, modifiers: list[str], operands: tuple[str, ...]) -> str:
        return self.write(operands[0], self.read(operands[1], modifiers[-1]))

    def _not(self, modifiers: list[str], operands: tuple[str, ...]) -> str:
        sign = "!" if modifiers[-1] == "pred" else "~"
        return self.write(operands[0], f"{sign}{self.read(operands[1], modifiers[-1])}")

    def _mul(self, modifiers: list[str], operands: tuple[str, ...]) -> str:
        if modifiers[0] == "wide":
            double = C_TYPES[f"{modifiers[1][0]}{2 * int(modifiers[1][1:])}"]
            left, right = (self.read(x, modifiers[1]) for x in operands[1:3])
            return self.write(operands[0], f"{double}({left}) * {double}({right})")
        if modifiers[0] == "hi":
            return ""
        multiply = self._arithmetic("mul")
        return multiply([modifiers[-1]], operands) if multiply else ""

    def _div(self, modifiers: list[str], operands: tuple[str, ...]) -> str:
        if modifiers not in (["s32"], ["rn", "f32"]):  # not the approximate ones
            return ""
        left, right = (self.read(x, modifiers[-1]) for x in operands[1:3])
        return self.write(operands[0], f"{left} / {right}")

    def _mad(self, modifiers: list[str], operands: tuple[str, ...]) -> str:
        if modifiers[0] != "lo":
            return ""
        a, b, c = (self.read(x, unsigned(modifiers[-1])) for x in operands[1:4])
        return self.write(operands[0], f"{a} * {b} + {c}")

    def _fma(self, modifiers: list[str], operands: tuple[str, ...]) -> str:
        terms = ", ".join(self.read(x, modifiers[-1]) for x in operands[1:4])
        return self.write(operands[0], f"std::fma({terms})")

    def _min(self, modifiers: list[str], operands: tuple[str, ...]) -> str:
        return self._extremum("min", modifiers[-1], operands)

    def _max(self, modifiers: list[str], operands: tuple[str, ...]) -> str:
        return self._extremum("max", modifiers[-1], operands)

    def _extremum(self, name: str, kind: str, operands: tuple[str, ...]) -> str:
        function = f"std::f{name}" if kind == "f32" else f"std::{name}<{C_TYPES[kind]}>"
        pair = ", ".join(self.read(x, kind) for x in operands[1:3])
        return self.write(operands[0], f"{function}({pair})")

    def _shl(self, modifiers: list[str], operands: tuple[str, ...]) -> str:
        return self._shift("shift_left", modifiers[-1], operands)

    def _shr(self, modifiers: list[str], operands: tuple[str, ...]) -> str:
        return self._shift("shift_right", modifiers[-1], operands)

    def _shift(self, function: str, kind: str, operands: tuple[str, ...]) -> str:
        count = self.read(operands[2], "u32")
        return self.write(operands[0], f"{function}({self.read(operands[1], kind)}, {count})")

    def _bfi(self, modifiers: list[str], operands: tuple[str, ...]) -> str:
        bits = [self.read(x, modifiers[-1]) for x in operands[1:3]]
        position, length = (self.read(x, "u32") for x in operands[3:5])
        return self.write(operands[0], f"insert_bits({', '.join(bits)}, {position}, {length})")

    def _cvt(self, modifiers: list[str], operands: tuple[str, ...]) -> str:
        if modifiers == ["rn", "f16x2", "f32"]:  # the first source is the upper half
            high, low = (self.read(x, "f32") for x in operands[1:3])
            return self.write(operands[0], f"pack_halves({low}, {high})")
        to, source = modifiers[-2:]
        if len(modifiers) == 3 and modifiers[0] in ROUNDED and "f" in to + source:
            value = ROUNDED[modifiers[0]].format(self.read(operands[1], source))
            return self.write(operands[0], f"{C_TYPES[to]}({value})")
        if len(modifiers) > 2 or "f" in to + source:
            return ""
        return self.write(operands[0], f"{C_TYPES[to]}({self.read(operands[1], source)})")

    def _cvta(self, modifiers: list[str], operands: tuple[str, ...]) -> str:
        if modifiers != ["to", "global", "u64"]:
            return ""
        return self.write(operands[0], self.read(operands[1], "u64"))

    def _setp(self, modifiers: list[str], operands: tuple[str, ...]) -> str:
        comparison, kind = modifiers[0], modifiers[-1]
        if len(modifiers) != 2 or comparison not in COMPARISONS:
            return ""
        left, right = (self.read(x, kind) for x in operands[1:3])
        if kind == "f32" and comparison == "ne":  # false for NaN
            return self.write(operands[0], f"{left} < {right} || {left} > {right}")
        return self.write(operands[0], f"{left} {COMPARISONS[comparison]} {right}")

    def _selp(self, modifiers: list[str], operands: tuple[str, ...]) -> str:
        yes, no = (self.read(x, modifiers[-1]) for x in operands[1:3])
        return self.write(operands[0], f"{self.read(operands[3], 'pred')} ? {yes} : {no}")

    # --- Control
    def _bra(self, modifiers: list[str], operands: tuple[str, ...]) -> str:
        return f"goto {operands[0].removeprefix('$')};" if modifiers in ([], ["uni"]) else ""

    def _ret(self, modifiers: list[str], operands: tuple[str, ...]) -> str:
        return "" if modifiers or operands else "return;"

    def _bar(self, modifiers: list[str], operands: tuple[str, ...]) -> str:
        if modifiers == ["warp", "sync"]:
            place = self.place("bar.warp.sync")
            return f'sync_warp({self.read(operands[0], "u32")}, {{"bar.warp.sync", {place}}});'
        if modifiers == ["sync"] and len(operands) == 1:
            place = self.place("bar.sync")
            return f'sync_block({self.read(operands[0], "u32")}, 0, {{"bar.sync", {place}}});'
        return ""

    def _shfl(self, modifiers: list[str], operands: tuple[str, ...]) -> str:
        if modifiers != ["sync", "bfly", "b32"]:
            return ""
        value, mask = self.read(operands[1], "f32"), self.read(operands[4], "u32")
        distance, clamp = (self.read(x, "s32") for x in operands[2:4])
        arguments = f"{mask}, {value}, {distance}, {clamp}, {self.place('shfl')}"
        result = self.write(operands[0].split("|")[0], f"shuffle_xor({arguments})")
        validity = operands[0].split("|")[1:]
        return result + "".join(self.write(p, "true") for p in validity)

    # --- Memory
    def _ld(self, modifiers: list[str], operands: tuple[str, ...]) -> str:
        space, kind, registers = modifiers[0], modifiers[-1], vector(operands[0])
        c_type, count = C_TYPES[kind], len(registers)
        if space == "param":
            name, _, offset = operands[1][1:-1].partition("+")
            at = f"{self.kernel.parameters[name]} + {offset or 0}"
            loaded = f"parameter<{c_type}, {count}>({at})"
        elif memory := self._memory(modifiers, operands[1], count):
            loaded = f"*{memory}"
        else:
            return ""
        stores = " ".join(self.write(r, f"loaded.x[{i}]") for i, r in enumerate(registers))
        return f"const auto loaded = {loaded}; {stores}"

    def _st(self, modifiers: list[str], operands: tuple[str, ...]) -> str:
        kind, registers = modifiers[-1], vector(operands[1])
        memory = self._memory(modifiers, operands[0], len(registers))
        values = ", ".join(self.read(r, kind) for r in registers)
        return f"*{memory} = {{{{{values}}}}};" if memory else ""

    def _memory(self, modifiers: list[str], operand: str, count: int) -> str:
        """A checked pointer to a vector of `count` in the address space of ld or st."""
        space, kind = modifiers[0], C_TYPES[modifiers[-1]]
        known = {"nc", "v2", "v4"}
        if space not in {"shared", "global"} or not set(modifiers[1:-1]) <= known:
            return ""
        address = self.address(operand, "u32" if space == "shared" else "u64")
        site = self.site(f"{space}.{modifiers[-1]}")
        return f"{space}_memory<{kind}, {count}>({address}, {site})"

    def _ldmatrix(self, modifiers: list[str], operands: tuple[str, ...]) -> str:
        if modifiers != ["sync", "aligned", "m8n8", "x4", "trans", "shared", "b16"]:
            return ""
        address = self.address(operands[1], "u32")
        row = f"shared_memory<uint32_t, 4>({address}, {self.site('ldmatrix')})"
        place = self.place("ldmatrix")
        stores = " ".join(
            self.write(r, f"matrices[{i}]") for i, r in enumerate(vector(operands[0]))
        )
        return f"uint32_t matrices[4]; load_matrices<true>(matrices, {row}, {place}); {stores}"

    def _cp(self, modifiers: list[str], operands: tuple[str, ...]) -> str:
        if modifiers == ["async", "commit_group"]:
            return "commit_async_copies();"
        if modifiers == ["async", "wait_group"]:
            return f"wait_async_copies<{int(operands[0])}>();"
        if modifiers != ["async", "cg", "shared", "global"] or operands[2] != "16":
            return ""
        to = f"shared_memory<uint32_t, 4>({self.address(operands[0], 'u32')}, {self.site('cp.async')})"
        source = f"reinterpret_cast<const void*>({self.address(operands[1], 'u64')})"
        valid = f"all_or_none({self.read(operands[3], 'u32')})"
        return f"copy_async_16({to}, {source}, {valid}, {self.place('cp.async')});"

    def _mma(self, modifiers: list[str], operands: tuple[str, ...]) -> str:
        shape = ["sync", "aligned", "m16n8k16", "row", "col", "f32", "f16", "f16", "f32"]
        if modifiers != shape:
            return ""
        d, a, b, c = (vector(x) for x in operands)
        lists = {"a": (a, "b32"), "b": (b, "b32"), "c": (c, "f32")}
        declared = " ".join(
            f"{C_TYPES[kind]} {name}[] = {{{', '.join(self.read(r, kind) for r in registers)}}};"
            for name, (registers, kind) in lists.items()
        )
        stores = " ".join(self.write(r, f"c[{i}]") for i, r in enumerate(d))
        return f"{declared} mma_m16n8k16(c, a, b, {self.place('mma')}); {stores}"


def variable(register: str) -> str:
    """The C++ name of a register."""
    return register.removeprefix("%")


def vector(operand: str) -> list[str]:
    """`{a, b}`, or a single operand, as a list."""
    return [x.strip() for x in operand.strip("{}").split(",")]


def unsigned(kind: str) -> str:
    """The type in which integer arithmetic wraps around."""
    return kind.replace("s", "u")
