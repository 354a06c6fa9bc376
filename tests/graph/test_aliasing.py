"""Where a write through one view meets another: against the elements themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as limited
from hypothesis import strategies as st
from torch import Tensor

from resattn.graph.aliasing import Overlap, View, overlap


def view(tensor: Tensor) -> View:
    return View(int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride())


@st.composite
def pairs_of_views(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Two views of one tensor whose elements are numbered, by slices, selections, transposes and merges."""
    shape = draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=2, max_size=4))
    base = torch.arange(int(np.prod(shape))).reshape(shape)
    return _view(draw, base), _view(draw, base)


def _view(draw: st.DrawFn, x: Tensor) -> Tensor:
    for _ in range(draw(st.integers(0, 3))):
        how = draw(st.sampled_from(["slice", "slice", "select", "transpose", "merge"]))
        dim = draw(st.integers(0, max(x.dim() - 1, 0)))
        if how == "slice" and x.dim():
            start = draw(st.integers(0, x.shape[dim] - 1))
            stop = draw(st.integers(start + 1, x.shape[dim]))
            x = x[(slice(None),) * dim + (slice(start, stop, draw(st.integers(1, 3))),)]
        elif how == "select" and x.dim() > 1:
            x = x.select(dim, draw(st.integers(0, x.shape[dim] - 1)))
        elif how == "transpose" and x.dim() > 1:
            x = x.transpose(dim, draw(st.integers(0, x.dim() - 1)))
        elif how == "merge" and x.dim() > 1 and x.is_contiguous():
            x = x.flatten(0, 1)
    return x


@limited(max_examples=400)
@given(pairs_of_views())
def test_what_is_said_of_two_views_is_true_of_their_elements(pair: tuple[Tensor, Tensor]) -> None:
    written, read = pair
    shared = set(written.flatten().tolist()) & set(read.flatten().tolist())
    found = overlap(view(written), view(read))
    if found is None:
        assert not shared
        return
    if found.is_all:
        assert shared == set(read.flatten().tolist())
    if found.is_reshaped:
        assert written.flatten().tolist() == read.flatten().tolist()
    if found.matches is not None:
        assert_paired(written, read, found, shared)


def assert_paired(written: Tensor, read: Tensor, found: Overlap, shared: set[int]) -> None:
    assert found.matches is not None
    assert found.is_all == (len(shared) == read.numel())
    here = [range(n) for n in read.shape]
    there: list[tuple[int, ...]] = [(0,)] * written.dim()
    for w_dim, r_dim, of, to in found.matches:
        here[r_dim] = to  # type: ignore[call-overload]
        if w_dim is not None:
            there[w_dim] = of
            # Position by position along this dimension, others fixed.
    region = read.numpy()[np.ix_(*here)] if read.dim() else read.numpy()
    assert set(region.flatten().tolist()) == shared
    if all(w is not None for w, *_ in found.matches) and written.dim() == len(found.matches):
        order = [w for w, *_ in sorted(found.matches, key=lambda match: match[1])]
        assert written.numpy()[np.ix_(*there)].transpose(order).flatten().tolist() == region.flatten().tolist()


X = torch.arange(2 * 8 * 6 * 5).reshape(2, 8, 6, 5)


@pytest.mark.parametrize(
    ("written", "read", "wanted"),
    [
        (X[:, :4], X[:, 4:], None),  # two halves
        (X[..., ::2], X[..., 1::2], None),  # every other column
        (X[:, :, :3], X, ((2, 2, (0, 1, 2), (0, 1, 2)),)),
        (X, X[:, :, 1:], ((2, 2, (1, 2, 3, 4, 5), (0, 1, 2, 3, 4)),)),
        (X[:, :, ::2], X, ((2, 2, (0, 1, 2), (0, 2, 4)),)),
        (X[:, 3], X, ((None, 1, (0,), (3,)),)),
    ],
)
def test_halves_rows_and_planes(written: Tensor, read: Tensor, wanted: tuple | None) -> None:
    found = overlap(view(written), view(read))
    if wanted is None:
        assert found is None
    else:
        assert found is not None
        assert found.matches is not None
        assert set(wanted) <= {(w, r, tuple(of), tuple(to)) for w, r, of, to in found.matches}


@pytest.mark.parametrize("n", [10, 10**12])
def test_the_length_of_a_slice_is_no_cost(n: int) -> None:
    # Positions of a slice are ranges: 10^12 of them could not be listed.
    whole, rest = View(0, (1, n, 8), (8 * n, 8, 1)), View(8, (1, n - 1, 8), (8 * n, 8, 1))
    found = overlap(rest, whole)
    assert found is not None
    assert found.matches is not None
    assert (1, 1, range(n - 1), range(1, n)) in found.matches


def test_the_same_elements_in_another_shape() -> None:
    found = overlap(view(X.view(2, -1)), view(X))
    assert found == Overlap(is_all=True, matches=None, is_reshaped=True)


def test_a_view_that_repeats_elements_is_not_told() -> None:
    row = torch.arange(5)
    assert overlap(view(row.expand(3, 5)), view(row)) == Overlap(is_all=False, matches=None)
