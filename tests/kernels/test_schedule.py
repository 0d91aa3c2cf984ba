"""Schedules: every node once, producers first, and little memory for training graphs."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import ops
from graphc.autodiff.transforms import value_and_grad
from graphc.ir.graph import Graph, Node, input_value
from graphc.ir.types import tensor
from graphc.kernels.build import build
from graphc.kernels.schedule import peak, schedule
from graphc.options import Options
from graphc.passes.pipeline import optimise, prepare
from graphc.runtime.arena import Block, plan_arena

SIZE = 64 * 64 * 4  # bytes of an activation


def dense(depth: int, *, gradient: bool = True) -> Graph:
    """The gradients of all weights of a dense net."""
    x = input_value("x", tensor("float32", 64, 64))
    weights = [input_value(f"w{k}", tensor("float32", 64, 64)) for k in range(depth)]
    y = x
    for w in weights:
        y = ops.tanh(ops.dot(y, w))
    graph = Graph([x, *weights], [ops.reduce_sum(ops.mul(y, y), axes=(0, 1))])
    return value_and_grad(graph, [f"w{k}" for k in range(depth)]) if gradient else graph


def wide(seed: int) -> Graph:
    """A random graph of many branches."""
    rng = np.random.default_rng(seed)
    values = [input_value(f"x{k}", tensor("float32", 4, 4)) for k in range(3)]
    inputs = list(values)
    for _ in range(40):
        a, b = (values[k] for k in rng.integers(0, len(values), 2))
        kind = rng.integers(4)
        new = (ops.dot(a, b), ops.add(a, b), ops.transpose(a, perm=(1, 0)), ops.concat(a, b, axis=0))[kind]
        values.append(ops.slice(new, starts=(0, 0), stops=(4, 4), steps=(1, 1)) if kind == 3 else new)
    return Graph(inputs, values[-3:])


def assert_valid(graph: Graph, order: list[Node]) -> None:
    assert len(order) == len(graph.nodes)
    assert set(order) == set(graph.nodes)
    place = {node: k for k, node in enumerate(order)}
    assert all(place[v.node] < place[node] for node in order for v in node.inputs)


@pytest.mark.parametrize("seed", range(20))
def test_producers_stand_before_their_readers(seed: int) -> None:
    graph = wide(seed)
    assert_valid(graph, schedule(graph))
    assert schedule(graph) == schedule(Graph(graph.inputs, graph.outputs))


def arena(graph: Graph) -> int:
    """Bytes of the planned arena of the compiled graph."""
    options = Options.of(threads=1)
    program = build(optimise(prepare(graph, options), options))
    blocks = [Block(b, program.buffers[b].nbytes, *span) for b, span in program.lifetimes().items()]
    return plan_arena(blocks)[1]


@pytest.mark.parametrize("depth", [4, 16])
def test_backward_passes_hold_one_cotangent_beside_the_activations(depth: int) -> None:
    """What must be there at the turning point is every activation; then they go one by one."""
    graph = dense(depth)
    assert_valid(graph, schedule(graph))
    assert peak(graph) <= (depth + 3) * SIZE
    assert arena(graph) <= (depth + 3) * SIZE


def test_a_chain_needs_two_buffers() -> None:
    assert peak(dense(16, gradient=False)) == 2 * SIZE


def test_a_node_that_frees_more_than_it_takes_goes_first() -> None:
    x = input_value("x", tensor("float32", 64))
    big = ops.broadcast_to(ops.reshape(x, shape=(1, 64)), shape=(64, 64))
    big = ops.exp(big)
    small = ops.reduce_sum(big, axes=(0,))
    chain = x
    for _ in range(5):
        chain = ops.sin(chain)
    graph = Graph([x], [ops.add(ops.mul(chain, chain), ops.neg(small))])
    order = [n.op.name for n in schedule(graph)]
    assert order.index("reduce_sum") == order.index("exp") + 1
    assert peak(graph) <= SIZE + 3 * 64 * 4


def test_time_grows_no_faster_than_the_nodes() -> None:
    import time

    def seconds(depth: int) -> float:
        graph = dense(depth)
        graph.users  # noqa: B018  (not what is measured)
        started = time.process_time()
        schedule(graph)
        return time.process_time() - started

    seconds(20)
    assert seconds(1600) < 40 * max(seconds(200), 1e-4)
