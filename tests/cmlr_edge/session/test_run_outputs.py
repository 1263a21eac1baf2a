"""No output writes what the run itself is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cmlr_edge.cli.command import run

CONFIG = """
[engine]
path = "{engine}"
{signature}
[[sources]]
name = "door"
uri = "test://?fps=5&size=128x96"
[[sinks]]
kind = "events"
path = "{output}"
[[sinks]]
kind = "mqtt"
url = "mqtts://127.0.0.1:1/x"
ca_file = "ca.pem"
"""


@pytest.mark.parametrize(
    ("command", "output"),
    [
        (["run"], "site.toml"),
        (["label", "--config"], "./site.toml"),
        (["serve", "--port", "0", "--config"], "other_name.toml"),
        (["run"], "ca.pem"),
        (["run"], "key.pem"),
    ],
)
def test_an_output_that_would_write_into_what_the_run_is_made_of_is_refused(
    command: list[str], output: str, engine: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site.toml"
    signature = 'require_signature = "key.pem"' if output == "key.pem" else ""
    site.write_text(CONFIG.format(engine=engine, output=output, signature=signature))
    (tmp_path / "other_name.toml").symlink_to(site)
    for name in ("ca.pem", "key.pem"):
        (tmp_path / name).write_text("kept")
    before = site.read_bytes()

    done = run(*command, site)

    assert done.returncode == 2
    assert "belongs to the source, the model or the configuration" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert site.read_bytes() == before
    assert (tmp_path / "ca.pem").read_text() == (tmp_path / "key.pem").read_text() == "kept"
    assert not list(tmp_path.glob("*.1"))
