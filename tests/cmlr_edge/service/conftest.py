from __future__ import annotations

from pathlib import Path

import pytest

from cmlr_edge.service.store import EngineStore


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "store")


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "device.toml"
    path.write_text('[engine]\nstore = "store"\n[[sources]]\nname = "yard"\nuri = "test://"\n')
    return path
