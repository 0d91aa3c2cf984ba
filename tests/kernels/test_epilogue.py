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


def test_an_operand_that_lies_across_is_copied_and_the_kernel_stays_whole() -> None:
    x, across = input_value("x", tensor("float32", 21, 40)), input_value("r", tensor("float32", 70, 21))
    w = constant(np.random.default_rng(1).standard_normal((40, 70)).astype(np.float32))
    y = ops.relu(ops.add(ops.dot(x, w), ops.transpose(across, perm=(1, 0))))
    graph, options = Graph([x, across], [y]), Options.of(threads=1)
    compiled = CompiledGraph(optimise(prepare(graph, options), options), options)
    families = [launch.kernel.family for launch in compiled.program.launches]
    assert families[-1] in ("contraction", "strassen"), "its epilogue writes the result"
    assert len(families) == 2
    arrays = [np.random.default_rng(k).standard_normal(v.shape).astype(np.float32) for k, v in enumerate(graph.inputs)]
    np.testing.assert_allclose(compiled.run(arrays)[0], run(graph, *arrays)[0], rtol=1e-5, atol=1e-5)
