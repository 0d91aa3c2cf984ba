"""Optimiser steps of ai.onnx.preview.training."""

from __future__ import annotations

from collections.abc import Sequence

from graphc import ops
from graphc.frontends.onnx.context import Context
from graphc.frontends.onnx.operators._common import FLOAT32, broadcast, reshape, scalar, to
from graphc.frontends.onnx.registry import importer
from graphc.ir.graph import Value

__all__: list[str] = []

_DOMAIN = "ai.onnx.preview.training"


def _groups(c: Context, tensors: Sequence[Value], kinds: int) -> list[tuple[Value, ...]]:
    """The tensors come kind by kind (all parameters, all gradients, ...): one tuple a parameter."""
    if len(tensors) % kinds:
        c.invalid(f"{len(tensors)} tensors do not divide into {kinds} kinds")
    n = len(tensors) // kinds
    return [tuple(tensors[k * n + j] for k in range(kinds)) for j in range(n)]


def _like(v: Value, x: Value) -> Value:
    """A number for every element of x."""
    return broadcast(reshape(to(v, x.dtype), ()), x.shape)


def _in_order(steps: Sequence[Sequence[Value]]) -> list[Value]:
    """The results kind by kind again."""
    return [v for kind in zip(*steps, strict=True) for v in kind]


def _regularised(gradient: Value, parameter: Value, factor: float) -> Value:
    return ops.add(gradient, ops.mul(parameter, scalar(factor, parameter.dtype)))


@importer("Adagrad", 1, domain=_DOMAIN)
def adagrad(c: Context, rate: Value, count: Value, *tensors: Value) -> list[Value]:
    decay, epsilon, norm = c.float("decay_factor", 0.0), c.float("epsilon", 1e-6), c.float("norm_coefficient", 0.0)
    slower = ops.add(ops.mul(to(count, FLOAT32), scalar(decay, FLOAT32)), scalar(1, FLOAT32))
    step = ops.div(to(rate, FLOAT32), slower)
    results = []
    for x, g, h in _groups(c, tensors, 3):
        g = _regularised(g, x, norm)
        squares = ops.add(h, ops.mul(g, g))
        scale = ops.add(ops.sqrt(squares), scalar(epsilon, x.dtype))
        results.append((ops.sub(x, ops.div(ops.mul(_like(step, x), g), scale)), squares))
    return _in_order(results)


@importer("Momentum", 1, domain=_DOMAIN)
def momentum(c: Context, rate: Value, count: Value, *tensors: Value) -> list[Value]:
    alpha, beta, norm = c.float("alpha"), c.float("beta"), c.float("norm_coefficient")
    mode = c.string("mode")
    if mode not in ("standard", "nesterov"):
        c.invalid(f"the mode is {mode!r}; known are standard and nesterov")
    results = []
    for x, g, v in _groups(c, tensors, 3):
        g = _regularised(g, x, norm)
        # in the first step the gradient counts in full
        first = ops.eq(reshape(count, ()), 0)
        weight = ops.select(first, scalar(1, x.dtype), scalar(beta, x.dtype))
        new = ops.add(ops.mul(v, scalar(alpha, x.dtype)), ops.mul(g, _like(weight, x)))
        direction = new if mode == "standard" else ops.add(g, ops.mul(new, scalar(alpha, x.dtype)))
        results.append((ops.sub(x, ops.mul(_like(rate, x), direction)), new))
    return _in_order(results)


@importer("Adam", 1, domain=_DOMAIN)
def adam(c: Context, rate: Value, count: Value, *tensors: Value) -> list[Value]:
    alpha, beta, epsilon = c.float("alpha", 0.9), c.float("beta", 0.999), c.float("epsilon", 1e-6)
    before, after = c.float("norm_coefficient", 0.0), c.float("norm_coefficient_post", 0.0)
    turns = to(reshape(count, ()), FLOAT32)
    one = scalar(1, FLOAT32)
    # the running means start at 0; this takes their bias out
    unbiased = ops.div(
        ops.sqrt(ops.sub(one, ops.pow(scalar(beta, FLOAT32), turns))),
        ops.sub(one, ops.pow(scalar(alpha, FLOAT32), turns)),
    )
    corrected = ops.mul(to(reshape(rate, ()), FLOAT32), ops.select(ops.gt(turns, 0.0), unbiased, one))
    results = []
    for x, g, v, h in _groups(c, tensors, 4):
        g = _regularised(g, x, before)
        mean = ops.add(ops.mul(v, scalar(alpha, x.dtype)), ops.mul(g, scalar(1 - alpha, x.dtype)))
        square = ops.add(ops.mul(h, scalar(beta, x.dtype)), ops.mul(ops.mul(g, g), scalar(1 - beta, x.dtype)))
        scale = ops.add(ops.sqrt(square), scalar(epsilon, x.dtype))
        new = ops.sub(x, ops.div(ops.mul(_like(corrected, x), mean), scale))
        results.append((ops.mul(new, scalar(1 - after, x.dtype)), mean, square))
    return _in_order(results)
