"""Recurrence: 2 states of float32, 1 layer side by side; 4 gates in tiles of 4 rows x 32 columns."""

from graphc.codegen.cpu import vector
from graphc.codegen.cpu.microkernel import contract
from graphc.codegen.cpu.vector import offset, prefetch
from graphc.codegen.cpu.intrinsics import gate_sigmoid, gate_tanh, int64

contract0 = contract(4, 4, 8, "rows", 6, "float32")
load, store = vector.loader(8, True), vector.storer(8, True)
as_pointer = vector.pointer("float32")
pointer = vector.argument_pointer("float32")
integers = vector.argument_pointer("int64")


def recurrence_935c50896aa2(block, first, last, scratch):
    total_steps = block[11]
    steps = block[12]
    first_product = block[13]
    batch = block[14]
    hidden = block[15]
    inputs = block[16]
    rows_per_task = block[17]
    row_tasks = block[18]
    columns_per_task = block[19]
    column_tasks = block[20]
    first_sweep = block[21]
    last_sweep = block[22]
    rounds0 = block[23]
    counter = integers(block, 6)
    # The sums of a tile's projected inputs, then those of all the task's tiles.
    projected = as_pointer(scratch)
    sums = offset(projected, 128)
    start = counter[0]
    for task in range(first, last):
        column_task, above = task % column_tasks, task // column_tasks
        row_task, layer = above % row_tasks, above // row_tasks
        first_row, first_column = row_task * rows_per_task, column_task * columns_per_task
        last_row, last_column = min(batch, first_row + rows_per_task), min(hidden, first_column + columns_per_task)
        x = pointer(block, layer * 6 + 0)
        v0 = pointer(block, layer * 6 + 1)
        bias = pointer(block, layer * 6 + 2)
        w0 = pointer(block, layer * 6 + 3)
        initial0 = pointer(block, layer * 6 + 4)
        initial1 = pointer(block, layer * 6 + 5)
        y = pointer(block, 7 + layer * 4 + 0)
        last0 = pointer(block, 7 + layer * 4 + 1)
        last1 = pointer(block, 7 + layer * 4 + 2)
        other = pointer(block, 7 + layer * 4 + 3)
        backwards = block[24 + layer * 5 + 0]
        x_step = block[24 + layer * 5 + 1]
        x_row = block[24 + layer * 5 + 2]
        y_step = block[24 + layer * 5 + 3]
        y_row = block[24 + layer * 5 + 4]
        for t in range(start, min(total_steps, start + steps)):
            # The places of state 0 alternate, and the last step writes the result.
            even = (total_steps - 1 - t) % 2 == 0
            new0 = last0 if even else other
            old0 = initial0 if t == 0 else (other if even else last0)
            new1, old1 = last1, initial1 if t == 0 else last1
            first_panel, last_panel = first_column // 8, (last_column + 8 - 1) // 8
            outer, rest = hidden // 6, hidden % 6
            blocks = max(1, (outer + rounds0 - 1) // rounds0)
            for turn in range(first_panel, last_panel):
                panel = turn if t % 2 == 0 else first_panel + last_panel - 1 - turn
                panel_size = hidden * 32
                following = panel_size if t % 2 == 0 else -panel_size
                w_panel = offset(w0, panel * panel_size)
                for step in range(blocks):
                    done = step * rounds0
                    rounds = min(rounds0, outer - done) if t >= first_product else 0
                    w_block = offset(w_panel, done * 192)
                    fresh, finished = step == 0, step == blocks - 1
                    next_block = following - done * 192 if finished else rounds * 192
                    for row in range(first_row, last_row, 4):
                        valid = min(4, last_row - row)
                        tile = offset(sums, (row - first_row) * 32)
                        if finished:
                            x_place = (total_steps - 1 - t if backwards != 0 else t) * x_step
                            contract0(
                                projected, 1, offset(x, x_place + row * x_row), offset(v0, panel * inputs * 32), 0, valid,
                                inputs // 6, 6, inputs % 6, x_row, 1,
                            )
                        # The first row tiles fetch the next block of weights, each other lines of it.
                        tiles = (row - first_row) // 4
                        ahead = next_block + tiles * 96 if tiles < 2 else 0
                        contract0(
                            tile, fresh, offset(old0, row * hidden + done * 6), w_block, ahead, valid,
                            rounds, 6, rest if finished and t >= first_product else 0, hidden, 1,
                        )
                        if finished:
                            for p in range(valid):
                                m = row + p
                                place = total_steps - 1 - t if backwards != 0 else t
                                for u in range(1):
                                    column = panel * 8 + u * 8
                                    lanes = min(8, hidden - column)
                                    if lanes <= 0:
                                        break
                                    here = m * hidden + column
                                    x0 = load(old1, here, lanes)
                                    x1 = load(projected, (p * 4 + 0 + u) * 8, 8) + load(bias, 0 * hidden + column, lanes)
                                    x2 = load(tile, (p * 4 + 0 + u) * 8, 8)
                                    x3 = load(projected, (p * 4 + 2 + u) * 8, 8) + load(bias, 2 * hidden + column, lanes)
                                    x4 = load(tile, (p * 4 + 2 + u) * 8, 8)
                                    x5 = load(projected, (p * 4 + 3 + u) * 8, 8) + load(bias, 3 * hidden + column, lanes)
                                    x6 = load(tile, (p * 4 + 3 + u) * 8, 8)
                                    x7 = load(projected, (p * 4 + 1 + u) * 8, 8) + load(bias, 1 * hidden + column, lanes)
                                    x8 = load(tile, (p * 4 + 1 + u) * 8, 8)
                                    v9 = gate_sigmoid(x3 + x4) * x0 + gate_sigmoid(x1 + x2) * gate_tanh(x5 + x6)
                                    h = gate_sigmoid(x7 + x8) * gate_tanh(v9)
                                    store(new0, here, h, lanes)
                                    store(new1, here, v9, lanes)
                                    store(y, place * y_step + m * y_row + column, h, lanes)
