"""Maximum pooling inside of minimal filtering: it computes the same, and every guard of the rule."""

from __future__ import annotations

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
from graphc.passes.pipeline import optimise

rng = np.random.default_rng(0)


def image(channels: int, *pixels: int, batch: int = 1) -> Value:
    return input_value("x", tensor("float32", batch, channels, *pixels))


def results(graph: Graph, numbers: np.ndarray, **options: Any) -> list[np.ndarray]:
    return graphc.compile(graph, **options).run(None, {"x": numbers})


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
    with trace() as t:
        optimise(graph, Options.of(threads=1))
    assert t.counts["pool_filtered"] == 1
    numbers = rng.standard_normal(x.tensor.static_shape).astype(np.float32)
    (inside,) = results(graph, numbers, threads=threads)
    (strict,) = results(graph, numbers, precision="strict")
    np.testing.assert_allclose(inside, strict, rtol=1e-4, atol=1e-4 * strict.max())
    numbers[-1, 5, 7, 9] = np.nan
    (inside,) = results(graph, numbers, threads=threads)
    (behind,) = results(graph, numbers, threads=threads, disable="pool-tiles")
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
        assert "pool_filtered" not in t.counts, why
        assert why in str(t), why
