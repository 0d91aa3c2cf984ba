"""Scales of channels in packed weights: they compute the same, and every guard of the rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from blocking import conv

import graphc
from graphc import ops
from graphc.ir.graph import Graph, Value, input_value
from graphc.ir.trace import trace
from graphc.ir.types import tensor
from graphc.options import Options
from graphc.passes.pipeline import optimise

rng = np.random.default_rng(0)
#: convolutions as the sums that they are
PLAIN = ["winograd", "strassen"]


def image(channels: int, *pixels: int, batch: int = 1) -> Value:
    return input_value("x", tensor("float32", batch, channels, *pixels))


def results(graph: Graph, numbers: np.ndarray, **options: Any) -> list[np.ndarray]:
    return graphc.compile(graph, **options).run(None, {"x": numbers})


def squeezed(y: Value, last: Callable[[Value], Value] = ops.sigmoid) -> Value:
    """What a squeeze and excitation multiplies the channels by."""
    mean = ops.reshape(ops.mul(ops.reduce_sum(y, axes=(2, 3)), 0.01), shape=(*y.shape[:2], 1, 1))
    return last(conv(ops.relu(conv(mean, 8, 1)), y.shape[1], 1))


def excited(y: Value) -> Value:
    result: Value = ops.mul(y, ops.broadcast_to(squeezed(y), shape=y.shape))
    return result


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("channels", "filters", "kernel"), [(32, 16, 1), (24, 40, 1), (16, 16, 3)])
def test_a_scale_of_channels_goes_into_the_weights(channels: int, filters: int, kernel: int, threads: int) -> None:
    x = image(channels, 40, 40)
    depthwise = ops.relu(conv(x, channels, groups=channels))
    graph = Graph([x], [ops.relu(conv(excited(depthwise), filters, kernel))])
    with trace() as t:
        optimise(graph, Options.of(threads=1, disable=PLAIN))
    assert t.counts["scale_packed"] == 1
    numbers = rng.standard_normal(x.tensor.static_shape).astype(np.float32)
    (inside,) = results(graph, numbers, threads=threads, disable=PLAIN)
    (before,) = results(graph, numbers, threads=threads, disable=[*PLAIN, "scale-weights"])
    np.testing.assert_allclose(inside, before, rtol=1e-5, atol=1e-5 * np.abs(before).max())
    (strict,) = results(graph, numbers, precision="strict")
    np.testing.assert_allclose(inside, strict, rtol=1e-5, atol=1e-5 * np.abs(strict).max())


def read_twice(y: Value) -> Value:
    result: Value = ops.add(conv(y, 32, 1), ops.exp(y))
    return result


def test_where_a_scale_stays_with_the_image() -> None:
    for why, x, y in (
        ("times the elements of the weights", image(64, 4, 4), lambda y: conv(excited(y), 64, 1)),
        ("not scaled by one number a channel", image(32, 40, 40, batch=2), lambda y: conv(excited(y), 16, 1)),
        ("has groups", image(32, 40, 40), lambda y: conv(excited(y), 32, 1, groups=2)),
        ("another reader", image(32, 40, 40), lambda y: read_twice(excited(y))),
    ):
        graph = Graph([x], [y(ops.relu(conv(x, x.shape[1], groups=x.shape[1])))])
        with trace(explain=True) as t:
            optimise(graph, Options.of(threads=1, disable=PLAIN))
        assert "scale_packed" not in t.counts, why
        assert why in str(t), why


def test_a_scale_that_the_image_is_computed_with_stays_there() -> None:
    x, s = image(32, 40, 40), input_value("s", tensor("float32", 1, 32, 1, 1))
    y = conv(x, 32, groups=32)
    graph = Graph([x, s], [conv(ops.mul(y, ops.broadcast_to(s, shape=y.shape)), 16, 1)])
    with trace(explain=True) as t:
        optimise(graph, Options.of(threads=1, disable=PLAIN))
    assert "scale_packed" not in t.counts
    assert "can scale it" in str(t)
