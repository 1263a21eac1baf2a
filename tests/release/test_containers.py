"""What `containers/` names exists, and is read by those who have to read it."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cmlr_edge.session.config import SessionConfig, load_config

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "containers"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    return found


def settings(monkeypatch: pytest.MonkeyPatch, path: Path) -> SessionConfig:
    for name, value in {
        "CAMERA": "rtsp://a:b@c/d",
        "BROKER": "mqtt://broker/cmlr",
        "CMLR_TOKEN": "x" * 20,
    }.items():
        monkeypatch.setenv(name, value)
    return load_config(path)


def test_the_images_configuration_is_one_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(monkeypatch, FOLDER / "cameras.toml")
    assert [sink.kind for sink in config.sinks] == ["events", "snapshots", "mqtt"]
    state = re.findall(r"VOLUME (\S+)", DOCKERFILE)
    assert all(Path(sink.path).is_relative_to(state[0]) for sink in config.sinks if sink.path)
    ports = re.findall(r"EXPOSE (\d+) (\d+)", DOCKERFILE)
    assert config.page is not None
    assert ports == [(str(config.page.port), str(config.metrics.port))]
    recogniser = compose()["services"]["recogniser"]
    named = re.findall(r"\$\{(\w+)\}", (FOLDER / "cameras.toml").read_text())
    assert {*named} == {*recogniser["environment"]}


def test_every_file_that_is_copied_or_mounted_exists_and_reaches_the_build() -> None:
    for service in compose()["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (FOLDER / source).is_file(), source
    kept = [
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    ]
    copied = [*re.findall(r"^COPY (containers/\S+)", DOCKERFILE, re.MULTILINE), "pyproject.toml"]
    # What CMake asks for, which no other test builds without its neighbours.
    copied += re.findall(r"configure_file\((\S+)", (ROOT / "cmake/sbom.cmake").read_text())
    for name in copied:
        assert (ROOT / name).is_file()
        assert any(fnmatch.fnmatch(name, f"{pattern}*") for pattern in kept), name


def test_nobody_is_root_nothing_is_written_and_what_is_published_asks_for_a_secret() -> None:
    assert re.search(r"^USER [1-9]", DOCKERFILE, re.MULTILINE)
    for name, service in compose()["services"].items():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name
        for port in service.get("ports", []):
            assert name == "recogniser" or port.startswith("127.0.0.1:"), port


def test_the_steps_are_a_shell_script() -> None:
    subprocess.run(["sh", "-n", FOLDER / "steps.sh"], check=True)
    called = {*re.findall(r"steps\.sh(?:\",)? \"?(\w+)", DOCKERFILE)}
    assert called == {"build", "install", "healthy"}
    assert called <= {*re.findall(r"^(\w+)\(\)", (FOLDER / "steps.sh").read_text(), re.MULTILINE)}


def test_prometheus_takes_its_file(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: apt install prometheus")
    text = (
        (FOLDER / "prometheus.yml").read_text().replace("/run/secrets/token", str(tmp_path / "t"))
    )
    (tmp_path / "t").write_text("secret")
    (tmp_path / "prometheus.yml").write_text(text)
    shutil.copy(ROOT / "monitoring/alerts.yml", tmp_path)
    subprocess.run(["promtool", "check", "config", tmp_path / "prometheus.yml"], check=True)


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_the_image_was_built_and_its_service_run(architecture: str) -> None:
    found = json.loads((ROOT / f"release/results/container_{architecture}.json").read_text())
    assert (found["architecture"], found["exit_code"], found["uid"]) == (architecture, 0, 10001)
    page = (ROOT / "docs/containers.md").read_text()
    assert f"{found['size_mib']} MiB" in page
    assert f"{found['healthy_after_s']} s" in page
