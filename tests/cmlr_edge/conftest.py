"""Servers that several tests of the SDK talk to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cmlr_edge.sinks.receiver import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()
