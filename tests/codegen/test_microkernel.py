"""Matrix products and convolutions through the contraction template, against NumPy."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from codegen.launching import Y, epilogue, from_blocked, launch, surrounded, to_blocked

from graphc.codegen.cpu.compile import Target, compile_assembly
from graphc.codegen.cpu.templates.contraction import contraction_arguments, contraction_source
from graphc.codegen.cpu.templates.epilogue import Argument, Epilogue, store_dense
from graphc.errors import OptionError
from graphc.kernels import contraction as c
from graphc.kernels import machine as machines
from graphc.kernels.machine import ISAS, Machine, host_machine
from graphc.kernels.problems import ConvProblem, GemmProblem
from graphc.ops.layout import pack_conv_weights, pack_matrix
from graphc.runtime.cache import aligned

MACHINE = host_machine()
TOLERANCE = {"float32": 2e-5, "float64": 1e-13}


def close(got: np.ndarray, expected: np.ndarray) -> None:
    assert not np.isnan(got).any()
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE[got.dtype.name] * max(1.0, np.abs(expected).max()))


def run_gemm(p: GemmProblem, s: c.Schedule, a: np.ndarray, packed: np.ndarray, calls: int = 1) -> np.ndarray:
    """`a` is a strided view of the left operands; the result is [batch, groups, m, n]."""
    e, lanes = store_dense(p.dtype), s.variant.lanes
    y = surrounded(np.zeros((p.batch, p.groups, p.m, p.n), p.dtype))
    values = c.arguments(p, s) | {
        "x": a, "w": aligned(packed), "offsets": 0, "zeros": 0,
        "y": y, "y_batch": p.groups * p.m * p.n, "y_group": p.m * p.n, "y_vector": lanes, "y_row": p.n,
    }  # fmt: skip
    arguments = contraction_arguments(s.variant, e)
    launch("contraction", contraction_source(s.variant, e), arguments, values, s.tasks, s.scratch_bytes, calls)
    assert np.isnan(y.base[:256]).all()
    assert np.isnan(y.base[-256:]).all()
    return y


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("m", "n", "k"),
    [
        (1, 1, 1),
        (6, 16, 8),
        (7, 17, 9),
        (1, 1000, 33),
        (37, 45, 101),
        (13, 3, 5),
        (64, 64, 64),
        (50, 23, 1100),
        (5, 40, 3),
    ],
)
def test_matrix_products_of_any_size(m: int, n: int, k: int, dtype: str) -> None:
    rng = np.random.default_rng(m * n * k)
    p = GemmProblem(m, n, k, dtype=dtype)
    s = c.schedule(p, MACHINE)
    a, b = surrounded(rng.standard_normal((m, k)).astype(dtype)), rng.standard_normal((k, n)).astype(dtype)
    close(run_gemm(p, s, a, pack_matrix.reference(b, columns=s.variant.columns))[0, 0], a @ b)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_tasks_cover_a_product_once_however_they_are_cut(threads: int) -> None:
    rng = np.random.default_rng(threads)
    p = GemmProblem(61, 70, 40, batch=2, groups=3, shared=False)
    s = c.schedule(p, MACHINE, threads, rows=4, vectors=2)
    a = rng.standard_normal((2, 3, 61, 40)).astype("f")
    b = rng.standard_normal((2, 3, 40, 70)).astype("f")
    close(run_gemm(p, s, a, pack_matrix.reference(b, columns=s.variant.columns), calls=min(threads, s.tasks)), a @ b)


def test_sums_survive_panels_that_are_cut_into_blocks() -> None:
    rng = np.random.default_rng(1)
    p = GemmProblem(20, 40, 71)  # a whole panel, and one that is not
    s = c.schedule(p, MACHINE, rows=4, vectors=2)
    a, b = rng.standard_normal((20, 71)).astype("f"), rng.standard_normal((71, 40)).astype("f")
    for rounds in (1, 2, 3, 100):
        close(
            run_gemm(
                p,
                replace(s, rounds_per_block=rounds, blocks=71),
                a,
                pack_matrix.reference(b, columns=s.variant.columns),
            )[0, 0],
            a @ b,
        )


def test_a_transposed_left_operand_and_padded_rows() -> None:
    rng = np.random.default_rng(2)
    b = rng.standard_normal((19, 21)).astype("f")
    for view, row_stride, step_stride in (
        (rng.standard_normal((19, 33)).astype("f").T, 1, 33),
        (rng.standard_normal((33, 40)).astype("f")[:, :19], 40, 1),
        (rng.standard_normal((33, 60)).astype("f")[:, ::3][:, :19], 60, 3),
    ):
        p = GemmProblem(33, 21, 19, row_stride=row_stride, step_stride=step_stride)
        s = c.schedule(p, MACHINE)
        close(run_gemm(p, s, view, pack_matrix.reference(b, columns=s.variant.columns))[0, 0], view @ b)


def test_right_operands_shared_by_all_batches() -> None:
    rng = np.random.default_rng(3)
    p = GemmProblem(9, 18, 11, batch=4)
    s = c.schedule(p, MACHINE)
    a, b = rng.standard_normal((4, 9, 11)).astype("f"), rng.standard_normal((11, 18)).astype("f")
    close(run_gemm(p, s, a, pack_matrix.reference(b, columns=s.variant.columns))[:, 0], a @ b)


def reference_conv(p: ConvProblem, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """A convolution by its definition: one tap at a time over the padded image."""
    top, left, bottom, right = p.pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right))).reshape(
        p.batch, p.groups, p.channels, p.height + top + bottom, -1
    )
    high, wide = p.output
    y = np.zeros((p.batch, p.groups, p.filters, high, wide))
    w = w.reshape(p.groups, p.filters, p.channels, *p.kernel).astype(np.float64)
    for u in range(p.kernel[0]):
        for v in range(p.kernel[1]):
            i, j = u * p.dilation[0], v * p.dilation[1]
            part = padded[..., i : i + high * p.stride[0] : p.stride[0], j : j + wide * p.stride[1] : p.stride[1]]
            y += np.einsum("bgchw,gfc->bgfhw", part[..., :high, :wide], w[..., u, v])
    return y.reshape(p.batch, p.groups * p.filters, high, wide)


def run_conv(
    p: ConvProblem, s: c.Schedule, x: np.ndarray, w: np.ndarray, e: Epilogue, more: dict[str, object]
) -> np.ndarray:
    lanes, (high, wide) = s.variant.lanes, p.output
    blocks = -(-p.filters // lanes)
    y = surrounded(np.zeros((p.batch, p.groups * blocks, high, wide, lanes), p.dtype))
    plane = high * wide * lanes
    values = c.arguments(p, s) | {
        "x": surrounded(to_blocked(x, p.block, p.groups)),
        "w": aligned(pack_conv_weights.reference(w, block=p.block, columns=s.variant.columns, groups=p.groups)),
        "offsets": c.offset_table(p, s.variant), "zeros": np.zeros(p.inner, p.dtype),
        "y": y, "y_batch": p.groups * blocks * plane, "y_group": blocks * plane, "y_vector": plane, "y_row": lanes,
    } | more  # fmt: skip
    arguments = contraction_arguments(s.variant, e)
    launch(
        "contraction",
        contraction_source(s.variant, e),
        arguments,
        values,
        s.tasks,
        s.scratch_bytes,
        calls=min(2, s.tasks),
    )
    assert np.isnan(y.base[:256]).all()
    assert np.isnan(y.base[-256:]).all()
    return from_blocked(y, p.groups * p.filters, p.groups)


LANES = MACHINE.isa.lanes(4)
CONVOLUTIONS = {
    "3x3": ConvProblem(1, 16, 16, 7, 9, (3, 3), pads=(1, 1, 1, 1), block=LANES),
    "3x3 batch": ConvProblem(3, 16, 24, 6, 5, (3, 3), pads=(1, 1, 1, 1), block=LANES),
    "odd channels": ConvProblem(1, 13, 19, 8, 8, (3, 3), pads=(1, 1, 1, 1), block=LANES),
    "stride": ConvProblem(1, 16, 16, 11, 13, (3, 3), stride=(2, 2), pads=(1, 1, 1, 1), block=LANES),
    "stride of one axis": ConvProblem(1, 16, 16, 9, 8, (3, 3), stride=(2, 1), pads=(0, 1, 1, 1), block=LANES),
    "dilation": ConvProblem(1, 16, 16, 15, 17, (3, 3), dilation=(2, 3), pads=(2, 3, 2, 3), block=LANES),
    "uneven pads": ConvProblem(1, 16, 16, 6, 7, (5, 2), pads=(0, 1, 4, 0), block=LANES),
    "1x1": ConvProblem(1, 32, 40, 5, 7, (1, 1), block=LANES),
    "1x1 stride": ConvProblem(1, 16, 16, 9, 9, (1, 1), stride=(2, 2), block=LANES),
    "1x7": ConvProblem(1, 16, 16, 6, 12, (1, 7), pads=(0, 3, 0, 3), block=LANES),
    "groups": ConvProblem(2, 10, 6, 8, 9, (3, 3), pads=(1, 1, 1, 1), groups=3, block=LANES),
    "1x1 groups": ConvProblem(1, 16, 8, 5, 5, (1, 1), groups=2, block=LANES),
    "RGB": ConvProblem(1, 3, 24, 15, 15, (7, 7), stride=(2, 2), pads=(3, 3, 3, 3), block=3),
    "RGB, padded before": ConvProblem(1, 3, 24, 21, 21, (7, 7), stride=(2, 2), block=3),
    "grey": ConvProblem(1, 1, 16, 9, 9, (3, 3), pads=(1, 1, 1, 1), block=1),
    "blocks wider than a vector": ConvProblem(1, 40, 16, 7, 7, (3, 3), pads=(1, 1, 1, 1), block=2 * LANES),
    "kernel as large as the image": ConvProblem(1, 16, 16, 5, 5, (5, 5), block=LANES),
    "double": ConvProblem(1, 9, 11, 7, 8, (3, 3), pads=(1, 1, 1, 1), block=MACHINE.isa.lanes(8), dtype="float64"),
}


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str, short: bool) -> None:
    p = CONVOLUTIONS[name]
    rng = np.random.default_rng(4)
    x = rng.standard_normal((p.batch, p.groups * p.channels, p.height, p.width)).astype(p.dtype)
    w = rng.standard_normal((p.groups * p.filters, p.channels, *p.kernel)).astype(p.dtype)
    rows = 4 if name not in ("1x1", "3x3") else None  # few variants to compile, and the model's choice twice
    s = c.schedule(p, MACHINE, threads=2, rows=rows, vectors=2)
    close(run_conv(p, s, x, w, epilogue(dtype=p.dtype, short=short), {}), reference_conv(p, x, w))


@pytest.mark.parametrize("short", [False, True])
def test_an_epilogue_of_bias_residual_and_relu_may_work_in_place(short: bool) -> None:
    p = CONVOLUTIONS["groups"]
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((2, 30, 8, 9)).astype("f"), rng.standard_normal((18, 10, 3, 3)).astype("f")
    bias, residual = rng.standard_normal(18).astype("f"), rng.standard_normal((2, 18, 8, 9)).astype("f")
    s = c.schedule(p, MACHINE, rows=4, vectors=2)
    e = epilogue(
        f"acc = maximum(acc + load(bias, c * {LANES}, lanes) + load(z, {Y}, lanes), 0)",
        arguments=(Argument("bias", "float32"), Argument("z", "float32")),
        imports=("from graphc.codegen.cpu.vector import maximum",),
        short=short,
    )
    blocked_bias = to_blocked(bias[None, :, None, None], LANES, 3)
    expected = np.maximum(reference_conv(p, x, w) + bias[:, None, None] + residual, 0)
    close(run_conv(p, s, x, w, e, {"bias": blocked_bias, "z": to_blocked(residual, LANES, 3)}), expected)
    in_place = to_blocked(residual, LANES, 3)
    run_conv(p, s, x, w, e, {"bias": blocked_bias, "z": in_place, "y": in_place})
    close(from_blocked(in_place, 18, 3), expected)


def test_blocked_layout_round_trip() -> None:
    x = np.arange(2 * 10 * 3 * 4, dtype="f").reshape(2, 10, 3, 4)
    for block, groups in ((8, 1), (4, 2), (3, 5)):
        np.testing.assert_array_equal(from_blocked(to_blocked(x, block, groups), 10, groups), x)


@pytest.mark.parametrize("isa", ISAS)
def test_schedules_fit_the_machine_they_are_made_for(isa: str) -> None:
    machine = Machine(ISAS[isa])
    problems: list[c.Problem] = [
        GemmProblem(512, 512, 512), GemmProblem(1, 4096, 25088), GemmProblem(49, 1000, 2048),
        ConvProblem(1, 512, 512, 7, 7, (3, 3), pads=(1, 1, 1, 1), block=machine.isa.lanes(4)),
        ConvProblem(1, 64, 64, 56, 56, (3, 3), pads=(1, 1, 1, 1), block=machine.isa.lanes(4)),
    ]  # fmt: skip
    for p in problems:
        for threads in (1, 2, 8):
            s = c.schedule(p, machine, threads)
            assert s.variant.rows * s.variant.vectors <= machine.isa.registers
            assert s.row_tasks * s.tiles_per_task * s.variant.rows >= p.rows
            assert s.column_tasks * s.panels_per_task * s.variant.columns >= p.columns
            assert s.tasks >= threads
            assert s.scratch_bytes <= machine.l2_bytes // 8
    big = c.schedule(problems[0], machine).variant
    assert big.rows * big.vectors >= machine.isa.registers // 2, "a large product should use most registers"


def innermost_loops(assembly: str) -> list[list[str]]:
    """Runs of instructions from a label back to a jump to it, without another label between."""
    loops, body, label = [], list[str](), ""
    for line in assembly.splitlines():
        if found := re.match(r"(\.LBB\w+):", line):
            label, body = found[1], []
        elif line.startswith("\t") and not line.startswith("\t."):
            body.append(line)
            if re.match(rf"\tj\w+\t{re.escape(label)}$", line):
                loops.append(body)
    return loops


@pytest.mark.parametrize(("rows", "vectors"), [(12, 2), (8, 3), (6, 4)])
@pytest.mark.parametrize(("mode", "inner"), [("rows", 4), ("rows", 16), ("table", 16)])
def test_avx512_loops_are_fmas_on_registers(rows: int, vectors: int, mode: c.Mode, inner: int) -> None:
    """Such a machine may not be here, but its code can be made and read anywhere."""
    v = c.ContractionVariant(rows, vectors, 16, mode, inner)
    target = Target("skylake-avx512", "", "x86_64-unknown-linux-gnu")
    loops = innermost_loops(compile_assembly("contraction", contraction_source(v, store_dense()), target))
    loop = max(loops, key=lambda body: sum("vfmadd" in i and "zmm" in i for i in body))
    fmas = [i for i in loop if "vfmadd" in i and "zmm" in i]
    assert len(fmas) == rows * vectors * 4, "four steps should be unrolled"
    assert not [i for i in loop if re.search(r"%zmm\d+, .*\(", i)], "the loop stores a vector: a register is spilled"
    assert not [i for i in loop if "zmm" in i and "(%rsp)" in i], "the loop reads a vector from the stack"
    assert len(loop) < 2 * len(fmas)


def test_neon_loops_are_fmas_on_registers() -> None:
    target = Target("apple-m1", "", "aarch64-unknown-linux-gnu")
    v = c.schedule(GemmProblem(512, 512, 512), Machine(ISAS["neon"])).variant
    try:
        assembly = compile_assembly("contraction", contraction_source(v, store_dense()), target)
    except RuntimeError as error:
        pytest.skip(f"this LLVM makes no ARM code: {error}")
    assert len(re.findall(r"\bfmla\.4s|\bfmla\tv\d+\.4s", assembly)) >= v.rows * v.vectors


def test_the_environment_chooses_the_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    machines.host_machine.cache_clear()
    monkeypatch.setenv("GRAPHC_ISA", "neon")
    assert host_machine().isa is ISAS["neon"]
    machines.host_machine.cache_clear()
    monkeypatch.setenv("GRAPHC_ISA", "mmx")
    with pytest.raises(OptionError, match=r"'mmx'.*avx512, avx512vl, avx2, neon, generic"):
        host_machine()
    monkeypatch.undo()
    machines.host_machine.cache_clear()
    assert host_machine() == MACHINE
