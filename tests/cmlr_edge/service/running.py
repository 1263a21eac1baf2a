"""A service in a process of its own, and the supervisor's end of its socket."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cmlr_edge.machine.closing import Closing

_TIMEOUT_S = 60.0


class RunningService(Closing):
    """Starts `cmlr-edge run`, and hears what it tells its supervisor."""

    def __init__(self, config: Path, watchdog_s: float = 2.0) -> None:
        self._address = config.parent / "notify.socket"
        self._address.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._address))
        self._messages: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        environment = os.environ | {
            "NOTIFY_SOCKET": str(self._address),
            "WATCHDOG_USEC": str(round(watchdog_s * 1e6)),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cmlr_edge", "run", str(config)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    def hear(self, wanted: Callable[[str], bool]) -> str:
        """The first message from now on that is wanted."""
        deadline_s = time.monotonic() + _TIMEOUT_S
        while time.monotonic() < deadline_s:
            over = self.process.poll() is not None
            try:
                message = self._messages.get(timeout=1.0)
            except queue.Empty:
                if over:
                    raise AssertionError(f"it ended: {self.process.communicate()[1]}") from None
                continue
            if wanted(message):
                return message
        raise AssertionError(f"not heard in {_TIMEOUT_S} s")

    def _listen(self) -> None:
        with self._socket:
            while message := self._socket.recv(4096):  # an empty one is the end
                self._messages.put(message.decode())

    def until_ready(self) -> str:
        return self.hear(lambda message: message.startswith("READY=1"))

    def until_frames(self, count: int) -> str:
        return self.hear(lambda message: frames_of(message) >= count)

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)
        self.hear(lambda message: message.startswith("RELOADING=1"))
        self.until_ready()

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Exit code, and what it wrote to stderr."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=_TIMEOUT_S)
        return self.process.returncode, errors

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", str(self._address))


def frames_of(message: str) -> int:
    """How many frames the status in a message counts."""
    status = message.partition("STATUS=")[2]
    return int(status.split(" ")[0]) if status else -1
