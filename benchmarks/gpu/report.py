"""What a stage found, written to the output folder after every line of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.records import markdown_table, write_json

State = Literal["holds", "FAILS", "measured", "skipped"]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    check: str
    state: State
    found: str
    numbers: dict[str, Any] = field(default_factory=dict)


class Skipped(Exception):
    """What would be looked at is not here; the message says what."""


@dataclass
class Report:
    """One stage's rows, and how it ended."""

    number: int
    name: str
    ended: str = "running"  # at last "done", "no GPU", "skipped", "failed" or "over its limit"
    why: str = ""
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    file: Path | None = None

    def __post_init__(self) -> None:
        """Start the clock, and leave word that the stage began."""
        self._started = time.perf_counter()
        self._write()

    def add(self, check: str, state: State, found: str, **numbers: Any) -> None:
        """Keep a line."""
        self.rows.append(Row(check, state, found, numbers))
        self._write()

    def check(self, name: str, work: Callable[[], str], *, measures: bool = False) -> None:
        """Keep what `work` says; what it raises is a line too, and stops nothing."""
        try:
            self.add(name, "measured" if measures else "holds", work())
        except Skipped as missing:
            self.add(name, "skipped", str(missing))
        except Exception as error:  # noqa: BLE001 (what a GPU makes of our code is what is looked for)
            self.add(name, "FAILS", f"{type(error).__name__}: {error}")

    def end(self, ended: str, why: str = "") -> None:
        """Say how it ended."""
        self.ended, self.why = ended, why
        self._write()

    def _write(self) -> None:
        self.seconds = round(time.perf_counter() - self._started, 2)
        if self.file is not None:
            record = {key: value for key, value in asdict(self).items() if key != "file"}
            write_json(self.file, record)


def stage_file(folder: Path, number: int) -> Path:
    """Where a stage's JSON is."""
    return folder / f"stage-{number:02}.json"


def table(records: list[dict[str, Any]]) -> str:
    """The stages in Markdown, a line for each row, and one for a stage without any."""
    lines: list[tuple[str, ...]] = []
    for record in records:
        stage = f"{record['number']} {record['name']} ({record['seconds']:.0f} s)"
        ended = "" if record["ended"] == "done" else f"{record['ended']}: {record['why']}"
        if ended or not record["rows"]:
            lines.append((stage, "", ended.partition(":")[0], _cell(record["why"])))
        lines += [
            (stage, _cell(row["check"]), row["state"], _cell(row["found"]))
            for row in record["rows"]
        ]
    return markdown_table(("stage", "check", "", "found"), lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def fails(records: list[dict[str, Any]]) -> bool:
    """Whether something that was looked at is not as it should be."""
    return any(
        record["ended"] in {"failed", "over its limit"}
        or any(row["state"] == "FAILS" for row in record["rows"])
        for record in records
    )
