"""Gradients through loops and branches: against the same programs written out, and against finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from loops import arguments_for, count, lstm, unrolled

import graphc
from graphc import ops
from graphc.autodiff.reverse import pullback
from graphc.autodiff.transforms import grad, hessian_vector_product, jvp, value_and_grad, vjp
from graphc.errors import NotDifferentiableError
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph, Node, Value, constant, input_value
from graphc.ir.interpret import run
from graphc.ir.types import tensor
from graphc.ir.verify import verify
from graphc.passes.calls import expand_calls
from graphc.passes.decompose import decompose
from graphc.testing import check_grad

F64, I64, BOOL = "float64", "int64", "bool"


def assert_equal(a: Graph, b: Graph, arguments: list[Any], atol: float = 1e-12) -> None:
    """Both graphs give the same results; the first is sound."""
    verify(a)
    for x, y, name in zip(run(a, *arguments), run(b, *arguments), a.output_names, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=atol, err_msg=name)


def scans(graph: Graph) -> list[Node]:
    return [n for n in graph.nodes if n.op.name == "scan"]


# ---------------------------------------------------------------------------------------------------------------- scan

WAYS: list[dict[str, Any]] = [
    {},
    {"reverse": True},
    {"save": "carries"},
    {"checkpoint": 3},
    {"checkpoint": 3, "reverse": True},
    {"checkpoint": 7},
    {"checkpoint": 2, "save": "carries"},
]


@pytest.mark.parametrize("attrs", WAYS, ids=str)
@pytest.mark.parametrize("turns", [1, 6, 7])
def test_backpropagation_through_time_is_that_of_the_unrolled_loop(attrs: dict[str, Any], turns: int) -> None:
    graph = lstm(turns, **attrs)
    assert_equal(value_and_grad(graph), value_and_grad(unrolled(graph)), arguments_for(graph))


@pytest.mark.parametrize("transform", [value_and_grad, hessian_vector_product])
@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_recurrent_layers_are_differentiated_as_their_steps_written_out(name: str, transform: Any) -> None:
    hidden, states = 3, 2 if name == "lstm" else 1
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[name] * hidden
    xs, r = input_value("xs", tensor(F64, 5, 2, gates)), input_value("r", tensor(F64, gates, hidden))
    start = [input_value(f"h{k}", tensor(F64, 2, hidden)) for k in range(states)]
    ys, last, *_ = ops.REGISTRY[name](xs, r, *start)
    loss = ops.add(ops.reduce_sum(ops.sin(ys), axes=(0, 1, 2)), ops.reduce_sum(ops.mul(last, last), axes=(0, 1)))
    graph = Graph([xs, r, *start], [loss])
    written_out = unrolled(decompose(graph))
    assert count(written_out, "scan") == count(written_out, name) == 0
    assert_equal(transform(graph), transform(written_out), arguments_for(transform(graph)))


@pytest.mark.parametrize("attrs", WAYS[:4], ids=str)
@pytest.mark.parametrize("transform", [jvp, hessian_vector_product])
def test_forward_mode_and_second_order_are_those_of_the_unrolled_loop(transform: Any, attrs: dict[str, Any]) -> None:
    graph = lstm(5, **attrs)
    arguments = arguments_for(transform(graph))
    assert_equal(transform(graph), transform(unrolled(graph)), arguments)


@pytest.mark.parametrize("attrs", WAYS[:5], ids=str)
def test_a_loop_of_no_turns_hands_its_cotangent_through(attrs: dict[str, Any]) -> None:
    graph = lstm(0, **attrs)
    arguments = arguments_for(graph)
    _, xs, h, c, *held = run(value_and_grad(graph), *arguments)
    assert xs.shape == (0, 2, 3)
    np.testing.assert_array_equal(h, arguments[2])
    np.testing.assert_array_equal(c, arguments[1])
    assert not any(g.any() for g in held)


@pytest.mark.parametrize("attrs", WAYS[:5], ids=str)
def test_the_number_of_turns_may_be_open(attrs: dict[str, Any]) -> None:
    graph, known = lstm(Dim("T"), **attrs), lstm(8, **attrs)
    assert_equal(value_and_grad(graph), value_and_grad(known), arguments_for(known))


def test_graphs_do_not_grow_with_the_turns() -> None:
    def size(turns: int, **attrs: Any) -> int:
        graph = hessian_vector_product(lstm(turns, **attrs))
        return len(graph.nodes) + sum(len(b.nodes) for n in graph.nodes for b in n.bodies)

    assert size(3) == size(1000)
    assert size(9, checkpoint=4) == size(1001, checkpoint=4)


def test_no_loop_runs_twice() -> None:
    """One loop forwards and one backwards, however many of its results are differentiated."""
    for attrs in WAYS[:3]:
        assert len(scans(value_and_grad(lstm(7, **attrs)))) == 2
    assert len(scans(value_and_grad(lstm(7, checkpoint=3)))) == 4  # and a rest, each way
    assert len(scans(value_and_grad(lstm(6, checkpoint=3)))) == 2
    # forwards, backwards, and their tangents
    assert len(scans(hessian_vector_product(lstm(7)))) == 4


def test_no_loop_in_a_loop_runs_twice() -> None:
    y, w = input_value("y", tensor(F64, 2)), input_value("w", tensor(F64, 2))
    inner = Graph([y, w], [ops.mul(ops.sin(y), w)])
    turn = Graph([y, w], [ops.scan(y, w, body=inner, carries=1, scanned=0, length=3)])
    last = ops.scan(y, w, body=turn, carries=1, scanned=0, length=4)
    graph = value_and_grad(Graph([y, w], [ops.reduce_sum(last, axes=(0,))]))
    assert count(graph, "scan") == 4


def test_gradients_of_traces_are_merged_when_they_are_compiled() -> None:
    graph = lstm(7)
    pulled = pullback(graph.outputs, [constant(np.ones(()))], graph.inputs[3:])
    both = Graph(graph.inputs, (*graph.outputs, *(g for g in pulled if g is not None)))
    assert count(both, "scan") == 3
    assert count(expand_calls(both), "scan") == 2


def test_only_carries_are_kept_of_segments() -> None:
    graph = value_and_grad(lstm(12, checkpoint=3))
    stacks = {v.shape for v in scans(graph)[0].outputs}
    assert stacks == {(2, 4), (4, 3, 2, 4), (4, 2, 4)}  # last state, the results, the carries of four segments


def test_sums_over_turns_are_one_product_after_the_loop() -> None:
    backward = scans(value_and_grad(lstm(7)))[1]
    carried = [v.type for v in backward.outputs[: backward.attrs["carries"]]]
    assert tensor(F64, 3, 16) not in carried
    assert tensor(F64, 4, 16) not in carried


def test_what_is_not_asked_for_is_not_carried() -> None:
    graph = lstm(7)
    (_, backward) = scans(grad(graph, wrt="W"))
    assert backward.attrs["carries"] == 2
    graph = Graph(graph.inputs, [ops.reduce_sum(scans(graph)[0].outputs[2], axes=(0, 1, 2))])
    assert not any(v.type == tensor(F64, 7, 2, 3) for n in scans(grad(graph, wrt="U")) for v in n.outputs)


def counting(turns: int = 5, **attrs: Any) -> Graph:
    """y <- y * x[i] + i with an integer counter among the carries, an index among the slices, and integer results."""
    y, i = input_value("y", tensor(F64)), input_value("i", tensor(I64))
    k, xs = input_value("k", tensor(I64)), input_value("xs", tensor(F64, turns))
    x = ops.gather(xs, k, axis=0)
    new = ops.add(ops.mul(y, ops.sin(x)), ops.cast(i, dtype=y.dtype))
    body = Graph([y, i, k, xs], [new, ops.add(i, 1), ops.mul(i, k), ops.mul(new, x)])
    start, rows = input_value("start", tensor(F64)), input_value("rows", tensor(F64, turns))
    which = constant(np.arange(turns)[::-1].copy())
    last, _, _, ys = ops.scan(start, constant(np.int64(1)), which, rows, body=body, carries=2, scanned=1, **attrs)
    return Graph([start, rows], [ops.add(last, ops.reduce_sum(ops.mul(ys, ys), axes=(0,)))])


@pytest.mark.parametrize("attrs", WAYS[:4], ids=str)
def test_carries_of_several_types(attrs: dict[str, Any]) -> None:
    graph = counting(**attrs)
    assert_equal(value_and_grad(graph), value_and_grad(unrolled(graph)), arguments_for(graph))
    check_grad(graph, *arguments_for(graph), order=2)


def test_a_carry_that_reaches_the_result_through_another() -> None:
    """a does not reach the result itself: its cotangent begins as none and comes by way of b, one turn later."""
    a, b, c = (input_value(n, tensor(F64)) for n in "abc")
    body = Graph([a, b, c], [ops.sin(a), ops.mul(ops.add(b, a), 0.5), c])
    start = [input_value(n, tensor(F64)) for n in ("a0", "b0", "c0")]
    graph = Graph(start, [ops.scan(*start, body=body, carries=3, scanned=0, length=4)[1]])
    check_grad(graph, 0.3, 0.7, 0.1, wrt=["a0", "b0"], order=2)
    (backward,) = (n for n in scans(grad(graph, wrt=["a0", "b0"])) if n.attrs.get("reverse"))
    assert backward.attrs["carries"] == 2
    # with respect to b alone, a and c are only values
    (alone,) = (n for n in scans(grad(graph, wrt="b0")) if n.attrs.get("reverse"))
    assert alone.attrs["carries"] == 1


def test_a_carry_that_changes_its_extents_is_refused() -> None:
    v = input_value("v", tensor(F64, Dim("m")))
    start = input_value("start", tensor(F64, 2))
    longer = ops.concat(v, constant(np.ones(1)), axis=0)
    i, go = input_value("i", tensor(I64)), input_value("go", tensor(BOOL))
    made = ops.loop(constant(np.int64(3)), constant(np.True_), start, body=Graph([i, go, v], [go, longer]), carries=1)
    with pytest.raises(NotDifferentiableError, match="before a turn and"):
        grad(Graph([start], [ops.reduce_sum(made, axes=(0,))]))


# ------------------------------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("checkpoint", [0, 2])
def test_truncated_backpropagation_is_that_of_its_window(reverse: bool, checkpoint: int) -> None:
    """Of the last window's turns it is the gradient of a loop over them that begins with the state they begin with."""
    turns, window = 7, 3
    graph = lstm(turns, window=window, reverse=reverse, checkpoint=checkpoint)
    graph = Graph(graph.inputs, [ops.reduce_sum(scans(graph)[0].outputs[0], axes=(0, 1))])
    arguments = arguments_for(graph)
    xs, h, c, *held = arguments
    value, g_xs, g_h, g_c, *g_held = run(value_and_grad(graph), *arguments)

    begin = turns // window * window
    early, late = (xs[turns - begin :], xs[: turns - begin]) if reverse else (xs[:begin], xs[begin:])
    before = lstm(begin, reverse=reverse)
    state = run(Graph(before.inputs, scans(before)[0].outputs[:2]), early, h, c, *held)
    last = lstm(turns - begin, reverse=reverse)
    last = Graph(last.inputs, [ops.reduce_sum(scans(last)[0].outputs[0], axes=(0, 1))])
    expected, w_xs, _, _, *w_held = run(value_and_grad(last), late, *state, *held)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    for x, y in zip(g_held, w_held, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)
    inside = g_xs[: turns - begin] if reverse else g_xs[begin:]
    np.testing.assert_allclose(inside, w_xs, rtol=1e-12, atol=1e-12)
    assert not np.any(g_xs[turns - begin :] if reverse else g_xs[:begin])
    assert not g_h.any()
    assert not g_c.any()


def test_a_window_over_everything_truncates_nothing() -> None:
    graph = lstm(5, window=5)
    assert_equal(value_and_grad(graph), value_and_grad(lstm(5)), arguments_for(graph))


# ---------------------------------------------------------------------------------------------------------------- loop


def powers(trips: Value, length: int | None = None, *, limit: float = np.inf) -> Graph:
    """y <- sin(y) * w + i while y's sum stays below a limit; every y is stacked."""
    i, go = input_value("i", tensor(I64)), input_value("go", tensor(BOOL))
    y, w = input_value("y", tensor(F64, 3)), input_value("w", tensor(F64, 3))
    new = ops.add(ops.mul(ops.sin(y), w), ops.cast(i, dtype=y.dtype))
    on = ops.lt(ops.reduce_sum(new, axes=(0,)), limit) if limit < np.inf else constant(np.True_)
    body = Graph([i, go, y, w], [on, new, new])
    start, weight = input_value("start", tensor(F64, 3)), input_value("weight", tensor(F64, 3))
    attrs = {} if length is None else {"length": length}
    last, ys = ops.loop(trips, constant(np.True_), start, weight, body=body, carries=1, **attrs)
    loss = ops.add(ops.reduce_sum(ops.mul(last, last), axes=(0,)), ops.reduce_sum(ops.cos(ys), axes=(0, 1)))
    inputs = [start, weight] if trips.literal is not None else [start, weight, trips]
    return Graph(inputs, [loss])


def stepwise(turns: int) -> Graph:
    start, weight = input_value("start", tensor(F64, 3)), input_value("weight", tensor(F64, 3))
    y, stacked = start, []
    for i in range(turns):
        y = ops.add(ops.mul(ops.sin(y), weight), float(i))
        stacked.append(ops.reduce_sum(ops.cos(y), axes=(0,)))
    unread = ops.mul(ops.reduce_sum(ops.mul(weight, weight), axes=(0,)), 0.0)  # no turn reads the weight
    loss = ops.add(ops.reduce_sum(ops.mul(y, y), axes=(0,)), unread)
    for s in stacked:
        loss = ops.add(loss, s)
    return Graph([start, weight], [loss])


@pytest.mark.parametrize("transform", [value_and_grad, hessian_vector_product])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("turns", [0, 1, 5])
def test_a_loop_is_differentiated_over_the_turns_it_takes(transform: Any, known: bool, turns: int) -> None:
    trips = constant(np.int64(turns)) if known else input_value("trips", tensor(I64))
    graph = transform(powers(trips, turns if known else None))
    expected = transform(stepwise(turns))
    arguments = arguments_for(expected)
    verify(graph)
    given = dict(zip(expected.input_names, arguments, strict=True)) | {"trips": np.int64(turns)}
    for x, y in zip(run(graph, *(given[n] for n in graph.input_names)), run(expected, *arguments), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)


def test_a_loop_that_ends_by_itself() -> None:
    graph = powers(constant(np.int64(100)), limit=9.0)
    arguments = [np.array([0.1, 0.2, 0.3]), np.array([0.5, 1.0, 0.7])]
    assert_equal(value_and_grad(graph), value_and_grad(stepwise(4)), arguments)


def test_a_loop_of_unknown_length_runs_once() -> None:
    graph = value_and_grad(powers(input_value("trips", tensor(I64))))
    assert count(graph, "loop") == 1
    graph = hessian_vector_product(powers(input_value("trips", tensor(I64))))
    assert count(graph, "loop") == 1


# ----------------------------------------------------------------------------------------------------------------- if_


def branches() -> Graph:
    """sin(x) * y or x: the second result of one branch is constant, and y is read by one branch only."""
    x, y = (input_value(n, tensor(F64, 3)) for n in "xy")
    flag = input_value("flag", tensor(BOOL))
    one = constant(np.ones(3))
    then, other = Graph([x, y], [ops.mul(ops.sin(x), y), one]), Graph([x, y], [x, ops.exp(x)])
    a, b = ops.if_(flag, x, y, then_body=then, else_body=other)
    return Graph([flag, x, y], [ops.reduce_sum(ops.add(ops.mul(a, a), b), axes=(0,))])


@pytest.mark.parametrize("flag", [True, False])
def test_a_branch_sends_back_what_was_taken(flag: bool) -> None:
    x, y = np.array([0.1, 0.2, 0.3]), np.array([0.5, 1.0, 0.7])
    _, g_x, g_y = run(value_and_grad(branches()), np.bool_(flag), x, y)
    np.testing.assert_allclose(g_x, np.sin(2 * x) * y * y if flag else 2 * x + np.exp(x), rtol=1e-12)
    np.testing.assert_allclose(g_y, 2 * np.sin(x) ** 2 * y if flag else np.zeros(3), rtol=1e-12)
    check_grad(branches(), np.bool_(flag), x, y, order=2)


def test_a_result_that_nobody_differentiates_is_pruned() -> None:
    graph = branches()
    (node,) = (n for n in graph.nodes if n.op.name == "if_")
    only = Graph(graph.inputs, [ops.reduce_sum(node.outputs[1], axes=(0,))])
    (backward,) = (n for n in grad(only, wrt="x").nodes if n.op.name == "if_")
    assert len(backward.outputs) == 1
    # y does not reach this result in any branch
    assert run(vjp(only, wrt=["y"]), np.bool_(True), np.ones(3), np.ones(3), 1.0)[1].tolist() == [0, 0, 0]


def nested(**attrs: Any) -> Graph:
    """A scan whose turn takes a branch that holds a scan."""
    y, x, w = (input_value(n, tensor(F64, 2)) for n in ("y", "x", "w"))
    inner = Graph([y, w], [ops.add(ops.mul(ops.sin(y), w), 0.1), ops.mul(y, y)])
    last, squares = ops.scan(y, w, body=inner, carries=1, scanned=0, length=3, **attrs)
    then = Graph([y, x, w], [ops.add(last, ops.mul(ops.reduce_sum(squares, axes=(0,)), x))])
    other = Graph([y, x, w], [ops.mul(y, x)])
    positive = ops.gt(ops.reduce_sum(x, axes=(0,)), 0.0)
    body = Graph([y, x, w], [(new := ops.if_(positive, y, x, w, then_body=then, else_body=other)), new])
    start, rows, weight = (input_value(n, tensor(F64, *s)) for n, s in (("y0", (2,)), ("xs", (4, 2)), ("w0", (2,))))
    last, ys = ops.scan(start, rows, weight, body=body, carries=1, scanned=1, **attrs)
    loss = ops.add(ops.reduce_sum(last, axes=(0,)), ops.reduce_sum(ops.sin(ys), axes=(0, 1)))
    return Graph([start, rows, weight], [loss])


ROWS = np.array([[0.5, 0.2], [-0.4, -0.3], [0.9, -0.2], [0.3, 0.6]])


@pytest.mark.parametrize("attrs", [{}, {"save": "carries"}, {"checkpoint": 2}], ids=str)
def test_a_scan_in_a_branch_in_a_scan(attrs: dict[str, Any]) -> None:
    check_grad(nested(**attrs), np.array([0.3, -0.8]), ROWS, np.array([0.9, 1.2]), order=2)


# ------------------------------------------------------------------------------------------------- functions kept whole


def layers(remat: bool, depth: int = 3) -> Graph:
    """Several layers, each kept whole."""
    x, w = input_value("x", tensor(F64, 2, 4)), input_value("w", tensor(F64, 4, 4))
    h, m = input_value("h", tensor(F64, 2, 4)), input_value("m", tensor(F64, 4, 4))
    body = Graph([h, m], [ops.tanh(ops.dot(ops.sin(h), m))])
    y = x
    for _ in range(depth):
        y = ops.call(y, w, body=body, remat=remat)
    return Graph([x, w], [ops.reduce_sum(ops.mul(y, y), axes=(0, 1))])


@pytest.mark.parametrize("transform", [value_and_grad, jvp, hessian_vector_product])
def test_recomputation_changes_no_number(transform: Any) -> None:
    a, b = transform(layers(True)), transform(layers(False))
    assert_equal(a, b, arguments_for(a))


def test_recomputation_waits_for_the_cotangent() -> None:
    plain, again = (expand_calls(value_and_grad(layers(remat))) for remat in (False, True))
    assert count(plain, "after") == 0
    assert count(plain, "sin") == 3
    assert count(again, "sin") == 6
    assert all(len(n.inputs) == 2 for n in again.nodes if n.op.name == "after")


def doubled(factor: float) -> Graph:
    """A function whose own gradient says that its derivative is `factor`, whatever it computes."""
    x, r, g = (input_value(n, tensor(F64, 3)) for n in ("x", "r", "g"))
    x0 = input_value("x0", tensor(F64, 3))
    y = ops.custom_vjp(
        x0,
        body=Graph([x], [ops.sin(x)]),
        forward=Graph([x], [ops.sin(x), x]),
        backward=Graph([r, g], [ops.mul(ops.mul(g, r), factor)]),
        arguments=1,
    )
    return Graph([x0], [ops.reduce_sum(ops.mul(y, y), axes=(0,))])


def test_a_function_with_a_gradient_of_its_own() -> None:
    x = np.array([0.1, 0.2, 0.3])
    (g,) = run(grad(doubled(7.0)), x)
    np.testing.assert_allclose(g, 2 * np.sin(x) * x * 7.0)


def test_what_a_function_reads_around_it_must_be_an_argument() -> None:
    x, r, g, w = (input_value(n, tensor(F64)) for n in "xrgw")
    body = Graph([x, w], [ops.mul(x, w)])
    forward, backward = Graph([x, w], [ops.mul(x, w), w]), Graph([r, g], [ops.mul(g, r)])
    y = ops.custom_vjp(x, w, body=body, forward=forward, backward=backward, arguments=1)
    assert run(grad(Graph([x, w], [y]), wrt="x"), 2.0, 3.0)[0] == 3.0
    with pytest.raises(NotDifferentiableError, match="hand it over as an argument"):
        grad(Graph([x, w], [y]), wrt="w")


# -------------------------------------------------------------------------------------------------------------- native


@pytest.mark.parametrize(
    "graph",
    [
        value_and_grad(lstm(5)),
        value_and_grad(lstm(5, checkpoint=2)),
        value_and_grad(lstm(6, window=2, reverse=True)),
        value_and_grad(counting()),
        value_and_grad(layers(True)),
        hessian_vector_product(lstm(3)),
        value_and_grad(powers(constant(np.int64(4)), 4)),
    ],
    ids=["lstm", "checkpoint", "window", "counting", "remat", "second order", "loop"],
)
def test_gradients_run_as_one_native_program(graph: Graph) -> None:
    arguments = arguments_for(graph)
    compiled = graphc.compile(graph)
    for x, y in zip(compiled(*arguments), run(graph, *arguments), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12)
    specialisation = compiled.prepare()
    assert len(specialisation.plans) == len(specialisation.parts.stages) == 1


def test_a_loop_of_unknown_length_runs_on_the_host() -> None:
    graph = value_and_grad(powers(constant(np.int64(100)), limit=9.0))
    arguments = [np.array([0.1, 0.2, 0.3]), np.array([0.5, 1.0, 0.7])]
    for x, y in zip(graphc.compile(graph)(*arguments), run(graph, *arguments), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10)


def test_branches_run_natively() -> None:
    graph = value_and_grad(nested())
    arguments = [np.array([0.3, -0.8]), ROWS, np.array([0.9, 1.2])]
    for x, y in zip(graphc.compile(graph)(*arguments), run(graph, *arguments), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10)
