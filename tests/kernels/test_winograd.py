"""Minimal filtering: its matrices, what it costs in accuracy, and its kernel in every arrangement of tiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc import ops
from graphc.ir.graph import Graph, Value, constant, input_value
from graphc.ir.interpret import run
from graphc.ir.types import tensor
from graphc.kernels.contraction import schedule
from graphc.kernels.machine import ISAS, Machine, host_machine
from graphc.kernels.problems import ConvProblem
from graphc.kernels.winograd import arguments, plan, pooled, tile_sizes, worthwhile
from graphc.ops.minimal import filtering, multiplications, outputs_possible, points_needed
from graphc.options import Options
from graphc.passes.pipeline import optimise
from graphc.runtime.assemble import CompiledGraph

MACHINES = [Machine(ISAS[name]) for name in ("avx512", "avx2", "neon")]
FILTERINGS = [(m, r, s) for s in (1, 2, 3) for r in range(s, 9) for m in outputs_possible(r, s)]


@pytest.mark.parametrize(("outputs", "taps", "stride"), FILTERINGS)
def test_matrices_give_the_exact_correlation(outputs: int, taps: int, stride: int) -> None:
    f = filtering(outputs, taps, stride)
    assert f.inputs == len(f.evaluate) == len(f.weigh) == multiplications(outputs, taps, stride)
    x = [3 * k * k - 7 for k in range(f.inputs)]
    w = [5 - 2 * k for k in range(taps)]
    at_points = [
        sum(c * v for c, v in zip(row, x, strict=True)) * sum(g * v for g, v in zip(other, w, strict=True))
        for row, other in zip(f.evaluate, f.weigh, strict=True)
    ]
    y = [sum(c * v for c, v in zip(row, at_points, strict=True)) for row in f.interpolate]
    assert y == [sum(x[stride * i + k] * w[k] for k in range(taps)) for i in range(outputs)]


def test_what_filterings_save() -> None:
    saved = {(m, r, s): m * r - multiplications(m, r, s) for m, r, s in FILTERINGS if m > 1}
    assert min(saved.values()) > 0
    assert saved[4, 3, 1] == 12 - 6
    assert saved[2, 3, 2] == 6 - 5
    assert outputs_possible(3) == (2, 4, 6)
    assert outputs_possible(1) == outputs_possible(2, 2) == (1,)


def test_a_filtering_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"F\(4, 4\) needs 7 points; there are points for 3, 4, 5, 6, 8"):
        filtering(4, 4)
    with pytest.raises(ValueError, match="a filter of 1 taps that moves on by 2 leaves inputs out"):
        filtering(2, 1, 2)


#: the largest error relative to the largest output that is promised, by points of the longer axis (graphc.ops.minimal)
BOUNDS = {3: 1e-6, 4: 1e-6, 5: 2e-6, 6: 4e-6, 8: 2e-5}


def _layer(channels: int, filters: int, kernel: tuple[int, int], high: int, wide: int, seed: int) -> tuple[Graph, ...]:
    """A convolution as the sum that it is, its image after a ReLU and its weights of unit gain, and the arrays."""
    rng = np.random.default_rng(seed)
    x = np.maximum(rng.standard_normal((2, channels, high, wide)), 0).astype(np.float32)
    scale = np.sqrt(2 / (channels * kernel[0] * kernel[1]))
    w = (rng.standard_normal((filters, channels, *kernel)) * scale).astype(np.float32)
    return x, w  # type: ignore[return-value]


def _filtered(
    x: np.ndarray, w: np.ndarray, tile: tuple[int, int], padding: object, strides: tuple[int, int] = (1, 1)
) -> Graph:
    """The convolution by minimal filtering with tiles of this size, bias and ReLU behind it."""
    machine = host_machine()
    lanes = machine.isa.lanes(4)
    (n, c, high, wide), (o, _, *kernel) = x.shape, w.shape
    pads = (padding[0][0], padding[1][0], padding[0][1], padding[1][1])  # type: ignore[index]
    problem = ConvProblem(
        n, -(-c // lanes) * lanes, o, high, wide, (kernel[0], kernel[1]), stride=strides, pads=pads, block=lanes
    )
    columns = plan(problem, tile, machine, 1).variant.product.columns
    image = input_value("x", tensor("float32", *x.shape))
    packed = ops.pack_winograd_weights(
        constant(w), tile=tile, block=lanes, columns=columns, groups=1, phases=(1, 1), deep=c, strides=strides
    )
    y: Value = ops.conv_winograd(
        ops.block(image, size=lanes),
        packed,
        kernel=tuple(kernel),
        tile=tile,
        strides=strides,
        padding=padding,
        filters=o,
        lanes=lanes,
    )
    bias = ops.broadcast_to(
        ops.reshape(constant(np.arange(lanes, dtype=np.float32)), shape=(1, 1, 1, 1, lanes)), shape=y.shape
    )
    return Graph([image], [ops.unblock(ops.relu(ops.add(y, bias)), channels=o)])


def _exact(x: np.ndarray, w: np.ndarray, padding: object, strides: tuple[int, int] = (1, 1)) -> np.ndarray:
    image, weights = (input_value(n, tensor("float64", *a.shape)) for n, a in (("x", x), ("w", w)))
    y = ops.conv(image, weights, strides=strides, padding=padding, dilation=(1, 1), groups=1)
    (result,) = run(Graph([image, weights], [y]), x.astype(np.float64), w.astype(np.float64))
    return result  # type: ignore[no-any-return]


TILES = [
    ((2, 2), (3, 3), (1, 1)), ((4, 4), (3, 3), (1, 1)), ((6, 6), (3, 3), (1, 1)), ((1, 4), (1, 3), (1, 1)),
    ((2, 2), (5, 5), (1, 1)), ((4, 2), (3, 5), (1, 1)), ((4, 4), (5, 5), (1, 1)),
    ((2, 2), (3, 3), (2, 2)), ((2, 3), (3, 3), (2, 2)), ((4, 4), (3, 3), (2, 2)), ((3, 2), (5, 5), (2, 2)),
    ((4, 3), (3, 3), (1, 2)), ((1, 5), (1, 3), (1, 2)), ((2, 7), (3, 3), (2, 2)), ((3, 3), (7, 7), (2, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("tile", "kernel", "strides"), TILES, ids=str)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_kernel_agrees_with_float64_within_the_promised_error(
    tile: tuple[int, int], kernel: tuple[int, int], strides: tuple[int, int], threads: int
) -> None:
    padding = tuple((k // 2, k // 2) for k in kernel)
    x, w = _layer(70, 40, kernel, 19, 23, seed=3)  # type: ignore[misc]
    options = Options.of(threads=threads)
    graph = optimise(_filtered(x, w, tile, padding, strides), options)
    (got,) = CompiledGraph(graph, options).run([x])
    lanes = host_machine().isa.lanes(4)
    bias = np.arange(40)[:, None, None] % lanes
    expected = np.maximum(_exact(x, w, padding, strides) + bias, 0)
    points = max(points_needed(*axis) for axis in zip(tile, kernel, strides, strict=True))
    assert np.abs(got - expected).max() <= BOUNDS[points] * np.abs(expected).max()


@pytest.mark.slow
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(1, 3), st.integers(1, 40), st.integers(1, 50), st.integers(1, 20), st.integers(1, 20),
    st.tuples(*[st.integers(0, 3)] * 4), st.integers(1, 3), st.sampled_from([((4, 4), (1, 1)), ((2, 3), (2, 2))]),
)  # fmt: skip
def test_any_size_and_padding(
    batch: int, c: int, o: int, high: int, wide: int, pads: tuple[int, ...], threads: int, kind: tuple[tuple[int, int], ...],
) -> None:  # fmt: skip
    tile, strides = kind
    padding = ((pads[0], pads[1]), (pads[2], pads[3]))
    high, wide = max(high, 3 - sum(padding[0])), max(wide, 3 - sum(padding[1]))
    rng = np.random.default_rng(c)
    x = rng.standard_normal((batch, c, high, wide)).astype(np.float32)
    w = rng.standard_normal((o, c, 3, 3)).astype(np.float32)
    options = Options.of(threads=threads)
    (got,) = CompiledGraph(optimise(_filtered(x, w, tile, padding, strides), options), options).run([x])
    bias = np.arange(o)[:, None, None] % host_machine().isa.lanes(4)
    expected = np.maximum(_exact(x, w, padding, strides) + bias, 0)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * max(1.0, float(np.abs(expected).max())))


problems = st.builds(
    lambda n, c, o, h, w, k, g: ConvProblem(
        n, 16 * c, o, h, w, k[:2], stride=k[2:], pads=(k[0] // 2, k[1] // 2) * 2, groups=g, block=16
    ),
    st.integers(1, 4), st.integers(1, 80), st.integers(1, 1000), st.integers(1, 300), st.integers(1, 300),
    st.sampled_from([
        (3, 3, 1, 1), (1, 3, 1, 1), (3, 1, 1, 1), (5, 5, 1, 1), (1, 7, 1, 1), (7, 7, 1, 1), (2, 2, 1, 1), (3, 5, 1, 1),
        (3, 3, 2, 2), (3, 3, 1, 2), (5, 5, 2, 2), (1, 3, 1, 2), (4, 4, 2, 2), (2, 2, 2, 2),
    ]), st.integers(1, 3),
)  # fmt: skip


@settings(max_examples=60, deadline=None, derandomize=True)
@given(problems, st.sampled_from(MACHINES), st.integers(1, 8))
def test_plans_cover_everything_once(problem: ConvProblem, machine: Machine, threads: int) -> None:
    problem = replace(problem, block=machine.isa.lanes(4))
    for tile in tile_sizes(problem):
        p = plan(problem, tile, machine, threads)
        slots = arguments(problem, p)
        assert (p.row_tasks - 1) * p.tiles_per_task < slots["tiles"] <= p.row_tasks * p.tiles_per_task
        assert (p.column_tasks - 1) * p.panels_per_task < slots["panels"] <= p.column_tasks * p.panels_per_task
        assert p.tasks == problem.groups * p.row_tasks * p.column_tasks
        product = p.variant.product
        assert p.tiles_per_task % product.rows == 0
        assert product == product.shared_by(p.tiles_per_task // product.rows), "row tiles fetch all weights ahead, once"
        assert p.patch_point >= p.tiles_per_task * p.patch_row
        assert p.sum_point >= p.tiles_per_task * product.columns
        assert slots["tiles_high"] * tile[0] >= problem.output[0]
        assert slots["panels"] * product.columns >= problem.filters


@pytest.mark.parametrize("size", range(20, 30))
@pytest.mark.parametrize("pool", [(2, 2), (1, 4), (4, 1)], ids=str)
def test_no_task_is_left_without_windows(size: int, pool: tuple[int, int]) -> None:
    problem = pooled(ConvProblem(1, 64, 64, size, size + 1, (3, 3), pads=(1, 1, 1, 1), block=16), pool)
    p = plan(problem, (4, 4), MACHINES[0], 2)
    slots = arguments(problem, replace(p, variant=replace(p.variant, pool=pool)))
    assert (slots["out_height"], slots["out_width"]) == (size // pool[0], (size + 1) // pool[1])
    assert [o % window for o, window in zip(problem.output, pool, strict=True)] == [0, 0]
    assert (p.row_tasks - 1) * p.tiles_per_task < slots["tiles"] <= p.row_tasks * p.tiles_per_task


def test_it_is_chosen_where_it_saves_and_not_where_it_does_not() -> None:
    machine = MACHINES[0]

    def chosen(problem: ConvProblem) -> bool:
        nbytes = 4 * problem.filters * problem.channels * problem.kernel[0] * problem.kernel[1]
        return worthwhile(problem, nbytes, schedule(problem, machine), machine, threads=1) is not None

    large = ConvProblem(1, 64, 64, 56, 56, (3, 3), pads=(1, 1, 1, 1), block=16)
    assert chosen(large)
    assert chosen(replace(large, channels=128, filters=128, stride=(2, 2)))
    assert not chosen(replace(large, kernel=(2, 2), stride=(2, 2), pads=(0, 0, 0, 0)))  # no pixel is read twice
    assert not chosen(replace(large, dilation=(2, 2)))
    assert not chosen(replace(large, kernel=(1, 1), pads=(0, 0, 0, 0)))
    assert not chosen(replace(large, channels=3, block=3))
    # one pixel: all weights, nothing to share
    assert not chosen(replace(large, channels=512, filters=512, height=1, width=1))
