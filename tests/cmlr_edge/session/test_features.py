"""Every feature exists in `label`, `serve` and `run`, under the same name; exceptions have a reason."""

from __future__ import annotations

import inspect
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from cmlr_edge.cli.flags import Flags
from cmlr_edge.cli.label import label
from cmlr_edge.cli.run import run
from cmlr_edge.cli.serve import serve
from cmlr_edge.errors import SpecError
from cmlr_edge.session.config import SessionConfig, SourceSettings
from cmlr_edge.sinks.opening import SinkRequest, SinkSettings

COMMANDS = {"label": label, "serve": serve, "run": run}
# What one command has and another has not, and why.
REASONS = {
    ("json", "serve"): "it ends by a signal and prints no summary; the page has /api/state",
    ("json", "run"): "likewise; systemd and /metrics are told while it runs",
}
# Settings of the file that are no flags, and why.
ONLY_IN_THE_FILE = {
    "engine.store": "--engine takes a store too",
    "engine.path": "--engine",
    "engine.update": "a service's policy, decided once",
    "sources": "arguments",
    "sources.uri": "arguments",
    "sources.name": "name=uri",
    "sinks": "--out, --csv and so on, and --sink",
    "sinks.kind": "likewise",
    "sinks.path": "likewise",
    "sinks.url": "likewise",
    "sinks.options": "of another package's kind; its URL may hold some",
    "thresholds": "by label; --threshold is one for all",
    "sources.thresholds": "likewise, and by source",
    "limits.stuck_after_s": "only a supervisor acts on it",
    "page.source_folder": "what visitors may open, a decision for the file",
    "metrics.host": "for scrapers elsewhere, a decision for the file",
}
OTHER_NAMES = {
    "sources.masks": "mask",
    "collect.folder": "collect",
    "collect.every_s": "collect_every",
    "collect.random_share": "collect_random",
    "collect.most": "collect_most",
    "collect.without": "collect_without",
    "metrics.port": "metrics_port",
    "page.port": "port",
    "page.host": "host",
    "sinks.before_s": "clip_before",
    "sinks.after_s": "clip_after",
    "sinks.longest_s": "clip_longest",
}
# Settings whose flag has another default, and why.
OTHER_DEFAULTS = {
    "rotate_mb": "rotation deletes; what a person asked for is kept, a device's disk is small"
}


def flags_of(command: Any) -> set[str]:
    parameters = set(inspect.signature(command).parameters) - {"sources", "config"}
    return {"json" if name == "as_json" else name for name in parameters}


def test_commands_differ_only_for_a_reason() -> None:
    found = {name: flags_of(command) for name, command in COMMANDS.items()}
    known = set().union(*found.values())
    missing = {(flag, name) for flag in known for name, has in found.items() if flag not in has}
    assert missing == set(REASONS)
    assert {field.name for field in fields(Flags)} - {"config"} <= known


def settings_of(kind: type, prefix: str = "") -> set[str]:
    names = set()
    for name, hint in get_type_hints(kind).items():
        names.add(f"{prefix}{name}")
        if is_dataclass(hint) and name not in {"stability", "update"} and isinstance(hint, type):
            names.discard(f"{prefix}{name}")
            names |= settings_of(hint, f"{name}.")
    return names


def test_what_the_file_can_say_a_flag_can_say_too() -> None:
    settings = settings_of(SessionConfig) | settings_of(SourceSettings, "sources.")
    settings |= settings_of(SinkSettings, "sinks.")
    flags = flags_of(label)
    for name in settings - set(ONLY_IN_THE_FILE):
        flag = OTHER_NAMES.get(name, name.rpartition(".")[2])
        assert flag in flags or flag.removesuffix("_s") in flags, name
    assert set(ONLY_IN_THE_FILE) <= settings


def test_an_output_is_the_same_by_flags_and_by_file(tmp_path: Path) -> None:
    place = tmp_path / "c"
    config, _ = Flags(clips=place).to_config(["test://"], append=True)
    given, plain = config.sinks[0], SinkSettings("clips", path=str(place))
    known = vars(plain).items()
    assert {name for name, value in known if getattr(given, name) != value} == set(OTHER_DEFAULTS)


def test_a_flag_switches_off_what_the_file_switches_on(tmp_path: Path) -> None:
    file = tmp_path / "on.toml"
    file.write_text(
        'explain = true\nexplain_margin = 0.5\n[engine]\npath = "m"\nrebuild = true\n'
        '[[sources]]\nname = "yard"\nuri = "yard.mp4"\nloop = true\n'
    )

    def found(**given: Any) -> tuple[bool, float, bool, bool]:
        config, _ = Flags(config=file, **given).to_config([], append=False)
        explained = config.explain, config.explain_margin
        return *explained, config.engine.rebuild, config.sources[0].loop

    assert found() == (True, 0.5, True, True)
    assert found(explain=False, rebuild=False, loop=False) == (False, 0.0, False, False)
    assert found(explain=True, explain_margin=2.0) == (True, 2.0, True, True)


def test_clips_and_their_length_by_flags(tmp_path: Path) -> None:
    flags = Flags(clips=tmp_path, clip_longest=20.0, clip_after=2.0)
    [sink] = flags.to_config(["test://"], append=False)[0].sinks
    assert (sink.before_s, sink.after_s, sink.longest_s) == (5.0, 2.0, 20.0)
    with pytest.raises(SpecError, match="--clip-longest need --clips"):
        Flags(clip_longest=20.0).to_config(["test://"], append=False)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_several_named_sources(name: str) -> None:
    assert "sources" in inspect.signature(COMMANDS[name]).parameters


def test_a_file_that_is_never_begun_anew_can_be_asked_for_in_words_of_toml() -> None:
    for size, limit in ((0.0, None), (None, None), (1e-9, 1), (2.5, 2_500_000)):
        settings = SinkSettings("jsonl", path="a", rotate_mb=size)
        assert SinkRequest(settings, None, (), False, None).rotate_bytes == limit


def test_files_of_tls_go_to_the_outputs_with_tls(tmp_path: Path) -> None:
    flags = Flags(
        mqtt="mqtts://broker/door", webhook="http://server/hook", ca_file=tmp_path / "ca.pem"
    )
    config, _ = flags.to_config(["test://"], append=False)
    found = {sink.kind: sink.ca_file for sink in config.sinks}
    assert found == {"mqtt": str(tmp_path / "ca.pem"), "webhook": ""}
    with pytest.raises(SpecError, match="no output at mqtts"):
        Flags(mqtt="mqtt://broker/door", key_file=Path("k")).to_config(["test://"], append=False)
