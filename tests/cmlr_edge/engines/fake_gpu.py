"""A made-up driver, made-up packages of NVIDIA's, and an engine to run on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from cmlr_edge.model.spec import EngineBuild
from tests.conftest import make_spec, mean_color_model

TESTS = Path(__file__).parents[1]
FAKES = TESTS / "fake_nvidia"
BUILT = EngineBuild("10.3.0", "8.7", "Orin", None, (1, 1, 8), "model.onnx", "0" * 64)


def write(folder: Path, engine: EngineBuild = BUILT, content: bytes | None = None) -> Path:
    content = mean_color_model() if content is None else content
    spec = make_spec(content)
    built = replace(spec.files["model.onnx"], runtime="tensorrt", engine=engine)
    path = folder / "model.engine"
    path.write_bytes(content)
    replace(spec, files={path.name: built}).save(folder / "model.json")
    return path


def on_fake_gpu(driver: Path, what: str, path: Path, **environment: str) -> dict[str, Any]:
    return run(what, path, LD_LIBRARY_PATH=str(driver), PYTHONPATH=str(FAKES), **environment)


def run(
    what: str,
    path: Path,
    module: str = "tests.cmlr_edge.backends.on_fake_gpu",
    **environment: str,
) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", module, what, str(path)],
        env={**os.environ, **environment},
        cwd=TESTS.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
