"""Child processes with limits: in time, in memory, in what they may say, and in whose code they run.

What loads drivers, runtimes or strange files may crash, hang or eat all memory; in a child it costs one
answer. A child is the head of a process group, which ends with it, and a child of Python's dies with
the thread that started it.

Memory is bounded by watching what the child really holds: CUDA reserves address space of many times
the machine's memory, and runtimes map far more than they use, so that RLIMIT_AS and RLIMIT_DATA would
end children that take little.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from cmlr_edge.machine.hardware import available_memory
from cmlr_edge.machine.waiting import tick

_MIB = 2**20
_OUTPUT_BYTES = 4 * _MIB  # that are kept of each stream, its end
_SHARE_OF_FREE_MEMORY = 0.9  # for a child: the rest keeps the others alive

# `-c` puts the current folder first in the path, as "", and a numpy.py lying there is not NumPy.
_BOOTSTRAP = """
import sys
sys.path[:] = [folder for folder in sys.path if folder]
import ctypes, importlib, os
try:  # where memory runs out, whoever asked stays
    open("/proc/self/oom_score_adj", "w").write("1000")
except OSError:
    pass
ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
if os.getppid() != int(sys.argv[1]):
    sys.exit("whoever asked is gone")
sys.path.append(sys.argv[2])
sys.exit(getattr(importlib.import_module(sys.argv[3]), sys.argv[4])(*sys.argv[5:]))
"""


@dataclass(frozen=True)
class Ended:
    """A child process that ended, or was given up."""

    code: int
    output: str
    error: str  # empty if all went well
    messages: str = ""  # on stderr
    limit: Literal["", "time", "memory"] = ""  # that it was ended for


class Child:
    """A running child; whoever waits for it or polls it enforces its limits."""

    def __init__(
        self,
        command: list[str],
        *,
        timeout_s: float = math.inf,
        memory: int | None = None,
        on_line: Callable[[str], None] | None = None,
        listens: bool = False,
    ) -> None:
        """Start it.

        Args:
            command: Program and arguments; `python_command` makes one of a function of this package.
            timeout_s: It is killed after so long.
            memory: Bytes that it may hold, and never more than nearly all that can be had now.
            on_line: Gets every line of its output, in another thread; the output is not kept then.
            listens: It reads what `send` is given.

        Raises:
            OSError: It cannot be started.
        """
        self._timeout_s, self._started_s = timeout_s, time.monotonic()
        available = int(_SHARE_OF_FREE_MEMORY * available_memory())
        self._memory = available if memory is None else min(memory, available)
        self._ended: Ended | None = None
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if listens else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._output = _Reader(self._process.stdout, on_line)
        self._messages = _Reader(self._process.stderr, None)

    def send(self, line: str) -> None:
        """Write a line to a child that listens; one that is dead does not hear it."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError, ValueError):  # the latter of a pipe that is closed
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    def hang_up(self) -> None:
        """Let a child that listens see the end of what it is sent, which ends it in order."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def poll(self) -> Ended | None:
        """How it ended; None while it runs. Beyond a limit it is killed."""
        if self._ended is None:
            if self._is_over():
                self._ended = self._finish()
            elif time.monotonic() - self._started_s > self._timeout_s:
                self._give_up("time", f"gave no answer in {self._timeout_s:g} s")
            elif _held_bytes(self._process.pid) > self._memory:
                self._give_up("memory", f"took more than {self._memory // _MIB} MiB of memory")
        return self._ended

    def wait(self) -> Ended:
        """Wait for its end, or for that of a limit. It is killed if the wait is interrupted."""
        try:
            while (ended := self.poll()) is None:
                tick()
        except BaseException:
            self.kill()
            raise
        return ended

    def kill(self) -> Ended:
        """End it and what it started, if it runs."""
        if self._ended is None:
            self._give_up("", "was ended")
        assert self._ended is not None
        return self._ended

    def _is_over(self) -> bool:
        """Look without burying it: until then its number is no one else's."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._process.pid, flags) is not None

    def _give_up(self, limit: Literal["", "time", "memory"], error: str) -> None:
        self._end_group()
        with suppress(
            subprocess.TimeoutExpired
        ):  # stuck in a driver: it cannot be killed, and is left
            self._process.wait(timeout=1)
        self._ended = Ended(124, self._output.text(), error, self._messages.text(), limit)

    def _finish(self) -> Ended:
        self._end_group()  # which it may have left behind, holding its pipes
        code, messages = self._process.wait(), self._messages.text()
        return Ended(code, self._output.text(), _error_of(code, messages), messages)

    def _end_group(self) -> None:
        if self._process.stdin is not None:
            self.hang_up()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


def run_limited(command: list[str], *, timeout_s: float, memory: int | None = None) -> Ended:
    """Run a command that may crash or hang, and wait no longer than `timeout_s`."""
    try:
        child = Child(command, timeout_s=timeout_s, memory=memory)
    except OSError as error:
        return Ended(127, "", f"{command[0]} cannot be run: {error.strerror}")
    return child.wait()


def python_command(module: str, function: str, *arguments: str) -> list[str]:
    """Command that calls a function of this package with text; what it returns is the exit code.

    It imports nothing from the current folder, and dies with the thread that starts it.
    """
    package_home = str(Path(__file__).parents[2])
    about = [str(os.getpid()), package_home, module, function]
    return [sys.executable, "-c", _BOOTSTRAP, *about, *arguments]


def _held_bytes(pid: int) -> int:
    """Of memory and swap; 0 where the kernel no longer tells."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(
        int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmRSS", "VmSwap"))
    )


def _error_of(code: int, messages: str) -> str:
    if code < 0:
        return f"crashed with {signal.Signals(-code).name}"
    if code == 0:
        return ""
    lines = [line.strip() for line in messages.splitlines() if line.strip()]
    return (lines[-1] if lines else f"ended with exit code {code}")[:300]


class _Reader(threading.Thread):
    """Empties a pipe, so that the child never waits for us, and keeps the end of what came."""

    def __init__(self, pipe: IO[bytes], on_line: Callable[[str], None] | None) -> None:
        super().__init__(daemon=True)
        self._pipe, self._on_line, self._kept = pipe, on_line, bytearray()
        self.start()

    def run(self) -> None:
        with self._pipe:
            if self._on_line is not None:
                for line in self._pipe:
                    self._on_line(line.decode(errors="replace"))
            while part := os.read(self._pipe.fileno(), 2**16):
                self._kept += part
                del self._kept[: max(0, len(self._kept) - _OUTPUT_BYTES)]

    def text(self) -> str:
        self.join(timeout=1)  # a process that left the group may hold the pipe for ever
        return bytes(self._kept).decode(errors="replace")
