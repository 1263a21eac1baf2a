"""A real MQTT broker on loopback, with a subscriber that notes everything."""

from __future__ import annotations

import getpass
import json
import socket
import subprocess
import threading
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

TOPICS = [("door/#", 1), ("homeassistant/#", 1)]


class Broker:
    """mosquitto on loopback, with a subscriber that notes everything."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.config = folder / "mosquitto.conf"
        # Persistent, so that a restart does not lose what the subscriber has not yet taken.
        self.config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nuser {getpass.getuser()}\n"
            f"persistence true\npersistence_location {folder}/\n"
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.seen: list[tuple[str, str]] = []
        self.subscribed = threading.Event()
        self.subscriber = paho.Client(
            CallbackAPIVersion.VERSION2, "subscriber", clean_session=False
        )
        self.subscriber.reconnect_delay_set(1, 1)
        self.subscriber.on_connect = lambda client, *_: client.subscribe(TOPICS)
        self.subscriber.on_subscribe = lambda *_: self.subscribed.set()
        self.subscriber.on_message = self._note

    def _note(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        seen = (message.topic, message.payload.decode())
        # A broker that is stopped before it has our acknowledgement sends again.
        if not (message.dup and seen in self.seen):
            self.seen.append(seen)

    def start(self) -> None:
        command = ["mosquitto", "-c", str(self.config)]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)

    def listens(self) -> bool:
        with socket.socket() as caller:
            return caller.connect_ex(("127.0.0.1", self.port)) == 0

    def ids(self) -> list[str]:
        return [json.loads(text)["id"] for topic, text in self.seen if topic == "door/events"]

    def availability(self) -> list[str]:
        return [text for topic, text in self.seen if topic == "door/availability"]

    def retained(self, topic: str = "#") -> dict[str, str]:
        """What a subscriber who comes now is told."""
        found: dict[str, str] = {}
        come = threading.Event()
        client = paho.Client(CallbackAPIVersion.VERSION2)
        client.on_connect = lambda client, *_: client.subscribe(topic)

        def note(_client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
            if message.retain:
                found[message.topic] = message.payload.decode()
            come.set()

        client.on_message = note
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        come.wait(5)
        while come.is_set():  # all that is retained comes at once
            come.clear()
            come.wait(0.3)
        client.disconnect()
        client.loop_stop()
        return found
