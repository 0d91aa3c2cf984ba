"""Arrangements of loop nests: layouts, fusions, tasks, aliasing, vector instructions, and the text itself."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from nests import execute, fused, node_of, placed, run_node
from test_nodes import assert_agree

from graphc import ops
from graphc.codegen.cpu import source
from graphc.codegen.cpu.compile import Target, compile_assembly
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Node, Value, constant, input_value
from graphc.ir.interpret import run
from graphc.ir.types import TensorType
from graphc.kernels.lower import lower, lower_copy, why_not
from graphc.kernels.program import Placed
from graphc.ops import functions
from graphc.ops.spec import Layout

RANDOM = np.random.default_rng(5)


def value(*shape: int, name: str = "x", dtype: str = "float32") -> Value:
    return input_value(name, TensorType(dtype_of(dtype), shape))


def numbers(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.asarray(RANDOM.standard_normal(shape) * 4).astype(dtype_of(dtype).numpy)


def fusion_of(build: Callable[..., Value | list[Value]], *values: Value) -> Node:
    outputs = build(*values)
    return fused(Graph(values, outputs if isinstance(outputs, list) else [outputs]))


def check(node: Node, *arrays: np.ndarray, threads: int = 1) -> None:
    """The node's results agree with the interpreter's; computed into memory with canaries around it."""
    expected = run(node.attrs["body"], *arrays)
    rooms = [np.full(e.size + 32, 77, e.dtype) for e in expected]
    results = [room[16 : 16 + e.size].reshape(e.shape) for room, e in zip(rooms, expected, strict=True)]
    run_node(node, *arrays, results=results, threads=threads)
    for got, e, room in zip(results, expected, rooms, strict=True):
        np.testing.assert_allclose(got.astype(np.float64), e.astype(np.float64), rtol=3e-5, atol=3e-5)
        outside = np.concatenate([room[:16], room[16 + e.size :]])
        assert (outside == 77).all(), "a kernel wrote outside its result"


def text_of(node: Node, *arrays: np.ndarray) -> str:
    results = [np.empty(t.static_shape, t.dtype.numpy) for t in node.types]  # type: ignore[union-attr]
    places = [placed(k, a) for k, a in enumerate([*arrays, *results])]
    (launch,) = lower(node, places[: len(arrays)], places[len(arrays) :])
    return source(launch.kernel).text


def softmax(x: Value) -> Value:
    return functions.softmax(x, axis=x.rank - 1)


def layer_norm(x: Value, scale: Value, bias: Value) -> Value:
    return functions.layer_normalization(x, scale, bias, axis=x.rank - 1)[0]


def channel_bias(x: Value, bias: Value) -> Value:
    """A per-channel bias on blocked channels, x[N, C, H, W, c] + bias[C, c], and a relu."""
    _n, c, _h, _w, lanes = x.shape
    return ops.relu(ops.add(x, ops.broadcast_to(ops.reshape(bias, shape=(1, c, 1, 1, lanes)), shape=x.shape)))


def shuffle(x: Value) -> Value:
    """ShuffleNet's channel shuffle."""
    n, c, h, w = x.shape
    parts = ops.reshape(x, shape=(n, 2, c // 2, h, w))
    return ops.reshape(ops.transpose(parts, perm=(0, 2, 1, 3, 4)), shape=(n, c, h, w))


def to_blocks(x: Value) -> Value:
    """NCHW to NCHWc with eight lanes."""
    n, c, h, w = x.shape
    return ops.transpose(ops.reshape(x, shape=(n, c // 8, 8, h, w)), perm=(0, 1, 3, 4, 2))


FUSIONS = {
    "chain": (lambda x, y: ops.sub(ops.mul(ops.relu(ops.add(x, y)), 0.5), ops.exp(ops.neg(ops.abs(y)))), [(3, 37), (3, 37)]),
    "two results": (lambda x: [ops.exp(x), ops.neg(x)], [(5, 9)]),
    "broadcast": (lambda x, b: ops.add(x, b), [(4, 3, 5), (5,)]),
    "outer product": (lambda a, b: ops.mul(ops.broadcast_to(ops.reshape(a, shape=(7, 1)), shape=(7, 13)), b), [(7,), (13,)]),
    "softmax": (softmax, [(4, 6, 33)]),
    "softmax over columns": (lambda x: functions.softmax(x, axis=1), [(3, 6, 40)]),
    "softmax over everything": (lambda x: ops.reshape(softmax(ops.reshape(x, shape=(60,))), shape=(60,)), [(60,)]),
    "layer norm": (layer_norm, [(6, 50), (50,), (50,)]),
    "sum and result": (lambda x: [ops.reduce_sum(ops.exp(x), axes=(1,)), ops.exp(x)], [(6, 20)]),
    "mean and variance": (lambda x: [functions.mean(x, (2, 3), keepdims=True), functions.variance(x, (2, 3), keepdims=True)], [(2, 3, 5, 7)]),
    "blocked bias": (channel_bias, [(1, 3, 5, 4, 8), (3, 8)]),
    "blocked pool": (lambda x: functions.mean(x, (2, 3), keepdims=False), [(2, 3, 5, 4, 8)]),
    "to blocks": (to_blocks, [(1, 24, 7, 9)]),
    "to blocks and more": (lambda x: ops.exp(to_blocks(x)), [(1, 16, 5, 5)]),
    "shuffle": (shuffle, [(2, 12, 5, 3)]),
    "transposed sum": (lambda x, y: ops.add(ops.transpose(x, perm=(1, 0)), y), [(19, 45), (45, 19)]),
    "pad": (lambda x: ops.pad(x, constant(np.float32(3)), low=(1, 2), high=(2, 1)), [(40, 50)]),
    "concat and more": (lambda x, y: ops.relu(ops.concat(x, y, axis=1)), [(30, 20), (30, 51)]),
    "window of a slice": (lambda x: ops.REGISTRY["slice"](x, starts=(4, 1), stops=(0, 9), steps=(-1, 2)), [(6, 10)]),
    "iota": (lambda x: ops.add(x, ops.iota(shape=(6, 10), axis=1, dtype=dtype_of("float32"))), [(6, 10)]),
    "nothing to do": (lambda x: ops.neg(x), [(0, 4)]),
    "sum of nothing": (lambda x: ops.reduce_sum(x, axes=(1,)), [(3, 0)]),
    "sum of exponentials, and they": (lambda x: [ops.exp(x), ops.reduce_sum(ops.exp(x), axes=(1,)), ops.sub(ops.exp(x), x)], [(7, 90)]),
    "a number": (lambda x: ops.exp(x), [()]),
    "ones": (lambda x: ops.reduce_max(ops.neg(x), axes=(1,)), [(4, 1, 6)]),
}  # fmt: skip


@pytest.mark.parametrize("name", FUSIONS)
def test_fusion(name: str) -> None:
    build, shapes = FUSIONS[name]
    node = fusion_of(build, *(value(*s, name=f"x{k}") for k, s in enumerate(shapes)))
    assert why_not(node.attrs["body"]) is None
    check(node, *(numbers(*s) for s in shapes))


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (softmax, (64, 500)),
        (ops.exp, (70001,)),
        (lambda x: ops.reduce_sum(x, axes=(0,)), (300, 700)),
        (lambda x: ops.transpose(x, perm=(1, 0)), (301, 403)),
    ],
)
def test_tasks_cover_everything_once(build: Callable[..., Value], shape: tuple[int, ...]) -> None:
    """Any way of dealing out the tasks gives the same result."""
    x = numbers(*shape)
    node = fusion_of(build, value(*shape))
    (expected,) = run(node.attrs["body"], x)
    result = np.full(expected.shape, np.nan, np.float32)
    places = [placed(0, x), placed(1, result)]
    (launch,) = lower(node, places[:1], places[1:], threads=7)
    assert launch.tasks > 2
    execute(launch, [x.ctypes.data, result.ctypes.data], [(1, launch.tasks), (0, 1)])
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(8, 8), (64, 24), (65, 30), (7, 100), (129, 8)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "float16", "complex128", "bool"])
def test_copy_between_layouts(shape: tuple[int, int], dtype: str) -> None:
    x = numbers(*shape).astype(dtype)
    result = np.zeros(shape[::-1], dtype)
    target = placed(1, result)
    turned = Placed(1, target.dtype, Layout(0, shape, target.strides[::-1]))
    (launch,) = lower_copy(placed(0, x), turned)
    execute(launch, [x.ctypes.data, result.ctypes.data])
    np.testing.assert_array_equal(result, x.T)


def test_strided_operands_and_results() -> None:
    x, room = numbers(9, 14), np.full((6, 20), np.nan, np.float32)
    node = node_of(ops.REGISTRY["exp"], x[::2, 1:13:3])
    result = room[:5, 3:11:2]
    run_node(node, x[::2, 1:13:3], results=[result])
    np.testing.assert_allclose(result, np.exp(x[::2, 1:13:3]), rtol=1e-6)
    assert np.isnan(room[5]).all()
    assert np.isnan(room[:, :3]).all()
    assert np.isnan(room[:, 4]).all()


@pytest.mark.parametrize("name", ["chain", "softmax", "layer norm", "softmax over columns"])
def test_in_place(name: str) -> None:
    """A result may be the memory of an operand that is read only where it is written."""
    build, shapes = FUSIONS[name]
    node = fusion_of(build, *(value(*s, name=f"x{k}") for k, s in enumerate(shapes)))
    arrays = [numbers(*s) for s in shapes]
    (expected,) = run(node.attrs["body"], *arrays)
    places = [placed(k, a) for k, a in enumerate(arrays)]
    (launch,) = lower(node, places, [places[0]])
    assert launch.kernel.aliased
    execute(launch, [a.ctypes.data for a in arrays])
    np.testing.assert_allclose(arrays[0], expected, rtol=3e-5, atol=3e-5)


def test_not_a_number_survives_reductions() -> None:
    x = numbers(5, 100)
    x[1, 50], x[2, 0], x[3, 99] = np.nan, np.inf, -np.inf
    for name, reference in (("reduce_max", np.max), ("reduce_min", np.min), ("reduce_sum", np.sum)):
        (got,) = run_node(node_of(ops.REGISTRY[name], x, axes=(1,)), x)
        np.testing.assert_allclose(got, reference(x, 1), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_integers_wrap_around(dtype: str) -> None:
    info = np.iinfo(dtype)
    x = np.array([info.min, info.max, 1, 0, info.max // 3, 7], dtype)
    y = np.array([info.max, info.max, 0, 0, 5, 3], dtype)
    with np.errstate(all="ignore"):
        for name in ("add", "sub", "mul", "div", "floordiv", "mod", "maximum", "lt"):
            node = node_of(ops.REGISTRY[name], x, y)
            (expected,) = run(fused(Graph(node.inputs, node.outputs)).attrs["body"], x, y)
            np.testing.assert_array_equal(run_node(node, x, y)[0], expected, err_msg=name)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_small_floats_round_to_nearest_even(dtype: str) -> None:
    x = np.concatenate(
        [
            RANDOM.standard_normal(2000).astype(np.float32) * 10.0 ** RANDOM.integers(-9, 6, 2000),
            [np.nan, np.inf, -np.inf, 65520, 65519, 1e-8],
        ]
    )
    x = x.astype(np.float32)
    (got,) = run_node(node_of(ops.REGISTRY["cast"], x, dtype=dtype_of(dtype)), x)
    with np.errstate(all="ignore"):
        expected = x.astype(dtype_of(dtype).numpy)
    assert_agree(got, expected)
    same = got.view(np.uint16) == expected.view(np.uint16)
    assert (same | np.isnan(x)).all()


# -- refusals -----------------------------------------------------------------------------------------------------------


def test_why_not_says_why() -> None:
    x = value(6, 6)
    rows = ops.reduce_sum(x, axes=(1,))
    assert "another point" in (why_not(Graph([x], [ops.add(x, ops.broadcast_to(rows, shape=(6, 6)))])) or "")
    both = [ops.reduce_sum(x, axes=(1,)), ops.reduce_sum(x, axes=(0,))]
    assert "other axes" in (why_not(Graph([x], both)) or "")
    assert "must be an operand" in (why_not(Graph([x], [ops.add(x, constant(numbers(6, 6)))])) or "")
    y = value(6, 6, dtype="complex64")
    assert "complex64" in (why_not(Graph([y], [ops.add(y, y)])) or "")


# -- the text, and what LLVM makes of it ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["chain", "softmax", "softmax over columns", "layer norm", "blocked bias", "to blocks", "transposed sum"]
)
def test_text(name: str, golden: Callable[[str, str], None]) -> None:
    build, shapes = FUSIONS[name]
    node = fusion_of(build, *(value(*s, name=f"x{k}") for k, s in enumerate(shapes)))
    golden(f"{name.replace(' ', '_')}.py", text_of(node, *(numbers(*s) for s in shapes)))


def test_shapes_share_kernels() -> None:
    kernels = set()
    for shape in [(4, 6, 33), (2, 9, 100), (1, 17, 50)]:
        x = numbers(*shape)
        node = fusion_of(softmax, value(*shape))
        (launch,) = lower(node, [placed(0, x)], [placed(1, x)])
        kernels.add(launch.kernel)
    assert len(kernels) == 1


_AVX2 = Target("haswell", "+avx2,+fma", "x86_64-unknown-linux-gnu")


def phases(x: Value) -> Value:
    """Every third of the columns [rows, columns, 16], two zeros before them and enough behind: [3, rows, ..., 16]."""
    rows, columns, lanes = x.shape
    every = -(-(columns + 3) // 3)
    padded = ops.pad(x, constant(np.float32(0)), low=(0, 2, 0), high=(0, 3 * every - columns - 2, 0))
    return ops.transpose(ops.reshape(padded, shape=(rows, every, 3, lanes)), perm=(2, 0, 1, 3))


@pytest.mark.parametrize("columns", [7, 11])
def test_a_guard_that_is_the_same_for_all_lanes_leaves_a_vector(columns: int) -> None:
    x = numbers(2, columns, 16)
    node = fusion_of(phases, value(2, columns, 16))
    text = text_of(node, x)
    assert "else:" in text
    assert "store(out0, " in text
    check(node, x)


@pytest.mark.parametrize(
    ("build", "instructions"),
    [
        (lambda x: ops.add(ops.mul(x, x), 1.0), r"vfmadd\w*ps\s.*ymm"),
        (ops.exp, r"vfmadd\w*ps\s.*ymm"),
        (ops.tanh, r"vdivps\s.*ymm"),
        (ops.log, r"vfmadd\w*ps\s.*ymm"),
        (ops.sin, r"vfmadd\w*pd\s.*ymm"),
        (lambda x: ops.reduce_sum(x, axes=(1,)), r"vaddps\s.*ymm"),
        (lambda x: ops.reduce_max(x, axes=(1,)), r"vmaxps\s.*ymm"),
        (lambda x: ops.reduce_sum(x, axes=(0,)), r"vaddps\s.*ymm"),
        (softmax, r"vfmadd\w*ps\s.*ymm"),
    ],
    ids=["chain", "exp", "tanh", "log", "sin", "row sum", "row maximum", "column sum", "softmax"],
)
def test_inner_loops_are_vectorised(build: Callable[..., Value], instructions: str) -> None:
    x = numbers(40, 50)
    text = text_of(fusion_of(build, value(40, 50)), x)
    name = re.search(r"def (\w+)\(", text)
    assert name is not None
    assembly = compile_assembly(name[1], text, _AVX2)
    assert re.search(instructions, assembly), assembly
    called = set(re.findall(r"call\w*\s+(\S+)", assembly))
    allowed = (name[1], "memset", "memcpy")
    assert all(any(a in c for a in allowed) for c in called), f"the kernel calls {called}"
