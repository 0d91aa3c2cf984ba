"""Interning: what makes two nodes one, and what keeps them apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphc import ops
from graphc.ir.dims import fresh_symbol
from graphc.ir.graph import Graph, UnusedNames, Value, constant, input_value, make, remake_bodies, substitute
from graphc.ir.types import tensor
from graphc.ops.spec import Kind, OpSpec

X = input_value("x", tensor("float32", 2, 3))
TAGGED = OpSpec(name="tagged", kind=Kind.ELEMENTWISE, infer=lambda x, *, tag: x)


def test_equal_nodes_are_one() -> None:
    assert ops.add(X, X) == ops.add(X, X)
    assert ops.transpose(X, perm=[1, 0]) == ops.transpose(X, perm=(1, 0))
    assert ops.add(X, X) != ops.mul(X, X)


@pytest.mark.parametrize(
    ("a", "b"), [(1, 1.0), (1, True), ((1,), (1.0,)), ((0, (1,)), (0, (True,))), (0.0, -0.0), ((0.0,), (-0.0,))]
)
def test_attributes_that_python_calls_equal_are_told_apart(a: object, b: object) -> None:
    assert make(TAGGED, X, tag=a) != make(TAGGED, X, tag=b)
    assert make(TAGGED, X, tag=a) == make(TAGGED, X, tag=a)


def test_small_constants_are_equal_by_content_and_keep_it() -> None:
    array = np.arange(3, dtype=np.float32)
    first = constant(array)
    assert first == constant(array.copy())
    array[0] = 7
    assert first.literal is not None
    assert first.literal.tolist() == [0, 1, 2]
    assert first != constant(array)


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (lambda v: v + v, r"no operator \+: write ops\.add\(x, y\)"),
        (lambda v: 2 * v, r"write ops\.mul"),
        (lambda v: v > v, r"write ops\.gt"),
        (lambda v: v / 2.0, r"write ops\.div"),
        (lambda v: np.ones(3) * v, r"write ops\.mul"),
        (lambda v: -v, r"write ops\.neg\(x\)"),
        (lambda v: v @ v, r"write ops\.dot"),
    ],
)
def test_a_value_has_no_operators_of_a_tuple(operator: Callable[[Value], object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        operator(input_value("x", tensor("float32", 3)))


def test_claimed_types_hold_where_inference_agrees() -> None:
    body = Graph([X], [ops.neg(X)])
    (fused,) = make(ops.fusion, X, body=Graph([X], [ops.exp(X)]))
    for claim in (tensor("int64", 7),), (tensor("float32", 2, fresh_symbol()),), ():
        (made,) = remake_bodies(fused.node, (X,), {"body": body}, claim)
        assert made.type == X.type, f"claimed as {claim}"

    go, stop = (input_value(name, tensor("bool")) for name in ("go", "stop"))
    i = input_value("i", tensor("int64"))
    shown = make(ops.loop, constant(4), go, X, body=Graph([i, stop, X], [stop, ops.neg(X), X]), carries=1)
    turns = tensor("float32", fresh_symbol(), 2, 3)
    body = Graph([i, stop, X], [stop, ops.exp(X), X])
    again = remake_bodies(shown[0].node, shown[0].node.inputs, {"body": body}, (X.type, turns))
    assert again[1].type == turns, "a size that only the run can tell keeps the name that it is given"


def test_substitute_replaces_one_result_of_several() -> None:
    top, where = make(ops.fusion, X, body=Graph([X], [ops.exp(X), ops.neg(X)]))
    y = input_value("y", X.type)
    kept = ops.sin(X)
    outputs = [ops.add(where, top), top, kept]
    assert substitute(outputs, {top: y}) == [ops.add(where, y), y, kept]
    again = make(ops.fusion, y, body=top.node.attrs["body"])
    assert substitute(outputs, {X: y, top: X}) == [ops.add(again[1], X), X, ops.sin(y)]


def test_unused_names_are_unlike_each_other() -> None:
    unused = UnusedNames(["x", "x_"])
    assert [unused("x"), unused("x"), unused("y")] == ["x__", "x___", "y"]
