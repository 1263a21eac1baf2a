"""What the compilers made of the CUDA kernels stays within the budgets, and the README says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from csrc.cuda.cubin import CSRC, F16_KERNELS, F32_KERNELS, find_nvrtc, find_tool
from tests.csrc.kernel_report import (
    ARCHITECTURES,
    BUDGET,
    FORBIDDEN,
    REQUIRED,
    measure,
    replace_tables,
)

RECORDED = json.loads((CSRC / "cuda" / "kernels.json").read_text())


@pytest.fixture(scope="module")
def report(cuda_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    for tool in ("cuobjdump", "nvdisasm", "ptxas"):
        if find_tool(tool) is None:
            pytest.skip(f"{tool} is not installed: registers and machine code are not checked")
    return measure(tmp_path_factory.mktemp("kernel_report"), cuda_library)


def names(rows: list[dict[str, Any]]) -> set[str]:
    return {row["kernel"] for row in rows}


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_every_kernel_is_measured_for_every_architecture(report: Any) -> None:
    expected = {
        *(f"attention_f16_kernel<{', '.join(map(str, k))}>" for k in F16_KERNELS),
        *(f"attention_f32_kernel<{', '.join(map(str, k))}>" for k in F32_KERNELS),
    }
    for architecture in ARCHITECTURES:
        rows = [row for row in report["compiled"] if row["architecture"] == architecture]
        assert names(rows) == expected
    assert names(report["executed"]) == expected


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_the_compiler_of_jetpack_6_is_measured_too(report: Any) -> None:
    if find_nvrtc() is None:
        pytest.skip("nvidia-cuda-nvrtc-cu12 is not installed: CUDA 12.6 is not checked")
    assert "NVRTC 12.6" in {row["compiler"] for row in report["compiled"]}


@pytest.mark.timeout(900)
@pytest.mark.slow
@pytest.mark.parametrize("resource", ["registers", "stack_bytes", "local_bytes"])
def test_no_kernel_uses_more_than_its_budget(report: Any, resource: str) -> None:
    for row in report["compiled"]:
        assert row[resource] <= BUDGET[resource], row


@pytest.mark.timeout(900)
@pytest.mark.slow
@pytest.mark.parametrize("resource", ["shared_bytes", "excess_wavefronts"])
def test_no_launch_uses_more_than_its_budget(report: Any, resource: str) -> None:
    for row in report["executed"]:
        assert row[resource] <= BUDGET[resource], row


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_the_machine_code_has_the_instructions_it_was_written_for(report: Any) -> None:
    for row in report["compiled"]:
        kind = "f16" if "f16" in row["kernel"] else "f32"
        assert all(row["instructions"][opcode] > 0 for opcode in REQUIRED[kind]), row
        assert all(row["instructions"][opcode] == 0 for opcode in FORBIDDEN), row


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_few_instructions_surround_each_mma(report: Any) -> None:
    rows = [row for row in report["executed"] if row["mma"]]
    assert len(rows) == len(F16_KERNELS)
    for row in rows:
        assert row["instructions_per_mma"] <= BUDGET["instructions_per_mma"], row


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_the_recorded_measurements_are_those_of_the_kernels_as_they_are(report: Any) -> None:
    compilers = [
        {row["compiler"] for row in measured["compiled"]} for measured in (report, RECORDED)
    ]
    if compilers[0] != compilers[1]:
        pytest.skip(f"measured with {compilers[0]}, recorded with {compilers[1]}")
    assert report == RECORDED, "renew them: see csrc/README.md"


@pytest.mark.pages
def test_the_readme_shows_the_recorded_measurements() -> None:
    readme = Path(CSRC / "README.md").read_text()
    assert replace_tables(readme, RECORDED) == readme
