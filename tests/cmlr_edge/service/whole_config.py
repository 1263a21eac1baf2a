"""A configuration with every kind of table."""

from __future__ import annotations

WHOLE = """
[engine]
store = "engines"
provider = "cpu"

[engine.update]
max_flip_share = 0.1

[thresholds]
person = 0.4
"traffic light" = 0.3

[stability.all_labels]
min_duration_s = 1.5

[[sources]]
name = "door"
uri = "rtsp://camera/1"

[[sources]]
name = "yard"
uri = "test://"
policy = "every"

[[sinks]]
kind = "mqtt"
url = "mqtt://broker/topic"
"""
