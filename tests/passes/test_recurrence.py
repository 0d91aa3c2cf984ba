"""Recurrent layers become one kernel: what it covers, what it projects itself, what runs side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graphc import ops
from graphc.ir.graph import Graph, Node, Value, constant, input_value
from graphc.ir.trace import trace
from graphc.ir.types import tensor
from graphc.kernels.machine import ISAS, Machine
from graphc.ops.recurrence import STATES
from graphc.passes.recurrence import pack_recurrences

MACHINE = Machine(ISAS["avx2"], l2_bytes=512 << 10)
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
rng = np.random.default_rng(5)


def weights(*shape: int, largest: float = 0.5) -> Value:
    return constant(rng.uniform(-largest, largest, shape).astype(np.float32))


def layer(x: Value, hidden: int, cell: str = "lstm", **attrs: Any) -> tuple[Value, ...]:
    """A layer as importers write it: the inputs x[T, B, I] projected by one product, then the recurrence."""
    steps, batch, size = x.shape
    columns = GATES[cell] * hidden
    rows = ops.dot(ops.reshape(x, shape=(steps * batch, size)), weights(size, columns))
    rows = ops.add(rows, ops.broadcast_to(weights(columns), shape=rows.shape))
    states = [ops.broadcast_to(np.float32(0), shape=(batch, hidden))] * STATES[cell]
    projected = ops.reshape(rows, shape=(steps, batch, columns))
    return tuple(getattr(ops, cell)(projected, weights(columns, hidden), *states, **attrs))


def rows(steps: int = 3, batch: int = 4, size: int = 6) -> Value:
    return input_value("x", tensor("float32", steps, batch, size))


def packed(graph: Graph, threads: int = 1) -> list[Node]:
    return [n for n in pack_recurrences(graph, MACHINE, threads).nodes if n.op.name == "recurrence"]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("cell", "attrs"), [
    ("lstm", {}), ("gru", {}), ("rnn", {}), ("lstm", {"clip": 0.3, "input_forget": True}),
])  # fmt: skip
def test_the_meaning_stays(cell: str, attrs: dict[str, Any], reverse: bool, agree: Callable[..., None]) -> None:
    x = rows()
    graph = Graph([x], layer(x, 10, cell, reverse=reverse, **attrs))
    for threads in (1, 2):
        after = pack_recurrences(graph, MACHINE, threads)
        assert cell not in {n.op.name for n in after.nodes}
        agree(graph, after)


def test_the_kernel_projects_where_weights_stay_in_the_cache() -> None:
    x = rows()
    (node,) = packed(Graph([x], layer(x, 10)))
    assert node.attrs["inputs"]
    assert node.attrs["from_zero"]
    (node,) = packed(Graph([x], layer(x, 300)))
    assert not node.attrs["inputs"], "1.5 MB of weights are more than the cache holds"
    few = rows(batch=1)
    (node,) = packed(Graph([few], layer(few, 10)))
    assert not node.attrs["inputs"], "one product for all steps reads its weights once"
    once = rows(steps=1, batch=1)
    (node,) = packed(Graph([once], layer(once, 300)))
    assert node.attrs["inputs"], "a layer of one step reads its weights once in any case"


def test_a_projection_that_others_read_stays() -> None:
    x = rows()
    y, *_ = layer(x, 10)
    (node,) = packed(Graph([x], [y, y.node.inputs[0]]))
    assert not node.attrs["inputs"]


def test_every_sequence_walks_its_own_way_back(agree: Callable[..., None]) -> None:
    x, lengths = rows(), input_value("lengths", tensor("int32", 4))
    xp = ops.reshape(ops.dot(ops.reshape(x, shape=(12, 6)), weights(6, 40)), shape=(3, 4, 40))
    zero = ops.broadcast_to(np.float32(0), shape=(4, 10))
    y = ops.lstm(xp, weights(40, 10), zero, zero, lengths, lengths=True, reverse=True)
    graph = Graph([x, lengths], y)
    (node,) = packed(graph)
    assert not node.attrs["inputs"]
    draws = [rng.standard_normal((3, 4, 6)).astype(np.float32), np.array([3, 0, 1, 2], np.int32)]
    agree(graph, pack_recurrences(graph, MACHINE, 1), draws)


def test_layers_that_do_not_need_each_other_run_side_by_side(agree: Callable[..., None]) -> None:
    x = rows()
    forward, backward = layer(x, 8), layer(x, 8, reverse=True)
    joined = ops.concat(forward[0], backward[0], axis=2)
    graph = Graph([x], [*layer(joined, 8), *layer(joined, 8, reverse=True), forward[1], backward[2]])
    assert [n.attrs["reverse"] for n in packed(graph, threads=2)] == [(False, True), (False, True)]
    assert len(packed(graph, threads=1)) == 4, "one thread gains nothing"
    agree(graph, pack_recurrences(graph, MACHINE, 2))


def test_a_chain_stays_one_after_the_other(agree: Callable[..., None]) -> None:
    x = rows(size=8)
    first = layer(x, 8)
    graph = Graph([x], layer(first[0], 8))
    assert [len(n.attrs["reverse"]) for n in packed(graph, threads=2)] == [1, 1]
    agree(graph, pack_recurrences(graph, MACHINE, 2))


def test_weights_that_may_be_infinite_meet_the_zeros() -> None:
    x, r = rows(), input_value("r", tensor("float32", 10, 10))
    xp = ops.reshape(ops.dot(ops.reshape(x, shape=(12, 6)), weights(6, 10)), shape=(3, 4, 10))
    graph = Graph([x, r], ops.rnn(xp, r, ops.broadcast_to(np.float32(0), shape=(4, 10))))
    (node,) = packed(graph)
    assert not node.attrs["from_zero"]


#: a machine whose arithmetic is slow for its vectors' width
SLOW = Machine(replace(ISAS["avx512"], fma_per_cycle=1), l2_bytes=8 << 20)


def halved(graph: Graph) -> tuple[Graph, Node]:
    """The graph as packed for SLOW, and its layer."""
    after = pack_recurrences(graph, SLOW, 1, frozenset({"strassen"}))
    (node,) = [n for n in after.nodes if n.op.name == "recurrence"]
    return after, node


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(
    ("cell", "attrs"), [("lstm", {}), ("gru", {}), ("rnn", {}), ("gru", {"linear_before_reset": True})]
)
def test_products_are_halved_and_the_meaning_stays(
    cell: str, attrs: dict[str, Any], inside: bool, agree: Callable[..., None]
) -> None:
    x = rows(batch=32, size=250)
    columns = GATES[cell] * 250
    late = [weights(250)] if attrs else []
    xp = ops.reshape(
        ops.dot(ops.reshape(x, shape=(3 * 32, 250)), weights(250, columns, largest=0.1)), shape=(3, 32, columns)
    )
    states = [ops.broadcast_to(np.float32(0), shape=(32, 250))] * STATES[cell]
    y = getattr(ops, cell)(xp, weights(columns, 250, largest=0.1), *states, *late, **attrs)
    graph = Graph([x], y if inside else [*y, xp])
    after, node = halved(graph)
    takes_apart = bool(attrs) and inside  # the new state's gate wants its two products one by one
    assert (node.attrs["inputs"], node.attrs["halved"]) == (inside, not takes_apart)
    agree(graph, after)


def test_products_stay_whole_where_halves_do_not_pay_or_weights_differ() -> None:
    def pays(batch: int, r: Value, hidden: int = 256) -> bool:
        given = [input_value("x", tensor("float32", 3, batch, 4 * hidden)), *([] if r.literal is not None else [r])]
        zero = ops.broadcast_to(np.float32(0), shape=(batch, hidden))
        return bool(halved(Graph(given, ops.lstm(given[0], r, zero, zero)))[1].attrs["halved"])

    alike = rng.uniform(-0.5, 0.5, (1024, 256)).astype(np.float32)
    assert pays(64, constant(alike))
    assert not pays(1, constant(alike)), "a row alone has no other half"
    assert not pays(64, input_value("r", tensor("float32", 1024, 256))), "packing takes longer than it saves"
    unlike, infinite = alike.copy(), alike.copy()
    unlike[7] *= 1e6
    infinite[3, 3] = np.inf
    assert not pays(64, constant(unlike))
    assert not pays(64, constant(infinite))


def test_what_no_kernel_computes_is_left_alone() -> None:
    half = [input_value(f"a{k}", tensor("float16", *s)) for k, s in enumerate([(2, 3, 5), (5, 5), (3, 5)])]
    graph = Graph(half, ops.rnn(*half))
    with trace(explain=True) as t:
        assert pack_recurrences(graph, MACHINE, 1) is graph
    assert "recurrence not at rnn: no recurrence kernel computes float16" in str(t)
