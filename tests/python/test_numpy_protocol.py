"""NumPy's functions, operators and methods on traced tensors give what they give on arrays."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.ir.interpret import run

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
N, M = rng.integers(1, 9, (3, 4)), rng.integers(1, 5, (3, 4))


def check(f: Any, *arrays: Any) -> None:
    """A function gives the same on arrays, by NumPy, and traced."""
    wanted, found = f(*arrays), run(graphc.trace(f, *arrays), *arrays)
    wanted = wanted if isinstance(wanted, tuple | list) else (wanted,)
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert (a.shape, a.dtype) == (np.shape(b), np.asarray(b).dtype)
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "name", ["add", "sub", "mul", "truediv", "floordiv", "mod", "lt", "le", "gt", "ge", "eq", "ne"]
)
def test_operators(name: str) -> None:
    op = getattr(operator, name)
    check(lambda x, y: (op(x, y), op(x, 2), op(2, x), op(np.float64(2), x), op(Y, x), op(x, Y)), X, Y)


@pytest.mark.parametrize("name", ["and_", "or_", "xor", "lshift", "rshift", "floordiv", "mod", "pow"])
def test_operators_of_integers(name: str) -> None:
    op = getattr(operator, name)
    check(lambda n, m: (op(n, m), op(n, 2), op(2, m), op(N, m), op(n, M)), N, M)


def test_other_operators() -> None:
    check(lambda x, y: (-x, +x, abs(x), x @ y.T, X @ y.T, x @ Y.T, x**2), X, Y)
    check(lambda x: (*divmod(x, 0.7), *divmod(2.0, x), x**2, 2.0**x), np.abs(X))
    check(lambda n: (~n, n & (n > 3), ~(n > 3)), N)


def test_assignment_operators_make_new_tensors() -> None:
    def f(x: Any) -> Any:
        y = x
        y += 1
        y *= 2
        return x, y

    found = run(graphc.trace(f, X), X)
    np.testing.assert_array_equal(found[0], X)
    np.testing.assert_array_equal(found[1], (X + 1) * 2)


METHODS = [
    lambda x: (x.sum(), x.sum(0), x.sum(axis=1, keepdims=True), x.prod(1), x.mean(), x.max(1), x.min()),
    lambda x: (x.var(ddof=1), x.std(0), x.argmax(), x.argmin(1), x.argsort(0), x.cumsum(), x.cumsum(1), x.cumprod(0)),
    lambda x: (
        x.reshape(2, 6),
        x.reshape((4, -1)),
        x.transpose(),
        x.transpose(1, 0),
        x.T,
        x.mT,
        x.ravel(),
        x.flatten(),
    ),
    lambda x: (x.astype(np.int32), x.copy(), x.swapaxes(0, 1), x[None].squeeze(0), x.repeat(2), x.take([1, 2], axis=1)),
    lambda x: (x.clip(-1, 1), x.round(), x.dot(x.T), x.diagonal(1), (x > 0).all(), (x > 0).any(0), *(x > 0).nonzero()),
]
FUNCTIONS = [
    lambda x, y: (np.tanh(x), np.absolute(x), np.arctan2(x, y), np.power(np.exp(x), 2), np.rint(x), np.isfinite(x)),
    lambda x, y: (np.add(x, 1), np.multiply(Y, x), np.maximum(x, y), np.fmin(x, y), np.deg2rad(x), *np.divmod(x, 0.3)),
    lambda x, y: (np.add.reduce(x), np.maximum.reduce(x, axis=1), np.add.accumulate(x, axis=1), np.add.outer(x, y[0])),
    lambda x, y: (np.sum(x), np.sum(x, 0), np.mean(x, axis=1, keepdims=True), np.max(x, 1), np.std(x, ddof=1), np.var(x)),
    lambda x, y: (np.concatenate([x, y]), np.concatenate([x, y], 1), np.stack([x, y], -1), np.hstack([x, y]), np.vstack([x, y])),
    lambda x, y: (np.where(x > 0, x, y), np.where(x > 0, x, 0.0), np.clip(x, -1, 1), np.sort(x, axis=0), np.searchsorted(np.array([-1.0, 0, 1]), x, 'right'), np.argsort(x, 1)),
    lambda x, y: (np.matmul(x, y.T), np.dot(x, y.T), np.tensordot(x, y, 2), np.einsum("ij,ij->i", x, y), np.inner(x, y), np.outer(x, y)),
    lambda x, y: (np.reshape(x, (2, 6)), np.transpose(x), np.squeeze(x[None]), np.expand_dims(x, 1), np.moveaxis(x, 0, 1), np.ravel(x)),
    lambda x, y: (np.flip(x), np.flip(x, 0), np.roll(x, 1, 1), np.repeat(x, 2, 0), np.tile(x, (1, 2)), np.take(x, [0, 2], 1)),
    lambda x, y: (np.cumsum(x), np.cumprod(x, 1), np.diff(x), np.argmax(x), np.argmin(x, 1), np.count_nonzero(x > 0, axis=0)),
    lambda x, y: (np.tril(x), np.triu(x, 1), np.trace(x), np.diagonal(x), np.linalg.norm(x), np.linalg.norm(x, axis=1)),
    lambda x, y: (np.pad(x, 1), np.pad(x, ((1, 0), (0, 2)), mode="edge"), np.zeros_like(x), np.ones_like(x), *np.split(x, 2, 1)),
    lambda x, y: (*np.broadcast_arrays(x, y[0]), np.broadcast_to(x, (2, 3, 4)), *np.meshgrid(x[0], y[0]), np.atleast_1d(x[0, 0])),
    lambda x, y: (np.all(x > 0), np.any(x > 0, axis=1), np.logical_and(x > 0, y > 0), np.swapaxes(x, 0, 1), np.round(x)),
]  # fmt: skip


@pytest.mark.parametrize("f", METHODS)
def test_methods(f: Any) -> None:
    check(f, X)


@pytest.mark.parametrize("f", FUNCTIONS)
def test_functions(f: Any) -> None:
    check(f, X, Y)


def test_shapes_are_known() -> None:
    seen = []
    graphc.trace(lambda x: seen.extend([np.shape(x), np.ndim(x), np.size(x), x.size, len(x), x.device]) or x, X)
    assert seen == [(3, 4), 2, 12, 12, 3, "cpu"]


def test_a_namespace_is_found() -> None:
    def f(x: Any) -> Any:
        xp = x.__array_namespace__(api_version="2024.12")
        return xp.sum(xp.exp(x), axis=0)

    np.testing.assert_allclose(run(graphc.trace(f, X), X)[0], np.exp(X).sum(0), rtol=1e-12)


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda x: np.add(x, 1, out=np.zeros(4)), "out="),
        (lambda x: np.sum(x, out=np.zeros(())), "out="),
        (lambda x: np.add(x, 1, where=np.array([True])), "where="),
        (lambda x: np.sum(x, where=x > 0), "where"),
        (lambda x: np.linalg.svd(x), "svd"),
        (lambda x: np.spacing(x), "spacing"),
        (lambda x: np.add.at(x, 0, 1), "at"),
        (lambda x: np.subtract.reduce(x), "subtract.reduce"),
    ],
)
def test_what_is_not_known_is_named(mistake: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        graphc.trace(mistake, X)
