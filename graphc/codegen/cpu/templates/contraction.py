"""The contraction kernel: matrix products and convolutions from one template around one micro-kernel.

The source is meant to be read: it says in which order tiles are visited, and everything that costs time is in the
micro-kernel it calls. A task takes some row tiles and some panels of weights. The task's rows are few enough to stay
in L2 while panels pass. A panel that the caches near the core cannot hold, or not deliver fast enough, is cut into blocks
that stay while row tiles pass; the unfinished sums of all the task's row tiles wait in scratch memory meanwhile.
"""

from __future__ import annotations

from graphc.codegen.cpu.templates.epilogue import Argument, Epilogue, argument_block, declarations, imports, indent
from graphc.ir.dims import ceil_div
from graphc.kernels.contraction import ADDRESSES, NUMBERS, SHARERS, ContractionVariant

__all__ = ["contraction_arguments", "contraction_source", "sharers_argument"]


def contraction_arguments(variant: ContractionVariant, epilogue: Epilogue) -> tuple[Argument, ...]:
    """The slots of the argument block, as `argument_block` orders them."""
    return argument_block(dict.fromkeys(ADDRESSES, variant.dtype) | {"offsets": "int32"}, NUMBERS, epilogue.arguments)


_SOURCE = '''\
"""Contraction in tiles of {rows} rows x {columns} columns ({vectors} vectors of {lanes} {dtype}).

Rows by {mode}; {unroll} of {inner} steps unrolled, {fetches} cache lines of weights fetched ahead in them.
"""

from graphc.codegen.cpu import vector
from graphc.codegen.cpu.microkernel import contract
from graphc.codegen.cpu.vector import offset
{imports}

load, store = vector.loader({lanes}, {partial}), vector.storer({lanes}, {partial})
{definitions}contract = contract({rows}, {vectors}, {lanes}, "{mode}", {inner}, "{dtype}"{dot}{sharers}{finish})
as_pointer = vector.pointer("{sums}")


def {name}(block, first, last, scratch):
{declarations}
    sums = as_pointer(scratch)
    tiles = (rows_total + {rows} - 1) // {rows}
    vectors = (columns_total + {lanes} - 1) // {lanes}
    blocks = max(1, (outer + rounds_per_block - 1) // rounds_per_block)
    for task in range(first, last):
        row_task, above = task % row_tasks, task // row_tasks
        column_task, above = above % column_tasks, above // column_tasks
        g, b = above % groups, above // groups
        first_tile = row_task * tiles_per_task
        last_tile = min(tiles, first_tile + tiles_per_task)
        first_panel = column_task * panels_per_task
        last_panel = min(panels, first_panel + panels_per_task)
        x_here = offset(x, b * x_batch + g * x_group)
        for panel in range(first_panel, last_panel):
            w_panel = offset(w, b * w_batch + g * w_group + panel * panel_stride)
            first_vector = panel * {vectors}
            last_vector = min(vectors, first_vector + {vectors})
            for step in range(blocks):
                done = step * rounds_per_block
                rounds = min(rounds_per_block, outer - done)
                x_block = offset(x_here, done * outer_stride)
                w_block = offset(w_panel, done * taps * {round_size})
                fresh, finished = step == 0, step == blocks - 1
                for row_tile in range(first_tile, last_tile):
                    first_row = row_tile * {rows}
                    valid = min({rows}, rows_total - first_row)
                    # The first row tiles fetch the next block of weights, each other lines of it.
                    turn = row_tile - first_tile
                    ahead = rounds * taps * {round_size} + turn * {fetched} if turn < {turns} else 0
                    tile = offset(sums, turn * {tile_size} if blocks > 1 else 0)
{which}                    {call}
                    if finished:
                        for q in range(first_vector, last_vector{kept}):
                            lanes = {lanes_here}
                            c = g * vectors + q
                            for p in range(valid):
                                m = first_row + p
                                acc = load(tile, ({p} * {vectors} + q - first_vector) * {lanes}, {lanes})
{epilogue}
'''
_ROWS = """contract(
                        tile, fresh, offset(x_block, first_row * row_stride), w_block, ahead, valid,
                        rounds, outer_stride, rest if finished else 0, row_stride, step_stride{given}
                    )"""
_TABLE = """contract(
                        tile, fresh, x_block, w_block, ahead, offset(offsets, row_tile * taps * {rows}), zeros,
                        rounds, outer_stride, taps{given}
                    )"""
# Rows are read side by side, so the last tile begins where its last row is the last one there is.
_PICKED = """contract(
                        tile, fresh, offset(x_block, (first_row - {rows} + valid) * row_stride), w_block, ahead,
                        offset(offsets, g * (outer * {inner} + rest) + done * {inner}),
                        rounds, rest if finished else 0{given}
                    )"""


def sharers_argument(variant: ContractionVariant) -> str:
    """The micro-kernel's last argument, where it is not the usual one."""
    return "" if variant.sharers == SHARERS else f", sharers={variant.sharers}"


def contraction_source(variant: ContractionVariant, epilogue: Epilogue, name: str = "contraction") -> str:
    """The module text of the kernel `name(block, first, last, scratch)` for a variant and an epilogue.

    Tasks are batch x groups x column tasks x row tasks; `scratch` needs `Schedule.scratch_bytes`, 64-byte aligned.
    """
    arguments, lanes = contraction_arguments(variant, epilogue), variant.lanes
    fetched, calls = variant.fetches * variant.cache_line, {"table": _TABLE, "picked": _PICKED}
    exist = f"(first_vector + {variant.vectors}) * {lanes} <= columns_total"
    all_columns = exist if variant.partial else f"first_vector + {variant.vectors} <= vectors"
    whole = f"finished and valid == {variant.rows} and {all_columns}"
    registers = epilogue.in_registers(whole, m="first_row", q="first_vector", c="g * vectors + first_vector")
    return _SOURCE.format(
        name=name,
        rows=variant.rows, vectors=variant.vectors, lanes=lanes, columns=variant.columns,
        mode=variant.mode, inner=variant.inner, unroll=variant.unroll, fetches=variant.fetches,
        dtype=variant.dtype, sums=variant.sums, dot=", True" if variant.dot else "", partial=variant.partial,
        sharers=sharers_argument(variant),
        imports="\n".join(imports(arguments, epilogue)),
        declarations=indent(list(declarations(arguments)), 1),
        call=calls.get(variant.mode, _ROWS).format(rows=variant.rows, inner=variant.inner, given=registers["given"]),
        p=f"({variant.rows} - valid + p)" if variant.mode == "picked" else "p",
        lanes_here=f"min({lanes}, columns_total - q * {lanes})" if variant.partial else lanes,
        turns=ceil_div(variant.unroll * variant.columns, fetched), fetched=fetched,
        tile_size=variant.rows * variant.columns, round_size=variant.inner * variant.columns,
        epilogue=indent(epilogue.calls(), 8), **registers,
    )  # fmt: skip
