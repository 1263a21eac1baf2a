"""The command line in processes of its own, and what it wrote."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

COMMAND = [sys.executable, "-m", "cmlr_edge"]

# Begun in a process that has loaded what commands load, a command takes a tenth of a second, not one or two.
_LOADED = multiprocessing.get_context("forkserver")
_LOADED.set_forkserver_preload(
    ["__main__", __name__, "cmlr_edge.cli.app", "cv2", "av", "onnxruntime"]
)
# What pytest, importing other packages and a command in this process set: nothing that a command reads at its start.
_NOT_OURS = {
    *("PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"),
    *("OPENCV_FFMPEG_LOGLEVEL", "OPENCV_FFMPEG_CAPTURE_OPTIONS"),
}


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _NOT_OURS}


_AT_FIRST = _environment()


def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end: from the beginning where a test changed the environment."""
    command = [*COMMAND, *map(str, arguments)]
    if _environment() != _AT_FIRST:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, cwd=cwd
        )
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("stdout", "stderr")]
        process = _LOADED.Process(target=_command, args=(command[3:], cwd or Path.cwd(), files))
        process.start()
        process.join(120)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(command, 120)
        said = [file.read_text() for file in files]
    return subprocess.CompletedProcess(command, process.exitcode, *said)


def _command(arguments: list[str], cwd: Path, files: list[Path]) -> None:
    """`python -m cmlr_edge` in this process, which was forked for it."""
    os.chdir(cwd)
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.argv = ["cmlr_edge", *arguments]
    runpy.run_module("cmlr_edge", run_name="__main__", alter_sys=True)


def read_lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
