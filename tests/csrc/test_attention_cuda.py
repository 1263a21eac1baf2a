"""The CUDA kernels of CmlrAttention on the emulated GPU, against NumPy and the CPU reference.

Twice: their source compiled for the host, and the PTX that nvcc makes of it, translated.
"""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from cmlr_edge import _native
from tests.covering import covering, names_of
from tests.csrc.attention_reference import draw, reference
from tests.csrc.emulation.emulated_gpu import (
    SCHEDULES,
    EmulatedGpu,
    build_ptx_runner,
    build_runner,
)
from tests.csrc.requirements import require_nvcc

# Compiling takes minutes where nothing is stored.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# On data of unit variance; the project's tolerances for the kernels.
TOLERANCE = {np.float32: 1e-5, np.float16: 2e-3}
both_types = pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=["fp32", "fp16"])
both_widths = pytest.mark.parametrize("width", [32, 64])
# One, two and four warps in one pass, and the looping softmax, each with a ragged end.
every_path = pytest.mark.parametrize("tokens", [9, 33, 70, 196, 300])


@pytest.fixture(scope="module")
def source_gpu(tmp_path_factory: pytest.TempPathFactory) -> EmulatedGpu:
    return build_runner(tmp_path_factory.mktemp("emulated_gpu"))


@pytest.fixture(scope="module")
def ptx_gpus(
    tmp_path_factory: pytest.TempPathFactory, source_gpu: EmulatedGpu
) -> Callable[[str], EmulatedGpu]:
    """The emulated GPU running the PTX that nvcc emits for an architecture."""

    @functools.cache
    def build(architecture: str) -> EmulatedGpu:
        nvcc = require_nvcc()
        folder = tmp_path_factory.mktemp(architecture)
        return build_ptx_runner(folder, source_gpu, nvcc, architecture)

    return build


@pytest.fixture(scope="module", params=["source", "ptx"])
def gpu(
    request: pytest.FixtureRequest,
    source_gpu: EmulatedGpu,
    ptx_gpus: Callable[[str], EmulatedGpu],
) -> EmulatedGpu:
    return source_gpu if request.param == "source" else ptx_gpus("sm_87")


def draw_case(
    dtype: DTypeLike, batch: int, queries: int, tokens: int, dim: int
) -> list[NDArray[Any]]:
    sizes = (queries, tokens, tokens)
    return [draw(batch, rows, dim, seed=i).astype(dtype) for i, rows in enumerate(sizes)]


def assert_close(actual: NDArray[Any], expected: NDArray[Any]) -> None:
    tolerance = TOLERANCE[actual.dtype.type]
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


# Type, width and tokens choose the kernel: each of them runs, and sees each number of queries, each
# batch, and a bias or none.
SHAPES = covering(
    {
        "dtype": [np.float32, np.float16],
        "width": [32, 64],
        "tokens": [1, 33, 49, 196, 300, 784],
        "queries": [1, 17, 80, 600],
        "batch": [1, 8],
        "with_bias": [False, True],
    },
    ("dtype", "width", "tokens"),
    ("dtype", "width", "queries"),
    ("dtype", "width", "with_bias", "batch"),
)


@pytest.mark.parametrize(
    ("dtype", "width", "tokens", "queries", "batch", "with_bias"), SHAPES, ids=names_of(SHAPES)
)
def test_kernel_equals_numpy_in_float64(
    source_gpu: EmulatedGpu,
    dtype: Any,
    width: int,
    tokens: int,
    queries: int,
    batch: int,
    with_bias: bool,
) -> None:
    heads = 1 if batch * queries > 1000 else 2  # to keep the largest cases quick
    query, key, value = draw_case(dtype, batch, queries, tokens, heads * width)
    bias = draw(tokens, seed=9) if with_bias else None
    scale = width**-0.5
    actual = source_gpu.attention(query, key, value, heads=heads, scale=scale, bias=bias)
    assert_close(actual, reference(query, key, value, heads, scale, bias))


@both_types
@both_widths
@pytest.mark.parametrize("with_bias", [False, True], ids=["no-bias", "bias"])
def test_kernel_equals_numpy_where_another_kernel_takes_over(
    source_gpu: EmulatedGpu, dtype: Any, width: int, with_bias: bool
) -> None:
    """attention.cu chooses by the number of keys."""
    for last in (16, 32, 48, 64, 96, 128, 192, 256):
        for tokens in (last - 1, last, last + 1):
            query, key, value = draw_case(dtype, 1, 17, tokens, width)
            bias = draw(tokens, seed=9) if with_bias else None
            actual = source_gpu.attention(query, key, value, heads=1, scale=0.2, bias=bias)
            assert_close(actual, reference(query, key, value, 1, 0.2, bias))


PTX_SHAPES = covering(
    {
        "architecture": ["sm_87", "sm_110"],
        "dtype": [np.float32, np.float16],
        "width": [32, 64],
        "tokens": [1, 33, 70, 196, 784],
        "batch and queries": [(1, 1), (2, 17), (1, 80)],
    },
    ("architecture", "dtype", "width", "tokens"),
    ("architecture", "dtype", "width", "batch and queries"),
)


@pytest.mark.parametrize(
    ("architecture", "dtype", "width", "tokens", "batch_and_queries"),
    PTX_SHAPES,
    ids=names_of(PTX_SHAPES),
)
def test_the_ptx_of_nvcc_computes_what_the_source_computes(
    ptx_gpus: Callable[[str], EmulatedGpu],
    source_gpu: EmulatedGpu,
    architecture: str,
    dtype: Any,
    width: int,
    tokens: int,
    batch_and_queries: tuple[int, int],
) -> None:
    batch, queries = batch_and_queries
    query, key, value = draw_case(dtype, batch, queries, tokens, 2 * width)
    bias = draw(tokens, seed=9) if queries == 17 else None
    actual, source = (
        gpu.attention(query, key, value, heads=2, scale=0.2, bias=bias)
        for gpu in (ptx_gpus(architecture), source_gpu)
    )
    assert_close(actual, reference(query, key, value, 2, 0.2, bias))
    # Where compilers contract or order sums differently, a half may round the other way.
    np.testing.assert_allclose(
        actual, source, rtol=1e-3 if dtype == np.float16 else 2e-6, atol=2e-6
    )


@both_types
@both_widths
@every_path
def test_the_order_in_which_threads_run_changes_no_bit(
    gpu: EmulatedGpu, dtype: Any, tokens: int, width: int
) -> None:
    query, key, value = draw_case(dtype, 2, 40, tokens, 2 * width)
    bias = draw(tokens, seed=9)
    first, *others = (
        gpu.attention(query, key, value, heads=2, scale=0.2, bias=bias, schedule=schedule)
        for schedule in SCHEDULES
    )
    assert_close(first, reference(query, key, value, 2, 0.2, bias))
    for other in others:
        np.testing.assert_array_equal(first, other)


@both_types
@every_path
@pytest.mark.parametrize("shared", ["query", "key and value", "all but value"])
def test_one_item_serves_the_whole_batch(
    gpu: EmulatedGpu, dtype: Any, tokens: int, shared: str
) -> None:
    sizes = {"query": (1, 3, 3), "key and value": (3, 1, 1), "all but value": (1, 1, 3)}[shared]
    query, key, value = (
        draw(n, rows, 64, seed=i).astype(dtype)
        for i, (n, rows) in enumerate(zip(sizes, (20, tokens, tokens), strict=True))
    )
    actual = gpu.attention(query, key, value, heads=2, scale=0.2)
    assert actual.shape == (3, 20, 64)
    assert_close(actual, reference(query, key, value, 2, 0.2, None))


@both_types
@every_path
def test_scores_beyond_the_range_of_exp_stay_finite(
    gpu: EmulatedGpu, dtype: Any, tokens: int
) -> None:
    _, key, value = draw_case(dtype, 1, 3, tokens, 64)
    actual = gpu.attention(key[:, :5] * 100, key * 100, value, heads=2, scale=100.0)
    expected = reference(key[:, :5] * 100, key * 100, value, 2, 100.0, None)
    assert_close(actual, expected)  # one key takes all


@both_types
@every_path
def test_values_near_the_largest_number_stay_finite(
    gpu: EmulatedGpu, dtype: Any, tokens: int
) -> None:
    query, key, _ = draw_case(dtype, 1, 17, tokens, 64)
    largest = {np.float32: 3e38, np.float16: 65504.0}[dtype]
    actual = gpu.attention(query, key, np.full_like(key, largest), heads=2, scale=1.0)
    np.testing.assert_allclose(actual.astype(np.float64), largest, rtol=1e-5)


@both_types
@both_widths
@every_path
def test_a_key_with_infinite_negative_bias_gets_no_weight(
    gpu: EmulatedGpu, dtype: Any, tokens: int, width: int
) -> None:
    query, key, value = draw_case(dtype, 1, 17, tokens, width)
    kept = np.arange(tokens) % 3 == 1
    bias = np.where(kept, 0, -np.inf).astype(np.float32)
    actual = gpu.attention(query, key, value, heads=1, scale=0.2, bias=bias)
    assert_close(actual, reference(query, key[:, kept], value[:, kept], 1, 0.2, None))


@both_types
@every_path
def test_with_only_the_last_key_left_the_output_is_its_value(
    gpu: EmulatedGpu, dtype: Any, tokens: int
) -> None:
    query, key, value = draw_case(dtype, 1, 17, tokens, 64)
    bias = np.full(tokens, -np.inf, np.float32)
    bias[-1] = 0
    actual = gpu.attention(query, key, value, heads=2, scale=0.2, bias=bias)
    assert_close(actual, np.broadcast_to(value[:, -1:], actual.shape).astype(np.float64))


SPECIAL = {
    "every key masked": (None, -np.inf),
    "a key is NaN": ("key", np.nan),
    "a masked value is NaN": ("value", np.nan),
    "a score is infinite": (None, np.inf),
}


@both_types
@every_path
@pytest.mark.parametrize("special", SPECIAL)
def test_masks_and_nan_mean_what_they_mean_to_the_cpu_reference(
    gpu: EmulatedGpu, dtype: Any, tokens: int, special: str
) -> None:
    query, key, value = draw_case(dtype, 1, 17, tokens, 64)
    where, number = SPECIAL[special]
    bias = np.zeros(tokens, np.float32)
    bias[tokens // 2] = -np.inf
    if where is None:
        bias[:] = number
    else:
        {"key": key, "value": value}[where][0, tokens // 2, 3] = number
    actual = gpu.attention(query, key, value, heads=2, scale=0.2, bias=bias)
    wide = (x.astype(np.float32) for x in (query, key, value))
    assert_close(actual, _native.attention(*wide, num_heads=2, scale=0.2, key_bias=bias))


@both_types
def test_biases_of_2e38_leave_finite_weights(gpu: EmulatedGpu, dtype: Any) -> None:
    query, key, value = draw_case(dtype, 1, 3, 40, 32)
    bias = np.where(np.arange(40) % 2, 2e38, -2e38).astype(np.float32)
    actual = gpu.attention(query, key, value, heads=1, scale=0.2, bias=bias)
    expected = np.broadcast_to(value[:, 1::2].astype(np.float64).mean(axis=1), (3, 32))
    assert_close(actual[0], expected)  # next to 2e38 the scores of one side are all the same


@both_types
def test_rows_beyond_32_bits_are_found(gpu: EmulatedGpu, dtype: Any) -> None:
    """The last head of the last item of tensors with 2^31 elements and more, most never touched."""
    query, key, value = draw_case(dtype, 1, 600, 600, 64)
    actual = gpu.attention(query, key, value, heads=1, scale=0.2, schedule=("far", "65535", "3"))
    last = slice(600 // 16 * 16, None)  # the only block that runs
    assert_close(actual[:, last], reference(query[:, last], key, value, 1, 0.2, None))


@pytest.mark.parametrize("tensor", range(5))
def test_a_misaligned_tensor_is_refused_by_name(source_gpu: EmulatedGpu, tensor: int) -> None:
    query, key, value = draw_case(np.float32, 1, 3, 5, 64)
    with pytest.raises(subprocess.CalledProcessError) as error:
        source_gpu.attention(
            query, key, value, heads=2, scale=1.0, bias=draw(5, seed=9),
            schedule=("misaligned", str(tensor)),
        )  # fmt: skip
    assert "must be aligned to" in error.value.stderr.decode()


@pytest.mark.parametrize(
    ("heads", "message"),
    [(4, "head widths 32 and 64, got 16"), (3, "3 heads do not divide dim 64")],
)
def test_unsupported_heads_are_refused_by_name(gpu: EmulatedGpu, heads: int, message: str) -> None:
    query, key, value = draw_case(np.float32, 1, 3, 5, 64)
    with pytest.raises(subprocess.CalledProcessError) as error:
        gpu.attention(query, key, value, heads=heads, scale=1.0)
    assert message in error.value.stderr.decode()
