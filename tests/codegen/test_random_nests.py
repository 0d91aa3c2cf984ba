"""Random graphs that lowering accepts, against the interpreter: shapes with ones, odd sizes and lanes, views in chains."""

from __future__ import annotations

import numpy as np
import pytest
from nests import fused, run_node

from graphc import ops
from graphc.errors import GraphcError
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Value, constant, input_value
from graphc.ir.interpret import run
from graphc.ir.types import TensorType
from graphc.kernels.lower import why_not
from graphc.ops import functions

_EXTENTS = [1, 2, 3, 4, 5, 8, 8, 16, 17]
_LARGEST = 20_000


class Maker:
    """Makes one random graph."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.inputs: list[Value] = []
        self.gathered: dict[Value, int] = {}

    def pick(self, choices: list) -> object:
        return choices[int(self.random.integers(len(choices)))]

    def new_input(self, shape: tuple[int, ...], dtype: str = "float32") -> Value:
        v = input_value(f"x{len(self.inputs)}", TensorType(dtype_of(dtype), shape))
        self.inputs.append(v)
        return v

    def graph(self) -> Graph:
        shape = tuple(int(self.pick(_EXTENTS)) for _ in range(int(self.random.integers(1, 5))))  # type: ignore[call-overload]
        x = self.new_input(shape)
        for _ in range(int(self.random.integers(2, 7))):
            x = self.step(x)
            if np.prod(x.shape) > _LARGEST:
                break
        outputs = [x]
        if self.random.random() < 0.3:
            outputs.append(ops.exp(ops.neg(ops.abs(x))))
        return Graph(self.inputs, outputs)

    def step(self, x: Value) -> Value:
        kind = self.pick(
            [
                "unary",
                "binary",
                "broadcast",
                "transpose",
                "reshape",
                "slice",
                "pad",
                "concat",
                "gather",
                "normalise",
                "iota",
            ]
        )
        return getattr(self, f"_{kind}")(x)

    def _unary(self, x: Value) -> Value:
        op = self.pick([ops.neg, ops.tanh, ops.sigmoid, ops.relu, ops.abs, ops.floor, ops.sin])
        return op(x)  # type: ignore[operator]

    def _binary(self, x: Value) -> Value:
        op = self.pick([ops.add, ops.mul, ops.sub, ops.maximum])
        return op(x, self.new_input(x.shape))  # type: ignore[operator]

    def _broadcast(self, x: Value) -> Value:
        """An operand with some axes of extent 1."""
        shape = tuple(1 if self.random.random() < 0.5 else d for d in x.shape)
        return ops.add(x, self.new_input(shape))

    def _transpose(self, x: Value) -> Value:
        return ops.transpose(x, perm=tuple(int(p) for p in self.random.permutation(x.rank)))

    def _reshape(self, x: Value) -> Value:
        """Two axes merged, or one split."""
        shape = list(x.shape)
        at = int(self.random.integers(len(shape))) if shape else 0
        if self.random.random() < 0.5 and at + 1 < len(shape):
            shape[at : at + 2] = [shape[at] * shape[at + 1]]
        elif shape:
            factor = int(self.pick([f for f in range(1, shape[at] + 1) if shape[at] % f == 0]))  # type: ignore[call-overload]
            shape[at : at + 1] = [shape[at] // factor, factor]
        return ops.reshape(x, shape=tuple(shape))

    def _slice(self, x: Value) -> Value:
        starts, stops, steps = [], [], []
        for d in x.shape:
            start = int(self.random.integers(0, max(d // 2, 1)))
            backwards = self.random.random() < 0.2
            starts.append(d - 1 if backwards else start)
            stops.append(-1 if backwards else d)
            steps.append(-1 if backwards else int(self.random.integers(1, 3)))
        return ops.REGISTRY["slice"](x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))

    def _pad(self, x: Value) -> Value:
        low, high = (tuple(int(n) for n in self.random.integers(0, 3, x.rank)) for _ in range(2))
        return ops.pad(x, constant(np.float32(self.random.integers(-2, 3))), low=low, high=high)

    def _concat(self, x: Value) -> Value:
        if not x.shape:
            return x
        axis = int(self.random.integers(x.rank))
        other = tuple(int(self.random.integers(1, 6)) if k == axis else d for k, d in enumerate(x.shape))
        parts = [x, self.new_input(other)]
        return ops.concat(*(parts if self.random.random() < 0.5 else parts[::-1]), axis=axis)

    def _gather(self, x: Value) -> Value:
        if not x.shape:
            return x
        axis = int(self.random.integers(x.rank))
        indices = self.new_input((int(self.pick([1, 3, 8])),), str(self.pick(["int64", "int32"])))  # type: ignore[call-overload]
        self.gathered[indices] = x.shape[axis]
        return ops.gather(x, indices, axis=axis)

    def _normalise(self, x: Value) -> Value:
        """A reduction and what it is of, together again."""
        axes = tuple(sorted({int(self.random.integers(x.rank)) for _ in range(2)})) if x.rank else ()
        if not axes:
            return x
        if self.random.random() < 0.5:
            return functions.softmax(x, axis=axes[0])
        mean = functions.mean(x, axes, keepdims=True)
        return mean if self.random.random() < 0.3 else ops.sub(x, mean)

    def _iota(self, x: Value) -> Value:
        if not x.shape:
            return x
        axis = int(self.random.integers(x.rank))
        return ops.add(x, ops.iota(shape=x.shape, axis=axis, dtype=dtype_of("float32")))

    def array(self, v: Value) -> np.ndarray:
        if v in self.gathered:
            extent = self.gathered[v]
            return self.random.integers(-extent, extent, v.shape).astype(v.dtype.numpy)
        return np.asarray(self.random.standard_normal(v.shape) * 3).astype(np.float32)


def check(seed: int) -> bool:
    """Whether the graph of this seed can be lowered; raises when it is lowered wrongly."""
    maker = Maker(seed)
    try:
        graph = maker.graph()
    except GraphcError:
        return False
    if why_not(fused(graph).attrs["body"]) is not None:
        return False
    arrays = [maker.array(v) for v in graph.inputs]
    expected = run(graph, *arrays)
    threads = 1 + seed % 3
    rooms = [np.full(e.size + 64, 77, e.dtype) for e in map(np.asarray, expected)]
    results = [r[32 : 32 + np.size(e)].reshape(np.shape(e)) for r, e in zip(rooms, expected, strict=True)]
    run_node(fused(graph), *arrays, results=results, threads=threads)
    for got, e, room in zip(results, expected, rooms, strict=True):
        np.testing.assert_allclose(got, e, rtol=1e-4, atol=2e-5, err_msg=str(graph))
        assert (room[:32] == 77).all(), "written before the result"
        assert (room[32 + np.size(e) :] == 77).all(), "written behind the result"
    return True


@pytest.mark.parametrize("seeds", [range(k, k + 10) for k in range(0, 60, 10)], ids=lambda r: f"{r[0]}-{r[-1]}")
def test_random_graphs(seeds: range) -> None:
    assert sum(check(s) for s in seeds) > 0, "none could be lowered"
