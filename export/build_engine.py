"""Checkpoint -> model.onnx, model.json and fusion.json, verified against the training model before it is written.

python export/build_engine.py --checkpoint runs/first --out models/first --data photos

On a Jetson `--target tensorrt` adds model.engine, verified against model.onnx.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated

from cmlr_edge.model.place import engine_claim
from cmlr_edge.wording import counted

if __name__ == "__main__":  # run as a file: let `train` and `export` be found
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    if "--help" not in sys.argv:  # a busy machine loads it for a minute
        print("loading PyTorch", file=sys.stderr)  # noqa: T201
    from train.reporting import exit_on_error

    with exit_on_error():  # a package that is missing is one line here, and a traceback below
        import export.building  # noqa: F401

import typer
from rich.progress import TaskID

from cmlr_edge.backends.plugin import plugin_library
from cmlr_edge.cli.grouped import takes_flags
from cmlr_edge.cli.usage import run_command
from cmlr_edge.engines.builder import BuildOptions
from cmlr_edge.errors import DataError, EngineError
from cmlr_edge.machine.driver import find_gpu
from export.building import Int8For, Precision, build_engine
from train.cli.options import SkipDamagedOption
from train.reporting import exit_on_error, progress_bars, say


class Target(str, Enum):
    """What to build."""

    onnx = "onnx"
    tensorrt = "tensorrt"


def _share(text: str) -> float:
    """Read "0.5%" or "0.005"."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise typer.BadParameter(f"{text!r}: expected a share such as 0.5% or 0.005")
    return share


@dataclass(frozen=True)
class Flags:
    """What is to be written."""

    data: Annotated[Path | None, typer.Option(help="Data folder: verify on its pictures too.")] = (
        None
    )
    split: Annotated[str, typer.Option(help="Split of --data to verify on.")] = "val"
    fp16: Annotated[bool, typer.Option("--fp16", help="Write a typed float16 graph.")] = False
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantise the backbone; with --data or --calibration.")
    ] = False
    int8_for: Annotated[
        Int8For | None,
        typer.Option("--for", help="What runs the int8 file. Default: cpu, with an engine gpu."),
    ] = None
    calibration: Annotated[
        Path | None,
        typer.Option(help="Pictures to measure int8 ranges on; without it, train of --data."),
    ] = None
    skip_damaged: SkipDamagedOption = False
    max_flips: Annotated[
        float | None,
        typer.Option(
            parser=_share, metavar="SHARE", help="Of label decisions that may differ, as 0.5%."
        ),
    ] = None
    target: Annotated[
        Target, typer.Option(help="tensorrt: build model.engine too, for the GPU here.")
    ] = Target.onnx
    batch: Annotated[str, typer.Option(help="Smallest, tuned and largest batch.")] = "1,1,8"
    no_plugin: Annotated[
        bool, typer.Option("--no-plugin", help="Engine without our attention kernel.")
    ] = False
    timing_cache: Annotated[
        str | None, typer.Option("--timingCacheFile", help="Read, and written after a build.")
    ] = None
    dla_core: Annotated[int | None, typer.Option("--useDLACore", help="Of a Jetson Orin.")] = None
    gpu_fallback: Annotated[
        bool, typer.Option("--allowGPUFallback", help="For layers the DLA does not have.")
    ] = False
    explain: Annotated[
        bool, typer.Option("--explain", help="With outputs that say why, and where in the picture.")
    ] = False
    sign_key: Annotated[
        Path | None,
        typer.Option("--sign", help="PEM private key: sign model and spec; SECURITY.md."),
    ] = None
    workspace: Annotated[int | None, typer.Option(help="MiB for TensorRT's scratch.")] = None
    build_timeout: Annotated[
        float, typer.Option(help="Seconds that TensorRT may take to build.")
    ] = BuildOptions.timeout_s

    @property
    def precision(self) -> Precision:
        """Of the file."""
        if self.fp16 and self.int8:
            raise DataError("--fp16 and --int8 exclude each other: a file has one precision")
        return "int8" if self.int8 else "float16" if self.fp16 else "float32"

    @property
    def runs_int8(self) -> Int8For:
        """What runs an int8 file."""
        if self.int8_for is None:
            return Int8For.gpu if self.target is Target.tensorrt else Int8For.cpu
        if not self.int8:
            raise DataError("--for says what runs an int8 file: give --int8 too")
        return self.int8_for

    @property
    def tensorrt(self) -> BuildOptions | None:
        """For TensorRT, where it is to build."""
        if self.target is not Target.tensorrt:
            return None
        return BuildOptions(
            batch=_read_batch(self.batch),
            plugin=None if self.no_plugin else self._plugin(),
            timing_cache=self.timing_cache,
            dla_core=self.dla_core,
            allow_gpu_fallback=self.gpu_fallback,
            workspace_mib=self.workspace,
            timeout_s=self.build_timeout,
        )

    def _plugin(self) -> str:
        find_gpu()  # without one, no plugin helps
        return str(plugin_library())


def _read_batch(text: str) -> tuple[int, int, int]:
    numbers = [int(part) for part in text.split(",") if part.strip().isdigit()]
    if len(numbers) != 3 or text.count(",") != 2:
        raise EngineError(f"--batch is {text!r}: expected smallest,tuned,largest such as 1,1,8")
    return numbers[0], numbers[1], numbers[2]


@takes_flags
def main(
    checkpoint: Annotated[Path, typer.Option(help="Run folder that `python -m train fit` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder to write model.onnx and model.json to.")],
    flags: Flags,
) -> None:
    """Export a trained run for the SDK.

    Example: python export/build_engine.py --checkpoint runs/first --out models/first
    """
    with engine_claim(out / "model.onnx"), progress_bars() as progress:
        tasks: list[TaskID] = []

        def tell(done: int, total: int) -> None:
            if (
                not tasks
            ):  # its time begins here: what came before says nothing of how long it takes
                tasks.append(progress.add_task("pictures measured for int8", total=total))
            progress.advance(tasks[0], done)

        spec = build_engine(
            checkpoint,
            out,
            data=flags.data,
            split=flags.split,
            precision=flags.precision,
            calibration=flags.calibration,
            skip_damaged=flags.skip_damaged,
            max_flips=flags.max_flips,
            int8_for=flags.runs_int8,
            tensorrt=flags.tensorrt,
            sign_with=flags.sign_key,
            explain=flags.explain,
            report=tell,
        )
    for name, built in spec.files.items():
        parity = built.parity
        say(
            f"wrote {out / name} and its spec: on {counted(parity.num_images, 'picture')}, seeded patterns "
            f"among them, the largest score difference is {parity.max_score_difference:.2g}, decisions that differ: "
            f"{parity.decision_flips}"
        )
    if flags.int8 and flags.data is None:
        say(
            "thresholds are still those of the trained model: fit them to this file with "
            f"python -m train refit-thresholds --engine {shlex.quote(str(out))} --data DIR, or give --data"
        )


if __name__ == "__main__":
    with exit_on_error():
        run_command(main, "export/build_engine.py")
