"""Many jobs in several processes, one core each."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_side_by_side(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int
) -> Iterator[tuple[Job, Result]]:
    """Yield every job with its result as it ends.

    Args:
        function: Does one job; it and the jobs are sent to other processes.
        jobs: Started in this order.
        workers: Processes.
    """
    # Spawned: a fork of a process with running threads may hang.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, _one_thread) as pool:
        futures = {pool.submit(function, job): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.result()


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep this process to one core for a while."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


def _one_thread() -> None:
    """Keep every library of a worker to its own core."""
    torch.set_num_threads(1)
    threadpool_limits(1)
