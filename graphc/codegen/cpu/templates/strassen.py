"""The Strassen kernel: a matrix product from fewer, smaller ones; see graphc.kernels.strassen for the algorithm.

Like the Winograd kernel: left sums once a task (on two levels its rows are brought into scratch memory with them); then a
group of panels at a time all products, then the results.
"""

from __future__ import annotations

from graphc.codegen.cpu.templates.contraction import sharers_argument
from graphc.codegen.cpu.templates.epilogue import Argument, Epilogue, argument_block, declarations, imports, indent
from graphc.codegen.cpu.templates.halves import (
    combine_lines,
    halves_names,
    left_sums,
    place_of,
    product_lines,
    scratch_lines,
)
from graphc.kernels.strassen import ADDRESSES, NUMBERS, StrassenVariant
from graphc.ops.strassen import matrices

__all__ = ["strassen_arguments", "strassen_source"]


def strassen_arguments(variant: StrassenVariant, epilogue: Epilogue) -> tuple[Argument, ...]:
    """The slots of the argument block, as `argument_block` orders them."""
    return argument_block(dict.fromkeys(ADDRESSES, variant.product.dtype), NUMBERS, epilogue.arguments)


_SOURCE = '''\
"""Strassen's product in tiles of {tiles} x {rows} rows x {tiles} x {columns} columns ({vectors} vectors of {lanes} {dtype})."""

from graphc.codegen.cpu import vector
from graphc.codegen.cpu.intrinsics import {dtype}
from graphc.codegen.cpu.microkernel import contract
from graphc.codegen.cpu.vector import offset
{imports}

contract = contract({rows}, {vectors}, {lanes}, "rows", {inner}, "{dtype}"{sharers})
load, store = vector.loader({lanes}, {partial}), vector.storer({lanes}, {partial})
as_pointer = vector.pointer("{dtype}")
{names}


def {name}(block, first, last, scratch):
{declarations}
    g = 0
    part, free = rounds * {inner}, as_pointer(scratch)
    size = part * {columns}
    w_next = {matrices} * size
{row_size}{scratch}
    vectors = (columns_total + {lanes} - 1) // {lanes}
    for task in range(first, last):
        row_task, above = task % row_tasks, task // row_tasks
        column_task, b = above % column_tasks, above // column_tasks
        first_row = row_task * groups_per_task * {group_rows}
        rows_here = rows_total - first_row
        groups = min(groups_per_task, (rows_here + {group_rows} - 1) // {group_rows})
        {here} = offset(x, b * x_batch + first_row * row_stride)
{sums}
        for group in range(column_task * panels_per_task, min(panel_groups, (column_task + 1) * panels_per_task)):
            w_group = offset(w, group * {matrices} * size)
{product_lines}
            for r in range(groups):
{combine}
                for n in range({tiles} * {tiles}):
                    down, along = n // {tiles}, n % {tiles}
                    tile = offset(products, ({place}) * product_stride + r * {tile_size})
                    first_vector = (group * {tiles} + along) * {vectors}
                    m0 = first_row + r * {group_rows} + down * {rows}
                    for q in range(first_vector, min(vectors, first_vector + {vectors})):
                        lanes = {lanes_here}
                        c = q
                        for p in range(min({rows}, rows_total - m0)):
                            m = m0 + p
                            acc = whole(tile, (p * {vectors} + q - first_vector) * {lanes}, 0)
{epilogue}
'''


def strassen_source(variant: StrassenVariant, epilogue: Epilogue, name: str = "strassen") -> str:
    """The module text of the kernel `name(block, first, last, scratch)` for a variant and an epilogue.

    Tasks are batch x column tasks x row tasks; `scratch` needs `StrassenPlan.scratch_bytes`, 64-byte aligned.
    """
    arguments, product, tiles = strassen_arguments(variant, epilogue), variant.product, variant.tiles
    sizes: dict[str, object] = {
        "rows": product.rows, "columns": product.columns, "vectors": product.vectors, "lanes": product.lanes,
        "inner": product.inner, "dtype": product.dtype, "tiles": tiles, "group_rows": tiles * product.rows,
    }  # fmt: skip
    return _SOURCE.format(
        name=name,
        names="\n".join(halves_names(variant)),
        scratch=indent(scratch_lines(variant, "groups_per_task"), 1),
        sums=indent(left_sums(variant), 2),
        here="x_here" if variant.levels == 1 else "x_task",
        row_size=f"    row_size = {tiles} * part + {product.lanes}\n" if variant.levels == 2 else "",
        product_lines=indent(product_lines(variant), 3),
        combine=indent(combine_lines(variant), 4),
        place=place_of(variant.levels, "down", "along"),
        matrices=matrices(variant.levels, variant.guarded),
        partial=product.partial,
        tile_size=product.rows * product.columns,
        lanes_here=f"min({product.lanes}, columns_total - q * {product.lanes})" if product.partial else product.lanes,
        sharers=sharers_argument(product),
        imports="\n".join(imports(arguments, epilogue, in_registers=False)),
        declarations=indent(list(declarations(arguments)), 1),
        epilogue=indent(epilogue.lines, 7),
        **sizes,
    )  # fmt: skip
