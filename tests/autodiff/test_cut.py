"""What a loop keeps: the least bytes from which the rest is cheap."""

from __future__ import annotations

from graphc import ops
from graphc.autodiff.cut import smallest_cut
from graphc.ir.graph import input_value
from graphc.ir.types import tensor

H, X = input_value("h", tensor("float32", 2, 8)), input_value("x", tensor("float32", 2, 8))
U, W = input_value("u", tensor("float32", 8, 32)), input_value("w", tensor("float32", 8, 32))


def test_a_sum_of_products_is_kept_rather_than_the_products() -> None:
    gates = ops.add(ops.dot(X, W), ops.dot(H, U))
    assert smallest_cut([ops.tanh(gates), ops.exp(gates)], {H}) == [gates]


def test_arithmetic_on_what_is_there_is_done_again() -> None:
    assert smallest_cut([ops.tanh(X), ops.exp(W)], {H}) == []
    assert smallest_cut([ops.tanh(ops.add(H, X)), H], {H}) == [H]


def test_what_is_small_is_kept_where_it_is_small() -> None:
    total = ops.reduce_sum(ops.exp(H), axes=(0, 1))
    assert smallest_cut([ops.broadcast_to(ops.reshape(total, shape=(1, 1)), shape=(2, 8))], {H}) == [total]
    corner = ops.slice(ops.dot(X, W), starts=(0, 0), stops=(2, 1), steps=(1, 1))
    assert smallest_cut([ops.tanh(ops.mul(corner, 2.0))], {H}) == [corner]


def test_one_value_serves_several_readers() -> None:
    """Two parts of h are needed: h is kept once when both together are larger."""
    parts = [ops.slice(H, starts=(0, a), stops=(2, a + 6), steps=(1, 1)) for a in (0, 2)]
    assert smallest_cut([ops.sin(p) for p in parts], {H}) == [H]
    assert smallest_cut([ops.sin(parts[0])], {H}) == [parts[0]]


def test_nothing_but_origins_when_nothing_is_expensive() -> None:
    needed = [ops.tanh(ops.dot(H, U))]
    assert smallest_cut(needed, {H}, lambda v: False) == [H]
    assert smallest_cut(needed, {H}) == [needed[0].node.inputs[0]]
