"""Rows and events of an archive against what `label` says of the same photos and films, one by one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet

from cmlr_edge.capture.images import IMAGE_SUFFIXES

_EVENT = ("kind", "label", "time_s", "start_s", "end_s", "score", "max_score")
_COMMAND = [sys.executable, "-m", "cmlr_edge"]


def compare_with_label(
    photos: Path, clip: Path, engine: Path, provider: str, folder: Path, parts: int
) -> dict[str, Any]:
    """Label by both commands; count decisions that differ. The film is cut in `parts`."""
    model = ["--engine", str(engine), "--provider", provider]
    paths = sorted(p for p in photos.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    (folder / "photos").mkdir()
    for path in paths:
        (folder / "photos" / path.name).symlink_to(path)
    said = []
    for source, name in ((folder / "photos", "photos"), (clip, "film")):
        out, visits_file = folder / f"{name}.jsonl", folder / f"{name}_events.jsonl"
        arguments = ["label", str(source), *model, "--out", str(out)]
        arguments += ["--events", str(visits_file)] if source == clip else []
        subprocess.run([*_COMMAND, *arguments, "--json"], capture_output=True, check=True)
        said += [json.loads(line) for line in out.read_text().splitlines()]
    cutting = ["--part-mb", str(clip.stat().st_size / parts / 2**20), "--chunk", "50"]
    inputs = [str(folder / "photos"), str(clip)]
    archive = ["archive", *inputs, "--out", str(folder / "labels"), *model, *cutting, "--json"]
    subprocess.run([*_COMMAND, *archive], capture_output=True, check=True)
    rows = [row for row in _read(folder, "rows/*/*.parquet") if row["error"] is None]
    found = {(row["path"] if row["frame"] is None else None, row["frame"]): row for row in rows}
    differing = [line for line in said if not _agree(line, found.pop(_key(line), None))]
    visits = [json.loads(line) for line in (folder / "film_events.jsonl").read_text().splitlines()]
    told = [tuple(item[key] for key in _EVENT) for item in visits if item["kind"] != "begin"]
    events = [_rounded(row) for row in _read(folder, "events/*.parquet")]
    return {
        "provider": provider,
        "film": clip.name,
        "parts": parts,
        "lines_of_label": len(said),
        "decisions": sum(len(row["scores"]) for row in rows),
        "rows_that_differ": len(differing),
        "rows_more": len(found),
        "events_of_label": len(told),
        "events_that_differ": len({*told} ^ {*events}),
    }


def _read(folder: Path, pattern: str) -> list[dict[str, Any]]:
    files = sorted((folder / "labels").glob(pattern))
    return [row for path in files for row in pyarrow.parquet.ParquetFile(path).read().to_pylist()]


def _key(line: dict[str, Any]) -> tuple[str | None, int | None]:
    return (line["file"], None) if line["time_s"] is None else (None, line["frame"])


def _agree(line: dict[str, Any], row: dict[str, Any] | None) -> bool:
    """The same labels and the same time; a line of label has four digits."""
    if row is None:
        return False
    same_time = line["time_s"] is None or line["time_s"] == round(row["time_s"], 4)
    return same_time and {item["label"] for item in line["labels"]} == {*row["labels"]}


def _rounded(row: dict[str, Any]) -> tuple[Any, ...]:
    values = [row[key] for key in _EVENT]
    digits = [None, None, 4, 4, 4, 5, 5]
    return tuple(
        value if places is None or value is None else round(value, places)
        for value, places in zip(values, digits, strict=True)
    )
