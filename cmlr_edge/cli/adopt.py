"""`cmlr-edge adopt MODEL`: a classifier of somebody else's becomes an engine."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from cmlr_edge.cli.grouped import takes_flags
from cmlr_edge.errors import SpecError
from cmlr_edge.model.place import engine_claim

if TYPE_CHECKING:
    from cmlr_edge.adopting.adopt import Adoption, Wishes
    from cmlr_edge.model.spec import ModelSpec

_ACTIVATIONS = ("none", "softmax", "sigmoid")


@dataclass(frozen=True)
class Flags:
    """What is said about the model, and what it shall be held against."""

    labels: Annotated[
        Path | None,
        typer.Option(help="Names, one a line, or JSON. Default: those in the model's metadata."),
    ] = None
    preprocess: Annotated[
        str,
        typer.Option(
            help="What the model was trained with, commas between: imagenet, 0..1, -1..1, 0..255, caffe, "
            "clip, or mean=R/G/B,std=R/G/B; rgb, bgr; stretch, letterbox, crop, crop=256; area, bilinear, "
            "pillow-bilinear, ..; size=224; nchw, nhwc; ultralytics; or a preprocessor_config.json."
        ),
    ] = ""
    activation: Annotated[
        str | None,
        typer.Option(
            help="To put behind it: none, softmax, or sigmoid. Default: by what it gives."
        ),
    ] = None
    output: Annotated[
        str | None, typer.Option(help="Its output with the scores, where it has several.")
    ] = None
    name: Annotated[str | None, typer.Option(help="Of the model. Default: its file's.")] = None
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Of every label.")] = 0.5
    check: Annotated[
        Path | None, typer.Option(help="Pictures, a folder or one, that --scores belong to.")
    ] = None
    scores: Annotated[
        Path | None,
        typer.Option(help="Its own runtime's scores: CSV file,LABEL,..; JSON by file; or .npy."),
    ] = None
    tolerance: Annotated[float, typer.Option(min=0, help="Difference of scores allowed.")] = 1e-3
    labelled: Annotated[
        Path | None,
        typer.Option(help="CSV file,labels of pictures beside it, to fit thresholds on."),
    ] = None
    rule: Annotated[
        str, typer.Option(help="What thresholds are best for: f1, precision=P, cost=C.")
    ] = "f1"

    def wishes(self) -> Wishes:
        """Those of --labels, --preprocess and the like, read."""
        from cmlr_edge.adopting.adopt import Wishes
        from cmlr_edge.adopting.labels import read_labels
        from cmlr_edge.adopting.processor import read_processor
        from cmlr_edge.adopting.recipe import parse_recipe

        if self.activation not in {None, *_ACTIVATIONS}:
            raise SpecError(
                f"--activation {self.activation}: expected one of {', '.join(_ACTIVATIONS)}"
            )
        given = self.preprocess
        return Wishes(
            read_processor(Path(given)) if given.endswith(".json") else parse_recipe(given),
            None if self.labels is None else read_labels(self.labels),
            self.activation,  # type: ignore[arg-type]
            self.output,
            self.name,
            self.threshold,
        )


@takes_flags
def adopt(
    model: Annotated[Path, typer.Argument(help="An ONNX classifier.")],
    out: Annotated[
        Path | None, typer.Option(help="Engine folder to write. Default: named as the model.")
    ] = None,
    *,
    flags: Flags,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Make an engine of an ONNX classifier: preprocessing moves into it, labels and spec too.

    \b
    cmlr-edge adopt resnet50.onnx --labels imagenet.txt --preprocess imagenet,crop=256,pillow-bilinear
    cmlr-edge label street.mp4 --engine resnet50
    """  # noqa: D301
    from cmlr_edge.adopting.adopt import Adoption

    if (flags.check is None) != (flags.scores is None):
        raise SpecError(
            "--check and --scores belong together: pictures, and what another runtime gave"
        )
    folder = out or Path(model.stem)
    if (folder / "model.onnx").resolve() == model.resolve():
        raise SpecError(
            f"--out {folder} is where {model} lies: it would be written over; give another"
        )
    with engine_claim(folder / "model.onnx"):
        adoption = Adoption(model, flags.wishes())
        if flags.check is not None and flags.scores is not None:
            _hold_against(adoption, flags.check, flags.scores, flags.tolerance)
        if flags.labelled is not None:
            _fit(adoption, flags.labelled, flags.rule)
        adopted = adoption.finish()
        path = adopted.write(folder)
    if as_json:
        record = {"engine": str(path), **asdict(adopted.spec)}
        print(json.dumps(record, indent=2, allow_nan=False))  # noqa: T201
    else:
        _tell(adopted.spec, path)


def _hold_against(adoption: Adoption, check: Path, scores: Path, tolerance: float) -> None:
    from cmlr_edge.adopting.adopt import Known
    from cmlr_edge.adopting.pictures import list_pictures, read_scores
    from cmlr_edge.capture.images import read_image

    files = list_pictures(check)
    table = read_scores(scores, files, adoption.labels)
    pictures = tuple(read_image(file) for file in files)
    adoption.hold_against(Known(tuple(file.name for file in files), pictures, table, tolerance))


def _fit(adoption: Adoption, labelled: Path, rule: str) -> None:
    from cmlr_edge.adopting.pictures import read_targets
    from cmlr_edge.capture.images import read_image
    from cmlr_edge.model.thresholds import ThresholdRule

    files, targets = read_targets(labelled, adoption.labels)
    parsed = ThresholdRule.parse(rule)
    adoption.fit(map(read_image, files), targets, parsed, data=labelled.name)


def _tell(spec: ModelSpec, path: Path) -> None:
    assert spec.adopted is not None
    about, [built] = spec.adopted, spec.files.values()
    kind = (
        "shares of one whole, so that at most one label reaches 0.5"
        if about.exclusive
        else "of each label by itself"
    )
    lines = {
        "input": about.input,
        "scores": kind
        + (f"; {about.activation} was put behind it" if about.activation != "none" else ""),
        "thresholds": f"{spec.thresholds[0]:g} of every label"
        if spec.threshold_fit.rule == "fixed"
        else f"{min(spec.thresholds):g} to {max(spec.thresholds):g}, best by "
        f"{spec.threshold_fit.rule} on {spec.threshold_fit.data}",
        "against": f"the model as it came, {built.parity.num_images} frames: scores differ by at "
        f"most {built.parity.max_score_difference:.1g}",
    }
    if about.checked:
        lines["checked"] = about.checked
    if about.assumed:
        lines["ASSUMED"] = (
            f"{'; '.join(about.assumed)}: nobody said so. Give --preprocess and --activation, or hold "
            "it against scores that you have: --check PICTURES --scores FILE"
        )
    console = Console(highlight=False)
    console.print(
        f"[bold]{escape(spec.name)}[/bold]: {len(spec.labels)} labels, in {escape(str(path.parent))}",
        soft_wrap=True,
    )
    for key, text in lines.items():
        console.print(f"  {key:<11} {escape(text)}", soft_wrap=True)
    engine = escape(shlex.quote(str(path.parent)))
    console.print(f"Next: cmlr-edge label PICTURE --engine {engine}", soft_wrap=True)
