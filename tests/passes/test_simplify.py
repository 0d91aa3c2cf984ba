"""Every simplification: what it makes, that it says why not, and that random graphs keep their meaning."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphc import ops, passes
from graphc.ir.dims import Dim
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Value, constant, input_value
from graphc.ir.rules import Rule
from graphc.ir.trace import trace
from graphc.ir.types import tensor
from graphc.passes.fold import fold
from graphc.passes.simplify import simplification_rules, simplify

x = input_value("x", tensor("float32", 2, 3, 4))
y = input_value("y", tensor("float32", 2, 3, 4))
i = input_value("i", tensor("int32", 2, 3, 4))
b = input_value("b", tensor("bool", 2, 3, 4))
row = input_value("row", tensor("float32", 4))
INPUTS = (x, y, i, b, row)


def spread(number: float, like: Value = x) -> Value:
    return ops.broadcast_to(constant(np.float32(number), like.dtype), shape=like.shape)


def part(v: Value, start: int, stop: int, step: int = 1, axis: int = 2) -> Value:
    n = v.rank
    return ops.slice(
        v,
        starts=tuple(start if a == axis else 0 for a in range(n)),
        stops=tuple(stop if a == axis else d for a, d in enumerate(v.shape)),
        steps=tuple(step if a == axis else 1 for a in range(n)),
    )


def clean(graph: Graph) -> Graph:
    while (after := fold(simplify(graph))) is not graph:
        graph = after
    return graph


CASES: list[tuple[str, Value, Value]] = [
    ("constant_to_the_right", ops.mul(3.0, x), ops.mul(x, 3.0)),
    ("add_zero", ops.add(x, 0.0), x),
    ("add_zero", ops.sub(x, 0.0), x),
    ("times_one", ops.div(ops.mul(x, 1.0), 1.0), x),
    ("times_one", ops.pow(x, 1.0), x),
    ("times_zero", ops.mul(i, 0), spread(0, i)),
    ("times_minus_one", ops.mul(x, -1.0), ops.neg(x)),
    ("subtract_constant", ops.sub(x, 2.0), ops.add(x, -2.0)),
    ("gather_constants", ops.mul(ops.mul(x, 2.0), 3.0), ops.mul(x, 6.0)),
    ("gather_constants", ops.add(ops.sub(x, 2.0), 3.0), ops.add(x, 1.0)),
    ("distribute_scale", ops.mul(ops.add(ops.mul(x, 2.0), 3.0), 0.5), ops.add(x, 1.5)),
    ("involution", ops.neg(ops.neg(x)), x),
    ("involution", ops.logical_not(ops.logical_not(b)), b),
    ("idempotent", ops.relu(ops.relu(x)), ops.relu(x)),
    ("same_operands", ops.maximum(x, x), x),
    ("without_gradient", ops.stop_gradient(x), x),
    ("known_power", ops.pow(x, 2.0), ops.mul(x, x)),
    ("known_power", ops.pow(x, 0.5), ops.sqrt(x)),
    ("known_power", ops.pow(x, 0.75), ops.mul(ops.sqrt(x), ops.sqrt(ops.sqrt(x)))),
    ("known_power", ops.pow(x, 4.0), ops.mul(ops.mul(x, x), ops.mul(x, x))),
    ("divide_by_constant", ops.div(x, 4.0), ops.mul(x, 0.25)),
    ("reciprocal_sqrt", ops.reciprocal(ops.sqrt(x)), ops.rsqrt(x)),
    ("known_selection", ops.select(b, x, x), x),
    ("known_selection", ops.select(ops.broadcast_to(constant(False), shape=b.shape), x, y), y),
    ("select_not", ops.select(ops.logical_not(b), x, y), ops.select(b, y, x)),
    ("merge_casts", ops.cast(x, dtype=x.dtype), x),
    ("merge_casts", ops.cast(ops.cast(i, dtype=dtype_of("float64")), dtype=x.dtype), ops.cast(i, dtype=x.dtype)),
    ("same_shape", ops.reshape(x, shape=(2, 3, 4)), x),
    ("same_order", ops.transpose(x, perm=(0, 1, 2)), x),
    ("whole_slice", part(x, 0, 4), x),
    ("no_padding", ops.pad(x, np.float32(0), low=(0, 0, 0), high=(0, 0, 0)), x),
    ("empty_operands", ops.concat(part(x, 2, 2), x, axis=2), x),
    ("merge_reshapes", ops.reshape(ops.reshape(x, shape=(24,)), shape=(6, 4)), ops.reshape(x, shape=(6, 4))),
    ("merge_transposes", ops.transpose(ops.transpose(x, perm=(1, 2, 0)), perm=(2, 0, 1)), x),
    ("transpose_of_units", ops.transpose(ops.reshape(row, shape=(1, 4)), perm=(1, 0)), ops.reshape(row, shape=(4, 1))),
    (
        "merge_broadcasts",
        ops.broadcast_to(ops.broadcast_to(row, shape=(3, 4)), shape=(2, 3, 4)),
        ops.broadcast_to(row, shape=(2, 3, 4)),
    ),
    (
        "broadcast_of_leading_units",
        ops.broadcast_to(ops.reshape(row, shape=(1, 1, 4)), shape=(2, 3, 4)),
        ops.broadcast_to(row, shape=(2, 3, 4)),
    ),
    ("merge_slices", part(part(x, 1, 4), 1, 3), part(x, 2, 4)),
    ("merge_slices", part(part(x, 0, 4, 2), 1, 2), part(x, 2, 3, 2)),
    ("merge_concats", ops.concat(ops.concat(x, y, axis=1), x, axis=1), ops.concat(x, y, x, axis=1)),
    ("slice_of_concat", part(ops.concat(x, y, axis=2), 4, 8), y),
    ("slice_of_concat", part(ops.concat(x, y, axis=2), 5, 7), part(y, 1, 3)),
    ("crop", ops.pad(x, np.float32(0), low=(0, 0, -1), high=(0, 0, -1)), part(x, 1, 3)),
    ("reduce_of_units", ops.reduce_sum(ops.reshape(x, shape=(2, 1, 12)), axes=(1,)), ops.reshape(x, shape=(2, 12))),
    ("merge_reductions", ops.reduce_max(ops.reduce_max(x, axes=(1,)), axes=(1,)), ops.reduce_max(x, axes=(1, 2))),
    ("gather_one", ops.gather(x, constant(np.int64(-1)), axis=2), ops.reshape(part(x, 3, 4), shape=(2, 3))),
    (
        "broadcast_after_elementwise",
        ops.exp(ops.broadcast_to(row, shape=(2, 3, 4))),
        ops.broadcast_to(ops.exp(row), shape=(2, 3, 4)),
    ),
    (
        "broadcast_after_movement",
        ops.transpose(spread(3.0), perm=(2, 1, 0)),
        ops.broadcast_to(constant(np.float32(3)), shape=(4, 3, 2)),
    ),
    (
        "broadcast_after_reshape",
        ops.reshape(ops.broadcast_to(ops.reshape(row, shape=(4, 1)), shape=(2, 3, 4, 5)), shape=(6, 4, 5)),
        ops.broadcast_to(ops.reshape(row, shape=(4, 1)), shape=(6, 4, 5)),
    ),
    (
        "broadcast_after_transpose",
        ops.transpose(ops.broadcast_to(row, shape=(3, 4)), perm=(1, 0)),
        ops.broadcast_to(ops.reshape(row, shape=(4, 1)), shape=(4, 3)),
    ),
]


@pytest.mark.parametrize(("rule", "before", "after"), CASES, ids=[f"{k}-{c[0]}" for k, c in enumerate(CASES)])
def test_rule(rule: str, before: Value, after: Value, agree: Callable[..., None]) -> None:
    graph = Graph(INPUTS, [before])
    with trace() as t:
        simplified = clean(graph)
    assert rule in t.counts
    assert simplified.outputs[0] == fold(Graph(INPUTS, [after])).outputs[0], (
        f"{simplified}\nexpected\n{fold(Graph(INPUTS, [after]))}"
    )
    agree(graph, simplified)


def test_every_rule_is_in_its_modules_tuple() -> None:
    for info in pkgutil.iter_modules(passes.__path__):
        names = vars(importlib.import_module(f"{passes.__name__}.{info.name}")).values()
        written = {v for v in names if isinstance(v, Rule)}
        applied = {r for v in names if isinstance(v, tuple) for r in v if isinstance(r, Rule)}
        assert written <= applied | {*simplification_rules()}, f"{info.name} has rules that nothing applies"
        for each in written:
            assert {*each.roots} <= {*ops.REGISTRY}, f"{info.name}.{each.name} begins at what is no operation"


def test_every_rule_has_a_case() -> None:
    tested = {name for name, _, _ in CASES}
    elsewhere = {"own_padding", "window_over_everything", "window_of_one", "one_hot_product"}
    assert {r.name for r in simplification_rules()} - tested == elsewhere


@pytest.mark.parametrize(
    "kept",
    [
        ops.mul(x, 0.0),  # x could be NaN
        ops.div(x, 0.0),
        ops.pow(x, 2.5),
        ops.cast(ops.cast(x, dtype=dtype_of("int32")), dtype=x.dtype),
        ops.cast(ops.cast(i, dtype=x.dtype), dtype=dtype_of("int64")),
        part(ops.concat(x, y, axis=2), 3, 6),
        ops.add(x, y),
        ops.gather(x, constant(np.array([0, 1])), axis=0),
    ],
    ids=lambda v: v.node.op.name,
)
def test_what_must_not_change(kept: Value) -> None:
    graph = fold(Graph(INPUTS, [kept]))
    assert simplify(graph) is graph


def test_windows(agree: Callable[..., None]) -> None:
    image = input_value("image", tensor("float32", 1, 3, 6, 5))
    attrs: dict[str, Any] = {"axes": (2, 3), "strides": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
    whole = ops.reduce_window(image, combine="add", window=(6, 5), **attrs)
    one = ops.reduce_window(image, combine="maximum", window=(1, 1), **attrs)
    padded = ops.pad(image, np.float32(-np.inf), low=(0, 0, 1, 0), high=(0, 0, 1, 2))
    pooled = ops.reduce_window(padded, combine="maximum", window=(3, 3), **attrs)
    graph = Graph([image], [whole, one, pooled])
    after = simplify(graph)
    assert after.outputs[0] == ops.reshape(ops.reduce_sum(image, axes=(2, 3)), shape=(1, 3, 1, 1))
    assert after.outputs[1] == image
    assert after.outputs[2].node.inputs[0] == image
    assert after.outputs[2].node.attrs["padding"] == ((1, 1), (0, 2))
    agree(graph, after)


def test_padding_of_another_number_stays() -> None:
    image = input_value("image", tensor("float32", 1, 3, 6, 5))
    padded = ops.pad(image, np.float32(0), low=(0, 0, 1, 0), high=(0, 0, 1, 2))
    attrs: dict[str, Any] = {"axes": (2, 3), "strides": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
    graph = Graph([image], [ops.reduce_window(padded, combine="maximum", window=(3, 3), **attrs)])
    with trace(explain=True) as t:
        assert simplify(graph) is graph
    assert "own_padding not at reduce_window: the padding is not -inf" in str(t)


def test_strict_keeps_every_rounding() -> None:
    third = Graph([x], [ops.div(x, 3.0), ops.add(ops.add(x, 0.1), 0.2), ops.pow(x, 3.0)])
    assert simplify(fold(third), strict=True) is fold(third)
    assert simplify(Graph([x], [ops.div(x, 8.0)]), strict=True).outputs[0].node.op.name == "mul"


def test_symbolic_shapes() -> None:
    n = Dim("n")
    v = input_value("v", tensor("float32", n, 3))
    graph = Graph(
        [v],
        [ops.relu(ops.reshape(ops.transpose(ops.transpose(ops.add(v, 0.0), perm=(1, 0)), perm=(1, 0)), shape=(n, 3)))],
    )
    assert simplify(graph).outputs == (ops.relu(v),)


UNARY = [
    ops.neg,
    ops.relu,
    ops.abs,
    ops.floor,
    ops.stop_gradient,
    lambda v: ops.pow(ops.abs(v), 2.0),
    lambda v: ops.div(v, 3.0),
]
BINARY = [ops.add, ops.sub, ops.mul, ops.maximum, lambda a, c: ops.select(ops.lt(a, c), a, c)]


@st.composite
def programs(draw: st.DrawFn) -> Graph:
    """Arithmetic and data movement over tensors of 24 elements, broadcasts and constants."""
    values: list[Value] = [x, y, ops.broadcast_to(row, shape=x.shape)]
    for _ in range(draw(st.integers(1, 14))):
        v = draw(st.sampled_from(values))
        match draw(st.integers(0, 8)):
            case 0:
                values.append(
                    ops.reshape(v, shape=draw(st.sampled_from([(2, 3, 4), (24,), (6, 4), (4, 1, 6), (1, 24)])))
                )
            case 1:
                values.append(ops.transpose(v, perm=tuple(draw(st.permutations(range(v.rank))))))
            case 2:
                number = draw(st.sampled_from([0.0, 1.0, -1.0, 2.0, 0.5]))
                values.append(draw(st.sampled_from(BINARY))(v, spread(number, v)))
            case 3:
                axis = draw(st.integers(0, v.rank - 1))
                d = v.shape[axis]
                start = draw(st.integers(0, d - 1))
                both = ops.concat(v, v, axis=axis)
                values.append(part(both, start, start + d, axis=axis))
            case 4:
                axis = draw(st.integers(0, v.rank - 1))
                sums = ops.reduce_max(v, axes=(axis,))
                values.append(
                    ops.broadcast_to(
                        ops.reshape(sums, shape=tuple(1 if a == axis else d for a, d in enumerate(v.shape))),
                        shape=v.shape,
                    )
                )
            case 5:
                low = tuple(draw(st.integers(0, 1)) for _ in v.shape)
                padded = ops.pad(v, np.float32(0), low=low, high=(0,) * v.rank)
                values.append(ops.pad(padded, np.float32(0), low=tuple(-a for a in low), high=(0,) * v.rank))
            case 6:
                others = [w for w in values if w.shape == v.shape]
                values.append(draw(st.sampled_from(BINARY))(v, draw(st.sampled_from(others))))
            case _:
                values.append(draw(st.sampled_from(UNARY))(v))
    return Graph([x, y, row], draw(st.lists(st.sampled_from(values), min_size=1, max_size=3)))


@given(programs())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_programs_keep_their_meaning(agree: Callable[..., None], graph: Graph) -> None:
    once = fold(simplify(graph))
    agree(graph, once, rtol=1e-4, atol=1e-4)
    twice = fold(simplify(once))
    assert fold(simplify(twice)) is twice, "a second round finds nothing that a third finds"


@pytest.mark.parametrize("flat", [False, True])
def test_one_hot_products_are_lookups(flat: bool, agree: Callable[..., None]) -> None:
    indices = input_value("indices", tensor("int32", 2, 6))
    shape = (2, 6, 5)
    chosen = ops.broadcast_to(ops.reshape(indices, shape=(2, 6, 1)), shape=shape)
    classes = ops.broadcast_to(constant(np.arange(5, dtype=np.int32)), shape=shape)
    rows = ops.cast(ops.eq(chosen, classes) if flat else ops.eq(classes, chosen), dtype=dtype_of("float32"))
    table = constant(np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32))
    graph = Graph([indices], [ops.dot(ops.reshape(rows, shape=(12, 5)), table)])
    after = clean(graph)
    assert {"gather", "select"} <= {n.op.name for n in after.nodes}
    assert not any(n.op.name == "dot" for n in after.nodes)
    agree(graph, after, [np.array([[0, 1, 4, 5, -1, 2], [3, 3, 7, -5, 0, 1]], np.int32)])


def test_other_products_stay() -> None:
    indices = input_value("indices", tensor("int32", 6))
    chosen = ops.broadcast_to(ops.reshape(indices, shape=(6, 1)), shape=(6, 5))
    odd = ops.broadcast_to(constant(np.arange(0, 10, 2, dtype=np.int32)), shape=(6, 5))
    even = ops.broadcast_to(constant(np.arange(5, dtype=np.int32)), shape=(6, 5))
    infinite = constant(np.full((5, 3), np.inf, np.float32))
    for classes, table in ((odd, constant(np.ones((5, 3), np.float32))), (even, infinite)):
        rows = ops.cast(ops.eq(chosen, classes), dtype=dtype_of("float32"))
        assert any(n.op.name == "dot" for n in clean(Graph([indices], [ops.dot(rows, table)])).nodes)


def test_folding_while_simplifying_leaves_nothing_to_fold(agree: Callable[..., None]) -> None:
    """Sums and factors are gathered, and what is gathered is one constant at once, known or repeated."""
    weights = constant(np.arange(4, dtype=np.float32), name="w")
    v = x
    for k in range(4):
        v = ops.add(ops.mul(v, 1.5 + k), ops.mul(ops.broadcast_to(weights, shape=x.shape), 0.5))
    graph = Graph([x], [v])
    after = simplify(graph, folding=True)
    assert fold(after) is after
    assert [n.op.name for n in after.nodes if n.level >= 0] == ["input", "mul", "add"]
    assert sum(n.op.name == "constant" for n in after.nodes) == 2
    assert any(n.level < 0 and n.inputs and n.op.name != "broadcast_to" for n in simplify(graph).nodes), "not without"
    agree(graph, after)


def test_a_second_time_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    after = simplify(Graph([x], [ops.add(ops.neg(ops.neg(x)), 1.0)]), folding=True)
    monkeypatch.setattr("graphc.passes.simplify.rewrite", lambda *args, **kwargs: pytest.fail("it was swept again"))
    assert simplify(after, folding=True) is after


def test_a_broadcast_that_repeats_nothing_is_folded_too() -> None:
    single = input_value("single", tensor("float32", 1))
    after = simplify(Graph([single], [ops.add(single, spread(2, single))]), folding=True)
    assert after.outputs == (ops.add(single, constant(np.array([2], np.float32))),)
    assert fold(after) is after
