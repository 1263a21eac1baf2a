"""The measurement of loading gives its numbers, and a page says no more than they do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_training import write_dataset

# In a process of its own: its forked readers would hold the pipes of whoever runs the tests.
MEASURE = """
import sys
from pathlib import Path
from benchmarks import loading
loading._SETTINGS += ["model.image_size=64", "model.embed_dim=32", "model.num_heads=4", "batch_size=16"]
data, out = map(Path, sys.argv[1:])
loading.measure(data, out, pictures=64, workers=1, threads=1, many=500, read=100)
"""


@pytest.mark.slow
def test_rates_and_memory_are_measured_on_as_many_pictures_as_asked_for(tmp_path: Path) -> None:
    data, out = write_dataset(tmp_path / "data"), tmp_path / "loading.json"
    command = [sys.executable, "-c", MEASURE, str(data), str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=250)
    record = json.loads(out.read_text())
    assert all(value > 0 for value in record["rate"].values())
    assert (record["memory"]["pictures"], record["memory"]["read"]) == (500, 96)
    assert record["memory"]["peak_gib"] >= record["memory"]["before_gib"]
