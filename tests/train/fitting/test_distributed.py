"""The same run in one process and in several, as torchrun starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from cmlr_edge.errors import DataError
from cmlr_edge.model.spec import PreprocessSpec
from tests.tiny_training import TINY, tiny_config, write_dataset
from tests.waiting import wait_until
from train import distributed
from train.config import TrainConfig
from train.data import LabeledImages, read_dataset
from train.data.transforms import ImageTensors, build_augmentation, normalize
from train.fitting.batches import epoch_batches, load_parts
from train.fitting.learner import Learner
from train.fitting.loop import fit
from train.judging.evaluate import evaluate_run
from train.network.dropout import SampleDropout, seeded_per_sample
from train.network.model import CausalRecognizer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
SETTINGS = ["batch_size=16", "model.dropout=0.2"]
IN_TWO = [
    sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
]  # fmt: skip
# As `-m train` does it, but one command after the other: to start two processes takes most of the time.
COMMANDS = """
import json, os, sys
from train.cli.app import app
from train.distributed import join_processes
with join_processes(os.environ):
    for command in json.loads(sys.argv[1]):
        app(command, standalone_mode=False)
"""
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
# Three batches of a pass without gradients, and one: a process without any works too.
NUM_TRAIN, NUM_VAL = 72, 20


def run_in_two_processes(script: Path, *commands: list[object]) -> None:
    script.write_text(COMMANDS)
    words = json.dumps([[*map(str, command)] for command in commands])
    done = subprocess.run(
        [*IN_TWO, str(script), words],
        cwd=ROOT,
        env=ONE_THREAD,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def kill_after_an_epoch(run: Path, *arguments: object) -> None:
    process = subprocess.Popen(
        [*IN_TWO, "-m", "train", *map(str, arguments)], cwd=ROOT, env=ONE_THREAD,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_until((run / "state.pt").exists, process)
    # Its workers are in sessions of their own and would go on without it.
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(workers) >= 2
    for worker in (process.pid, *map(int, workers)):
        os.kill(worker, signal.SIGKILL)
    process.wait()
    assert not (run / "model.safetensors").exists(), "it ended before it was killed"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "squares"
    return write_dataset(root, num_train=NUM_TRAIN, num_val=NUM_VAL)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The order of sums depends on the number of threads; torchrun gives every process one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("one_thread")
def test_two_processes_killed_and_resumed_give_what_one_gives(data: Path, tmp_path: Path) -> None:
    one, two, out = tmp_path / "one", tmp_path / "two", tmp_path / "report.json"
    pictures = read_dataset(data)
    fit(pictures, one, tiny_config(*SETTINGS), cache=tmp_path / "cache_one")
    options = [part for setting in [*TINY, *SETTINGS] for part in ("--set", setting)]
    command = [
        "fit", "--data", data, "--out", two, "--recipe", "none", "--image-size", 64,
        "--cache", tmp_path / "cache_two",
        *options,
    ]  # fmt: skip
    kill_after_an_epoch(two, *command)
    evaluate = ["evaluate", "--checkpoint", one, "--data", data, "--json", out]
    run_in_two_processes(tmp_path / "commands.py", [*command, "--resume"], evaluate)
    (first,), (second,) = ((tmp_path / f"cache_{run}").iterdir() for run in ("one", "two"))
    assert first.name == second.name
    expected, found = load_file(first), load_file(second)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=0)
    assert len(losses(one)) == 3
    np.testing.assert_allclose(losses(two), losses(one), atol=1e-4)
    report = evaluate_run(one, pictures, "val", min_positives=3)
    assert json.loads(out.read_text()) == json.loads(json.dumps(report))


def learner(
    config: TrainConfig, data: LabeledImages
) -> tuple[Learner, ImageTensors, PreprocessSpec]:
    torch.manual_seed(0)
    model = CausalRecognizer(config.model, 3, pretrained=False)
    spec = PreprocessSpec((64, 64), model.backbone.mean, model.backbone.std)
    augmentation = build_augmentation(config.augmentation, (64, 64))
    made = Learner(model, config, spec, precision=torch.float32, num_steps=10)
    made.train()
    return made, ImageTensors(data, spec, augmentation=augmentation), spec


def test_a_step_in_parts_has_the_loss_and_the_gradient_of_the_whole_batch(data: Path) -> None:
    pictures = read_dataset(data).split("train")
    gradients, found = [], []
    for parts in (1, 3):
        config = tiny_config(
            *SETTINGS, f"accumulate={parts}", "model.intervention=expectation",
            "model.self_attention=true", "model.decoder_layers=2",
        )  # fmt: skip
        made, images, _ = learner(config, pictures)
        batches = epoch_batches(config, len(images), 0)
        batch = next(
            load_parts(batches, images, torch.from_numpy(pictures.targets()), None, config)
        )
        assert [len(part.seeds) for part in batch] == ([16] if parts == 1 else [5, 5, 6])
        found.append(made.step(batch))
        gradients.append(
            {name: p.grad for name, p in made.model.named_parameters() if p.grad is not None}
        )
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-3)


def test_a_sample_is_dropped_alike_wherever_it_stands_in_a_batch() -> None:
    dropout, x = SampleDropout(0.4).train(), torch.randn(5, 3, 8)
    with seeded_per_sample([1, 2, 3, 4, 5], torch.device("cpu")):
        first, again = dropout(x), dropout(x)
    with seeded_per_sample([4, 2], torch.device("cpu")):
        part = dropout(x[[3, 1]])
    torch.testing.assert_close(part, first[[3, 1]])
    assert not torch.equal(first == 0, again == 0)  # another mask in every layer
    assert not torch.equal(first[0] == 0, first[1] == 0)
    kept = first != 0
    torch.testing.assert_close(first[kept], x[kept] / 0.6)
    with seeded_per_sample(range(2000), torch.device("cpu")):
        shared = dropout(torch.ones(1, 8))
    assert shared.shape == (2000, 8)
    assert float((shared == 0).float().mean()) == pytest.approx(0.4, abs=0.02)
    assert torch.equal(dropout.eval()(x), x)


def test_rows_are_dealt_out_in_whole_batches() -> None:
    for total, batch_size in ((100, 32), (31, 32), (64, 32), (0, 32)):
        assert [*distributed.own_rows(total, batch_size)] == [*range(total)]
    assert [len(part) for part in distributed.split_evenly(range(10), 4)] == [2, 3, 2, 3]


def test_a_step_smaller_than_its_parts_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be divided"):
        fit(read_dataset(data), tmp_path / "run", tiny_config("batch_size=4", "accumulate=5"))
    assert not (tmp_path / "run").exists()


def test_training_in_fp16_scales_its_gradients_and_learns_like_float32(
    tiny_data: Path, tmp_path: Path
) -> None:
    for mode in ("off", "fp16"):
        config = tiny_config(f"amp={mode}", "epochs=2", "backbone_lr=0")
        fit(read_dataset(tiny_data), tmp_path / mode, config)
    np.testing.assert_allclose(losses(tmp_path / "fp16"), losses(tmp_path / "off"), rtol=0.02)
    state = torch.load(tmp_path / "fp16" / "state.pt", weights_only=True)
    assert state["precision"] == "float16"
    assert state["scaler"]["scale"] > 1


def test_convolutions_read_and_keep_channels_last(data: Path) -> None:
    made, images, spec = learner(tiny_config(), read_dataset(data))
    batch = normalize(images[0][None], spec)
    kernels = [m.weight for m in made.model.backbone.modules() if isinstance(m, nn.Conv2d)]
    for tensor in (batch, *kernels):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
