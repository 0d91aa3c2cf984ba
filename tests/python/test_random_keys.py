"""Random numbers: functions of their keys alone, the same wherever they are drawn, and distributed as they say."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import random
from graphc.errors import GraphcError
from graphc.ir.interpret import run

KEY = random.key(20)
COUNT = 20_000


def draws(key: Any) -> tuple[Any, ...]:
    """One of everything that is exact."""
    return (
        random.bits(key, (3, 5)),
        random.bits(key, (4,), "uint64"),
        random.split(key, 3),
        random.fold_in(key, 7),
        random.uniform(key, (2, 3)),
        random.uniform(key, (3,), "float64"),
        random.uniform(key, (5,), "float16"),
        random.randint(key, (6,), -5, 100),
        random.permutation(key, 40),
        random.bernoulli(key, 0.3, (9,)),
        random.choice(key, 12, (5,), replace=False),
    )


def rounded(key: Any) -> tuple[Any, ...]:
    """One of everything that goes through functions that round."""
    return (
        random.normal(key, (4,)),
        random.truncated_normal(key, -1.0, 2.0, (4,)),
        random.exponential(key, (4,)),
        random.gumbel(key, (4,), "float64"),
        random.laplace(key, (4,)),
    )


# ------------------------------------------------------------------------------------------------- the same everywhere


def test_threefry_gives_the_published_numbers() -> None:
    """A known answer of Random123 for 20 rounds: the first word of the counter 0 enciphered with the key 0."""
    assert random.bits(random.key(0), ()) == 0x6B200159


@pytest.mark.parametrize("threads", [1, 2])
def test_eager_interpreted_and_compiled_draws_are_the_same(threads: int) -> None:
    eager = draws(KEY)
    for a, b in zip(eager, run(graphc.trace(draws, KEY), KEY), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(eager, graphc.compile(draws, threads=threads)(KEY), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    for a, b in zip(rounded(KEY), graphc.compile(rounded, threads=threads)(KEY), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("function", [draws, rounded])
def test_every_case_under_vmap_draws_what_it_would_alone(function: Callable[[Any], Any]) -> None:
    keys = random.split(KEY, 4)
    many = graphc.vmap(function)(keys)
    for case, key in enumerate(keys):
        for a, b in zip(many, function(key), strict=True):
            np.testing.assert_array_equal(a[case], b)


def test_the_simulated_gpu_draws_the_same() -> None:
    codegen = Path(__file__).parent.parent / "codegen"
    script = (
        "import numpy as np\n"
        "from nests import node_of\n"
        "from simulate import simulate\n"
        "from graphc import ops\n"
        "key = np.array([0, 20], np.uint32)\n"
        "(found,) = simulate(node_of(ops.random_bits, key, shape=(3, 5)), [key])\n"
        "print(*found.ravel())\n"
    )
    path = os.pathsep.join([str(codegen), str(codegen.parent / "ops"), *sys.path])
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.array(done.stdout.split(), np.uint32), random.bits(KEY, (3, 5)).ravel())


def test_keys_of_numbers_arrays_and_traced_numbers_are_the_same() -> None:
    for seed in (0, 20, 2**40 + 3, -1):
        np.testing.assert_array_equal(random.key(seed), random.key(np.int64(seed)))
    np.testing.assert_array_equal(graphc.vmap(random.key)(np.arange(3)), [random.key(k) for k in range(3)])
    folded = graphc.vmap(random.fold_in, in_axes=(None, 0))(KEY, np.arange(50))
    np.testing.assert_array_equal(folded[7], random.fold_in(KEY, 7))
    assert len({tuple(k) for k in [*folded, *random.split(KEY, 50)]}) == 100
    assert not np.array_equal(random.fold_in(random.key(1), 2), random.fold_in(random.key(2), 1))


# ------------------------------------------------------------------------------------------------------- distributions


def distance(sample: np.ndarray, integral: Callable[[float], float]) -> float:
    """Kolmogorov and Smirnov's: sqrt(n) times how far the empirical distribution is from the exact one at most. Above
    1.95 in one of a thousand right samples; the keys are fixed."""
    x = np.sort(np.asarray(sample, np.float64).ravel())
    exact = np.array([integral(v) for v in x])
    n = len(x)
    steps = np.arange(n + 1) / n
    return float(math.sqrt(n) * max(np.max(steps[1:] - exact), np.max(exact - steps[:-1])))


def gauss(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def between(low: float, high: float) -> Callable[[float], float]:
    return lambda x: (gauss(min(max(x, low), high)) - gauss(low)) / (gauss(high) - gauss(low))


DISTRIBUTIONS: dict[str, tuple[Callable[..., Any], Callable[[float], float]]] = {
    "uniform": (random.uniform, lambda x: min(max(x, 0.0), 1.0)),
    "uniform, scaled": (lambda k, s, d: random.uniform(k, s, d, -2.0, 3.0), lambda x: (x + 2) / 5),
    "normal": (random.normal, gauss),
    "exponential": (random.exponential, lambda x: 1 - math.exp(-x)),
    "gumbel": (random.gumbel, lambda x: math.exp(-math.exp(-x))),
    "laplace": (random.laplace, lambda x: 0.5 * math.exp(x) if x < 0 else 1 - 0.5 * math.exp(-x)),
    "truncated": (lambda k, s, d: random.truncated_normal(k, -0.5, 2.0, s, d), between(-0.5, 2.0)),
    "truncated, tail": (lambda k, s, d: random.truncated_normal(k, 2.5, np.inf, s, d), between(2.5, math.inf)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions(name: str, dtype: str) -> None:
    draw, integral = DISTRIBUTIONS[name]
    sample = draw(random.fold_in(KEY, 1), (COUNT // 100, 100), dtype)
    assert sample.dtype == dtype
    assert sample.shape == (COUNT // 100, 100)
    assert distance(sample, integral) < 1.95
    # neighbours are independent: the correlation of n pairs has a deviation of 1 / sqrt(n)
    flat = sample.ravel().astype(np.float64)
    assert abs(np.corrcoef(flat[:-1], flat[1:])[0, 1]) < 4 / math.sqrt(COUNT)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_types(dtype: str) -> None:
    sample = random.uniform(KEY, (COUNT,), dtype).astype(np.float32)
    assert 0 <= sample.min() < 0.01
    assert 0.99 < sample.max() < 1
    assert abs(random.normal(KEY, (COUNT,), dtype).astype(np.float32).std() - 1) < 0.03


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """How far counts are from what is expected, in deviations of that distance."""
    free = counts.size - 1
    return float((np.sum((counts - expected) ** 2 / expected) - free) / math.sqrt(2 * free))


def test_integers() -> None:
    drawn = random.randint(KEY, (COUNT,), -3, 10)
    assert drawn.dtype == np.int64
    counts = np.bincount(drawn + 3, minlength=13)
    assert counts.size == 13
    assert abs(chi_square(counts, np.full(13, COUNT / 13))) < 4
    wide = random.randint(KEY, (1000,), -(2**63), 2**63 - 1)
    assert wide.min() < -(2**62) < 2**62 < wide.max()
    assert random.randint(KEY, (1000,), 0, 256, "uint8").max() > 250
    assert random.randint(KEY, (2,), 5, 5).tolist() == [5, 5]
    low = np.array([0, 10, 20])
    rows = random.randint(KEY, (100, 3), low, low + 5)
    assert (rows.min(0) >= low).all()
    assert (rows.max(0) < low + 5).all()


def test_permutations() -> None:
    assert sorted(random.permutation(KEY, 100)) == list(range(100))
    counts = np.zeros((4, 4))
    for order in graphc.vmap(lambda k: random.permutation(k, 4))(random.split(KEY, 2000)):
        counts[np.arange(4), order] += 1
    assert abs(chi_square(counts.ravel(), np.full(16, 500))) < 4
    table = np.arange(12).reshape(3, 4)
    shuffled = random.shuffle(KEY, table, axis=1)
    assert (shuffled - shuffled[0] == [[0], [4], [8]]).all()
    own = random.permutation(KEY, np.tile(np.arange(20), (3, 1)), axis=1, independent=True)
    assert (np.sort(own, 1) == np.arange(20)).all()
    assert not np.array_equal(own[0], own[1])


def test_choices() -> None:
    p = np.array([0.1, 0.0, 0.6, 0.3])
    for drawn in (
        random.choice(KEY, 4, (COUNT,), p=p),
        random.categorical(
            KEY, np.log(np.float32(p), where=p > 0, out=np.full(4, -np.inf, np.float32)), shape=(COUNT,)
        ),
    ):
        counts = np.bincount(drawn, minlength=4)
        assert counts[1] == 0
        assert abs(chi_square(counts[p > 0], COUNT * p[p > 0])) < 4
    assert abs(random.bernoulli(KEY, 0.3, (COUNT,)).mean() - 0.3) < 4 * math.sqrt(0.21 / COUNT)
    assert random.bernoulli(KEY, np.array([0.0, 1.0])).tolist() == [False, True]
    # without replacement the first of two draws follows p, and the second is another one
    pairs = graphc.vmap(lambda k: random.choice(k, 4, (2,), replace=False, p=p))(random.split(KEY, 2000))
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert abs(chi_square(np.bincount(pairs[:, 0], minlength=4)[p > 0], 2000 * p[p > 0])) < 4
    assert set(random.choice(KEY, np.array([2.5, 7.0]), (20,))) == {2.5, 7.0}
    assert random.categorical(KEY, np.zeros((3, 5)), axis=0).shape == (5,)


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: random.normal(0), r"the key is the number 0; graphc.random.key\(0\) makes a key"),
        (lambda: random.normal(np.zeros(2)), r"the key is float64\[2\], uint32\[2\] is needed"),
        (lambda: random.normal(random.split(KEY)), "graphc.vmap draws for many keys at once"),
        (lambda: random.key(1.5), r"the seed of a key is float32\[\]; an integer of rank 0"),
        (lambda: random.normal(KEY, (2,), "int32"), "random.normal: dtype is int32; a floating point type"),
        (lambda: random.bits(KEY, (2,), "int32"), "random.bits: dtype is int32; uint8, uint16"),
        (lambda: random.randint(KEY, (2,), 0, 5, "float32"), "random.randint: dtype is float32; an integer"),
        (lambda: random.uniform(KEY, (2,), minval=np.zeros(3, np.float32)), "broadcast"),
        (lambda: random.uniform(KEY, "ab"), "the shape of random numbers: 'a' stands in a shape"),
        (lambda: random.permutation(KEY, np.float32(1)), "which has no axis"),
        (lambda: random.choice(KEY, 3, (4,), replace=False), "4 different ones of 3 cannot be drawn"),
        (lambda: random.choice(KEY, 3, (4,), p=np.ones(2)), "3 floats are needed, one a choice"),
    ],
)
def test_errors(draw: Callable[[], Any], message: str) -> None:
    with pytest.raises(GraphcError, match=message):
        draw()
