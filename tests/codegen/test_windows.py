"""Depthwise convolutions and pooling through the window template, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from codegen.launching import epilogue, from_blocked, launch, surrounded, to_blocked

from graphc import ops
from graphc.codegen.cpu.templates.epilogue import Epilogue
from graphc.codegen.cpu.templates.windows import window_arguments, window_source
from graphc.ir.graph import Graph, input_value
from graphc.ir.interpret import run as interpret
from graphc.ir.types import tensor
from graphc.kernels import windows as w
from graphc.kernels.machine import host_machine
from graphc.ops.layout import pack_depthwise_weights
from graphc.options import Options
from graphc.passes.pipeline import optimise, prepare
from graphc.runtime.assemble import CompiledGraph
from graphc.runtime.cache import aligned

MACHINE = host_machine()
LANES = MACHINE.isa.lanes(4)


def run(p: w.WindowProblem, x: np.ndarray, weights: np.ndarray | None, e: Epilogue, threads: int = 1) -> np.ndarray:
    s = w.schedule(p, MACHINE, threads)
    high, wide = p.output
    y = surrounded(np.zeros((p.batch, p.blocks, high, wide, p.lanes), p.dtype))
    plane = high * wide * p.lanes
    packed = None if weights is None else pack_depthwise_weights.reference(weights[:, None], size=p.lanes)
    values = w.arguments(p, s) | {
        "x": surrounded(to_blocked(x, p.lanes)),
        "w": np.zeros(64, p.dtype) if packed is None else aligned(packed),
        "y": y, "y_batch": p.blocks * plane, "y_group": 0, "y_vector": plane, "y_row": p.lanes,
    }  # fmt: skip
    launch(
        "windows",
        window_source(s.variant, e),
        window_arguments(s.variant, e),
        values,
        s.tasks,
        s.scratch_bytes,
        min(3, s.tasks),
    )
    assert np.isnan(y.base[:256]).all()
    assert np.isnan(y.base[-256:]).all()
    return from_blocked(y, x.shape[1])


def taps(p: w.WindowProblem, x: np.ndarray, fill: float) -> np.ndarray:
    """Every window's elements: [taps, batch, channels, *output], `fill` outside the image."""
    top, left, bottom, right = p.pads
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    high, wide = p.output
    rows = [u * p.dilation[0] for u in range(p.kernel[0])]
    columns = [v * p.dilation[1] for v in range(p.kernel[1])]
    return np.stack(
        [padded[:, :, u :: p.stride[0], v :: p.stride[1]][:, :, :high, :wide] for u in rows for v in columns]
    )


PROBLEMS: dict[str, tuple[tuple[int, int, int, int], dict[str, Any]]] = {
    "3x3": ((2, 13, 11, 21), {"kernel": (3, 3), "pads": (1, 1, 1, 1)}),
    "narrow": ((1, 8, 7, 7), {"kernel": (3, 3), "pads": (1, 1, 1, 1)}),
    "5x5 stride 2": ((1, 9, 15, 26), {"kernel": (5, 5), "stride": (2, 2), "pads": (2, 2, 2, 2)}),
    "dilated": ((1, 8, 14, 30), {"kernel": (3, 3), "dilation": (2, 3), "pads": (2, 3, 2, 3)}),
    "stride beyond the window": ((1, 8, 13, 40), {"kernel": (2, 2), "stride": (3, 3)}),
    "uneven": ((1, 8, 6, 9), {"kernel": (3, 4), "stride": (1, 2), "pads": (2, 0, 1, 3)}),
    "whole image": ((2, 16, 7, 7), {"kernel": (7, 7)}),
    "wide window": ((1, 8, 9, 33), {"kernel": (3, 22), "stride": (1, 3), "dilation": (1, 2), "pads": (1, 20, 1, 4)}),
    "prime window": ((1, 8, 5, 40), {"kernel": (1, 31), "pads": (0, 15, 0, 15)}),
    "wider border than window": ((1, 8, 4, 6), {"kernel": (2, 2), "pads": (3, 4, 3, 2)}),
    "window larger than the image": ((1, 8, 3, 2), {"kernel": (5, 5), "pads": (2, 2, 2, 2)}),
}


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("combine", ["fma", "add", "max"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_windows(name: str, combine: w.Combine, short: bool) -> None:
    (batch, channels, height, width), options = PROBLEMS[name]
    p = w.WindowProblem(batch, -(-channels // LANES), height, width, lanes=LANES, combine=combine, **options)
    rng = np.random.default_rng(7)
    x = rng.standard_normal((batch, channels, height, width)).astype("f")
    weights = rng.standard_normal((channels, *p.kernel)).astype("f") if combine == "fma" else None
    got = run(p, x, weights, epilogue(short=short), threads=2)
    if combine == "max":
        expected = taps(p, x, -np.inf).max(0)
    else:
        factors = np.ones((1, 1)) if weights is None else weights.reshape(channels, -1).T.astype(np.float64)
        expected = (taps(p, x, 0) * factors[:, None, :, None, None]).sum(0)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_doubles() -> None:
    lanes = MACHINE.isa.lanes(8)
    p = w.WindowProblem(1, 2, 9, 14, (3, 3), pads=(1, 1, 1, 1), lanes=lanes, dtype="float64")
    rng = np.random.default_rng(9)
    x, weights = rng.standard_normal((1, 2 * lanes, 9, 14)), rng.standard_normal((2 * lanes, 3, 3))
    expected = (taps(p, x, 0) * weights.reshape(2 * lanes, -1).T[:, None, :, None, None]).sum(0)
    np.testing.assert_allclose(run(p, x, weights, epilogue(dtype="float64")), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("more", [0, 12], ids=["short", "long"])
def test_pixels_that_two_tiles_share_are_finished_once(more: int) -> None:
    """The result takes over the memory of what is added to it."""
    x = input_value("x", tensor("float32", 1, 2 * LANES, 5, 25))
    rng = np.random.default_rng(3)
    w = rng.standard_normal((2 * LANES, 1, 3, 3)).astype(np.float32)
    y = ops.conv(x, w, strides=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=2 * LANES)
    for _ in range(2):
        y = ops.add(
            ops.conv(ops.exp(y), w, strides=(1, 1), padding=((1, 1),) * 2, dilation=(1, 1), groups=2 * LANES), y
        )
        for _ in range(more):
            y = ops.tanh(y)
        y = ops.minimum(y, 1.0)
    graph, options = Graph([x], [y]), Options.of(threads=1)
    data = rng.standard_normal(x.shape).astype(np.float32)
    (got,) = CompiledGraph(optimise(prepare(graph, options), options), options).run([data])
    np.testing.assert_allclose(got, interpret(graph, data)[0], rtol=1e-4, atol=1e-4)


def test_nan_stays_in_a_maximum() -> None:
    p = w.WindowProblem(1, 1, 6, 19, (3, 3), pads=(1, 1, 1, 1), lanes=LANES, combine="max")
    x = np.random.default_rng(4).standard_normal((1, LANES, 6, 19)).astype("f")
    x[0, 2, 3, 7] = x[0, 5, 0, 18] = np.nan
    got = run(p, x, None, epilogue())
    np.testing.assert_array_equal(np.isnan(got), np.isnan(taps(p, x, -np.inf).max(0)))
    assert np.isnan(got).sum() == 9 + 4
