"""Array functions that are made of several operations have the derivatives of what they compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.testing import check_grad

rng = np.random.default_rng(3)
X, Y = rng.uniform(0.3, 2.0, (3, 4)), rng.uniform(-2.0, -0.3, (3, 4))

FUNCTIONS = {
    "logaddexp": lambda x, y: graphc.logaddexp(x, y),
    "hypot": lambda x, y: graphc.hypot(x, y),
    "log10 and exp2": lambda x, y: graphc.log10(x) + graphc.exp2(y),
    "copysign": lambda x, y: graphc.copysign(x, y),
    "clip": lambda x, y: graphc.clip(x, 0.5, 1.5) * graphc.clip(y, None, -1.0),
    "remainder": lambda x, y: graphc.remainder(y, x),
    "var and std": lambda x, y: graphc.var(x, axis=1, correction=1) + graphc.std(y, axis=1),
    "logsumexp": lambda x, y: graphc.logsumexp(x + y, axis=0),
    "norms": lambda x, y: graphc.norm(x, axis=1) + graphc.norm(y, axis=1, ord=3) + graphc.norm(y, ord=1),
    "einsum": lambda x, y: graphc.einsum("ij,kj,k->i", x, y, y[:, 0]),
    "products": lambda x, y: graphc.tensordot(x, y, axes=((0, 1), (0, 1))) * graphc.trace_of(graphc.outer(x[0], y[0])),
    "movements": lambda x, y: graphc.roll(graphc.diff(x, axis=0, append=y), (1, 2), axis=(0, 1)) * graphc.tile(y[:1], (5, 1)),
    "pad": lambda x, y: graphc.pad(x, 2, mode="reflect")[1:4, ::-1] * graphc.repeat(y, 2, axis=1),
    "running": lambda x, y: graphc.cumulative_prod(x, axis=1, include_initial=True)[:, 1:] / graphc.cumulative_sum(y, axis=0),
    "sorting": lambda x, y: graphc.sort(x, axis=0, descending=True) * graphc.take_along_axis(y, np.array([[2, 0, 1]]), axis=1)[:, :1],
    "updates": lambda x, y: x.at[1:, ::2].set(y[1:, :2]).at[0].mul(y[0]).at[[0, 0], 1].add(y[:2, 1]),
    "softmax": lambda x, y: graphc.softmax(x * 2) * graphc.log_softmax(y, axis=0) + graphc.gelu(x) * graphc.silu(y),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives(name: str) -> None:
    function: Any = FUNCTIONS[name]
    check_grad(function, X, Y)


def test_ties_share_hypot_is_straight_on_an_axis_and_a_stopped_factor_is_a_constant() -> None:
    np.testing.assert_array_equal(graphc.grad(lambda x: graphc.max(x))(np.array([2.0, 1.0, 2.0])), [0.5, 0, 0.5])
    assert graphc.grad(lambda x: graphc.hypot(x, np.zeros(())))(np.float64(3)) == 1
    assert graphc.grad(lambda x: graphc.stop_gradient(x) * x)(np.float64(3)) == 3


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _mish_twice(x: Any) -> Any:
    """The second derivative of x * tanh(log(1 + exp(x)))."""
    t, q = np.tanh(np.logaddexp(x, 0)), sigmoid(x)
    return (1 - t * t) * (2 * q + x * q * (1 - q) - 2 * x * t * q * q)


#: smooth where the maxima and magnitudes that could make them are not: the second derivative, in closed form
SMOOTH = {
    "softplus": (graphc.softplus, lambda x: sigmoid(x) * sigmoid(-x)),
    "log_sigmoid": (graphc.log_sigmoid, lambda x: -sigmoid(x) * sigmoid(-x)),
    "mish": (graphc.mish, _mish_twice),
    "logaddexp": (lambda x: graphc.logaddexp(x, 0 * x), lambda x: sigmoid(x) * sigmoid(-x)),
    "logaddexp of equals": (lambda x: graphc.logaddexp(x, 0.5 * x), lambda x: 0.25 * sigmoid(x / 2) * sigmoid(-x / 2)),
    "hypot": (lambda x: graphc.hypot(x, np.float64(2)), lambda x: 4 / np.hypot(x, 2) ** 3),
    "hypot of equals": (lambda x: graphc.hypot(x, np.float64(1)), lambda x: 1 / np.hypot(x, 1) ** 3),
    "power": (lambda y: np.float64(2) ** (y * 1.0), lambda y: np.log(2) ** 2 * 2.0**y),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_the_second_derivative_of_what_is_smooth(name: str) -> None:
    function: Any
    function, twice = SMOOTH[name]
    slope = graphc.grad(graphc.grad(function))
    at = np.array([-3.0, -1.0, -0.0, 0.0, 1.0, 3.0, 6.0])
    np.testing.assert_allclose([slope(x) for x in at], twice(at), rtol=1e-12)


def test_the_mixed_derivative_of_a_power_with_exponent_0() -> None:
    by_base, by_exponent = (graphc.grad(lambda x, y: x**y, argnums=k) for k in (0, 1))
    assert graphc.grad(by_base, argnums=1)(np.float64(2), np.float64(0)) == 0.5  # x**(y-1) * (1 + y*log(x))
    assert graphc.grad(by_exponent, argnums=0)(np.float64(2), np.float64(0)) == 0.5
    assert [by_base(np.float64(x), np.float64(0)) for x in (0.0, np.inf, np.nan)] == [0, 0, 0]


#: conventions at kinks, which are those of JAX and PyTorch where the two agree: x, the derivative there
KINKS = {
    "abs": ([-1, 0, 1], [-1, 0, 1]),
    "relu": ([-1, 0, 1], [0, 0, 1]),
    "relu6": ([-1, 0, 1, 6, 7], [0, 0, 1, 0, 0]),
    "leaky_relu": ([-1, 0, 1], [0.01, 1, 1]),
    "elu": ([0, 1], [1, 1]),
    "hard_sigmoid": ([-4, -3, 0, 3, 4], [0, 0, 1 / 6, 0, 0]),
    "hard_swish": ([-4, -3, 0, 3, 4], [0, 0, 0.5, 1, 1]),
    "softplus": ([-np.inf, 0, np.inf], [0, 0.5, 1]),
}


@pytest.mark.parametrize("name", KINKS)
def test_conventions_at_kinks_and_ends(name: str) -> None:
    slope, (at, expected) = graphc.grad(getattr(graphc, name)), KINKS[name]
    np.testing.assert_allclose([slope(np.float64(x)) for x in at], expected, rtol=1e-12)


def test_logaddexp_of_equal_infinities() -> None:
    slope = graphc.grad(graphc.logaddexp)
    assert [slope(np.float64(x), np.float64(x)) for x in (-np.inf, 0, np.inf)] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("name", sorted(KINKS.keys() - {"abs"}))  # abs: JAX takes 1 at 0, PyTorch 0
def test_conventions_at_kinks_are_those_of_jax(name: str) -> None:
    jax = pytest.importorskip("jax", reason="JAX is the second opinion")
    slope, theirs, (at, _) = graphc.grad(getattr(graphc, name)), jax.grad(getattr(jax.nn, name)), KINKS[name]
    np.testing.assert_allclose([slope(np.float32(x)) for x in at], [theirs(np.float32(x)) for x in at], rtol=1e-6)
