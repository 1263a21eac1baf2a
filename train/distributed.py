"""Several processes that work on one run, as `torchrun` starts them; without it there is one.

Passes without gradients deal out whole batches, and whatever is random belongs to a sample: so the
number of processes does not change the result. What the first process computes alone, it shares.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor

from cmlr_edge.errors import TrainingError

_MOST_WORKERS = 8  # that read pictures for one GPU
_PATIENCE = timedelta(hours=6)  # the others wait while the first clusters or fits
T = TypeVar("T")


@contextmanager
def join_processes(environment: Mapping[str, str]) -> Iterator[None]:
    """Be one of the processes that `torchrun` started; do nothing without it.

    Args:
        environment: With `WORLD_SIZE`, `LOCAL_RANK` and the others that `torchrun` sets.

    Raises:
        TrainingError: Another process stopped.
    """
    if "WORLD_SIZE" not in environment or "LOCAL_RANK" not in environment:
        yield
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(environment["LOCAL_RANK"]) % torch.cuda.device_count())
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error).lower():
            raise TrainingError("another process stopped: the first error is its own") from error
        raise
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Which of the processes this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that writes, prints and decides."""
    return rank() == 0


def reading_workers(asked: int | None) -> int:
    """How many processes read pictures for this one: what was asked for, or what there are cores for."""
    if asked is not None:
        return asked
    return min(_MOST_WORKERS, (os.cpu_count() or 1) // count()) if device().type == "cuda" else 0


def device() -> torch.device:
    """Where this process computes: its GPU, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def split_evenly(items: Sequence[T], parts: int) -> list[Sequence[T]]:
    """Cut a sequence into runs whose lengths differ by one at most."""
    bounds = [len(items) * i // parts for i in range(parts + 1)]
    return [items[bounds[i] : bounds[i + 1]] for i in range(parts)]


def own_rows(total: int, batch_size: int, process: int | None = None) -> range:
    """Rows that one process handles: whole batches, so that batches never depend on their number.

    Args:
        total: Rows of all processes together.
        batch_size: Rows of a batch.
        process: Its rank; this one without it.
    """
    batches = split_evenly(range(-(-total // batch_size)), count())[
        rank() if process is None else process
    ]
    start, stop = (batches[0], batches[-1] + 1) if batches else (0, 0)
    return range(min(total, start * batch_size), min(total, stop * batch_size))


def gather_rows(rows: Tensor, lengths: Sequence[int]) -> Tensor:
    """Join the rows of all processes, in their order, on every process.

    Args:
        rows: This process's, (lengths[rank], ...), float32, on the CPU.
        lengths: Rows of every process.
    """
    if count() == 1:
        return rows
    padded = torch.zeros(max(lengths), *rows.shape[1:], device=device())
    padded[: len(rows)] = rows.to(padded.device)
    found = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(found, padded)
    return torch.cat([part[:n].cpu() for part, n in zip(found, lengths, strict=True)])


def gather_batches(batches: Sequence[Tensor], width: int, total: int, batch_size: int) -> Tensor:
    """Join what every process computed of its `own_rows`, (total, width)."""
    own = torch.cat([*batches]).float() if batches else torch.zeros(0, width)
    return gather_rows(own, [len(own_rows(total, batch_size, i)) for i in range(count())])


def total(value: float) -> float:
    """Sum a number over all processes."""
    if count() == 1:
        return value
    summed = torch.tensor(value, dtype=torch.float64, device=device())
    dist.all_reduce(summed)
    return float(summed)


def decide(make: Callable[[], int]) -> int:
    """Let the first process decide on a number for all."""
    if count() == 1:
        return make()
    value = torch.tensor(make() if is_first() else 0, device=device())
    dist.broadcast(value, 0)
    return int(value)


def share(make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Let the first process compute tensors, and give them to all, on the CPU."""
    if count() == 1:
        return make()
    content = save({k: v.contiguous() for k, v in make().items()}) if is_first() else b""
    size = decide(lambda: len(content))
    text = torch.zeros(size, dtype=torch.uint8, device=device())
    if is_first():
        text.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    dist.broadcast(text, 0)
    return load(text.cpu().numpy().tobytes())


def wait() -> None:
    """Wait until every process is here."""
    if count() > 1:
        dist.barrier()
