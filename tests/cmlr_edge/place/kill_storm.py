"""Kills runs that collect frames and keep a place at random moments, with an engine that tells surroundings.

    python -m tests.cmlr_edge.place.kill_storm --kills 50 --out tests/cmlr_edge/place/kill_storm.json

What is looked at is `benchmarks.collect.kills`; the bundled engine, which that command takes, tells no surroundings.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.collect.kills import run_kills
from benchmarks.records import write_record
from tests.placed_engine import write_placed_engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        engine = write_placed_engine(work / "engine")
        write_record(arguments.out, run_kills(arguments.kills, work, engine))


if __name__ == "__main__":
    main()
