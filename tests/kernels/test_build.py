"""Where values lie: views, slices of concatenations, memory taken over, lifetimes around loops."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import ops
from graphc.errors import CompileError
from graphc.ir.graph import Graph, Value, constant, input_value
from graphc.ir.types import tensor
from graphc.kernels.build import build
from graphc.kernels.ir import Launch
from graphc.kernels.machine import host_machine
from graphc.kernels.program import Place, Program, Rebind
from graphc.ops.control import loop, scan
from graphc.passes.layout import pack_only


def x(name: str = "x", *shape: int) -> Value:
    return input_value(name, tensor("float32", *(shape or (4, 6))))


def arena(program: Program) -> int:
    """How many buffers of the program's own it uses."""
    return len(program.lifetimes())


def test_a_view_costs_nothing() -> None:
    a = x()
    turned = ops.transpose(ops.slice(a, starts=(0, 1), stops=(4, 5), steps=(1, 2)), perm=(1, 0))
    program = build(Graph([a], [ops.neg(turned)]))
    (launch,) = program.launches
    assert program.buffers[launch.operands[0].buffer].place is Place.INPUT
    assert arena(program) == 0


def test_operands_of_a_concatenation_are_computed_in_place() -> None:
    a, b = x("a"), x("b")
    inner = ops.concat(ops.neg(a), ops.exp(b), axis=0)
    program = build(Graph([a, b], [ops.concat(inner, ops.abs(a), axis=0)]))
    assert len(program.launches) == 3
    assert {program.buffers[launch.operands[-1].buffer].place for launch in program.launches} == {Place.OUTPUT}
    assert sorted(launch.operands[-1].byte_offset for launch in program.launches) == [0, 96, 192]


def test_a_value_that_two_concatenations_want_is_copied_into_one() -> None:
    a = x("a")
    n = ops.neg(a)
    program = build(Graph([a], [ops.concat(n, ops.abs(a), axis=0), ops.concat(ops.exp(a), n, axis=1)]))
    assert len(program.launches) == 4  # neg, abs, exp and one copy


def test_a_dying_operand_is_overwritten_and_a_living_one_is_not() -> None:
    a = x("a")
    chain = ops.exp(ops.neg(a))
    last = ops.abs(chain)
    assert arena(build(Graph([a], [ops.reduce_sum(last, axes=(0, 1))]))) == 1
    program = build(Graph([a], [ops.reduce_sum(ops.mul(last, chain), axes=(0, 1))]))
    (kept,) = [launch for launch in program.launches if launch.nodes == ("abs",)]
    assert kept.operands[0].buffer != kept.operands[-1].buffer, "the operand is read again afterwards"


def test_inputs_are_never_overwritten() -> None:
    a = x("a")
    program = build(Graph([a], [ops.reduce_sum(ops.neg(a), axes=(0,))]))
    written = {launch.operands[-1].buffer for launch in program.launches}
    assert all(program.buffers[b].place is not Place.INPUT for b in written)


def test_an_output_that_is_an_input_or_stands_twice_is_copied() -> None:
    a = x("a")
    n = ops.neg(a)
    program = build(Graph([a], [a, n, n]))
    assert len(program.launches) == 3


def test_what_a_scan_fills_lives_through_all_of_it() -> None:
    """Found by a model whose stacked outputs shared memory with a temporary of the body."""
    h, row = x("h", 4), x("row", 4)
    new = ops.add(ops.mul(h, 0.5), row)
    body = Graph([h, row], [new, ops.mul(new, 2.0)])
    rows = x("rows", 5, 4)
    last, stack = scan(constant(np.zeros(4, np.float32)), rows, body=body, carries=1, scanned=1)
    program = build(Graph([rows], [ops.reduce_sum(ops.exp(stack), axes=(0,)), last]))
    ((first, end),) = program.loops
    (rebind,) = [
        i for i in program.instructions if isinstance(i, Rebind) and program.buffers[i.base.buffer].place is Place.ARENA
    ]
    start, stop = program.lifetimes()[rebind.base.buffer]
    assert start <= first
    assert stop > end


def test_what_enters_a_loop_lives_to_its_end() -> None:
    i, go, total, by = input_value("i", tensor("int64")), input_value("go", tensor("bool")), x("t", 4), x("by", 4)
    body = Graph([i, go, total, by], [go, ops.add(total, by)])
    a = x("a", 4)
    held = ops.exp(a)
    (result,) = [loop(constant(np.int64(3)), constant(np.bool_(True)), ops.neg(a), held, body=body, carries=1)]
    program = build(Graph([a], [result]))
    ((first, end),) = program.loops
    inside = [k for k in range(first, end) if isinstance(program.instructions[k], Launch)]
    read = {o.buffer for k in inside for o in program.instructions[k].operands}  # type: ignore[union-attr]
    spans = program.lifetimes()
    entering = [b for b in read & spans.keys() if spans[b][0] < first]
    assert entering
    assert all(spans[b][1] >= end for b in entering)


def test_a_result_of_unknown_size_is_refused() -> None:
    a = input_value("a", tensor("float32", 4))
    with pytest.raises(CompileError, match="no fixed size"):
        build(Graph([a], [ops.neg(ops.reshape(ops.nonzero(a), shape=ops.nonzero(a).shape))]))


def test_a_transposed_left_factor_is_copied_before_a_wide_product_and_not_before_a_narrow_one() -> None:
    a = x("a", 32, 48)
    for columns, copies in ((128, 1), (16, 0)):
        b = x("b", 32, columns)
        product = Graph([a, b], [ops.dot(ops.transpose(a, perm=(1, 0)), b)])
        launches = build(pack_only(product, host_machine(), 1)).launches
        assert len([launch for launch in launches if launch.nodes == ("copy",)]) == copies


def test_an_output_may_lie_in_an_input_that_nobody_reads_later() -> None:
    p, g = x("p"), x("g")
    update = build(Graph([p, g], [ops.sub(p, ops.mul(g, 0.5)), ops.neg(g)]))
    assert update.may_share(0, 0) or update.may_share(1, 0)
    program = build(Graph([p, g], [ops.exp(p), ops.add(ops.exp(p), p)]))
    assert not program.may_share(0, 0), "p is read again after its exponential is there"
    turned = build(Graph([p], [ops.add(p, ops.slice(p, starts=(3, 0), stops=(-1, 6), steps=(-1, 1)))]))
    assert not turned.may_share(0, 0), "an element is read after its place was written"
