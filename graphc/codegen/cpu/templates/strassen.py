"""The Strassen kernel: a matrix product from seven of half the size; see graphc.kernels.strassen for the algorithm.

Like the Winograd kernel: left sums once a task, then a pair of panels at a time all seven products, then the results.
"""

from __future__ import annotations

from graphc.codegen.cpu.templates.contraction import sharers_argument
from graphc.codegen.cpu.templates.epilogue import Argument, Epilogue, declarations, imports, indent
from graphc.ir.dims import ceil_div
from graphc.kernels.strassen import MATRICES, PRODUCTS, RATIO, SLOTS, StrassenVariant

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


def {name}(block, first, last, scratch):
{declarations}
    g = 0
    left = as_pointer(scratch)
    products = offset(left, 4 * sum_stride)
{flags}    sums_row = pairs_per_task * {rows} * {inner}
    half, size = rounds * step_stride, rounds * {inner} * {columns}
    vectors = (columns_total + {lanes} - 1) // {lanes}
    for task in range(first, last):
        row_task, above = task % row_tasks, task // row_tasks
        column_task, b = above % column_tasks, above // column_tasks
        first_row = row_task * pairs_per_task * {twice}
        pairs = min(pairs_per_task, (rows_total - first_row + {twice} - 1) // {twice})
        x_here = offset(x, b * x_batch)
{left_sums}
        for pair in range(column_task * panels_per_task, min(panel_pairs, (column_task + 1) * panels_per_task)):
            w_pair = offset(w, pair * {matrices} * size)
            for i in range({matrices}):
                for r in range(pairs):
                    start = first_row + r * {twice}
                    # A11, A12, S4, A22, S1, S2, S3
                    source, valid = offset(left, (3 if i == 2 else i - 4) * sum_stride + r * {rows} * {inner}), {rows}
                    steps, outer, across = rounds, sums_row, {inner}
                    if i < 2 or i == 3:
                        row = start + {rows} if i == 3 else start
                        source, valid = offset(x_here, row * row_stride + (half if i > 0 else 0)), min({rows}, rows_total - row)
                        steps, outer, across = second_rounds if i > 0 else rounds, step_stride, row_stride
{by_definition}                    # The first row tiles fetch the next matrix, each other lines of it.
                    ahead = size + r * {fetched} if r < {turns} else 0
                    if valid > 0:
                        contract(
                            offset(products, {where} * product_stride + r * {tile_size}), {fresh}, source,
                            offset(w_pair, {matrix} * size), ahead, valid, steps, outer, 0, across, 1,
                        )
            for r in range(pairs):
{spoiled}                for quarter in range(4):
                    down, along = quarter // 2, quarter % 2
                    first_vector = (2 * pair + along) * {vectors}
                    m0 = first_row + r * {twice} + down * {rows}
                    for q in range(first_vector, min(vectors, first_vector + {vectors})):
                        lanes = {lanes_here}
                        c = q
                        for p in range(min({rows}, rows_total - m0)):
                            m = m0 + p
                            at = r * {tile_size} + (p * {vectors} + q - first_vector) * {lanes}
                            acc = whole(products, at, 0)
{quarter}
{epilogue}
'''


#: a pointwise convolution's rows lie side by side in memory: all rows of a round, then the next round
_SUMS = """\
for k in range(rounds):
    for r in range(pairs):
        for p in range({rows}):
            upper = min(rows_total - 1, first_row + r * {twice} + p) * row_stride
            lower = min(rows_total - 1, first_row + r * {twice} + {rows} + p) * row_stride
{sums}"""

#: a matrix's steps lie side by side: row by row, and the largest magnitude of each half is known at a row's end
_GUARDED_SUMS = """\
for r in range(pairs):
    plain[r] = 0
    for p in range({rows}):
        upper = min(rows_total - 1, first_row + r * {twice} + p) * row_stride
        lower = min(rows_total - 1, first_row + r * {twice} + {rows} + p) * row_stride
        m11, m12, m21, m22 = fill({zero}), fill({zero}), fill({zero}), fill({zero})
        for k in range(rounds):
{sums}
                m11, m12 = vector.maximum(m11, vector.absolute(a11)), vector.maximum(m12, vector.absolute(a12))
                m21, m22 = vector.maximum(m21, vector.absolute(a21)), vector.maximum(m22, vector.absolute(a22))
        top11, top12 = vector.reduce_max(m11), vector.reduce_max(m12)
        top21, top22 = vector.reduce_max(m21), vector.reduce_max(m22)
        high, low = max(max(top11, top12), max(top21, top22)), min(min(top11, top12), min(top21, top22))
        # not true of NaN and infinity either
        if not (high <= low * {ratio} and top11 + top12 + top21 + top22 < 1e30):
            plain[r] = 1"""

_SUM = """\
for i in range(0, {inner}, {lanes}):
    here = k * step_stride + i
    a11, a21 = whole(x_here, upper + here, 0), whole(x_here, lower + here, 0)
    a12, a22 = fill({zero}), fill({zero})
    if k < second_rounds:
        a12, a22 = whole(x_here, upper + half + here, 0), whole(x_here, lower + half + here, 0)
    s1 = a21 + a22
    s2 = s1 - a11
    at = k * sums_row + (r * {rows} + p) * {inner} + i
    keep(left, at, s1, 0)
    keep(left, sum_stride + at, s2, 0)
    keep(left, 2 * sum_stride + at, a11 - a21, 0)
    keep(left, 3 * sum_stride + at, a12 - s2, 0)"""

#: what the products add up to in each quarter of the results
_QUARTER = """\
if quarter == 0:
    acc = acc + whole(products, product_stride + at, 0)
else:
    acc = acc + whole(products, 5 * product_stride + at, 0)
    if quarter == 1:
        acc = acc + whole(products, 4 * product_stride + at, 0)
        acc = acc + whole(products, 2 * product_stride + at, 0)
    else:
        acc = acc + whole(products, 6 * product_stride + at, 0)
        if quarter == 2:
            acc = acc - whole(products, 3 * product_stride + at, 0)
        else:
            acc = acc + whole(products, 4 * product_stride + at, 0)"""

#: where rows were computed by definition, each quarter's product is its sum
_QUARTER_GUARDED = f"""\
if by_definition:
    acc = whole(products, quarter * product_stride + at, 0)
el{_QUARTER}"""

_BY_DEFINITION = """\
where, matrix, fresh = i, i, 1
if plain[r] != 0:  # rows that would spoil each other: all eight products, two for each quarter
    where, second = i // 2, i % 2
    matrix, fresh = (2 if second else 7) if where % 2 else second, 1 - second
    row = start + where // 2 * {rows}
    source, valid = offset(x_here, row * row_stride + second * half), min({rows}, rows_total - row)
    steps, outer, across = second_rounds if second else rounds, step_stride, row_stride
elif i == 7:
    valid = 0
"""


def _left_sums(variant: StrassenVariant, names: dict[str, object]) -> str:
    """The lines that make the left sums."""
    sums = indent(_SUM.format(**names).splitlines(), 3)
    text = (_GUARDED_SUMS if variant.guarded else _SUMS).format(sums=sums, **names)
    return indent(text.splitlines(), 2)


def strassen_source(variant: StrassenVariant, epilogue: Epilogue, name: str = "strassen") -> str:
    """The module text of the kernel `name(block, first, last, scratch)` for a variant and an epilogue.

    Tasks are batch x column tasks x row tasks; `scratch` needs `StrassenPlan.scratch_bytes`, 64-byte aligned.
    """
    arguments, product = strassen_arguments(variant, epilogue), variant.product
    fetched = product.fetches * product.cache_line
    names: dict[str, object] = {
        "rows": product.rows, "twice": 2 * product.rows, "inner": product.inner, "lanes": product.lanes,
        "tile_size": product.rows * product.columns, "ratio": RATIO, "zero": f"{product.dtype}(0)",
    }  # fmt: skip
    guarded = variant.guarded
    return _SOURCE.format(
        name=name,
        left_sums=_left_sums(variant, names),
        by_definition=indent([*_BY_DEFINITION.format(**names).splitlines(), ""], 5).rstrip(" ") if guarded else "",
        where="where" if guarded else "i", matrix="matrix" if guarded else "i", fresh="fresh" if guarded else 1,
        matrices=MATRICES if guarded else PRODUCTS,
        quarter=indent((_QUARTER_GUARDED if guarded else _QUARTER).splitlines(), 7),
        spoiled="                by_definition = plain[r] != 0\n" if guarded else "",
        flags="    plain = offset(products, 7 * product_stride)  # of each pair of row tiles\n" if guarded else "",
        rows=product.rows, twice=2 * product.rows, vectors=product.vectors, columns=product.columns,
        lanes=product.lanes, inner=product.inner, dtype=product.dtype, partial=product.partial,
        tile_size=product.rows * product.columns,
        lanes_here=f"min({product.lanes}, columns_total - q * {product.lanes})" if product.partial else product.lanes,
        sharers=sharers_argument(product), fetched=fetched, turns=ceil_div(product.unroll * product.columns, fetched),
        imports="\n".join(imports(arguments, epilogue)),
        declarations=indent(list(declarations(arguments)), 1),
        epilogue=indent(epilogue.lines, 7),
    )  # fmt: skip
