"""One stage, in a process of its own.

Nothing of NVIDIA's is imported before a driver and a GPU are found: where there is none, that is how
every stage ends.
"""

from __future__ import annotations

import importlib
import traceback
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cmlr_edge
from benchmarks.gpu.plan import STAGES
from benchmarks.gpu.report import Report, Skipped, stage_file
from cmlr_edge.errors import CmlrError, EngineError
from cmlr_edge.machine.driver import Gpu, find_gpu

# What is compiled and trained stays here, so that part B finds it in a call of its own, and the
# output folder has results alone.
WORK = Path(__file__).parents[2] / "build" / "gpu"


@dataclass(frozen=True)
class Place:
    """Where a stage works."""

    folder: Path
    gpu: Gpu
    model: Path | None = None  # an export, for engines

    @property
    def extensions(self) -> Path:
        """Of stage 1: `_native`, `_cuda`, and the plugin where TensorRT's headers are."""
        return self.folder / "extensions"


def use_extensions(folder: Path) -> None:
    """Import the modules compiled by stage 1 rather than those of the installation."""
    if folder.is_dir():
        cmlr_edge.__path__.insert(0, str(folder))


def missing_module(names: tuple[str, ...]) -> str | None:
    """The first that cannot be imported."""
    for name in names:
        top = name.partition(".")[0]
        if find_spec(top) is None or find_spec(name) is None:
            return name
    return None


def run(number: int, folder: Path, model: Path | None = None) -> None:
    """Do one stage; how it ended is in its file."""
    stage = next(stage for stage in STAGES if stage.number == number)
    report = Report(stage.number, stage.name, file=stage_file(folder, number))
    try:
        gpu = find_gpu()
    except EngineError as error:
        report.end("no GPU", str(error))
        return
    if (missing := missing_module(stage.needs)) is not None:
        report.end("skipped", f"{missing} is not installed")
        return
    place = Place(WORK, gpu, model)
    WORK.mkdir(parents=True, exist_ok=True)
    use_extensions(place.extensions)
    module, _, name = stage.function.partition(":")
    try:
        work = getattr(importlib.import_module(f"benchmarks.gpu.{module}"), name)
        work(report, place)
        report.end("done")
    except Skipped as error:
        report.end("skipped", str(error))
    except CmlrError as error:
        report.end("failed", str(error))
    except Exception as error:  # noqa: BLE001 (what a GPU makes of our code is what is looked for)
        traceback.print_exc()
        report.end("failed", f"{type(error).__name__}: {error}")


def main(number: str, folder: str, model: str = "") -> int:
    """What the command line starts."""
    run(int(number), Path(folder), Path(model) if model else None)
    return 0
