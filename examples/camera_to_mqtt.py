"""Events of a camera to a broker: `python examples/camera_to_mqtt.py rtsp://door/1 mqtt://broker/door`.

Needs `pip install '.[cpu,mqtt]'`. The same on the command line: `cmlr-edge label rtsp://door/1 --mqtt mqtt://broker/door`.
"""

from __future__ import annotations

import sys

from cmlr_edge import Recognizer, StabilityChange, StabilityRules, Streams, demo_engine, open_source
from cmlr_edge.sinks.mqtt import MqttEvents


def main(camera: str, broker: str) -> None:
    """Send an event when a label comes, stays and goes, and print it."""
    calm = StabilityRules(StabilityChange(min_duration_s=1.0, min_gap_s=3.0))  # no flicker
    with Recognizer.from_engine(demo_engine()) as recognizer, Streams(recognizer) as streams:
        streams.add(open_source(camera), name="door", sinks=[MqttEvents(broker)], stability=calm)
        for result in streams.results():
            for event in result.events:
                print(event.kind, event.label, f"{event.time_s:.1f} s")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
