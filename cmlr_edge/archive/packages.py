"""The one place that imports PyArrow, fsspec, DuckDB and Ray, when they are first needed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from cmlr_edge.errors import DependencyError
from cmlr_edge.machine.needed import needed


@cache
def arrow() -> Any:
    """Return `pyarrow`, with `parquet`.

    Raises:
        DependencyError: It is not installed.
    """
    with _needed("pyarrow"):
        import pyarrow as pa
        import pyarrow.parquet
    return pa


def arrow_dataset() -> Any:
    """Return `pyarrow.dataset`, which takes its time."""
    arrow()
    from pyarrow import dataset

    return dataset


def filesystem(url: str) -> tuple[Any, str]:
    """Return the file system that an address means, and the path in it.

    Args:
        url: Such as s3://bucket/folder.

    Raises:
        DependencyError: fsspec, or its part for this kind of address, is not installed.
        ValueError: Nobody knows this kind of address.
    """
    with _needed("fsspec"):
        from fsspec.core import url_to_fs
    scheme = url.partition(":")[0]
    try:
        fs, path = url_to_fs(url)
    except ImportError as error:
        if scheme in {"s3", "s3a"}:
            with _needed(f"a package for {scheme}://", extra="s3"):
                raise
        raise DependencyError(
            f"archives need fsspec's package for {scheme}://: {error}"  # it names the package
        ) from error
    return fs, str(path)


@cache
def duckdb() -> Any:
    """Return `duckdb`.

    Raises:
        DependencyError: It is not installed.
    """
    with _needed("duckdb"):
        import duckdb
    return duckdb


@cache
def ray() -> Any:
    """Return `ray`, with `data`.

    Raises:
        DependencyError: It is not installed.
    """
    with _needed("ray", extra="ray"):
        import ray
        import ray.data
    return ray


def _needed(name: str, *, extra: str = "archive") -> AbstractContextManager[None]:
    what = f"archives need {name}, which cannot be imported"
    return needed(what, f"pip install 'cmlr-edge[{extra}]'")
