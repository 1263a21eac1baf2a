"""The PTX translator refuses what it does not know, and its counts agree with counting by hand."""

from __future__ import annotations

import pytest

from tests.csrc.emulation.ptx.program import PtxError
from tests.csrc.emulation.ptx.translate import cpp_from_ptx

KERNEL = """
.extern .shared .align 128 .b8 shared[];
.visible .entry kernel(.param .u64 out, .param .u32 count)
.maxntid 32, 1, 1
{{
    .reg .pred %p<2>; .reg .f32 %f<4>; .reg .b32 %r<4>; .reg .b64 %rd<4>;
    ld.param.u32 %r1, [count];
    {instruction}
    ret;
}}
"""


def test_parameters_are_read_at_their_aligned_offsets() -> None:
    assert "parameter<uint32_t, 1>(8 + 0)" in cpp_from_ptx(KERNEL.format(instruction=""))


@pytest.mark.parametrize(
    ("instruction", "complaint"),
    [
        ("tanh.approx.f32 %f1, %f2;", "unknown instruction `tanh.approx.f32 %f1, %f2`"),
        ("ld.local.f32 %f1, [%rd1];", "unknown instruction `ld.local.f32"),
        ("shfl.sync.up.b32 %r1, %r2, %r3, 31, -1;", "unknown instruction `shfl.sync.up"),
        ("cp.async.ca.shared.global [%r1], [%rd1], 8, %r2;", "unknown instruction `cp.async.ca"),
        ("@%p1 mov.u32 %r1, %clock;", "unknown operand '%clock'"),
        (".shared .b8 static[16];", "nothing static"),
    ],
)
def test_anything_unknown_is_refused_rather_than_guessed(instruction: str, complaint: str) -> None:
    with pytest.raises(PtxError, match="^.*" + complaint.replace("[", r"\[")):
        cpp_from_ptx(KERNEL.format(instruction=instruction))


def test_a_guard_makes_an_instruction_conditional() -> None:
    cpp = cpp_from_ptx(KERNEL.format(instruction="@!%p1 add.s32 %r1, %r2, -3;"))
    assert "if (!p1) { r1 = as<uint32_t>(uint32_t(r2 + uint32_t(-3ll))); }" in cpp
