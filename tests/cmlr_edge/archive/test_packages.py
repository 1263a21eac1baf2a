"""What is told where the package of a storage is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmlr_edge.archive.packages import filesystem
from cmlr_edge.errors import DependencyError
from tests.cmlr_edge.cli.command import run


@pytest.mark.parametrize(
    ("url", "remedy"),
    [("s3://bucket/photos", "cmlr-edge[s3]"), ("gs://bucket/photos", "Please install gcsfs")],
)
def test_a_storage_without_its_package_names_what_brings_it(
    url: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = pytest.importorskip("fsspec.core")
    whose = {"s3": "Install s3fs to access S3", "gs": "Please install gcsfs"}

    def url_to_fs(url: str) -> None:
        raise ImportError(whose[url.partition(":")[0]])

    monkeypatch.setattr(core, "url_to_fs", url_to_fs)
    with pytest.raises(DependencyError) as raised:
        filesystem(url)
    assert remedy in str(raised.value)
    assert "cmlr-edge[archive]" not in str(raised.value)  # which does not bring it


def test_without_pyarrow_one_line_tells_what_brings_it_before_a_model_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ImportError('No module named pyarrow')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    paths = [tmp_path, "--out", tmp_path / "labels", "--engine", tmp_path / "none.onnx"]
    done = run("archive", "label", *map(str, paths))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "pip install 'cmlr-edge[archive]'" in done.stderr
