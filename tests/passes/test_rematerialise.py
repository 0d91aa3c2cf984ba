"""Less memory by computing again: the same numbers, a budget met, and the price."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

import graphc
from graphc import ops
from graphc.autodiff.transforms import value_and_grad
from graphc.errors import OptionError
from graphc.ir.graph import Graph, input_value
from graphc.ir.interpret import run
from graphc.ir.types import tensor
from graphc.ir.verify import verify
from graphc.kernels.build import build
from graphc.kernels.schedule import peak
from graphc.options import Options
from graphc.passes.pipeline import optimise, prepare
from graphc.passes.rematerialise import differentiated_within, rematerialise
from graphc.runtime.arena import Block, plan_arena


def training(depth: int, width: int = 32, dtype: str = "float32", *, residual: bool = False) -> Graph:
    """The loss of a dense net and the gradients of its weights; every activation is width x width."""
    x = input_value("x", tensor(dtype, width, width))
    weights = [input_value(f"w{k}", tensor(dtype, width, width)) for k in range(depth)]
    y = x
    for w in weights:
        new = ops.tanh(ops.dot(y, w))
        y = ops.add(new, y) if residual else new
    loss = ops.reduce_sum(ops.mul(y, y), axes=(0, 1))
    return value_and_grad(Graph([x, *weights], [loss]), [f"w{k}" for k in range(depth)])


def arena(graph: Graph) -> int:
    """Bytes of the planned arena of the compiled graph."""
    options = Options.of(threads=1)
    program = build(optimise(prepare(graph, options), options))
    blocks = [Block(b, program.buffers[b].nbytes, *span) for b, span in program.lifetimes().items()]
    return plan_arena(blocks)[1]


def products(graph: Graph) -> int:
    return sum(n.op.name == "dot" for n in graph.nodes)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("share", [0.8, 0.6])
def test_numbers_do_not_change(share: float, residual: bool) -> None:
    graph = training(10, 4, "float64", residual=residual)
    after = rematerialise(graph, int(share * peak(graph)))
    verify(after)
    assert after != graph
    draw = np.random.default_rng(0).standard_normal
    arguments = [draw(v.shape) for v in graph.inputs]
    for x, y in zip(run(after, *arguments), run(graph, *arguments), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("depth", [16, 64])
def test_memory_of_the_order_of_the_root_for_less_than_one_more_forward_pass(depth: int) -> None:
    graph, activation = training(depth), 32 * 32 * 4
    budget = math.ceil(2.5 * math.sqrt(depth)) * activation
    assert arena(graph) >= depth * activation
    after = rematerialise(graph, budget, arena)
    assert arena(after) <= budget
    assert products(after) <= products(graph) + depth


def test_no_more_is_computed_again_than_the_budget_asks_for() -> None:
    graph = training(32)
    assert rematerialise(graph, peak(graph)) is graph
    counts = [products(rematerialise(graph, int(share * peak(graph)))) for share in (0.9, 0.5, 0.4)]
    assert products(graph) < counts[0] < counts[-1]


def test_a_budget_that_cannot_be_met_is_refused_with_what_is_missing() -> None:
    with pytest.raises(
        OptionError, match=r"a budget of 4,096 bytes cannot be met .* 32,768 bytes are the least, 28,672"
    ):
        rematerialise(training(16), 4096)


def recurrent(turns: int) -> Graph:
    """A scalar of h <- tanh(h w) + x over many turns; the matrices fill any machine's vectors."""
    h, x, w = (input_value(n, tensor("float64", 16, 16)) for n in "hxw")
    body = Graph([h, x, w], [ops.add(ops.tanh(ops.dot(h, w)), x)])
    xs = input_value("xs", tensor("float64", turns, 16, 16))
    last = ops.scan(h, xs, w, body=body, carries=1, scanned=1)
    return Graph([h, xs, w], [ops.reduce_sum(last, axes=(0, 1))])


@pytest.mark.parametrize("measure", [peak, arena])
def test_loops_get_as_many_checkpoints_as_the_budget_asks_for(measure: Callable[[Graph], int]) -> None:
    graph = recurrent(256)

    def differentiate(g: Graph) -> Graph:
        return value_and_grad(g, "w")

    plain = differentiate(graph)
    assert differentiated_within(graph, differentiate, measure(plain), measure) == plain
    for share in (4, 8):
        after = differentiated_within(graph, differentiate, measure(plain) // share, measure)
        assert measure(after) <= measure(plain) // share
        arguments = [0.3 * np.random.default_rng(0).standard_normal(v.shape) for v in graph.inputs]
        for x, y in zip(run(after, *arguments), run(plain, *arguments), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)
    with pytest.raises(OptionError, match="cannot be met"):
        differentiated_within(graph, differentiate, measure(plain) // 1000, measure)


def test_it_runs_natively() -> None:
    graph = training(9)
    after = rematerialise(graph, int(0.7 * peak(graph)))
    draw = np.random.default_rng(0).standard_normal
    arguments = [(0.2 * draw(v.shape)).astype(np.float32) for v in graph.inputs]
    for x, y in zip(graphc.compile(after)(*arguments), run(graph, *arguments), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)
