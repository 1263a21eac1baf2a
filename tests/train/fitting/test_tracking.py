"""Epochs reach the trackers; one that fails costs its figures, not the training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cmlr_edge.errors import DataError
from tests.tiny_training import tiny_config, write_dataset
from train.data import read_dataset
from train.fitting import tracking
from train.fitting.loop import fit
from train.fitting.tracking import Trackers

pytestmark = pytest.mark.slow


def test_every_epoch_is_in_tensorboard_and_mlflow_as_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow IS NOT TESTED: it is not installed")
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="TensorBoard IS NOT TESTED: it is not installed",
    )
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    data = read_dataset(write_dataset(tmp_path / "data"))
    run = tmp_path / "run"
    config = tiny_config("model.intervention=none", "epochs=2")
    fit(data, run, config, track=["tensorboard", "mlflow"], show_progress=False)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    seen = events.EventAccumulator(str(run / "tensorboard"))
    seen.Reload()
    assert [(item.step, item.value) for item in seen.Scalars("loss")] == [
        (line["epoch"], pytest.approx(line["loss"])) for line in log
    ]
    stored = mlflow.get_run((run / "mlflow_run").read_text().strip())
    assert stored.data.params["epochs"] == "2"
    assert stored.data.metrics["loss"] == pytest.approx(log[-1]["loss"])
    assert stored.info.status == "FINISHED"


class _Falls:
    def epoch(self, _number: int, _values: dict[str, float]) -> None:
        raise ConnectionError("the server is gone")

    def close(self) -> None:
        raise AssertionError("it was left out")


def test_a_tracker_that_fails_is_named_once_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracking, "_KINDS", {"falls": lambda _folder, _config: _Falls()})
    trackers = Trackers(["falls"], tmp_path, tiny_config())
    for epoch in (1, 2):
        trackers.epoch({"epoch": epoch, "loss": 0.5, "val_map": None})
    trackers.close()
    assert caplog.messages == ["tracker falls is left out from now on: the server is gone"]


def test_an_unknown_tracker_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no tracker 'wandb': expected one of tensorboard, mlflow"):
        Trackers(["wandb"], tmp_path, tiny_config())
