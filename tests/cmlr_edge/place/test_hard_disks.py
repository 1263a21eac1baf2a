"""Frames and places on disks that are really full, read-only or emptied while a run writes to them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cmlr_edge.place.hard_disks import CASES, FPS, FRAMES

pytestmark = pytest.mark.slow
_NAMESPACE = "unshare", "--mount", "--map-root-user"


def test_a_disk_costs_what_it_did_not_take_and_nothing_once_it_is_well(tmp_path: Path) -> None:
    if subprocess.run([*_NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount a disk of his own")
    done = subprocess.run(
        [*_NAMESPACE, sys.executable, "-m", "tests.cmlr_edge.place.hard_disks", str(tmp_path)],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() == CASES.keys()
    for name, one in found.items():
        said = "\n".join(one["said"])
        assert one["frames"] == FRAMES, name  # the source heard nothing of it
        assert one["whole"] == one["kept"] >= one["while_ill"]["kept"], name
        assert one["left"] == [], name
        # The block that was begun is not counted yet; on a full disk stays what was there.
        least = one["while_ill"]["blocks"] if name == "stays full" else FRAMES // FPS - 2
        assert one["blocks"] >= least, name
        assert (one["exit_code"], one["lost"] > 0) == (
            (0, False) if name == "emptied" else (1, True)
        )
        assert ("works again" in said) == (name in {"fills up", "read-only"}), said
        assert ("is failing" in said) == (name in {"small", "stays full"}), said
