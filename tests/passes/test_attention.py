"""Attention is found however it is spelled, left alone where something differs, and computed right at any size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc
from graphc import ops
from graphc.ir.graph import Graph, Value, constant, input_value
from graphc.ir.interpret import run
from graphc.ir.trace import trace
from graphc.ir.types import tensor
from graphc.ops.functions import softmax
from graphc.passes.attention import fuse_attention

B, H, M, N, D, E = 2, 3, 7, 11, 8, 5
Q, K, V = (input_value(n, tensor("float32", B, H, *s)) for n, s in (("q", (M, D)), ("k", (N, D)), ("v", (N, E))))
MASK = input_value("mask", tensor("float32", B, 1, 1, N))
KEPT = input_value("kept", tensor("bool", 1, 1, M, N))
FULL = (B, H, M, N)


def scores(q: Value = Q, k: Value = K) -> Value:
    result: Value = ops.dot(q, ops.transpose(k, perm=(0, 1, 3, 2)))
    return result


def times(x: Value, number: float) -> Value:
    result: Value = ops.mul(x, ops.broadcast_to(constant(number, x.dtype), shape=x.shape))
    return result


def over(x: Value, number: float) -> Value:
    result: Value = ops.div(x, ops.broadcast_to(constant(number, x.dtype), shape=x.shape))
    return result


def without_nan(p: Value) -> Value:
    result: Value = ops.select(ops.isnan(p), ops.broadcast_to(constant(0.0, p.dtype), shape=p.shape), p)
    return result


def spread(x: Value) -> Value:
    result: Value = ops.broadcast_to(x, shape=FULL)
    return result


def chosen(number: float, *, kept_first: bool = True) -> Value:
    sides = [scores(), spread(constant(number, Q.dtype))]
    result: Value = ops.select(spread(KEPT), *(sides if kept_first else sides[::-1]))
    return result


FOUND: dict[str, Callable[[], Value]] = {
    "bare": scores,
    "scaled": lambda: times(scores(), 0.3),
    "divided": lambda: over(scores(), 4.0),
    "scaled before": lambda: scores(times(Q, 0.5), times(K, 0.5)),
    "masked": lambda: ops.add(scores(), spread(MASK)),
    "mask first": lambda: ops.add(spread(MASK), times(scores(), 0.3)),
    "chosen": lambda: chosen(-np.inf),
    "chosen, the other way": lambda: chosen(-1e9, kept_first=False),
}


def names(graph: Graph) -> set[str]:
    return {n.op.name for n in graph.nodes} - {"input", "constant", "broadcast_to", "transpose"}


@pytest.mark.parametrize("spelling", FOUND)
@pytest.mark.parametrize("clean", [False, True])
def test_spellings(spelling: str, clean: bool, agree: Callable[..., None]) -> None:
    weights = softmax(FOUND[spelling]())
    y = ops.dot(without_nan(weights) if clean else weights, V)
    graph = Graph([Q, K, V, MASK, KEPT], [y])
    after = fuse_attention(graph)
    assert names(after) <= {"attention", "mul", "select"}
    (node,) = (n for n in after.nodes if n.op.name == "attention")
    assert node.attrs["no_nan"] == clean
    assert node.inputs[1] == K or spelling == "scaled before"
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(v.tensor.static_shape).astype("f") for v in graph.inputs[:4]]
    inputs[3][:, :, :, 4:] = -np.inf if clean else -3.4e38
    kept = rng.random((1, 1, M, N)) < 0.7
    kept[:, :, 2] = clean and spelling.startswith("chosen") and "other" in spelling
    kept[:, :, 2, 0] |= not clean
    agree(graph, after, [*inputs, kept])


def test_rows_without_weights(agree: Callable[..., None]) -> None:
    """As the ONNX operator's own definition has it: a row of which everything is masked has no weights."""
    mask = input_value("mask", tensor("float32", M, N))
    lowest = ops.broadcast_to(constant(-np.inf, mask.dtype), shape=(M, 1))
    empty = ops.eq(ops.reshape(ops.reduce_max(mask, axes=(1,)), shape=(M, 1)), lowest)
    weights = softmax(ops.add(scores(), spread(mask)))
    weights = ops.select(spread(empty), spread(constant(0.0, mask.dtype)), weights)
    graph = Graph([Q, K, V, mask], [ops.dot(weights, V)])
    after = fuse_attention(graph)
    assert [n.op.name for n in after.nodes if n.op.name in ("dot", "attention")] == ["attention"]
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(v.tensor.static_shape).astype("f") for v in graph.inputs]
    inputs[3][2] = -np.inf
    inputs[3][4, 3:] = -np.inf
    agree(graph, after, inputs)


def test_a_transposition_behind_it(agree: Callable[..., None]) -> None:
    graph = Graph([Q, K, V], [ops.transpose(ops.dot(softmax(scores()), V), perm=(0, 2, 1, 3))])
    after = fuse_attention(graph)
    assert [n.attrs["heads_last"] for n in after.nodes if n.op.name == "attention"] == [True]
    assert names(after) == {"attention"}
    assert after.outputs[0].node.op.name == "attention"
    agree(graph, after)


def weights_returned() -> list[Value]:
    weights = softmax(scores())
    return [ops.dot(weights, V), weights]


def scores_returned() -> list[Value]:
    s = times(scores(), 0.5)
    return [ops.dot(softmax(s), V), s]


def product_read_twice() -> list[Value]:
    s = scores()
    return [ops.dot(softmax(times(s, 0.5)), V), ops.reduce_sum(s, axes=(0,))]


def capped() -> list[Value]:
    return [ops.dot(softmax(ops.tanh(scores())), V)]


def over_rows() -> list[Value]:
    return [ops.dot(softmax(scores(), axis=2), V)]


def another_sum() -> list[Value]:
    exps = ops.exp(scores())
    total = ops.reduce_sum(ops.mul(exps, exps), axes=(3,))
    return [ops.dot(ops.div(exps, spread(ops.reshape(total, shape=(B, H, M, 1)))), V)]


def filled_with_zero() -> list[Value]:
    return [ops.dot(softmax(chosen(0.0)), V)]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (weights_returned, "something else reads"),
        (scores_returned, "something else reads"),
        (product_read_twice, "something else reads"),
        (capped, "the scores are no product"),
        (over_rows, "not divided by its sum"),
        (another_sum, "not divided by its sum"),
        (filled_with_zero, "the scores are no product"),
    ],
)
def test_what_is_left_alone(make: Callable[[], list[Value]], why: str) -> None:
    graph = Graph([Q, K, V, KEPT], make())
    with trace(explain=True) as seen:
        assert fuse_attention(graph) is graph
    assert why in str(seen)


sizes = st.sampled_from([1, 2, 3, 5, 8, 13, 16, 17, 31, 33, 48, 64, 65, 100, 130])


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_size_and_mask(data: st.DataObject) -> None:
    """Compiled, against the definition in float64, rows that are wholly masked included; threads change no bit."""
    rank = data.draw(st.integers(2, 4))
    batch = data.draw(st.lists(st.integers(1, 3), min_size=rank - 2, max_size=rank - 2))
    m, n, d, e = (data.draw(sizes) for _ in "mnde")
    dtype = data.draw(st.sampled_from(["float32", "float64"]))
    use = data.draw(st.sampled_from(["none", "add", "fill", "causal"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    arrays = [rng.standard_normal((*batch, *s)).astype(dtype) for s in ((m, d), (n, d), (n, e))]
    shape = (*batch, m, n)
    if use != "none":
        small = (*tuple(data.draw(st.sampled_from([1, x])) for x in shape[:-1]), n)
        kept = np.tri(m, n, dtype=bool) if use == "causal" else rng.random(small) < 0.6
        mask = np.where(kept, 0, -np.inf if use == "add" else -1e30)
        if use == "add":
            mask = mask + rng.standard_normal(small)
        arrays.append(np.broadcast_to(mask, shape).astype(dtype))
    values = [input_value(f"x{k}", tensor(dtype, *a.shape)) for k, a in enumerate(arrays)]
    attrs = {"scale": d**-0.5, "fill": use in ("fill", "causal"), "no_nan": use == "add"}
    graph = Graph(values, [ops.attention(*values, **attrs)])
    (wanted,) = run(graph, *arrays)
    once, twice = (graphc.compile(graph, threads=t)(*arrays) for t in (1, 2))
    np.testing.assert_array_equal(once, twice)
    np.testing.assert_allclose(once, wanted, rtol=0, atol=4e-6 if dtype == "float32" else 1e-13)
