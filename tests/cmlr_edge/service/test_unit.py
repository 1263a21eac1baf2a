from __future__ import annotations

import configparser
import getpass
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cmlr_edge.cli.app import app
from cmlr_edge.cli.service import _readable
from cmlr_edge.errors import SpecError
from cmlr_edge.service.unit import objections_of
from tests.cmlr_edge.service.whole_config import WHOLE


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "50 % more"  # systemd has its own ideas about blanks and per cent signs
    folder.mkdir()
    path = folder / "door.toml"
    path.write_text(WHOLE + '\n[[sinks]]\nkind = "jsonl"\npath = "lines.jsonl"\n')
    return path


def install(config: Path, units: Path) -> Path:
    options = ["--units", str(units), "--user", getpass.getuser(), "--memory-max", "2G"]
    done = CliRunner().invoke(app, ["service", "install", str(config), *options])
    assert done.exit_code == 0, done.output
    assert "systemctl daemon-reload" in done.output
    return units / "cmlr-edge-door.service"


def test_the_unit_is_taken_by_systemd_itself(config: Path, tmp_path: Path) -> None:
    unit = install(config, tmp_path)
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: nobody checks the unit")
    verify = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cmlr-edge-door" not in done.stderr  # where it warns about the unit


def test_what_keeps_a_service_from_starting_is_told_with_its_unit(
    config: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(config, tmp_path)
    assert [text for text in caplog.messages if "no user" in text] == []
    command = ["service", "install", str(config), "--units", str(tmp_path)]
    done = CliRunner().invoke(app, [*command, "--user", "nobdy"])
    assert done.exit_code == 0
    assert caplog.messages[-1].endswith(
        "there is no user nobdy: sudo useradd --system --groups video nobdy"
    )
    done = CliRunner().invoke(app, [*command, "--memory-max", "3Q"])
    assert "expected such as 3G" in str(done.exception)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root finds out what others may")
def test_what_its_user_may_not_do_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cmlr_edge.service.unit._PRIVATE", [tmp_path / "hidden"])
    config = tmp_path / "door.toml"
    config.write_text("")
    config.chmod(0o600)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    (tmp_path / "pw").write_text("secret")
    (tmp_path / "pw").chmod(0o600)
    config.write_text(f"""[[sources]]
name = "door"
uri = "rtsp://u:${{file:pw}}@c/${{file:$CREDENTIALS_DIRECTORY/x}}"
[engine]
path = "{tmp_path}/none.onnx"
""")
    readable = _readable(config)
    assert readable == [config, tmp_path / "pw", tmp_path / "none.onnx"]
    said = [*objections_of("nobody", readable, [tmp_path, tmp_path / "open"])]
    assert any(f"nobody may not read {tmp_path}/pw:" in text for text in said)
    assert f"there is no {tmp_path}/none.onnx: write it" in said
    assert any(f"nobody may not read {config}:" in text for text in said)
    assert any(f"nobody may not write into {tmp_path}:" in text for text in said)
    assert not any(f"write into {tmp_path / 'open'}" in text for text in said)
    said = [*objections_of("root", [config, tmp_path / "hidden" / "pw"], [])]
    assert (
        said[0]
        == f"it has temporary folders of its own, and so no {tmp_path}/hidden/pw: choose another place"
    )
    [missing] = objections_of("root", [config], [tmp_path / "later"])
    assert missing == f"there is no {tmp_path}/later: sudo install -d -o root {tmp_path}/later"


def test_the_unit_is_shut_as_far_as_cameras_and_a_gpu_allow(config: Path, tmp_path: Path) -> None:
    unit = install(config, tmp_path)
    text = unit.read_text()
    for name in ("video4linux", "nvidia*", "drm", "nvhost*"):  # unverified on hardware
        assert f"DeviceAllow=char-{name} rw" in text
    assert "PrivateDevices" not in text
    assert "MemoryDenyWriteExecute" not in text  # runtimes compile kernels as they run
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: nobody rates the unit")
    rate = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    done = subprocess.run(rate, capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for .*: ([\d.]+)", done.stdout)
    assert found, done.stderr
    # A user of its own is worth 0.4; the test's may be root.
    assert float(found[1]) < 3


def test_the_unit_bounds_restarts_memory_and_silence(config: Path, tmp_path: Path) -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(install(config, tmp_path))
    service = unit["Service"]
    assert (service["Type"], service["Restart"]) == ("notify", "on-failure")
    assert service["RestartForceExitStatus"] == "SIGHUP"
    assert float(service["WatchdogSec"]) > 4 * 1.0  # the service speaks at least once a second
    assert service["MemoryMax"] == "2G"
    assert service["OOMPolicy"] == "continue"  # the check of an engine may be ended for memory
    assert service["EnvironmentFile"] == "-" + str(config.with_suffix(".env")).replace("%", "%%")
    assert int(unit["Unit"]["StartLimitBurst"]) > 0
    assert service["ExecStart"].startswith(f"{sys.executable} -m cmlr_edge run")
    doubled = str(config.parent).replace("%", "%%")
    assert f'"{doubled}/engines"' in service["ReadWritePaths"]
    assert service["ExecReload"].endswith("$MAINPID")


@pytest.mark.parametrize(
    "name", ["my door", "%i", "a@b", "x;y", "$HOME", "a\\b", "door\nUser=root"]
)
def test_a_unit_that_systemd_would_not_find_is_refused(config: Path, name: str) -> None:
    odd = config.rename(config.with_name(f"{name}.toml"))
    done = CliRunner().invoke(app, ["service", "install", str(odd), "--units", str(odd.parent)])
    assert isinstance(done.exception, SpecError)
    assert not [*odd.parent.glob("*.service")]


@pytest.mark.parametrize(
    "options",
    [("--user", ""), ("--user", "cmlr\nExecStart=x"), ("--user", "%i"), ("--memory-max", "1.2.3G")],
)
def test_a_user_that_systemd_takes_for_root_is_refused(
    config: Path, options: tuple[str, str]
) -> None:
    done = CliRunner().invoke(app, ["service", "print", str(config), *options])
    assert isinstance(done.exception, SpecError)
    assert options[0] in str(done.exception)
