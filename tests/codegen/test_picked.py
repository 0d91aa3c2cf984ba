"""Pointwise convolutions that pick their channels, as kernels: every size of tile, group and image."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import ops
from graphc.ir.graph import Graph, Value, input_value
from graphc.ir.interpret import run
from graphc.ir.types import tensor
from graphc.kernels.contraction import tiles
from graphc.kernels.machine import host_machine
from graphc.kernels.problems import ConvProblem
from graphc.options import Options
from graphc.passes.pipeline import optimise, prepare
from graphc.runtime.assemble import CompiledGraph


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).uniform(-1, 1, shape).astype("f")


def pointwise(x: Value, filters: int, groups: int = 1) -> Value:
    w = weights(filters, x.shape[1] // groups, 1, 1)
    y = ops.conv(x, w, strides=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=groups)
    return ops.add(y, weights(filters, 1, 1))


def shuffled(x: Value, groups: int) -> Value:
    n, c, h, w = x.shape
    split = ops.transpose(ops.reshape(x, shape=(n, groups, c // groups, h, w)), perm=(0, 2, 1, 3, 4))
    return ops.reshape(split, shape=x.shape)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("batch", "channels", "groups", "filters", "size"),
    [
        (1, 60, 4, 60, (7, 7)),
        (2, 20, 2, 20, (1, 1)),  # a single pixel, so a tile of one row
        (2, 12, 3, 120, (3, 5)),
        (1, 44, 4, 12, (9, 11)),
        (3, 6, 2, 6, (1, 13)),
        (1, 264, 2, 264, (4, 4)),
    ],
)
def test_shuffled_groups(
    batch: int, channels: int, groups: int, filters: int, size: tuple[int, int], threads: int
) -> None:
    x = input_value("x", tensor("float32", batch, channels, *size))
    first = ops.relu(pointwise(x, channels, groups))
    y = pointwise(shuffled(first, groups), filters, groups)
    if filters == channels:  # a residual, whose memory the result takes over
        y = ops.relu(ops.add(y, first))
    graph = Graph([x], [y])
    options = Options.of(threads=threads)
    final = optimise(prepare(graph, options), options)
    bodies = [n.attrs["body"] for n in final.nodes if n.op.name == "fusion"]
    assert any(n.op.name == "conv_picked" for g in (final, *bodies) for n in g.nodes)
    compiled = CompiledGraph(final, options)
    data = np.random.default_rng(0).uniform(-1, 1, x.shape).astype("f")
    (expected,) = run(graph, data)
    for _ in range(2):
        (got,) = compiled.run([data])
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_a_tile_has_no_more_rows_than_there_are_pixels() -> None:
    for pixels in (1, 2, 5, 100):
        problem = ConvProblem(1, 9, 24, 1, pixels, (1, 1), block=8, picked=True)
        assert max(rows for rows, _ in tiles(problem, host_machine())) <= pixels
