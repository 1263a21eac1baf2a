"""A source is changed from the page: taken over and kept, or refused in one line and nothing changed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cmlr_edge.cli.flags import Flags
from cmlr_edge.errors import SpecError
from cmlr_edge.session import Session
from cmlr_edge.session.config import load_config, toml_reader
from cmlr_edge.session.editing import edited
from cmlr_edge.session.runner import Runner
from tests.cmlr_edge.capture.films import shade, write_film
from tests.cmlr_edge.page.live_page import ask, get_json
from tests.waiting import wait_until

TOKEN = "a-token-of-tests"
TEXT = """# The site
threshold = 0.2   # low

[engine]
path = "{engine}"

[page]
port = 0
token = "{token}"

[[sources]]   # at the door
name = "door"        # its name
uri = "test://?fps=20"
labels = ["red"]     # of interest
thresholds.red = 0.3 # rarely

# The yard has no labels of its own.
[[sources]]
name = "yard"
uri = "test://?fps=20"

[sources.thresholds]
# by day
blue = 0.4
"""
NOTHING: dict[str, Any] = {
    "labels": [], "thresholds": {}, "masks": [], "region": [], "tiles": "", "max_fps": None, "active": [],
}  # fmt: skip
HALF = [[0.0, 0.0], [0.5, 0.0], [0.5, 1.0]]


class Site:
    """A session with a page, changed as a visitor would."""

    def __init__(self, session: Session, file: Path) -> None:
        self.session, self.file = session, file
        self.server: Any = SimpleNamespace(
            port=int(session.page_url.rstrip("/").rpartition(":")[2])
        )

    def settings(self, number: int = 0) -> Any:
        return get_json(
            self.server, f"/api/sources/{number}/settings", Authorization=f"Bearer {TOKEN}"
        )

    def put(self, changes: dict[str, Any], number: int = 0, **how: Any) -> tuple[int, str]:
        found = self.settings(number)
        body = json.dumps(found["settings"] | changes)
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        version = how.pop("version", found["version"])
        path = f"/api/sources/{number}/settings?version={version}"
        status, _, answer = ask(self.server, "PUT", path, body, headers | how)
        return status, str(json.loads(answer)["detail"]) if answer else ""


@contextmanager
def site(engine: Path, folder: Path, **flags: Any) -> Iterator[Site]:
    file = folder / "site.toml"
    if not file.exists():
        file.write_text(TEXT.format(engine=engine, token=TOKEN))
    given = Flags(config=file, **flags)

    def fill(file: Path | None = None) -> Any:
        return given.to_config([], append=False, file=file)[0]

    with Session(fill(), folder=folder) as session:
        runner = Runner(session, reread=fill, file=file, until_over=False)
        thread = threading.Thread(target=runner.run)
        thread.start()
        try:
            yield Site(session, file)
        finally:
            runner.request_end()
            thread.join(30)
            assert not thread.is_alive()


def test_a_change_is_taken_over_and_kept_with_the_comments(engine: Path, tmp_path: Path) -> None:
    with site(engine, tmp_path) as page:
        before = page.file.read_text()
        changes = {
            "labels": ["red", "blue"],
            "thresholds": {"red": 0.35, "blue": 0.0},
            "max_fps": 5.0,
        }
        changes |= {"masks": [HALF], "tiles": "2x2", "active": ["00:00-24:00"], "region": HALF}
        assert page.put(changes) == (204, "")
        text = page.file.read_text()
        for comment in (
            "# The site",
            "# low",
            "# at the door",
            "# its name",
            "# of interest",
            "# rarely",
        ):
            assert comment in text
        assert text.index("max_fps") < text.index(
            "# The yard has no labels of its own.\n[[sources]]"
        )
        door, yard = load_config(page.file).sources
        assert (door.labels, door.thresholds) == (("red", "blue"), {"red": 0.35, "blue": 0.0})
        assert (door.max_fps, door.tiles, door.active) == (5.0, "2x2", ("00:00-24:00",))
        for polygon in (*door.masks, door.region):
            assert [*map(list, polygon)] == HALF
        assert yard.thresholds == {"blue": 0.4}
        assert page.session.names()["door"].intake() == door.intake()
        statuses = page.session.status()
        assert [status.name for status in statuses] == ["door", "yard"]
        view = get_json(page.server, "/api/state", Authorization=f"Bearer {TOKEN}")
        assert [source["id"] for source in view["sources"]] == [0, 1]  # its connection went on
        assert page.put(NOTHING | {"labels": ["red"], "thresholds": {"red": 0.3}}) == (204, "")
        assert page.file.read_text() == before
        assert not [*tmp_path.glob(".*.part")]


def test_masks_count_from_the_next_frame_on(engine: Path, tmp_path: Path) -> None:
    whole = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
    with site(engine, tmp_path) as page:
        assert page.put({"masks": [whole]})[0] == 204
        taken: list[Any] = [page.session.streams.latest("door")]
        for _ in range(6):  # one or two may have been on their way
            wait_until(lambda: page.session.streams.latest("door") is not taken[-1])
            taken.append(page.session.streams.latest("door"))
        assert (taken[-1].frame.image_bgr == 96).all()


def test_a_table_of_thresholds_is_changed_in_its_place(engine: Path, tmp_path: Path) -> None:
    with site(engine, tmp_path) as page:
        changes = {"thresholds": {"blue": 0.5, "green": 0.1}, "labels": ["blue"], "max_fps": 2.0}
        assert page.put(changes, 1) == (204, "")
        yard = load_config(page.file).sources[1]
        assert (yard.thresholds, yard.labels, yard.max_fps) == (
            changes["thresholds"],
            ("blue",),
            2.0,
        )
        assert "[sources.thresholds]\n# by day\nblue = 0.5" in page.file.read_text()


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"labels": ["redd"]}, 409, "did you mean red"),
    ({"thresholds": {"red": 1.5}}, 409, "expected 0 to 1"),
    ({"masks": [[[0, 0], [1, 1]]]}, 409, "3"),
    ({"region": [[0, 0], [1, 0], [1, 7]]}, 409, "from 0 to 1"),
    ({"max_fps": 0}, 409, "max_fps"),
    ({"max_fps": 1e-300}, 409, "expected frames a second, from 0.00001"),
    ({"max_fps": 1e300}, 409, "to 100000"),
    ({"labels": ["red", "blue", "red"]}, 422, "'red' is named twice"),
    ({"active": ["08:00-18:00", "08:00-18:00"]}, 422, "named twice"),
    ({"active": ["at night"]}, 409, "hours"),
    ({"tiles": "9x9"}, 409, "tiles"),
    ({"uri": "/etc/passwd"}, 422, "Extra inputs"),
    ({"max_fps": "NaN"}, 422, "finite"),
    ({"labels": None}, 422, "list"),
]


def test_what_could_not_be_meant_changes_nothing(engine: Path, tmp_path: Path) -> None:
    with site(engine, tmp_path) as page:
        text, config = page.file.read_text(), page.session.config
        for changes, status, said in REFUSED:
            found, detail = page.put(changes)
            assert found == status, changes
            assert said in detail
            assert "\n" not in detail
            assert ".part" not in detail
            assert (page.file.read_text(), page.session.config) == (text, config)
            assert not [*tmp_path.glob(".*")]


def test_a_file_that_somebody_else_changed_is_not_written_over(
    engine: Path, tmp_path: Path
) -> None:
    with site(engine, tmp_path) as page:
        version = page.settings()["version"]
        page.file.write_text(page.file.read_text() + "\n# mine\n")
        assert page.put({"labels": []}, version=version)[0] == 409
        assert page.file.read_text().endswith("# mine\n")
        assert page.put({"labels": []})[0] == 204


def test_who_may_not_change_anything(engine: Path, tmp_path: Path) -> None:
    with site(engine, tmp_path) as page:
        path, body = "/api/sources/0/settings?version=x", json.dumps(NOTHING)
        json_type = {"Content-Type": "application/json"}
        assert ask(page.server, "PUT", path, body, json_type)[0] == 401
        foreign = {"Origin": "http://127.0.0.1:1", "Authorization": f"Bearer {TOKEN}"}
        assert ask(page.server, "PUT", path, body, json_type | foreign)[0] == 403
        large = json.dumps(NOTHING | {"labels": ["x" * 100] * 3000})
        known = {"Authorization": f"Bearer {TOKEN}"}
        assert ask(page.server, "PUT", path, large, json_type | known)[0] == 413
        assert ask(page.server, "PUT", path.replace("0", "9", 1), body, json_type | known)[0] == 404


def test_without_a_token_nothing_can_be_changed(engine: Path, tmp_path: Path) -> None:
    text = TEXT.format(engine=engine, token=TOKEN).replace(f'token = "{TOKEN}"\n', "")
    (tmp_path / "site.toml").write_text(text)
    with site(engine, tmp_path) as page:
        found = page.settings()
        assert "--token" in found["reason"]
        assert page.put(NOTHING)[0] == 403


def test_a_flag_that_counts_more_is_named(engine: Path, tmp_path: Path) -> None:
    with site(engine, tmp_path, max_fps=3.0) as page:
        status, detail = page.put({"max_fps": 5.0})
        assert (status, "--max-fps counts more" in detail) == (409, True)
        assert load_config(page.file).sources[0].max_fps is None


def test_a_file_keeps_its_mode_and_a_link_stays_one(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "site.toml"
    real.write_text(TEXT.format(engine=engine, token=TOKEN))
    real.chmod(0o640)
    (tmp_path / "site.toml").symlink_to(real)
    with site(engine, tmp_path) as page:
        assert page.put({"max_fps": 5.0})[0] == 204
    assert (tmp_path / "site.toml").is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert "max_fps" in real.read_text()


FORMS = [
    'sources = [{name = "door", uri = "test://"}, {name = "yard", uri = "test://"}]\n',
    '[[sources]]\nuri = "test://"\nname = "door"\nlabels = [\n  "a",  # first\n  "b",\n]\n',
    '[[sources]]\r\nname = "door"\r\nuri = "test://"\r\n',
    '\ufeff[[sources]]\nname = "door"\nuri = "test://"',
    '[[sources]]\nname = "door"\n[sources.thresholds]\na = 0.1\n[sources.stability.all_labels]\nmin_gap_s = 1.0\n',
    '[[sources]]\nname = "door"\nthresholds = {a = 0.1}\n# end',
    '[[sources]]\nname = "door"\nthresholds."traffic light" = 0.3\n[[sinks]]\nkind = "csv"\n',
]  # fmt: skip


@pytest.mark.parametrize("text", FORMS)
def test_however_a_file_is_written(text: str) -> None:
    wanted = NOTHING | {
        "labels": ["a"],
        "thresholds": {"b": 0.5, "traffic light": 0.2},
        "masks": [HALF],
    }
    toml = toml_reader()
    goal = toml.loads(text.removeprefix("\ufeff"))
    goal["sources"][0] = {k: v for k, v in goal["sources"][0].items() if k not in NOTHING}
    goal["sources"][0] |= {k: wanted[k] for k in ("labels", "thresholds", "masks")}
    found = edited(text.encode(), "door", wanted)
    assert toml.loads(found.decode()) == goal
    assert toml.loads(edited(found, "door", NOTHING).decode())["sources"][0].get("masks") is None


def test_a_source_that_is_not_there_is_refused() -> None:
    with pytest.raises(SpecError, match="no source of the configuration is called gate"):
        edited(FORMS[0].encode(), "gate", NOTHING)


def test_a_disk_that_is_full_leaves_all_as_it_was(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cmlr_edge.session import editing

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with site(engine, tmp_path) as page:
        before = page.file.read_text(), page.session.config
        monkeypatch.setattr(editing, "_write_like", full)
        status, detail = page.put({"max_fps": 5.0})
        assert (status, "No space left" in detail) == (409, True)
        assert (page.file.read_text(), page.session.config) == before
        monkeypatch.undo()
        monkeypatch.setattr(Path, "replace", full)
        assert page.put({"max_fps": 5.0})[0] == 409
        assert page.session.config.sources[0].max_fps is None
        monkeypatch.undo()
        assert replace(page.session.config.sources[0]) == load_config(page.file).sources[0]


def test_an_event_ends_where_a_mask_is_added_and_goes_on_elsewhere(
    engine: Path, tmp_path: Path
) -> None:
    """Nothing that was seen without the mask is kept on, to be written later."""
    text = TEXT.format(engine=engine, token=TOKEN)
    events = '\n[[sinks]]\nkind = "events"\npath = "events.jsonl"\n'
    (tmp_path / "site.toml").write_text(text + events)

    def told() -> list[dict[str, Any]]:
        path = tmp_path / "events.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [event for event in map(json.loads, lines) if event["source"] == "yard"]

    with site(engine, tmp_path) as page:
        wait_until(lambda: [event for event in told() if event["kind"] == "start"])
        page.put({"max_fps": 15.0}, 1)
        before = page.session.streams.status()[1].frames
        wait_until(lambda: page.session.streams.status()[1].frames > before + 5)
        assert "end" not in {event["kind"] for event in told()}
        page.put({"masks": [HALF]}, 1)
        wait_until(lambda: "end" in {event["kind"] for event in told()})


def test_a_mask_that_is_added_ends_the_clips_of_its_source(
    engine: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    film = write_film(tmp_path / "film.mp4", [shade(200)] * 20)
    text = TEXT.format(engine=engine, token=TOKEN)
    text = text.replace("test://?fps=20", str(film)).replace(
        "uri", 'policy = "newest"\nloop = true\nuri'
    )
    (tmp_path / "site.toml").write_text(text + '\n[[sinks]]\nkind = "clips"\npath = "clips"\n')
    with site(engine, tmp_path) as page:

        def ring(name: str) -> Any:
            wait_until(lambda: page.session.streams.latest(name))
            latest = page.session.streams.latest(name)
            assert latest is not None
            return latest.frame.ring

        before = ring("door")
        sources = [place.source for place in page.session._places]
        assert page.put({"masks": [HALF]})[0] == 204
        wait_until(lambda: ring("door") is None)
        assert ring("yard") is not None
        assert "door has no clips: its packets would show what its masks hide" in caplog.text
        assert (
            before.excerpt(0.0, 1e6).packets == []
        )  # nor what was seen before, to be written later
        assert page.put({"masks": []})[0] == 204
        wait_until(lambda: ring("door") is not None)
        assert sources == [place.source for place in page.session._places]  # not opened anew


def test_what_json_cannot_send_back_is_refused_without_it(engine: Path, tmp_path: Path) -> None:
    with site(engine, tmp_path) as page:
        before = page.file.read_bytes()
        for change in (
            {"max_fps": float("nan")},
            {"region": [[0, 0], [1, float("inf")], [1, 1]]},
            {"labels": ["\ud800"]},
            {"thresholds": {"\ud800": 0.5}},
        ):
            status, answer = page.put(change)
            assert (status, "Input should be" in answer) == (422, True)
        assert page.file.read_bytes() == before


@pytest.mark.parametrize(
    "text", ["sources = 3", "sources = [1]", "[sources]\nname = 'door'", "a = " + "[" * 5000]
)
def test_a_file_that_somebody_is_at_work_on_is_told_of_in_one_line(
    engine: Path, tmp_path: Path, text: str
) -> None:
    with site(engine, tmp_path) as page:
        page.file.write_text(text)
        assert str(page.file) in page.settings()["reason"]
        status, answer = page.put({"max_fps": 5.0})
        assert (status, str(page.file) in answer) == (409, True)
        assert page.file.read_text() == text
