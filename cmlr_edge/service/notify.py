"""What systemd is told: a datagram to the socket it names, as `man sd_notify` describes."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Mapping

_SEND_TIMEOUT_S = 0.5  # the kernel makes a sender wait while too many messages are unread


class Supervisor:
    """The supervisor of this process; silent where there is none."""

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        """Remember where to write.

        Args:
            address: Of a Unix datagram socket, "@" for the abstract namespace; empty for none.
            watchdog_s: `alive` is expected more often than this; 0 for never.
        """
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._every_s = min(1.0, watchdog_s / 4) if watchdog_s else 1.0
        self._alive_s = -math.inf  # when `alive` last said so, on time.monotonic()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Supervisor:
        """Read what systemd puts into the environment of a service."""
        microseconds = environment.get("WATCHDOG_USEC", "0")
        watchdog_s = int(microseconds) / 1e6 if microseconds.isdecimal() else 0.0
        return cls(environment.get("NOTIFY_SOCKET", ""), watchdog_s)

    def ready(self, status: str) -> None:
        """Say that the service works, at the start and after a reload."""
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def reloading(self, now_us: int) -> None:
        """Say that a reload has begun; `ready` says that it is over.

        Args:
            now_us: CLOCK_MONOTONIC, in microseconds.
        """
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now_us}")

    def alive(self, status: str) -> None:
        """Say that all is well, and what is going on; as often as needed, however often it is called."""
        now_s = time.monotonic()
        if now_s - self._alive_s < self._every_s:
            return
        self._alive_s = now_s
        self._send(f"WATCHDOG=1\nSTATUS={_line(status)}")

    def stopping(self) -> None:
        """Say that the service ends."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
            datagrams.settimeout(_SEND_TIMEOUT_S)
            try:
                datagrams.sendto(message.encode(), self._address)
            except (
                OSError
            ):  # a supervisor that went away or does not listen must not end the service
                return


def _line(text: str) -> str:
    return " ".join(text.split())
