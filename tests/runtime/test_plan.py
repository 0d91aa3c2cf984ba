"""The driver's opcodes, each in a plan small enough to follow by hand."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest

from graphc.runtime.plan import ROW, Op, Plan, PlanBuilder
from graphc.runtime.threads import run

THREADS = (1, 2, 3)


def words(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def address(array: np.ndarray, index: int = 0) -> int:
    return int(array.ctypes.data) + index * array.itemsize


@pytest.mark.parametrize("threads", THREADS)
def test_launches_run_in_order(kernels: SimpleNamespace, threads: int) -> None:
    out = words(1)
    add, twice = words(address(out)), words(address(out))
    builder = PlanBuilder()
    for _ in range(3):
        builder.launch(kernels.count, address(add))
        builder.launch(kernels.double, address(twice))
    run(builder.build(), threads)
    assert out[0] == ((1 + 1) * 2 + 1) * 4 + 2


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("tasks", [0, 1, 2, 3, 7, 64, 1001])
@pytest.mark.parametrize("grain", [1, 5])
def test_every_task_is_done_once(kernels: SimpleNamespace, threads: int, tasks: int, grain: int) -> None:
    out = np.zeros(tasks + 2, np.int64)
    block = words(address(out, 1))
    builder = PlanBuilder()
    for _ in range(10):
        builder.launch(kernels.count, address(block), tasks, grain=grain)
    run(builder.build(), threads)
    assert out[0] == out[-1] == 0
    np.testing.assert_array_equal(out[1:-1], 10 * np.arange(1, tasks + 1))


@pytest.mark.parametrize("threads", THREADS)
def test_a_group_is_one_phase_of_all_its_tasks(kernels: SimpleNamespace, threads: int) -> None:
    outs = [np.zeros(n, np.int64) for n in (3, 1, 0, 40, 2)]
    blocks = [words(address(out)) for out in outs]
    builder = PlanBuilder()
    for _ in range(20):
        first = builder.here
        for out, block in zip(outs, blocks, strict=True):
            builder.launch(kernels.count, address(block), len(out))
        builder.group(first)
    run(builder.build(), threads)
    for out in outs:
        np.testing.assert_array_equal(out, 20 * np.arange(1, len(out) + 1))


@pytest.mark.parametrize("threads", THREADS)
def test_a_counted_loop_with_rebinding(kernels: SimpleNamespace, threads: int) -> None:
    """for i in range(n): out[i, :] = counters of five tasks: the shape of a Scan."""
    for n in (0, 1, 6):
        out = np.zeros((7, 5), np.int64)
        block = words(0)
        builder = PlanBuilder()
        counter, limit, base = builder.cells(77, n, address(out))
        builder.set(counter, 0)
        test = builder.jump()
        body = builder.here
        builder.rebind(address(block), base, counter, 5 * 8)
        builder.launch(kernels.count, address(block), 5)
        builder.add(counter, 1)
        builder.aim(test)
        builder.branch_less(counter, limit, body)
        run(builder.build(), threads)
        np.testing.assert_array_equal(out[:n], np.tile(np.arange(1, 6), (n, 1)))
        assert not out[n:].any()


@pytest.mark.parametrize("threads", THREADS)
def test_a_while_loop_on_a_flag_that_a_kernel_writes(kernels: SimpleNamespace, threads: int) -> None:
    """while x < 1000: x *= 2"""
    x, flag = words(3), np.zeros(8, np.bool_)
    flag[2] = True  # a neighbour that must survive
    block, condition = words(address(x)), words(address(x), address(flag, 3), 1000)
    builder = PlanBuilder()
    test = builder.launch(kernels.below, address(condition))
    leave = builder.branch_false(address(flag, 3))
    builder.launch(kernels.double, address(block))
    builder.jump(test)
    builder.aim(leave)
    run(builder.build(), threads)
    assert x[0] == 1536
    assert list(flag) == [False, False, True] + [False] * 5


def test_both_sides_of_a_branch(kernels: SimpleNamespace) -> None:
    for value in (False, True):
        flag, out = np.array([value]), words(0, 0)
        yes, no = words(address(out), 11), words(address(out, 1), 22)
        builder = PlanBuilder()
        otherwise = builder.branch_false(address(flag))
        builder.launch(kernels.stamp, address(yes))
        end = builder.jump()
        builder.aim(otherwise)
        builder.launch(kernels.stamp, address(no))
        builder.aim(end)
        run(builder.build(), 1)
        assert list(out) == ([11, 0] if value else [0, 22])


def test_ticks_sum_time(kernels: SimpleNamespace) -> None:
    out = np.zeros(2000, np.int64)
    block = words(address(out))
    builder = PlanBuilder()
    (last,) = builder.cells(0)
    clocks = [builder.cells(last, 0, 0) for _ in range(2)]
    builder.tick(builder.cells(last, 0, 0)[0])  # only starts the clock
    for _ in range(50):
        builder.launch(kernels.count, address(block), 2000)
        builder.tick(clocks[0][0])
        builder.launch(kernels.count, address(block), 1)
        builder.tick(clocks[1][0])
    run(builder.build(), 1)
    sums = [list((ctypes.c_int64 * 3).from_address(c[0])) for c in clocks]
    assert [s[2] for s in sums] == [50, 50]
    assert sums[0][1] > sums[1][1] > 0


def test_an_empty_plan_ends() -> None:
    plan = PlanBuilder().build()
    assert plan.rows.shape == (1, ROW)
    assert plan.rows[0, 0] == Op.END
    run(plan, 1)
    run(plan, 2)


def test_the_plan_keeps_what_it_needs() -> None:
    builder = PlanBuilder(keep=["weights"])
    builder.launch(8, 8, scratch_bytes=100)
    builder.launch(8, 8, scratch_bytes=50)
    plan = builder.build()
    assert isinstance(plan, Plan)
    assert plan.scratch_bytes == 100
    assert plan.keep == ("weights",)


def test_wrong_plans_are_refused() -> None:
    builder = PlanBuilder()
    with pytest.raises(ValueError, match="kernel and a block"):
        builder.launch(0, 8)
    with pytest.raises(ValueError, match="tasks, got -1"):
        builder.launch(8, 8, -1)
    with pytest.raises(ValueError, match="tasks, got 4294967296"):
        builder.launch(8, 8, 1 << 32)
    row = builder.launch(8, 8)
    with pytest.raises(ValueError, match="LAUNCH, which does not jump"):
        builder.aim(row)
    builder.set(8, 1)
    with pytest.raises(ValueError, match="not all launches"):
        builder.group(row)
    builder.jump(99)
    with pytest.raises(ValueError, match=r"row 2 \(JUMP\) jumps to row 99"):
        builder.build()
