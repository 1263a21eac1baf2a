"""The CPU reference of CmlrAttention against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cmlr_edge import _native
from tests.covering import covering, names_of
from tests.csrc.attention_reference import draw, reference

Array = NDArray[np.float32]


SHAPES = covering(
    {
        "head_width": [32, 64],
        "tokens": [1, 33, 49, 196, 300, 784],
        "queries": [1, 17, 80, 600],
        "batch": [1, 8],
        "with_bias": [False, True],
    },
    ("head_width", "batch", "with_bias"),
)


@pytest.mark.parametrize(
    ("head_width", "tokens", "queries", "batch", "with_bias"), SHAPES, ids=names_of(SHAPES)
)
def test_attention_equals_numpy_in_float64(
    head_width: int, tokens: int, queries: int, batch: int, with_bias: bool
) -> None:
    heads = 2
    dim = heads * head_width
    query, key, value = (
        draw(batch, n, dim, seed=i) for i, n in enumerate((queries, tokens, tokens))
    )
    bias = draw(tokens, seed=9) if with_bias else None
    scale = head_width**-0.5
    actual = _native.attention(query, key, value, num_heads=heads, scale=scale, key_bias=bias)
    expected = reference(query, key, value, heads, scale, bias)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shared", ["query", "key and value", "all but value"])
def test_one_item_serves_the_whole_batch(shared: str) -> None:
    sizes = {"query": (1, 3, 3), "key and value": (3, 1, 1), "all but value": (1, 1, 3)}[shared]
    query, key, value = (
        draw(n, rows, 64, seed=i) for i, (n, rows) in enumerate(zip(sizes, (5, 9, 9), strict=True))
    )
    actual = _native.attention(query, key, value, num_heads=2, scale=0.2)
    assert actual.shape == (3, 5, 64)
    np.testing.assert_allclose(
        actual, reference(query, key, value, 2, 0.2, None), rtol=1e-5, atol=1e-5
    )


def test_scores_beyond_the_range_of_exp_stay_finite() -> None:
    query = key = np.full((1, 3, 4), 1e6, np.float32)
    value = draw(1, 3, 4)
    actual = _native.attention(query, key, value, num_heads=1, scale=1.0)
    np.testing.assert_allclose(actual[0], np.tile(value[0].mean(0), (3, 1)), rtol=1e-5, atol=1e-6)


def test_values_near_the_largest_float_stay_finite() -> None:
    value = np.full((1, 7, 4), 3e38, np.float32)
    actual = _native.attention(draw(1, 3, 4), draw(1, 7, 4), value, num_heads=2, scale=1.0)
    np.testing.assert_allclose(actual, np.full((1, 3, 4), 3e38), rtol=1e-5)


def test_a_key_with_infinite_negative_bias_gets_no_weight() -> None:
    query, key, value = draw(1, 2, 8), draw(1, 5, 8, seed=1), draw(1, 5, 8, seed=2)
    bias = np.array([0, 0, -np.inf, 0, -np.inf], np.float32)
    kept = np.isfinite(bias)
    actual = _native.attention(query, key, value, num_heads=2, scale=0.5, key_bias=bias)
    expected = reference(query, key[:, kept], value[:, kept], 2, 0.5, None)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_with_every_key_masked_the_output_is_zero() -> None:
    bias = np.full(5, -np.inf, np.float32)
    actual = _native.attention(
        draw(1, 2, 8), draw(1, 5, 8), draw(1, 5, 8), num_heads=2, scale=0.5, key_bias=bias
    )
    assert not actual.any()


def test_nan_in_a_key_is_never_taken_for_a_mask() -> None:
    query, key, value = draw(1, 2, 8), draw(1, 5, 8, seed=1), draw(1, 5, 8, seed=2)
    key[0, 3] = np.nan
    assert np.isnan(_native.attention(query, key, value, num_heads=1, scale=0.5)).all()
    key[:] = np.nan
    assert np.isnan(_native.attention(query, key, value, num_heads=1, scale=0.5)).all()


def test_tokens_with_equal_bias_are_treated_as_if_without() -> None:
    query, key, value = draw(2, 4, 32), draw(2, 6, 32, seed=1), draw(2, 6, 32, seed=2)
    bias = np.full(6, 3.5, np.float32)
    np.testing.assert_allclose(
        _native.attention(query, key, value, num_heads=1, scale=0.3, key_bias=bias),
        _native.attention(query, key, value, num_heads=1, scale=0.3),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query": draw(2, 8)}, r"query should be \(N, L, D\), got \(2, 8\)"),
        ({"key": draw(1, 3, 9)}, "disagree"),
        ({"value": draw(1, 4, 8)}, "disagree"),
        ({"query": draw(2, 2, 8), "key": draw(3, 3, 8)}, "every batch should be 1 or 3"),
        ({"num_heads": 3}, "3 heads do not divide dim 8"),
        ({"num_heads": 0}, "0 heads"),
        ({"key_bias": draw(4)}, r"key_bias should be \(3,\), got \(4,\)"),
        ({"query": draw(1, 0, 8)}, "queries 0, .* must all be positive"),
        ({"key": draw(1, 0, 8), "value": draw(1, 0, 8)}, "tokens 0 .* must all be positive"),
    ],
)
def test_wrong_shapes_are_named(changes: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "query": draw(1, 2, 8),
        "key": draw(1, 3, 8),
        "value": draw(1, 3, 8),
        "num_heads": 2,
        "scale": 1.0,
    }
    with pytest.raises(ValueError, match=message):
        _native.attention(**(arguments | changes))  # type: ignore[arg-type]


def misaligned(shape: tuple[int, ...]) -> Array:
    raw = np.zeros(4 * int(np.prod(shape)) + 1, np.uint8)
    return raw[1:].view(np.float32).reshape(shape)


@pytest.mark.parametrize(
    ("query", "got"),
    [
        (np.zeros((1, 2, 8)), "got float64"),
        (np.zeros((1, 8, 2), np.float32).transpose(0, 2, 1), r"strides \(64, 4, 8\)"),
        (misaligned((1, 2, 8)), "got float32"),
    ],
    ids=["dtype", "layout", "alignment"],
)
def test_another_dtype_layout_or_alignment_is_refused_rather_than_copied(
    query: Array, got: str
) -> None:
    with pytest.raises(TypeError, match=f"query should be aligned C-contiguous float32.*{got}"):
        _native.attention(query, draw(1, 3, 8), draw(1, 3, 8), num_heads=2, scale=1.0)
