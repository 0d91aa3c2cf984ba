"""Strassen's algorithm: what it costs in accuracy, its kernel in every arrangement, and where it is chosen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc import ops
from graphc.ir.graph import Graph, Value, constant, input_value
from graphc.ir.types import tensor
from graphc.kernels.choice import as_halves
from graphc.kernels.contraction import schedule
from graphc.kernels.machine import ISAS, Machine, host_machine
from graphc.kernels.problems import ConvProblem, GemmProblem
from graphc.kernels.strassen import StrassenProblem, arguments, column_scales, plan, worthwhile
from graphc.options import Options
from graphc.passes.pipeline import optimise, prepare
from graphc.runtime.assemble import CompiledGraph

LANES = host_machine().isa.lanes(4)
#: the largest error relative to the largest result that is promised, of one level and of two
BOUND = {1: 6e-6, 2: 1.2e-5}
levels_both = pytest.mark.parametrize("levels", [1, 2])


def _columns(problem: StrassenProblem, levels: int) -> int:
    return plan(problem, host_machine(), 1, levels).variant.product.columns


def _run(graph: Graph, x: np.ndarray, threads: int) -> np.ndarray:
    options = Options.of(threads=threads)
    (got,) = CompiledGraph(optimise(graph, options), options).run([x])
    return got


def _product(x: np.ndarray, w: np.ndarray, threads: int, levels: int = 1) -> np.ndarray:
    """relu(x @ w + x's first column), by the kernel."""
    k, n = w.shape
    rows = int(np.prod(x.shape[:-1]))
    columns = _columns(StrassenProblem(rows, n, k, dtype=x.dtype.name), levels)
    a = input_value("x", tensor(x.dtype.name, *x.shape))
    steps = 2**levels * StrassenProblem(rows, n, k).rounds(levels) * 16
    packed = ops.pack_strassen_weights(constant(w), columns=columns, channels=steps, guarded=True, levels=levels)
    y: Value = ops.dot_strassen(a, packed, columns_total=n, levels=levels)
    first = ops.slice(a, starts=(0,) * x.ndim, stops=(*x.shape[:-1], 1), steps=(1,) * x.ndim)
    return _run(Graph([a], [ops.relu(ops.add(y, ops.broadcast_to(first, shape=y.shape)))]), x, threads)


def _pointwise(x: np.ndarray, w: np.ndarray, threads: int, levels: int) -> np.ndarray:
    """relu(convolution + its image's first channel), by the kernel."""
    n, c, high, wide = x.shape
    whole = LANES * (4 if levels == 2 else 1)  # the parts of two levels are equal
    channels = max(2 * LANES, -(-c // whole) * whole)
    columns = _columns(StrassenProblem(high * wide, w.shape[0], channels, n, LANES, guarded=False), levels)
    image = input_value("x", tensor("float32", *x.shape))
    padded = ops.pad(image, np.float32(0), low=(0,) * 4, high=(0, channels - c, 0, 0))
    packed = ops.pack_strassen_weights(
        constant(w), columns=columns, channels=-(-channels // (2 * LANES)) * 2 * LANES, guarded=False, levels=levels
    )
    y = ops.conv_strassen(ops.block(padded, size=LANES), packed, filters=w.shape[0], lanes=LANES, levels=levels)
    y = ops.unblock(y, channels=w.shape[0])
    first = ops.slice(image, starts=(0,) * 4, stops=(n, 1, high, wide), steps=(1,) * 4)
    return _run(Graph([image], [ops.relu(ops.add(y, ops.broadcast_to(first, shape=y.shape)))]), x, threads)


def _agree(got: np.ndarray, exact: np.ndarray, scale: float) -> None:
    expected = np.maximum(exact, 0)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= BOUND[2] * scale


@pytest.mark.slow
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(1, 3), st.integers(1, 70), st.integers(2, 7), st.integers(1, 150), st.integers(1, 3), st.integers(1, 2)
)
def test_products_of_any_size(batch: int, m: int, rounds: int, n: int, threads: int, levels: int) -> None:
    rng = np.random.default_rng(m)
    rounds *= 4 if levels == 2 else 1
    x = rng.standard_normal((batch, m, 16 * rounds)).astype(np.float32)
    w = rng.standard_normal((16 * rounds, n)).astype(np.float32)
    exact = x.astype(np.float64) @ w.astype(np.float64)
    _agree(_product(x, w, threads, levels), exact + x[..., :1], np.abs(x).max() * np.abs(w).max() * 16 * rounds)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(1, 2), st.integers(1, 70), st.integers(1, 9), st.integers(1, 9), st.integers(1, 130), st.integers(1, 3),
    st.integers(1, 2),
)  # fmt: skip
def test_pointwise_convolutions_of_any_size(
    batch: int, c: int, high: int, wide: int, o: int, threads: int, levels: int
) -> None:
    rng = np.random.default_rng(c)
    x = rng.standard_normal((batch, c, high, wide)).astype(np.float32)
    w = rng.standard_normal((o, c, 1, 1)).astype(np.float32)
    exact = np.einsum("nchw,oc->nohw", x.astype(np.float64), w[:, :, 0, 0].astype(np.float64))
    _agree(_pointwise(x, w, threads, levels), exact + x[:, :1], np.abs(x).max() * np.abs(w).max() * max(c, 8))


@levels_both
@pytest.mark.parametrize(("m", "k", "n"), [(196, 256, 1024), (49, 2048, 512), (400, 448, 480)])
def test_the_error_is_bounded(m: int, k: int, n: int, levels: int) -> None:
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal((m, k)), 0).astype(np.float32)
    w = (rng.standard_normal((k, n)) * np.sqrt(2 / k)).astype(np.float32)
    exact = np.maximum(x.astype(np.float64) @ w.astype(np.float64) + x[:, :1], 0)
    assert np.abs(_product(x, w, 2, levels) - exact).max() <= BOUND[levels] * np.abs(exact).max()


@levels_both
def test_rows_do_not_spoil_each_other(levels: int) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((90, 128)).astype(np.float32), rng.standard_normal((128, 70)).astype(np.float32)
    x[5] *= 1e9
    x[40] = 0
    x[41, 3], x[77, 100] = np.nan, np.inf
    with np.errstate(all="ignore"):
        exact = np.maximum(x.astype(np.float64) @ w.astype(np.float64) + x[:, :1], 0)
    for threads in (1, 3):
        got = _product(x, w, threads, levels)
        assert np.isnan(got[41]).all()
        np.testing.assert_array_equal(np.isfinite(got[77]), np.isfinite(exact[77]))
        rows = [r for r in range(90) if r not in (41, 77)]
        scale = np.abs(x[rows]).max(axis=1, keepdims=True) * np.abs(w).max() * 128
        assert (np.abs(got[rows] - exact[rows]) <= 64 * BOUND[levels] * scale).all()
        assert (got[40] == 0).all()


def test_columns_that_would_spoil_each_other_are_scaled() -> None:
    rng = np.random.default_rng(0)
    w = rng.standard_normal((128, 96))
    assert (column_scales(w, 32) == 1).all()
    dead = w.copy()
    dead[:, 7] = 0
    assert (column_scales(dead, 32) == 1).all(), "a column of zeros has nothing to lose"
    large = w.copy()
    large[:, 7] *= 1e4
    scales = column_scales(large, 32)
    assert scales is not None
    assert (np.log2(scales) % 1 == 0).all()
    assert (np.abs(np.abs(large / scales).max(axis=0) - 1) <= 0.5).all()
    assert (column_scales(large[:, :32], 32) == 1).all(), "it meets no other column"
    assert (column_scales(large[:, :64], 16, levels=2) != 1).any(), "one of four meets the others"
    w[0, 0] = np.inf
    assert column_scales(w, 32) is None


@pytest.mark.parametrize("pointwise", [False, True])
def test_scaled_columns_keep_their_digits(pointwise: bool) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((900, 1024)).astype(np.float32), rng.standard_normal((1024, 512)).astype(np.float32)
    w *= np.float32(10) ** rng.integers(-6, 6, 512).astype(np.float32)
    if pointwise:
        value = input_value("x", tensor("float32", 1, 1024, 30, 30))
        kernel = constant(np.ascontiguousarray(w.T)[:, :, None, None])
        y = ops.conv(value, kernel, strides=(1, 1), padding=((0, 0),) * 2, dilation=(1, 1), groups=1)
        feed = np.ascontiguousarray(x.T.reshape(1, 1024, 30, 30))
    else:
        value, feed = input_value("x", tensor("float32", 900, 1024)), x
        y = ops.dot(value, constant(w))
    options = Options.of(threads=2)
    compiled = CompiledGraph(optimise(prepare(Graph([value], [y]), options), options), options)
    assert "strassen" in {launch.kernel.family for launch in compiled.program.launches}
    (got,) = compiled.run([feed])
    if pointwise:
        got = got.reshape(512, 900).T
    exact = x.astype(np.float64) @ w.astype(np.float64)
    assert (np.abs(got - exact).max(axis=0) <= BOUND[2] * np.abs(exact).max(axis=0)).all()


@levels_both
def test_it_works_in_float64(levels: int) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((37, 128)), rng.standard_normal((128, 61))
    np.testing.assert_allclose(_product(x, w, 2, levels), np.maximum(x @ w + x[:, :1], 0), atol=1e-12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(1, 3000), st.integers(1, 3000), st.integers(2, 80), st.integers(1, 4),
    st.sampled_from(["avx512", "avx2", "neon"]), st.integers(1, 8), st.integers(1, 2),
)  # fmt: skip
def test_plans_cover_everything_once(
    m: int, n: int, rounds: int, batch: int, isa: str, threads: int, levels: int
) -> None:
    problem = StrassenProblem(m, n, 16 * rounds * (4 if levels == 2 else 1), batch)
    assert problem.applies(levels)
    p = plan(problem, Machine(ISAS[isa]), threads, levels)
    product, slots, tiles = p.variant.product, arguments(problem, p), 2**levels
    groups = -(-m // (tiles * product.rows))
    assert (p.row_tasks - 1) * p.groups_per_task < groups <= p.row_tasks * p.groups_per_task
    assert (p.column_tasks - 1) * p.panels_per_task < slots["panel_groups"] <= p.column_tasks * p.panels_per_task
    assert p.tasks == batch * p.row_tasks * p.column_tasks
    assert slots["panel_groups"] * tiles * product.columns >= n
    assert problem.k <= p.channels < problem.k + 32


@pytest.mark.parametrize("k", [384, 1536])
def test_threads_do_not_share_what_a_shared_cache_gives_each(k: int) -> None:
    """Few rows fit L2 beside 1536 steps, so that weights are read again and again."""
    machine = Machine(replace(ISAS["avx512"], fma_per_cycle=1), l2_bytes=1 << 20)
    one, two = (plan(StrassenProblem(1024, 384, k), machine, threads, 2).cycles for threads in (1, 2))
    assert two < 0.55 * one


def test_it_is_chosen_for_large_products_alone() -> None:
    machine = Machine(replace(ISAS["avx512"], fma_per_cycle=1))

    def chosen(problem: GemmProblem | ConvProblem) -> bool:
        halved = as_halves(problem, machine)
        return halved is not None and worthwhile(halved, schedule(problem, machine, 2), machine, 2) is not None

    assert chosen(GemmProblem(512, 512, 512))
    assert chosen(ConvProblem(1, 128, 512, 28, 28, (1, 1), block=16))
    assert not chosen(GemmProblem(1, 4096, 4096)), "one row has no halves"
    assert not chosen(GemmProblem(512, 512, 500)), "its steps are no whole rounds"
    assert not chosen(GemmProblem(64, 64, 64, batch=12, shared=False)), "every product has a right operand of its own"
    assert not chosen(ConvProblem(1, 256, 256, 14, 14, (1, 1), stride=(2, 2), block=16))
    assert not chosen(ConvProblem(1, 256, 256, 14, 14, (3, 3), block=16))
