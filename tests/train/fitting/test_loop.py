from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cmlr_edge.capture.images import read_image
from cmlr_edge.errors import DataError, OutputError, TrainingError
from cmlr_edge.machine.claim import IN_USE
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.preprocess import preprocess
from tests.tiny_training import IMAGENET, TINY, tiny_config
from tests.waiting import wait_until
from train.cli.evaluate import evaluate
from train.data import read_dataset
from train.data.transforms import ImageTensors
from train.explaining.plot import plot_log, write_table
from train.fitting.loop import fit
from train.fitting.run import check_folder
from train.judging.evaluate import evaluate_run
from train.network.checkpoint import (
    check_writable,
    load_config,
    load_model,
    load_state_file,
    save_state,
)
from train.reporting import exit_on_error

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "train"]
SETTINGS = [part for setting in TINY for part in ("--set", setting)]


def same_weights(first: Path, second: Path) -> bool:
    a, b = (load_file(run / "model.safetensors") for run in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_folder_holds_weights_spec_config_and_log(tiny_run: Path) -> None:
    names = {path.name for path in tiny_run.iterdir()}
    assert names == {
        "model.safetensors", "model.json", "config.json", "log.jsonl", "state.pt", "report.json",
    }  # fmt: skip
    spec = ModelSpec.load(tiny_run / "model.json")
    assert spec.labels == ("red", "green", "blue")
    assert spec.preprocess.size_hw == (64, 64)
    assert load_config(tiny_run) == tiny_config()
    log = [json.loads(line) for line in (tiny_run / "log.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in log] == [1, 2, 3]
    # The rate of each epoch's last step, which falls to the very end.
    assert log[0]["lr"] > log[1]["lr"] > 1e-6 > log[2]["lr"]


def test_a_killed_run_resumes_to_the_same_weights(
    tiny_data: Path, tiny_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    command = [*COMMAND, "fit", "--data", tiny_data, "--out", run, "--recipe", "none", *SETTINGS]
    command += ["--image-size", "64", "--epochs", "3", "--batch-size", "8"]
    process = subprocess.Popen([str(part) for part in command], cwd=ROOT, stderr=subprocess.PIPE)
    wait_until((run / "state.pt").exists, process)
    process.kill()
    process.communicate()
    assert not (run / "model.safetensors").exists(), "it ended before it was killed"
    fit(read_dataset(tiny_data), run, tiny_config(), resume=True)
    assert same_weights(run, tiny_run)
    assert [json.loads(line)["epoch"] for line in (run / "log.jsonl").read_text().splitlines()] == [
        1,
        2,
        3,
    ]


def test_another_seed_gives_other_weights(tiny_data: Path, tiny_run: Path, tmp_path: Path) -> None:
    fit(read_dataset(tiny_data), tmp_path / "run", tiny_config("seed=1"))
    assert not same_weights(tmp_path / "run", tiny_run)


def test_training_learns_what_the_squares_show(tiny_data: Path, tmp_path: Path) -> None:
    settings = (*IMAGENET, "epochs=15", "backbone_lr=0", "lr=3e-3", "augmentation=flip")
    fit(read_dataset(tiny_data), tmp_path / "run", tiny_config(*settings))
    report = evaluate_run(tmp_path / "run", read_dataset(tiny_data), "val", min_positives=1)
    assert report["read_outs"]["deployed"]["mean_ap"] > 0.8


@pytest.mark.parametrize(
    "settings",
    [
        ["model.intervention=none"],
        ["model.intervention=expectation"],
        ["model.label_links=attention"],
        ["model.label_links=none", "model.inference_context=own", "weight_storage=float16"],
        ["model.decoder_layers=2", "model.self_attention=true", "augmentation=strong"],
    ],
    ids=lambda settings: settings[0],
)
def test_every_option_trains_reloads_and_scores_alike(
    tiny_data: Path, tmp_path: Path, settings: list[str]
) -> None:
    data = read_dataset(tiny_data)
    spec = fit(data, tmp_path / "run", tiny_config("epochs=1", *settings))
    report = evaluate_run(tmp_path / "run", data, "val", min_positives=3)
    logged = spec.provenance.metrics["val_map"]
    assert report["read_outs"]["deployed"]["mean_ap"] == pytest.approx(logged, abs=1e-3)


def test_training_shrinks_links_by_the_sparsity_and_only_by_it(
    tiny_data: Path, tiny_run: Path, tmp_path: Path
) -> None:
    fit(read_dataset(tiny_data), tmp_path / "run", tiny_config("epochs=1", "link_sparsity=1000"))
    name = "links.strength"
    assert not load_file(tmp_path / "run" / "model.safetensors")[name].any()
    assert load_file(tiny_run / "model.safetensors")[name].any()


def test_weights_stored_as_float16_are_exactly_float16(tiny_data: Path, tmp_path: Path) -> None:
    settings = ("epochs=1", "weight_storage=float16", "backbone_lr=0")
    fit(read_dataset(tiny_data), tmp_path / "run", tiny_config(*settings))
    for tensor in load_file(tmp_path / "run" / "model.safetensors").values():
        if tensor.dtype == torch.float32:
            assert torch.equal(tensor, tensor.half().float())


def test_evaluation_input_is_exactly_what_the_sdk_feeds(tiny_data: Path, tiny_run: Path) -> None:
    spec = ModelSpec.load(tiny_run / "model.json").preprocess
    data = read_dataset(tiny_data)
    tensors = ImageTensors(data, spec)
    for index, image in enumerate(data.images[:5]):
        expected = preprocess(read_image(image.path), spec)
        np.testing.assert_array_equal(tensors[index].permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("batch", [8, 999])  # after the last step, no loss shows what it did
def test_a_network_that_grows_without_bound_is_never_kept(
    tiny_data: Path, tmp_path: Path, batch: int
) -> None:
    rates = ("lr=1e6", "gradient_clip=1e30", "backbone_lr=1e6", f"batch_size={batch}")
    run = tmp_path / "run"
    with pytest.raises(TrainingError, match="lower --lr"):
        fit(read_dataset(tiny_data), run, tiny_config(*rates, "epochs=1"))
    assert [path.name for path in run.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("model.json", "{}", "holds a model.json of something else"),  # an engine's
        ("config.json", '{"model_type": "vit"}', "holds a config.json of something else"),
        ("log.jsonl", None, "log.jsonl cannot be written: not a file"),  # a pipe: nobody reads it
    ],
)
def test_nothing_is_lost_of_a_folder_that_is_no_runs(
    tiny_data: Path, tmp_path: Path, name: str, content: str | None, says: str
) -> None:
    if content is None:
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises((DataError, OutputError), match=says):
        fit(read_dataset(tiny_data), tmp_path, tiny_config("epochs=1"))
    assert content is None or (tmp_path / name).read_text() == content


def test_two_processes_do_not_train_in_one_folder(tiny_data: Path, tmp_path: Path) -> None:
    code = "import sys, time; from pathlib import Path; from cmlr_edge.machine.claim import Claim\n"
    code += "with Claim(Path(sys.argv[1]), 'it'): print(flush=True); time.sleep(60)"
    run = tmp_path / "run"
    command = [sys.executable, "-c", code, str(run / IN_USE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(OutputError, match=rf"run is in use by process {other.pid}"):
            fit(read_dataset(tiny_data), run, tiny_config())
        other.kill()
    assert not (run / "config.json").exists()


@pytest.mark.parametrize("to", ["nowhere", "link"])
def test_a_link_that_leads_nowhere_is_no_run_folder(tmp_path: Path, to: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / to)
    with pytest.raises(OutputError, match=r"link cannot be written: (No such|Too many)"):
        check_writable(tmp_path / "link")


@pytest.mark.parametrize("kind", [MemoryError, RuntimeError, ImportError])
def test_memory_that_ends_is_one_line(
    capsys: pytest.CaptureFixture[str], kind: type[Exception]
) -> None:
    with pytest.raises(SystemExit), exit_on_error():
        raise kind("CUDA out of memory. Tried to allocate 2.00 GiB\nmore")
    said = capsys.readouterr().err
    assert "not enough memory (CUDA out of memory. Tried to allocate 2.00 GiB): take" in said


def test_a_run_is_never_overwritten_and_never_resumed_as_another(
    tiny_data: Path, tiny_run: Path
) -> None:
    data = read_dataset(tiny_data)
    with pytest.raises(DataError, match="holds a run already"):
        fit(data, tiny_run, tiny_config())
    with pytest.raises(DataError, match=r"asked for: epochs was \d+, now 9: resume"):
        fit(data, tiny_run, tiny_config("epochs=9"), resume=True)


def test_a_run_goes_on_with_other_workers_and_parts_of_a_step(
    tiny_data: Path, tiny_run: Path
) -> None:
    config = tiny_config("workers=1", "accumulate=2")
    assert check_folder(tiny_run, config, read_dataset(tiny_data))


def test_a_run_is_not_resumed_on_other_pictures_under_the_same_names(
    tiny_data: Path, tiny_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_data, tmp_path / "data")
    shutil.copytree(tiny_run, tmp_path / "run")
    data = replace(read_dataset(tmp_path / "data"), name=tiny_data.name)
    assert check_folder(tmp_path / "run", tiny_config(), data)  # a copy is no change
    shutil.copy(data.images[0].path, data.images[1].path)
    with pytest.raises(DataError, match="under the same names lie files of other sizes"):
        fit(data, tmp_path / "run", tiny_config(), resume=True)
    state = load_state_file(tmp_path / "run")
    assert state is not None
    del state["sizes"]  # of a run before 0.2
    save_state(tmp_path / "run", state)
    assert check_folder(tmp_path / "run", tiny_config(), data)


def test_an_interrupt_while_the_state_is_written_is_no_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*_: object) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("unexpected pos 59040256 vs 59040148")  # as torch's writer does

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(KeyboardInterrupt):
        save_state(tmp_path, {})
    assert not [*tmp_path.iterdir()]


def test_data_without_val_is_evaluated_on_what_the_run_held_out(
    tiny_data: Path, tiny_run: Path
) -> None:
    data = read_dataset(tiny_data)
    data = replace(data, images=data.split("train").images)
    report = evaluate_run(tiny_run, data, "val", min_positives=1)
    assert report["num_images"] == round(0.2 * len(data.images))


def test_damaged_runs_are_one_error(tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"config.json cannot be read"):
        load_model(tmp_path)
    for name in ("config.json", "model.json"):
        (tmp_path / name).write_bytes((tiny_run / name).read_bytes())
    with pytest.raises(DataError, match=r"model.safetensors cannot be read"):
        load_model(tmp_path)
    whole = (tiny_run / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"model.safetensors cannot be read"):
        load_model(tmp_path)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('a pickle was run')",)


def test_a_pickle_in_place_of_the_state_is_never_run(tiny_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "state.pt").write_bytes(pickle.dumps(Bomb()))
    (run / "config.json").write_bytes(b"")
    from train.network.checkpoint import save_config

    save_config(run, tiny_config())
    with pytest.raises(DataError, match=r"state.pt cannot be read .*: delete it") as refused:
        fit(read_dataset(tiny_data), run, tiny_config(), resume=True)
    assert "weights_only" not in str(refused.value)  # no advice to run it after all


@pytest.mark.parametrize(
    "change", [{"epochs": "2"}, {"precision": "nope"}, {"model": {}}, {"optimizer": {}}], ids=str
)
def test_a_state_that_does_not_fit_is_one_error(
    tiny_data: Path, tiny_run: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    state = load_state_file(tiny_run)
    assert state is not None
    save_state(tmp_path / "run", {**state, "epochs": 2, **change})
    with pytest.raises(DataError, match=r"state.pt (is of an older version|does not fit)"):
        fit(read_dataset(tiny_data), tmp_path / "run", tiny_config(), resume=True)


def test_the_log_is_drawn(tiny_run: Path, tmp_path: Path) -> None:
    plot_log(tiny_run, tmp_path / "log.png")
    assert read_image(tmp_path / "log.png").std() > 5
    write_table(tiny_run, tmp_path / "log.csv")
    with (tmp_path / "log.csv").open() as file:
        rows = [*csv.DictReader(file)]
    logged = [json.loads(line) for line in (tiny_run / "log.jsonl").read_text().splitlines()]
    assert [{k: float(v) for k, v in row.items()} for row in rows] == logged
    with pytest.raises(DataError, match=r"log.jsonl cannot be read"):
        plot_log(tmp_path, tmp_path / "none.png")
    odd = tmp_path / r"$\frac$"
    odd.mkdir()
    (odd / "log.jsonl").write_text((tiny_run / "log.jsonl").read_text())
    plot_log(odd, tmp_path / "odd.png")
    assert read_image(tmp_path / "odd.png").std() > 5


def test_a_finished_run_without_its_state_is_not_trained_again(
    tiny_data: Path, tiny_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "run" / "state.pt").unlink()
    with pytest.raises(DataError, match="is finished"):
        fit(read_dataset(tiny_data), tmp_path / "run", tiny_config(), resume=True)
    assert (tmp_path / "run" / "log.jsonl").read_text() == (tiny_run / "log.jsonl").read_text()


def test_data_without_training_pictures_leaves_no_run(tiny_data: Path, tmp_path: Path) -> None:
    data = read_dataset(tiny_data).split("val")
    with pytest.raises(DataError, match=r"no picture to train on: .* beside those of val"):
        fit(data, tmp_path / "run", tiny_config())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty: no epoch has ended"),
        ('{"epoch": 1, "loss": 2}\n', r"log.jsonl:1 is no epoch"),
        ('{"epoch": 1, "loss": 2, "val_map": null}\n[3]\n', r"log.jsonl:2 is no epoch"),
        ('{"epoch": 1, "loss": "a", "val_map": 0.5}\n', r"log.jsonl:1 is no epoch"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_a_log_of_something_else_is_one_error(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(DataError, match=why):
        write_table(tmp_path, tmp_path / "log.csv")
    assert not (tmp_path / "log.csv").exists()


def test_evaluate_writes_json_and_shows_its_intervals(
    tiny_run: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.json"
    evaluate(tiny_run, tiny_data, json_file=out)
    read_outs = json.loads(out.read_text())["read_outs"]
    assert set(read_outs) == {"deployed", "decoupled", "own_context", "prior_context"}
    found, said = read_outs["deployed"], capsys.readouterr()
    there = read_dataset(tiny_data).split("val").targets().sum(axis=0)
    assert [*found["positives"].values()] == there.tolist()
    assert {"op", "or"} <= found.keys() & found["top3"].keys()
    low, high = found["mean_ap_interval"]
    assert f"{found['mean_ap']:.3f} ({low:.2f} to {high:.2f})" in said.out
    assert f"{int(there.sum())} positives in all" in said.out
    assert "these pictures also chose the run's epoch" in said.err


def test_pictures_that_chose_nothing_are_not_said_to_flatter(
    tiny_run: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(tiny_run, tiny_data, split="train")
    assert "also chose" not in capsys.readouterr().err


def test_a_wrong_call_is_one_line(tiny_data: Path, tmp_path: Path) -> None:
    where = ["--data", str(tiny_data), "--out", str(tmp_path / "r")]
    command = [*COMMAND, "fit", *where, "--set", "epoch=3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no setting 'epoch'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "r").exists()
