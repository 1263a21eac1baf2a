"""Where results go: each output is one small class with `write` and `close`, behind one guard."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cmlr_edge.sinks.base import Result, Sink

if TYPE_CHECKING:
    from cmlr_edge.sinks.clips import Clips
    from cmlr_edge.sinks.collect import Collect
    from cmlr_edge.sinks.contact_sheet import ContactSheet
    from cmlr_edge.sinks.csv_table import CsvTable
    from cmlr_edge.sinks.jsonl import EventLines, JsonLines
    from cmlr_edge.sinks.mqtt import MqttEvents
    from cmlr_edge.sinks.overlay import OverlayVideo
    from cmlr_edge.sinks.snapshots import Snapshots
    from cmlr_edge.sinks.webhook import Webhook

__all__ = [
    "Clips",
    "Collect",
    "ContactSheet",
    "CsvTable",
    "EventLines",
    "JsonLines",
    "MqttEvents",
    "OverlayVideo",
    "Result",
    "Sink",
    "Snapshots",
    "Webhook",
]
_HOMES = {
    "Clips": "clips",
    "Collect": "collect",
    "ContactSheet": "contact_sheet",
    "CsvTable": "csv_table",
    "EventLines": "jsonl",
    "JsonLines": "jsonl",
    "MqttEvents": "mqtt",
    "OverlayVideo": "overlay",
    "Snapshots": "snapshots",
    "Webhook": "webhook",
}


def __getattr__(name: str) -> Any:
    """Import an output when it is first asked for: most runs need one or two."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
