"""A model and its spec are read as one, whoever writes them meanwhile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cmlr_edge.model import pair
from cmlr_edge.model.files import read_file
from cmlr_edge.model.pair import ModelPair
from tests.conftest import make_spec, mean_color_model, write_engine


def test_a_pair_that_is_replaced_while_it_is_read_is_one_pair(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = mean_color_model()
    other = replace(make_spec(content), name="another")
    after = [lambda: write_engine(engine.parent, content, other)]

    def read_late(path: Path, most: int = -1) -> bytes:
        if after:
            after.pop()()
        return read_file(path, most)

    monkeypatch.setattr(pair, "read_file", read_late)
    found = ModelPair.read(engine)
    assert (found.content, found.spec.name) == (content, "another")
