"""What Home Assistant finds by itself over MQTT: for each source its health, its labels, its events.

A topic's newest message is retained, so that whoever comes later, or comes again, knows how things are.
So is what was announced, for the next run: it clears what its configuration no longer has.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cmlr_edge import __version__
from cmlr_edge.events.event import RUN, Event
from cmlr_edge.redaction import safe_name
from cmlr_edge.sinks.base import SourceHealth
from cmlr_edge.sinks.untold import LIVING

_EVENT_TYPES = ["start", "update", "end"]
_HEALTH, _EVENT = "_health", "_event"  # no label's part begins with an underscore
_OF_SOURCE, _OF_LABEL = 3, 4  # topics that are a source's own, and a label's
_SCORE_S, _SCORE_STEP = 5.0, 0.01  # between two looks at scores; what changed by less is not told
_LONGEST_PREFIX = 200  # characters; brokers bear as many levels
# Of what former runs announced; more would keep us, or a broker, busy for minutes.
_MOST_FORMER = 100_000  # topics
_LONGEST_INDEX = 2**22  # characters
Topics = dict[str, str]  # topic to what is retained there; "" for nothing any more


def is_prefix(text: str) -> bool:
    """Whether topics may begin so; some brokers throw out whoever writes to any other."""
    is_short = 0 < len(text) <= _LONGEST_PREFIX
    return is_short and text.isprintable() and text[0] != "$" and not set(text) & set("+#")


class HomeAssistant:
    """Says what is to be retained as sources and labels come and go; used under its owner's lock."""

    def __init__(
        self, topic: str, prefix: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start without any source.

        Args:
            topic: Of the broker's part that is ours.
            prefix: Where Home Assistant looks for devices, "homeassistant" unless it was changed.
            clock: Seconds.
        """
        self._topic, self._prefix = topic, prefix
        self._node = safe_name(topic)
        self.index = f"{topic}/announced"  # where what is announced is told to the next run
        self._clock = clock
        self._labels: dict[str, dict[str, None]] = {}  # announced, by source, in order
        self._scores: dict[str, dict[str, float]] = {}  # told, by source and label
        self._looked_s: dict[str, float] = {}  # when, at the scores of a source
        # Labels that were announced by others under this topic, by prefix and source.
        self._former: dict[tuple[str, str], set[str]] = {}
        self._is_watched = False  # until then, which sources there are is not known

    def event_topic(self, source: str) -> str:
        """Where the messages of a source's events go, for those that listen now."""
        return self._of(source, _EVENT)

    def event_payload(self, event: Event) -> str:
        """The message there."""
        record = {"event_type": event.kind, **event.to_record()}
        return json.dumps(record, allow_nan=False, ensure_ascii=False)

    def watch(self, sources: Sequence[SourceHealth]) -> Topics:
        """Take how all sources are; what may no longer be said, or is gone, is taken away."""
        topics: Topics = {}
        self._is_watched = True
        for gone in self._labels.keys() - {source.name for source in sources}:
            topics |= self._without(gone, list(self._labels.pop(gone)), whole=True)
        for source in sources:
            if source.name not in self._labels:
                topics |= self._announced(source.name)
            allowed = {*source.labels} or {*source.known}
            former = self._former.get((self._prefix, source.name), set())
            for label in source.labels or sorted(former & (allowed or former)):
                topics |= self._with_label(source.name, label)
            if allowed and (left := self._labels[source.name].keys() - allowed):
                topics |= self._without(source.name, left)
            topics[self._of(source.name, _HEALTH)] = "ON" if source.is_ok else "OFF"
            topics |= self._newest_scores(source)
        return self._with_index(topics)

    def take(self, event: Event) -> Topics:
        """Take an event."""
        topics: Topics = {}
        if event.source not in self._labels:
            topics |= self._announced(event.source)
        if event.kind == "begin":  # what an earlier run left open is over
            for label in self._labels[event.source]:
                topics[self._of(event.source, safe_name(label))] = "OFF"
        if not event.is_visit:
            return self._with_index(topics)
        topics |= self._with_label(event.source, event.label)
        topics[self._of(event.source, safe_name(event.label))] = (
            "OFF" if event.kind == "end" else "ON"
        )
        topics |= self._score(event.source, event.label, event.score)
        return self._with_index(topics)

    def end(self) -> Topics:
        """What is no longer so once we are gone."""
        states = [
            (source, safe_name(label)) for source in self._labels for label in self._labels[source]
        ]
        states += [(source, _HEALTH) for source in self._labels]
        return {self._of(*state): "OFF" for state in states}

    def take_index(self, text: str, *, is_retained: bool = True) -> Topics:
        """Take what was announced by others, or by a former output of ours; anything may stand there."""
        if len(text) > _LONGEST_INDEX:
            return {}
        try:
            record = json.loads(text)
            if record["run"] == RUN and not is_retained:
                return {}
            found = {
                (str(prefix), str(source)): {*map(str, labels)}
                for prefix, sources in record["announced"].items()
                for source, labels in sources.items()
            }
            former = {
                key: self._former.get(key, set()) | found.get(key, set())
                for key in (*self._former, *found)
            }
            number = sum(_OF_SOURCE + _OF_LABEL * len(labels) for labels in former.values())
            # Names in topics are made safe; the prefix alone stands there as it was read.
            if number > _MOST_FORMER or not all(is_prefix(prefix) for prefix, _ in found):
                return {}
            for key, labels in found.items():
                self._topics_of(*key, labels)  # fails here and now where a name is no text
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return {}
        self._is_watched = False  # some of it may still be ours, as `watch` finds
        self._former = former
        return {self.index: self._told()}

    def clear_former(self) -> Topics:
        """Take away what others announced and we do not, once it is known what we do."""
        if not (self._is_watched and self._former):
            return {}
        ours = {
            topic
            for source, labels in self._labels.items()
            for topic in self._topics_of(self._prefix, source, labels)
        }
        former = [t for key, labels in self._former.items() for t in self._topics_of(*key, labels)]
        self._former.clear()
        return dict.fromkeys((t for t in former if t not in ours), "") | {self.index: self._told()}

    def _with_index(self, topics: Topics) -> Topics:
        """Also tell the next run what is announced: before the first of it is, after the last is not."""
        changed = [text for topic, text in topics.items() if topic.endswith("/config")]
        if not changed:
            return topics
        index = {self.index: self._told()}
        return index | topics if any(changed) else topics | index

    def _told(self) -> str:
        told: dict[str, dict[str, set[str]]] = {self._prefix: {}}
        ours = {(self._prefix, source): {*labels} for source, labels in self._labels.items()}
        for prefix, source in [*ours, *self._former]:
            key = (prefix, source)
            labels = ours.get(key, set()) | self._former.get(key, set())
            told.setdefault(prefix, {})[source] = labels
        return json.dumps({"run": RUN, "announced": told}, default=sorted)

    def _newest_scores(self, source: SourceHealth) -> Topics:
        """Scores that changed, now and then, and only while they say anything."""
        result, now_s = source.newest, self._clock()
        if not source.is_ok or result is None or not result.prediction.valid:
            return {}
        scores = result.prediction.scores
        is_early = now_s - self._looked_s.get(source.name, -math.inf) < _SCORE_S
        if is_early or len(scores) != len(source.known):
            return {}
        self._looked_s[source.name] = now_s
        told, topics = self._scores.get(source.name, {}), Topics()
        for label, score in zip(source.known, scores.tolist(), strict=True):
            is_news = abs(score - told.get(label, math.inf)) >= _SCORE_STEP
            if is_news and label in self._labels[source.name]:
                topics |= self._score(source.name, label, score)
        return topics

    def _score(self, source: str, label: str, score: float) -> Topics:
        self._scores.setdefault(source, {})[label] = score
        return {self._of(source, f"{safe_name(label)}{LIVING}"): str(round(score, 5))}

    def _of(self, source: str, part: str) -> str:
        return f"{self._topic}/{safe_name(source)}/{part}"

    def _announced(self, source: str) -> Topics:
        self._labels[source] = {}
        health = {"device_class": "connectivity", "entity_category": "diagnostic"}
        return {
            self._config("binary_sensor", source, _HEALTH): self._payload(
                source, "camera", _HEALTH, **health
            ),
            self._config("event", source, _EVENT): self._payload(
                source, "events", _EVENT, event_types=_EVENT_TYPES
            ),
        }

    def _with_label(self, source: str, label: str) -> Topics:
        if label in self._labels[source]:
            return {}
        self._labels[source][label] = None
        part = safe_name(label)
        return {
            self._config("binary_sensor", source, part): self._payload(
                source, label, part, device_class="occupancy", **self._while_seen(source)
            ),
            self._config("sensor", source, part): self._payload(
                source,
                f"{label} score",
                f"{part}{LIVING}",
                state_class="measurement",
                **self._while_seen(source),
            ),
            self._of(source, part): "OFF",
        }

    def _while_seen(self, source: str) -> dict[str, Any]:
        """What is known of a label only while the camera gives frames, beside us being there."""
        health = {"payload_available": "ON", "payload_not_available": "OFF"}
        return {
            "availability": [
                {"topic": f"{self._topic}/availability"},
                {"topic": self._of(source, _HEALTH), **health},
            ],
            "availability_mode": "all",
        }

    def _without(self, source: str, labels: Iterable[str], *, whole: bool = False) -> Topics:
        topics = self._topics_of(self._prefix, source, labels)
        for label in labels:
            self._labels.get(source, {}).pop(label, None)
            self._scores.get(source, {}).pop(label, None)
        return dict.fromkeys(topics if whole else topics[_OF_SOURCE:], "")

    def _topics_of(self, prefix: str, source: str, labels: Iterable[str]) -> list[str]:
        """All that is retained of a source: first its own, then that of its labels; devices first."""
        topics = [
            self._config("binary_sensor", source, _HEALTH, prefix),
            self._config("event", source, _EVENT, prefix),
            self._of(source, _HEALTH),
        ]
        for part in map(safe_name, labels):
            topics += [
                self._config(kind, source, part, prefix) for kind in ("binary_sensor", "sensor")
            ]
            topics += [self._of(source, part), self._of(source, f"{part}{LIVING}")]
        return topics

    def _config(self, kind: str, source: str, part: str, prefix: str = "") -> str:
        return f"{prefix or self._prefix}/{kind}/{self._node}/{safe_name(source)}_{part}/config"

    def _payload(self, source: str, name: str, part: str, **more: Any) -> str:
        ours = {"availability_topic": f"{self._topic}/availability"}
        record = {
            "name": name,
            "unique_id": f"cmlr_edge_{self._node}_{safe_name(source)}_{part}".replace("/", "_"),
            "state_topic": self._of(source, part),
            "device": {
                "identifiers": [f"cmlr_edge_{self._node}_{safe_name(source)}"],
                "name": source,
                "manufacturer": "cmlr_edge",
                "model": "multi-label recognition",
            },
            "origin": {"name": "cmlr_edge", "sw_version": __version__},
            **(more if "availability" in more else ours | more),
        }
        return json.dumps(record, allow_nan=False, ensure_ascii=False)
