"""Epochs told to an experiment tracker, beside log.jsonl: TensorBoard, MLflow, or one of your own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from cmlr_edge.errors import DataError, DependencyError, TrainingError
from cmlr_edge.machine.entry_points import call_theirs, entry_points, having
from train.config import TrainConfig

GROUP = "cmlr_edge.trackers"  # entry points: name -> callable that takes a run folder
_RUN_ID = "mlflow_run"  # file in the run folder
_log = logging.getLogger(__name__)


class Tracker(Protocol):
    """Takes the numbers of each epoch."""

    def epoch(self, number: int, values: dict[str, float]) -> None:
        """Take the numbers of epoch `number`, counted from 1: loss, val_map and others."""

    def close(self) -> None:
        """Finish; called once, also after an error."""


class Trackers:
    """All trackers of a run. One that fails is named once and left out: training goes on."""

    def __init__(self, names: Sequence[str], folder: Path, config: TrainConfig) -> None:
        """Open them.

        Args:
            names: "tensorboard", "mlflow", or an entry point of the group `cmlr_edge.trackers`.
            folder: Of the run.
            config: Its settings, for trackers that compare runs by them.

        Raises:
            DataError: There is no such tracker.
            DependencyError: Its package is not installed.
            TrainingError: It cannot be opened.
        """
        self._open = {name: _open(name, folder, config) for name in dict.fromkeys(names)}

    def epoch(self, record: dict[str, Any]) -> None:
        """Tell all of them a line of the log."""
        values = {k: float(v) for k, v in record.items() if k != "epoch" and v is not None}
        self._each(lambda tracker: tracker.epoch(record["epoch"], values))

    def close(self) -> None:
        """Finish all of them."""
        self._each(lambda tracker: tracker.close())

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name in list(self._open):
            try:
                call(self._open[name])
            except Exception as error:  # noqa: BLE001, PERF203 (whatever somebody else's code does)
                _log.warning("tracker %s is left out from now on: %s", name, error)
                del self._open[name]


class _TensorBoard:
    def __init__(self, folder: Path, _config: TrainConfig) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "tensorboard"))

    def epoch(self, number: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, number)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _MLflow:
    """A run of MLflow, where MLFLOW_TRACKING_URI says; the same run again after `--resume`."""

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        import mlflow

        self._mlflow, place = mlflow, folder / _RUN_ID
        known = place.read_text().strip() if place.is_file() else None
        run = mlflow.start_run(run_id=known, run_name=folder.name)
        if known is None:
            mlflow.log_params(_flat(asdict(config)))
            place.write_text(run.info.run_id + "\n")

    def epoch(self, number: int, values: dict[str, float]) -> None:
        self._mlflow.log_metrics(values, step=number)

    def close(self) -> None:
        self._mlflow.end_run()


_KINDS: dict[str, Any] = {"tensorboard": _TensorBoard, "mlflow": _MLflow}
_PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow"}  # that these import


def check_trackers(names: Sequence[str]) -> None:
    """Refuse a name before pictures are read and hours pass.

    Raises:
        DataError: There is no such tracker.
        DependencyError: Its package is not installed.
    """
    theirs = entry_points(GROUP)
    for name in names:
        if name in theirs:
            continue
        if name not in _KINDS:
            known = ", ".join([*_KINDS, *theirs])
            raise DataError(f"there is no tracker {name!r}: expected one of {known}")
        if name in _PACKAGES and find_spec(_PACKAGES[name]) is None:
            raise _not_installed(name)


def _not_installed(name: str) -> DependencyError:
    return DependencyError(f"tracker {name} is not installed: pip install {name}")


def _open(name: str, folder: Path, config: TrainConfig) -> Tracker:
    check_trackers([name])
    theirs = entry_points(GROUP)
    if name not in _KINDS:
        made: Tracker = call_theirs(
            theirs[name], folder, f"tracker {name}", having("epoch", "close"), TrainingError
        )
        return made
    try:
        tracker: Tracker = _KINDS[name](folder, config)
    except ImportError as error:
        raise _not_installed(name) from error
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(f"tracker {name} cannot be opened: {reason}") from error
    return tracker


def _flat(settings: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings by dotted key, as `--set` takes them."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return flat
