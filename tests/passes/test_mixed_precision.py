"""Mixed precision: contractions multiply rounded numbers and sum in float32, and nothing else changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from graphc import ops
from graphc.ir.graph import Graph, Value, constant, input_value
from graphc.ir.interpret import run
from graphc.ir.manager import PassManager
from graphc.ir.types import tensor
from graphc.kernels.build import build
from graphc.kernels.choice import ALGORITHMS
from graphc.kernels.machine import ISAS, Machine, host_machine
from graphc.kernels.program import Place
from graphc.options import Options
from graphc.passes.decompose import decompose
from graphc.passes.fold import fold
from graphc.passes.layout import block_layout
from graphc.passes.mixed_precision import multiply_bfloat16, round_parts, rounded_from
from graphc.passes.pipeline import optimise, pipeline, prepare
from graphc.runtime.assemble import CompiledGraph

rng = np.random.default_rng(1)
AVX512 = Machine(replace(ISAS["avx512"], bfloat16_dot=True))
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def weights(*shape: int, dtype: object = "float32") -> Value:
    return constant(rng.uniform(-1, 1, shape).astype(dtype))


def conv(x: Value, filters: int, kernel: int = 3, groups: int = 1, stride: int = 1) -> Value:
    pad = ((kernel - 1) // 2,) * 2
    w = weights(filters, x.shape[1] // groups, kernel, kernel, dtype=x.dtype.numpy)
    result: Value = ops.conv(x, w, strides=(stride, stride), padding=(pad, pad), dilation=(1, 1), groups=groups)
    return result


def image(channels: int = 16, size: int = 6, dtype: str = "float32") -> Value:
    return input_value("x", tensor(dtype, 2, channels, size, size))


def residual_network() -> Graph:
    x = image(3, 10)
    y = ops.relu(conv(x, 32, stride=2))
    for _ in range(2):
        y = ops.relu(ops.add(conv(y, 32, 1), y))
    return Graph([x], [ops.relu(conv(y, 48, 1))])


def rounded(array: np.ndarray) -> np.ndarray:
    return array.astype(BFLOAT16).astype(np.float32)


def named(graph: Graph) -> Counter[str]:
    inner = [m for n in graph.nodes if n.op.name == "fusion" for m in n.attrs["body"].nodes]
    return Counter(n.op.name for n in (*graph.nodes, *inner))


def arranged(graph: Graph, machine: Machine = AVX512, algorithms: frozenset[str] = ALGORITHMS) -> Graph:
    return fold(block_layout(multiply_bfloat16(decompose(graph)), machine, 2, algorithms))


# --- the pass --------------------------------------------------------------------------------------------------------


def test_a_product_is_one_of_rounded_operands() -> None:
    a, b = (input_value(n, tensor("float32", 5, 5)) for n in "ab")
    x, y = (rng.standard_normal((5, 5)).astype("f") for _ in range(2))
    (got,) = run(multiply_bfloat16(Graph([a, b], [ops.dot(a, b)])), x, y)
    np.testing.assert_array_equal(got, rounded(x) @ rounded(y))


def test_text_after_every_pass(golden: Callable[[str, str], None]) -> None:
    text = []
    options = Options.of(threads=1, precision="bfloat16")
    PassManager(
        pipeline(options, AVX512),
        [lambda p, before, after, _: text.append(f"after {p.name}\n{after}") if after is not before else None],
    ).run(residual_network())
    golden("mixed_precision.txt", "\n".join(text))


@pytest.mark.parametrize("precision", ["strict", "float32"])
def test_only_who_asks_gets_it(precision: str) -> None:
    options = Options.of(precision=precision)
    assert "mixed-precision" not in {p.name for p in pipeline(options, AVX512)}
    graph = optimise(prepare(residual_network(), options), options)
    assert "bfloat16" not in str(graph)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_levels(level: int) -> None:
    graph, options = residual_network(), Options.of(precision="bfloat16", level=level, threads=1, disable="winograd")
    assert "bfloat16" in str(optimise(prepare(graph, options), options))


def test_what_is_no_float32_contraction_stays() -> None:
    x = image()
    wide = input_value("y", tensor("float64", 4, 4))
    graph = Graph([x, wide], [conv(x, 16, groups=16), ops.dot(wide, wide), ops.relu(x)])
    assert multiply_bfloat16(graph) is graph
    again = multiply_bfloat16(residual_network())
    assert multiply_bfloat16(again) is again


def test_what_repeats_or_stands_beside_others_is_rounded_before() -> None:
    x = input_value("x", tensor("float32", 4, 6))
    parts = ops.concat(ops.relu(x), ops.tanh(x), axis=1)
    repeated = ops.broadcast_to(ops.reshape(x, shape=(1, 4, 6)), shape=(3, 4, 6))
    a = round_parts(multiply_bfloat16(Graph([x], [ops.dot(parts, weights(12, 3))]))).outputs[0].node.inputs[0]
    b = multiply_bfloat16(Graph([x], [ops.dot(repeated, weights(3, 6, 5))])).outputs[0].node.inputs[0]
    assert rounded_from(a).node.op.name == "concat"
    assert [u.node.op.name for u in rounded_from(a).node.inputs] == ["cast", "cast"]
    assert rounded_from(b).node.op.name == "broadcast_to"


# --- layout ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", [AVX512, Machine(ISAS["avx2"])], ids=["avx512", "avx2"])
@pytest.mark.parametrize(
    ("channels", "filters", "options"),
    [
        (16, 32, {}), (3, 8, {"kernel": 5, "stride": 2}), (3, 20, {"kernel": 1}), (13, 20, {}), (32, 32, {"groups": 2}),
        (18, 18, {"groups": 6}), (16, 1, {"kernel": 1}), (24, 2, {}),
    ],
)  # fmt: skip
def test_convolutions_become_kernels_of_bfloat16(
    channels: int, filters: int, options: dict[str, Any], machine: Machine, agree: Callable[..., None]
) -> None:
    x = image(channels, 12)
    graph = Graph([x], [conv(x, filters, **options)])
    after = arranged(graph, machine, frozenset())
    blocked = [n for n in after.nodes if n.op.name == "conv_blocked"]
    assert [n.inputs[0].dtype.name for n in blocked] == ["bfloat16"]
    assert blocked[0].outputs[0].dtype.name == "float32"
    agree(multiply_bfloat16(graph), after)


@pytest.mark.parametrize("k", [8, 7, 1])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_products_become_kernels_of_bfloat16(k: int, batch: Sequence[int], agree: Callable[..., None]) -> None:
    a, b = input_value("a", tensor("float32", *batch, 5, k)), input_value("b", tensor("float32", *batch, k, 9))
    graph = Graph([a, b], [ops.dot(a, b)])
    after = arranged(graph)
    (product,) = [n for n in after.nodes if n.op.name == "dot_packed"]
    assert product.inputs[0].dtype.name == "bfloat16"
    assert product.inputs[0].shape[-1] % 2 == 0
    agree(multiply_bfloat16(graph), after)


def test_minimal_filtering_starts_from_numbers_that_were_not_rounded() -> None:
    """Where it is estimated to be faster than multiplying bfloat16, which on AVX2 is no faster than float32."""
    x = image(64, 32)
    graph = Graph([x], [conv(x, 64)])
    after = arranged(graph, Machine(ISAS["avx2"]))
    assert "conv_winograd" in named(after)
    assert "bfloat16" not in str(after)


def test_models_of_bfloat16_use_the_kernels_unless_strict() -> None:
    x = image(16, dtype="bfloat16")
    graph = Graph([x], [conv(x, 16)])
    for precision, kernel in (("float32", "bfloat16"), ("strict", "float32")):
        options = Options.of(precision=precision, threads=1)
        after = optimise(prepare(graph, options), options)
        nodes = [m for n in after.nodes for m in (n.attrs["body"].nodes if n.op.name == "fusion" else (n,))]
        (anchor,) = [n for n in nodes if n.op.name == "conv_blocked"]
        assert anchor.inputs[0].dtype.name == kernel


# --- fusion ----------------------------------------------------------------------------------------------------------


def test_a_residual_is_stored_in_both_forms_by_one_kernel() -> None:
    options = Options.of(precision="bfloat16", threads=1, disable="winograd")
    after = optimise(prepare(residual_network(), options), options)
    groups = [n for n in after.nodes if n.op.name == "fusion" and "conv_blocked" in named(Graph((), n.outputs))]
    assert [[v.dtype.name for v in n.outputs] for n in groups] == [
        ["float32", "bfloat16"], ["float32", "bfloat16"], ["bfloat16"], ["float32"],
    ]  # fmt: skip
    assert not [n for n in after.nodes if n.op.name == "cast" and n.inputs[0].node.op.name != "input"]
    buffers = [b for b in build(after).buffers if b.place is Place.ARENA and b.nbytes == 4 * 2 * 32 * 25]
    assert len(buffers) == 1, "the second residual takes over the memory of the first"


# --- compiled --------------------------------------------------------------------------------------------------------


def mixture() -> Graph:
    """Odd channels, groups, a depthwise layer, a concatenation, a residual, pooling, and a product of odd size."""
    x = image(3, 19)
    y = ops.relu(conv(x, 24, 5, stride=2))
    y = ops.add(ops.relu(conv(y, 24, groups=24)), y)
    y = ops.concat(ops.relu(conv(y, 13, 1)), conv(y, 6, 3, groups=3), axis=1)
    y = ops.add(ops.sigmoid(conv(y, 19, 1)), y)
    y = ops.reshape(y, shape=(2, 19, 100))
    y = ops.dot(y, ops.transpose(y, perm=(0, 2, 1)))
    w = ops.broadcast_to(ops.reshape(weights(19, 33), shape=(1, 19, 33)), shape=(2, 19, 33))
    return Graph([x], [ops.dot(y, w)])


@pytest.mark.parametrize("isa", [None, "avx2", "generic"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("make", [residual_network, mixture])
def test_compiled_programs_give_what_the_definition_gives(
    make: Callable[[], Graph], threads: int, isa: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isa is not None:
        monkeypatch.setenv("GRAPHC_ISA", isa)
    host_machine.cache_clear()
    try:
        graph, options = make(), Options.of(precision="bfloat16", threads=threads, disable="winograd")
        x = rng.uniform(-1, 1, graph.inputs[0].tensor.static_shape).astype("f")
        (got,) = CompiledGraph(optimise(prepare(graph, options), options), options).run([x])
        (defined,), (exact,) = run(multiply_bfloat16(graph), x), run(graph, x)
        scale = np.abs(exact).max()
        error = np.abs(exact - defined).max() / scale
        assert 1e-4 < error < 3e-2, "rounding shows, and is small"
        # the last digit of a sum may decide how the next layer's operand is rounded: a fraction of that error
        assert np.abs(got - defined).max() / scale < error / 2
    finally:
        monkeypatch.undo()
        host_machine.cache_clear()
