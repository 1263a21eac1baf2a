"""Where an engine is to be written."""

from __future__ import annotations

from pathlib import Path

from cmlr_edge.errors import OutputError, SpecError
from cmlr_edge.machine.claim import Claim
from cmlr_edge.model.files import spec_path
from cmlr_edge.model.spec import ModelSpec


def engine_claim(path: Path) -> Claim:
    """Keep others from writing a model file and its spec meanwhile: of two writers' pairs, each half may stay.

    Raises:
        OutputError: As `Claim` and `refuse_run`.
    """
    refuse_run(path)
    return Claim(path.with_name(f".{path.name}.lock"), str(path))


def refuse_run(path: Path) -> None:
    """Refuse to write a model file where its spec would take the place of a trained run's.

    Raises:
        OutputError: A run lies there.
    """
    spec = spec_path(path)
    try:
        is_run = not ModelSpec.load(spec).files
    except SpecError:  # none, or none of ours
        return
    if is_run:
        raise OutputError(
            f"{spec.parent} holds a run, whose {spec.name} would be written over: give another place"
        )
