"""What goes wrong in a long training: bad pictures, labels nobody has, NaN, full disks, kills."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cmlr_edge.errors import CaptureError, DataError, OutputError, TrainingError
from cmlr_edge.model.spec import ModelSpec
from tests.tiny_training import tiny_config, write_dataset
from train.data import read_dataset
from train.data.damaged import leave_out_damaged
from train.fitting.loop import fit
from train.judging.evaluate import evaluate_run
from train.network import checkpoint
from train.reporting import progress_bars

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data")


def damage(picture: Path) -> None:
    picture.write_bytes(picture.read_bytes()[:40])


def test_a_damaged_picture_is_named_with_the_way_around_it(data: Path, tmp_path: Path) -> None:
    damage(data / "3.png")
    with pytest.raises(CaptureError, match=r"3\.png") as raised:
        fit(read_dataset(data), tmp_path / "run", tiny_config())
    assert "--skip-damaged" in str(raised.value)


def test_a_damaged_picture_to_validate_on_is_found_before_the_first_epoch(
    data: Path, tmp_path: Path
) -> None:
    for name in ("30.png", "31.png"):
        damage(data / name)
    with pytest.raises(DataError, match=r"2 of 12 .*30\.png") as raised:
        fit(read_dataset(data), tmp_path / "run", tiny_config())
    assert "--skip-damaged" in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_damaged_pictures_are_left_out_only_on_request_and_listed(
    data: Path, tmp_path: Path
) -> None:
    for name in ("3.png", "30.png"):  # of train, of val
        damage(data / name)
    run = tmp_path / "run"
    spec = fit(read_dataset(data), run, tiny_config("epochs=1", "skip_damaged=true"))
    assert spec.provenance.num_train_images == 23
    record = json.loads((run / "skipped.json").read_text())
    assert record["count"] == 2
    assert {Path(path).name for path in record["pictures"]} == {"3.png", "30.png"}
    with pytest.raises(CaptureError, match=r"30\.png"):
        evaluate_run(run, read_dataset(data), "val", min_positives=1)
    report = evaluate_run(run, read_dataset(data), "val", min_positives=1, skip_damaged=True)
    assert (report["num_images"], report["num_skipped"]) == (11, 1)


def test_what_a_run_held_out_stays_so_when_pictures_come_go_or_are_damaged(
    data: Path, tmp_path: Path
) -> None:
    table, run = data / "labels.json", tmp_path / "run"
    record = json.loads(table.read_text())
    record["images"] = [{**entry, "split": "train"} for entry in record["images"]]
    table.write_text(json.dumps(record))
    damage(data / "3.png")
    config = tiny_config("epochs=1", "skip_damaged=true", "model.intervention=none")
    fit(read_dataset(data), run, config)
    held_out = set(json.loads((run / "held_out.json").read_text()))
    assert len(held_out) == 7  # a fifth of 35
    gone = min(held_out)
    shutil.copy(data / "5.png", data / "new.png")
    record["images"] = [entry for entry in record["images"] if entry["file"] != gone]
    record["images"].insert(0, {"file": "new.png", "split": "train", "labels": []})
    table.write_text(json.dumps(record))
    moved = data.rename(tmp_path / "moved")
    part = checkpoint.held_out_by(run, read_dataset(moved)).split("val")
    assert {image.path.name for image in part.images} == held_out - {gone}
    report = evaluate_run(run, read_dataset(moved), "val", min_positives=1)
    assert report["num_images"] == 6
    other = read_dataset(write_dataset(tmp_path / "other", num_val=0))
    names = {image: f"{number}.jpg" for number, image in enumerate(other.images)}
    for image, name in names.items():
        image.path.rename(image.path.with_name(name))
    images = tuple(replace(i, path=i.path.with_name(name)) for i, name in names.items())
    drawn = checkpoint.held_out_by(run, replace(other, images=images))
    assert len(drawn.split("val").images) == 5  # drawn anew: a fifth of 24
    (run / "held_out.json").write_text("[3]")
    with pytest.raises(DataError, match=r"held_out.json cannot be read"):
        checkpoint.held_out_by(run, read_dataset(moved))


def test_of_many_damaged_pictures_a_few_are_named_and_all_counted(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(9):
        damage(data / f"{number}.png")
    kept, skipped = leave_out_damaged(read_dataset(data), progress_bars(visible=False))
    assert (len(kept.images), len(skipped)) == (27, 9)
    warnings = [line for line in caplog.messages if "left out" in line]
    assert len(warnings) == 4
    assert warnings[-1].startswith("9 of 36 pictures are left out")


def test_a_run_without_any_whole_picture_is_refused(data: Path, tmp_path: Path) -> None:
    for picture in data.glob("*.png"):
        damage(picture)
    with pytest.raises(DataError, match="none of the 36 pictures"):
        fit(read_dataset(data), tmp_path / "run", tiny_config("skip_damaged=true"))


@pytest.mark.parametrize("intervention", ["back-door", "expectation"])
def test_a_label_that_no_picture_has_is_said_and_the_others_are_learned(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, intervention: str
) -> None:
    record = json.loads((data / "labels.json").read_text())
    record["classes"].append("purple")
    (data / "labels.json").write_text(json.dumps(record))
    run, settings = tmp_path / "run", (f"model.intervention={intervention}", "epochs=1")
    spec = fit(read_dataset(data), run, tiny_config(*settings, "model.confounders.kind=kmeans"))
    assert "1 of 4 labels are on no training picture and cannot be learned: purple" in caplog.text
    assert all(np.isfinite(spec.thresholds))
    deployed = evaluate_run(run, read_dataset(data), "val", min_positives=1)["read_outs"][
        "deployed"
    ]
    assert deployed["ap"]["purple"] is None
    assert deployed["num_labels_scored"] == 3


def test_a_loss_of_nan_stops_the_run_and_the_last_epoch_stays(
    tiny_data: Path, tiny_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    for name in (checkpoint.WEIGHTS, checkpoint.SPEC):
        (run / name).unlink()
    state = checkpoint.load_state_file(run)
    assert state is not None
    state["epochs"] = 2  # one is missing
    state["model"]["readout.weight"][0, 0] = torch.nan
    checkpoint.save_state(run, state)
    before = (run / checkpoint.STATE).read_bytes()
    with pytest.raises(TrainingError, match="the loss is nan in epoch 3: epoch 2 is kept"):
        fit(read_dataset(tiny_data), run, tiny_config(), resume=True)
    assert (run / checkpoint.STATE).read_bytes() == before
    assert not (run / checkpoint.WEIGHTS).exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here: run as root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_error_and_the_last_checkpoint_stays_whole(
    small_disk: Path, tiny_run: Path
) -> None:
    run = small_disk / "run"
    checkpoint.open_folder(run, tiny_config(), None, resume=False)
    weights = torch.ones(3 * 2**20)  # 12 MB: one fits, two do not
    whole = {"precision": "float32", "epochs": 1, "weights": weights}
    checkpoint.save_state(run, whole)
    with pytest.raises(OutputError, match=r"state\.pt cannot be written: No space .*--resume"):
        checkpoint.save_state(run, {**whole, "weights": torch.zeros(3 * 2**20)})
    assert {path.name for path in run.iterdir()} == {checkpoint.CONFIG, checkpoint.STATE}
    kept = checkpoint.load_state_file(run)
    assert kept is not None
    assert torch.equal(kept["weights"], weights)
    model, spec = checkpoint.load_model(tiny_run)
    with (run / "filler").open("wb", buffering=0) as filler:
        for size in (2**16, 1):
            with suppress(OSError):
                while True:
                    filler.write(bytes(size))
    with pytest.raises(OutputError, match=r"model\.safetensors cannot be written: No space"):
        checkpoint.save_weights(run, model)
    with pytest.raises(OutputError, match=r"log\.jsonl cannot be written: No space"):
        checkpoint.append_log(run, {"epoch": 1})
    with pytest.raises(OutputError, match=r"model\.json cannot be written: No space"):
        checkpoint.save_spec(run, spec)
    assert not (run / checkpoint.SPEC).exists()
    assert isinstance(spec, ModelSpec)


def test_a_full_disk_ends_the_command_in_one_line(
    small_disk: Path, tiny_data: Path, tmp_path: Path
) -> None:
    settings = ["model.image_size=64", "epochs=1", "backbone_lr=0", "model.intervention=none"]
    options = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "train", "fit", "--data", str(tiny_data), "--cache"]
    command += [str(tmp_path / "cache"), "--out", str(small_disk / "run"), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "state.pt cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [*(small_disk / "run").glob(".*.part")]


SAVER = """
import sys, torch
from pathlib import Path
from train.network import checkpoint
run = Path(sys.argv[1])
for epoch in range(1000):
    state = {"precision": "float32", "epochs": epoch, "weights": torch.full((2**22,), float(epoch))}
    checkpoint.save_state(run, state)
"""


def test_a_process_killed_while_saving_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    checkpoint.save_config(run, tiny_config())
    saver = subprocess.Popen([sys.executable, "-c", SAVER, str(run)], cwd=ROOT)
    deadline = time.monotonic() + 120
    while not ((run / "state.pt").exists() and any(run.glob(".state.pt.*.part"))):
        assert saver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    os.kill(saver.pid, signal.SIGKILL)
    saver.wait()
    state = checkpoint.load_state_file(run)
    assert state is not None
    assert torch.equal(state["weights"], torch.full((2**22,), float(state["epochs"])))
    checkpoint.open_folder(run, tiny_config(), None, resume=True)
    assert {path.name for path in run.iterdir()} == {checkpoint.CONFIG, checkpoint.STATE}


@pytest.mark.parametrize("batch", [12, 99])  # of two steps, and of the one that there is
def test_a_warm_up_of_exactly_one_step_trains(data: Path, tmp_path: Path, batch: int) -> None:
    config = tiny_config("epochs=1", f"batch_size={batch}", "warmup_share=0.5")
    fit(read_dataset(data), tmp_path / "run", config)
    assert (tmp_path / "run" / "model.json").exists()
