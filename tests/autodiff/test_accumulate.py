"""The sum of cotangents: pieces are laid side by side and scatters chained, instead of adding zeros."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphc import ops
from graphc.autodiff.transforms import vjp
from graphc.ir.graph import Graph, Value, input_value
from graphc.ir.interpret import run
from graphc.ir.types import tensor
from graphc.ops.functions import split
from graphc.testing import check_grad

X = input_value("x", tensor("float64", 4, 6))
POINT = np.random.default_rng(0).standard_normal((4, 6))


def gradient_nodes(outputs: list[Value]) -> Counter[str]:
    """The operations that reverse mode adds to a graph over X, which is checked first."""
    graph = Graph([X], outputs)
    check_grad(graph, POINT, order=2)
    before = set(graph.nodes)
    return Counter(n.op.name for n in vjp(graph).nodes if n not in before and n.op.kind.value != "leaf")


def piece(start: int, stop: int, axis: int = 1, step: int = 1) -> Value:
    starts, stops = [0, 0], [4, 6]
    starts[axis], stops[axis] = start, stop
    return ops.slice(X, starts=tuple(starts), stops=tuple(stops), steps=tuple(step if k == axis else 1 for k in (0, 1)))  # type: ignore[no-any-return]


def test_the_pieces_of_a_split_are_joined() -> None:
    found = gradient_nodes(list(split(X, (1, 2, 3), axis=1)))
    assert found == Counter(concat=1, pad=0)


def test_the_order_of_uses_does_not_matter() -> None:
    a, b, c = split(X, (1, 2, 3), axis=1)
    assert gradient_nodes([ops.sin(c), a, b])["concat"] == 1


def test_a_gap_is_filled_with_zeros_once() -> None:
    assert gradient_nodes([piece(0, 2), piece(4, 6)]) == Counter(concat=1, broadcast_to=1)
    assert gradient_nodes([piece(1, 2), piece(4, 5)]) == Counter(concat=1, broadcast_to=2)


def test_one_piece_alone_is_padded() -> None:
    assert gradient_nodes([piece(1, 3)]) == Counter(pad=1)


@pytest.mark.parametrize("start", [2, 3])
def test_pieces_that_overlap_are_added(start: int) -> None:
    found = gradient_nodes([piece(0, 4), piece(start, 6)])
    assert found == Counter(pad=2, add=1)


def test_overlapping_pieces_join_what_does_not_overlap() -> None:
    found = gradient_nodes([piece(0, 3), piece(3, 6), piece(0, 2), piece(2, 6)])
    assert found == Counter(concat=2, add=1)


def test_pieces_along_different_axes() -> None:
    found = gradient_nodes([piece(0, 3), piece(3, 6), piece(0, 2, axis=0), piece(2, 4, axis=0)])
    assert found == Counter(concat=2, add=1)


def test_a_use_of_the_whole_beside_a_piece() -> None:
    assert gradient_nodes([ops.neg(X), piece(0, 3)]) == Counter(neg=1, pad=1, add=1)


def test_every_other_element_and_the_rest() -> None:
    graph = Graph([X], [piece(0, 6, step=2), piece(1, 6, step=2)])
    check_grad(graph, POINT, order=2)


def test_a_slice_of_everything_is_no_pad() -> None:
    assert gradient_nodes([ops.exp(piece(0, 6))]) == Counter(mul=1)


@pytest.mark.parametrize(
    "look_up",
    [
        lambda indices: ops.gather(X, np.array(indices), axis=0),
        lambda indices: ops.gather_nd(X, np.array(indices)[:, None]),
        lambda indices: ops.gather_elements(X, np.array(indices)[:, None] * np.ones((1, 6), np.int64), axis=0),
    ],
)
def test_lookups_in_one_table_are_scattered_one_into_the_other(look_up: Callable[[list[int]], Any]) -> None:
    graph = Graph([X], [look_up([0, 2, 0]), look_up([3, 3]), look_up([1])])
    check_grad(graph, POINT, order=2)
    names = Counter(node.op.name for node in vjp(graph).nodes)
    assert names["add"] == 0
    assert names["scatter_nd"] + names["scatter_elements"] == 3
    zeros = [n for n in vjp(graph).nodes if n.op.name == "broadcast_to" and n.outputs[0].shape == X.shape]
    assert len(zeros) == 1, "all start from one field of zeros"


def test_a_lookup_is_scattered_into_the_cotangent_of_another_use() -> None:
    found = gradient_nodes([ops.exp(X), ops.gather(X, np.array([1, 1]), axis=0)])
    assert found["add"] == 0
    assert found["scatter_nd"] == 1
    assert found["broadcast_to"] == 0, "no zeros"


def test_lookups_wait_for_the_other_uses() -> None:
    found = gradient_nodes([ops.exp(X), *(ops.gather(X, np.array([k, 0]), axis=0) for k in (1, 2))])
    assert found["scatter_nd"] == 2
    assert found["add"] == found["broadcast_to"] == 0


def test_the_cotangents_of_a_concatenation_are_slices() -> None:
    y = input_value("y", tensor("float64", 4, 2))
    graph = Graph([X, y], [ops.concat(X, y, axis=1)])
    before = set(graph.nodes)
    added = Counter(n.op.name for n in vjp(graph).nodes if n not in before and n.op.kind.value != "leaf")
    assert added == Counter(slice=2)
    g = np.arange(32.0).reshape(4, 8)
    _, gx, gy = run(vjp(graph), POINT, POINT[:, :2], g)
    np.testing.assert_array_equal(gx, g[:, :6])
    np.testing.assert_array_equal(gy, g[:, 6:])
