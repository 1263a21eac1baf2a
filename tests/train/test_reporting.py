"""What commands of training say while they work, where no terminal shows it."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from cmlr_edge.cli import progress
from cmlr_edge.model.spec import PreprocessSpec
from train import reporting
from train.judging.inference import BATCH, own_batches

ROOT = Path(__file__).parents[2]


class Pictures:
    """Three batches of black pictures."""

    def __len__(self) -> int:
        return 2 * BATCH + 1

    def read(self, batches: list[list[int]]) -> Iterator[Tensor]:
        for batch in batches:
            yield torch.zeros(len(batch), 3, 8, 8, dtype=torch.uint8)


def test_without_a_terminal_lines_say_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as notebooks do
    monkeypatch.setattr(progress, "_PAUSE_S", (0.0, 0.0))
    caplog.set_level(logging.INFO)
    with reporting.progress_bars() as bars:
        for total in (3, None):
            task = bars.add_task("epoch 1/2", total=total)
            for _ in range(3 if total else 1):
                bars.advance(task)
    spec = PreprocessSpec((8, 8), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    for _ in own_batches(Pictures(), spec, torch.device("cpu")):  # type: ignore[arg-type]
        pass
    assert [line.split(",")[0] for line in caplog.messages] == [
        "epoch 1/2: 1 of 3",
        "epoch 1/2: 2 of 3",
        "epoch 1/2: 1",
        "pictures looked at: 32 of 65",
        "pictures looked at: 64 of 65",
    ]


def test_what_came_before_the_first_part_counts_for_no_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, told = [0.0], list[str]()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    pace = progress.Pace("pictures scored", told.append)
    for done, now in ((0, 5.0), (1, 60.0), (2, 61.0), (41, 120.0), (44, 190.0)):
        clock[0] = now
        pace.reached(done, 45)
    assert told == [
        "pictures scored: 1 of 45",  # how long each takes nobody knows yet
        "pictures scored: 41 of 45, some 6 s left",
        "pictures scored: 44 of 45, some 3 s left",
    ]


def test_what_is_quick_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reporting.pace("pictures").reached(1, 3)
    assert caplog.messages == []


def test_a_package_that_is_missing_is_one_line_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("timm", "timm.models"):
        with pytest.raises(SystemExit), reporting.exit_on_error():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: timm is needed")
        assert line.endswith("pip install -e '.[export]'")
    with pytest.raises(ImportError), reporting.exit_on_error():
        raise ImportError("cannot import name 'x'", name="train.recipes")  # a fault of ours
    (tmp_path / "onnx.py").write_text("raise ModuleNotFoundError('no onnx', name='onnx')\n")
    command = [sys.executable, "export/build_engine.py", "--checkpoint", "x", "--out", "y"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "onnx is needed" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_message_is_one_line_however_long_its_path(capsys: pytest.CaptureFixture[str]) -> None:
    path = f"/{'long [dir]/' * 20}model.onnx"
    reporting.say(path)
    record = logging.LogRecord("x", logging.WARNING, "", 0, "left out: %s", (path,), None)
    reporting._Lines().handle(record)
    first, second = capsys.readouterr().err.splitlines()
    assert first == path
    assert second.endswith(f" warning: left out: {path}")


def test_pytorch_is_said_to_be_loaded_only_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"epoch": 1, "loss": 1.0, "val_map": null}\n')
    said = {}
    for command in ("plot", "fit --out x --data"):
        words = [sys.executable, "-X", "importtime", "-m", "train", *command.split(), str(tmp_path)]
        out = ["--out", str(tmp_path / "log.png")] if command == "plot" else []
        done = subprocess.run([*words, *out], check=False, capture_output=True, text=True)
        lines = done.stderr.splitlines()
        loaded = any(re.search(r"\| +torch$", line) for line in lines)
        said[command] = (loaded, any("loading PyTorch" in line for line in lines))
    assert said == {"plot": (False, False), "fit --out x --data": (True, True)}
