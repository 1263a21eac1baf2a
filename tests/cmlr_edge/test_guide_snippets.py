"""The Python of the SDK's page runs as it stands there, on a clip of our own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs/sdk.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def write_clip(path: Path) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 5, (64, 48))
    for level in range(0, 200, 25):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()


def test_the_page_has_snippets() -> None:
    assert len(SNIPPETS) == 3


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_of_the_page_runs(number: int, tmp_path: Path) -> None:
    write_clip(tmp_path / "street.mp4")
    code = SNIPPETS[number].replace("rtsp://door/1", "street.mp4")
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert (number == 1) or run.stdout.strip()  # events need a label that is there
