"""A topic is one program's: what another one, or a former run, left there is noticed and put right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cmlr_edge.events.event import RUN
from cmlr_edge.sinks.base import SourceHealth
from cmlr_edge.sinks.home_assistant import HomeAssistant
from cmlr_edge.sinks.mqtt import MqttEvents
from cmlr_edge.sinks.mqtt_sharing import Sharing
from tests.cmlr_edge.sinks.broker import Broker
from tests.waiting import wait_until

HALL = SourceHealth("hall", is_ok=True, labels=("person", "cat"))
SHED = SourceHealth("shed", is_ok=True, labels=("person",))
ODD_PREFIXES = ("", "a\n", "a\x7f", "a\ufffe", "$SYS", "$share/a", "a/" * 200)
OURS = "homeassistant/binary_sensor/door/hall_person/config"


def opened(
    broker: Broker, topic: str = "door", home_assistant: str = "homeassistant"
) -> MqttEvents:
    sink = MqttEvents(f"mqtt://127.0.0.1:{broker.port}/{topic}", home_assistant=home_assistant)
    wait_until(lambda: sink._connected)
    return sink


def say(broker: Broker, **told: str) -> None:
    for what, text in told.items():
        broker.subscriber.publish(f"door/{what}", text, qos=1, retain=True)


def leave(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, *sources: SourceHealth, topic: str = "door"
) -> dict[str, str]:
    """What a former run leaves at the broker."""
    with monkeypatch.context() as other:
        other.setattr("cmlr_edge.sinks.home_assistant.RUN", "before")
        sink = opened(broker, topic)
        sink.watch(sources)
        sink.close()
    return broker.retained()


@pytest.mark.slow
def test_a_program_tells_its_state_again_after_another_one_ended_on_its_topic(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    sink = opened(broker)
    sink.watch([HALL])
    wait_until(sink._is_done)
    say(broker, run="other", availability="online")
    runs = [RUN, "other", RUN]
    wait_until(lambda: [text for topic, text in broker.seen if topic == "door/run"] == runs)
    say(broker, **{"hall/_health": "OFF", "availability": "offline"})
    states = lambda: [text for topic, text in broker.seen if topic == "door/hall/_health"]
    wait_until(lambda: states()[-2:] == ["OFF", "ON"])
    wait_until(lambda: broker.availability()[-1] == "online")
    sink.close()
    (said,) = [text for text in caplog.messages if "topic" in text]
    assert "another program writes to door too (run 'other')" in said
    assert "give each program a topic of its own" in said


def test_two_programs_on_a_topic_do_not_answer_each_other_for_ever() -> None:
    now_s, runs = [0.0], [RUN, "other"]
    ours = Sharing("mqtt", "door", lambda: now_s[0])
    answers = 0
    for _ in range(100):  # whatever we say, the other one says its run again at once
        now_s[0] += 0.01
        ours.take("run", runs[1], is_retained=False)
        answers += ours.answer() != ""
    assert answers == 1
    for _ in range(1000):  # and it comes and goes
        now_s[0] += 0.01
        ours.take("availability", "offline", is_retained=False)
        answers += ours.answer() == "all"
    assert answers in {3, 4}


def test_nobody_is_alone_while_another_one_answers() -> None:
    now_s = [0.0]
    ours = Sharing("mqtt", "door", lambda: now_s[0])
    ours.come()
    ours.take("availability", "online", is_retained=True)
    ours.take("run", "other", is_retained=True)  # it runs, or died without a word
    ours.greet()
    assert not ours.is_alone()
    now_s[0] = 6.0
    assert ours.is_alone()
    ours.take("run", "other", is_retained=False)
    now_s[0] = 99.0
    assert not ours.is_alone()
    ours.take("availability", "offline", is_retained=False)
    now_s[0] = 105.0
    assert ours.is_alone()


@pytest.mark.slow
def test_what_the_configuration_lost_since_the_run_before_is_cleared_and_nothing_else(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for topic, text in {"door/shed/note": "mine", "homeassistant/sensor/x/y/config": "{}"}.items():
        broker.subscriber.publish(topic, text, qos=1, retain=True)
    leave(broker, monkeypatch, SHED, topic="yard")
    before = leave(broker, monkeypatch, HALL, SHED)
    assert before["door/shed/_health"] == before["door/hall/_health"] == "OFF"  # it said farewell
    sink = opened(broker)
    wait_until(sink._is_done)
    assert broker.retained().keys() == before.keys()  # until it is known what there is now
    sink.watch([SourceHealth("hall", is_ok=True, labels=("person",))])
    wait_until(lambda: "door/shed/_health" not in broker.retained())
    wait_until(sink._is_done)
    topics = broker.retained()
    gone = {topic for topic in before if topic not in topics}
    assert gone == {
        topic
        for topic in before
        if not topic.startswith(("yard", "homeassistant/binary_sensor/yard"))
        and ("shed" in topic or "hall_cat" in topic or "hall/cat" in topic)
        and "/yard/" not in topic
        and topic != "door/shed/note"
    }
    assert json.loads(topics["door/announced"])["announced"] == {
        "homeassistant": {"hall": ["person"]}
    }
    sink.close()


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "[]", "{}", "[" * 9999, '{"run":1,"announced":{"a":{"b":3}}}', "\udcff", "null"),
        '{"run":"x","announced":{"a/#":{"b":[]}}}',
        '{"run":"x","announced":{"a":{"b":["\\ud800"]}}}',
        # Some brokers close the connection to whoever writes there, each time again.
        *(json.dumps({"run": "x", "announced": {p: {"b": ["c"]}}}) for p in ODD_PREFIXES),
        json.dumps({"run": "x", "announced": {"a": {"b": [*range(30_000)]}}}),
    ],
)
def test_what_others_left_where_a_former_run_tells_what_it_announced_is_passed_over(
    text: str,
) -> None:
    home = HomeAssistant("door", "homeassistant")
    assert home.take_index(text) == {}
    home.watch([HALL])
    assert home.clear_former() == {}


def test_more_than_a_broker_can_be_told_is_passed_over_soon_and_in_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def index(run: str, *labels: object) -> str:
        return json.dumps({"run": run, "announced": {"a": {run: labels}}})

    home = HomeAssistant("door", "homeassistant")
    assert home.take_index(index("x", *range(15_000)))
    with monkeypatch.context() as patch:  # a name takes long to be made safe
        patch.setattr("cmlr_edge.sinks.home_assistant.safe_name", pytest.fail)
        assert home.take_index(index("y", *range(15_000))) == {}
        assert home.take_index(index("y", "a" * 2**22)) == {}
    assert home.take_index(index("y", "a" * 99_999))
    home.watch([HALL])
    assert max(map(len, home.clear_former())) < 200  # MQTT takes no topic of 65,536


def test_a_label_that_may_no_longer_be_said_goes_and_comes_again_with_a_reload() -> None:
    home = HomeAssistant("door", "homeassistant")
    told = home.watch([HALL])
    gone = {
        t for t, text in home.watch([SourceHealth("hall", True, ("person",))]).items() if not text
    }
    assert {t for t in told if "cat" in t} | {"door/hall/cat/score"} == gone
    assert OURS not in gone
    assert home.watch([HALL])["door/hall/cat"] == "OFF"


def test_labels_of_a_source_that_may_say_all_stay_while_the_model_knows_them() -> None:
    before = HomeAssistant("door", "homeassistant")
    index = before.watch([HALL])[before.index].replace(RUN, "before")
    home = HomeAssistant("door", "homeassistant")
    home.take_index(index)
    told = home.watch([SourceHealth("hall", True, known=("car", "cat"))])
    assert told["door/hall/cat"] == "OFF"
    gone = home.clear_former()
    assert {topic for topic, text in gone.items() if not text} == {
        OURS,
        OURS.replace("binary_sensor", "sensor"),
        "door/hall/person",
        "door/hall/person/score",
    }


@pytest.mark.slow
@pytest.mark.parametrize("rules", ["topic write #\n", "topic write #\ntopic read door/run\n"])
def test_a_broker_that_lets_us_listen_to_nothing_is_told_all_the_same_without_noise(
    broker: Broker, tmp_path: Path, rules: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "rules").write_text(rules + "user reader\ntopic read #\n")
    with broker.config.open("a") as config:
        config.write(f"acl_file {tmp_path / 'rules'}\n")
    broker.stop()
    broker.start()
    wait_until(broker.listens)
    sink = opened(broker)
    sink.watch([HALL])
    wait_until(sink._is_done)
    sink.close()
    assert not caplog.messages
