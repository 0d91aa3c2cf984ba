"""Results finished in registers against results that pass through memory: the same numbers, whatever the sizes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc
from graphc import ops
from graphc.codegen.cpu import source
from graphc.ir.graph import Graph, Value, input_value
from graphc.ir.types import tensor
from graphc.kernels import epilogue


def images(*shape: int) -> Value:
    return input_value("x", tensor("float32", *shape))


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype("f")


def same(x: Value, filters: int, size: int, stride: int = 1) -> Value:
    """A convolution with a border that keeps the image's size, and a bias."""
    w = weights(filters, x.shape[1], size, size)
    y = ops.conv(x, w, strides=(stride,) * 2, padding=((size // 2,) * 2,) * 2, dilation=(1, 1), groups=1)
    return ops.add(y, weights(filters, 1, 1))


def pointwise_and_residual() -> Graph:
    x = images(2, 24, 9, 11)
    first = ops.relu(same(x, 24, 1))
    return Graph([x], [ops.relu(ops.add(same(first, 24, 1), x)), ops.mul(same(first, 40, 1), 2.0)])


def filtered() -> Graph:  # 3x3 by minimal filtering: whole tiles and parts of some
    x = images(1, 32, 14, 19)
    first = ops.relu(same(x, 32, 3))
    return Graph([x], [ops.add(same(first, 32, 3), x)])


def strided() -> Graph:
    x = images(1, 16, 15, 18)
    return Graph([x], [ops.relu(same(x, 33, 3, stride=2))])


def product() -> Graph:
    x = images(21, 50)
    return Graph([x], [ops.relu(ops.add(ops.dot(x, weights(50, 37)), weights(37)))])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("made", [pointwise_and_residual, filtered, strided, product])
def test_long_epilogues_give_the_same(made: Callable[[], Graph], threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = made()
    x = np.random.default_rng(1).standard_normal(graph.inputs[0].shape).astype("f")
    source.cache_clear()  # it remembers texts, and the decision with them
    got = graphc.compile(graph, threads=threads).run(None, {"x": x})
    monkeypatch.setattr(epilogue, "SHORT", -1)
    source.cache_clear()
    try:
        expected = graphc.compile(graph, threads=threads).run(None, {"x": x})
    finally:
        source.cache_clear()
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-6, atol=1e-6 * np.abs(e).max())
