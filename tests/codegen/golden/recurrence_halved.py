"""Recurrence: 2 states of float32, 1 layer side by side; 4 gates in halved tiles of 4 rows x 16 columns."""

from graphc.codegen.cpu import vector
from graphc.codegen.cpu.microkernel import contract
from graphc.codegen.cpu.vector import offset, prefetch
from graphc.codegen.cpu.intrinsics import float32, gate_sigmoid, gate_tanh, int64

contract0 = contract(4, 2, 8, "rows", 16, "float32")
load, store = vector.loader(8, True), vector.storer(8, True)
whole, keep, fill = vector.loader(8), vector.storer(8), vector.filler(8)
larger, magnitude, largest_lane = vector.maximum, vector.absolute, vector.reduce_max
load_some, store_some = vector.loader(8, True), vector.storer(8, True)
as_pointer = vector.pointer("float32")
pointer = vector.argument_pointer("float32")
integers = vector.argument_pointer("int64")


def recurrence_63faee358ef9(block, first, last, scratch):
    total_steps = block[10]
    steps = block[11]
    first_product = block[12]
    batch = block[13]
    hidden = block[14]
    inputs = block[15]
    rows_per_task = block[16]
    row_tasks = block[17]
    columns_per_task = block[18]
    column_tasks = block[19]
    first_sweep = block[20]
    last_sweep = block[21]
    counter = integers(block, 5)
    depth = hidden + inputs
    most_rounds = (depth + 16 - 1) // 16
    part = (most_rounds + 1) // 2 * 16
    row_stride, step_stride = most_rounds * 16 + 8, 16
    # What is multiplied, filled up with zeros; each sweep's sums and products are behind it.
    x_here = as_pointer(scratch)
    free = offset(x_here, rows_per_task * row_stride)
    start = counter[0]
    for task in range(first, last):
        column_task, above = task % column_tasks, task // column_tasks
        row_task, layer = above % row_tasks, above // row_tasks
        first_row, first_column = row_task * rows_per_task, column_task * columns_per_task
        last_row, last_column = min(batch, first_row + rows_per_task), min(hidden, first_column + columns_per_task)
        x = pointer(block, layer * 5 + 0)
        bias = pointer(block, layer * 5 + 1)
        w0 = pointer(block, layer * 5 + 2)
        initial0 = pointer(block, layer * 5 + 3)
        initial1 = pointer(block, layer * 5 + 4)
        y = pointer(block, 6 + layer * 4 + 0)
        last0 = pointer(block, 6 + layer * 4 + 1)
        last1 = pointer(block, 6 + layer * 4 + 2)
        other = pointer(block, 6 + layer * 4 + 3)
        backwards = block[22 + layer * 5 + 0]
        x_step = block[22 + layer * 5 + 1]
        x_row = block[22 + layer * 5 + 2]
        y_step = block[22 + layer * 5 + 3]
        y_row = block[22 + layer * 5 + 4]
        for t in range(start, min(total_steps, start + steps)):
            # The places of state 0 alternate, and the last step writes the result.
            even = (total_steps - 1 - t) % 2 == 0
            new0 = last0 if even else other
            old0 = initial0 if t == 0 else (other if even else last0)
            new1, old1 = last1, initial1 if t == 0 else last1
            first_panel, last_panel = first_column // 8, (last_column + 8 - 1) // 8
            rows_here = last_row - first_row
            groups, most_groups = (rows_here + 8 - 1) // 8, (rows_per_task + 8 - 1) // 8
            left = free
            products = offset(left, most_groups * 4 * (4 * 1 * part + 8))
            product_stride = most_groups * 64 + 8
            plain = offset(products, 7 * product_stride)
            tops = offset(plain, most_groups)  # of a group's parts, the largest magnitudes
            for row in range(first_row, last_row):
                multiplied = offset(x_here, (row - first_row) * row_stride)
                for k in range(0, hidden, 8):
                    store(multiplied, k, load(old0, row * hidden + k, hidden - k), hidden - k)
                x_place = (total_steps - 1 - t if backwards != 0 else t) * x_step + row * x_row
                for k in range(0, inputs, 8):
                    store_some(multiplied, hidden + k, load_some(x, x_place + k, inputs - k), inputs - k)
                for k in range(depth, most_rounds * 16):
                    multiplied[k] = 0
            all_rounds = most_rounds
            rounds = (all_rounds + 1) // 2
            for r in range(groups):
                sums = offset(left, r * 4 * (4 * part + 8))
                for p in range(4):
                    upper, lower = min(rows_here - 1, r * 8 + p) * row_stride, min(rows_here - 1, r * 8 + 4 + p) * row_stride
                    for h in range(1):
                        m11, m12, m21, m22 = fill(float32(0)), fill(float32(0)), fill(float32(0)), fill(float32(0))
                        for n in range(h * rounds, (h + 1) * rounds):
                            for i in range(0, 16, 8):
                                a11, a21 = whole(x_here, upper + n * step_stride + i, 0), whole(x_here, lower + n * step_stride + i, 0)
                                a12, a22 = fill(float32(0)), fill(float32(0))
                                if 1 * rounds + n < all_rounds:
                                    a12 = whole(x_here, upper + (1 * rounds + n) * step_stride + i, 0)
                                    a22 = whole(x_here, lower + (1 * rounds + n) * step_stride + i, 0)
                                at = p * part + n * 16 + i
                                s1 = a21 + a22
                                s2 = s1 - a11
                                keep(sums, at, s1, 0)
                                keep(sums, 4 * part + 8 + at, s2, 0)
                                keep(sums, 2 * (4 * part + 8) + at, a11 - a21, 0)
                                keep(sums, 3 * (4 * part + 8) + at, a12 - s2, 0)
                                m11, m12 = larger(m11, magnitude(a11)), larger(m12, magnitude(a12))
                                m21, m22 = larger(m21, magnitude(a21)), larger(m22, magnitude(a22))
                        at = (p * 1 + h) * 4
                        tops[at], tops[at + 1] = largest_lane(m11), largest_lane(m12)
                        tops[at + 2], tops[at + 3] = largest_lane(m21), largest_lane(m22)
                plain[r] = 0
                for p in range(4):  # of all rows and parts that are added
                    high, low, total = float32(0), float32(1e30), float32(0)
                    for n in range(1):
                        for i in range(1 * 4):
                            top = tops[(n * 4 + p) * 1 * 4 + i]
                            high, low, total = max(high, top), min(low, top), total + top
                    # not true of NaN and infinity either
                    if not (high <= low * 64.0 and total < float32(1e30)):
                        plain[r] = 1
            size = part * 16
            for turn in range(first_panel, last_panel):
                panel = turn if t % 2 == 0 else first_panel + last_panel - 1 - turn
                w_group = offset(w0, panel * 8 * size)
                w_next = 8 * size if t % 2 == 0 else -8 * size
                for i in range(8):
                    for r in range(groups):
                        source, across, outer = offset(left, (r * 4 + (3 if i == 2 else i - 4)) * (4 * part + 8)), part, 16
                        steps, valid = rounds, 4
                        if i < 2 or i == 3:
                            row = r * 8 + (4 if i == 3 else 0)
                            source = offset(x_here, row * row_stride + (rounds * step_stride if i > 0 else 0))
                            across, outer, valid = row_stride, step_stride, min(4, rows_here - row)
                            steps = all_rounds - rounds if i > 0 else rounds
                        where, matrix, fresh = i, i, 1
                        if plain[r] != 0:  # rows that would spoil each other: all eight products, two for each quarter
                            where, second = i // 2, i % 2
                            matrix, fresh = (2 if second else 7) if where % 2 else second, 1 - second
                            row = r * 8 + where // 2 * 4
                            source = offset(x_here, row * row_stride + second * rounds * step_stride)
                            across, outer, valid = row_stride, step_stride, min(4, rows_here - row)
                            steps = all_rounds - rounds if second else rounds
                        elif i == 7:
                            valid = 0
                        # The first row tiles fetch the next matrix, each other lines of it.
                        ahead = (size if i < 6 else w_next - 6 * size) + r * 64 if r < 2 else 0
                        if valid > 0:
                            contract0(
                                offset(products, where * product_stride + r * 64), fresh, source,
                                offset(w_group, matrix * size), ahead, valid, steps, outer, 0, across, 1,
                            )
                for r in range(groups):
                    if plain[r] == 0:
                        begin = r * 64
                        for at in range(begin, begin + 64, 8):
                            p1, p5 = whole(products, at, 0), whole(products, 4 * product_stride + at, 0)
                            u = p1 + whole(products, 5 * product_stride + at, 0)
                            v = u + whole(products, 6 * product_stride + at, 0)
                            upper = p1 + whole(products, product_stride + at, 0)
                            keep(products, product_stride + at, u + p5 + whole(products, 2 * product_stride + at, 0), 0)
                            keep(products, 2 * product_stride + at, v - whole(products, 3 * product_stride + at, 0), 0)
                            keep(products, 3 * product_stride + at, v + p5, 0)
                            keep(products, at, upper, 0)
                    for down in range(2):
                        row = first_row + r * 8 + down * 4
                        valid = min(4, last_row - row)
                        tile = offset(products, 2 * down * product_stride + r * 64)
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
                                x1 = load(bias, 0 * hidden + column, lanes)
                                x2 = whole(tile, (0 + u) // 2 * product_stride + (p * 2 + (0 + u) % 2) * 8, 0)
                                x3 = load(bias, 2 * hidden + column, lanes)
                                x4 = whole(tile, (2 + u) // 2 * product_stride + (p * 2 + (2 + u) % 2) * 8, 0)
                                x5 = load(bias, 3 * hidden + column, lanes)
                                x6 = whole(tile, (3 + u) // 2 * product_stride + (p * 2 + (3 + u) % 2) * 8, 0)
                                x7 = load(bias, 1 * hidden + column, lanes)
                                x8 = whole(tile, (1 + u) // 2 * product_stride + (p * 2 + (1 + u) % 2) * 8, 0)
                                v9 = gate_sigmoid(x3 + x4) * x0 + gate_sigmoid(x1 + x2) * gate_tanh(x5 + x6)
                                h = gate_sigmoid(x7 + x8) * gate_tanh(v9)
                                store(new0, here, h, lanes)
                                store(new1, here, v9, lanes)
                                store(y, place * y_step + m * y_row + column, h, lanes)
