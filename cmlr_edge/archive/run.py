"""One run over an archive: planned or gone on with, done by a crew, summed up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cmlr_edge.archive.crew import Crew, LocalCrew
from cmlr_edge.archive.dataset import (
    EVENTS,
    FRAMES,
    MANIFEST,
    PARTS,
    PICTURES,
    Counts,
    read_counts,
)
from cmlr_edge.archive.header import Header, ModelFacts, versions
from cmlr_edge.archive.inputs import HEADER, list_items
from cmlr_edge.archive.packages import arrow
from cmlr_edge.archive.plan import (
    PLAN,
    Cutting,
    Plan,
    PlanSize,
    Unit,
    cut,
    measure,
    write_plan,
)
from cmlr_edge.archive.stores import LocalStore, Store, being_written, open_store
from cmlr_edge.archive.worker import WorkerSettings, split_cores
from cmlr_edge.backends.base import no_explanation
from cmlr_edge.errors import DataError, OutputError, SpecError
from cmlr_edge.machine.facts import usable_cores
from cmlr_edge.machine.hardware import available_memory
from cmlr_edge.machine.waiting import try_lock
from cmlr_edge.model.files import model_path
from cmlr_edge.model.pair import ModelPair
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.redaction import printable, redact
from cmlr_edge.why import Explain

_SHARE_OF_MEMORY = 0.8  # for all workers together
_READERS = 16  # threads that ask a storage for what is done


@dataclass(frozen=True)
class ArchiveSettings:
    """What a run is asked to do."""

    inputs: tuple[str, ...]  # () to go on with those of the dataset
    out: str  # folder or address of the dataset
    engine: Path
    provider: str | None = None
    thresholds: Mapping[str, float] | float | None = None
    cutting: Cutting = field(default_factory=Cutting)
    max_fps: float | None = None  # frames a second of a film; None for all
    explain: Explain | None = None  # rows say why; the engine has to be able to
    workers: int | None = None  # None: as many as there are cores
    ray: str = ""  # address of a cluster


@dataclass
class Summary:
    """How a run ended."""

    total: Counts  # of the dataset
    size: PlanSize
    undone: list[str]  # reasons, one for each unit that could not be done
    units_left: int
    rows_now: int  # of this run
    seconds: float  # likewise
    provider: str  # that ran the model

    def to_record(self) -> dict[str, Any]:
        """Build a JSON-ready object."""
        return {
            "rows": self.total.rows,
            "failures": self.total.failures,
            "labels": dict(sorted(self.total.labels.items(), key=lambda item: -item[1])),
            "events": self.total.events,
            "plan": asdict(self.size),
            "units_left": self.units_left,
            "reasons": sorted({*self.undone})[:10],
            "run": {
                "rows": self.rows_now,
                "seconds": round(self.seconds, 3),
                "rows_per_second": round(self.rows_now / self.seconds, 2) if self.seconds else None,
            },
            "busy_seconds": round(self.total.busy_s, 3),
            "provider": self.provider,
        }


class Archive:
    """A dataset that is being made; a context manager, and nobody else's meanwhile."""

    def __init__(self, settings: ArchiveSettings) -> None:
        """Remember what is asked; nothing is opened yet."""
        self._settings = settings
        self.store: Store = open_store(settings.out)
        self._cleanup = ExitStack()
        self._is_ending = False
        self._crew: Crew | None = None

    def __enter__(self) -> Archive:
        """Open model and dataset, and plan where that was not done.

        Raises:
            SpecError: The dataset was begun with something else.
            CaptureError: An input means nothing.
            EngineError: The model cannot be opened, or cannot say why where that is wanted.
            OutputError: Another run writes this dataset.
            DataError: Its plan is gone, and its inputs are others now.
            DependencyError: PyArrow is not installed.
        """
        arrow()  # said before a model is opened, which takes its time
        with self._cleanup:
            known = self._begun()
            self.header = self._header(known)
            if known is not None:
                known.require_same(self.header, self.store.root)
            self._lock()
            if known is None and (known := self._begun()) is not None:
                # Another run began and ended while the model was opened.
                known.require_same(self.header, self.store.root)
            if known is None or not self.store.has(PLAN):
                if known is not None:
                    self._require_same_units()
                write_plan(self._units(), self.store)
            if known is None:  # the header last: it says that the plan is whole
                self.header.write(self.store)
            self._cleanup = self._cleanup.pop_all()
        return self

    def _begun(self) -> Header | None:
        """The dataset's header; None where nothing was begun.

        Raises:
            DataError: Its rows are there, and nothing says what they are of.
        """
        known = Header.read(self.store)
        if known is None and any(map(self.store.names, (PICTURES, FRAMES, EVENTS, PARTS))):
            raise DataError(
                f"{redact(self.store.root)} holds rows, and its {HEADER} is gone: nobody can tell what they "
                "are of; give another --out, or delete them"
            )
        return known

    def _units(self) -> Iterator[Unit]:
        return cut(list_items(self.header.inputs), self.header.cutting)

    def _require_same_units(self) -> None:
        """Refuse to plan anew where rows are of units that would not be in the plan: some would be twice."""
        done = _Done(self.store)
        names = {name for unit in self._units() for name in (unit.name, unit.whole)}
        if strange := (done.pictures | done.films | done.parts) - names:
            raise DataError(
                f"{redact(self.store.root)} has no plan any more, and its inputs are not those of its rows "
                f"({len(strange)} files): give another --out"
            )

    def __exit__(self, *about: object) -> None:
        """Let the dataset go."""
        self._cleanup.close()

    def plan_size(self) -> PlanSize:
        """What would be done, without a model or a dataset; for inputs that were given."""
        return measure(cut(list_items(self._settings.inputs), self._settings.cutting))

    def request_end(self) -> None:
        """Stop as soon as possible; what has no file yet is done the next time."""
        self._is_ending = True
        if self._crew is not None:
            self._crew.request_end()

    def left(self) -> tuple[PlanSize, PlanSize]:
        """What the plan amounts to, and what of it is to be done."""
        done = _Done(self.store)
        whole, left = PlanSize(), PlanSize()
        with Plan(self.store) as plan:
            for unit in plan:
                whole = measure([unit], whole)
                if not done.has(unit):
                    left = measure([unit], left)
        return whole, left

    def run(self, on_unit: Callable[[Unit, Counts], None] | None = None) -> Summary:
        """Do what is not done, and sum up.

        Args:
            on_unit: Told of every unit that is done.
        """
        start_s, now, undone = time.monotonic(), Counts(), list[str]()
        self._crew = self._open_crew()
        try:
            for task, units in (("label", self._waiting), ("join", self._joinable)):
                for unit, told in self._crew.work(task, self._until_end(units())):  # type: ignore[arg-type]
                    if isinstance(told, str):
                        undone.append(told)
                        continue
                    now.add(told)
                    if on_unit is not None:
                        on_unit(unit, told)
        finally:
            self._crew.close()
        seconds = time.monotonic() - start_s
        whole, left = self.left()
        joins = sum(1 for _ in self._joinable())
        total = self._write_manifest(complete=not left.units and not joins)
        return Summary(
            total, whole, undone, left.units + joins, now.rows, seconds, self.header.model.provider
        )

    def _until_end(self, units: Iterable[Unit]) -> Iterator[Unit]:
        for unit in units:
            if self._is_ending:
                return
            yield unit

    def _waiting(self) -> Iterator[Unit]:
        done = _Done(self.store)
        with Plan(self.store) as plan:
            yield from (unit for unit in plan if not done.has(unit))

    def _joinable(self) -> Iterator[Unit]:
        """Long films all of whose parts are there, and which are not put together."""
        done = _Done(self.store)
        with Plan(self.store) as plan:
            for unit in plan:
                if unit.kind == "film" and unit.parts > 1 and unit.part == 0:
                    parts = (replace(unit, part=part) for part in range(unit.parts))
                    if not done.is_joined(unit) and all(part.name in done.parts for part in parts):
                        yield unit

    def _header(self, known: Header | None) -> Header:
        asked = self._settings
        if known is None and not asked.inputs:
            raise SpecError(
                f"there is no dataset {asked.out} to go on with: give what is to be labelled"
            )
        path = model_path(asked.engine)
        provider = asked.provider or (known.model.provider if known else None)
        margin = known.explain_margin if known else None
        margin = asked.explain.margin if asked.explain else margin
        pair = ModelPair.read(path)
        with Recognizer.from_pair(
            pair, provider=provider, thresholds=asked.thresholds
        ) as recognizer:
            if margin is not None and not recognizer.explains:
                raise no_explanation(recognizer.spec.name)
            thresholds = [*recognizer.thresholds.values()]
            model = ModelFacts.of(pair, recognizer.provider, thresholds)
        inputs = tuple(_absolute(text) for text in asked.inputs) or (known.inputs if known else ())
        if asked.inputs:
            _check_places(inputs, self.store.root)
        cutting = asked.cutting if known is None or asked.cutting != Cutting() else known.cutting
        max_fps = asked.max_fps if asked.max_fps or not known else known.max_fps
        return Header(inputs, model, cutting, max_fps, margin, versions())

    def _lock(self) -> None:
        """Keep others off a folder; in object storage two runs do the same work, and no harm."""
        if not isinstance(self.store, LocalStore):
            return
        path = Path(self.store.root)
        made = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
            file = self._cleanup.enter_context((path / "_lock").open("w"))
        except OSError as error:
            raise OutputError(f"cannot write into {path}: {error.strerror}") from error
        if not try_lock(file):
            raise OutputError(f"another run writes {path}: wait for its end")
        self.store.clean()
        self._cleanup.callback(_leave, self.store, made)

    def _open_crew(self) -> Crew:
        cores = usable_cores()
        workers = self._settings.workers or cores
        model = self.header.model
        settings = WorkerSettings(
            engine=str(model_path(self._settings.engine).absolute()),
            provider=model.provider,
            thresholds=dict(zip(model.labels, model.thresholds, strict=True)),
            root=self.store.root,
            about=self.header.about(),
            cores=split_cores(cores, workers),
            max_fps=self.header.max_fps,
            explain_margin=self.header.explain_margin,
            identity=model.identity,
            memory=int(_SHARE_OF_MEMORY * available_memory()) // workers,
        )
        if not self._settings.ray:
            return LocalCrew(settings, workers)
        from cmlr_edge.archive.ray_crew import RayCrew

        return RayCrew(settings, self._settings.workers, self._settings.ray)

    def _write_manifest(self, *, complete: bool) -> Counts:
        """List the files of the dataset with what each amounts to, once all are there."""
        names = [
            f"{folder}/{name}.parquet"
            for folder in (PICTURES, EVENTS)
            for name in sorted(self.store.names(folder))
        ]
        with ThreadPoolExecutor(_READERS) as pool:
            counts = [*pool.map(lambda name: read_counts(self.store, name), names)]
        total = Counts()
        for item in counts:
            total.add(item)
        if complete:
            pa, path = arrow(), self.store.scratch() / "manifest"
            rows = [
                {
                    "file": name,
                    "rows": c.rows,
                    "failures": sum(c.failures.values()),
                    "events": c.events,
                    "bytes": c.bytes,
                    "busy_s": c.busy_s,
                }
                for name, c in zip(names, counts, strict=True)
            ]
            with being_written(self.store.root):
                pa.parquet.write_table(pa.Table.from_pylist(rows), str(path), compression="zstd")
                self.store.put(MANIFEST, path)
        return total


class _Done:
    """Which units have their file."""

    def __init__(self, store: Store) -> None:
        self.pictures, self.films = store.names(PICTURES), store.names(EVENTS)
        self.parts = store.names(PARTS)

    def has(self, unit: Unit) -> bool:
        if unit.kind != "film":
            return unit.name in self.pictures
        return self.is_joined(unit) or unit.name in self.parts

    def is_joined(self, unit: Unit) -> bool:
        return unit.whole in self.films


def _leave(store: LocalStore, made: Iterable[Path]) -> None:
    """Clear what is unfinished; where nothing was begun, no trace stays."""
    store.clean()
    if not store.has(HEADER):
        store.remove(["_lock"])
        for folder in made:
            with suppress(OSError):  # it was put to use
                folder.rmdir()


def _check_places(inputs: Iterable[str], out: str) -> None:
    """Refuse names that no header can hold, and inputs in the dataset: what lies in one is left out."""
    for text in (*inputs, out):
        if not text.isprintable():
            raise SpecError(f"{printable(text)} is no printable name: give it another one first")
    for text in inputs:
        if Path(os.path.normpath(text)).is_relative_to(os.path.normpath(out)):
            raise SpecError(
                f"{redact(text)} lies in {redact(out)}, which would become a dataset, and nothing in one "
                "is labelled again: give a folder of its own as --out"
            )


def _absolute(text: str) -> str:
    """An input that means the same from another folder."""
    from cmlr_edge.archive.stores import is_address

    return text if is_address(text) else str(Path(text.removeprefix("file://")).absolute())
