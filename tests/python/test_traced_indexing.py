"""Indexing of traced tensors reads what NumPy reads; `.at` writes what NumPy's assignment writes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc
from graphc.errors import TraceError
from graphc.ir.interpret import run

X = np.arange(120, dtype=np.float64).reshape(4, 5, 6)
I, J = np.array([[0, 3], [-1, 1]]), np.array([2, -4])
MASK = X[:, 0, 0] > 40

KEYS = [
    0, -1, (1, 2, 3), slice(1, 3), slice(None, None, -1), slice(3, 0, -2), slice(10, 20), (..., 0), (slice(None), -1),
    None, (None, 1, ..., None), (..., None), (slice(None, None, 2), None, slice(4, 1, -1)), (), ...,
    I, (I, J), (slice(None), J), (slice(None), J, None), (0, slice(None), J), (J, slice(None), J), (..., J, 1),
    (I, slice(1, 4), 2), (1, J), (None, J, None, 0), (slice(None), 0, I), [0, 2], ([0, 1], [2, 3], [4, 5]),
    (J, None, J), (slice(None), J, 1, None), MASK, (MASK, 0), (slice(None), X[0] > 17), X > 60, (MASK, slice(None), J[0]),
    (np.array(2), slice(None), np.array([0, 1])), np.int64(2), np.array([], np.int64), [], (MASK, np.array([[1], [2]])),
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_reads_what_numpy_reads(key: Any) -> None:
    graph = graphc.trace(lambda x: x[key], X)
    assert graph.outputs[0].shape == X[key].shape
    np.testing.assert_array_equal(run(graph, X)[0], X[key])


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_writes_what_numpy_writes(key: Any) -> None:
    values = np.random.default_rng(1).normal(size=X[key].shape)
    replaced, added = X.copy(), X.copy()
    replaced[key] = values
    np.add.at(added, key, values)
    graph = graphc.trace(lambda x, v: (x.at[key].set(v), x.at[key].add(v), x.at[key].set(-1)), X, values)
    found = run(graph, X, values)
    np.testing.assert_array_equal(found[0], replaced)
    np.testing.assert_allclose(found[1], added, rtol=1e-14)
    replaced[key] = -1
    np.testing.assert_array_equal(found[2], replaced)


def test_arrays_are_updated_as_tensors_are() -> None:
    wanted = X.copy()
    wanted[I, 1:3] = 7
    np.testing.assert_array_equal(graphc.at(X)[I, 1:3].set(7), wanted)
    np.testing.assert_array_equal(run(graphc.trace(lambda x: graphc.at(x)[I, 1:3].set(7), X), X)[0], wanted)
    np.testing.assert_array_equal(graphc.at(X)[I, 1:3].get(), X[I, 1:3])
    assert not np.shares_memory(graphc.at(X)[:0].set(7), X)


@st.composite
def keys(draw: Any) -> Any:
    """A key for X: an int, a slice or a vector of one common length for each of some axes, None, an ellipsis."""
    length = draw(st.integers(1, 3))
    items: list[Any] = []
    for extent in X.shape[: draw(st.integers(0, 3))]:
        bounds = st.none() | st.integers(-extent - 2, extent + 2)
        step = st.none() | st.integers(-3, 3).filter(bool)
        vector = st.lists(st.integers(-extent, extent - 1), min_size=length, max_size=length).map(np.array)
        items.append(draw(st.integers(-extent, extent - 1) | st.builds(slice, bounds, bounds, step) | vector))
        if draw(st.booleans()):
            items.append(None)
    if draw(st.booleans()):
        items.append(...)
    return tuple(items)


@settings(max_examples=60, deadline=None)
@given(keys())
def test_any_key_reads_what_numpy_reads(key: Any) -> None:
    np.testing.assert_array_equal(run(graphc.trace(lambda x: x[key], X), X)[0], X[key])


def test_indices_may_be_traced() -> None:
    def f(x: Any, i: Any, j: Any, k: Any) -> Any:
        return x[i, :, j], x[k], x[..., j].at[k].mul(2.0), x.at[i, 0].max(200.0), x.at[:, k].min(3.0)

    arguments = (X, I, J, np.int64(2))
    minimum, maximum, doubled = X.copy(), X.copy(), X[..., J].copy()
    minimum[:, 2] = np.minimum(minimum[:, 2], 3)
    maximum[I, 0] = np.maximum(maximum[I, 0], 200)
    doubled[2] *= 2
    graph = graphc.trace(f, *arguments)
    compiled = graphc.compile(graph).run(None, dict(zip(graph.input_names, arguments, strict=True)))
    for results in (run(graph, *arguments), compiled):
        for a, b in zip(results, (X[I, :, J], X[2], doubled, maximum, minimum), strict=True):
            np.testing.assert_array_equal(a, b)


def test_gradients_go_back_to_where_elements_were_read_and_written() -> None:
    weights = np.arange(4.0)

    def loss(x: Any) -> Any:
        return graphc.sum(x[J, 1, :4] * weights) + graphc.sum(x.at[0].set(0.0)[0]) + graphc.sum(x[I, 0, 0])

    wanted = np.zeros_like(X)
    np.add.at(wanted, (J[:, None], 1, np.arange(4)), np.broadcast_to(weights, (2, 4)))
    np.add.at(wanted, (I, 0, 0), 1.0)
    np.testing.assert_array_equal(graphc.grad(loss)(X), wanted)


def test_a_loop_over_a_tensor_goes_over_its_first_axis() -> None:
    graph = graphc.trace(lambda x: [row.sum() for row in x], X)
    np.testing.assert_array_equal(run(graph, X), X.sum((1, 2)))


@pytest.mark.parametrize(
    ("read", "error", "words"),
    [
        (lambda x: x[4], IndexError, ["index 4", "axis 0", "extent is 4"]),
        (lambda x: x[0, -6], IndexError, ["index -6", "axis 1", "extent is 5"]),
        (lambda x: x[:, [0, 5]], IndexError, ["index 5", "axis 1", "extent is 5"]),
        (lambda x: x[0, 0, 0, 0], IndexError, ["4 indices", "3 axes"]),
        (lambda x: x[..., ...], IndexError, ["two ellipses"]),
        (lambda x: x[x > 1], TraceError, ["graphc.where", "nonzero"]),
        (lambda x: x[x], IndexError, ["float64", "integers"]),
        (lambda x: x["a"], IndexError, ["'a'"]),
        (lambda x: x[MASK[:2]], IndexError, ["mask", "extent 2", "axis 0"]),
        (lambda x: x[I, np.arange(3)], IndexError, ["[2, 2]", "[3]", "broadcast"]),
        (lambda x: x[: graphc.astype(x[0, 0, 0], "int64")], TraceError, ["bounds", "graphc.arange"]),
        (lambda x: x.__setitem__(0, 1.0), TraceError, ["x.at[i].set(v)"]),
        (lambda x: x.at[0].set(np.ones(7)), TypeError, ["[5, 6]", "[7]"]),
    ],
)
def test_mistakes_say_what_and_where(read: Any, error: type[Exception], words: list[str]) -> None:
    with pytest.raises(error) as raised:
        graphc.trace(read, X)
    assert all(word in str(raised.value) for word in [*words, "test_traced_indexing.py:"]), str(raised.value)


def test_a_loop_over_an_open_size_is_refused() -> None:
    with pytest.raises(TraceError, match=r"graphc\.scan"):
        graphc.trace(lambda x: [row for row in x], graphc.spec(("n", 2)))  # noqa: C416
