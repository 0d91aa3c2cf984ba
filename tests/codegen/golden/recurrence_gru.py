"""Recurrence: 1 state of float32, 2 layers side by side of sequences of any length; 2 gates in tiles of 4 rows x 32 columns; 1 gates in tiles of 4 rows x 32 columns."""

from graphc.codegen.cpu import vector
from graphc.codegen.cpu.microkernel import contract
from graphc.codegen.cpu.vector import offset, prefetch
from graphc.codegen.cpu.intrinsics import float32, gate_sigmoid, gate_tanh, int64

contract0 = contract(4, 4, 8, "rows", 6, "float32")
contract1 = contract(4, 4, 8, "rows", 6, "float32")
load, store = vector.loader(8, True), vector.storer(8, True)
as_pointer = vector.pointer("float32")
pointer = vector.argument_pointer("float32")
integers = vector.argument_pointer("int64")


def recurrence_9c343ddf0462(block, first, last, scratch):
    total_steps = block[20]
    steps = block[21]
    first_product = block[22]
    batch = block[23]
    hidden = block[24]
    inputs = block[25]
    rows_per_task = block[26]
    row_tasks = block[27]
    columns_per_task = block[28]
    column_tasks = block[29]
    first_sweep = block[30]
    last_sweep = block[31]
    rounds0 = block[32]
    rounds1 = block[33]
    counter = integers(block, 8)
    counts = integers(block, 9)
    # The sums of a tile's projected inputs, then those of all the task's tiles.
    projected = as_pointer(scratch)
    sums = offset(projected, 0)
    start = counter[0]
    for task in range(first, last):
        column_task, above = task % column_tasks, task // column_tasks
        row_task, layer = above % row_tasks, above // row_tasks
        first_row, first_column = row_task * rows_per_task, column_task * columns_per_task
        last_row, last_column = min(batch, first_row + rows_per_task), min(hidden, first_column + columns_per_task)
        x = pointer(block, layer * 4 + 0)
        w0 = pointer(block, layer * 4 + 1)
        w1 = pointer(block, layer * 4 + 2)
        initial0 = pointer(block, layer * 4 + 3)
        y = pointer(block, 10 + layer * 5 + 0)
        last0 = pointer(block, 10 + layer * 5 + 1)
        other = pointer(block, 10 + layer * 5 + 2)
        work0 = pointer(block, 10 + layer * 5 + 3)
        work1 = pointer(block, 10 + layer * 5 + 4)
        backwards = block[34 + layer * 5 + 0]
        x_step = block[34 + layer * 5 + 1]
        x_row = block[34 + layer * 5 + 2]
        y_step = block[34 + layer * 5 + 3]
        y_row = block[34 + layer * 5 + 4]
        for t in range(start, min(total_steps, start + steps)):
            # The places of state 0 alternate, and the last step writes the result.
            even = (total_steps - 1 - t) % 2 == 0
            new0 = last0 if even else other
            old0 = initial0 if t == 0 else (other if even else last0)

            if first_sweep <= 0 < last_sweep:
                first_panel, last_panel = first_column // 16, (last_column + 16 - 1) // 16
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
                                for p in range(valid):
                                    far = x_place + (row + p) * x_row + panel * 16
                                    prefetch(x, far + 0 * hidden + 0)
                                    prefetch(x, far + 1 * hidden + 0)
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
                                    count = counts[m]
                                    active = t < count
                                    place = count - 1 - t if active and backwards != 0 else t
                                    for u in range(2):
                                        column = panel * 16 + u * 8
                                        lanes = min(8, hidden - column)
                                        if lanes <= 0:
                                            break
                                        here = m * hidden + column
                                        if active:
                                            x0 = load(x, place * x_step + m * x_row + 0 * hidden + column, lanes)
                                            x1 = load(tile, (p * 4 + 0 + u) * 8, 8)
                                            x2 = load(x, place * x_step + m * x_row + 1 * hidden + column, lanes)
                                            x3 = load(tile, (p * 4 + 2 + u) * 8, 8)
                                            x4 = load(old0, here, lanes)
                                            store(work0, here, gate_sigmoid(x2 + x3) * x4, lanes)
                                            store(work1, here, gate_sigmoid(x0 + x1), lanes)
            if first_sweep <= 1 < last_sweep:
                first_panel, last_panel = first_column // 32, (last_column + 32 - 1) // 32
                outer, rest = hidden // 6, hidden % 6
                blocks = max(1, (outer + rounds1 - 1) // rounds1)
                for turn in range(first_panel, last_panel):
                    panel = turn if t % 2 == 0 else first_panel + last_panel - 1 - turn
                    panel_size = hidden * 32
                    following = panel_size if t % 2 == 0 else -panel_size
                    w_panel = offset(w1, panel * panel_size)
                    for step in range(blocks):
                        done = step * rounds1
                        rounds = min(rounds1, outer - done) if t >= first_product else 0
                        w_block = offset(w_panel, done * 192)
                        fresh, finished = step == 0, step == blocks - 1
                        next_block = following - done * 192 if finished else rounds * 192
                        for row in range(first_row, last_row, 4):
                            valid = min(4, last_row - row)
                            tile = offset(sums, (row - first_row) * 32)
                            if finished:
                                x_place = (total_steps - 1 - t if backwards != 0 else t) * x_step
                                for p in range(valid):
                                    far = x_place + (row + p) * x_row + panel * 32
                                    prefetch(x, far + 2 * hidden + 0)
                                    prefetch(x, far + 2 * hidden + 16)
                            # The first row tiles fetch the next block of weights, each other lines of it.
                            tiles = (row - first_row) // 4
                            ahead = next_block + tiles * 96 if tiles < 2 else 0
                            contract1(
                                tile, fresh, offset(work0, row * hidden + done * 6), w_block, ahead, valid,
                                rounds, 6, rest if finished and t >= first_product else 0, hidden, 1,
                            )
                            if finished:
                                for p in range(valid):
                                    m = row + p
                                    count = counts[m]
                                    active = t < count
                                    place = count - 1 - t if active and backwards != 0 else t
                                    for u in range(4):
                                        column = panel * 32 + u * 8
                                        lanes = min(8, hidden - column)
                                        if lanes <= 0:
                                            break
                                        here = m * hidden + column
                                        if active:
                                            x0 = load(work1, here, lanes)
                                            x1 = load(x, place * x_step + m * x_row + 2 * hidden + column, lanes)
                                            x2 = load(tile, (p * 4 + 0 + u) * 8, 8)
                                            x3 = load(old0, here, lanes)
                                            h = (float32(1.0) - x0) * gate_tanh(x1 + x2) + x0 * x3
                                            store(new0, here, h, lanes)
                                            store(y, place * y_step + m * y_row + column, h, lanes)
                                        else:
                                            store(new0, here, load(old0, here, lanes), lanes)
                                            store(y, place * y_step + m * y_row + column, 0, lanes)
