"""Joined maps that are not laid out answer as those that are."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from resattn.rules.intervals import Extent, joined


def _map(width: int, shift: int) -> Extent:
    at = np.arange(width) + shift
    return Extent((2,), at - 1, at + shift, at % 3 == 0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), min_size=2, max_size=4), st.integers(2, 9))
def test_the_union_over_joined_channels_is_that_of_all_of_them(parts: list[tuple[int, int]], width: int) -> None:
    whole, n = _map(width, 7), 3
    for shift, channels in parts:  # as a dense network joins: each time all that was joined before
        whole = joined([(whole, n), (_map(width, shift), channels)], 1)
        n += channels
        found, laid_out = whole.over([1], is_local=True), whole.changed().over([1], is_local=True)
        assert whole.shape == whole.lo.shape == (n, width)
        assert found.dims == laid_out.dims == (2,)
        for name in ("lo", "hi", "clipped"):
            assert np.array_equal(getattr(found, name), getattr(laid_out, name))
