"""Shape arithmetic against NumPy's, with symbols against numbers, and views of random reshapes and slices."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc import ops
from graphc.errors import GraphTypeError
from graphc.ir.dims import Dim, Symbol, substitute
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, input_value
from graphc.ir.interpret import run
from graphc.ir.types import TensorType, tensor
from graphc.ops import REGISTRY, Layout
from graphc.ops.shapes import (
    broadcast_shapes,
    factor_groups,
    normalize_axes,
    resolve_shape,
    slice_bounds,
    slice_extent,
)

extents = st.integers(0, 5)
shapes = st.lists(extents, max_size=4).map(tuple)
bounds = st.none() | st.integers(-8, 8)
steps = st.integers(-3, 3).filter(bool)


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from([0, 1, 2, 3]), max_size=4), min_size=1, max_size=3))
def test_broadcasting_is_numpys(given_shapes: list[list[int]]) -> None:
    try:
        expected = np.broadcast_shapes(*map(tuple, given_shapes))
    except ValueError:
        with pytest.raises(GraphTypeError, match="do not broadcast"):
            broadcast_shapes(*given_shapes)
    else:
        assert broadcast_shapes(*given_shapes) == expected


def test_broadcasting_symbols() -> None:
    n, m = Dim("n"), Dim("m")
    assert broadcast_shapes((n, 1), (1, 3)) == (n, 3)
    assert broadcast_shapes((n,), (4,)) == (4,)
    assert broadcast_shapes((n,), (n,)) == (n,)
    (extent,) = broadcast_shapes((n,), (m,))
    assert [substitute(extent, {"n": a, "m": b}) for a, b in ((3, 3), (1, 5), (5, 1))] == [3, 5, 5]


@settings(deadline=None)
@given(extents, bounds, bounds, steps)
def test_slice_bounds_are_pythons(extent: int, start: int | None, stop: int | None, step: int) -> None:
    first, last = slice_bounds(start, stop, step, extent)
    kept = np.arange(extent)[start:stop:step]
    assert slice_extent(first, last, step) == len(kept)
    x = np.arange(extent)
    window = REGISTRY["slice"].reference
    assert window is not None
    if len(kept):
        np.testing.assert_array_equal(window(x, starts=(first,), stops=(last,), steps=(step,)), kept)


@settings(deadline=None)
@given(
    st.integers(2, 6),
    st.sampled_from([None, 0, 1, 2, -1, -2, 2**31, -(2**63)]),
    st.sampled_from([None, 1, 2, -1, 2**63 - 1]),
)
def test_symbolic_slice_bounds_give_the_same_numbers(extent: int, start: int | None, stop: int | None) -> None:
    symbolic = slice_bounds(start, stop, 1, Dim(Symbol("n", lower=2)))
    numbers = slice_bounds(start, stop, 1, extent)
    found = slice_extent(*(substitute(b, {"n": extent}) for b in symbolic), 1)
    assert found == slice_extent(*numbers, 1)


def test_shapes_with_a_hole() -> None:
    n = Dim("n")
    assert resolve_shape((2, 3, 4), (4, -1)) == (4, 6)
    assert resolve_shape((n, 6), (-1, 3)) == (2 * n, 3)
    assert resolve_shape((n, 6), (n, -1, 2)) == (n, 3, 2)
    for wanted in [(-1, -1), (5, -1), (0, -1)]:
        with pytest.raises(GraphTypeError, match="reshape"):
            resolve_shape((2, 3), wanted)


def test_axes() -> None:
    assert normalize_axes((-1, 0), 3) == (0, 2)
    assert normalize_axes(None, 2) == (0, 1)
    for axes in [(0, -3), (3,)]:
        with pytest.raises(GraphTypeError):
            normalize_axes(axes, 3)


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes of one number of elements."""
    factors = draw(st.lists(st.sampled_from([1, 2, 3]), max_size=5))

    def grouped() -> tuple[int, ...]:
        shape: list[int] = []
        for f in factors:
            if shape and draw(st.booleans()):
                shape[-1] *= f
            else:
                shape.append(f)
        if draw(st.booleans()):
            shape.insert(draw(st.integers(0, len(shape))), 1)
        return tuple(shape)

    return grouped(), grouped()


@settings(deadline=None)
@given(reshapes())
def test_factor_groups_cover_every_axis_and_hold_equal_products(pair: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    old, new = pair
    if math.prod(old) != math.prod(new):
        return
    groups = factor_groups(old, new)
    assert [a for left, _ in groups for a in left] == [k for k, d in enumerate(old) if d != 1]
    assert [a for _, right in groups for a in right] == [k for k, d in enumerate(new) if d != 1]
    for left, right in groups:
        assert math.prod(old[a] for a in left) == math.prod(new[a] for a in right)


@settings(deadline=None)
@given(reshapes(), st.randoms(use_true_random=False))
def test_a_reshape_is_viewed_exactly_when_numpy_needs_no_copy(
    pair: tuple[tuple[int, ...], tuple[int, ...]], random: object
) -> None:
    old, new = pair
    if math.prod(old) != math.prod(new):
        return
    perm = list(range(len(old)))
    random.shuffle(perm)  # type: ignore[attr-defined]
    dense = np.arange(math.prod(old)).reshape([old[perm.index(k)] for k in range(len(old))])
    x = dense.transpose(perm)
    assert x.shape == old
    layout = Layout(0, old, tuple(n // x.itemsize for n in x.strides))
    view = REGISTRY["reshape"].view
    assert view is not None
    found = view(layout, TensorType(dtype_of(x), new), shape=new)
    needs_copy = not np.shares_memory(x.reshape(new), dense)
    assert (found is None) == needs_copy
    if found is not None:
        shown = np.lib.stride_tricks.as_strided(
            dense.ravel()[found.offset :], new, [n * x.itemsize for n in found.strides]
        )
        np.testing.assert_array_equal(shown, x.reshape(new))


def test_shapes_stay_symbolic_through_a_graph_and_are_bound_by_the_run() -> None:
    n = Dim("n")
    x = input_value("x", tensor("float32", n, 3))
    y = ops.reshape(ops.concat(x, ops.mul(x, 2.0), axis=0), shape=(6 * n,))
    z = ops.slice(y, starts=(n,), stops=(6 * n,), steps=(2,))
    graph = Graph([x], [y, z, ops.pad(z, 0.0 * np.float32(1), low=(1,), high=(n,)), ops.shape_of(x)])
    for size in (2, 4):
        arrays = run(graph, np.ones((size, 3), np.float32))
        for value, array in zip(graph.outputs, arrays, strict=True):
            assert tuple(substitute(d, {"n": size}) for d in value.shape) == array.shape
