"""Random programs: every way of compiling one must agree with the interpreter, which knows only the references.

Levels, each pass left out, one thread and two, planned memory and separate. Programs are drawn by hypothesis from the
operations that frontends make; float32 results may differ by rounding, which the sums below keep small.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphc import ops
from graphc.ir.graph import Graph, Value, constant, input_value
from graphc.ir.interpret import run
from graphc.ir.types import tensor
from graphc.ops import functions
from graphc.options import Options
from graphc.passes.pipeline import optimise, prepare
from graphc.runtime.assemble import CompiledGraph

EXAMPLES = int(os.environ.get("GRAPHC_FUZZ_EXAMPLES", "8"))
CONFIGURATIONS: list[dict[str, Any]] = [
    {"threads": 1},
    {"threads": 2},
    {"threads": 1, "memory": "separate"},
    {"threads": 2, "level": 1},
    {"threads": 1, "level": 0},
    {"threads": 1, "precision": "strict"},
    *(
        {"threads": 1, "disable": name}
        for name in ("fold", "simplify", "sums-first", "maxima-first", "batch-norm", "blocking", "fuse", "sink")
    ),
]

UNARY = ("neg", "abs", "exp", "tanh", "sigmoid", "relu", "erf", "floor", "sqrt", "log1p")
BINARY = ("add", "sub", "mul", "maximum", "minimum")


def _unary(draw: st.DrawFn, x: Value) -> Value:
    name = draw(st.sampled_from(UNARY))
    if name in ("sqrt", "log1p"):
        x = ops.abs(x)
    if name == "exp":
        x = ops.minimum(x, 2.0)
    return getattr(ops, name)(x)  # type: ignore[no-any-return]


def _binary(draw: st.DrawFn, x: Value, values: list[Value]) -> Value:
    other = draw(st.sampled_from([v for v in values if v.shape == x.shape] + [x]))
    kind = draw(st.integers(0, 3))
    if kind == 0:
        other = constant(np.linspace(-1, 1, x.shape[-1], dtype=np.float32))
    elif kind == 1:
        other = constant(np.float32(draw(st.floats(-2, 2, width=16))))
    return getattr(ops, draw(st.sampled_from(BINARY)))(x, other)  # type: ignore[no-any-return]


def _move(draw: st.DrawFn, x: Value, values: list[Value]) -> Value:
    rank = x.rank
    match draw(st.integers(0, 6)):
        case 0:
            return ops.transpose(x, perm=tuple(draw(st.permutations(range(rank)))))
        case 1:
            return ops.reshape(x, shape=(int(np.prod(x.shape[:-1])), x.shape[-1]))
        case 2:
            axis = draw(st.integers(0, rank - 1))
            first = draw(st.integers(0, x.shape[axis] - 1))
            step = draw(st.sampled_from([1, 1, 2]))
            pick = [(first, d, step) if a == axis else (0, d, 1) for a, d in enumerate(x.shape)]
            starts, stops, steps = zip(*pick, strict=True)
            return ops.slice(x, starts=starts, stops=stops, steps=steps)
        case 3:
            low = tuple(draw(st.integers(0, 1)) for _ in range(rank))
            return ops.pad(x, constant(np.float32(0.5)), low=low, high=low[::-1])
        case 4:
            axis = draw(st.integers(0, rank - 1))
            alike = [
                v
                for v in values
                if v.rank == rank
                and all(a == b for k, (a, b) in enumerate(zip(v.shape, x.shape, strict=True)) if k != axis)
            ]
            return ops.concat(x, draw(st.sampled_from([*alike, x])), axis=axis)
        case 5:
            axis = draw(st.integers(0, rank - 1))
            index = draw(st.lists(st.integers(0, x.shape[axis] - 1), min_size=1, max_size=4))
            return ops.gather(x, constant(np.array(index, np.int64)), axis=axis)
        case _:
            return ops.broadcast_to(ops.reshape(x, shape=(1, *x.shape)), shape=(2, *x.shape)) if rank < 4 else x


def _combine(draw: st.DrawFn, x: Value) -> Value:
    axis = draw(st.integers(0, x.rank - 1))
    match draw(st.integers(0, 4)):
        case 0:
            return functions.softmax(x, axis=axis)
        case 1:
            reduced = draw(st.sampled_from([ops.reduce_max, ops.reduce_min, ops.reduce_sum]))(x, axes=(axis,))
            return ops.mul(reduced, 0.25)
        case 2:
            mean = functions.mean(x, (axis,), keepdims=True)
            return ops.sub(x, mean)
        case 3:
            rows = ops.reshape(x, shape=(int(np.prod(x.shape[:-1])), x.shape[-1]))
            w = np.cos(np.arange(x.shape[-1] * 5)).reshape(-1, 5).astype(np.float32) / x.shape[-1]
            return ops.dot(rows, constant(w))
        case _:
            if x.rank != 4:
                return ops.cumsum(x, axis=axis)
            c = x.shape[1]
            w = np.sin(np.arange(9 * c * 6, dtype=np.float32)).reshape(6, c, 3, 3) / (9 * c)
            y = ops.conv(x, constant(w), strides=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1)
            scale = constant(np.linspace(0.5, 1.5, 6, dtype=np.float32).reshape(1, 6, 1, 1))
            return ops.add(ops.mul(y, scale), constant(np.float32(0.1)))


@st.composite
def programs(draw: st.DrawFn) -> Graph:
    """A graph over a few float32 inputs; every value stays moderate."""
    shapes = draw(
        st.lists(st.sampled_from([(3, 8), (5,), (2, 8, 6, 5), (1, 16, 7, 7), (4, 1, 9)]), min_size=1, max_size=3)
    )
    inputs = [input_value(f"x{k}", tensor("float32", *s)) for k, s in enumerate(shapes)]
    values: list[Value] = list(inputs)
    for _ in range(draw(st.integers(3, 12))):
        x = draw(st.sampled_from(values[-4:]))
        if x.rank == 0:
            x = ops.reshape(x, shape=(1,))
        step = draw(st.integers(0, 9))
        if step < 3:
            y = _unary(draw, x)
        elif step < 5:
            y = _binary(draw, x, values)
        elif step < 8:
            y = _move(draw, x, values)
        else:
            y = _combine(draw, x)
        if 0 < int(np.prod(y.shape)) < 20_000:
            values.append(y)
    outputs = draw(st.lists(st.sampled_from(values[len(inputs) :] or values), min_size=1, max_size=3))
    return Graph(inputs, [values[-1], *outputs])


def _agree(graph: Graph, got: list[np.ndarray], expected: tuple[np.ndarray, ...], label: str) -> None:
    for k, (a, b) in enumerate(zip(got, expected, strict=True)):
        scale = max(1.0, float(np.abs(b[np.isfinite(b)]).max(initial=0)))
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5 * scale, err_msg=f"output {k}, {label}\n{graph}")


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(programs(), st.integers(0, 1000))
def test_every_way_of_compiling_agrees_with_the_interpreter(graph: Graph, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arguments = [rng.standard_normal(v.tensor.static_shape).astype(np.float32) for v in graph.inputs]
    before = [a.copy() for a in arguments]
    with np.errstate(all="ignore"):
        expected = run(graph, *arguments)
    for chosen in CONFIGURATIONS:
        options = Options.of(**chosen)
        compiled = CompiledGraph(optimise(prepare(graph, options), options), options)
        for turn in range(2):  # the second run meets memory that the first has used
            _agree(graph, compiled.run(arguments), expected, f"{chosen}, run {turn}")
    for a, b in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(a, b, err_msg="an input was written to")


@pytest.mark.parametrize("threads", [1, 2])
def test_runs_repeat_to_the_bit(threads: int) -> None:
    x = input_value("x", tensor("float32", 64, 500))
    w = constant(np.sin(np.arange(500 * 70, dtype=np.float32)).reshape(500, 70))
    graph = Graph([x], [functions.softmax(ops.dot(x, w), axis=1), ops.reduce_sum(x, axes=(0, 1))])
    options = Options.of(threads=threads)
    compiled = CompiledGraph(optimise(prepare(graph, options), options), options)
    a = np.random.default_rng(0).standard_normal((64, 500)).astype(np.float32)
    first = compiled.run([a])
    for _ in range(20):
        for again, once in zip(compiled.run([a]), first, strict=True):
            np.testing.assert_array_equal(again, once)
