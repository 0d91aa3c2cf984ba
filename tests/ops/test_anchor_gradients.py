"""Gradients of matrix products, convolutions and recurrent layers: all geometries, and what they cost."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import ops
from graphc.autodiff.reverse import pullback
from graphc.autodiff.transforms import value_and_grad, vjp
from graphc.errors import NotDifferentiableError
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph, Value, input_value, toposort
from graphc.ir.interpret import run
from graphc.ir.types import tensor
from graphc.ops.frames import frames
from graphc.ops.recurrent import ACTIVATIONS, activation
from graphc.passes.specialise import specialise
from graphc.testing import check_grad

draw = np.random.default_rng(5)


def graph_of(op: Any, shapes: Sequence[Sequence[Any]], **attrs: Any) -> Graph:
    inputs = [input_value(f"x{k}", tensor("float64", *shape)) for k, shape in enumerate(shapes)]
    outputs = op(*inputs, **attrs)
    return Graph(inputs, [outputs] if isinstance(outputs, Value) else outputs)


def check(op: Any, *shapes: Sequence[int], order: int = 1, **attrs: Any) -> None:
    check_grad(graph_of(op, shapes, **attrs), *(draw.standard_normal(s) for s in shapes), order=order)


# ------------------------------------------------------------------------------------------------- matrix products


@pytest.mark.parametrize("batch", [(), (2,), (2, 1, 3)])
def test_matrix_product(batch: tuple[int, ...]) -> None:
    check(ops.dot, (*batch, 2, 3), (*batch, 3, 4), order=2)


def test_matrix_product_of_open_sizes() -> None:
    b, n = Dim("b"), Dim("n")
    pulled = vjp(graph_of(ops.dot, [(b, 4, n), (b, n, 5)]))
    assert [v.shape for v in pulled.outputs[1:]] == [(b, 4, n), (b, n, 5)]


# ---------------------------------------------------------------------------------------------------- convolutions

#: channels, filters, groups
CHANNELS = [(3, 2, 1), (4, 6, 2), (3, 3, 3), (2, 4, 2)]


@pytest.mark.parametrize(("channels", "filters", "groups"), CHANNELS)
@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("padding", [(0, 0), (2, 1), (0, 4)])
def test_convolution_along_a_line(
    channels: int, filters: int, groups: int, window: int, stride: int, dilation: int, padding: tuple[int, int]
) -> None:
    """By the definition: y is bilinear in x and w, so <u, conv(x, w)> is <dx, x> and <dw, w> for cotangents u."""
    graph = graph_of(
        ops.conv,
        [(2, channels, 8), (filters, channels // groups, window)],
        strides=(stride,),
        dilation=(dilation,),
        padding=(padding,),
        groups=groups,
    )
    pulled = vjp(graph)
    (y,) = graph.outputs
    for _ in range(2):  # u and x, w drawn apart: an inner product of one draw might agree by chance
        x, w, u = (draw.standard_normal(v.shape) for v in (*graph.inputs, y))
        _, dx, dw = run(pulled, x, w, u)
        other_x, other_w = draw.standard_normal(x.shape), draw.standard_normal(w.shape)
        np.testing.assert_allclose(np.sum(dx * other_x), np.sum(u * run(graph, other_x, w)[0]), rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(np.sum(dw * other_w), np.sum(u * run(graph, x, other_w)[0]), rtol=1e-10, atol=1e-10)


IMAGES = {
    "plain": ((2, 3, 6, 5), (4, 3, 3, 2), {"padding": ((1, 0), (0, 1))}),
    "strided": ((1, 2, 7, 8), (3, 2, 3, 3), {"strides": (2, 3), "padding": ((1, 1), (0, 2))}),
    "dilated groups": ((2, 4, 7, 6), (2, 2, 2, 2), {"dilation": (2, 3), "groups": 2}),
    "strided pointwise": ((2, 3, 6, 5), (4, 3, 1, 1), {"strides": (2, 2)}),
    "pointwise groups": ((2, 4, 3, 2), (6, 2, 1, 1), {"groups": 2}),
    "depthwise": ((2, 3, 6, 6), (3, 1, 3, 2), {"groups": 3, "strides": (2, 1), "padding": ((1, 1), (0, 1))}),
    "phases of different lengths": ((1, 16, 5, 4), (2, 16, 3, 5), {"strides": (2, 3), "padding": ((1, 0), (3, 1))}),
    "volume": ((1, 2, 3, 4, 5), (3, 2, 2, 1, 3), {"strides": (1, 2, 2), "padding": ((0, 1), (0, 0), (1, 1))}),
    "wide padding": ((1, 2, 3, 3), (2, 2, 2, 2), {"padding": ((4, 3), (3, 4)), "strides": (2, 1)}),
}


@pytest.mark.parametrize("name", IMAGES)
def test_convolution_of_images(name: str) -> None:
    x, w, attrs = IMAGES[name]
    spatial = len(x) - 2
    attrs = {"strides": (1,) * spatial, "padding": ((0, 0),) * spatial, "dilation": (1,) * spatial, **attrs}
    check(ops.conv, x, w, order=2, **attrs)


def test_convolution_of_open_sizes() -> None:
    """The batch and the image may be open: the weights' cotangent is then a matrix product for every tap."""
    b, n = Dim("b"), Dim("n")
    attrs = {"strides": (2,), "padding": ((1, 1),), "dilation": (1,)}
    shapes = [(b, 3, n), (4, 3, 3)]
    pulled = vjp(graph_of(ops.conv, shapes, **attrs))
    x, w, u = draw.standard_normal((2, 3, 8)), draw.standard_normal((4, 3, 3)), draw.standard_normal((2, 4, 4))
    known = vjp(graph_of(ops.conv, [x.shape, w.shape], **attrs))
    there = specialise(pulled, {"b": 2, "n": 8})
    for got, want in zip(run(there, x, w, u), run(known, x, w, u), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def multiplications(roots: Sequence[Value]) -> int:
    """Of all contractions that `roots` need, zeros of padding included."""
    total = 0
    for node in toposort(roots):
        if node.op.name == "dot":
            total += math.prod(node.outputs[0].shape) * node.inputs[0].shape[-1]
        elif node.op.name == "conv":
            total += math.prod(node.outputs[0].shape) * math.prod(node.inputs[1].shape[1:])
    return total


@pytest.mark.parametrize(
    ("window", "stride", "groups"), [(1, 1, 1), (1, 2, 1), (3, 1, 1), (3, 1, 8), (3, 2, 1), (4, 2, 1)]
)
def test_cost_of_a_convolutions_gradients(window: int, stride: int, groups: int) -> None:
    """Each of the two costs about one forward pass: nothing is multiplied by zeros stuffed between elements."""
    x = input_value("x", tensor("float32", 4, 64, 28, 28))
    w = input_value("w", tensor("float32", 64, 64 // groups, window, window))
    pad = (window // 2, window // 2)
    y = ops.conv(x, w, strides=(stride,) * 2, padding=(pad, pad), dilation=(1, 1), groups=groups)
    g = input_value("g", y.type)
    for cotangent in pullback([y], [g], [x, w]):
        assert cotangent is not None
        assert multiplications([cotangent]) <= 1.2 * multiplications([y])


def test_depthwise_convolutions_stay_depthwise() -> None:
    """Neither gradient mixes channels."""
    x, w = input_value("x", tensor("float32", 4, 64, 28, 28)), input_value("w", tensor("float32", 64, 1, 3, 3))
    y = ops.conv(x, w, strides=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=64)
    dx, dw = pullback([y], [input_value("g", y.type)], [x, w])
    assert dx is not None
    assert dw is not None
    assert multiplications([dx]) == multiplications([y])
    assert multiplications([dw]) == 0  # products and sums, one for each of the nine taps
    assert sum(node.op.name == "mul" for node in toposort([dw])) == 9


# ------------------------------------------------------------------------------------------------ recurrent layers

T, B, H = 3, 2, 2


def layer(name: str, **attrs: Any) -> tuple[Graph, list[Any]]:
    """A recurrent layer and operands for it."""
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[name]
    steps = attrs.pop("steps", T)
    operands: list[Any] = [draw.standard_normal(s) for s in ((steps, B, gates * H), (gates * H, H), (B, H))]
    if name == "lstm":
        operands.append(draw.standard_normal((B, H)))
    if attrs.get("peephole"):
        operands.append(draw.standard_normal(3 * H))
    if attrs.get("linear_before_reset"):
        operands.append(draw.standard_normal(H))
    if attrs.get("lengths"):
        operands.append(np.array([steps, 1], np.int64))
    inputs = [input_value(f"x{k}", tensor(str(a.dtype), *a.shape)) for k, a in enumerate(operands)]
    return Graph(inputs, ops.REGISTRY[name](*inputs, **attrs)), operands


LAYERS: list[tuple[str, dict[str, Any]]] = [
    ("rnn", {}),
    ("rnn", {"lengths": True, "reverse": True}),
    ("gru", {"reverse": True}),
    ("gru", {"linear_before_reset": True, "lengths": True}),
    ("lstm", {"peephole": True, "reverse": True}),
    ("lstm", {"lengths": True, "clip": 2.0, "input_forget": True}),
    ("lstm", {"steps": 1, "peephole": True}),
    ("gru", {"steps": 1, "lengths": True, "reverse": True}),
]


@pytest.mark.parametrize(("name", "attrs"), LAYERS)
def test_recurrent_layers(name: str, attrs: dict[str, Any]) -> None:
    graph, operands = layer(name, **attrs)
    check_grad(graph, *operands, order=2)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_of_gates(kind: str) -> None:
    graph, operands = layer("rnn", activations=(activation(kind),))
    check_grad(graph, *operands)


def test_operands_that_depend_on_each_other() -> None:
    """The rule of a composed operation is applied to the operands as they are: what connects them is counted once."""
    graph, (xp, r, _) = layer("rnn", steps=1)
    x, weights, _ = graph.inputs
    start = ops.reduce_sum(x, axes=(0,))
    own = Graph([x, weights], ops.REGISTRY["rnn"](x, weights, start))
    check_grad(own, xp, r)


@pytest.mark.parametrize("attrs", [{}, {"reverse": True}, {"lengths": True, "reverse": True}])
def test_a_differentiated_layer_runs_forward_once(attrs: dict[str, Any]) -> None:
    """Each of two layers is one loop forward, whose results the loss and the gradient share, and one backward."""
    graph, operands = layer("gru", **attrs)
    y, _ = graph.outputs
    above = ops.gru(ops.concat(y, y, y, axis=2), *graph.inputs[1:], **attrs)[0]
    both = value_and_grad(Graph(graph.inputs, [ops.reduce_sum(above, axes=(0, 1, 2))]))
    loops = [node for node in both.nodes if node.op.name in ("scan", "gru")]
    assert [node.op.name for node in loops] == ["scan"] * 4
    check_grad(Graph(graph.inputs, [above]), *operands)


# --------------------------------------------------------------------------------------------- made after differentiation


def test_frames() -> None:
    for size, step in itertools.product((1, 3, 4), (1, 2, 5)):
        check(frames, (2, 11), size=size, step=step)


def test_layouts_are_chosen_after_differentiation() -> None:
    graph = graph_of(ops.block, [(1, 8, 3)], size=4)
    with pytest.raises(NotDifferentiableError, match="layouts are chosen after differentiation"):
        vjp(graph)


# ---------------------------------------------------------------------------------------------------------- kernels


def test_kernels_compute_the_gradients() -> None:
    """A network of all of these, compiled: value and gradients as the interpreter has them."""
    inputs = {
        "x": (2, 3, 9, 9), "stem": (16, 3, 3, 3), "depth": (16, 1, 3, 3), "wide": (32, 8, 3, 3), "point": (8, 32, 1, 1),
        "r": (24, 8),
    }  # fmt: skip
    x, stem, depth, wide, point, r = (input_value(k, tensor("float64", *s)) for k, s in inputs.items())
    one, pads = {"dilation": (1, 1)}, ((1, 1), (1, 1))
    y = ops.relu(ops.conv(x, stem, strides=(2, 2), padding=pads, **one))
    y = ops.add(y, ops.conv(y, depth, strides=(1, 1), padding=pads, groups=16, **one))
    y = ops.tanh(ops.conv(y, wide, strides=(2, 2), padding=pads, groups=2, **one))
    y = ops.conv(y, point, strides=(1, 1), padding=((0, 0), (0, 0)), **one)
    rows = ops.reshape(ops.transpose(y, perm=(2, 3, 0, 1)), shape=(9, 2, 8))
    steps = ops.dot(ops.reshape(rows, shape=(18, 8)), ops.transpose(r, perm=(1, 0)))
    hidden, last = ops.gru(ops.reshape(steps, shape=(9, 2, 24)), r, ops.reduce_sum(rows, axes=(0,)), reverse=True)
    loss = ops.add(ops.reduce_sum(ops.mul(hidden, hidden), axes=(0, 1, 2)), ops.reduce_sum(last, axes=(0, 1)))
    both = value_and_grad(Graph([x, stem, depth, wide, point, r], [loss]))
    arrays = [0.3 * draw.standard_normal(s) for s in inputs.values()]
    expected = run(both, *arrays)
    found = graphc.compile(both, threads=1).run(None, dict(zip(inputs, arrays, strict=True)))
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-11)
