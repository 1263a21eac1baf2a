"""Builds the image of `containers/Dockerfile` without Docker and runs its service: `make test-container`.

    python -m tests.release.container --out release/results/container_amd64.json

buildah builds it in a chroot, on a Debian that mmdebstrap unpacks, which stands in for the base that a hub
would serve. The service then runs in it as the image says - its user, nothing to write but its folder and
/tmp - with a camera and a broker of this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from cmlr_edge.model.files import write_atomically
from release.programs import output_of
from tests.release.arm64.emulated import missing_tools

ROOT = Path(__file__).parents[2]
_BASE, _IMAGE = "docker.io/library/debian:bookworm-slim", "localhost/cmlr-edge"
_HEALTHY = ["sh", "/usr/local/lib/cmlr-edge/steps.sh", "healthy"]
_TOKEN = "a-secret-of-this-test"
# Seen by this program alone; /proc is the machine's, for nothing else is isolated here.
_ENTER = (
    'mount --bind "$0" "$0" && mount -t proc proc "$0/proc" && mount -t tmpfs tmpfs "$0/tmp" '
    '&& mount --rbind /dev "$0/dev" && mount --bind "$1" "$0/var/lib/cmlr-edge" '
    '&& mount -o remount,bind,ro "$0" && shift && exec chroot "$@"'
)


def buildah(*arguments: str | Path) -> str:
    """Run it; return what it prints.

    Raises:
        SystemExit: It failed.
    """
    environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
    return output_of(["buildah", *map(str, arguments)], environment).strip()


def make_base(suite: str, architecture: str) -> None:
    """Unpack a Debian, and give it the name that the Dockerfile asks for."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "base.tar"
        output_of(
            ["mmdebstrap", "--variant=minbase", f"--architectures={architecture}", suite, str(tree)]
        )
        container = buildah("from", "--arch", architecture, "scratch")
        mounted = buildah("mount", container)
        output_of(["tar", "-C", mounted, "-xf", str(tree)])
        buildah("umount", container)
        buildah("commit", "-q", container, _BASE)
        buildah("rm", container)


def build(volumes: Sequence[str], architecture: str) -> float:
    """Build the image from the files of this checkout; return the seconds it took."""
    with tempfile.TemporaryDirectory() as folder:
        files = output_of(["git", "-C", str(ROOT), "ls-files", "-z"]).split("\0")
        for name in filter(None, files):
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
        shared = [word for volume in volumes for word in ("--volume", volume)]
        options = [
            "--format",
            "docker",
            "--pull-never",
            "--network",
            "host",
            "--arch",
            architecture,
            "--tag",
            _IMAGE,
        ]
        started_s = time.monotonic()
        dockerfile = Path(folder) / "containers/Dockerfile"
        buildah("bud", *options, *shared, "--file", dockerfile, folder)
        return time.monotonic() - started_s


@contextmanager
def mounted_image() -> Iterator[tuple[Path, dict[str, Any]]]:
    """The files of the image, and what it says of itself."""
    container = buildah("from", "--pull-never", _IMAGE)
    try:
        about = json.loads(buildah("inspect", "--type", "image", _IMAGE))["Docker"]["config"]
        yield Path(buildah("mount", container)), about
    finally:
        buildah("rm", container)


def start(
    root: Path, state: Path, about: dict[str, Any], command: Sequence[str], **more: str
) -> Any:
    """Start a program in the image, as its user and in its environment."""
    environment = dict(pair.split("=", 1) for pair in about["Env"]) | more
    enter = [
        "unshare",
        "--mount",
        "--propagation=private",
        "sh",
        "-c",
        _ENTER,
        str(root),
        str(state),
    ]
    user = [f"--userspec={about['User']}", str(root)]
    return subprocess.Popen(
        [*enter, *user, "env", "-i", *(f"{k}={v}" for k, v in environment.items()), *command],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def first_topic(port: int) -> str:
    """What the broker keeps for Home Assistant; empty where nothing came in 30 s."""
    found: Queue[str] = Queue()
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda _client, _data, message: found.put(message.topic)
    client.connect("127.0.0.1", port)
    client.subscribe("homeassistant/#")
    client.loop_start()
    with suppress(Empty):
        return found.get(timeout=30)
    return ""


def serve(root: Path, state: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Run the image's own command until it is healthy and has told of its camera; end it.

    Raises:
        SystemExit: It did not do as the image promises.
    """
    port, mqtt_port = 8000, 18830
    broker = subprocess.Popen(["mosquitto", "-p", str(mqtt_port)], stderr=subprocess.DEVNULL)
    started_s = time.monotonic()
    service = start(
        root, state, about, [*about["Entrypoint"], *about["Cmd"]],
        CAMERA="test://?fps=5", BROKER=f"mqtt://127.0.0.1:{mqtt_port}/cmlr", CMLR_TOKEN=_TOKEN,
    )  # fmt: skip
    try:
        while start(root, state, about, _HEALTHY, CMLR_PORT=str(port)).wait():
            if service.poll() is not None or time.monotonic() - started_s > 600:
                service.kill()
                raise SystemExit(f"the service did not become healthy: {service.communicate()[0]}")
            time.sleep(0.2)
        healthy_s = time.monotonic() - started_s
        discovered = first_topic(mqtt_port)
        status = Path(f"/proc/{service.pid}/status").read_text()
        service.send_signal(signal.SIGTERM)
        output = service.communicate(timeout=30)[0]
    finally:
        service.kill()
        broker.terminate()
    uid = next(line.split()[1] for line in status.splitlines() if line.startswith("Uid"))
    found = {
        "healthy_after_s": round(healthy_s, 1),
        "uid": int(uid),
        "exit_code": service.returncode,
        "told_home_assistant": discovered,
        "files_of_its_state": sorted(path.name for path in state.iterdir()),
    }
    if uid == "0" or service.returncode != 0 or not discovered:
        raise SystemExit(f"the service in the image: {found}\n{output}")
    return found


def main() -> None:
    """Build, run, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--volume", action="append", default=[], help="of the build, as buildah's")
    parser.add_argument(
        "--architecture", default="amd64", help="another than this machine's is emulated"
    )
    parser.add_argument("--suite", default="bookworm", help="of Debian, beneath the image")
    options = parser.parse_args()
    emulated = options.architecture == "arm64" and platform.machine() != "aarch64"
    needed = ["buildah", "mmdebstrap", "mosquitto", *(["arch-test"] if emulated else [])]
    missing = [name for name in needed if not shutil.which(name)]
    if missing or os.geteuid():
        raise SystemExit(f"needs root and {', '.join(missing) or 'nothing else'} (apt install)")
    if emulated and (lacks := missing_tools()):
        raise SystemExit(f"arm64 is emulated here, which needs {lacks}")
    make_base(options.suite, options.architecture)
    seconds = build(options.volume, options.architecture)
    with mounted_image() as (root, about), tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        user = int(about["User"].partition(":")[0])
        os.chown(state, user, user)
        size = int(output_of(["du", "-sm", str(root)]).split()[0])
        ours = int(output_of(["du", "-sm", str(root / "opt")]).split()[0])
        found = serve(root, state, about)
    record = {
        "base": options.suite, "architecture": options.architecture, "build_s": round(seconds),
        "size_mib": size, "of_that_ours_mib": ours, **found,
    }  # fmt: skip
    write_atomically(options.out, (json.dumps(record, indent=1) + "\n").encode())
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
