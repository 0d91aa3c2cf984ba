"""Scans in a program: which copies a turn needs, and that those left out were not needed."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import ops
from graphc.ir.graph import Graph, Value, input_value
from graphc.ir.interpret import run
from graphc.ir.types import tensor
from graphc.kernels.build import build
from graphc.kernels.ir import Launch
from graphc.kernels.program import Label
from graphc.options import Options
from graphc.runtime.assemble import CompiledGraph

T, N = 5, 6
A, B, X = (input_value(n, tensor("float32", N)) for n in "abx")


def scan(new: list[Value], stacked: list[Value], reverse: bool = False) -> Graph:
    """A loop over rows x with carries a and b."""
    body = Graph([A, B, X], [*new, *stacked])
    starts = [input_value(n, tensor("float32", N)) for n in ("a0", "b0")]
    rows = input_value("rows", tensor("float32", T, N))
    return Graph([*starts, rows], ops.scan(*starts, rows, body=body, carries=2, scanned=1, reverse=reverse))


def total(x: Value) -> Value:
    return ops.broadcast_to(ops.reduce_sum(x, axes=(0,)), shape=x.shape)


def halved(x: Value) -> Value:
    return ops.mul(x, 0.5)


def part(x: Value, first: int, last: int) -> Value:
    cut: Value = ops.slice(x, starts=(first,), stops=(last,), steps=(1,))
    return cut


SUM = ops.add(A, X)
TURNED = ops.concat(part(A, 3, 6), part(A, 0, 3), axis=0)
INNER = Graph([v := input_value("v", tensor("float32")), e := input_value("e", tensor("float32"))], [ops.add(v, e)] * 2)
NESTED = ops.scan(ops.reshape(part(A, 0, 1), shape=()), X, body=INNER, carries=1, scanned=1)
#: new carries, stacked results, launches of a turn
CASES: dict[str, tuple[list[Value], list[Value], int]] = {
    "element by element": ([SUM, halved(B)], [], 2),
    "what is stacked is computed in its slice": ([SUM, halved(B)], [ops.neg(X)], 3),
    "read again afterwards": ([SUM, ops.sub(B, A)], [], 3),
    "summed afterwards": ([SUM, ops.mul(total(A), 0.1)], [], 4),
    "exchanged": ([B, A], [], 4),
    "the old one is stacked": ([SUM, halved(B)], [A], 4),
    "a view of the old one is stacked": ([SUM, halved(B)], [ops.reshape(A, shape=(2, 3))], 4),
    "the new one is stacked": ([SUM, halved(B)], [SUM], 3),
    "one for both": ([SUM, SUM], [], 2),
    "one stays": ([halved(ops.add(total(A), A)), B], [], 5),
    "halves exchanged": ([ops.add(TURNED, X), halved(B)], [], 4),
    "a slice as it is": ([SUM, halved(B)], [X], 3),
    "a loop over a slice": ([SUM, halved(B)], [NESTED[1]], 8),
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_values(name: str, reverse: bool) -> None:
    new, stacked, _ = CASES[name]
    graph = scan(new, stacked, reverse)
    draw = np.random.default_rng(2).standard_normal
    arrays = [draw(v.tensor.static_shape).astype(np.float32) for v in graph.inputs]
    for threads in (1, 2):
        compiled = CompiledGraph(graph, Options.of(threads=threads))
        for _ in range(2):  # a run leaves nothing behind for the next
            for found, wanted in zip(compiled.run(arrays), run(graph, *arrays), strict=True):
                np.testing.assert_allclose(found, wanted, 1e-6, 1e-6)


@pytest.mark.parametrize("name", CASES)
def test_launches_of_a_turn(name: str) -> None:
    new, stacked, launches = CASES[name]
    program = build(scan(new, stacked))
    first, last = program.loops[-1]
    assert isinstance(program.instructions[first], Label)
    turn = program.instructions[first:last]
    assert sum(isinstance(i, Launch) for i in turn) == launches
