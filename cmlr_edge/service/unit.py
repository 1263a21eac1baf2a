"""The systemd unit of a configuration."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from cmlr_edge.errors import SpecError
from cmlr_edge.machine.no_telemetry import OFF

_TEMPLATE = """\
[Unit]
Description=Multi-label recognition, {config}
Wants=network-online.target
After=network-online.target nvargus-daemon.service
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=notify
NotifyAccess=main
ExecStart={command} run {config}
ExecReload=/bin/kill -HUP $MAINPID
User={user}
# No code from the working directory, in what the service starts neither.
Environment=PYTHONSAFEPATH=1
# Secrets that the configuration refers to as ${{NAME}}.
EnvironmentFile=-{environment}
# No runtime reports on its user.
Environment={silence}
# Which provider was measured as the fastest is kept there, for the home is read-only.
CacheDirectory=cmlr_edge
Environment=XDG_CACHE_HOME=%C/cmlr_edge
WorkingDirectory={folder}
# The service says WATCHDOG=1 four times a second, unless the model hangs.
WatchdogSec=30
TimeoutStartSec=300
TimeoutStopSec=30
Restart=on-failure
# One that comes before the service heeds it ends the process, and counts as success.
RestartForceExitStatus=SIGHUP
RestartSec=5
MemoryMax={memory_max}
TasksMax=512
# The kernel ends the check of a new engine first; the service goes on.
OOMPolicy=continue
# Asked to end twice, it ends at once.
SuccessExitStatus=143
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
# A model and a Python in a home can be read, if the home's own rights let this user in.
ProtectHome=read-only
ReadWritePaths={writable}
PrivateTmp=yes
# Where a Jetson's camera service listens. Unverified on hardware.
BindPaths=-/tmp/argus_socket
PrivateMounts=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RemoveIPC=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
UMask=0027
# Cameras, then GPUs: of a PC, and of a Jetson. Unverified on hardware.
DevicePolicy=closed
{devices}

[Install]
WantedBy=multi-user.target
"""

_DEVICES = (
    "char-video4linux",
    "char-media",
    "char-nvidia*",
    "char-drm",
    "char-nvhost*",
    "char-nvgpu*",
    "char-host1x",
    "char-dma_heap",
    "/dev/nvmap",
)


_PRIVATE = (Path("/tmp"), Path("/var/tmp"))


def objections_of(user: str, readable: Sequence[Path], writable: Sequence[Path]) -> Iterator[str]:
    """Say why a service of this Python could not run as `user`, as far as the present user may find out."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        yield f"there is no user {user}: sudo useradd --system --groups video {user}"
        return
    hidden = [p for p in (*readable, *writable) for top in _PRIVATE if p.is_relative_to(top)]
    if hidden:
        yield f"it has temporary folders of its own, and so no {hidden[0]}: choose another place"
    wanted = [("-x", Path(sys.executable), "run"), *(("-r", file, "read") for file in readable)]
    wanted += [("-w", folder, "write into") for folder in writable]
    groups = os.getgrouplist(user, entry.pw_gid)
    for flag, path, what in wanted if os.geteuid() == 0 else []:
        if not path.exists():
            made = f"sudo install -d -o {user} {path}" if flag == "-w" else "write it"
            yield f"there is no {path}: {made}"
            continue
        test = ["test", flag, str(path)]
        done = subprocess.run(
            test, check=False, cwd="/", user=entry.pw_uid, group=entry.pw_gid, extra_groups=groups
        )
        if done.returncode:
            yield f"{user} may not {what} {path}: let it, or choose a place outside of homes"


def unit_text(config: Path, *, user: str, writable: list[Path], memory_max: str) -> str:
    """Write the unit that runs `config` with this Python.

    Args:
        config: The configuration file.
        user: Who it runs as; in the group "video" for cameras and the GPU.
        writable: Folders of the outputs and of the engine store.
        memory_max: As systemd takes it, such as "3G"; the kernel ends the service beyond.

    Raises:
        SpecError: The unit would say something else than it is meant to.
    """
    config = config.absolute()
    if not re.fullmatch(r"\w[\w.-]*\$?", user):  # an empty one is root, for systemd
        raise SpecError(f"--user is {user!r}: expected the name of a user, such as cmlr")
    if any(not str(path).isprintable() for path in (config, *writable)):
        raise SpecError(f"{str(config)!r} or a folder it names cannot stand in a line: rename it")
    return _TEMPLATE.format(
        command=f"{_quoted(Path(sys.executable))} -m cmlr_edge",
        config=_quoted(config),
        folder=_escaped(config.parent),
        silence=" ".join(f"{name}={value}" for name, value in OFF.items()),
        user=user,
        writable=" ".join(_quoted(path.absolute()) for path in writable),
        memory_max=memory_max,
        environment=_escaped(config.with_suffix(".env")),
        devices="\n".join(f"DeviceAllow={name} rw" for name in _DEVICES),
    )


def _escaped(path: Path) -> str:
    return str(path).replace("%", "%%")


def _quoted(path: Path) -> str:
    text = _escaped(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"' if any(character in text for character in " \t\"'\\") else text
