"""Fusion: what becomes one kernel, what does not and why, and that any plan is free of cycles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphc import ops
from graphc.ir.graph import Graph, Node, Value, constant, input_value, location, location_of
from graphc.ir.trace import trace
from graphc.ir.types import tensor
from graphc.kernels.lower import why_not
from graphc.kernels.machine import ISAS, Machine
from graphc.ops.functions import layer_normalization, softmax
from graphc.passes.fold import fold
from graphc.passes.fuse import OPERANDS, fuse, plan
from graphc.passes.layout import block_layout
from graphc.passes.simplify import simplify

rng = np.random.default_rng(2)
x = input_value("x", tensor("float32", 4, 6))
y = input_value("y", tensor("float32", 4, 6))
row = input_value("row", tensor("float32", 6))


def kernels(graph: Graph) -> list[tuple[str, ...]]:
    """The operations of every kernel, views and constants left out."""
    found = []
    for node in fuse(graph).nodes:
        nodes = node.attrs["body"].nodes if node.op.name == "fusion" else (node,)
        names = tuple(n.op.name for n in nodes if n.op.name not in ("input", "constant", "broadcast_to", "reshape"))
        if names:
            found.append(names)
    return found


def spread(v: Value, like: Value = x) -> Value:
    return ops.broadcast_to(v, shape=like.shape)


def clean(graph: Graph) -> Graph:
    return fold(simplify(fold(simplify(graph))))


def test_a_chain_is_one_kernel(agree: Callable[..., None]) -> None:
    with location("first"):
        v = ops.add(x, y)
    with location("second"):
        v = ops.mul(ops.exp(v), spread(row))
    graph = Graph([x, y, row], [ops.tanh(v)])
    after = fuse(graph)
    assert kernels(graph) == [("add", "exp", "mul", "tanh")]
    assert location_of(after.outputs[0].node) == ("first", "second")
    assert [v.node.op.name for v in after.outputs[0].node.inputs].count("broadcast_to") == 1, "a view stays outside"
    agree(graph, after)


def test_single_numbers_are_written_into_the_kernel(agree: Callable[..., None]) -> None:
    graph = clean(Graph([x], [ops.relu(ops.add(ops.mul(x, 2.0), 1.0))]))
    after = fuse(graph)
    assert len(after.outputs[0].node.inputs) == 1
    agree(graph, after)


@pytest.mark.parametrize(
    "build",
    [lambda v: softmax(v, axis=-1), lambda v: layer_normalization(v, row, row, axis=-1)[0]],
    ids=["softmax", "norm"],
)
def test_reductions_with_what_surrounds_them(build: Callable[[Value], Value], agree: Callable[..., None]) -> None:
    graph = clean(Graph([x, row], [build(ops.mul(x, x))]))
    assert len(kernels(graph)) == 1
    agree(graph, fuse(graph))


def test_a_value_that_others_read_is_computed_once(agree: Callable[..., None]) -> None:
    v = ops.exp(x)
    graph = Graph([x, y], [ops.add(v, y), ops.reduce_sum(ops.mul(v, v), axes=(0,)), v])
    assert sorted(kernels(graph)) == [("add",), ("exp",), ("mul", "reduce_sum")]
    agree(graph, fuse(graph))


def test_nothing_is_computed_many_times_for_a_broadcast(agree: Callable[..., None]) -> None:
    v = ops.exp(ops.add(row, 1.0))
    graph = Graph([x, row], [ops.add(x, spread(ops.mul(v, v)))])
    with trace(explain=True) as t:
        after = fuse(graph)
    assert sorted(kernels(graph)) == [("add",), ("add", "exp", "mul")]
    assert "a reader would compute it many times" in str(t)
    agree(graph, after)


def test_reductions_over_different_axes_stay_apart(agree: Callable[..., None]) -> None:
    rows = ops.reduce_sum(ops.exp(x), axes=(1,))
    graph = Graph([x], [ops.reduce_max(ops.mul(rows, 2.0), axes=(0,))])
    assert len(kernels(graph)) == 2
    agree(graph, fuse(graph))


def test_elements_that_only_move_move_once(agree: Callable[..., None]) -> None:
    v = ops.transpose(ops.reshape(x, shape=(2, 2, 3, 2)), perm=(2, 0, 3, 1))
    graph = Graph([x], [ops.transpose(ops.reshape(v, shape=(6, 4)), perm=(1, 0))])
    assert len(kernels(graph)) <= 2
    agree(graph, fuse(graph))


def test_a_kernel_has_a_bounded_number_of_operands(agree: Callable[..., None]) -> None:
    inputs = [input_value(f"x{k}", x.type) for k in range(3 * OPERANDS)]
    total = inputs[0]
    for v in inputs[1:]:
        total = ops.add(total, v)
    graph = Graph(inputs, [total])
    after = fuse(graph)
    assert all(len(n.inputs) < OPERANDS for n in after.nodes)
    assert len(after.nodes) - len(inputs) <= 5
    agree(graph, after)


def test_types_without_kernels_stay(agree: Callable[..., None]) -> None:
    z = input_value("z", tensor("complex64", 3))
    graph = Graph([z], [ops.mul(ops.add(z, z), z)])
    assert fuse(graph) is graph


def test_bodies_of_control_flow_are_fused(agree: Callable[..., None]) -> None:
    c, v = input_value("c", tensor("bool")), input_value("v", x.type)
    then, other = Graph([v], [ops.exp(ops.neg(v))]), Graph([v], [v])
    graph = Graph([c, x], [ops.if_(c, x, then_body=then, else_body=other)])
    after = fuse(graph)
    assert any(n.op.name == "fusion" for n in after.outputs[0].node.attrs["then_body"].nodes)
    agree(graph, after)


# --- anchors ---------------------------------------------------------------------------------------------------------


def blocked(build: Callable[[Value], Value], channels: int = 8) -> Graph:
    v = input_value("v", tensor("float32", 1, channels, 5, 5))
    return clean(block_layout(clean(Graph([v], [build(v)])), Machine(ISAS["avx2"]), 1))


def conv(v: Value, filters: int = 8) -> Value:
    weights = constant(rng.uniform(-1, 1, (filters, v.shape[1], 3, 3)).astype(np.float32))
    result: Value = ops.conv(v, weights, strides=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1)
    return result


def biased(v: Value) -> Value:
    return ops.add(
        v, ops.broadcast_to(constant(rng.uniform(-1, 1, (v.shape[1], 1, 1)).astype(np.float32)), shape=v.shape)
    )


ANCHORED: dict[str, tuple[Callable[[Value], Value], list[tuple[str, ...]]]] = {
    "bias and relu": (lambda v: ops.relu(biased(conv(v))), [("conv_blocked", "add", "relu")]),
    "swish": (
        lambda v: (lambda w: ops.mul(w, ops.sigmoid(w)))(biased(conv(v))),
        [("conv_blocked", "add", "sigmoid", "mul")],
    ),
    "residual": (
        lambda v: (lambda w: ops.relu(ops.add(biased(conv(w)), w)))(ops.relu(conv(v))),
        [("conv_blocked", "relu"), ("conv_blocked", "add", "add", "relu")],
    ),
    "two branches": (
        lambda v: ops.relu(ops.add(conv(v), ops.neg(conv(ops.exp(v))))),
        [("exp",), ("conv_blocked",), ("conv_blocked", "neg", "add", "relu")],
    ),
    "average": (
        lambda v: ops.mul(
            ops.reduce_window(
                conv(v),
                combine="add",
                axes=(2, 3),
                window=(2, 2),
                strides=(2, 2),
                padding=((0, 0), (0, 0)),
                dilation=(1, 1),
            ),
            0.25,
        ),
        [("conv_blocked",), ("reduce_window", "mul")],
    ),
    "pooling of an activation": (
        lambda v: ops.reduce_sum(ops.relu(biased(conv(v))), axes=(2, 3)),
        [("conv_blocked", "add", "relu"), ("reduce_sum",)],
    ),
}


@pytest.mark.parametrize("name", ANCHORED)
def test_epilogues(name: str, agree: Callable[..., None]) -> None:
    build, wanted = ANCHORED[name]
    graph = blocked(build)
    found = [tuple(n for n in k if n not in ("block", "unblock")) for k in kernels(graph)]
    assert sorted(k for k in found if k) == sorted(wanted)
    agree(graph, fuse(graph))


def test_a_kernel_has_one_anchor() -> None:
    for group in plan(blocked(lambda v: ops.add(conv(v), conv(ops.exp(v))))):
        assert sum(n.op.name == "conv_blocked" for n in group.members) == 1


# --- any graph -------------------------------------------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Random graphs of elementwise, moving and reducing operations, with values read several times."""
    values: list[Value] = [x, y, spread(row)]
    for _ in range(draw(st.integers(2, 25))):
        v, w = (draw(st.sampled_from(values)) for _ in range(2))
        match draw(st.integers(0, 6)):
            case 0:
                values.append(ops.transpose(v, perm=(1, 0)))
            case 1:
                axis = draw(st.integers(0, 1))
                kept = ops.reshape(
                    ops.reduce_max(v, axes=(axis,)), shape=tuple(1 if a == axis else d for a, d in enumerate(v.shape))
                )
                values.append(ops.broadcast_to(kept, shape=v.shape))
            case 2:
                values.append(ops.reshape(v, shape=(v.shape[1], v.shape[0])))
            case 3:
                values.append(
                    ops.slice(ops.concat(v, v, axis=0), starts=(1, 0), stops=(1 + v.shape[0], v.shape[1]), steps=(1, 1))
                )
            case 4:
                values.append(draw(st.sampled_from([ops.neg, ops.relu, ops.floor]))(v))
            case _:
                if v.shape == w.shape:
                    values.append(draw(st.sampled_from([ops.add, ops.maximum, ops.sub]))(v, w))
    return Graph([x, y, row], draw(st.lists(st.sampled_from(values), min_size=1, max_size=4)))


def depends(graph: Graph, start: set[Node], barrier: set[Node]) -> set[Node]:
    """What can be reached from `start` towards the results without entering `barrier` again."""
    reached: set[Node] = set()
    stack = [u for n in start for v in n.outputs for u in graph.users.get(v, ()) if u not in barrier]
    while stack:
        n = stack.pop()
        if n not in reached:
            reached.add(n)
            stack += [u for v in n.outputs for u in graph.users.get(v, ())]
    return reached


@given(graphs())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_plans_of_random_graphs(agree: Callable[..., None], graph: Graph) -> None:
    taken: set[Node] = set()
    for group in plan(graph):
        members = set(group.members)
        assert not members & taken, "an operation is in two kernels"
        taken |= members
        assert not depends(graph, members, members) & members, "a path leaves the kernel and comes back"
        assert len(group.operands) < OPERANDS
        assert why_not(group.body()) is None
    agree(graph, fuse(graph))


def test_equal_groups_share_a_body_and_keep_their_places() -> None:
    parts = []
    for k in range(3):
        with location(f"layer{k}"):
            parts.append(ops.tanh(ops.exp(ops.neg(input_value(f"x{k}", tensor("float32", 4, 6))))))
    after = fuse(Graph([v.node.inputs[0].node.inputs[0].node.inputs[0] for v in parts], parts))
    fusions = [v.node for v in after.outputs]
    assert len({id(n.attrs["body"]) for n in fusions}) == 1
    assert [location_of(n) for n in fusions] == [("layer0",), ("layer1",), ("layer2",)]


def test_planning_explains_as_much_as_it_is_asked_to() -> None:
    """Shortcuts that are taken when nobody listens do not change the plan."""
    w = input_value("w", tensor("float32", 6, 6))
    v = ops.tanh(ops.dot(x, w))
    v = ops.mul(ops.relu(ops.sub(v, ops.exp(ops.dot(y, w)))), v)
    graph = Graph([x, y, w], [ops.dot(v, w), ops.reduce_sum(ops.mul(v, v), axes=(1,))])
    silent = fuse(graph)
    with trace(explain=True) as t:
        assert fuse(graph) is not None
        assert fuse(graph).outputs == silent.outputs
    assert "something else reads it too" in str(t)
