"""Batches of pictures, read by workers where there are any, and one memory of decoded pictures for all."""

from __future__ import annotations

import gc
import mmap
import multiprocessing
import time
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cmlr_edge.errors import CmlrError, TrainingError

Key = TypeVar("Key")


class DecodedPictures:
    """The first pictures of a data set as they were decoded, shared with forked workers.

    A worker that decoded a picture spares all others the work, and memory is counted once for all of
    them. It is taken as pictures come.
    """

    def __init__(self, number: int, size_hw: tuple[int, int], max_bytes: int) -> None:
        """Reserve addresses for as many of `number` pictures (H, W, 3) as `max_bytes` hold."""
        shape = (*size_hw, 3)
        self._kept = min(number, max_bytes // int(np.prod(shape)))
        self._lock = multiprocessing.get_context("fork").Lock()  # also orders what it guards
        if self._kept:
            # Anonymous and shared: /dev/shm is often small, and this does not lie in it.
            pixels, there = (
                mmap.mmap(-1, self._kept * int(np.prod(shape))),
                mmap.mmap(-1, self._kept),
            )
            self._pixels: NDArray[np.uint8] = np.frombuffer(pixels, np.uint8).reshape(-1, *shape)
            self._there: NDArray[np.uint8] = np.frombuffer(there, np.uint8)

    def get(self, index: int) -> NDArray[np.uint8] | None:
        """The picture (H, W, 3), if it was kept."""
        if index >= self._kept:
            return None
        with self._lock:
            there = self._there[index]
        return self._pixels[index] if there else None

    def keep(self, index: int, image: NDArray[np.uint8]) -> None:
        """Keep a picture (H, W, 3), if it is one of those there is room for."""
        if index < self._kept:
            self._pixels[index] = image
            with self._lock:
                self._there[index] = 1


class _Caught(Dataset[Tensor | CmlrError]):
    """Gives our errors instead of raising them: a worker would wrap them in a traceback of text."""

    def __init__(self, pictures: Dataset[Tensor]) -> None:
        self._pictures = pictures

    def __getitem__(self, key: object) -> Tensor | CmlrError:
        try:
            return self._pictures[key]
        except CmlrError as error:
            return error


def _stack(items: list[Tensor | CmlrError]) -> Tensor | CmlrError:
    errors = [item for item in items if isinstance(item, CmlrError)]
    return (
        errors[0] if errors else torch.stack([item for item in items if isinstance(item, Tensor)])
    )


def _leave_to_the_parent(_worker: int) -> None:
    gc.freeze()
    gc.enable()


class BatchReader:
    """Reads batches of one data set again and again; its workers stay."""

    def __init__(self, pictures: Dataset[Tensor], workers: int) -> None:
        """Start nothing yet.

        Args:
            pictures: Give a tensor for a key.
            workers: Processes; 0: this one.
        """
        self.waited = 0.0  # seconds, of all that was read
        self._batches: list[list[Any]] = []
        self._loader: DataLoader[Tensor | CmlrError] = DataLoader(
            _Caught(pictures),
            batch_sampler=self._batches,
            collate_fn=_stack,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            multiprocessing_context="fork" if workers else None,
            worker_init_fn=_leave_to_the_parent,
        )

    def read(self, batches: list[list[Key]]) -> Iterator[Tensor]:
        """Yield the pictures (B, ...) of each batch of keys, in order.

        Raises:
            CaptureError: A picture cannot be read.
            TrainingError: A worker was ended.
        """
        self._batches[:] = batches
        if not batches:
            return
        loader = self._started()
        for _ in batches:
            started = time.perf_counter()
            try:
                batch = next(loader)
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                raise TrainingError(
                    f"a process that reads pictures was ended ({str(error).splitlines()[0]}): take "
                    "fewer workers, or a machine with more memory"
                ) from error
            self.waited += time.perf_counter() - started
            if isinstance(batch, CmlrError):
                raise batch
            yield batch

    def _started(self) -> Any:
        """Begin to read; the first time workers are forked.

        What is garbage by then is the parent's, whom alone it obeys: the workers of an older reader, or a
        film's scaler, which waits for ever for threads that no fork has. So nobody looks for garbage
        from here until a worker has put aside what it was born with; nothing of the program around
        is frozen, or unfrozen.
        """
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            return iter(self._loader)
        finally:
            if was_enabled:
                gc.enable()
