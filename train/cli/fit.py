"""`python -m train fit`: data folder to run folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmlr_edge.cli.grouped import takes_flags
from train.cli.options import DataOption
from train.cli.training import TrainingFlags, choose_config
from train.config import TrainConfig
from train.reporting import say

if TYPE_CHECKING:
    from cmlr_edge.model.spec import ModelSpec
    from train.data import LabeledImages

_Out = Annotated[Path, typer.Option(help="Run folder to write.")]
_Resume = Annotated[bool, typer.Option("--resume", help="Continue a run that was stopped.")]
_Track = Annotated[
    list[str] | None,
    typer.Option(help="Show each epoch in tensorboard or mlflow too; may be given again."),
]
_Cache = Annotated[
    Path | None,
    typer.Option(
        help="Folder to share of what is measured before training, as confounders; default prepared/ beside "
        "the run."
    ),
]


@takes_flags
def fit(
    data: DataOption,
    out: _Out,
    flags: TrainingFlags,
    resume: _Resume = False,
    cache: _Cache = None,
    track: _Track = None,
) -> None:
    """Train a model and write a run folder: weights, spec, configuration and log.

    \b
    python -m train fit --data photos --epochs 20 --out runs/first
    torchrun --nproc-per-node 4 -m train fit --data photos --out runs/first
    """  # noqa: D301
    flags.check()
    from train import distributed
    from train.data import read_dataset
    from train.fitting.run import refuse_what_would_be_lost
    from train.fitting.tracking import check_trackers
    from train.network.checkpoint import check_writable, load_config

    check_trackers(track or [])
    check_writable(out)
    if resume:
        load_config(out)
    else:
        refuse_what_would_be_lost(out)
    given = flags.given()
    pictures = read_dataset(data)
    config = choose_config(flags.recipe, pictures, given, flags.settings or [])
    spec = _run(pictures, out, config, resume=resume, cache=cache, track=track or [])
    if distributed.is_first():
        _say_what_is_next(data, out, spec)


def _run(
    data: LabeledImages,
    out: Path,
    config: TrainConfig,
    *,
    resume: bool,
    cache: Path | None,
    track: list[str],
) -> ModelSpec:
    from train.fitting.confounder_cache import PREPARED
    from train.fitting.loop import fit as run_fit

    try:
        cache = cache or out.absolute().parent / PREPARED
        return run_fit(data, out, config, resume=resume, cache=cache, track=track)
    except KeyboardInterrupt:
        say(f"whole epochs are kept in {out}: go on with the same command and --resume")
        raise


def _say_what_is_next(data: Path, out: Path, spec: ModelSpec) -> None:
    from train.judging.metrics import MIN_POSITIVES

    val_map = spec.provenance.metrics.get("val_map")
    measured = (
        f"not measurable, no label has {MIN_POSITIVES} positives"
        if val_map is None
        else f"{val_map:.3f} over labels with at least {MIN_POSITIVES} positives"
    )
    say(f"wrote {out}: validation mAP {measured}")
    places = f"--checkpoint {shlex.quote(str(out))} --data {shlex.quote(str(data))}"
    say(f"Next: python export/build_engine.py {places} --out DIR")
