"""A Debian of arm64 in a folder, run by qemu's user-mode emulation."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_QEMU = "/usr/bin/qemu-aarch64-static"
# The kernel hands programs that begin like this to qemu; F: which it opens now, outside any chroot.
_RULE = (
    rb":qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    rb":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
    b":" + _QEMU.encode() + b":OCF"
)
_PATH = "/opt/cmlr/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing_tools() -> str:
    """What emulation lacks here, for people; empty if it works."""
    if os.geteuid() != 0:
        return "root, for chroot"
    missing = [name for name in ("debootstrap", "chroot") if shutil.which(name) is None]
    if not Path(_QEMU).is_file():
        missing.append("qemu-user-static")
    if missing:
        return f"{', '.join(missing)} (apt install debootstrap qemu-user-static)"
    return "" if _kernel_knows_qemu() else "a kernel with binfmt_misc"


def _kernel_knows_qemu() -> bool:
    if not (_BINFMT / "register").exists():
        mount = ["mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            return False
    if not (_BINFMT / "qemu-aarch64").exists():
        (_BINFMT / "register").write_bytes(_RULE)
    return (_BINFMT / "qemu-aarch64").exists()


class EmulatedSystem:
    """Unpacks the system once; what is there is used again."""

    def __init__(self, folder: Path, suite: str) -> None:
        """Unpack Debian's `suite` into `folder`, with Python and nothing to compile with.

        Raises:
            SystemExit: A program failed; its words are in the message.
        """
        self._folder = folder.absolute()
        if self.path(".unpacked").exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--foreign", "--arch=arm64", "--variant=minbase"]
        packages = "--include=python3,python3-venv"
        _run(["debootstrap", *options, packages, suite, str(self._folder)])
        # Unpacked is enough for Python: configuring every package under emulation takes minutes.
        for package in sorted(self.path("var/cache/apt/archives").glob("*.deb")):
            _run(["dpkg-deb", "--extract", str(package), str(self._folder)])
        self.path(".unpacked").touch()

    def path(self, name: str) -> Path:
        """Where a file of the system lies here."""
        return self._folder / name

    def has(self, program: str) -> bool:
        """Whether a program is installed there."""
        return shutil.which(program, path=os.pathsep.join(self._bins())) is not None

    def run(self, command: Sequence[str]) -> str:
        """Run a program there and return what it prints.

        Raises:
            SystemExit: It failed.
        """
        environment = {"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
        return _run(["chroot", str(self._folder), *command], environment)

    def _bins(self) -> list[str]:
        return [str(self.path(folder.lstrip("/"))) for folder in _PATH.split(":")]


def _run(command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if run.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{run.stdout[-4000:]}\n{run.stderr[-4000:]}")
    return run.stdout
