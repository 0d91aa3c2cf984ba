"""The interpreters: what they are given is checked, and a wrong expression is found."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from graphc import ops
from graphc.errors import GraphcError, InputError
from graphc.ir import scalar as s
from graphc.ir.dims import Dim, Symbol
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Node, input_value
from graphc.ir.interpret import evaluate, run
from graphc.ir.types import tensor

N = Dim(Symbol("n", lower=1, upper=8))
X = input_value("x", tensor("float32", N, 3))
F32 = X.dtype


def test_wrong_inputs_are_named() -> None:
    graph = Graph([X], [ops.neg(X)])
    wrong = [np.ones((2, 3)), np.ones((2, 4), np.float32), np.ones(3, np.float32), np.ones((9, 3), np.float32)]
    for array in wrong:
        with pytest.raises(InputError, match=r"'x': expected float32\[n, 3\]"):
            run(graph, array)
    with pytest.raises(InputError, match="takes 1 inputs"):
        run(graph)


def test_one_symbol_has_one_value() -> None:
    y = input_value("y", tensor("float32", N))
    with pytest.raises(InputError, match="'y'"):
        run(Graph([X, y], [X]), np.ones((2, 3), np.float32), np.ones(3, np.float32))


def test_a_graph_that_is_not_closed_is_refused() -> None:
    with pytest.raises(GraphcError, match="not closed"):
        run(Graph([], [ops.neg(X)]))


def test_an_output_that_is_not_closed_is_refused() -> None:
    with pytest.raises(GraphcError, match="not closed"):
        run(Graph([], [X]))


def test_a_node_waits_for_a_size_that_another_node_gives() -> None:
    x, flags = input_value("v", tensor("float32", 1)), input_value("flags", tensor("bool", 4))
    chosen = ops.nonzero(flags)
    spread = ops.broadcast_to(x, shape=(chosen.shape[1],))
    (result, _) = run(Graph([x, flags], [spread, chosen]), np.float32([5]), np.array([True, False, True, True]))
    np.testing.assert_array_equal(result, [5, 5, 5])
    with pytest.raises(GraphcError, match="which nothing gives"):
        run(Graph([x], [spread]), np.float32([5]))


def test_a_promise_of_inference_that_the_reference_breaks_is_found() -> None:
    class Wrong:
        name = "wrong"
        reference = staticmethod(lambda x: x.astype(np.float64))

    node = Node(Wrong, (X,), {}, (X.type,))  # type: ignore[arg-type]
    with pytest.raises(GraphcError, match=r"gave float64.* promised float32"):
        run(Graph([X], node.outputs), np.ones((2, 3), np.float32))


def test_hooks_see_every_node_and_values_are_let_go() -> None:
    seen: list[str] = []
    y = ops.exp(ops.neg(X))
    run(Graph([X], [y]), np.ones((2, 3), np.float32), on_node=lambda node, ins, outs: seen.append(node.op.name))
    assert seen == ["neg", "exp"]


def test_a_read_outside_the_buffer_is_an_error_unless_it_is_not_taken() -> None:
    i = s.index(0)
    outside = s.load(0, i - 1, F32)
    with pytest.raises(IndexError, match="outside"):
        evaluate(outside, indices=[np.arange(3)], buffers=[np.ones(3, np.float32)])
    guarded = s.select(i >= 1, outside, s.const(5.0, F32))
    found = evaluate(guarded, indices=[np.arange(3)], buffers=[np.float32([1, 2, 3])])
    np.testing.assert_array_equal(found, [5, 1, 2])


def test_narrow_floats_are_rounded_once() -> None:
    bf16 = dtype_of("bfloat16")
    x = s.load(0, s.index(0), bf16)
    step = x * s.const(2.0**-9, bf16)
    found = evaluate(x + step + step + step, indices=[np.arange(1)], buffers=[np.ones(1, ml_dtypes.bfloat16)])
    assert found.dtype == ml_dtypes.bfloat16
    # each step alone would round back to 1; in float32 they add up to more than half a unit in the last place
    assert float(found[0]) == 1 + 2**-7


def test_integers_wrap_around() -> None:
    i8 = dtype_of("int8")
    a, b = s.load(0, 0, i8), s.load(1, 0, i8)
    buffers = [np.array([127], np.int8), np.array([2], np.int8)]
    assert int(evaluate(a + b, buffers=buffers)) == -127
    assert int(evaluate(a * b, buffers=buffers)) == -2
    assert int(evaluate(s.scalar("div", a, s.const(0, i8)), buffers=buffers)) == 0


def test_parameters_and_earlier_results() -> None:
    e = s.param(1) * 2 + s.cast(s.temp(0, F32), "int64")
    assert int(evaluate(e, params=[5, 7], temps={0: np.float32(3.0)})) == 17


def test_every_scalar_operation_is_known_to_evaluate() -> None:
    x, flag = s.const(0.5, F32), s.scalar("gt", s.const(1.0, F32), s.const(0.5, F32))
    whole = s.const(2, dtype_of("int32"))
    made = [s._make(name, (x,), F32, None) for name in s._UNARY - {"not"}]  # not simplified away
    made += [s._make(name, (x, x), F32, None) for name in s._ARITHMETIC]
    made += [s._make(name, (whole, whole), whole.dtype, None) for name in s._LOGIC]
    made += [s._make("not", (whole,), whole.dtype, None)]
    made += [s._make(name, (x, x), flag.dtype, None) for name in s.COMPARISONS]
    made += [s._make(name, (x,), flag.dtype, None) for name in s._PREDICATES]
    made += [s._make(name, (flag, x, s.const(3.0, F32)), F32, None) for name in ("select", "choose")]
    made += [s.bitcast(x, "int32"), s.cast(x, "int32")]
    for e in made:
        evaluate(e)
    assert evaluate(s.choose(flag, x, s.const(3.0, F32))) == 0.5
    assert evaluate(s.bitcast(x, "int32")) == np.float32(0.5).view(np.int32)


def test_both_sides_of_a_choice_must_be_right() -> None:
    """As a target may evaluate them; of a selection only the chosen one."""
    flag = s.scalar("gt", s.const(1.0, F32), s.const(0.5, F32))
    outside = s.load(0, s.const(7, dtype_of("int64")), F32)
    buffers = [np.zeros(3, np.float32)]
    assert evaluate(s._make("select", (flag, s.const(2.0, F32), outside), F32, None), buffers=buffers) == 2
    with pytest.raises(IndexError):
        evaluate(s._make("choose", (flag, s.const(2.0, F32), outside), F32, None), buffers=buffers)
