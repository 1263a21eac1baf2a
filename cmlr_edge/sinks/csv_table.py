"""A table for spreadsheets: a row per frame, a column per label's score."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from cmlr_edge.sinks.base import Result
from cmlr_edge.sinks.line_file import LineFile

_COLUMNS = ("frame", "time_s", "captured_at", "source", "status", "valid")


class CsvTable:
    """Writes RFC 4180 rows; scores of an invalid frame are left empty."""

    pictures = False

    def __init__(
        self,
        path: Path,
        labels: Sequence[str],
        *,
        rotate_bytes: int | None = None,
        keep_old: bool = False,
    ) -> None:
        """Remember the path; the file is created, or added to, at the first frame.

        Args:
            path: Its folder must exist.
            labels: Names of the scores, in their order.
            rotate_bytes: See `LineFile`; every file has the header.
            keep_old: See `LineFile`.
        """
        header = _row([*_COLUMNS, *labels])
        self._lines = LineFile(path, header=header, rotate_bytes=rotate_bytes, keep_old=keep_old)

    def claim(self) -> None:
        """Lock the file at once; see `LineFile.claim`."""
        self._lines.claim()

    def write(self, result: Result) -> None:
        """Append one row; see `Sink`."""
        frame, prediction = result.frame, result.prediction
        scores = prediction.scores.tolist()
        self._lines.append(
            _row(
                [
                    frame.index,
                    "" if frame.time_s is None else f"{frame.time_s:.4f}",
                    f"{frame.captured_at:.3f}",
                    frame.source,
                    frame.status,
                    str(prediction.valid).lower(),
                    *(f"{score:.5f}" if prediction.valid else "" for score in scores),
                ]
            )
        )

    def close(self) -> None:
        """Close the file; see `Sink`."""
        self._lines.close()


def _row(cells: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r").writerow(cells)  # the line file adds the \n
    return text.getvalue()
