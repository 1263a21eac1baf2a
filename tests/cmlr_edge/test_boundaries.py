from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "cmlr_edge"
BLOCK_AND_IMPORT = """
import sys
BLOCKED = {'torch', 'tensorrt', 'cuda', 'onnx', 'onnxruntime', 'openvino', 'cv2', 'av', 'typer', 'rich',
           'PIL', 'train', 'export', 'pyarrow', 'fsspec', 'duckdb', 'ray'}
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in BLOCKED:
            raise ModuleNotFoundError(f'{name} is blocked', name=name)
sys.meta_path.insert(0, Block())
import cmlr_edge
try:
    cmlr_edge.open_source('.')
except cmlr_edge.CmlrError as error:
    print(type(error).__name__)
try:
    cmlr_edge.open_source('x.mp4')
except cmlr_edge.CmlrError as error:
    print(type(error).__name__)
"""


def test_the_sdk_imports_with_numpy_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCK_AND_IMPORT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["CaptureError", "CaptureError"]


def importers(package: str) -> list[str]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "import_runtime":
                names = [
                    ast.literal_eval(item) for item in node.args if isinstance(item, ast.Constant)
                ]
            if any(name.split(".")[0] == package for name in names):
                found.append(str(path.relative_to(PACKAGE)))
    return found


@pytest.mark.parametrize(
    ("package", "home"),
    [
        ("cv2", ["machine/opencv.py"]),
        ("av", ["machine/pyav.py"]),
        ("onnxruntime", ["backends/onnxruntime.py"]),
        ("openvino", ["backends/openvino.py", "backends/openvino_attention.py"]),
        ("tensorrt", ["backends/tensorrt.py"]),
        ("cuda", ["backends/cuda_memory.py"]),
        ("PIL", ["frame.py", "machine/pillow.py"]),  # the former for a type alone
        ("pyarrow", ["archive/packages.py"]),
        ("fsspec", ["archive/packages.py"]),
        ("duckdb", ["archive/packages.py"]),
        ("ray", ["archive/packages.py"]),
        ("torch", []),
    ],
)
def test_each_heavy_package_is_imported_in_one_place(package: str, home: list[str]) -> None:
    assert set(importers(package)) == set(home)


def test_importing_the_sdk_loads_nothing_that_takes_its_time() -> None:
    code = "import cmlr_edge, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    slow = {
        "av",
        "cv2",
        "onnxruntime",
        "openvino",
        "typer",
        "rich",
        "asyncio",
        "multiprocessing",
        "http",
    }
    slow |= {
        "concurrent",
        "pyarrow",
        "fsspec",
        "duckdb",
        "ray",
        "email",
        "ssl",
        "tempfile",
        "importlib.metadata",
        "subprocess",
    }
    assert not slow & set(done.stdout.split())
