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
