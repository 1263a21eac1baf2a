"""Home Assistant finds sources and labels by itself, and knows how things are after every kind of restart."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmlr_edge.errors import SpecError
from cmlr_edge.events.event import Event
from cmlr_edge.prediction import Latency, Prediction
from cmlr_edge.sinks.base import SourceHealth
from cmlr_edge.sinks.home_assistant import HomeAssistant
from cmlr_edge.sinks.mqtt import MqttEvents
from cmlr_edge.sinks.opening import SinkSettings
from cmlr_edge.sinks.untold import Untold
from tests.cmlr_edge.session.front_ends import FRONT_ENDS, command_of
from tests.cmlr_edge.sinks.broker import Broker
from tests.cmlr_edge.sinks.results import of_events
from tests.waiting import wait_until

PERSON = Event("start", "1", "door", "person", 1.0, 0.5, None, 0.8, 0.9, 1764000000.0)
# What Home Assistant takes of each kind of entity, beside what all have; others would be refused.
COMMON = {"name", "unique_id", "state_topic", "device", "origin"}
AVAILABLE = {"availability_topic", "availability", "availability_mode"}
OWN = {
    "binary_sensor": {"device_class", "entity_category"} | AVAILABLE,
    "sensor": {"state_class"} | AVAILABLE,
    "event": {"event_types", "availability_topic"},
}


def configs(topics: dict[str, str]) -> dict[str, dict[str, Any]]:
    return {
        topic: json.loads(text)
        for topic, text in topics.items()
        if topic.startswith("homeassistant/") and text
    }


def check(topics: dict[str, str]) -> None:
    """Every announcement is one that Home Assistant takes, and its states are told."""
    found = configs(topics)
    ids = [config["unique_id"] for config in found.values()]
    assert len(ids) == len(set(ids)) > 0
    for topic, config in found.items():
        form = r"homeassistant/(\w+)/[A-Za-z0-9_-]+/[A-Za-z0-9_-]+/config"
        kind = re.fullmatch(form, topic)
        assert kind is not None, topic
        assert COMMON <= {*config} <= COMMON | OWN[kind[1]]
        assert config["device"]["identifiers"]
        assert config["origin"] == {"name": "cmlr_edge", "sw_version": version("cmlr_edge")}
        if kind[1] == "binary_sensor":
            assert topics[config["state_topic"]] in {"ON", "OFF"}
        if kind[1] == "event":
            assert set(config["event_types"]) == {"start", "update", "end"}


def test_names_of_any_kind_stay_apart_and_make_topics() -> None:
    home = HomeAssistant("house/door", "homeassistant")
    names = ["front door", "front_door", "front-door", "rtsp://x/1?a=#+", "Tür", "_health"]
    sources = [SourceHealth(name, is_ok=True, labels=tuple(names)) for name in names]
    topics = home.watch(sources)
    check(topics)
    assert not any(set(topic) & set("+# ?") for topic in topics)
    assert len(topics) == 1 + len(names) * (3 + 3 * len(names))
    gone = {topic for topic, text in home.watch(sources[1:]).items() if not text}
    assert {topic for topic in gone if topic.startswith("homeassistant/")} <= {*topics}
    assert len(gone) == 3 + 4 * len(names)  # with the scores, which were not told yet


def test_what_was_announced_is_taken_away_with_its_source() -> None:
    home = HomeAssistant("house", "homeassistant")
    told = home.watch([SourceHealth("door", is_ok=True), SourceHealth("yard", is_ok=False)])
    told |= home.take(PERSON)
    told |= home.take(replace(PERSON, source="yard", label="cat"))
    gone = home.watch([SourceHealth("yard", is_ok=True)])
    assert {topic for topic, text in gone.items() if not text} == {
        topic for topic in told if "door" in topic
    } | {"house/door/person/score"}
    assert home.watch([SourceHealth("yard", is_ok=True)]) == {"house/yard/_health": "ON"}


def test_states_follow_events_and_a_new_run_clears_them() -> None:
    home = HomeAssistant("house", "homeassistant")
    topics = home.take(PERSON)
    assert (topics["house/door/person"], topics["house/door/person/score"]) == ("ON", "0.8")
    assert home.take(replace(PERSON, kind="end", end_s=3.0))["house/door/person"] == "OFF"
    home.take(PERSON)
    assert home.take(Event.begin("door")) == {"house/door/person": "OFF"}


def test_a_label_is_unavailable_while_its_camera_gives_no_frames() -> None:
    home = HomeAssistant("house", "homeassistant")
    topics = home.watch([SourceHealth("door", is_ok=False, labels=("person",))])

    def is_available(kind: str, part: str) -> bool:
        config = json.loads(topics[f"homeassistant/{kind}/house/door_{part}/config"])
        places = config.get("availability", [{"topic": config.get("availability_topic")}])
        assert len(places) == 1 or config["availability_mode"] == "all"
        told = topics | {"house/availability": "online"}
        return all(told[p["topic"]] == p.get("payload_available", "online") for p in places)

    assert not is_available("binary_sensor", "person")
    assert not is_available("sensor", "person")
    assert is_available("binary_sensor", "_health")
    assert is_available("event", "_event")
    topics |= home.watch([SourceHealth("door", is_ok=True, labels=("person",))])
    assert is_available("binary_sensor", "person")
    assert is_available("sensor", "person")


def test_scores_live_while_they_say_anything_and_are_told_now_and_then() -> None:
    now_s = [0.0]
    home = HomeAssistant("house", "homeassistant", lambda: now_s[0])

    def told(person: float, *, is_ok: bool = True, valid: bool = True) -> dict[str, str]:
        now_s[0] += 1.0
        scores = np.array([person, 0.5], np.float32)
        newest = replace(of_events(), prediction=Prediction(scores, (), Latency(), 0.0, valid))
        health = SourceHealth("door", is_ok, ("person",), ("person", "car"), newest)
        return {t: text for t, text in home.watch([health]).items() if t.endswith("/score")}

    assert told(0.25, is_ok=False) == told(0.25, valid=False) == {}
    assert told(0.25) == {"house/door/person/score": "0.25"}  # nothing of car: it has no entity
    assert [told(0.75) for _ in range(9)].count({"house/door/person/score": "0.75"}) == 1
    assert not any(told(0.755) for _ in range(9))


def test_states_do_not_wait_for_scores_that_wait() -> None:
    untold = Untold(["hall/person", "hall/person/score", "hall/cat/score"])
    untold.add(["hall/person/score", "hall/cat", "hall/person"])
    taken = [untold.take() for _ in range(4)]
    assert taken == ["hall/person", "hall/cat", "hall/person/score", "hall/cat/score"]
    assert not untold


@pytest.mark.slow
def test_a_broker_that_forgets_is_told_again(broker: Broker) -> None:
    sink = MqttEvents(f"mqtt://127.0.0.1:{broker.port}/door", home_assistant="homeassistant")
    sink.watch([SourceHealth("hall", is_ok=True, labels=("person", "cat"))])
    sink.write(of_events(replace(PERSON, source="hall")))
    wait_until(lambda: broker.retained().get("door/hall/person") == "ON")
    check(broker.retained())
    broker.config.write_text(broker.config.read_text().replace("persistence true", ""))
    broker.stop()
    (broker.config.parent / "mosquitto.db").unlink(missing_ok=True)
    sink.write(of_events(replace(PERSON, source="hall", kind="end", end_s=2.0)))
    broker.start()
    wait_until(broker.listens)
    wait_until(lambda: broker.retained().get("door/hall/person") == "OFF")
    check(broker.retained())
    sink.watch([])
    wait_until(lambda: not configs(broker.retained()))
    sink.close()
    assert broker.retained()["door/availability"] == "offline"


@pytest.mark.slow
@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_every_command_lets_it_find_sources_and_a_kill_leaves_nothing_on(
    engine: Path, tmp_path: Path, broker: Broker, front_end: str
) -> None:
    sources = ["hall=test://?fps=20", "yard=/dev/video199"]
    more = [
        "--threshold",
        "0.2",
        "--labels",
        "red,green",
        "--mqtt",
        f"mqtt://127.0.0.1:{broker.port}/door",
    ]
    command = command_of(front_end, sources, engine, tmp_path, *more, "--home-assistant")
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: broker.retained().get("door/hall/red") == "ON")
        process.send_signal(signal.SIGKILL)
    topics = broker.retained()
    check(topics)
    assert topics["door/hall/_health"] == "ON"
    assert topics["door/yard/_health"] == "OFF"
    assert not any("blue" in topic for topic in topics)
    wait_until(lambda: broker.retained()["door/availability"] == "offline", limit_s=40)
    sources = ["hall=test://?fps=20&frames=5", "yard=/dev/video199"]
    command = command_of(front_end, sources, engine, tmp_path, *more, "--home-assistant")
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: broker.retained().get("door/hall/red") == "OFF")
        process.terminate()


def test_only_mqtt_tells_home_assistant_and_where_topics_may_begin() -> None:
    with pytest.raises(SpecError, match="home_assistant"):
        SinkSettings("webhook", url="http://x/", home_assistant="homeassistant")
    for odd in ("home#", "home\n", "$SYS"):
        with pytest.raises(SpecError, match="home_assistant"):
            SinkSettings("mqtt", url="mqtt://x/", home_assistant=odd)


def test_many_labels_of_many_sources_are_told_soon(broker: Broker) -> None:
    labels = tuple(f"label {number}" for number in range(80))
    sink = MqttEvents(f"mqtt://127.0.0.1:{broker.port}/door", home_assistant="homeassistant")
    sink.watch([SourceHealth(f"s{number}", is_ok=True, labels=labels) for number in range(8)])
    wait_until(lambda: len(configs(broker.retained())) == 8 * (2 + 2 * 80), limit_s=30)
    sink.close()
