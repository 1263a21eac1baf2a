"""The Python of every page runs as it stands there, on a clip of our own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.explained_engine import write_explained_engine

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
# The first needs a GPU, the second a server: tests/cmlr_edge/page/test_kserve.py asks one.
NOT_HERE = {"tensorrt.md", "http.md"}
SNIPPETS = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in PAGES
    if page.name not in NOT_HERE
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


def write_clip(path: Path) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 5, (64, 48))
    for level in range(0, 200, 25):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()


def test_the_pages_have_snippets() -> None:
    assert len(SNIPPETS) >= 5


@pytest.mark.parametrize("code", SNIPPETS)
def test_a_snippet_of_a_page_runs(code: str, tmp_path: Path) -> None:
    write_clip(tmp_path / "street.mp4")
    write_explained_engine(tmp_path / "models" / "first")
    code = code.replace("rtsp://door/1", "street.mp4")
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() or "event.kind" in code  # events need a label that is there
