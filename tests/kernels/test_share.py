"""Launches that differ in their epilogues alone share a kernel, and compute what they computed without."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

import graphc
from graphc import ops
from graphc.ir.graph import Graph, Value, constant, input_value
from graphc.ir.interpret import run
from graphc.ir.types import tensor
from graphc.kernels import build as build_module
from graphc.kernels.epilogue import SHORT, Epilogue, Epilogues
from graphc.kernels.share import MOST_CHOICES
from graphc.options import Options
from graphc.passes.pipeline import optimise, prepare
from graphc.runtime.assemble import CompiledGraph

OPTIONS = Options.of(threads=1)
rng = np.random.default_rng(0)
SIDE = 24
X, R = (input_value(name, tensor("float32", SIDE, SIDE)) for name in ("x", "r"))
ARRAYS = [rng.standard_normal((SIDE, SIDE)).astype(np.float32) for _ in range(2)]

ENDS: dict[str, Callable[[Value, Value], Value]] = {
    "plain": lambda y, r: y,
    "activation": lambda y, r: ops.relu(y),
    "residual": lambda y, r: ops.relu(ops.add(y, r)),
    "scaled": lambda y, r: ops.mul(y, ops.add(r, 2.0)),
}


def product(x: Value, seed: int) -> Value:
    weights = np.random.default_rng(seed).standard_normal((SIDE, SIDE)) / 5
    return ops.dot(x, constant(weights.astype(np.float32)))


def network(*ends: Callable[[Value, Value], Value]) -> Graph:
    """One product after the other, each with its end."""
    y: Value = X
    for seed, end in enumerate(ends):
        y = ops.tanh(end(product(y, seed), R))  # tanh: the next product's operand is in one range
    return Graph([X, R], [y])


def compiled(graph: Graph) -> CompiledGraph:
    return CompiledGraph(optimise(prepare(graph, OPTIONS), OPTIONS), OPTIONS)


def epilogues(graph: CompiledGraph) -> list[Epilogue | Epilogues]:
    """Those of the kernels around products, each kernel once."""
    kernels = dict.fromkeys(launch.kernel for launch in graph.program.launches)
    return [k.epilogue for k in kernels if hasattr(k, "epilogue")]


def test_all_ends_are_one_kernel_that_computes_what_each_did(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network(*ENDS.values(), *ENDS.values())
    together = compiled(graph)
    (shared,) = epilogues(together)
    assert isinstance(shared, Epilogues)
    assert len(shared.choices) == len(ENDS)
    monkeypatch.setattr(build_module, "share_kernels", lambda program: None)
    apart = compiled(graph)
    assert len(epilogues(apart)) == len(ENDS)
    np.testing.assert_array_equal(together.run(ARRAYS)[0], apart.run(ARRAYS)[0])
    np.testing.assert_allclose(together.run(ARRAYS)[0], run(graph, *ARRAYS)[0], rtol=1e-4, atol=1e-5)


def test_the_same_ends_in_another_order_are_the_same_kernel() -> None:
    ends = list(ENDS.values())
    assert epilogues(compiled(network(*ends))) == epilogues(compiled(network(*reversed(ends))))


def test_both_orders_of_a_sum_are_one_epilogue() -> None:
    (found,) = epilogues(compiled(network(lambda y, r: ops.add(y, r), lambda y, r: ops.add(r, y))))
    assert isinstance(found, Epilogue)


def test_a_kernel_has_no_more_choices_than_it_should() -> None:
    ends = [lambda y, r, k=k: ops.maximum(y, -0.1 * k) for k in range(2 * MOST_CHOICES + 1)]
    graph = network(*ends)
    found = compiled(graph)
    sizes = [len(e.choices) if isinstance(e, Epilogues) else 1 for e in epilogues(found)]
    assert max(sizes) == MOST_CHOICES < sum(sizes)
    np.testing.assert_allclose(found.run(ARRAYS)[0], run(graph, *ARRAYS)[0], rtol=1e-4, atol=1e-5)


def test_an_operand_of_another_type_keeps_a_kernel_apart() -> None:
    half = input_value("r", tensor("bfloat16", SIDE, SIDE))
    y = ops.add(product(X, 0), ops.cast(half, dtype=X.dtype))
    graph = Graph([X, half], [ops.relu(product(ops.tanh(y), 1)), ops.add(product(X, 2), product(X, 3))])
    arrays = [ARRAYS[0], ARRAYS[1].astype(half.dtype.numpy)]
    for got, expected in zip(compiled(graph).run(arrays), run(graph, *arrays), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_in_a_loop_whose_slices_move() -> None:
    """The loop's launches are told in each turn where the operands of their epilogues are."""

    weights = [rng.standard_normal((SIDE, SIDE)).astype(np.float32) / 5 for _ in range(3)]

    def step(carry, residual):  # type: ignore[no-untyped-def]
        carry = graphc.tanh(carry @ weights[0] + residual)
        return carry, graphc.relu(carry @ weights[1])

    def both(x, residuals):  # type: ignore[no-untyped-def]
        carry, found = graphc.scan(step, x @ weights[2], residuals)
        return carry, found

    residuals = rng.standard_normal((5, SIDE, SIDE)).astype(np.float32)
    carry, found = graphc.compile(both)(ARRAYS[0], residuals)
    expected, results = ARRAYS[0] @ weights[2], []
    for residual in residuals:
        expected = np.tanh(expected @ weights[0] + residual)
        results.append(np.maximum(expected @ weights[1], 0))
    np.testing.assert_allclose(carry, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found, results, rtol=1e-3, atol=1e-4)


def test_epilogues_that_use_a_value_often_are_told_apart_in_no_time() -> None:
    def squared(y: Value, r: Value) -> Value:
        for _ in range(25):
            y = ops.maximum(ops.mul(y, y), -1.0)
        return y

    started = time.perf_counter()
    graph = compiled(network(squared, lambda y, r: ops.relu(squared(y, r))))
    assert time.perf_counter() - started < 60
    assert len(epilogues(graph)) == 1


def test_a_long_end_does_not_keep_short_ones_out_of_registers() -> None:
    def long(y: Value, r: Value) -> Value:
        for _ in range(SHORT + 1):
            y = ops.tanh(ops.mul(y, 1.1))
        return y

    found = epilogues(compiled(network(ENDS["plain"], ENDS["activation"], long, ENDS["residual"])))
    choices = [e.choices if isinstance(e, Epilogues) else (e,) for e in found]
    assert sorted(len(c) for c in choices) == [1, 3]
    assert all(len({e.short for e in c}) == 1 for c in choices)
