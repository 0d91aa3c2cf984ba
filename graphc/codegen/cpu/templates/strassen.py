"""The Strassen kernel: a matrix product from seven of half the size; see graphc.kernels.strassen for the algorithm.

Like the Winograd kernel: left sums once a task, then a pair of panels at a time all seven products, then the results.
"""

from __future__ import annotations

from graphc.codegen.cpu.templates.contraction import sharers_argument
from graphc.codegen.cpu.templates.epilogue import Argument, Epilogue, declarations, imports, indent
from graphc.codegen.cpu.templates.halves import combine_lines, guard_names, left_sums, product_lines
from graphc.kernels.strassen import MATRICES, PRODUCTS, SLOTS, StrassenVariant

__all__ = ["strassen_arguments", "strassen_source"]


def strassen_arguments(variant: StrassenVariant, epilogue: Epilogue) -> tuple[Argument, ...]:
    """The argument block: all addresses, then all numbers, `SLOTS` first and then the epilogue's."""
    kinds = dict.fromkeys(("x", "w"), variant.product.dtype)
    slots = (*(Argument(name, kinds.get(name, "int")) for name in SLOTS), *epilogue.arguments)
    return tuple(sorted(slots, key=lambda slot: slot.kind == "int"))


_SOURCE = '''\
"""Strassen's product in tiles of 2 x {rows} rows x 2 x {columns} columns ({vectors} vectors of {lanes} {dtype})."""

from graphc.codegen.cpu import vector
from graphc.codegen.cpu.intrinsics import {dtype}
from graphc.codegen.cpu.microkernel import contract
from graphc.codegen.cpu.vector import offset
{imports}

contract = contract({rows}, {vectors}, {lanes}, "rows", {inner}, "{dtype}"{sharers})
load, store = vector.loader({lanes}, {partial}), vector.storer({lanes}, {partial})
whole, keep = vector.loader({lanes}), vector.storer({lanes})
as_pointer, fill = vector.pointer("{dtype}"), vector.filler({lanes})
{guards}

def {name}(block, first, last, scratch):
{declarations}
    g = 0
    left = as_pointer(scratch)
    products = offset(left, 4 * sum_stride)
{flags}    sums_row = pairs_per_task * {rows} * {inner}
    half, size = rounds * step_stride, rounds * {inner} * {columns}
    w_next = {matrices} * size
    vectors = (columns_total + {lanes} - 1) // {lanes}
    for task in range(first, last):
        row_task, above = task % row_tasks, task // row_tasks
        column_task, b = above % column_tasks, above // column_tasks
        first_row = row_task * pairs_per_task * {twice}
        rows_here = rows_total - first_row
        pairs = min(pairs_per_task, (rows_here + {twice} - 1) // {twice})
        x_here = offset(x, b * x_batch + first_row * row_stride)
{left_sums}
        for pair in range(column_task * panels_per_task, min(panel_pairs, (column_task + 1) * panels_per_task)):
            w_pair = offset(w, pair * {matrices} * size)
{product_lines}
            for r in range(pairs):
{combine}
                for quarter in range(4):
                    down, along = quarter // 2, quarter % 2
                    first_vector = (2 * pair + along) * {vectors}
                    m0 = first_row + r * {twice} + down * {rows}
                    for q in range(first_vector, min(vectors, first_vector + {vectors})):
                        lanes = {lanes_here}
                        c = q
                        for p in range(min({rows}, rows_total - m0)):
                            m = m0 + p
                            at = r * {tile_size} + (p * {vectors} + q - first_vector) * {lanes}
                            acc = whole(products, quarter * product_stride + at, 0)
{epilogue}
'''


def strassen_source(variant: StrassenVariant, epilogue: Epilogue, name: str = "strassen") -> str:
    """The module text of the kernel `name(block, first, last, scratch)` for a variant and an epilogue.

    Tasks are batch x column tasks x row tasks; `scratch` needs `StrassenPlan.scratch_bytes`, 64-byte aligned.
    """
    arguments, product, guarded = strassen_arguments(variant, epilogue), variant.product, variant.guarded
    return _SOURCE.format(
        name=name,
        left_sums=indent(left_sums(product, guarded), 2),
        product_lines=indent(product_lines(product, guarded), 3),
        combine=indent(combine_lines(product, guarded), 4),
        matrices=MATRICES if guarded else PRODUCTS,
        flags="    plain = offset(products, 7 * product_stride)  # of each pair of row tiles\n" if guarded else "",
        rows=product.rows, twice=2 * product.rows, vectors=product.vectors, columns=product.columns,
        lanes=product.lanes, inner=product.inner, dtype=product.dtype, partial=product.partial,
        tile_size=product.rows * product.columns,
        lanes_here=f"min({product.lanes}, columns_total - q * {product.lanes})" if product.partial else product.lanes,
        sharers=sharers_argument(product),
        guards="".join(line + "\n" for line in guard_names()) if guarded else "",
        imports="\n".join(imports(arguments, epilogue)),
        declarations=indent(list(declarations(arguments)), 1),
        epilogue=indent(epilogue.lines, 7),
    )  # fmt: skip
