"""One unit of work, done: its pictures decoded and recognised as on a device, and its file written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.archive.dataset import (
    EVENTS,
    FRAMES,
    PARTS,
    PICTURES,
    Counts,
    Row,
    Tables,
    read_counts,
    why_of,
    writing,
)
from cmlr_edge.archive.films import (
    Assembly,
    PartFacts,
    Picks,
    complaints,
    fit_together,
    opened_part,
)
from cmlr_edge.archive.packages import arrow
from cmlr_edge.archive.pictures import Found, find_pictures
from cmlr_edge.archive.plan import Unit, shown_path
from cmlr_edge.archive.stores import Store, being_read
from cmlr_edge.capture.timeline import TimeLine
from cmlr_edge.errors import CaptureError
from cmlr_edge.frame import Frame
from cmlr_edge.pipeline.outlet import judge_by
from cmlr_edge.preprocess import Prepared
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.why import Explain

_FACTS = b"cmlr_edge.part"
_BATCH = 8  # as in a run of `label`
OPENING = -1  # instead of a picture's number: the file that holds them is opened


class Labeller:
    """Does units with one recognizer, and writes into one dataset."""

    def __init__(
        self,
        recognizer: Recognizer,
        tables: Tables,
        store: Store,
        note: Callable[[int], None],
        max_fps: float | None = None,
        explain: Explain | None = None,
    ) -> None:
        """Start.

        Args:
            recognizer: Stays its owner's.
            tables: Of the dataset.
            store: Of the dataset.
            note: Told the number of each picture or frame of a unit before it is read, so that
                whoever watches knows which one ended the process.
            max_fps: Frames a second of a film that are looked at; None for all.
            explain: Rows say why, as the tables are made for.
        """
        self._recognizer, self._tables, self._store, self._note = recognizer, tables, store, note
        self.max_fps, self._explain = max_fps, explain or False
        self._batch = batch_size(recognizer)
        self._stability = judge_by(recognizer, None).stability

    def do(self, unit: Unit, skip: Mapping[int, tuple[str, str]]) -> Counts:
        """Do a unit, unless it was done: then tell what came of it.

        Args:
            unit: Of the plan.
            skip: Kind and reason, by number, of what is not to be read: it ended processes before.

        Raises:
            StorageError: A storage did not answer.
            OSError: The dataset cannot be written.
        """
        name = home_of(unit)
        with suppress(FileNotFoundError):
            return read_counts(self._store, name)
        if unit.kind != "film":
            return self._do_pictures(unit, name, skip)
        if unit.parts == 1:
            return self._do_film(unit, skip)
        return self._do_part(unit, name, skip)

    def join(self, unit: Unit) -> Counts:
        """Put the parts of a long film together.

        Args:
            unit: Any part of it; all are in the dataset.
        """
        start_s = time.perf_counter()
        names = [f"{PARTS}/{replace(unit, part=part).name}.parquet" for part in range(unit.parts)]
        facts = [_facts_of(self._store, name) for name in names]
        if not (fit_together(facts) and self._are_picked_alike(facts, names)):
            counts = self._do_film(replace(unit, part=0, parts=1), {}, named_by=unit)
            self._store.remove(names)
            return counts
        [item] = unit.items
        assembly, counts, frames = Assembly(unit, facts[0], self._stability), Counts(), 0
        for part, name in enumerate(names):
            place = f"{FRAMES}/{replace(unit, part=part).name}.parquet"
            with writing(self._store, place, self._tables) as writer:
                for row in _rows_of(self._store, name, self._tables):
                    self._note(frames)
                    if (placed := assembly.place(row)) is not None:
                        writer.add(placed)
                    frames += 1
                if part == unit.parts - 1:
                    for row in complaints(item, facts, frames):
                        writer.add(row)
                writer.counts.units = 0
            counts.add(writer.counts)
        counts.busy_s = time.perf_counter() - start_s
        for name in names:
            counts.add(read_counts(self._store, name))
        self._write_events(unit, assembly, counts)
        self._store.remove(names)
        return counts

    def _are_picked_alike(self, facts: Sequence[PartFacts], names: Sequence[str]) -> bool:
        """Whether parts looked at the frames that one process would have looked at."""
        if self.max_fps is None:
            return True
        picks = Picks(self.max_fps, TimeLine(facts[0].fps, may_jump=facts[0].may_jump))
        return all(
            picks.wants(row.stream_s) == (row.scores is not None)
            for name in names
            for row in _rows_of(self._store, name, self._tables)
        )

    def _do_pictures(self, unit: Unit, name: str, skip: Mapping[int, tuple[str, str]]) -> Counts:
        start_s = time.perf_counter()
        with writing(self._store, name, self._tables) as writer:
            for row in self._scored(self._picture_samples(unit, skip)):
                writer.add(row)
            writer.counts.bytes = unit.size
            writer.counts.busy_s = time.perf_counter() - start_s
        return writer.counts

    def _picture_samples(
        self, unit: Unit, skip: Mapping[int, tuple[str, str]]
    ) -> Iterator[tuple[Row, Prepared | None]]:
        if OPENING in skip:  # it cannot be read to its end
            for item in unit.items:
                row = Row(shown_path(item), modified_at=item.modified)
                yield _failure(row, *skip[OPENING]), None
            return
        self._note(OPENING)
        try:
            for number, found in enumerate(find_pictures(unit)):
                self._note(number)
                yield self._sample(found, skip.get(number))
        except CaptureError as error:  # the file that should hold the pictures
            [item] = unit.items
            yield (
                _failure(Row(shown_path(item), modified_at=item.modified), error.kind, str(error)),
                None,
            )

    def _sample(self, found: Found, refused: tuple[str, str] | None) -> tuple[Row, Prepared | None]:
        row = Row(found.path, found.member, modified_at=found.item.modified)
        if refused is not None:
            return _failure(row, *refused), None
        try:
            image, taken_at = found.decode()
        except CaptureError as error:
            return _failure(row, error.kind, str(error)), None
        except MemoryError:
            return _failure(
                row, "too large", f"{found.path}: there is not enough memory for it"
            ), None
        row = replace(
            row, taken_at=taken_at, width=image.shape[1], height=image.shape[0], status="ok"
        )
        return row, self._prepare(image, "ok")

    def _prepare(self, image: NDArray[np.uint8], status: Any) -> Prepared:
        """The model's input of an image, without the image: of a batch only one is held at a time."""
        frame = Frame(image, 0, None, 0.0, 0.0, "", status)
        prepared = self._recognizer.prepare(frame)
        pixels = prepared.pixels
        return replace(prepared, input=pixels, frame=replace(frame, image_bgr=pixels))

    def _scored(self, samples: Iterator[tuple[Row, Prepared | None]]) -> Iterator[Row]:
        """Rows with scores, in the order of the samples; failures pass."""
        held: list[tuple[Row, Prepared | None]] = []
        waiting = 0
        for sample in samples:
            held.append(sample)
            waiting += sample[1] is not None
            if waiting == self._batch or len(held) >= 8 * self._batch:
                yield from self._recognised(held)
                held, waiting = [], 0
        yield from self._recognised(held)

    def _recognised(self, held: list[tuple[Row, Prepared | None]]) -> Iterator[Row]:
        inputs = [prepared for _, prepared in held if prepared is not None]
        predictions = iter(self._recognizer.recognize_prepared(inputs, explain=self._explain))
        for row, prepared in held:
            if prepared is None:
                yield row
                continue
            prediction = next(predictions)
            labels = tuple(item.label for item in prediction.labels)
            why = None
            if (reasons := prediction.why) is not None:
                why = why_of({name: reasons[name].to_dict() for name in labels})
            yield replace(row, scores=prediction.scores, labels=labels, why=why)

    def _do_film(
        self, unit: Unit, skip: Mapping[int, tuple[str, str]], named_by: Unit | None = None
    ) -> Counts:
        """A film as a whole: its rows, then its events."""
        start_s, [item], named_by = time.perf_counter(), unit.items, named_by or unit
        with writing(self._store, f"{FRAMES}/{named_by.whole}.parquet", self._tables) as writer:
            reader = _FilmReader(self, unit, skip)
            assembly: Assembly | None = None
            for row in reader.rows():
                assembly = assembly or Assembly(named_by, reader.facts(), self._stability)
                if (placed := assembly.place(row)) is not None:
                    writer.add(placed)
            for row in complaints(item, [reader.facts()], writer.counts.rows):
                writer.add(row)
            writer.counts.bytes, writer.counts.busy_s = unit.size, time.perf_counter() - start_s
        assembly = assembly or Assembly(named_by, reader.facts(), self._stability)
        self._write_events(named_by, assembly, writer.counts)
        return writer.counts

    def _do_part(self, unit: Unit, name: str, skip: Mapping[int, tuple[str, str]]) -> Counts:
        """Part of a long film: frames with the film's own times, to be joined."""
        start_s, reader = time.perf_counter(), _FilmReader(self, unit, skip)
        with writing(self._store, name, self._tables) as writer:
            for row in reader.rows():
                writer.add(row)
            writer.facts[_FACTS] = reader.facts().to_json().encode()
            # Its rows are counted when they are joined.
            writer.counts = Counts(1, bytes=unit.size, busy_s=time.perf_counter() - start_s)
        return writer.counts

    def _write_events(self, unit: Unit, assembly: Assembly, counts: Counts) -> None:
        events, [item] = assembly.finish(), unit.items
        counts.events = len(events)
        name, schema = f"{EVENTS}/{unit.whole}.parquet", self._tables.events_schema()
        with writing(self._store, name, self._tables, schema) as writer:
            writer.add_table(self._tables.to_events(shown_path(item), events))
            writer.counts = counts


class _FilmReader:
    """Rows of a part of a film, with scores and without numbers; whatever fails is in its facts."""

    def __init__(self, labeller: Labeller, unit: Unit, skip: Mapping[int, tuple[str, str]]) -> None:
        self._labeller, self._unit, self._skip = labeller, unit, skip
        self._facts: Callable[[], PartFacts] | None = None
        self._failed = ("", "")

    def rows(self) -> Iterator[Row]:
        return self._labeller._scored(self._samples())

    def facts(self) -> PartFacts:
        kind, failed = self._failed
        known = self._facts() if self._facts else PartFacts(None, None, None, False, 0, 0.0, "")
        return replace(known, failed=failed, failed_kind=kind)

    def _samples(self) -> Iterator[tuple[Row, Prepared | None]]:
        [item] = self._unit.items
        row = Row(shown_path(item), modified_at=item.modified)
        try:
            self._labeller._note(OPENING)
            if OPENING in self._skip:
                self._failed = self._skip[OPENING]
                return
            with opened_part(self._unit) as part:
                self._facts = part.facts
                yield from self._frames(part, row)
                known = part.facts()
                self._facts = lambda: known  # the film is closed then
        except CaptureError as error:
            self._failed = error.kind or "no film", str(error)

    def _frames(self, part: Any, row: Row) -> Iterator[tuple[Row, Prepared | None]]:
        number, picks = 0, None
        while number not in self._skip:
            self._labeller._note(number)
            picture = part.read()
            if picture is None:
                return
            if self._labeller.max_fps is not None:
                picks = picks or part.picks(self._labeller.max_fps)
            height, width = picture.image_bgr.shape[:2]
            status = "ok" if picture.is_whole else "damaged"
            facts = {
                "stream_s": picture.stream_s,
                "width": width,
                "height": height,
                "status": status,
            }
            is_wanted = picks is None or picks.wants(picture.stream_s)
            prepare = self._labeller._prepare
            yield (
                replace(row, **facts),
                prepare(picture.image_bgr, status) if is_wanted else None,
            )
            number += 1
        self._failed = self._skip[number]


def home_of(unit: Unit) -> str:
    """The file that says that a unit is done."""
    if unit.kind != "film":
        return f"{PICTURES}/{unit.name}.parquet"
    return f"{EVENTS if unit.parts == 1 else PARTS}/{unit.name}.parquet"


def batch_size(recognizer: Recognizer) -> int:
    """Pictures in one run of the model: what an engine was tuned for, or as many as `label` takes."""
    tuned = [built.engine.batch for built in recognizer.spec.files.values() if built.engine]
    return tuned[0][1] if tuned and recognizer.provider.startswith("cuda") else _BATCH


def _failure(row: Row, kind: str, reason: str) -> Row:
    return replace(row, error_kind=kind or "unreadable", error=reason)


def _facts_of(store: Store, name: str) -> PartFacts:
    with store.open(name) as file, being_read(store.root, name):
        return PartFacts.from_json(arrow().parquet.ParquetFile(file).metadata.metadata[_FACTS])


def _rows_of(store: Store, name: str, tables: Tables) -> Iterator[Row]:
    """The frames of a part that was written, a group at a time."""
    with store.open(name) as file, being_read(store.root, name):
        for batch in arrow().parquet.ParquetFile(file).iter_batches(1024):
            scored = batch.column("scores")
            # Of rows that have some.
            scores = iter(scored.flatten().to_numpy().reshape(-1, len(tables.labels)))
            told = ["path", "stream_s", "width", "height", "labels", "status"]
            kept = batch.select([*told, "why"] if tables.explained else told)
            times = batch.column("modified_at").cast("int64").to_pylist()
            for record, has_scores, when in zip(
                kept.to_pylist(), scored.is_valid().to_pylist(), times, strict=True
            ):
                record["labels"] = tuple(record["labels"] or ())
                yield Row(
                    **record,
                    modified_at=None if when is None else when / 1e6,
                    scores=next(scores) if has_scores else None,
                )
