"""`cmlr-edge teach ENGINE`: one more label, from a few pictures, on the device."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from cmlr_edge.cli.console import print_error, stderr
from cmlr_edge.cli.grouped import takes_flags
from cmlr_edge.cli.progress import progress_bars
from cmlr_edge.errors import DataError, TooFewError
from cmlr_edge.model.files import followed, model_path, spec_path
from cmlr_edge.model.place import engine_claim
from cmlr_edge.teaching.lesson import Lesson, Teacher
from cmlr_edge.teaching.pictures import Pictures
from cmlr_edge.wording import counted

_TOO_FEW = 3  # exit code


@dataclass(frozen=True)
class Flags:
    """What is to be done, and from which pictures."""

    label: Annotated[str | None, typer.Option(help="To add, or to improve.")] = None
    positive: Annotated[
        list[Path] | None, typer.Option(help="Folder of pictures with it; may be given again.")
    ] = None
    negative: Annotated[
        list[Path] | None, typer.Option(help="Folder of pictures without it; may be given again.")
    ] = None
    frames: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of further pictures on which old scores are compared."),
    ] = None
    rename: Annotated[str | None, typer.Option(help="OLD=NEW, of a label that was added.")] = None
    forget: Annotated[str | None, typer.Option(help="Label that was added, to take away.")] = None
    provider: Annotated[
        list[str] | None,
        typer.Option(help="In which old scores must keep their bits. Default: all installed here."),
    ] = None

    def lesson(self, teacher: Teacher) -> Lesson:
        """Taught, renamed or forgotten: one of them is asked for."""
        if self.forget is not None:
            return teacher.forget(self.forget)
        if self.rename is not None:
            old, equals, new = self.rename.partition("=")
            if not equals:
                raise DataError(f"--rename is {self.rename!r}: expected OLD=NEW")
            return teacher.rename(old, new)
        label = self.label
        assert label is not None
        if not self.positive and not self.negative:
            raise DataError(f"there are no pictures: give --positive DIR with {label} in them")
        with_it, without, further = (
            Pictures.read(folders or [], teacher.spec.preprocess)
            for folders in (self.positive, self.negative, self.frames)
        )
        for pictures, how in ((with_it, "with"), (without, "without")):
            if pictures.repeated:
                text = f"{counted(pictures.repeated, 'file')} {how} {label} left out: the same picture as another"
                stderr.print(escape(text), soft_wrap=True, highlight=False)
        return teacher.teach(label, with_it, without, [*further.frames.values()])


@takes_flags
def teach(
    engine: Annotated[Path, typer.Argument(help="ONNX model, or its folder; it stays as it is.")],
    out: Annotated[Path, typer.Option(help="Folder or .onnx file of the new engine.")],
    flags: Flags,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Add a label to ENGINE from 10 to 50 pictures; every old score stays, bit for bit.

    \b
    cmlr-edge teach models/first --label forklift --positive with --negative without --out models/second
    cmlr-edge teach models/second --label forklift --positive more --out models/third
    cmlr-edge teach models/third --rename forklift=truck_in_hall --out models/fourth
    cmlr-edge teach models/fourth --forget truck_in_hall --out models/fifth

    \b
    Exit codes
    0  the new engine is written
    2  an error; nothing is written
    3  too few pictures, or they do not tell the label from others; nothing is written
    """  # noqa: D301
    given = [name for name in (flags.label, flags.rename, flags.forget) if name is not None]
    if len(given) != 1:
        raise DataError("give one of --label, --rename and --forget: what is to be done?")
    path = model_path(engine)
    target = out if out.suffix == ".onnx" else out / "model.onnx"
    if followed(target) == followed(path):
        raise DataError(f"--out is {path} itself: give another place, the old engine stays")
    progress_bar = progress_bars(stderr, transient=True)
    with engine_claim(target), progress_bar as progress:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=None)
            progress.advance(tasks[what], done)

        teacher = Teacher.of(path, providers=flags.provider, report=report)
        try:
            lesson = flags.lesson(teacher)
        except TooFewError as error:
            print_error(error)
            raise typer.Exit(_TOO_FEW) from error
        written = lesson.write(out)
    if as_json:
        print(json.dumps(_record(lesson, written), indent=2, allow_nan=False))  # noqa: T201
    else:
        _print(lesson, written)


def _record(lesson: Lesson, written: Path) -> dict[str, Any]:
    return {
        "engine": str(written),
        "labels": [*lesson.spec.labels],
        "taught": lesson.spec.taught and asdict(lesson.spec.taught),
    }


def _print(lesson: Lesson, written: Path) -> None:
    console = Console()

    def say(text: str) -> None:
        console.print(escape(text), soft_wrap=True, highlight=False)

    say(
        f"wrote {written} and {spec_path(written).name}, {counted(len(lesson.spec.labels), 'label')}"
    )
    taught = lesson.spec.taught
    if taught is None:
        say("no label that was taught is left: it is the engine that was exported, byte for byte")
        return
    for count, name in ((n, name) for name, n in taught.bit_equal.items()):
        say(f"every old score has the same bits on {count} of {counted(count, 'frame')} in {name}")
    if lesson.judgement is None:
        return
    known = {item.name: item for item in taught.labels}
    thresholds = lesson.spec.thresholds_by_label
    for name, item in known.items():
        low, high = item.threshold_between
        say(
            f"{name}: {counted(item.positives, 'picture')} with it, {item.negatives} without; threshold "
            f"{thresholds[name]:.2f} ({low:.2f} to {high:.2f})"
        )
        say(
            f"  on pictures held out it finds {item.recall:.0%} ({_shares(item.recall_between)}), and is "
            f"said on {item.false_alarms:.0%} without it ({_shares(item.false_alarms_between)})"
        )


def _shares(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.0%} to {pair[1]:.0%} with 95 % confidence"
