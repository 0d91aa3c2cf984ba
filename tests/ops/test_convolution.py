"""Convolutions against their definition, one multiplication at a time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.errors import GraphTypeError
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph, input_value
from graphc.ir.interpret import run
from graphc.ir.types import tensor
from graphc.ops import REGISTRY
from graphc.ops.convolution import conv, conv_transpose


def scattered(x: np.ndarray, w: np.ndarray, strides: list[int], dilation: list[int], groups: int) -> np.ndarray:
    """The transposed convolution without padding, as it is defined: every input element adds a stamp of the weights."""
    n, c, *space = x.shape
    _, per_group, *taps = w.shape
    extents = [(d - 1) * s + (k - 1) * e + 1 for d, s, k, e in zip(space, strides, taps, dilation, strict=True)]
    y = np.zeros((n, groups * per_group, *extents), np.float64)
    for channel in range(c):
        group = channel // (c // groups)
        for place in itertools.product(*map(range, space)):
            for tap in itertools.product(*map(range, taps)):
                at = tuple(p * s + t * e for p, s, t, e in zip(place, strides, tap, dilation, strict=True))
                stamp = x[(slice(None), channel, *place)][:, None] * w[(channel, slice(None), *tap)]
                y[(slice(None), slice(group * per_group, (group + 1) * per_group), *at)] += stamp
    return y


@st.composite
def transposed_cases(draw: st.DrawFn) -> dict[str, object]:
    spatial = draw(st.integers(1, 2))

    def each(low: int, high: int) -> list[int]:
        return [draw(st.integers(low, high)) for _ in range(spatial)]

    return {
        "groups": draw(st.integers(1, 2)),
        "channels": (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        "space": each(1, 4),
        "taps": each(1, 4),
        "strides": each(1, 3),
        "dilation": each(1, 2),
        "low": each(0, 2),
        "high": each(0, 2),
        "extra": each(0, 2),
    }


@settings(max_examples=150, deadline=None)
@given(transposed_cases())
def test_transposed_convolutions_are_their_definition(case: dict) -> None:
    groups, (inside, outside) = case["groups"], case["channels"]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, groups * inside, *case["space"])).astype(np.float32)
    w = rng.standard_normal((groups * inside, outside, *case["taps"])).astype(np.float32)
    full = scattered(x, w, case["strides"], case["dilation"], groups)
    full = np.pad(full, [(0, 0), (0, 0), *((0, e) for e in case["extra"])])
    extents = [d - a - b for d, a, b in zip(full.shape[2:], case["low"], case["high"], strict=True)]
    if min(extents) < 1:
        return
    kept = tuple(slice(a, a + n) for a, n in zip(case["low"], extents, strict=True))
    expected = full[(slice(None), slice(None), *kept)]
    for symbolic in (False, True):
        shape = [Dim(f"s{k}") for k, _ in enumerate(case["space"])] if symbolic else case["space"]
        inputs = (
            input_value("x", tensor("float32", 2, groups * inside, *shape)),
            input_value("w", tensor("float32", *w.shape)),
        )
        y = conv_transpose(
            *inputs,
            strides=case["strides"],
            padding=[*zip(case["low"], case["high"], strict=True)],
            dilation=case["dilation"],
            groups=groups,
            output_padding=case["extra"],
        )
        (found,) = run(Graph(inputs, [y]), x, w)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_convolution_is_its_definition() -> None:
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((2, 4, 6, 5)), rng.standard_normal((6, 2, 3, 2))
    reference = REGISTRY["conv"].reference
    assert reference is not None
    found = reference(x, w, strides=(2, 1), padding=((1, 2), (0, 1)), dilation=(1, 2), groups=2)
    padded = np.pad(x, [(0, 0), (0, 0), (1, 2), (0, 1)])
    expected = np.zeros(found.shape)
    for o, i, j in np.ndindex(*found.shape[1:]):
        first = o // 3 * 2
        window = padded[:, first : first + 2, 2 * i : 2 * i + 3, j : j + 3 : 2]
        expected[:, o, i, j] = (window * w[o]).sum((1, 2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("x", "w", "message"),
    [
        ((1, 3, 8, 8), (4, 2, 3, 3), "3 channels"),
        ((1, 3, 8, 8), (4, 3, 3), "same rank"),
        ((3, 8), (4, 3), "at least 3"),
    ],
)
def test_what_does_not_fit_is_refused(x: tuple[int, ...], w: tuple[int, ...], message: str) -> None:
    n = max(len(x) - 2, 0)
    with pytest.raises(GraphTypeError, match=message):
        conv(
            input_value("x", tensor("float32", *x)),
            input_value("w", tensor("float32", *w)),
            strides=(1,) * n,
            padding=((0, 0),) * n,
            dilation=(1,) * n,
        )
