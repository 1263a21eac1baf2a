"""A Debian of arm64 in a folder, run by qemu's user-mode emulation."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from release.programs import output_of

_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_QEMU = "/usr/bin/qemu-aarch64-static"
# The kernel hands programs that begin like this to qemu; F: which it opens now, outside any chroot.
_RULE = (
    rb":qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    rb":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
    b":" + _QEMU.encode() + b":OCF"
)
_PATH = "/opt/cmlr/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = {
    "PATH": _PATH,
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "QEMU_CPU": "cortex-a76",  # qemu's nearest to the Cortex-A78AE of Orin
}


def missing_tools() -> str:
    """What emulation lacks here, for people; empty if it works."""
    if os.geteuid() != 0:
        return "root, for chroot"
    missing = [name for name in ("debootstrap", "unshare") if shutil.which(name) is None]
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
    """A folder with the files of a system, whose programs run under emulation."""

    def __init__(self, folder: Path) -> None:
        """Take what lies in `folder`; see `unpack` and `fresh_copy`."""
        self._folder = folder.absolute()

    def path(self, name: str) -> Path:
        """Where a file of the system lies here."""
        return self._folder / name

    def has(self, program: str) -> bool:
        """Whether a program is installed there."""
        folders = [str(self.path(folder.lstrip("/"))) for folder in _PATH.split(":")]
        return shutil.which(program, path=os.pathsep.join(folders)) is not None

    def run(self, command: Sequence[str]) -> str:
        """Run a program there and return what it prints.

        Raises:
            SystemExit: It failed.
        """
        return output_of([*self._enter(), *command], _ENVIRONMENT)

    def run_anyhow(self, command: Sequence[str]) -> tuple[int, str]:
        """Run a program there, which may fail; return its exit code and what it prints."""
        run = subprocess.run(
            [*self._enter(), *command],
            env=_ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
        return run.returncode, run.stdout

    def _enter(self) -> list[str]:
        # Seen by this one program alone: nothing stays mounted in the folder.
        mounts = 'mount -t proc proc "$0/proc" && mount --bind "$0/etc/cpuinfo" "$0/proc/cpuinfo"'
        alone = ["unshare", "--mount", "--propagation=private"]
        return [*alone, "sh", "-c", f'{mounts} && exec chroot "$0" "$@"', str(self._folder)]


def unpack(folder: Path, suite: str) -> EmulatedSystem:
    """Unpack Debian's `suite` into `folder`, with Python and nothing to compile with; once.

    Raises:
        SystemExit: A program failed; its words are in the message.
    """
    system = EmulatedSystem(folder)
    if system.path(".unpacked").exists():
        return system
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--foreign", "--arch=arm64", "--variant=minbase", "--include=python3,python3-venv"]
    output_of(["debootstrap", *options, suite, str(folder)])
    # Unpacked is enough for Python: configuring every package under emulation takes minutes.
    for package in sorted(system.path("var/cache/apt/archives").glob("*.deb")):
        output_of(["dpkg-deb", "--extract", str(package), str(folder)])
        package.unlink()
    _describe_processor(system)
    system.path(".unpacked").touch()
    return system


def _describe_processor(system: EmulatedSystem) -> None:
    """Tell of two cores like Orin's; ONNX Runtime ends where the kernel tells of none, or of others."""
    folder = system.path("sys/devices/system/cpu")
    folder.mkdir(parents=True)
    for name in ("possible", "present"):
        (folder / name).write_text("0-1\n")
    features = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimdrdm asimddp"
    core = f"Features : {features}\nCPU implementer : 0x41\nCPU architecture: 8\nCPU part : 0xd42\n"
    text = "\n".join(f"processor : {number}\n{core}" for number in range(2))
    system.path("etc/cpuinfo").write_text(text)


def fresh_copy(system: EmulatedSystem, folder: Path) -> EmulatedSystem:
    """Copy a system, in place of what lies in `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    output_of(["cp", "--archive", "--reflink=auto", str(system.path(".")), str(folder)])
    return EmulatedSystem(folder)
