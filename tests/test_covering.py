"""The choice of combinations, against all of them."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.covering import covering


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=3, max_size=5))
def test_any_two_values_of_any_two_parameters_meet(sizes: list[int]) -> None:
    parameters = {str(i): [*range(size)] for i, size in enumerate(sizes)}
    cases = covering(parameters, ("0", "1", "2"))
    for groups in (*itertools.combinations(range(len(sizes)), 2), (0, 1, 2)):
        met = {tuple(case[i] for i in groups) for case in cases}
        assert met == {*itertools.product(*(range(sizes[i]) for i in groups))}
    assert {tuple(0 for _ in sizes), tuple(size - 1 for size in sizes)} <= {*cases}


def test_they_are_few_and_the_same_each_time() -> None:
    parameters = {"a": [1, 2, 3, 4], "b": "xyz", "c": [True, False], "d": [True, False]}
    cases = covering(parameters)
    assert cases == covering(parameters)
    assert 12 <= len(cases) <= 14  # of 48
