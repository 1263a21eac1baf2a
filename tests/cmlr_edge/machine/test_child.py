"""Children have limits and die with their parent; no command and no child runs code of the current folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cmlr_edge.diagnosis.doctor import examine
from cmlr_edge.diagnosis.probes import ask, ask_all
from cmlr_edge.engines.builder import BuildOptions, build_plan
from cmlr_edge.engines.opening import memory_to_load
from cmlr_edge.errors import EngineError
from cmlr_edge.machine import memory_bound
from cmlr_edge.machine.child import Child, python_command, run_limited
from cmlr_edge.machine.facts import usable_cores
from cmlr_edge.machine.hardware import group_cores, group_memory_left
from cmlr_edge.service.store import EngineStore
from cmlr_edge.service.unit import unit_text
from cmlr_edge.service.update import reason_of, start_check
from tests.cmlr_edge.service.tiny_engines import greedy_engine
from tests.waiting import wait_until

FAKES = Path(__file__).parents[1] / "fake_nvidia"
_MIB = 2**20


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_child_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    sleeper = "import subprocess, time; p = subprocess.Popen(['sleep', '60']); "
    file = tmp_path / "pid"
    code = sleeper + f"open({str(file)!r}, 'w').write(str(p.pid)); time.sleep(60)"
    child = Child(python(code), timeout_s=30)
    wait_until(lambda: file.is_file() and file.read_text() != "")
    assert child.poll() is None
    assert child.kill().error == "was ended"
    wait_until(lambda: not is_alive(int(file.read_text())))
    ended = run_limited(python("import time; time.sleep(60)"), timeout_s=0.3)
    assert (ended.limit, ended.error) == ("time", "gave no answer in 0.3 s")


def test_a_child_that_listens_is_told_lines_and_when_they_end() -> None:
    heard: list[str] = []
    code = "import sys\nfor line in sys.stdin: print(line.strip() * 2, flush=True)"
    child = Child(python(code), timeout_s=30, on_line=heard.append, listens=True)
    child.send("a")
    child.send("b")
    wait_until(lambda: heard == ["aa\n", "bb\n"])
    child.hang_up()
    assert (child.wait().code, child.wait().error) == (0, "")
    dead = Child(python(""), timeout_s=30, listens=True)
    dead.wait()
    dead.send("nobody hears it")


def test_a_child_that_takes_too_much_memory_is_ended() -> None:
    code = "import time; x = bytearray(300 * 2**20); time.sleep(60)"
    ended = run_limited(python(code), timeout_s=60, memory=200 * _MIB)
    assert (ended.limit, ended.error) == ("memory", "took more than 200 MiB of memory")


def test_the_check_of_an_engine_is_bounded_by_what_its_control_group_grants(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cmlr_edge.machine.hardware.group_memory_left", lambda: 20 * _MIB)
    assert "took more than 18 MiB" in reason_of(start_check(engine, None, timeout_s=60))


def group_of_a_unit(root: Path, version: int, controller: str, other: str) -> Path:
    """Let a process be in the group of a unit, as far as files tell; that group's folder."""
    (root / "proc/self").mkdir(parents=True)
    line = f"7:{controller},more" if version == 1 else "0:"
    text = f"4:{other}:/elsewhere\n{line}:/system.slice/door.service\n"
    (root / "proc/self/cgroup").write_text(text)
    top = root / "sys/fs/cgroup" / (controller if version == 1 else "")
    inner = top / "system.slice" / "door.service"
    inner.mkdir(parents=True)
    return inner


@pytest.mark.parametrize("version", [1, 2])
def test_a_control_group_tells_what_is_left_of_it(tmp_path: Path, version: int) -> None:
    limit, usage = {1: ("limit_in_bytes", "usage_in_bytes"), 2: ("max", "current")}[version]
    inner = group_of_a_unit(tmp_path, version, "memory", other="cpu")
    assert group_memory_left(tmp_path) is None
    (inner / f"memory.{limit}").write_text("3000\n")
    (inner / f"memory.{usage}").write_text("2000\n")
    (inner / "memory.stat").write_text("anon 1500\ninactive_file 400\n")
    assert group_memory_left(tmp_path) == 1400
    (inner.parent / f"memory.{limit}").write_text("2500\n")
    (inner.parent / f"memory.{usage}").write_text("2300\n")
    assert group_memory_left(tmp_path) == 200
    (inner.parent / f"memory.{usage}").write_text("9999\n")
    assert group_memory_left(tmp_path) == 0
    if version == 2:
        (inner.parent / "memory.max").write_text("max\n")
        assert group_memory_left(tmp_path) == 1400


@pytest.mark.parametrize("version", [1, 2])
def test_a_control_group_tells_how_many_cores_it_grants(
    tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = group_of_a_unit(tmp_path, version, "cpu", other="memory")
    assert group_cores(tmp_path) is None

    def limit(folder: Path, quota: str) -> None:
        if version == 1:
            (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
            (folder / "cpu.cfs_period_us").write_text("100000\n")
        else:
            (folder / "cpu.max").write_text(f"{quota} 100000\n")

    limit(inner, "-1" if version == 1 else "max")
    assert group_cores(tmp_path) is None
    limit(inner.parent, "250000")
    assert group_cores(tmp_path) == 2.5
    limit(inner, "40000")
    assert group_cores(tmp_path) == 0.4
    monkeypatch.setattr("cmlr_edge.machine.facts.group_cores", lambda: 0.4)
    assert usable_cores() == 1


def test_the_kernel_ends_a_child_before_its_parent() -> None:
    command = python_command("builtins", "exec", "print(open('/proc/self/oom_score_adj').read())")
    assert run_limited(command, timeout_s=60).output.strip() == "1000"


def test_reserved_address_space_is_no_memory() -> None:
    code = "import mmap; x = mmap.mmap(-1, 2**34); x[0] = 1; print('fine')"
    assert run_limited(python(code), timeout_s=60, memory=200 * _MIB).output == "fine\n"


def test_output_is_bounded_and_its_end_is_kept() -> None:
    code = "import sys\nfor _ in range(8): sys.stdout.write('x' * 2**20)\nprint('\\nlast')"
    ended = run_limited(python(code), timeout_s=60)
    assert len(ended.output) == 4 * _MIB
    assert ended.output.endswith("x\nlast\n")


def test_a_process_left_behind_holds_nobody_up() -> None:
    code = "import subprocess; subprocess.Popen(['sleep', '60']); print('done')"
    started_s = time.monotonic()
    assert run_limited(python(code), timeout_s=30).output == "done\n"
    assert time.monotonic() - started_s < 20


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import os, time\n"
        f"def main():\n    open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "    time.sleep(60)\n"
    )
    code = (
        "from cmlr_edge.machine.child import Child, python_command\n"
        "Child(python_command('slow', 'main')).wait()"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(python(code), env=environment) as parent:
        file = tmp_path / "pid"
        wait_until(lambda: file.is_file() and file.read_text() != "")
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not is_alive(int(file.read_text())))


def test_a_build_has_a_time_limit_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "endless.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"longer than 3 s and was ended: .*--build-timeout"):
        build_plan(b"", BuildOptions(module="endless", timeout_s=3))
    with pytest.raises(EngineError, match="more than 0"):
        BuildOptions(timeout_s=0)


def test_a_check_has_a_time_limit(engine: Path) -> None:
    assert "still loading" in reason_of(start_check(engine, None, timeout_s=0))
    assert reason_of(start_check(engine, None, timeout_s=60)) == ""
    engine.write_bytes(b"rotten")
    assert "changed or cut short" in reason_of(start_check(engine, None, timeout_s=60))


@pytest.mark.slow
def test_a_small_file_that_asks_for_all_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = greedy_engine(tmp_path / "greedy", 2**30)
    assert engine.stat().st_size < 1000
    assert memory_to_load(engine) < 2.1 * 2**30
    monkeypatch.setattr(memory_bound, "_RUNTIME_BYTES", 400 * _MIB)
    reason = reason_of(start_check(engine, None, timeout_s=60))
    assert reason == "loading it took more than 400 MiB of memory"
    findings = {finding.name: finding for finding in examine(engine)}
    assert findings["engine"].found == "took more than 400 MiB of memory"


SERVICE = """
[engine]
store = "store"
[[sources]]
name = "camera"
uri = "test://?fps=100&size=128x96&frames=3"
policy = "every"
[[sinks]]
kind = "jsonl"
path = "labels.jsonl"
"""
COMMANDS = {
    "label": ["label", "test://?frames=3&fps=100&size=128x96", "--engine", "MODEL"],
    "serve": ["serve", "test://?frames=3&fps=100&size=128x96", "--engine", "MODEL", "--port", "0"],
    "run": ["run", "CONFIG"],
    "service update": ["service", "update", "CONFIG", "MODEL"],
    "service status": ["service", "status", "CONFIG"],
    "verify": ["verify", "MODEL"],
    "doctor": ["doctor", "MODEL"],
    "bench": [
        "bench",
        "MODEL",
        "--duration",
        "0",
        "--warmUp",
        "0",
        "--batches",
        "",
        "--streams",
        "",
    ],
    "inspect": ["inspect", "MODEL"],
}


@pytest.fixture
def poisoned(tmp_path: Path, engine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a numpy.py that leaves a trace, and a service's configuration in it."""
    folder = tmp_path / "poisoned"
    folder.mkdir()
    store = EngineStore(folder / "store")
    store.accept(store.add(engine))
    (folder / "device.toml").write_text(SERVICE)
    for name in ("numpy", "onnxruntime", "cv2"):
        code = f"open({str(folder / 'ran')!r}, 'a').write('{name}')\nraise SystemExit('poisoned')\n"
        (folder / f"{name}.py").write_text(code)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    return folder


def started(how: list[str], command: str, folder: Path, engine: Path) -> str:
    places = {"MODEL": str(engine), "CONFIG": str(folder / "device.toml")}
    arguments = [places.get(item, item) for item in COMMANDS[command]]
    process = subprocess.Popen(
        [*how, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            if command == "serve":  # goes on until it is ended
                assert process.stdout is not None
                while "http://" not in (line := process.stdout.readline()) and line:
                    pass
                process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 0, output
    return output


# Python puts the current folder first for a module alone: of the script one command shows it.
@pytest.mark.parametrize(
    ("how", "command"), [*(("module", command) for command in COMMANDS), ("script", "label")]
)
def test_no_command_runs_code_of_the_current_folder(
    poisoned: Path, engine: Path, how: str, command: str
) -> None:
    script = [str(Path(sys.executable).with_name("cmlr-edge"))]
    starts = {"script": script, "module": [sys.executable, "-m", "cmlr_edge"]}
    started(starts[how], command, poisoned, engine)
    assert not (poisoned / "ran").exists()


def test_the_units_command_runs_no_code_of_its_working_folder(poisoned: Path) -> None:
    text = unit_text(poisoned / "device.toml", user="me", writable=[], memory_max="1G")
    lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    assert (
        "Environment=PYTHONSAFEPATH=1" in text.splitlines()
    )  # for Python's own names too, from 3.11 on
    command = lines["ExecStart"].split()
    done = subprocess.run(
        command, cwd=lines["WorkingDirectory"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len((poisoned / "labels.jsonl").read_text().splitlines()) == 3
    assert not (poisoned / "ran").exists()


def build(engine: Path) -> None:
    with pytest.raises(EngineError, match="No module named 'tensorrt'"):
        build_plan(engine.read_bytes(), BuildOptions())


CHILDREN: dict[str, Callable[[Path], object]] = {
    "probes": lambda _engine: ask_all(),
    "the engine check of doctor": lambda engine: ask("engine", str(engine), ""),
    "the check of an update": lambda engine: reason_of(start_check(engine, None, timeout_s=60)),
    "the build of an engine": build,
}


@pytest.mark.parametrize("child", CHILDREN)
def test_no_child_runs_code_of_the_current_folder(poisoned: Path, engine: Path, child: str) -> None:
    CHILDREN[child](engine)
    assert not (poisoned / "ran").exists()


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
