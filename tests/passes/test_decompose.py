"""Operations without kernels, taken apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphc import ops
from graphc.ir.graph import Graph, Value, constant, input_value
from graphc.ir.types import tensor
from graphc.options import Options
from graphc.passes.decompose import decompose
from graphc.passes.fold import fold
from graphc.passes.pipeline import optimise
from graphc.passes.simplify import simplify

rng = np.random.default_rng(5)


def conv(x: Value, w: np.ndarray, **changes: Any) -> Graph:
    n = x.rank - 2
    attrs = {"strides": (1,) * n, "padding": ((0, 0),) * n, "dilation": (1,) * n, "groups": 1, **changes}
    return Graph([x], [ops.conv(x, constant(w), **attrs)])


def names(graph: Graph) -> set[str]:
    return {n.op.name for n in graph.nodes}


@pytest.mark.parametrize("filters", [1, 3, 16, 20])
@pytest.mark.parametrize(("stride", "padding"), [(1, (0, 0)), (2, (7, 9)), (5, (0, 3))])
@pytest.mark.parametrize("shape", [(2, 1, 90), (2, 1, 1, 90), (1, 1, 90, 1)], ids=str)
def test_one_channel_along_a_line(
    shape: tuple[int, ...], stride: int, padding: tuple[int, int], filters: int, agree: Callable[..., None]
) -> None:
    x = input_value("x", tensor("float32", *shape))
    axis = shape.index(90) - 2
    n = len(shape) - 2
    w = rng.uniform(-1, 1, (filters, 1, *(24 if k == axis else 1 for k in range(n)))).astype(np.float32)
    graph = conv(
        x,
        w,
        strides=tuple(stride if k == axis else 1 for k in range(n)),
        padding=tuple(padding if k == axis else (0, 0) for k in range(n)),
    )
    after = decompose(graph)
    assert "conv" not in names(after)
    assert {"frames", "dot"} <= names(after)
    agree(graph, after)
    agree(graph, fold(simplify(after)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_computes_in_float32(dtype: str, agree: Callable[..., None]) -> None:
    a, b = (input_value(name, tensor(dtype, 4, 4)) for name in "ab")
    graph = Graph([a, b], [ops.dot(a, b)])
    after = decompose(graph)
    assert after.outputs[0].node.inputs[0].dtype.name == "float32"
    arrays = [rng.uniform(-1, 1, (4, 4)).astype(v.dtype.numpy) for v in (a, b)]
    agree(graph, after, arrays, rtol=0, atol=0)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dtype", ["int8", "int32", "uint8"])
def test_integers(dtype: str, groups: int, agree: Callable[..., None]) -> None:
    x = input_value("x", tensor(dtype, 2, 4, 5, 6))
    w = rng.integers(0, 3, (6, 4 // groups, 3, 2)).astype(dtype)
    graph = conv(x, w, strides=(2, 1), padding=((1, 0), (0, 1)), dilation=(1, 2), groups=groups)
    after = decompose(graph)
    assert not names(after) & {"conv", "dot"}
    agree(graph, after)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("spatial", [3, 4])
def test_volumes(groups: int, spatial: int, agree: Callable[..., None]) -> None:
    x = input_value("x", tensor("float32", 2, 4, *(6, 5, 7, 4)[:spatial]))
    w = rng.uniform(-1, 1, (6, 4 // groups, *(3, 2, 3, 2)[:spatial])).astype(np.float32)
    attrs = {
        "strides": (2, 1, 2, 1), "padding": ((1, 1), (0, 1), (2, 0), (1, 0)), "dilation": (1, 2, 1, 1),
    }  # fmt: skip
    graph = conv(x, w, **{name: a[:spatial] for name, a in attrs.items()}, groups=groups)
    after = decompose(graph)
    convolutions = [n for n in after.nodes if n.op.name == "conv"]
    assert all(n.inputs[0].rank == 4 for n in convolutions)
    assert len(convolutions) == (1 if groups == 1 else (3, 6)[spatial - 3])
    agree(graph, after)


def test_weights_of_slices_are_constants_when_the_algorithm_is_chosen() -> None:
    x = input_value("x", tensor("float32", 1, 32, 4, 28, 28))
    w = rng.uniform(-1, 1, (64, 32, 3, 3, 3)).astype(np.float32)
    after = optimise(conv(x, w, padding=((1, 1),) * 3), Options.of(threads=1))
    assert "conv_winograd" in names(after)
