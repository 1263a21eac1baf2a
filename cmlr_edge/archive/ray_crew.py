"""Actors of a Ray cluster: each looks after a worker process as a thread of this machine would.

Ray Data hands units to actors, starts actors again whose node is lost, and gives their units to others.
Rows go from the worker straight to the dataset, under the unit's own name; Ray carries counts alone.
"""

from __future__ import annotations

import json
import logging
import shutil
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cmlr_edge.archive.dataset import MODEL, Counts
from cmlr_edge.archive.packages import ray
from cmlr_edge.archive.plan import Plan, Unit
from cmlr_edge.archive.stores import open_store, temporary_folder
from cmlr_edge.archive.worker import Task, UnitFailedError, Worker, WorkerSettings
from cmlr_edge.errors import EngineError
from cmlr_edge.model.files import spec_path
from cmlr_edge.model.pair import ModelPair

_ANSWER_S = 5.0
_MOST_BLOCKS = 4096  # that Ray keeps in its books
_UNITS_AT_ONCE = 4096  # told to Ray at once, and held in memory


class RayCrew:
    """Actors of a cluster that is there."""

    def __init__(self, settings: WorkerSettings, workers: int | None, address: str) -> None:
        """Connect.

        Args:
            settings: Of the workers; the dataset must be reachable from every node.
            workers: Actors at most; None for as many as the cluster has cores.
            address: Of the cluster.

        Raises:
            EngineError: It does not answer.
            DependencyError: Ray is not installed.
        """
        self._is_ending = False
        engine, store = Path(settings.engine), open_store(settings.root)
        pair = ModelPair.read(engine)
        for path, content in ((engine, pair.content), (spec_path(engine), pair.spec_text)):
            store.put_bytes(f"{MODEL}/{path.name}", content)
        self._settings = replace(settings, engine=engine.name, cores=1, memory=None)
        _require_answer(address)
        # Ray prints what happens to its nodes, where the result of a command belongs.
        self._quiet = ExitStack()
        self._quiet.enter_context(redirect_stdout(sys.stderr))
        try:
            ray().init(address=address, log_to_driver=False, logging_level="warning")
        except Exception as error:
            self._quiet.close()
            raise EngineError(f"cannot reach the Ray cluster {address}: {error}") from error
        ray().data.DataContext.get_current().enable_progress_bars = False
        for name in ("ray", "ray.data"):  # they tell each step on stderr
            logging.getLogger(name).setLevel(logging.ERROR)
        resources = ray().cluster_resources()
        self._workers = workers or max(1, int(resources.get("CPU", 1)))
        # Unverified on hardware: a GPU for each actor, where the model runs on one.
        self._on_gpu = settings.provider.startswith("cuda") and resources.get("GPU", 0) > 0

    def work(self, task: Task, units: Iterable[Unit]) -> Iterator[tuple[Unit, Counts | str]]:
        """See `Crew`."""
        waiting = iter(units)
        while handed := {unit.number: unit for unit in islice(waiting, _UNITS_AT_ONCE)}:
            arguments = (self._settings, task)
            done = hand_out([*handed], _Actor, arguments, self._workers, on_gpu=self._on_gpu)
            for row in done:
                counts, unit = json.loads(str(row["counts"])), handed[int(row["unit"])]
                yield unit, str(row["failed"]) or Counts(**counts)
                if self._is_ending:
                    return

    def request_end(self) -> None:
        """See `Crew`: with the next unit that is done."""
        self._is_ending = True

    def close(self) -> None:
        """See `Crew`: leave the cluster, whose actors end."""
        ray().shutdown()
        self._quiet.close()


def hand_out(
    numbers: Sequence[int],
    actor: type,
    arguments: tuple[Any, ...],
    workers: int,
    *,
    on_gpu: bool = False,
) -> Iterator[dict[str, Any]]:
    """Let Ray Data hand units to actors, and yield what each says of a unit once it is done.

    Args:
        numbers: Of the units.
        actor: Called with a batch of one number, {"unit": (1,)}; returns arrays of one value by name.
        arguments: It is made with them.
        workers: Actors at most.
        on_gpu: Each has a GPU for itself.
    """
    blocks = min(len(numbers), _MOST_BLOCKS)
    items = ray().data.from_items([{"unit": n} for n in numbers], override_num_blocks=blocks)
    done = items.map_batches(
        actor,
        fn_constructor_args=arguments,
        batch_size=1,
        # All at once, where a growing pool would begin with one; and none has a unit waiting that another
        # could do, or that is lost with its node.
        compute=ray().data.ActorPoolStrategy(
            size=min(workers, blocks), max_tasks_in_flight_per_actor=1
        ),
        num_cpus=1,
        num_gpus=1 if on_gpu else 0,
    )
    yield from done.iter_rows()


def _require_answer(address: str) -> None:
    """Refuse an address where nobody listens: Ray would try it for minutes.

    Raises:
        EngineError: Nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():  # "auto"
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise EngineError(
            f"cannot reach the Ray cluster {address} ({error}): start it with `ray start --head`, and "
            "give HOST:PORT as that prints it"
        ) from error


class _Actor:
    """Holds a worker process, which holds a Recognizer."""

    def __init__(self, settings: WorkerSettings, task: Task) -> None:
        """Write the model where this node can read it."""
        store = open_store(settings.root)
        self._folder = temporary_folder(self)
        engine = self._folder / settings.engine
        for path in (engine, spec_path(engine)):
            path.write_bytes(store.read(f"{MODEL}/{path.name}"))
        self._plan, self._task = Plan(store), task
        self._worker = Worker(replace(settings, engine=str(engine)), lambda: False)

    def close(self) -> None:
        """End the process and remove the model; where Ray ends the actor both end with it."""
        self._worker.close()
        self._plan.__exit__()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do the one unit of a batch."""
        counts, failed = Counts(), ""
        try:
            counts = self._worker.do(self._task, self._plan.unit(int(batch["unit"][0])))
        except UnitFailedError as error:
            failed = str(error)
        told = json.dumps(asdict(counts))
        return {"unit": batch["unit"], "counts": np.array([told]), "failed": np.array([failed])}
