"""Search for settings: trainings that differ in a few of them, chosen one after the other by Optuna."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmlr_edge.errors import DataError
from cmlr_edge.machine.needed import needed
from cmlr_edge.model.files import write_atomically
from train.config import LOG
from train.data.base import LabeledImages
from train.fitting.confounder_cache import PREPARED
from train.fitting.loop import fit
from train.network.token_memory import TokenMemory
from train.settings import as_options, build_config

RESULTS, _STUDY = "search.json", "study.log"
# Setting -> lowest, highest and whether steps are by factors, or the values it may have. Not searched: what
# changes the time of a frame (backbone, image size, layers), for the device decides it, nor label links, which
# `fit` compares by itself.
SPACE: dict[str, tuple[Any, ...]] = {
    "lr": (1e-4, 1e-2, "log"),
    "weight_decay": (1e-5, 1e-1, "log"),
    "model.dropout": (0.0, 0.4, "linear"),
    "model.united_share": (0.0, 0.25, 0.5),
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SearchPlan:
    """What a search goes over."""

    recipe: str  # that every training starts from
    given: dict[str, Any]  # settings that stay
    settings: list[str]  # "key=value" each; they stay too
    trials: int  # trainings in all, those of a run before included
    seed: int


def search(data: LabeledImages, folder: Path, plan: SearchPlan) -> dict[str, Any]:
    """Train `plan.trials` times; go on where a search in `folder` ended.

    Every training is a run folder, `trial-0` and so on. They are judged by the best validation mAP of
    any epoch, so the winner's is optimistic: measure it on pictures that no training saw.

    Args:
        data: With a `train` split; `val` is taken from it where there is none, the same for all.
        folder: Of the search.
        plan: What is tried.

    Returns:
        `best`, its settings and mAP, and `trials`; also written to `search.json`.

    Raises:
        DependencyError: Optuna is not installed.
        DataError: Nothing is left to search, or no validation mAP can be measured.
    """
    optuna = _optuna()
    fixed = {item.partition("=")[0] for item in plan.settings} | set(plan.given)
    space = {key: values for key, values in SPACE.items() if key not in fixed}
    if not space:
        raise DataError(f"nothing is left to search: all of {', '.join(SPACE)} are set")
    folder.mkdir(parents=True, exist_ok=True)
    _mend_record(folder / _STUDY)
    journal = optuna.storages.journal.JournalFileBackend(str(folder / _STUDY))
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(journal),
        study_name="search",
        direction="maximize",
        load_if_exists=True,
    )
    memory = TokenMemory()
    done = sum(trial.state.is_finished() for trial in study.trials)
    for number in range(done, plan.trials):
        # A search that goes on would draw its first settings again with the seed of the one before.
        study.sampler = optuna.samplers.TPESampler(seed=plan.seed + number)
        trial = study.ask()
        chosen = {key: _suggest(trial, key, values) for key, values in space.items()}
        out, told = folder / f"trial-{trial.number}", number > done
        study.tell(trial, _train(data, out, plan, chosen, memory, data_is_told=told))
        write_atomically(folder / RESULTS, (json.dumps(_record(study), indent=2) + "\n").encode())
    return _record(study)


def _mend_record(path: Path) -> None:
    """Drop the line that a killed search was writing, which Optuna cannot read over.

    Raises:
        DataError: Another line is damaged.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    if lines and not lines[-1].endswith(b"\n"):
        write_atomically(path, b"".join(lines[:-1]))
        lines.pop()
    for number, line in enumerate(lines, start=1):
        try:
            json.loads(line)
        except ValueError as error:  # noqa: PERF203
            raise DataError(
                f"{path}:{number} is no line of a search ({error}): put the file back, or choose another --out"
            ) from error


def _train(
    data: LabeledImages,
    out: Path,
    plan: SearchPlan,
    chosen: dict[str, Any],
    memory: TokenMemory,
    *,
    data_is_told: bool,
) -> float:
    config = build_config(plan.given | chosen, plan.settings, plan.recipe)
    cache = out.parent / PREPARED
    shared: dict[str, Any] = {"cache": cache, "memory": memory, "data_is_told": data_is_told}
    fit(data, out, config, **shared, only_compared=True)
    lines = (out / LOG).read_text().splitlines()
    reached = [epoch["val_map"] for epoch in map(json.loads, lines)]
    if any(value is None for value in reached):
        raise DataError("validation mAP cannot be measured: too few pictures of each label in val")
    _log.info("%s: validation mAP %.3f with %s", out.name, max(reached), as_options(chosen))
    return float(max(reached))


def _suggest(trial: Any, key: str, values: tuple[Any, ...]) -> Any:
    if values[-1] in {"log", "linear"}:
        return trial.suggest_float(key, values[0], values[1], log=values[-1] == "log")
    return trial.suggest_categorical(key, values)


def _record(study: Any) -> dict[str, Any]:
    trials = [
        {"trial": trial.number, "val_map": trial.value, "settings": trial.params}
        for trial in study.trials
        if trial.value is not None
    ]
    return {"best": max(trials, key=lambda trial: trial["val_map"]), "trials": trials}


def _optuna() -> Any:
    with needed("searching needs Optuna", "pip install '.[search]'"):
        import optuna
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
