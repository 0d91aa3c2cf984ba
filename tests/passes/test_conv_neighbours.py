"""Scales and pooling inside of convolutions: they compute the same, and every guard of the rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from blocking import conv

import graphc
from graphc import ops
from graphc.ir.graph import Graph, Value, constant, input_value
from graphc.ir.trace import trace
from graphc.ir.types import tensor
from graphc.options import Options
from graphc.passes.conv_neighbours import CONV_NEIGHBOUR_RULES, absorb_neighbours
from graphc.passes.pipeline import optimise

rng = np.random.default_rng(0)
#: convolutions as the sums that they are
PLAIN = ["winograd", "strassen"]


def image(channels: int, *pixels: int, batch: int = 1) -> Value:
    return input_value("x", tensor("float32", batch, channels, *pixels))


def results(graph: Graph, numbers: np.ndarray, **options: Any) -> list[np.ndarray]:
    return graphc.compile(graph, **options).run(None, {"x": numbers})


NAMES = {r.name for r in CONV_NEIGHBOUR_RULES}


def fired(graph: Graph, **options: Any) -> Counter[str]:
    with trace() as t:
        optimise(graph, Options.of(threads=1, **options))
    return Counter({name: n for name, n in t.counts.items() if name in NAMES})


# --- pooling --------------------------------------------------------------------------------------------------------


def largest(x: Value, *window: int, **changes: Any) -> Value:
    n = len(window)
    attrs = {"axes": tuple(range(2, 2 + n)), "window": window, "strides": window, "dilation": (1,) * n}
    attrs |= {"padding": ((0, 0),) * n, "combine": "maximum"}
    result: Value = ops.reduce_window(x, **{**attrs, **changes})
    return result


def activated(x: Value, filters: int, **attrs: int) -> Value:
    y = conv(x, filters, **attrs)
    bias = constant(rng.standard_normal((1, filters, 1, 1)).astype(np.float32))
    result: Value = ops.relu(ops.add(y, ops.broadcast_to(bias, shape=y.shape)))
    return result


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("pixels", "window", "attrs"),
    [
        ((24, 24), (2, 2), {}),
        ((23, 31), (2, 2), {}),
        ((24, 18), (2, 1), {}),
        ((17, 24), (1, 2), {"groups": 2}),
        ((21, 26), (2, 2), {"kernel": 5}),
    ],
    ids=str,
)
def test_pooling_inside_of_tiles(
    pixels: tuple[int, int], window: tuple[int, int], attrs: dict[str, int], batch: int, threads: int
) -> None:
    x = image(32, *pixels, batch=batch)
    graph = Graph([x], [largest(activated(x, 64, **attrs), *window)])
    assert fired(graph) == {"pool_tiles": 1}
    numbers = rng.standard_normal(x.tensor.static_shape).astype(np.float32)
    (inside,) = results(graph, numbers, threads=threads)
    (strict,) = results(graph, numbers, precision="strict")
    np.testing.assert_allclose(inside, strict, rtol=1e-4, atol=1e-4 * strict.max())
    numbers[-1, 5, 7, 9] = np.nan
    (inside,) = results(graph, numbers, threads=threads)
    (behind,) = results(graph, numbers, threads=threads, disable="conv-neighbours")
    assert np.isnan(behind).any()
    np.testing.assert_allclose(inside, behind, rtol=1e-5, atol=1e-5 * strict.max())  # NaN in the same places


def test_what_pools_otherwise_stays_behind_the_convolution() -> None:
    x = image(32, 24, 24)
    y, filtered = activated(x, 64), conv(x, 64)
    for why, outputs in {
        "overlap": [largest(y, 3, 3, strides=(2, 2))],
        "padded": [largest(y, 2, 2, padding=((1, 1), (1, 1)))],
        "do not fill tiles": [largest(y, 5, 5)],
        "another reader": [largest(filtered, 2, 2), filtered],
        "no maximum": [largest(filtered, 2, 2, combine="minimum")],
        "not a minimal filtering": [largest(conv(x, 64, 1), 2, 2)],
    }.items():
        with trace(explain=True) as t:
            optimise(Graph([x], outputs), Options.of(threads=1))
        assert "pool_tiles" not in t.counts, why
        assert why in str(t), why


# --- scales of channels ---------------------------------------------------------------------------------------------


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
    assert fired(graph, disable=PLAIN) == {"scale_weights": 1}
    numbers = rng.standard_normal(x.tensor.static_shape).astype(np.float32)
    (inside,) = results(graph, numbers, threads=threads, disable=PLAIN)
    (before,) = results(graph, numbers, threads=threads, disable=[*PLAIN, "conv-neighbours"])
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
        assert "scale_weights" not in t.counts, why
        assert why in str(t), why


def test_a_scale_that_the_image_is_computed_with_stays_there() -> None:
    x, s = image(32, 40, 40), input_value("s", tensor("float32", 1, 32, 1, 1))
    y = conv(x, 32, groups=32)
    graph = Graph([x, s], [conv(ops.mul(y, ops.broadcast_to(s, shape=y.shape)), 16, 1)])
    with trace(explain=True) as t:
        optimise(graph, Options.of(threads=1, disable=PLAIN))
    assert "scale_weights" not in t.counts
    assert "can scale it" in str(t)


def test_nothing_to_absorb() -> None:
    x = image(32, 24, 24)
    graph = Graph([x], [ops.relu(x)])
    assert absorb_neighbours(graph) is graph
