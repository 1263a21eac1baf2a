"""Who is let in, from where and under which name, and who is told nothing."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from cmlr_edge.errors import OutputError
from cmlr_edge.page.gate import check_exposure
from cmlr_edge.page.running import LiveServer
from tests.cmlr_edge.cli.command import run
from tests.cmlr_edge.page.live_page import PATTERN, TOKEN, follow, get


def test_a_page_for_this_machine_answers_to_no_other_name(page: LiveServer) -> None:
    assert get(page, "/api/state", Host="evil.example")[0] == 421
    assert get(page, "/", Host="evil.example:8000")[0] == 421
    assert get(page, "/", Host="[::1]:8000")[0] == 200
    assert get(page, "/", Host="[")[0] == 421


def test_scripts_of_other_sites_get_no_pictures(page: LiveServer) -> None:
    with pytest.raises(InvalidStatus):
        follow(page, Origin="http://evil.example")
    with follow(page, Origin=f"http://127.0.0.1:{page.port}") as viewer:
        assert viewer.recv(timeout=20)
    headers = get(page, "/api/sources/0/frame.jpg")[1]
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "default-src 'self'" in get(page, "/")[1]["content-security-policy"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "camera.example"])
def test_cameras_are_not_shown_to_a_network_without_a_token(host: str) -> None:
    with pytest.raises(OutputError, match="--token"):
        check_exposure(host, None)
    check_exposure(host, TOKEN)
    with pytest.raises(OutputError, match="at least 12"):
        check_exposure(host, "short")
    for token in (f"{TOKEN}\n", f" {TOKEN}"):  # which no header carries
        with pytest.raises(OutputError, match="at least 12"):
            check_exposure(host, token)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    check_exposure(host, None)


@pytest.mark.slow
def test_serve_refuses_a_network_and_a_port_in_use(engine: Path) -> None:
    done = run("serve", PATTERN, "--engine", engine, "--host", "0.0.0.0")
    assert done.returncode == 2
    assert "--token" in done.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("serve", PATTERN, "--engine", engine, "--port", port)
    assert done.returncode == 2
    assert f"127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr
