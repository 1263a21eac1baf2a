"""A made-up NVIDIA driver, for the tests of engines."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cmlr_edge.engines.fake_gpu import FAKES


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("driver")
    library = folder / "libcuda.so.1"
    flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-stringop-truncation"]
    subprocess.run(["gcc", *flags, str(FAKES / "libcuda.c"), "-o", str(library)], check=True)
    return folder
