from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import ctypes, re, sys, threading
from pathlib import Path
from cmlr_edge.machine.allocator import bound_arenas
libc = ctypes.CDLL(None)
if not hasattr(libc, "malloc_info"):
    sys.exit(77)
if sys.argv[1] == "bounded":
    bound_arenas()
all_there = threading.Barrier(9)
def hold():
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc(1000)
    all_there.wait()
    all_there.wait()
threads = [threading.Thread(target=hold) for _ in range(8)]
for thread in threads:
    thread.start()
all_there.wait()
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
all_there.wait()
print(len(re.findall("<heap nr", Path(sys.argv[2]).read_text())))
"""


def count_heaps(how: str, folder: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how, str(folder / "info.xml")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if done.returncode == 77:
        pytest.skip("this C library has no heaps per thread")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_threads_share_two_heaps_where_asked(tmp_path: Path) -> None:
    assert count_heaps("unbounded", tmp_path) > 2
    assert count_heaps("bounded", tmp_path) <= 2
