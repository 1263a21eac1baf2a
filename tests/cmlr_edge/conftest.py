"""Servers that several tests of the SDK talk to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cmlr_edge.sinks.broker import Broker
from tests.cmlr_edge.sinks.receiver import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    if shutil.which("mosquitto") is None:
        pytest.skip("mosquitto is not installed, so MQTT IS NOT TESTED: apt install mosquitto")
    broker = Broker(tmp_path)
    broker.start()
    broker.subscriber.connect_async("127.0.0.1", broker.port)
    broker.subscriber.loop_start()
    assert broker.subscribed.wait(20)
    yield broker
    broker.subscriber.disconnect()
    broker.subscriber.loop_stop()
    broker.stop()
