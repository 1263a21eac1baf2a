"""A run folder: weights (safetensors), spec, configuration, log, and the state to resume from.

RUN/model.safetensors  weights, confounders included      RUN/log.jsonl   one line per epoch
RUN/model.json         the spec                            RUN/state.pt    for resuming only
RUN/config.json        the TrainConfig                    RUN/skipped.json  damaged pictures left out
RUN/report.json        read-out and thresholds: how they were chosen, what to expect of each label
RUN/held_out.json      pictures that the run took from train to validate on, where the data has no val
RUN/plain/             a run without intervention, where one was trained to compare with
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from cmlr_edge.errors import DataError, OutputError
from cmlr_edge.model.files import is_plain, whole_file, write_atomically
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.model.strict_json import read_json, write_json
from train import config as names
from train.config import LOG, TrainConfig
from train.data.base import LabeledImages
from train.network.model import CausalRecognizer

_PRECISIONS = {"float32", "bfloat16", "float16"}  # of torch, that a state names
_LATER_BUFFERS = {"intervention.context_spread"}  # that runs of older versions do not have
PLAIN, SPEC = names.PLAIN, names.SPEC
WEIGHTS, CONFIG, STATE, SKIPPED, REPORT, HELD_OUT = (
    "model.safetensors",
    "config.json",
    "state.pt",
    "skipped.json",
    "report.json",
    "held_out.json",
)


@contextmanager
def _clear_when_full(path: Path) -> Iterator[None]:
    """Turn what fails while writing into one error; every writer leaves the old file whole."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch.save has its own words for a full disk
        if isinstance(error.__context__, KeyboardInterrupt):  # and fails so when it is interrupted
            raise error.__context__ from None
        why = error.__context__ if isinstance(error.__context__, OSError) else error
        reason = getattr(why, "strerror", None) or str(why).splitlines()[0]
        raise OutputError(
            f"{path} cannot be written: {reason}. What was there before is whole: make it "
            "writable or make room, then go on with the same command and --resume"
        ) from error


def check_writable(run: Path) -> None:
    """Refuse a run folder that nothing can be written to, before pictures are read; leave no trace.

    Raises:
        OutputError: It or the nearest folder above it that is there is no folder, or is read-only.
    """
    there = next(
        path for path in (run.absolute(), *run.absolute().parents) if os.path.lexists(path)
    )
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OutputError(
            f"{run} cannot be written: {error.strerror}; choose another --out, or make it writable"
        ) from error


def open_folder(
    run: Path, config: TrainConfig, skipped: dict[str, str] | None, *, resume: bool
) -> None:
    """Create the run folder, or clear it of what a killed process left half-written.

    Args:
        run: The folder.
        config: Written unless `resume`.
        skipped: Pictures left out, path -> reason; None where none were looked for.
        resume: The folder is there.
    """
    with _clear_when_full(run):
        run.mkdir(parents=True, exist_ok=True)
        for partial in run.glob(".*.part"):
            partial.unlink()
        if not resume:
            save_config(run, config)
        if skipped is not None:
            text = json.dumps({"count": len(skipped), "pictures": skipped}, indent=2) + "\n"
            write_atomically(run / SKIPPED, text.encode())


def save_held_out(run: Path, data: LabeledImages) -> None:
    """Write which pictures the run held out: another draw from a folder that changed takes others."""
    names = [data.name_of(image) for image in data.images if image.split == "val"]
    with _clear_when_full(run / HELD_OUT):
        write_atomically(run / HELD_OUT, (json.dumps(names, indent=0) + "\n").encode())


def save_weights(run: Path, model: nn.Module) -> None:
    """Write the model's weights and buffers."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    with _clear_when_full(run / WEIGHTS):
        write_atomically(run / WEIGHTS, save(tensors))


def save_spec(run: Path, spec: ModelSpec) -> None:
    """Write the spec: with it the run is finished."""
    with _clear_when_full(run / SPEC):
        spec.save(run / SPEC)


def save_report(run: Path, report: dict[str, Any]) -> None:
    """Write how read-out and thresholds came about."""
    with _clear_when_full(run / REPORT):
        text = json.dumps(report, indent=2, allow_nan=False) + "\n"
        write_atomically(run / REPORT, text.encode())


def save_config(run: Path, config: TrainConfig) -> None:
    """Write the configuration."""
    write_json(run / CONFIG, config)


def load_config(run: Path) -> TrainConfig:
    """Read the configuration of a run.

    Raises:
        DataError: There is none, or it is not one.
    """
    try:
        return read_json(run / CONFIG, TrainConfig)
    except (ValueError, OSError) as error:
        raise DataError(
            f"{run / CONFIG} cannot be read: {error}. Expected a folder that `python -m train fit "
            "--out` wrote"
        ) from error


def held_out_by(run: Path, data: LabeledImages) -> LabeledImages:
    """Data without a `val` split, divided as the run divided it; other data is drawn likewise.

    Pictures that came, went or were damaged since change nothing for the others: none that the run was
    trained on is held out.

    Raises:
        DataError: What the run says of itself cannot be read, or there is one picture.
    """
    config = load_config(run)
    if "train" not in data.splits:
        return data
    if "val" not in data.splits and (run / HELD_OUT).is_file():
        try:
            names = read_json(run / HELD_OUT, tuple[str, ...])
        except (ValueError, OSError) as error:
            raise DataError(
                f"{run / HELD_OUT} cannot be read: {error}. Expected the names of pictures that `fit` wrote"
            ) from error
        if (divided := data.with_held_out(names)) is not None:
            return divided
    return data.with_validation(config.validation_share, config.seed)


def load_model(run: Path) -> tuple[CausalRecognizer, ModelSpec]:
    """Open a finished run, in evaluation mode.

    Raises:
        DataError: Files are missing or do not fit together.
        SpecError: The spec is malformed.
    """
    config = load_config(run)
    if not (run / SPEC).is_file():
        raise DataError(
            f"the run in {run} is not finished: go on with `python -m train fit ... --out {run} "
            "--resume` and the options it was started with"
        )
    spec = ModelSpec.load(run / SPEC)
    try:
        tensors = load((run / WEIGHTS).read_bytes())
    except (OSError, SafetensorError) as error:
        raise DataError(f"{run / WEIGHTS} cannot be read: {error}") from error
    # What was chosen when training ended counts, not what was asked for: see train/judging/read_out.py.
    method: Any = {"intervention": spec.method.intervention}
    method["inference_context"] = (
        "prior" if spec.method.read_out == "plain" else spec.method.read_out
    )
    built = replace(config.model, **method)
    model = CausalRecognizer(built, len(spec.labels), pretrained=False)
    load_state(model, tensors, run / WEIGHTS)
    return model.eval(), spec


def load_state(model: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Load weights; confounder buffers may differ in size, everything else must fit."""
    own = dict(model.named_buffers())
    unknown = {name: own[name] for name in own.keys() - tensors.keys() if name in _LATER_BUFFERS}
    tensors = {**unknown, **tensors}
    for name, tensor in tensors.items():
        if name in own and own[name].shape != tensor.shape and name.startswith("intervention."):
            module = model.get_submodule(name.rpartition(".")[0])
            setattr(module, name.rpartition(".")[2], torch.empty_like(tensor))
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise DataError(f"{source} does not fit its config.json: {str(error)[:300]}") from error


def save_state(run: Path, state: dict[str, Any]) -> None:
    """Write what resuming needs: tensors and plain values only."""
    with _clear_when_full(run / STATE), whole_file(run / STATE) as file:
        torch.save(state, file)


def load_state_file(run: Path) -> dict[str, Any] | None:
    """Read what `save_state` wrote, without ever unpickling code; None where there is nothing."""
    if not (run / STATE).is_file():
        return None
    try:
        state: Any = torch.load(run / STATE, map_location="cpu", weights_only=True)
    except Exception as error:
        # What follows PyTorch's first sentence advises to run whatever code the file holds.
        reason = str(error).partition(". ")[0][:200] or "it is empty"
        raise DataError(
            f"{run / STATE} cannot be read ({reason}): delete it to start this run again"
        ) from error
    epochs = state.get("epochs") if isinstance(state, dict) and "precision" in state else None
    if type(epochs) is not int or epochs < 0 or state["precision"] not in _PRECISIONS:
        raise DataError(f"{run / STATE} is of an older version: start the run again elsewhere")
    whole: dict[str, Any] = state
    return whole


def append_log(run: Path, record: dict[str, Any]) -> None:
    """Add one line to the log."""
    with _clear_when_full(run / LOG):
        if not is_plain(run / LOG):
            raise OSError(errno.EINVAL, "not a file")  # a pipe may have nobody at its other end
        with (run / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")


def truncate_log(run: Path, epochs: int) -> None:
    """Keep the first `epochs` lines, so that a resumed run does not log an epoch twice."""
    if (run / LOG).is_file():
        with _clear_when_full(run / LOG):
            lines = (run / LOG).read_bytes().splitlines(keepends=True)[:epochs]
            write_atomically(run / LOG, b"".join(lines))
