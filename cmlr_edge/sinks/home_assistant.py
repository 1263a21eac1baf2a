"""What Home Assistant finds by itself over MQTT: for each source its health, its labels, its events.

A topic's newest message is retained, so that whoever comes later, or comes again, knows how things are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cmlr_edge import __version__
from cmlr_edge.events.event import Event
from cmlr_edge.redaction import safe_name
from cmlr_edge.sinks.base import SourceHealth

_EVENT_TYPES = ["start", "update", "end"]
_HEALTH, _EVENT = "_health", "_event"  # no label's part begins with an underscore
Topics = dict[str, str]  # topic to what is retained there; "" for nothing any more


class HomeAssistant:
    """Says what is to be retained as sources and labels come and go; used under its owner's lock."""

    def __init__(self, topic: str, prefix: str) -> None:
        """Start without any source.

        Args:
            topic: Of the broker's part that is ours.
            prefix: Where Home Assistant looks for devices, "homeassistant" unless it was changed.
        """
        self._topic, self._prefix = topic, prefix
        self._node = safe_name(topic)
        self._labels: dict[str, dict[str, None]] = {}  # announced, by source, in order

    def event_topic(self, source: str) -> str:
        """Where the messages of a source's events go, for those that listen now."""
        return self._of(source, _EVENT)

    def event_payload(self, event: Event) -> str:
        """The message there."""
        record = {"event_type": event.kind, **event.to_record()}
        return json.dumps(record, allow_nan=False, ensure_ascii=False)

    def watch(self, sources: Sequence[SourceHealth]) -> Topics:
        """Take how all sources are; those that were removed are taken away."""
        topics: Topics = {}
        for gone in [name for name in self._labels if name not in {s.name for s in sources}]:
            topics |= self._taken_away(gone)
        for source in sources:
            if source.name not in self._labels:
                topics |= self._announced(source.name)
            for label in source.labels:
                topics |= self._with_label(source.name, label)
            topics[self._of(source.name, _HEALTH)] = "ON" if source.is_ok else "OFF"
        return topics

    def take(self, event: Event) -> Topics:
        """Take an event."""
        topics: Topics = {}
        if event.source not in self._labels:
            topics |= self._announced(event.source)
        if event.kind == "begin":  # what an earlier run left open is over
            for label in self._labels[event.source]:
                topics[self._of(event.source, safe_name(label))] = "OFF"
        if not event.is_visit:
            return topics
        topics |= self._with_label(event.source, event.label)
        state = self._of(event.source, safe_name(event.label))
        topics[state] = "OFF" if event.kind == "end" else "ON"
        topics[f"{state}/score"] = str(round(event.score, 5))
        return topics

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
                source, label, part, **self._while_seen(source)
            ),
            self._config("sensor", source, part): self._payload(
                source,
                f"{label} score",
                f"{part}/score",
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

    def _taken_away(self, source: str) -> Topics:
        kinds = [("binary_sensor", _HEALTH), ("event", _EVENT)]
        states = [self._of(source, _HEALTH)]
        for part in map(safe_name, self._labels.pop(source)):
            kinds += [("binary_sensor", part), ("sensor", part)]
            states += [self._of(source, part), self._of(source, f"{part}/score")]
        return dict.fromkeys(
            [*(self._config(kind, source, what) for kind, what in kinds), *states], ""
        )

    def _config(self, kind: str, source: str, part: str) -> str:
        return f"{self._prefix}/{kind}/{self._node}/{safe_name(source)}_{part}/config"

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
