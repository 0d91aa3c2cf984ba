"""Random bits against the published vectors of Threefry, and distributions against what they should be."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.errors import GraphTypeError
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, constant
from graphc.ir.interpret import run
from graphc.ops.random import bernoulli, make_key, normal, split_key, threefry2x32, uniform


def _rotate(x: np.ndarray, n: int) -> np.ndarray:
    return (x << np.uint32(n)) | (x >> np.uint32(32 - n))


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [  # known answers distributed with Random123
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_known_answers(key: tuple[int, int], counter: tuple[int, int], expected: tuple[int, int]) -> None:
    words = [np.array([w], np.uint32) for w in (*key, *counter)]
    found = threefry2x32(*words, _rotate, np.uint32)
    assert tuple(int(w[0]) for w in found) == expected


def _draw(value: object) -> np.ndarray:
    return np.asarray(run(Graph([], [value]))[0])  # type: ignore[list-item]


KEY = constant(make_key(42))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_uniform(dtype: str) -> None:
    x = _draw(uniform(KEY, (200, 100), low=-1.0, high=3.0, dtype=dtype_of(dtype)))
    assert x.dtype == dtype
    assert x.min() >= -1
    assert x.max() <= 3
    assert abs(float(x.astype(np.float64).mean()) - 1) < 0.03
    assert len(np.unique(x)) > 1000


def test_normal() -> None:
    x = _draw(normal(KEY, (40000,), mean=2.0, scale=3.0))
    assert np.isfinite(x).all()
    assert abs(x.mean() - 2) < 0.05
    assert abs(x.std() - 3) < 0.05
    assert abs(np.mean(((x - 2) / 3) ** 4) - 3) < 0.2


def test_bernoulli() -> None:
    p = constant(np.repeat(np.float32([0.0, 0.25, 1.0]), 10000))
    counts = _draw(bernoulli(KEY, p)).reshape(3, -1).mean(1)
    np.testing.assert_allclose(counts, [0, 0.25, 1], atol=0.02)
    assert counts[0] == 0
    assert counts[2] == 1


def test_new_keys_are_different_and_the_same_every_time() -> None:
    keys = [_draw(k) for k in split_key(KEY, 4)]
    assert len({k.tobytes() for k in keys}) == 4
    np.testing.assert_array_equal(keys[2], _draw(split_key(KEY, 4)[2]))
    a, b = (_draw(uniform(k, (1000,))) for k in split_key(KEY))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.1


def test_integers_are_no_random_numbers() -> None:
    with pytest.raises(GraphTypeError, match="float"):
        uniform(KEY, (2,), dtype=dtype_of("int32"))
