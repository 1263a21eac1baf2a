"""The one place that imports PyArrow, fsspec, DuckDB and Ray, when they are first needed."""

from __future__ import annotations

from functools import cache
from typing import Any

from cmlr_edge.errors import DependencyError


@cache
def arrow() -> Any:
    """Return `pyarrow`, with `parquet`.

    Raises:
        DependencyError: It is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as error:
        raise _missing("pyarrow", error) from error
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
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise _missing("fsspec", error) from error
    scheme = url.partition(":")[0]
    try:
        fs, path = url_to_fs(url)
    except ImportError as error:
        if scheme in {"s3", "s3a"}:
            raise _missing(f"a package for {scheme}://", error, extra="s3") from error
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
    try:
        import duckdb
    except ImportError as error:
        raise _missing("duckdb", error) from error
    return duckdb


@cache
def ray() -> Any:
    """Return `ray`, with `data`.

    Raises:
        DependencyError: It is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise _missing("ray", error, extra="ray") from error
    return ray


def _missing(name: str, error: ImportError, *, extra: str = "archive") -> DependencyError:
    return DependencyError(
        f"archives need {name}, which cannot be imported ({error}): pip install 'cmlr-edge[{extra}]'"
    )
