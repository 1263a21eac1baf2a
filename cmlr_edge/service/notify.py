"""What systemd is told: a datagram to the socket it names, as `man sd_notify` describes."""

from __future__ import annotations

import socket
from collections.abc import Mapping


class Supervisor:
    """The supervisor of this process; silent where there is none."""

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        """Remember where to write.

        Args:
            address: Of a Unix datagram socket, "@" for the abstract namespace; empty for none.
            watchdog_s: `alive` is expected more often than this; 0 for never.
        """
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = watchdog_s

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
        """Say that all is well, and what is going on."""
        self._send(f"WATCHDOG=1\nSTATUS={_line(status)}")

    def stopping(self) -> None:
        """Say that the service ends."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
            try:
                datagrams.sendto(message.encode(), self._address)
            except OSError:  # a supervisor that went away must not end the service
                return


def _line(text: str) -> str:
    return " ".join(text.split())
