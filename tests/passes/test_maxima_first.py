"""Maximum pooling before bias and activation, and every guard of that."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from blocking import conv

from graphc import ops
from graphc.ir.graph import Graph, Value, constant, input_value
from graphc.ir.trace import trace
from graphc.ir.types import tensor
from graphc.ops.spec import Kind
from graphc.options import Options
from graphc.passes.maxima_first import maximum_first
from graphc.passes.pipeline import optimise

rng = np.random.default_rng(0)
x = input_value("x", tensor("float32", 2, 6, 8, 8))
HALVING = {"axes": (2, 3), "combine": "maximum", "window": (2, 2), "strides": (2, 2), "padding": ((0, 0),) * 2}


def pooled(v: Value, **changes: object) -> Value:
    result: Value = ops.reduce_window(v, **{"dilation": (1, 1), **HALVING, **changes})
    return result


def numbers(v: Value, axis: int, low: float = -1.0) -> Value:
    shape = tuple(d if a == axis else 1 for a, d in enumerate(v.shape))
    values = constant(rng.uniform(low, 1, shape).astype(np.float32))
    result: Value = ops.broadcast_to(values, shape=v.shape)
    return result


def biased(v: Value, axis: int = 1) -> Value:
    result: Value = ops.add(v, numbers(v, axis))
    return result


def rectified(v: Value) -> Value:
    result: Value = ops.minimum(ops.relu(biased(v)), 6.0)
    return result


LATER = {
    "bias and activation": pooled(rectified(x)),
    "overlapping and padded windows": pooled(rectified(x), window=(3, 3), padding=((1, 1), (1, 1))),
    "a positive scale for each channel": pooled(ops.relu(ops.mul(x, numbers(x, 1, low=0.1)))),
    "pooling twice": pooled(pooled(rectified(x))),
    "a mean between two activations": pooled(ops.tanh(pooled(ops.sigmoid(x), combine="add"))),
    "a bias for each row": pooled(biased(x, axis=2), axes=(3,), window=(2,), strides=(2,), padding=((0, 0),), dilation=(1,)),
}  # fmt: skip


@pytest.mark.parametrize("y", LATER.values(), ids=LATER.keys())
def test_a_maximum_moves_before_what_never_decreases(y: Value, agree: Callable[..., None]) -> None:
    graph = Graph([x], [y])
    after = maximum_first(graph)
    order = [n for n in after.nodes if n.op.kind is Kind.ELEMENTWISE or n.attrs.get("combine") == "maximum"]
    last = max(k for k, n in enumerate(order) if n.op.name == "reduce_window")
    assert all(n.op.name in ("reduce_window", "sigmoid") for n in order[:last])
    numbers = rng.standard_normal(x.tensor.static_shape).astype(np.float32)
    numbers[0, 0, 3, 3], numbers[1, 2, 0, 5] = np.nan, -np.inf
    agree(graph, after, [numbers])


twice = ops.relu(x)
KEPT = {
    "combines by minimum": [pooled(ops.relu(x), combine="minimum")],
    "result of neg": [pooled(ops.neg(x))],
    "result of mul": [pooled(ops.mul(x, numbers(x, 1)))],
    "another reader": [pooled(twice), ops.exp(twice)],
    "depends on several values": [pooled(ops.add(x, ops.exp(x)))],
    "varies along the window": [pooled(biased(x, axis=2))],
    "is not finite": [pooled(ops.add(x, np.inf))],
    "nothing but padding": [pooled(ops.relu(x), padding=((2, 0), (0, 0)))],
    "nearly as many pixels": [pooled(ops.relu(x), window=(3, 3), strides=(1, 1), padding=((1, 1), (1, 1)))],
}


@pytest.mark.parametrize(("why", "outputs"), KEPT.items(), ids=KEPT.keys())
def test_guards(why: str, outputs: list[Value], refuses: Callable[..., None]) -> None:
    refuses(maximum_first, Graph([x], outputs), why)


def test_behind_a_biased_and_normalised_convolution_one_bias_is_left() -> None:
    image = input_value("x", tensor("float32", 1, 32, 24, 24))
    y = biased(conv(image, 32))
    y = ops.relu(biased(ops.mul(y, numbers(y, 1))))
    with trace() as t:
        optimise(Graph([image], [pooled(y)]), Options.of(threads=1))
    assert t.counts["maximum_before"] == 2
    assert t.counts["pool_filtered"] == 1
