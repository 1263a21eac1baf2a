"""What compilers made for tests, kept by what it was made from: nothing is compiled twice.

Neither by two modules, nor by two runs. `make clean` empties the store.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

STORE = Path(__file__).parents[3] / "build" / "objects-of-tests"


def stored(output: Path, made_from: Iterable[str | bytes], make: Callable[[Path], object]) -> Path:
    """Puts the file there that `make` writes to a path, or wrote before from the same.

    made_from: all that the file depends on: source, flags, compiler. Whoever wants a file that
    another process is making waits for it.
    """
    parts = (x if isinstance(x, bytes) else x.encode() for x in made_from)
    key = hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
    STORE.mkdir(parents=True, exist_ok=True)
    kept = STORE / key
    with (STORE / f"lock-{key[:3]}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            fresh = kept.with_suffix(".new")
            make(fresh)
            fresh.replace(kept)
    shutil.copyfile(kept, output)
    return output


def compile_stored(command: list[str], includes: list[str], source: Path, output: Path) -> Path:
    """An object file from one source. command: compiler and flags, without paths of the source.

    It is known by its preprocessed text without the lines that say where the text comes from, so
    that a copy of the sources in another folder is the same.
    """
    language = ["-x", "c++"] if source.suffix == ".cu" else []
    preprocess = [*command, *includes, "-E", *language, str(source)]
    text = subprocess.run(preprocess, stdout=subprocess.PIPE, check=True).stdout
    code = re.sub(rb"^# .*\n", b"", text, flags=re.MULTILINE)

    def compile_text(path: Path) -> None:
        given = [*command, "-c", "-x", "c++-cpp-output", "-", "-o", str(path)]
        subprocess.run(given, input=text, check=True)

    return stored(output, [*command, _compiler(command[0]), code], compile_text)


@functools.cache
def _compiler(name: str) -> str:
    """Its version, and what "native" means to it here."""
    native = [name, "-march=native", "-Q", "--help=target"]
    return (
        version_of(name) + subprocess.run(native, capture_output=True, text=True, check=True).stdout
    )


@functools.cache
def version_of(compiler: str) -> str:
    """What `compiler --version` says."""
    command = [compiler, "--version"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def content_of(*folders: Path) -> list[str | bytes]:
    """Names and content of all files in there, for `stored`."""
    files = sorted(p for folder in folders for p in folder.rglob("*") if p.is_file())
    sources = [p for p in files if p.suffix in {".cu", ".cuh", ".h", ".cpp", ".py"}]
    return [part for p in sources for part in (p.name.encode(), p.read_bytes())]
