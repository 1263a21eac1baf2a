"""Mean AP per method and read-out, with its spread over seeds and its interval over images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import records
from benchmarks.photos.runs import Scores
from train.judging.bootstrap import mean_ap_interval
from train.judging.metrics import MIN_POSITIVES, average_precisions

REFERENCE = "label decoder"


@dataclass(frozen=True)
class Row:
    """One read-out of one method: mAP in percent over seeds."""

    method: str
    read_out: str
    seeds: list[float]
    median: float
    images_low: float  # 95 % bootstrap interval over images, of the seeds' mean scores
    images_high: float
    gain: float  # on the reference with the same seed, median
    gain_low: float  # of the seeds
    gain_high: float


def summarize(found: dict[str, list[Scores]], targets: NDArray[np.float32]) -> list[Row]:
    """Build the rows of one table.

    Args:
        found: Per method, what each seed's network says about the validation photos.
        targets: (N, L) of those photos. Labels with too few positives are left out.
    """
    scored = targets.sum(axis=0) >= MIN_POSITIVES
    reference = _mean_aps([scores["deployed"] for scores in found[REFERENCE]], targets, scored)
    rows = []
    for method, seeds in found.items():
        for read_out in seeds[0]:
            tables = [scores[read_out] for scores in seeds]
            maps = _mean_aps(tables, targets, scored)
            gains = maps - reference
            low, high = mean_ap_interval(np.mean(tables, axis=0)[:, scored], targets[:, scored])
            rows.append(
                Row(
                    method=method,
                    read_out=read_out,
                    seeds=[round(float(value), 2) for value in maps],
                    median=float(np.median(maps)),
                    images_low=100 * low,
                    images_high=100 * high,
                    gain=float(np.median(gains)),
                    gain_low=float(gains.min()),
                    gain_high=float(gains.max()),
                )
            )
    return rows


def _mean_aps(
    tables: list[NDArray[np.float32]], targets: NDArray[np.float32], scored: NDArray[np.bool_]
) -> NDArray[np.float64]:
    aps = [average_precisions(table, targets)[scored] for table in tables]
    return 100 * np.nanmean(aps, axis=1)


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """Format the rows of one table of results.json."""
    lines = []
    for row in rows:
        name = row["method"]
        if row["read_out"] != "deployed":
            name += f", {row['read_out']} context"
        own = f"{min(row['seeds']):.1f} - {max(row['seeds']):.1f}"
        images = f"{row['images_low']:.1f} - {row['images_high']:.1f}"
        gains = f"{row['gain']:+.1f}", f"{row['gain_low']:+.1f} - {row['gain_high']:+.1f}"
        lines.append((name, f"{row['median']:.1f}", own, images, *gains))
    head = "method, read-out", "mAP, median", "seeds", "95 % over images", "gain, median", "seeds"
    return records.markdown_table(head, lines)


def write_table(out: Path, name: str, record: dict[str, Any]) -> str:
    """Write `NAME.json` and `NAME.md` whole or not at all; return the table."""
    table = markdown_table(record["rows"])
    records.write_json(out / f"{name}.json", record)
    records.write_text(out / f"{name}.md", table)
    return table
