"""Starts, reloads, stops and restarts the service, as systemd would; prints JSON. Runs on the device."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_CONFIG = """
[engine]
path = "engine"
[[sources]]
name = "camera"
uri = "test://?fps=1&size=128x96"
policy = "every"
[[sinks]]
kind = "jsonl"
path = "labels.jsonl"
"""


def main(folder: Path) -> None:
    """Run it in `folder`, with the engine there."""
    config = folder / "device.toml"
    config.write_text(_CONFIG)
    lines = folder / "labels.jsonl"
    lines.unlink(missing_ok=True)
    starts = [_one_life(config), _one_life(config)]
    labelled = [json.loads(line) for line in lines.read_text().splitlines()]
    record = {"starts": starts, "frames_in_file": len(labelled)}
    assert all(start["exit_code"] == 0 for start in starts), starts
    assert [line["frame"] for line in labelled].count(0) == 2, (
        "the restart goes on in the same file"
    )
    print(json.dumps(record))


def _one_life(config: Path) -> dict[str, Any]:
    address = config.with_name("notify")
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as messages:
        messages.bind(str(address))
        messages.settimeout(300)
        start_s = time.monotonic()
        service = subprocess.Popen(
            [sys.executable, "-m", "cmlr_edge", "run", str(config)],
            env=os.environ | {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "60000000"},
        )
        _hear(messages, "READY=1")
        ready_s = time.monotonic() - start_s
        while _frames(_hear(messages, "WATCHDOG=1")) < 2:
            pass
        service.send_signal(signal.SIGHUP)
        _hear(messages, "RELOADING=1")
        _hear(messages, "READY=1")
        service.send_signal(signal.SIGTERM)
        _hear(messages, "STOPPING=1")
        return {"ready_s": round(ready_s, 1), "exit_code": service.wait(300)}


def _frames(message: str) -> int:
    return int(message.partition("STATUS=")[2].split(" ")[0])


def _hear(messages: socket.socket, wanted: str) -> str:
    while True:
        message = messages.recv(4096).decode()
        if message.startswith(wanted):
            return message


if __name__ == "__main__":
    main(Path(sys.argv[1]))
