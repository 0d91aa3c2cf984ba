"""Epilogues: the elementwise operations behind an anchor as expressions over its result."""

from __future__ import annotations

import time

import numpy as np

from graphc import ops
from graphc.ir.graph import Graph, constant, input_value
from graphc.ir.interpret import run
from graphc.ir.types import tensor
from graphc.options import Options
from graphc.passes.pipeline import optimise, prepare
from graphc.runtime.assemble import CompiledGraph


def test_a_shared_subexpression_is_visited_once() -> None:
    """Thirty squarings have 2**30 paths from the result to the product."""
    x = input_value("x", tensor("float32", 5, 8))
    y = ops.dot(x, constant(np.eye(8, dtype=np.float32) * 0.5))
    for _ in range(30):
        y = ops.maximum(ops.mul(y, y), -1.0)
    graph, options = Graph([x], [y]), Options.of(threads=1)
    started = time.perf_counter()
    compiled = CompiledGraph(optimise(prepare(graph, options), options), options)
    assert time.perf_counter() - started < 60
    a = np.random.default_rng(0).uniform(-1.9, 1.9, (5, 8)).astype(np.float32)
    np.testing.assert_allclose(compiled.run([a])[0], run(graph, a)[0], rtol=1e-5)
