"""Binding symbolic sizes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from graphc import ops
from graphc.errors import GraphTypeError
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph, input_value, location
from graphc.ir.types import tensor
from graphc.passes.specialise import specialise

n, m = Dim("n"), Dim("m")
x = input_value("x", tensor("float32", n, 3))
y = input_value("y", tensor("float32", m, 3))


def test_types_attributes_and_bodies_become_numbers() -> None:
    flat = ops.reshape(x, shape=(3 * n,))
    body = Graph([input_value("v", tensor("float32", 3 * n))], [ops.exp(input_value("v", tensor("float32", 3 * n)))])
    graph = Graph([x], [ops.fusion(flat, body=body)])
    small = specialise(graph, {"n": 4})
    assert str(small) == (
        "graph(%x: float32[4, 3]) {\n"
        "  %0 = reshape(%x, shape=(12,)) : float32[12]\n"
        "  %1 = fusion(%0, body=graph(%v: float32[12]) {\n"
        "    %0 = exp(%v) : float32[12]\n"
        '    return %0 as "out0"\n'
        "  }) : float32[12]\n"
        '  return %1 as "out0"\n'
        "}\n"
    )


def test_what_has_no_such_symbol_stays_the_same_object() -> None:
    graph = Graph([x], [ops.exp(x)])
    assert specialise(graph, {"k": 4}) is graph
    assert specialise(graph, {}) is graph


def test_some_symbols_now_and_others_later(agree: Callable[..., None]) -> None:
    graph = Graph([x, y], [ops.concat(x, y, axis=0)])
    half = specialise(graph, {"n": 2})
    assert str(half.outputs[0].type) == "float32[m+2, 3]"
    agree(specialise(graph, {"n": 2, "m": 5}), specialise(half, {"m": 5}))


def test_sizes_that_do_not_fit_name_the_place() -> None:
    with location("join"):
        graph = Graph([x, y], [ops.add(ops.reshape(x, shape=(3, n)), ops.reshape(y, shape=(3, n)))])
    with pytest.raises(GraphTypeError, match="join"):
        specialise(graph, {"n": 2, "m": 5})
