"""Operations for many cases at once: held against one case after the other, for every sample of the registry."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cases import assert_close, operands_of, type_of

from graphc import ops
from graphc.autodiff.batching import batch, batch_graph
from graphc.errors import GraphTypeError
from graphc.ir.dims import Dim, Symbol
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, input_value, make
from graphc.ir.interpret import run
from graphc.ir.types import TensorType, tensor
from graphc.ops import REGISTRY, Kind, OpSpec, has_kernel

SIZE = 3


def variant(operand: np.ndarray, case: int) -> np.ndarray:
    """The operand of another case: the same elements in other places; scalars, which have one place, change."""
    if operand.ndim and operand.size:
        return np.roll(operand, case, axis=0)
    if operand.dtype == np.bool_:
        return np.asarray(bool(operand) ^ bool(case % 2)) if not operand.ndim else operand
    if operand.ndim or operand.dtype.kind == "O":
        return operand
    change = operand.astype(np.float64) - case
    return np.asarray(change if operand.dtype.kind == "f" else max(change, 0)).astype(operand.dtype)


def every_sample() -> Iterator[Any]:
    for name, spec in REGISTRY.items():
        if spec.kind is Kind.LEAF:
            continue
        for k, sample in enumerate(spec.samples()):
            operands = operands_of(sample)
            if operands and not any(isinstance(o, list) or o is None for o in operands):
                types = make(spec, *(input_value(f"x{i}", type_of(o)) for i, o in enumerate(operands)), **sample.attrs)
                if all(isinstance(v.type, TensorType) and v.type.is_static for v in types):
                    yield pytest.param(spec, operands, sample.attrs, id=f"{name}-{k}")


def combinations(count: int) -> Iterator[tuple[bool, ...]]:
    """Which operands are batched: every choice where there are few."""
    if count <= 3:
        yield from (flags for flags in itertools.product((False, True), repeat=count) if any(flags))
    else:
        yield (True,) * count
        yield from (tuple(i == k for i in range(count)) for k in range(count))


@pytest.mark.parametrize(("spec", "operands", "attrs"), [*every_sample()])
def test_batched_operations_agree_with_one_case_after_the_other(
    spec: OpSpec, operands: list[np.ndarray], attrs: dict[str, Any]
) -> None:
    inputs = [input_value(f"x{k}", type_of(o)) for k, o in enumerate(operands)]
    graph = Graph(inputs, make(spec, *inputs, **attrs))
    for flags in combinations(len(operands)):
        if spec.name == "loop" and any(flags[:2]) and len(graph.outputs) > attrs["carries"]:
            with pytest.raises(GraphTypeError, match="number of turns differs from case to case"):
                batch_graph(graph, flags, SIZE)
            continue
        columns = [[variant(o, case) if b else o for case in range(SIZE)] for o, b in zip(operands, flags, strict=True)]
        try:
            cases = [run(graph, *row) for row in zip(*columns, strict=True)]
        except IndexError:  # rearranged indices point outside: then only the other operands differ
            columns = [[c[0]] * SIZE if c[0].dtype.kind in "iu" else c for c in columns]
            cases = [run(graph, *row) for row in zip(*columns, strict=True)]
        many, _ = batch_graph(graph, flags, SIZE, (True,) * len(graph.outputs))
        given = [np.stack(c) if b else c[0] for c, b in zip(columns, flags, strict=True)]
        forms = [many]
        if spec.kind is not Kind.CONTROL or all(o.size for o in operands):  # no turn tells no extent of its results
            forms += [batch_graph(graph, flags, Dim(Symbol("cases")), (True,) * len(graph.outputs))[0]]
        for form in forms:
            for k, result in enumerate(run(form, *given)):
                agree(result, np.stack([case[k] for case in cases]))


def agree(actual: np.ndarray, expected: np.ndarray) -> None:
    if dtype_of(actual).is_float and not has_kernel(dtype_of(actual)):  # 8-bit floats: NumPy does not know their NaN
        assert actual.dtype == expected.dtype
        actual, expected = actual.astype(np.float32), expected.astype(np.float32)
    assert_close(actual, expected)


def test_sizes_that_depend_on_data_and_sequences_are_refused() -> None:
    x = input_value("x", tensor("float32", 4))
    with pytest.raises(GraphTypeError, match=r"nonzero gives .*whose size depends on the data.*compute with a mask"):
        batch_graph(Graph([x], [ops.nonzero(x)]), (True,), SIZE)
    with pytest.raises(GraphTypeError, match=r"sequence_construct gives .* under vmap, which batches tensors alone"):
        batch_graph(Graph([x], [ops.sequence_construct(x, x)]), (True,), SIZE)


def test_what_does_not_depend_on_the_case_is_left_alone() -> None:
    x, y = input_value("x", tensor("float32", 4)), input_value("y", tensor("float32", 4))
    shared = ops.sin(y)
    (first, second), batched = batch([ops.mul(x, shared), shared], {x: input_value("x", tensor("float32", 3, 4))}, 3)
    assert batched == (True, False)
    assert second == shared
    assert shared in {v for node in Graph((), [first]).nodes for v in node.inputs}


def test_loops_that_are_batched_twice_keep_their_states_apart() -> None:
    """As many cases outside as inside, so that only names can tell the inner limits from the outer ones."""
    i, go, x = input_value("i", tensor("int64")), input_value("go", tensor("bool")), input_value("x", tensor("float32"))
    double = ops.mul(x, 2.0)
    body = Graph([i, go, x], [ops.lt(double, 10.0), double])
    trips = input_value("trips", tensor("int64"))
    graph = Graph([trips, x], [ops.loop(trips, np.True_, x, body=body, carries=1)])
    inner, _ = batch_graph(graph, (True, False), 3)
    outer, _ = batch_graph(inner, (False, True), 3)
    counts, starts = np.array([1, 5, 0]), np.array([1, 3, 0.5], np.float32)
    expected = [[run(graph, n, x)[0] for n in counts] for x in starts]
    np.testing.assert_array_equal(run(outer, counts, starts)[0], expected)
