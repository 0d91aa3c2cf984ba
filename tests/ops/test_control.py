"""Control flow: symbolic carries, conditions, and bodies that do not fit."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import ops
from graphc.errors import GraphTypeError
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph, Value, constant, input_value
from graphc.ir.interpret import run
from graphc.ir.types import SequenceType, Type, tensor
from graphc.ir.verify import verify
from graphc.ops.control import trip_length

I, GO = input_value("i", tensor("int64")), input_value("go", tensor("bool"))
TRUE = constant(np.True_)


def growing_loop() -> Graph:
    """A carried vector that gets one element longer each turn; its extents are stacked."""
    v = input_value("v", tensor("float32", Dim("m")))
    longer = ops.concat(v, ops.reshape(ops.cast(I, dtype=v.dtype), shape=(1,)), axis=0)
    body = Graph([I, GO, v], [GO, longer, ops.shape_of(longer)])
    trips, start = input_value("trips", tensor("int64")), input_value("start", tensor("float32", 2))
    return Graph([trips, start], ops.loop(trips, TRUE, start, body=body, carries=1))


def test_a_carried_value_may_grow() -> None:
    graph = growing_loop()
    verify(graph)
    last, lengths = run(graph, np.int64(3), np.float32([7, 8]))
    np.testing.assert_array_equal(last, [7, 8, 0, 1, 2])
    np.testing.assert_array_equal(lengths, [[3], [4], [5]])
    assert all(isinstance(d, Dim) for d in (graph.outputs[0].shape[0], graph.outputs[1].shape[0]))


def test_a_loop_that_never_runs_gives_its_initial_value() -> None:
    last, lengths = run(growing_loop(), np.int64(0), np.float32([7, 8]))
    np.testing.assert_array_equal(last, [7, 8])
    assert lengths.shape == (0, 1)


def test_sequences_are_carried() -> None:
    x = tensor("float32", 2)
    seq = input_value("seq", SequenceType(x))
    body = Graph([I, GO, seq], [GO, ops.sequence_insert(seq, constant(np.float32([1, 2])))])
    start = ops.sequence_empty(element=x)
    out = ops.loop(constant(np.int64(3)), TRUE, start, body=body, carries=1)
    (length,) = run(Graph([], [ops.sequence_length(out)]))
    assert length == 3


def test_trip_length() -> None:
    body = Graph([I, GO], [TRUE])
    assert trip_length(constant(np.int64(4)), TRUE, body) == 4
    assert trip_length(constant(np.int64(-1)), TRUE, body) == 0
    assert trip_length(input_value("n", tensor("int64")), TRUE, body) is None
    assert trip_length(constant(np.int64(4)), TRUE, Graph([I, GO], [GO])) is None


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_walks_and_stacks_in_its_direction(reverse: bool) -> None:
    h, x = (input_value(n, tensor("int64")) for n in "hx")
    body = Graph([h, x], [ops.add(ops.mul(h, 10), x), h])
    rows = input_value("rows", tensor("int64", 3))
    outs = ops.scan(constant(np.int64(9)), rows, body=body, carries=1, scanned=1, reverse=reverse)
    last, before = run(Graph([rows], outs), np.array([1, 2, 3]))
    assert last == (9321 if reverse else 9123)
    assert before.tolist() == ([932, 93, 9] if reverse else [9, 91, 912])


def _body(result: Value, *inputs: Value) -> Graph:
    return Graph(inputs, [result])


def test_branches_of_different_extents_give_a_symbol() -> None:
    x = input_value("x", tensor("float32", 4))
    flag = input_value("flag", tensor("bool"))
    short = ops.slice(x, starts=(0,), stops=(2,), steps=(1,))
    y = ops.if_(flag, x, then_body=_body(x, x), else_body=_body(short, x))
    assert isinstance(y.shape[0], Dim)
    graph = Graph([flag, x], [y])
    verify(graph)
    for value, extent in ((True, 4), (False, 2)):
        assert run(graph, np.bool_(value), np.arange(4, dtype=np.float32))[0].shape == (extent,)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(tensor("float64", 4), "passed"), (tensor("float32", 5), "passed"), (tensor("float32", 4, 1), "passed")],
)
def test_operands_that_do_not_fit_a_body_are_refused(wrong: Type, message: str) -> None:
    x = input_value("x", tensor("float32", 4))
    flag = input_value("flag", tensor("bool"))
    bodies = {"then_body": _body(x, x), "else_body": _body(x, x)}
    with pytest.raises(GraphTypeError, match=message):
        ops.if_(flag, input_value("y", wrong), **bodies)


def test_conditions_and_results_are_checked() -> None:
    x = input_value("x", tensor("float32", 4))
    flag = input_value("flag", tensor("bool"))
    half = ops.slice(x, starts=(0,), stops=(2,), steps=(1,))
    with pytest.raises(GraphTypeError, match="condition"):
        ops.if_(x, x, then_body=_body(x, x), else_body=_body(x, x))
    with pytest.raises(GraphTypeError, match="no type in common"):
        ops.if_(flag, x, then_body=_body(x, x), else_body=_body(ops.shape_of(x), x))
    with pytest.raises(GraphTypeError, match="carried value 0"):
        ops.loop(constant(np.int64(2)), TRUE, x, body=Graph([I, GO, x], [GO, half]), carries=1)
    rows = [input_value(f"r{n}", tensor("float32", n, 4)) for n in (3, 2)]
    a, b = (input_value(n, tensor("float32", 4)) for n in "ab")
    with pytest.raises(GraphTypeError, match="turns"):
        ops.scan(*rows, body=Graph([a, b], [ops.add(a, b)]), carries=0, scanned=2)
