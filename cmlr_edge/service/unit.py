"""The systemd unit of a configuration."""

from __future__ import annotations

import sys
from pathlib import Path

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
# No runtime reports on its user.
Environment={silence}
WorkingDirectory={folder}
# The service says WATCHDOG=1 four times a second, unless the model hangs.
WatchdogSec={watchdog_s}
TimeoutStartSec=300
TimeoutStopSec=30
Restart=on-failure
RestartSec=5
MemoryMax={memory_max}
TasksMax=512
OOMPolicy=stop
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={writable}
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
LockPersonality=yes
UMask=0027

[Install]
WantedBy=multi-user.target
"""


def unit_text(
    config: Path, *, user: str, writable: list[Path], memory_max: str, watchdog_s: int = 30
) -> str:
    """Write the unit that runs `config` with this Python.

    Args:
        config: The configuration file.
        user: Who it runs as; in the group "video" for cameras and the GPU.
        writable: Folders of the outputs and of the engine store.
        memory_max: As systemd takes it, such as "3G"; the kernel ends the service beyond.
        watchdog_s: Without a sign of life for so long, systemd restarts the service.
    """
    config = config.absolute()
    return _TEMPLATE.format(
        command=f"{_quoted(Path(sys.executable))} -m cmlr_edge",
        config=_quoted(config),
        folder=_escaped(config.parent),
        silence=" ".join(f"{name}={value}" for name, value in OFF.items()),
        user=user,
        writable=" ".join(_quoted(path.absolute()) for path in writable),
        memory_max=memory_max,
        watchdog_s=watchdog_s,
    )


def _escaped(path: Path) -> str:
    return str(path).replace("%", "%%")


def _quoted(path: Path) -> str:
    text = _escaped(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"' if any(character in text for character in " \t\"'\\") else text
