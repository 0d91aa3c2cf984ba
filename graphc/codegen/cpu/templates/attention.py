"""The attention kernel: two products with a softmax between them, a few rows of one head at a time.

The scores of a task's rows lie in scratch memory tile by tile, [tile][panel of keys][row][key of the panel], which is
how the micro-kernel leaves the first product and how it can read the second one's left operand. Weights are not
divided by their sum: the rows of the result are.
"""

from __future__ import annotations

import math
from functools import reduce

from graphc.codegen.cpu.templates.epilogue import Argument, argument_block, declarations, indent
from graphc.codegen.scalar import literal
from graphc.ir.dtypes import dtype_of
from graphc.kernels.attention import ADDRESSES, NUMBERS, AttentionVariant
from graphc.kernels.lower_attention import AttentionKernel

__all__ = ["attention_arguments", "attention_source"]


def attention_arguments(variant: AttentionVariant) -> tuple[Argument, ...]:
    """The slots of the argument block, as `argument_block` orders them."""
    return argument_block(dict.fromkeys(ADDRESSES, variant.dtype), NUMBERS)


_SOURCE = '''\
"""Attention in tiles of {rows} rows x {columns} keys ({vectors} vectors of {lanes} {dtype}), mask: {mask_use}."""

from graphc.codegen.cpu import vector
from graphc.codegen.cpu.intrinsics import exp_nonpositive, {dtype}, inf
from graphc.codegen.cpu.microkernel import contract
from graphc.codegen.cpu.vector import offset, reduce_add, reduce_largest, select

score = contract({rows}, {vectors}, {lanes}, "rows", {score_steps}, "{dtype}")
weigh = contract({rows}, {vectors}, {lanes}, "rows", {columns}, "{dtype}")
load, store = vector.loader({lanes}), vector.storer({lanes})
fill = vector.filler({lanes})
load_some, store_some = vector.loader({lanes}, True), vector.storer({lanes}, True)
transpose = vector.transposer({lanes})
as_pointer = vector.pointer("{dtype}")
pointer_{dtype} = vector.argument_pointer("{dtype}")


def {name}(block, first, last, scratch):
{declarations}
    packed = as_pointer(scratch)
    scores = offset(packed, packed_size)
    sums = offset(scores, scores_size)
    folded = offset(sums, tiles_per_task * {tile_size})  # for each row, a vector
    factors = offset(folded, tiles_per_task * {rows} * {lanes})
    panels = (n + {columns} - 1) // {columns}
    vectors = (n + {lanes} - 1) // {lanes}
    scores_of_tile = panels * {tile_size}
    for task in range(first, last):
        row_task, above = task % row_tasks, task // row_tasks
        h, b = above % heads, above // heads
        first_row = row_task * tiles_per_task * {rows}
        rows = min(m - first_row, tiles_per_task * {rows})
        tiles = (rows + {rows} - 1) // {rows}
        q_task = offset(q, b * q_batch + h * q_head + first_row * q_row)
        k_task = offset(k, b * k_batch + h * k_head)
        v_task = offset(v, b * v_batch + h * v_head)
        mask_task = offset(mask, b * mask_batch + h * mask_head + first_row * mask_row)
        y_task = offset(y, b * y_batch + h * y_head + first_row * y_row)

        # Scores, a panel of keys for all rows.
        for panel in range(panels):
            for j in range({vectors}):
                key = panel * {columns} + j * {lanes}
                keys = max(0, min({lanes}, n - key))
                source, target = offset(k_task, key * k_row), offset(packed, j * {lanes})
                done = 0
                if k_step == 1 and keys == {lanes}:
                    done = d - d % {lanes}
                    for step in range(0, done, {lanes}):
                        transpose(offset(target, step * {columns}), offset(source, step), {columns}, k_row)
                for step in range(done, d):
                    if k_row == 1:
                        store(target, step * {columns}, load_some(source, step * k_step, keys), {lanes})
                    else:
                        for i in range(keys):
                            target[step * {columns} + i] = source[i * k_row + step * k_step]
                        for i in range(keys, {lanes}):
                            target[step * {columns} + i] = 0
            for tile in range(tiles):
                score(
                    offset(scores, tile * scores_of_tile + panel * {tile_size}), True,
                    offset(q_task, tile * {rows} * q_row), packed, 0, min({rows}, rows - tile * {rows}),
                    d // {score_steps}, {score_steps}, d % {score_steps}, q_row, 1,
                )

        # Each row's largest score, which is never a NaN. Lanes are folded in a loop of their own, here and for the sums
        # below: a row's steps wait for each other, those of other rows need not.
        for row in range(rows):
            line = offset(scores, row // {rows} * scores_of_tile + row % {rows} * {columns})
            mask_line = offset(mask_task, row * mask_row)
{start_top}
            for panel in range(n // {columns}):
{score_of_panel}
            for part in range(n // {columns} * {vectors}, vectors):
                at = part // {vectors} * {tile_size} + part % {vectors} * {lanes}
                count = n - part * {lanes}
                value = load(line, at, {lanes}){scaled}
{masked_part}
                store(line, at, {lowest}, {lanes})
                store_some(line, at, value, count)
                value = load(line, at, {lanes})
                top0 = select(value > top0, value, top0)
            store(folded, row * {lanes}, {top}, {lanes})
        for row in range(rows):
            factors[row] = reduce_largest(load(folded, row * {lanes}, {lanes}))

        # Weights: exp(score - the row's largest), in place, and what to multiply with to make their sum 1. A NaN makes the
        # sum NaN.
        for row in range(rows):
            line = offset(scores, row // {rows} * scores_of_tile + row % {rows} * {columns})
            largest = factors[row]
{start_sum}
            for panel in range(n // {columns}):
{weight_of_panel}
            for part in range(n // {columns} * {vectors}, vectors):
                at = part // {vectors} * {tile_size} + part % {vectors} * {lanes}
{weight_of_part}
            store(folded, row * {lanes}, {sum}, {lanes})
        for row in range(rows):
            sum_of_row = reduce_add(load(folded, row * {lanes}, {lanes}))
            factors[row] = {one} / sum_of_row
{clean}
        # The weighted sums of values, a panel of their columns at a time.
        for column in range(0, e, {columns}):
            for chunk in range(0, panels, {panels_per_chunk}):
                first_key = chunk * {columns}
                keys = min({panels_per_chunk} * {columns}, n - first_key)
                for key in range(keys):
                    for j in range({vectors}):
                        lanes = max(0, min({lanes}, e - column - j * {lanes}))
                        values = load_some(v_task, (first_key + key) * v_row + column + j * {lanes}, lanes)
                        store(packed, key * {columns} + j * {lanes}, values, {lanes})
                for tile in range(tiles):
                    weigh(
                        offset(sums, tile * {tile_size}), chunk == 0,
                        offset(scores, tile * scores_of_tile + chunk * {tile_size}), packed, 0,
                        min({rows}, rows - tile * {rows}),
                        keys // {columns}, {tile_size}, keys % {columns}, {columns}, 1,
                    )
            for row in range(rows):
                for j in range({vectors}):
                    lanes = min({lanes}, e - column - j * {lanes})
                    if lanes > 0:
                        value = load(sums, row * {columns} + j * {lanes}, {lanes}) * factors[row]
                        store_some(y_task, row * y_row + column + j * {lanes}, value, lanes)
'''
_MASKED = {
    "none": (),
    "add": ("value = value + load_some(mask_line, {key}, {count})",),
    "fill": ("instead = load_some(mask_line, {key}, {count})", "value = select(instead != 0, instead, value)"),
}
#: a row of which everything is masked: its sum is NaN, and so are its weights
_CLEAN = (
    "if sum_of_row != sum_of_row:",
    "    factors[row] = 0",
    "    line = offset(scores, row // {rows} * scores_of_tile + row % {rows} * {columns})",
    "    for panel in range(panels):",
    "        for j in range({vectors}):",
    "            store(line, panel * {tile_size} + j * {lanes}, 0, {lanes})",
)
_WEIGHT = (
    "value = exp_nonpositive(load(line, {at}, {lanes}) - largest)",
    "store(line, {at}, value, {lanes})",
    "sum{k} = sum{k} + value",
)


def attention_source(kernel: AttentionKernel, name: str = "attention") -> str:
    """The module text of `name(block, first, last, scratch)`; tasks are batch x heads x row tasks."""
    v, dtype = kernel.variant, dtype_of(kernel.variant.dtype)
    sizes = {
        "rows": v.rows, "vectors": v.vectors, "lanes": v.lanes, "columns": v.columns, "dtype": v.dtype,
        "tile_size": v.rows * v.columns, "to_next_panel": (v.rows - 1) * v.columns,
        "score_steps": v.scores.inner, "panels_per_chunk": v.panels_per_chunk,
    }  # fmt: skip
    scaled = "" if v.scale == 1 else f" * {literal(v.scale, dtype)}"

    def masked(key: str, count: str) -> list[str]:
        return [line.format(key=key, count=count) for line in _MASKED[v.mask]]

    score_of_panel: list[str] = []
    weight_of_panel: list[str] = []
    for k in range(v.vectors):
        at = f"panel * {v.rows * v.columns} + {k * v.lanes}"
        score_of_panel += [f"value = load(line, {at}, {v.lanes}){scaled}"]
        score_of_panel += masked(f"panel * {v.columns} + {k * v.lanes}", str(v.lanes))
        if scaled or v.mask != "none":
            score_of_panel.append(f"store(line, {at}, value, {v.lanes})")
        score_of_panel.append(f"top{k} = select(value > top{k}, value, top{k})")
        weight_of_panel += [line.format(at=at, lanes=v.lanes, k=k) for line in _WEIGHT]
    tops, sums = ([f"{what}{k}" for k in range(v.vectors)] for what in ("top", "sum"))
    return _SOURCE.format(
        **sizes,
        name=name,
        mask_use=v.mask,
        scaled=scaled,
        lowest=literal(-math.inf, dtype),
        one=literal(1, dtype),
        declarations=indent(list(declarations(attention_arguments(v))), 1),
        start_top=indent([f"{top} = fill({literal(-math.inf, dtype)})" for top in tops], 3),
        start_sum=indent([f"{part} = fill({literal(0, dtype)})" for part in sums], 3),
        score_of_panel=indent(score_of_panel, 4),
        weight_of_panel=indent(weight_of_panel, 4),
        weight_of_part=indent([line.format(at="at", lanes=v.lanes, k=0) for line in _WEIGHT], 4),
        masked_part=indent(masked(f"part * {v.lanes}", "count"), 4),
        top=reduce(lambda a, b: f"select({a} > {b}, {a}, {b})", tops),
        sum=" + ".join(sums),
        clean=indent([line.format(**sizes) for line in _CLEAN] if v.no_nan else [], 3),
    )
