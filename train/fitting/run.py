"""What the steps of one run share, and the checks before it starts."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from rich.progress import Progress
from torch import Tensor

from cmlr_edge.errors import DataError
from cmlr_edge.model.spec import PreprocessSpec
from cmlr_edge.wording import counted
from train import distributed
from train.config import TrainConfig
from train.data.base import LabeledImages
from train.data.transforms import ImageTensors
from train.network import checkpoint
from train.network.backbones import Backbone
from train.network.model import CausalRecognizer
from train.network.token_memory import TokenMemory
from train.recipes import NO_RECIPE

_USED = {"train", "val"}  # splits
_FEW_IMAGES = 20
_MOST_TRAINED_ON = 2000  # training pictures that thresholds are fitted on, where none are held out
_NAMED = 5  # labels in a warning
# May be others when a run goes on, on a machine with less memory, as the number of processes may.
_HOW_COMPUTED = ("workers", "accumulate")
_log = logging.getLogger(__name__)


@dataclass
class Run:
    """One training run."""

    folder: Path
    config: TrainConfig
    train: LabeledImages
    val: LabeledImages  # held out; else some training pictures, for the thresholds
    held_out: bool  # whether `val` is
    fingerprint: str  # of both
    sizes: str  # of their files, as `sizes_of` gives them
    model: CausalRecognizer
    frozen: Backbone  # as pre-trained
    confounder_view: Backbone | None  # what is clustered, where it is not `frozen`
    spec: PreprocessSpec
    context_logits: Tensor | None  # (N, L), g of the training images, held out
    lone: Tensor | None  # (N, L), where a biased label stands without its usual company
    progress: Progress
    memory: TokenMemory | None  # where the backbone stays as it is

    @classmethod
    def of(
        cls,
        data: LabeledImages,
        folder: Path,
        config: TrainConfig,
        model: CausalRecognizer,
        view: Backbone | None,
        *,
        lone: Tensor | None,
        progress: Progress,
        memory: TokenMemory,
    ) -> Run:
        """Begin one on checked data, with fresh networks, which go where it is computed."""
        backbone, device = model.backbone, distributed.device()
        return cls(
            folder=folder,
            config=config,
            train=data.split("train"),
            val=pictures_to_judge_by(data),
            held_out="val" in data.splits,
            fingerprint=fingerprint(data),
            sizes=sizes_of(data),
            model=model.to(device),
            frozen=copy.deepcopy(backbone).eval().requires_grad_(False),
            confounder_view=None if view is None else view.to(device),
            spec=PreprocessSpec(size_hw=config.model.size_hw, mean=backbone.mean, std=backbone.std),
            context_logits=None,
            lone=lone,
            progress=progress,
            memory=memory if config.backbone_stays else None,
        )

    def pictures(
        self, data: LabeledImages, augmentation: Callable[[Tensor], Tensor] | None = None
    ) -> ImageTensors:
        """Pictures of this run, as its network takes them."""
        workers = distributed.reading_workers(self.config.workers)
        return ImageTensors(data, self.spec, augmentation=augmentation, workers=workers)


def report_data(data: LabeledImages, folder: Path, config: TrainConfig) -> None:
    """Say what is trained on how many pictures of each split, and which labels cannot be learned."""
    counts = {name: len(data.split(name).images) for name in data.splits}
    unused = ", ".join(f"{n} of split {name!r}" for name, n in counts.items() if name not in _USED)
    _log.info(
        "%s, %s: %s of %s at %s for %s; %s to train on, %d to validate on%s; every setting is in %s",
        data.name,
        "without a recipe" if config.recipe == NO_RECIPE else f"recipe {config.recipe}",
        counted(config.epochs, "epoch"),
        config.model.backbone,
        "x".join(map(str, config.model.size_hw)),
        counted(len(data.classes), "label"),
        counted(counts.get("train", 0), "picture"),
        counts.get("val", 0),
        f"; not used: {unused}" if unused else "",
        folder / checkpoint.CONFIG,
    )
    if "val" not in counts:
        _log.info(
            "no pictures are held out: thresholds come from training pictures, no epoch is validated"
        )
    elif counts["val"] < _FEW_IMAGES:
        _log.warning("so few validation pictures say little: thresholds and metrics are guesses")
    positives = data.split("train").targets().sum(axis=0)
    unseen = [name for name, count in zip(data.classes, positives, strict=True) if count == 0]
    if unseen:
        _log.warning(
            "%d of %d labels are on no training picture and cannot be learned: %s%s",
            len(unseen),
            len(data.classes),
            ", ".join(unseen[:_NAMED]),
            ", ..." if len(unseen) > _NAMED else "",
        )


def pictures_to_judge_by(data: LabeledImages) -> LabeledImages:
    """The held-out pictures; where there are none, some that were trained on, for the thresholds."""
    if "val" in data.splits:
        return data.split("val")
    train = data.split("train")
    stride = -(-len(train.images) // _MOST_TRAINED_ON)
    return replace(train, images=train.images[::stride])


def check_shares(config: TrainConfig, data: LabeledImages) -> None:
    """Raise DataError where nothing is to be trained on, or a step has fewer pictures than parts."""
    num_images = sum(image.split == "train" for image in data.images)
    if not num_images:
        raise DataError(
            f"{data.name} has no picture to train on: expected some of split 'train' that can be read, "
            f"beside those of {', '.join(data.splits)}"
        )
    batch, parts = min(config.batch_size, num_images), distributed.count() * config.accumulate
    if batch < parts:
        raise DataError(
            f"a step of {batch} pictures cannot be divided among {distributed.count()} processes "
            f"with {config.accumulate} parts each: raise batch_size, or lower the others"
        )


def check_folder(folder: Path, config: TrainConfig, data: LabeledImages) -> dict[str, Any] | None:
    """Read the state to go on from; None where no epoch ended.

    Raises:
        DataError: The folder holds no run, or one of another configuration or data.
    """
    before = checkpoint.load_config(folder)
    config = replace(config, **{name: getattr(before, name) for name in _HOW_COMPUTED})
    if before != config:
        raise DataError(
            f"{folder / checkpoint.CONFIG} differs from what was asked for: {_differences(before, config)}: "
            "resume with the same options, or choose another --out"
        )
    state = checkpoint.load_state_file(folder)
    if state is None and (folder / checkpoint.SPEC).exists():  # it would all be trained again
        raise DataError(
            f"the run in {folder} is finished, and its {checkpoint.STATE} is gone: there is nothing to go on "
            "with; choose another --out to train again"
        )
    if state is not None and state["data"] != fingerprint(data):
        raise DataError(f"{folder} was trained on other data than {data.name}: nothing was changed")
    if state is not None and state.get("sizes", sizes := sizes_of(data)) != sizes:  # since 0.2
        raise DataError(
            f"pictures of {data.name} are no longer those that {folder} was trained on: under the same names "
            "lie files of other sizes; put the former ones back, or start again with another --out"
        )
    return state


def refuse_what_would_be_lost(folder: Path) -> None:
    """Let a run begin in no folder of another, or of somebody else's: an engine's, a package's.

    Raises:
        DataError: It holds a run already, or is theirs.
    """
    if (folder / checkpoint.STATE).exists() or (folder / checkpoint.WEIGHTS).exists():
        raise DataError(
            f"{folder} holds a run already: continue it with --resume, or choose another --out"
        )
    if (folder / checkpoint.SPEC).exists():
        raise DataError(
            f"{folder} holds a {checkpoint.SPEC} of something else: choose another --out"
        )
    if (
        folder / checkpoint.CONFIG
    ).exists():  # a run whose first epoch never ended: nothing is lost
        try:
            checkpoint.load_config(folder)
        except DataError as error:
            raise DataError(
                f"{folder} holds a {checkpoint.CONFIG} of something else: choose another --out"
            ) from error


def _differences(before: Any, asked: Any, name: str = "") -> str:
    """Settings of two configurations that differ, by their dotted names."""
    if not is_dataclass(before) or type(before) is not type(asked):
        return "" if before == asked else f"{name} was {before}, now {asked}"
    found = (
        _differences(getattr(before, f.name), getattr(asked, f.name), f"{name}.{f.name}".strip("."))
        for f in fields(before)
    )
    return ", ".join(filter(None, found))


def fingerprint(data: LabeledImages) -> str:
    """Tell data sets apart by their list of pictures and labels."""
    # What nobody knows counts where there is any, so that earlier runs can still be resumed.
    listing = repr(
        [
            (image.path.name, image.split, image.labels, *(image.unknown and [image.unknown]))
            for image in data.images
        ]
    )
    return hashlib.sha256((listing + repr(data.classes)).encode()).hexdigest()


def sizes_of(data: LabeledImages) -> str:
    """Tell pictures under the same names apart by the sizes of their files, which copies keep."""
    return hashlib.sha256(
        repr([_size(image.path) for image in data.images if image.split in _USED]).encode()
    ).hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # whoever reads it says so
        return -1
