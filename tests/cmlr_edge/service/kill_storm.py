"""Kills a service and an update of its engine at random moments, and looks what is left.

    python -m tests.cmlr_edge.service.kill_storm --seeds 0 1 2 3 --updates 5 --kills-each 5 --out FILE

After every kill the store must hold one engine in service that is whole and passes its self-test, and
every frame in the output must have the scores of one of the two engines, loaded undisturbed.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from cmlr_edge.capture.pattern import draw_pattern
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.service.store import EngineStore
from tests.cmlr_edge.service.running import RunningService, frames_of
from tests.cmlr_edge.service.tiny_engines import scaled_engine

SIZE_HW = (96, 128)
CONFIG = """
[engine]
store = "store"
[engine.update]
shadow_frames = 10
max_flip_share = 1.0
trial_s = 0
[thresholds]
red = 0.0
green = 0.0
blue = 0.0
[[sources]]
name = "camera"
uri = "test://?fps=100&size=128x96"
policy = "every"
[[sinks]]
kind = "jsonl"
path = "labels.jsonl"
"""


@dataclass
class Storm:
    """What was done and what was found."""

    seed: int
    kills: int = 0
    updates: int = 0  # finished between the kills
    kills_while_starting: int = 0
    old_engine_after_kill: int = 0
    new_engine_after_kill: int = 0
    stores_without_a_valid_engine: int = 0
    # By the engine whose scores they have; "invalid" ones say that they have none, such as stale ones.
    frames: dict[str, int] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)  # some lines of frames of neither
    update_s: float = 0.0  # median, undisturbed


def run_storm(folder: Path, *, updates: int, kills_each: int, seed: int) -> Storm:
    """Update `updates` times between two engines, with `kills_each` kills before each one succeeds."""
    moments, storm = random.Random(seed), Storm(seed)
    engines = [scaled_engine(folder / name, scale) for name, scale in (("a", 1.0), ("b", 0.8))]
    config = folder / "device.toml"
    config.write_text(CONFIG)
    store = EngineStore(folder / "store")
    added = [store.add(engine) for engine in engines]
    store.accept(added[0])
    took_s = [_finished_update(config, engines[0])]
    for number in range(updates):
        model = engines[(number + 1) % 2]
        for _ in range(kills_each):
            from_start = moments.random() < 0.5
            storm.kills_while_starting += from_start
            moment_s = moments.uniform(0, 1.2 * float(np.median(took_s)))
            _killed_update(config, model, moment_s, from_start)
            storm.kills += 1
            _look(storm, store, is_new=store.add(model) == store.state.serving)
        took_s.append(_finished_update(config, model))
        assert store.state.serving == store.add(model)
        storm.updates += 1
    storm.update_s = round(float(np.median(took_s)), 2)
    _sort_frames(storm, folder / "labels.jsonl", engines)
    return storm


def _update(config: Path, model: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cmlr_edge", "service", "update", str(config), str(model)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _finished_update(config: Path, model: Path) -> float:
    with RunningService(config) as service:
        service.until_ready()
        start_s = time.monotonic()
        with _update(config, model) as update:
            output, _ = update.communicate(timeout=60)
            assert update.returncode == 0, output
        took_s = time.monotonic() - start_s
        service.until_frames(frames_of(service.until_frames(0)) + 30)  # of the new engine
        assert service.end()[0] == 0
        return took_s


def _killed_update(config: Path, model: Path, moment_s: float, from_start: bool) -> None:
    with RunningService(config) as service:
        if not from_start:
            service.until_ready()
        with _update(config, model) as update:
            time.sleep(moment_s)  # the moment is the point of it
            service.process.kill()
            update.kill()
            update.communicate()


def _look(storm: Storm, store: EngineStore, *, is_new: bool) -> None:
    storm.new_engine_after_kill += is_new
    storm.old_engine_after_kill += not is_new
    serving = store.state.serving
    try:
        assert serving is not None
        Recognizer.from_pair(store.checked(serving)).close()
    except Exception as error:  # noqa: BLE001 (any is counted)
        storm.stores_without_a_valid_engine += 1
        print(error, file=sys.stderr)


def _sort_frames(storm: Storm, lines: Path, engines: list[Path]) -> None:
    answers: dict[int, list[dict[str, float]]] = {}
    counts: Counter[str] = Counter({"a": 0, "b": 0, "invalid": 0, "neither": 0})
    recognizers = [Recognizer.from_engine(engine, thresholds=0.0) for engine in engines]
    for line in lines.read_text().splitlines():
        record = json.loads(line)
        if not record["valid"]:
            counts["invalid"] += 1
            continue
        if record["frame"] not in answers:
            image = draw_pattern(record["frame"], SIZE_HW)
            answers[record["frame"]] = [
                {item.label: item.score for item in recognizer(image).labels}
                for recognizer in recognizers
            ]
        found = {item["label"]: item["score"] for item in record["labels"]}
        same = [_close(found, expected) for expected in answers[record["frame"]]]
        counts["a" if same[0] else "b" if same[1] else "neither"] += 1
        if not any(same) and len(storm.strange) < 5:
            storm.strange.append(line)
    storm.frames = dict(counts)


def _close(found: dict[str, float], expected: dict[str, float]) -> bool:
    return found.keys() == expected.keys() and all(
        abs(found[label] - score) < 1e-4 for label, score in expected.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one storm each, at once")
    parser.add_argument("--updates", type=int, default=20, help="in each storm")
    parser.add_argument("--kills-each", type=int, default=5, help="before each update succeeds")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    start_s = time.monotonic()

    def one_storm(seed: int) -> Storm:
        with tempfile.TemporaryDirectory() as folder:
            settings = {"updates": args.updates, "kills_each": args.kills_each}
            return run_storm(Path(folder), seed=seed, **settings)

    with ThreadPoolExecutor(len(args.seeds)) as pool:
        storms = [asdict(storm) for storm in pool.map(one_storm, args.seeds)]
    names = ("kills", "updates", "stores_without_a_valid_engine")
    totals = {name: sum(storm[name] for storm in storms) for name in names}
    totals["frames"] = {
        kind: sum(storm["frames"][kind] for storm in storms) for kind in storms[0]["frames"]
    }
    record = {"total": totals, "seconds": round(time.monotonic() - start_s), "storms": storms}
    text = json.dumps(record, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
