"""`memory_budget=`: what does not fit is computed again, and the numbers stay the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import OptionError


def arena(function: Any, *args: Any) -> int:
    (plan,) = function.compile(*args).plans
    return int(plan.memory.arena)


def deep(x: Any, weights: Any) -> Any:
    for w in weights:
        x = graphc.sin(x @ w)
    return graphc.sum(x * x)


def long(w: Any, xs: Any) -> Any:
    last, _ = graphc.scan(lambda h, x: (graphc.tanh(h @ w + x), None), xs[0], xs)
    return graphc.sum(last * last)


def test_a_deep_net_fits_a_smaller_budget() -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal((64, 32)), [rng.standard_normal((32, 32)) / 6 for _ in range(24)]
    gradient = graphc.grad(deep)
    plain = graphc.compile(gradient)
    needs = arena(plain, x, weights)
    small = graphc.compile(gradient, memory_budget=int(0.6 * needs))
    assert arena(small, x, weights) <= 0.6 * needs
    np.testing.assert_allclose(small(x, weights), plain(x, weights), rtol=1e-12)
    with pytest.raises(OptionError, match=r"cannot be met .* too many"):
        graphc.compile(gradient, memory_budget="1kB")(x, weights)


def test_a_long_loop_gets_checkpoints() -> None:
    rng = np.random.default_rng(0)
    w, xs = rng.standard_normal((16, 16)) / 4, rng.standard_normal((256, 8, 16))
    gradient = graphc.grad(long)
    plain = graphc.compile(gradient)
    needs = arena(plain, w, xs)
    small = graphc.compile(gradient, memory_budget=needs // 4)
    assert arena(small, w, xs) <= needs // 4
    np.testing.assert_allclose(small(w, xs), plain(w, xs), rtol=1e-12)


def test_a_graph_fits_too() -> None:
    graph = graphc.grad(graphc.trace(deep, graphc.spec((64, 32)), [graphc.spec((32, 32))] * 24), wrt="x")
    needs = graphc.compile(graph).prepare().plans[0].memory.arena
    small = graphc.compile(graph, memory_budget=int(0.6 * needs))
    assert small.prepare().plans[0].memory.arena <= 0.6 * needs


@pytest.mark.parametrize(
    ("text", "number"), [("64MB", 64_000_000), ("1.5 KiB", 1536), ("4096", 4096), ("2G", 2 * 10**9)]
)
def test_budgets_are_read(text: str, number: int) -> None:
    from graphc.options import Options

    assert Options.of(memory_budget=text).memory_budget == number


@pytest.mark.parametrize("bad", ["lots", "-1", 0, 1.5, "64 MX"])
def test_bad_budgets_are_refused(bad: Any) -> None:
    with pytest.raises(OptionError, match="memory_budget"):
        graphc.compile(deep, memory_budget=bad)
