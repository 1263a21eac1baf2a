"""Whether an engine and a folder can be used to watch places, and what to do where they cannot."""

from __future__ import annotations

from pathlib import Path

from cmlr_edge.errors import EngineError, OutputError
from cmlr_edge.model.explanation import TrainedSurroundings
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.redaction import printable

_TRAIN = (
    "train with --set model.confounders.kind=early --set model.inference_context=prior, and export with "
    "export/build_engine.py --explain"
)


def trained_surroundings(spec: ModelSpec) -> TrainedSurroundings | None:
    """What a model was trained in; None of one that does not tell."""
    return None if spec.explanation is None else spec.explanation.training


def no_place(spec: ModelSpec) -> EngineError:
    """What is wrong with an engine that tells nothing of surroundings."""
    if spec.explanation is None:
        return EngineError(
            f"{spec.name} tells nothing of a place: it was exported without --explain; {_TRAIN}"
        )
    if not spec.explanation.num_confounders:
        return EngineError(
            f"{spec.name} tells nothing of a place: it was trained without confounders; {_TRAIN}"
        )
    return EngineError(
        f"{spec.name} tells nothing of a place: it was trained before that was kept, or runs without its "
        f"explanations; {_TRAIN}"
    )


def check_folder(folder: Path) -> Path:
    """Refuse a folder that places cannot be kept in; one that is missing is made later.

    Raises:
        OutputError: It is none, or the one that it would lie in is missing.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"cannot keep places in {printable(folder)}: it is a file; give a folder")
    if not folder.absolute().parent.is_dir():
        raise OutputError(
            f"cannot keep places in {printable(folder)}: there is no folder "
            f"{printable(folder.absolute().parent)}; create it"
        )
    return folder
