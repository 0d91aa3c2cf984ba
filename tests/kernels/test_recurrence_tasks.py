"""How the steps of recurrent layers are cut into tasks."""

from __future__ import annotations

from graphc.ir.dtypes import dtype_of
from graphc.kernels.machine import ISAS, Machine
from graphc.kernels.recurrence import Tasks, cell_of, deal

MACHINE = Machine(ISAS["avx512"], l2_bytes=1 << 20)
LSTM = cell_of("lstm", dtype_of("float32"))


def cut(batch: int, hidden: int, threads: int, layers: int = 1) -> Tasks:
    return deal(LSTM, layers, batch, hidden, 0, (16,), 4, 4, MACHINE, threads)


def test_one_thread_walks_all_steps_at_once() -> None:
    assert cut(64, 128, 1) == Tasks(64, 1, 128, 1)


def test_rows_are_cut_where_every_thread_can_hold_all_weights() -> None:
    tasks = cut(64, 128, 2)
    assert (tasks.row_tasks, tasks.column_tasks) == (2, 1)
    assert tasks.rows_per_task == 32


def test_hidden_units_are_cut_where_weights_are_most_of_the_work() -> None:
    tasks = cut(1, 512, 2)
    assert (tasks.row_tasks, tasks.column_tasks) == (1, 2)
    assert tasks.columns_per_task == 256


def test_one_row_takes_what_its_weights_take_from_the_cache() -> None:
    one, eight = (deal(LSTM, 1, batch, 128, 0, (16,), batch, 4, MACHINE, 2) for batch in (1, 8))
    assert one.column_tasks == 2, "256 KiB a step, though its arithmetic is little"
    assert (eight.row_tasks, eight.column_tasks) == (1, 2)


def test_a_small_step_is_not_worth_a_phase() -> None:
    assert cut(1, 64, 2).column_tasks == 1


def test_two_directions_are_two_tasks() -> None:
    assert cut(64, 128, 2, layers=2) == Tasks(64, 1, 128, 1)


def test_tasks_end_at_whole_tiles_and_panels() -> None:
    tasks = cut(37, 70, 3)
    assert tasks.rows_per_task % 4 == 0
    assert tasks.columns_per_task % 16 == 0
    assert tasks.rows_per_task * tasks.row_tasks >= 37
