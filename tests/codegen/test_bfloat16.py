"""Contractions of bfloat16: the kernels against the sum of products in float64, for machines with and without the
instruction that adds pairs of them."""

from __future__ import annotations

import re
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from codegen.launching import Y, epilogue, from_blocked, launch, surrounded, to_blocked
from codegen.test_microkernel import innermost_loops, reference_conv

from graphc.codegen.cpu.compile import Target, compile_assembly
from graphc.codegen.cpu.templates.contraction import contraction_arguments, contraction_source
from graphc.codegen.cpu.templates.epilogue import Argument, Epilogue, store_dense
from graphc.kernels import contraction as c
from graphc.kernels.machine import ISAS, Machine, host_machine
from graphc.kernels.problems import ConvProblem, GemmProblem
from graphc.ops.layout import pack_conv_weights, pack_matrix
from graphc.runtime.cache import aligned

HOST = host_machine()
HAS_DOT = HOST.isa.bfloat16_dot
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

#: the host as it is, its half-wide vectors, and machines that take pairs apart
MACHINES = {
    "apart": replace(HOST, isa=replace(HOST.isa, bfloat16_dot=False)),
    "avx2": replace(HOST, isa=ISAS["avx2"]),
    "generic": replace(HOST, isa=ISAS["generic"]),
}
if HAS_DOT:
    MACHINES["dot"] = HOST
    if HOST.narrower is not None:
        MACHINES["dot, half as wide"] = HOST.narrower
EVERY_MACHINE = pytest.mark.parametrize("name", MACHINES)


def numbers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(BFLOAT16)


def close(got: np.ndarray, a: np.ndarray, b: np.ndarray, expected: np.ndarray, steps: int) -> None:
    """Within the error of a sum of so many float32 products, each of magnitude at most max|a| * max|b|."""
    assert got.dtype == np.float32
    assert not np.isnan(got).any()
    largest = float(np.abs(a).max()) * float(np.abs(b).max())
    np.testing.assert_allclose(got, expected, rtol=0, atol=2.0**-24 * largest * (4 + steps))


def run_gemm(p: GemmProblem, s: c.Schedule, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    e = store_dense("float32")
    y = surrounded(np.zeros((p.batch, p.groups, p.m, p.n), np.float32))
    values = c.arguments(p, s) | {
        "x": a, "w": aligned(pack_matrix.reference(b, columns=s.variant.columns)), "offsets": 0, "zeros": 0,
        "y": y, "y_batch": p.groups * p.m * p.n, "y_group": p.m * p.n, "y_vector": s.variant.lanes, "y_row": p.n,
    }  # fmt: skip
    source = contraction_source(s.variant, e)
    launch(
        "contraction", source, contraction_arguments(s.variant, e), values, s.tasks, s.scratch_bytes, min(2, s.tasks)
    )
    assert np.isnan(y.base[:256]).all()
    assert np.isnan(y.base[-256:]).all()
    return y


@EVERY_MACHINE
@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 2), (7, 17, 10), (1, 100, 34), (37, 45, 102), (50, 23, 1100)])
def test_matrix_products(m: int, n: int, k: int, name: str) -> None:
    rng = np.random.default_rng(m * n * k)
    p = GemmProblem(m, n, k, dtype="bfloat16")
    s = c.schedule(p, MACHINES[name], threads=2)
    assert s.variant.dot == name.startswith("dot")
    a, b = surrounded(numbers(rng, m, k)), numbers(rng, k, n)
    close(run_gemm(p, s, a, b)[0, 0], a, b, a.astype(float) @ b.astype(float), k)


@EVERY_MACHINE
def test_left_operands_of_any_strides(name: str) -> None:
    rng = np.random.default_rng(2)
    b = numbers(rng, 22, 21)
    for view, row_stride, step_stride in (
        (numbers(rng, 22, 33).T, 1, 33),
        (numbers(rng, 33, 41)[:, :22], 41, 1),
        (numbers(rng, 33, 66)[:, ::3], 66, 3),
    ):
        p = GemmProblem(33, 21, 22, row_stride=row_stride, step_stride=step_stride, dtype="bfloat16")
        s = c.schedule(p, MACHINES[name], rows=4, vectors=2)
        close(run_gemm(p, s, view, b)[0, 0], view, b, view.astype(float) @ b.astype(float), 22)


@pytest.mark.parametrize("rounds", [1, 2, 3, 100])
def test_sums_survive_panels_that_are_cut_into_blocks(rounds: int) -> None:
    rng = np.random.default_rng(1)
    p = GemmProblem(20, 20, 142, dtype="bfloat16")
    s = replace(c.schedule(p, HOST, rows=4, vectors=2), rounds_per_block=rounds, blocks=71)
    a, b = numbers(rng, 20, 142), numbers(rng, 142, 20)
    close(run_gemm(p, s, a, b)[0, 0], a, b, a.astype(float) @ b.astype(float), 142)


def test_batches_and_groups() -> None:
    rng = np.random.default_rng(3)
    p = GemmProblem(9, 18, 12, batch=2, groups=3, shared=False, dtype="bfloat16")
    s = c.schedule(p, HOST, threads=2)
    a, b = numbers(rng, 2, 3, 9, 12), numbers(rng, 2, 3, 12, 18)
    close(run_gemm(p, s, a, b), a, b, a.astype(float) @ b.astype(float), 12)


def convolutions(block: int) -> dict[str, ConvProblem]:
    options = {"block": block, "dtype": "bfloat16"}
    return {
        "3x3": ConvProblem(2, 16, 24, 7, 9, (3, 3), pads=(1, 1, 1, 1), **options),
        "odd channels": ConvProblem(1, 13, 19, 8, 8, (3, 3), pads=(1, 1, 1, 1), **options),
        "stride and dilation": ConvProblem(1, 16, 16, 15, 17, (3, 3), (2, 1), (2, 3), (2, 3, 2, 3), **options),
        "1x1": ConvProblem(1, 32, 40, 5, 7, (1, 1), **options),
        "groups": ConvProblem(2, 10, 6, 8, 9, (3, 3), pads=(1, 1, 1, 1), groups=3, **options),
        "RGB": ConvProblem(1, 4, 24, 15, 15, (7, 7), stride=(2, 2), pads=(3, 3, 3, 3), block=4, dtype="bfloat16"),
        "RGB, padded before": ConvProblem(1, 4, 24, 21, 21, (7, 7), stride=(2, 2), block=4, dtype="bfloat16"),
    }


def run_conv(
    p: ConvProblem, s: c.Schedule, x: np.ndarray, w: np.ndarray, e: Epilogue, y: np.ndarray, **more: object
) -> None:
    lanes, pixels = s.variant.lanes, p.rows
    blocks = -(-p.filters // lanes)
    values = c.arguments(p, s) | {
        "x": surrounded(to_blocked(x, p.block, p.groups)),
        "w": aligned(pack_conv_weights.reference(w, block=p.block, columns=s.variant.columns, groups=p.groups)),
        "offsets": c.offset_table(p, s.variant), "zeros": np.zeros(p.inner, BFLOAT16),
        "y": y, "y_batch": p.groups * blocks * pixels * lanes, "y_group": blocks * pixels * lanes,
        "y_vector": pixels * lanes, "y_row": lanes,
    } | more  # fmt: skip
    source = contraction_source(s.variant, e)
    launch(
        "contraction", source, contraction_arguments(s.variant, e), values, s.tasks, s.scratch_bytes, min(2, s.tasks)
    )


def blocked_like(p: ConvProblem, lanes: int, dtype: object) -> np.ndarray:
    return surrounded(np.zeros((p.batch, p.groups * -(-p.filters // lanes), *p.output, lanes), dtype))


@EVERY_MACHINE
@pytest.mark.parametrize("case", convolutions(16))
def test_convolutions(case: str, name: str) -> None:
    machine = MACHINES[name]
    lanes = machine.isa.lanes(4)
    p = convolutions(lanes)[case]
    rng = np.random.default_rng(4)
    x = numbers(rng, p.batch, p.groups * p.channels, p.height, p.width)
    w = numbers(rng, p.groups * p.filters, p.channels, *p.kernel)
    s = c.schedule(p, machine, threads=2, rows=4, vectors=2)
    y = blocked_like(p, lanes, np.float32)
    run_conv(p, s, x, w, store_dense("float32"), y)
    expected = reference_conv(p, x.astype(float), w.astype(float))
    close(from_blocked(y, p.groups * p.filters, p.groups), x, w, expected, p.steps)
    assert np.isnan(y.base[:256]).all()
    assert np.isnan(y.base[-256:]).all()


def test_an_epilogue_reads_and_stores_bfloat16() -> None:
    """Rounded to nearest, halves to even, once; NaN and infinity stay what they are."""
    lanes = HOST.isa.lanes(4)
    p = convolutions(lanes)["1x1"]
    rng = np.random.default_rng(5)
    x, w = numbers(rng, 1, 32, 5, 7), np.zeros((40, 32, 1, 1), BFLOAT16)
    s = c.schedule(p, HOST)
    residual = rng.standard_normal((1, 40, 5, 7)).astype(BFLOAT16)
    residual[0, :4, 0, 0] = np.inf, -np.inf, np.nan, -0.0
    e = epilogue(
        f"acc = acc + load(z, {Y}, lanes) * 1.00390625", dtype="bfloat16", arguments=(Argument("z", "bfloat16"),)
    )
    y = blocked_like(p, lanes, BFLOAT16)
    run_conv(p, s, x, w, e, y, z=surrounded(to_blocked(residual, lanes)))
    got, expected = from_blocked(y, 40), (residual.astype("f") * np.float32(1.00390625)).astype(BFLOAT16)
    np.testing.assert_array_equal(got.astype("f"), expected.astype("f"))
    assert (np.unique(got).size) > 100


def test_numbers_half_way_are_rounded_to_even() -> None:
    lanes = HOST.isa.lanes(4)
    p = convolutions(lanes)["1x1"]
    halves = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-8 + 2.0**-20, -1 - 2.0**-8, np.nan], np.float32)
    halves[4:].view(np.int32)[:] = 0x7FFFFFFF  # rounded like a number it would become -0
    bias = np.resize(halves, (1, 40, 1, 1)).astype(np.float32)
    e = epilogue(
        f"acc = acc + load(bias, c * {lanes}, lanes)", dtype="bfloat16", arguments=(Argument("bias", "float32"),)
    )
    y = blocked_like(p, lanes, BFLOAT16)
    x, w = np.zeros((1, 32, 5, 7), BFLOAT16), np.zeros((40, 32, 1, 1), BFLOAT16)
    run_conv(p, c.schedule(p, HOST), x, w, e, y, bias=surrounded(to_blocked(bias, lanes)))
    got = from_blocked(y, 40)[0, :, 2, 3].astype("f")
    np.testing.assert_array_equal(got, np.resize([1, 1 + 2.0**-6, 1 + 2.0**-7, -1, np.nan], 40).astype("f"))


def test_steps_that_do_not_come_in_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="2 steps at once"):
        c.schedule(GemmProblem(3, 4, 5, dtype="bfloat16"), HOST)
    with pytest.raises(ValueError, match="2 steps at once"):
        c.schedule(ConvProblem(1, 3, 8, 4, 4, (1, 1), block=3, dtype="bfloat16"), HOST)


@pytest.mark.parametrize(("rows", "vectors"), [(12, 2), (8, 3), (6, 4)])
@pytest.mark.parametrize(("mode", "inner"), [("rows", 8), ("table", 16)])
def test_loops_are_dot_products_on_registers(rows: int, vectors: int, mode: c.Mode, inner: int) -> None:
    v = c.ContractionVariant(rows, vectors, 16, mode, inner, dtype="bfloat16", dot=True)
    target = Target("cooperlake", "", "x86_64-unknown-linux-gnu")
    loops = innermost_loops(compile_assembly("contraction", contraction_source(v, store_dense()), target))
    loop = max(loops, key=lambda body: sum("vdpbf16ps" in i for i in body))
    dots = [i for i in loop if "vdpbf16ps" in i]
    assert len(dots) == rows * vectors * 4, "four pairs of steps should be unrolled"
    assert not [i for i in loop if re.search(r"%zmm\d+, .*\(", i)], "the loop stores a vector: a register is spilled"
    assert not [i for i in loop if "zmm" in i and "(%rsp)" in i], "the loop reads a vector from the stack"
    assert len(loop) < 2 * len(dots)


def test_a_machine_without_the_instruction_does_not_get_it() -> None:
    v = c.schedule(GemmProblem(64, 64, 64, dtype="bfloat16"), Machine(ISAS["avx2"])).variant
    target = Target("haswell", "", "x86_64-unknown-linux-gnu")
    assembly = compile_assembly("contraction", contraction_source(v, store_dense()), target)
    assert "vdpbf16ps" not in assembly
    assert len(re.findall("vfmadd.*ymm", assembly)) >= 2 * v.rows * v.vectors
