"""Checks everything that is marked "unverified on hardware", on a machine with a GPU and TensorRT.

    python -m benchmarks.gpu_check --model models/first [--json gpu.json]

`--model` is a folder that export/build_engine.py wrote. Prints one table; exit code 0 if everything
holds, 1 if something does not, 2 with one sentence where it cannot be checked.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks import gpu_engine, gpu_kernels
from cmlr_edge.backends.plugin import plugin_library
from cmlr_edge.engines.builder import BuildOptions
from cmlr_edge.engines.preflight import require_gpu_software
from cmlr_edge.errors import CmlrError, EngineError
from cmlr_edge.model.files import model_path, spec_path, write_atomically
from cmlr_edge.model.spec import ModelSpec


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    check: str
    state: Literal["holds", "FAILS", "measured"]
    found: str


def check_all(model: Path, *, frames: int) -> list[Row]:
    """Run every check; one that fails does not stop the others.

    Args:
        model: The `.onnx` file of an export, its spec beside it.
        frames: How many to watch the memory over.

    Raises:
        EngineError: No GPU, or this installation has no plugin.
        DependencyError: TensorRT, cuda-python or the CUDA module is missing.
    """
    gpu = require_gpu_software()
    library, cuda = str(plugin_library()), gpu_kernels.import_cuda()
    spec = ModelSpec.load(spec_path(model))
    rows = [Row("machine", "measured", f"{gpu.name}, compute capability {gpu.compute_capability}")]

    def run(check: str, work: Callable[[], str], *, measures: bool = False) -> None:
        try:
            rows.append(Row(check, "measured" if measures else "holds", work()))
        except CmlrError as error:
            rows.append(Row(check, "FAILS", str(error)))

    for case in gpu_kernels.CASES:
        run(f"attention kernel, {case.name}", lambda case=case: gpu_kernels.compare(cuda, case))  # type: ignore[misc]
        run(
            f"its time, {case.name}",
            lambda case=case: gpu_kernels.measure(cuda, case),  # type: ignore[misc]
            measures=True,
        )
    run("frame kernel against preprocess", lambda: gpu_kernels.compare_frame(cuda))
    with tempfile.TemporaryDirectory() as folder:
        for plugin in (library, None):
            name = "with the plugin" if plugin else "without the plugin"
            engine = gpu_engine.Engine(model, spec, Path(folder), BuildOptions(plugin=plugin))
            run(f"engine {name}, against ONNX Runtime", engine.build)
            if engine.path is None:
                continue
            run(f"engine {name}: golden sample", engine.open_as_users_do)
            run(f"engine {name}: CUDA graph", engine.compare_cuda_graph)
            run(f"engine {name}: time", engine.measure, measures=True)
            run(f"engine {name}: memory", lambda engine=engine: engine.watch_memory(frames))  # type: ignore[misc]
    return rows


def main(
    model: Annotated[Path, typer.Option(help="Folder that export/build_engine.py wrote.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the table here.")] = None,
    frames: Annotated[int, typer.Option(help="To watch the memory over.")] = 10_000,
) -> None:
    """Check what only a GPU can show, and print one table.

    Example: python -m benchmarks.gpu_check --model models/first --json gpu.json
    """
    console = Console(stderr=True)
    try:
        path = model_path(model)
        if path.suffix != ".onnx" or not path.is_file():
            raise EngineError(f"{path} is not there: give a folder of export/build_engine.py")
        rows = check_all(path, frames=frames)
    except CmlrError as error:
        console.print(f"cannot be checked here: {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(2) from error
    table = Table("check", "", "found", title="on hardware")
    for row in rows:
        table.add_row(escape(row.check), row.state, escape(row.found))
    Console().print(table)
    if json_file is not None:
        write_atomically(json_file, json.dumps([asdict(row) for row in rows], indent=2).encode())
    raise typer.Exit(1 if any(row.state == "FAILS" for row in rows) else 0)


if __name__ == "__main__":
    typer.run(main)
