"""What the tests of blocked layouts share: small convolutions, and the layout pass with what runs around it."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import ops
from graphc.ir.graph import Graph, Value, constant, input_value
from graphc.ir.types import tensor
from graphc.kernels.choice import ALGORITHMS
from graphc.kernels.machine import ISAS, Machine
from graphc.passes.decompose import decompose
from graphc.passes.fold import fold
from graphc.passes.layout import block_layout
from graphc.passes.simplify import simplify

rng = np.random.default_rng(1)
AVX2, AVX512 = Machine(ISAS["avx2"]), Machine(ISAS["avx512"])
MACHINES = pytest.mark.parametrize("machine", [AVX2, AVX512], ids=["avx2", "avx512"])


def weights(*shape: int, dtype: str = "float32") -> Value:
    return constant(rng.uniform(-1, 1, shape).astype(dtype))


def conv(x: Value, filters: int, kernel: int = 3, groups: int = 1, stride: int = 1, dilation: int = 1) -> Value:
    n = x.rank - 2
    pad = (kernel - 1) * dilation // 2
    result: Value = ops.conv(
        x,
        weights(filters, x.shape[1] // groups, *(kernel,) * n, dtype=x.dtype.name),
        strides=(stride,) * n,
        padding=((pad, pad),) * n,
        dilation=(dilation,) * n,
        groups=groups,
    )
    return result


def channels(v: Value) -> Value:
    """A number for every channel, in the shape of `v`."""
    return ops.broadcast_to(weights(v.shape[1], *(1,) * (v.rank - 2), dtype=v.dtype.name), shape=v.shape)


def image(c: int = 16, h: int = 6, w: int = 5, dtype: str = "float32") -> Value:
    return input_value("x", tensor(dtype, 2, c, h, w))


def arranged(graph: Graph, machine: Machine = AVX2, algorithms: frozenset[str] = ALGORITHMS) -> Graph:
    return simplify(fold(block_layout(simplify(fold(decompose(graph))), machine, 2, algorithms)))
