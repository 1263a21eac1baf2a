"""What is told where the package of a storage is missing."""

from __future__ import annotations

import pytest

from cmlr_edge.archive.packages import filesystem
from cmlr_edge.errors import DependencyError


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
