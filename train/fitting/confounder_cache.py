"""Confounders of runs on the same pictures are built once: stored under a hash of all they hang on."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from cmlr_edge.model.files import clear_parts, write_atomically
from cmlr_edge.model.spec import PreprocessSpec
from train import distributed
from train.config import TrainConfig
from train.data.base import LabeledImages
from train.fitting.picture_hashes import hash_pictures
from train.fitting.prepare import Preparation

PREPARED = (
    "prepared"  # folder, beside the runs: confounders, where there are any, and the tokens' scale
)
_VERSION = 3  # raised when the same inputs give other confounders
_log = logging.getLogger(__name__)


def pictures_of(folder: Path) -> Path:
    """Where the hashes of pictures seen are remembered: beside the folder of a cache."""
    folder = folder.absolute()  # "." has no name
    return folder.parent / f"{folder.name}.pictures.json"


def build_or_load(
    folder: Path | None, key: Callable[[], str], build: Callable[[], Preparation]
) -> Preparation:
    """Load what an earlier run stored, or build and store it: bit for bit the same either way.

    Args:
        folder: Of the cache, created; None: build.
        key: Name of the entry, asked for in the first process alone.
        build: Called in all processes, or in none.
    """
    if folder is None:
        return _as_stored(build())
    path = folder / f"{key()}.safetensors" if distributed.is_first() else None
    if path is not None:
        clear_parts(folder / "*.safetensors")
    stored = None if path is None else _load(path)
    if distributed.decide(lambda: int(stored is not None)):
        tensors = distributed.share(lambda: {} if stored is None else stored.to_tensors())
        return Preparation.from_tensors(tensors)
    prepared = _as_stored(build())
    if path is not None:
        _store(prepared, path)
    return prepared


def _as_stored(prepared: Preparation) -> Preparation:
    """The same numbers laid out as a file gives them: products depend on strides in the last bit."""
    return Preparation.from_tensors(
        {name: tensor.contiguous().clone() for name, tensor in prepared.to_tensors().items()}
    )


def _load(path: Path) -> Preparation | None:
    if not path.is_file():
        return None
    try:
        prepared = Preparation.from_tensors(load(path.read_bytes()))
    except (OSError, SafetensorError, TypeError) as error:
        _log.warning("%s cannot be read (%s): looking at the pictures again", path, error)
        return None
    _log.info("what was seen of these pictures before, from %s", path)
    return prepared


def _store(prepared: Preparation, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, save(prepared.to_tensors()))
    except OSError as error:  # the run itself needs no cache
        _log.warning(
            "what was measured of the pictures could not be stored in %s: %s", path, error.strerror
        )


def content_key(
    data: LabeledImages,
    spec: PreprocessSpec,
    config: TrainConfig,
    networks: Sequence[nn.Module],
    report: Callable[[], None] = lambda: None,
    memory: Path | None = None,
) -> str:
    """Hash everything that confounders and context term hang on.

    Args:
        data: The training pictures: their content and labels, in order.
        spec: The input format.
        config: Its settings of tokens and confounders.
        networks: Frozen backbones: their weights.
        report: Called after each picture.
        memory: File of the pictures' hashes, so that they are read once and not at every start.

    Raises:
        DataError: A picture cannot be read.
    """
    model = config.model
    settings = {
        "version": _VERSION,
        "confounders": asdict(model.confounders),
        "intervention": model.intervention,
        "memory": model.head == "ccd",
        "token_stages": model.token_stages,
        "standardize_tokens": model.standardize_tokens,
        "preprocess": asdict(spec),
        "seed": config.seed,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(data.targets().tobytes())
    if (known := data.known()) is not None:  # where all is known, what was cached before is found
        digest.update(known.tobytes())
    for network in networks:
        for name, tensor in sorted(network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
    for found in hash_pictures([image.path for image in data.images], memory, report):
        digest.update(bytes.fromhex(found))
    return digest.hexdigest()[:32]
