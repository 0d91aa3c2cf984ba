"""Blocked layouts: every transfer keeps the meaning and leaves no conversion between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from blocking import AVX2, MACHINES, arranged, channels, conv, image, weights

from graphc import ops
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Value, constant, input_value
from graphc.ir.trace import trace
from graphc.ir.types import tensor
from graphc.kernels.choice import ALGORITHMS
from graphc.kernels.machine import ISAS, Machine
from graphc.passes.layout import block_layout, pack_only


def conversions(graph: Graph) -> tuple[int, int]:
    names = Counter(n.op.name for n in graph.nodes)
    return names["block"], names["unblock"]


@MACHINES
@pytest.mark.parametrize(
    ("c", "filters", "options"),
    [
        (16, 32, {}),
        (3, 8, {"kernel": 5, "stride": 2}),
        (12, 20, {"dilation": 2}),
        (16, 1, {"kernel": 1}),
        (1, 5, {}),
        (32, 32, {"groups": 2}),
        (12, 18, {"groups": 3}),
        (12, 12, {"groups": 12}),
        (12, 24, {"groups": 12}),
    ],
)
def test_convolutions(
    c: int, filters: int, options: dict[str, Any], machine: Machine, agree: Callable[..., None]
) -> None:
    x = image(c)
    graph = Graph([x], [conv(x, filters, **options)])
    after = arranged(graph, machine)
    assert not any(n.op.name == "conv" for n in after.nodes)
    assert not any(n.op.name.startswith("pack") for n in after.nodes), "constant weights are packed at compile time"
    agree(graph, after)
    agree(graph, pack_only(graph, machine, 1))


@MACHINES
@pytest.mark.parametrize("filters", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_few_filters_share_a_row_of_pixels(
    filters: int, stride: int, machine: Machine, agree: Callable[..., None]
) -> None:
    x = image(16, h=6, w=133)
    y = conv(x, filters, kernel=7, stride=stride)
    graph = Graph([x], [ops.sigmoid(ops.add(y, channels(y)))])
    after = arranged(graph, machine, frozenset())
    (found,) = [n for n in after.nodes if n.op.name == "conv_blocked"]
    assert (found.attrs["strides"][1] > stride) == (2 * filters <= machine.isa.lanes(4))
    agree(graph, after)


@MACHINES
def test_minimal_filtering_is_for_constant_weights_and_whole_blocks(
    machine: Machine, agree: Callable[..., None]
) -> None:
    def names(y: Value, inputs: list[Value], algorithms: frozenset[str] = ALGORITHMS) -> set[str]:
        graph = Graph(inputs, [y])
        after = arranged(graph, machine, algorithms)
        agree(graph, after, rtol=1e-4)
        return {n.op.name for n in after.nodes if n.op.name in ("conv_winograd", "conv_blocked")}

    x = image(64, h=20, w=21)
    assert names(conv(x, 32), [x]) == {"conv_winograd"}
    assert names(conv(x, 64, groups=2), [x]) == {"conv_winograd"}
    assert names(conv(x, 32), [x], frozenset()) == {"conv_blocked"}
    assert names(conv(x, 64, stride=2), [x]) == {"conv_winograd"}, "of that stride"
    few = image(3, h=40, w=41)
    assert names(conv(few, 32, kernel=7, stride=2), [few]) == {"conv_winograd"}, "by the phases of the image"
    assert names(conv(x, 32, dilation=2), [x]) == {"conv_winograd"}, "over the phases of the image"
    assert names(conv(x, 32, dilation=7), [x]) == {"conv_blocked"}, "phases of three pixels"
    assert names(conv(x, 32, kernel=1), [x]) == {"conv_blocked"}
    w = input_value("w", tensor("float32", 32, 64, 3, 3))
    y = ops.conv(x, w, strides=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1)
    assert names(y, [x, w]) == {"conv_blocked"}


@MACHINES
@pytest.mark.parametrize(("each", "made", "groups"), [(4, 4, 8), (4, 2, 8), (2, 2, 24), (3, 3, 8), (4, 4, 3)])
@pytest.mark.parametrize("stride", [1, 2])
def test_narrow_groups_become_wider_ones(
    each: int, made: int, groups: int, stride: int, machine: Machine, agree: Callable[..., None]
) -> None:
    x = image(each * groups, h=13, w=12)
    graph = Graph([x], [conv(ops.relu(conv(x, made * groups, groups=groups, stride=stride)), 16, kernel=1)])
    after = arranged(graph, machine)
    agree(graph, after, rtol=1e-4)
    agree(graph, arranged(graph, machine, frozenset()))
    lanes = machine.isa.lanes(4)
    if made < lanes and lanes % made == 0 and groups % (lanes // made) == 0:
        assert conversions(after) == (1, 1), "whole blocks"
        packed = [n.inputs[1] for n in after.nodes if n.op.name in ("conv_blocked", "conv_winograd")]
        assert groups * made // lanes in {w.shape[0] for w in packed}
    else:
        assert groups in {n.inputs[1].shape[0] for n in after.nodes if n.op.name.startswith("conv_")}


@MACHINES
@pytest.mark.parametrize("shape", [(2, 40, 33, 28), (1, 64, 1, 90), (1, 64, 23, 31)], ids=str)
@pytest.mark.parametrize("dilation", [(2, 2), (3, 1), (1, 4), (2, 3)], ids=str)
@pytest.mark.parametrize("padding", [0, 1, 3])
def test_dilated_windows_filter_every_phase(
    shape: tuple[int, ...], dilation: tuple[int, int], padding: int, machine: Machine, agree: Callable[..., None]
) -> None:
    x = input_value("x", tensor("float32", *shape))
    kernel = tuple(3 if d > 2 else 1 for d in shape[2:])
    low_high = tuple((padding * d, padding) if k > 1 else (0, 0) for k, d in zip(kernel, dilation, strict=True))
    w = weights(48, shape[1], *kernel)
    y = ops.conv(ops.relu(x), w, strides=(1, 1), padding=low_high, dilation=dilation, groups=1)
    y = ops.relu(ops.add(y, channels(y)))
    graph = Graph([x], [conv(y, 32)])
    after = arranged(graph, machine)
    filtered = [n for n in after.nodes if n.op.name == "conv_winograd"]
    phases = [n for n in filtered if n.outputs[0].shape[0] > shape[0]]
    if all(d == 1 or k == 1 for d, k in zip(dilation, kernel, strict=True)):
        assert not phases
    agree(graph, after, rtol=1e-4)
    assert conversions(after) == (1, 1)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32"])
def test_element_types(dtype: str, agree: Callable[..., None]) -> None:
    x = image(4, dtype=dtype)
    graph = Graph([x], [conv(x, 6)])
    agree(graph, arranged(graph), rtol=1e-2 if dtype == "float16" else 1e-5)


@pytest.mark.parametrize("rank", [1, 3])
def test_other_dimensions(rank: int, agree: Callable[..., None]) -> None:
    x = input_value("x", tensor("float32", 2, 8, *(7, 6, 5)[:rank]))
    graph = Graph([x], [ops.relu(conv(ops.relu(conv(x, 16, stride=2)), 8))])
    after = arranged(graph)
    agree(graph, after)
    if rank == 1:
        assert conversions(after) == (1, 1)


def window(x: Value, combine: str, **changes: Any) -> Value:
    n = x.rank - 2
    attrs = {"window": (3,) * n, "strides": (2,) * n, "padding": ((1, 1),) * n, "dilation": (1,) * n, **changes}
    result: Value = ops.reduce_window(x, combine=combine, axes=tuple(range(2, x.rank)), **attrs)
    return result


def neighbours(y: Value) -> Value:
    result: Value = ops.reduce_window(
        y, combine="add", axes=(1,), window=(4,), strides=(1,), padding=((1, 2),), dilation=(1,)
    )
    return result


def squeeze_and_excite(y: Value) -> Value:
    pooled = ops.reshape(ops.reduce_sum(y, axes=(2, 3)), shape=(*y.shape[:2], 1, 1))
    gate = ops.sigmoid(conv(ops.relu(conv(pooled, 8, kernel=1)), y.shape[1], kernel=1))
    return ops.mul(y, ops.broadcast_to(gate, shape=y.shape))


BETWEEN: dict[str, Callable[[Value], Value]] = {
    "bias and relu": lambda y: ops.relu(ops.add(y, channels(y))),
    "single numbers": lambda y: ops.minimum(ops.maximum(ops.mul(y, 0.5), 0.0), 6.0),
    "residual": lambda y: ops.add(y, conv(y, y.shape[1])),
    "maximum pooling": lambda y: window(y, "maximum"),
    "average pooling": lambda y: ops.mul(window(y, "add"), 1 / 9),
    "concatenation": lambda y: ops.concat(y, conv(y, 8, kernel=1), axis=1),
    "spatial concatenation": lambda y: ops.concat(y, ops.relu(y), axis=3),
    "split": lambda y: ops.slice(y, starts=(0, 8, 0, 0), stops=(*y.shape,), steps=(1, 1, 1, 1)),
    "spatial slice": lambda y: ops.slice(y, starts=(0, 0, 1, 0), stops=(*y.shape,), steps=(1, 1, 2, 1)),
    "padding": lambda y: ops.pad(y, np.float32(1), low=(0, 0, 1, 0), high=(0, 0, 0, 2)),
    "nearest neighbour": lambda y: ops.gather(y, constant(np.repeat(np.arange(y.shape[2]), 2)), axis=2),
    "squeeze and excite": squeeze_and_excite,
    "response normalisation": lambda y: ops.mul(y, ops.rsqrt(ops.add(neighbours(ops.mul(y, y)), 1.0))),
    "transposed image": lambda y: ops.transpose(y, perm=(0, 1, 3, 2)),
    "flat pixels": lambda y: ops.reshape(
        ops.relu(ops.reshape(y, shape=(*y.shape[:2], y.shape[2] * y.shape[3]))), shape=y.shape
    ),
    "norm over channels": lambda y: ops.sub(
        y,
        ops.broadcast_to(ops.reshape(ops.reduce_max(y, axes=(1,)), shape=(y.shape[0], 1, *y.shape[2:])), shape=y.shape),
    ),
    "by pixel": lambda y: ops.mul(y, ops.broadcast_to(weights(*y.shape[2:]), shape=y.shape)),
    "selection": lambda y: ops.select(ops.lt(y, 0.0), ops.mul(y, 0.1), y),
}


@MACHINES
@pytest.mark.parametrize("name", BETWEEN)
def test_no_conversion_between_convolutions(name: str, machine: Machine, agree: Callable[..., None]) -> None:
    x = image(16)
    graph = Graph([x], [conv(BETWEEN[name](conv(x, 16)), 16)])
    after = arranged(graph, machine)
    agree(graph, after)
    free = machine is AVX2 or name not in ("concatenation", "split")  # eight channels are half a block there
    if free:
        assert conversions(after) == (1, 1), str(after)


def test_an_operand_from_outside_is_converted_once(agree: Callable[..., None]) -> None:
    x = image(16)
    other = input_value("other", x.type)
    y = conv(x, 16)
    graph = Graph([x, other], [conv(ops.add(y, other), 8), conv(ops.mul(y, other), 8)])
    after = arranged(graph)
    assert conversions(after) == (2, 2)
    agree(graph, after)


def test_lanes_past_the_last_channel_stay_finite(agree: Callable[..., None]) -> None:
    x = image(16)
    y = conv(x, 12)
    fine = Graph([x], [conv(ops.relu(ops.add(y, channels(y))), 16)])
    assert conversions(arranged(fine)) == (1, 1)
    risky = Graph([x], [conv(ops.log(ops.add(ops.mul(y, y), 1.0)), 16)])
    with trace(explain=True) as t:
        after = arranged(risky)
    assert "log of lanes past the last channel might not be finite" in str(t)
    agree(risky, after)
    agree(fine, arranged(fine))


def test_depthwise_between_grouped_convolutions_keeps_their_groups(agree: Callable[..., None]) -> None:
    x = image(24)
    y = ops.relu(conv(conv(x, 24, kernel=1, groups=2), 24, groups=24))
    graph = Graph([x], [conv(y, 24, kernel=1, groups=2)])
    after = arranged(graph)
    assert conversions(after) == (1, 1)
    agree(graph, after)


@pytest.mark.parametrize("shape", [(3, 7), (2, 3, 7), (2, 2, 3, 7)])
def test_matrix_products(shape: tuple[int, ...], agree: Callable[..., None]) -> None:
    a = input_value("a", tensor("float32", *shape))
    shared = ops.dot(a, ops.broadcast_to(weights(7, 5), shape=(*shape[:-2], 7, 5)))
    each = ops.dot(a, weights(*shape[:-2], 7, 5))
    varying = ops.dot(a, ops.transpose(a, perm=(*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)))
    graph = Graph([a], [shared, each, varying])
    after = arranged(graph)
    names = Counter(n.op.name for n in after.nodes)
    assert (names["dot"], names["dot_packed"], names["pack_matrix"]) == (0, 3, 1)
    agree(graph, after)


def test_integer_products(agree: Callable[..., None]) -> None:
    a = input_value("a", tensor("int32", 2, 3, 4))
    graph = Graph([a], [ops.dot(a, constant(np.arange(40, dtype=np.int32).reshape(2, 4, 5)))])
    agree(graph, arranged(graph))


def test_empty_tensors(agree: Callable[..., None]) -> None:
    a = input_value("a", tensor("float32", 3, 0))
    x = input_value("x", tensor("float32", 0, 3, 6, 6))
    graph = Graph([a, x], [ops.dot(a, weights(0, 5)), conv(x, 4)])
    agree(graph, arranged(graph))


def test_half_precision_rounds_once(agree: Callable[..., None]) -> None:
    a = input_value("a", tensor("float16", 4, 33))
    graph = Graph([a], [ops.dot(a, weights(33, 8, dtype="float16"))])
    after = arranged(graph)
    assert after.outputs[0].dtype == dtype_of("float16")
    agree(graph, after, rtol=2e-3)


def test_equal_columns_stay_whole_where_nothing_sums_them() -> None:
    def kinds(columns: np.ndarray, behind: bool) -> set[str]:
        x = input_value("x", tensor("float32", 512, 512))
        y = ops.relu(ops.dot(x, constant(columns)))
        y = ops.dot(y, constant(np.ones((512, 3), np.float32))) if behind else y
        machine = Machine(replace(ISAS["avx512"], fma_per_cycle=1))
        return {n.op.name for n in block_layout(Graph([x], [y]), machine, 1, ALGORITHMS).nodes}

    unlike = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)
    alike = np.repeat(unlike[:, :1], 512, axis=1)
    assert "dot_strassen" in kinds(unlike, behind=False)
    assert "dot_strassen" not in kinds(alike, behind=False)
    assert "dot_strassen" in kinds(alike, behind=True)
