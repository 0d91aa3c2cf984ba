"""The lines of Strassen's algorithm that kernels share: the left sums, the products of two panels, their results.

See graphc.kernels.strassen for the algorithm. The lines expect these names:

    x_here, rows_here         the left operand from the first row on, and how many rows it has
    row_stride, step_stride   distances in it: between rows, and between rounds of steps
    half                      where the second half of the steps begins in it
    rounds, second_rounds     rounds of the first half and of the second
    pairs                     pairs of row tiles: the upper rows of pair r are followed by its lower ones
    left, sum_stride          scratch memory for the left sums, and the distance between them
    sums_row                  distance between the rounds of a left sum
    products, product_stride  scratch memory for the products' tiles, and the distance between products
    plain                     of guarded rows, scratch memory: for each pair whether it is computed by definition
    w_pair, size              the packed matrices of two panels, and the elements of one
    w_next                    distance from them to those that are needed next

and those that the lines of `guard_names` make at the head of a module with guarded rows.
"""

from __future__ import annotations

from graphc.ir.dims import ceil_div
from graphc.kernels.contraction import ContractionVariant
from graphc.kernels.strassen import MATRICES, PRODUCTS, RATIO

__all__ = ["combine_lines", "guard_names", "left_sums", "product_lines"]

#: a pointwise convolution's rows lie side by side in memory: all rows of a round, then the next round
_SUMS = """\
for k in range(rounds):
    for r in range(pairs):
        for p in range({rows}):
            upper = min(rows_here - 1, r * {twice} + p) * row_stride
            lower = min(rows_here - 1, r * {twice} + {rows} + p) * row_stride
            for i in range(0, {inner}, {lanes}):
{sum}"""

#: a matrix's steps lie side by side: row by row, and the largest magnitude of each half is known at a row's end
_GUARDED_SUMS = """\
for r in range(pairs):
    plain[r] = 0
    for p in range({rows}):
        upper = min(rows_here - 1, r * {twice} + p) * row_stride
        lower = min(rows_here - 1, r * {twice} + {rows} + p) * row_stride
        m11, m12, m21, m22 = fill({zero}), fill({zero}), fill({zero}), fill({zero})
        for k in range(rounds):
            for i in range(0, {inner}, {lanes}):
{sum}
                m11, m12 = larger(m11, magnitude(a11)), larger(m12, magnitude(a12))
                m21, m22 = larger(m21, magnitude(a21)), larger(m22, magnitude(a22))
        top11, top12 = largest_lane(m11), largest_lane(m12)
        top21, top22 = largest_lane(m21), largest_lane(m22)
        high, low = max(max(top11, top12), max(top21, top22)), min(min(top11, top12), min(top21, top22))
        # not true of NaN and infinity either
        if not (high <= low * {ratio} and top11 + top12 + top21 + top22 < 1e30):
            plain[r] = 1"""

_SUM = """\
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

_PRODUCTS = """\
for i in range({matrices}):
    for r in range(pairs):
        # A11, A12, S4, A22, S1, S2, S3
        source, valid = offset(left, (3 if i == 2 else i - 4) * sum_stride + r * {rows} * {inner}), {rows}
        steps, outer, across = rounds, sums_row, {inner}
        if i < 2 or i == 3:
            row = r * {twice} + {rows} if i == 3 else r * {twice}
            source, valid = offset(x_here, row * row_stride + (half if i > 0 else 0)), min({rows}, rows_here - row)
            steps, outer, across = second_rounds if i > 0 else rounds, step_stride, row_stride
{by_definition}        # The first row tiles fetch the next matrix, each other lines of it.
        following = size if i < {last} else w_next - {last} * size
        ahead = following + r * {fetched} if r < {turns} else 0
        if valid > 0:
            {contract}(
                offset(products, {where} * product_stride + r * {tile_size}), {fresh}, source,
                offset(w_pair, {matrix} * size), ahead, valid, steps, outer, 0, across, 1,
            )"""

_BY_DEFINITION = """\
        where, matrix, fresh = i, i, 1
        if plain[r] != 0:  # rows that would spoil each other: all eight products, two for each quarter
            where, second = i // 2, i % 2
            matrix, fresh = (2 if second else 7) if where % 2 else second, 1 - second
            row = r * {twice} + where // 2 * {rows}
            source, valid = offset(x_here, row * row_stride + second * half), min({rows}, rows_here - row)
            steps, outer, across = second_rounds if second else rounds, step_stride, row_stride
        elif i == 7:
            valid = 0
"""

#: the four quarters of a pair's results take the places of its first four products
_COMBINE = """\
for at in range(r * {tile_size}, (r + 1) * {tile_size}, {lanes}):
    p1, p5 = whole(products, at, 0), whole(products, 4 * product_stride + at, 0)
    u = p1 + whole(products, 5 * product_stride + at, 0)
    v = u + whole(products, 6 * product_stride + at, 0)
    upper = p1 + whole(products, product_stride + at, 0)
    keep(products, product_stride + at, u + p5 + whole(products, 2 * product_stride + at, 0), 0)
    keep(products, 2 * product_stride + at, v - whole(products, 3 * product_stride + at, 0), 0)
    keep(products, 3 * product_stride + at, v + p5, 0)
    keep(products, at, upper, 0)"""


def left_sums(product: ContractionVariant, guarded: bool) -> list[str]:
    """The lines that make the left sums of `pairs` pairs of row tiles."""
    names = {
        "rows": product.rows, "twice": 2 * product.rows, "inner": product.inner, "lanes": product.lanes,
        "ratio": RATIO, "zero": f"{product.dtype}(0)",
    }  # fmt: skip
    return (_GUARDED_SUMS if guarded else _SUMS).format(sum=_SUM.format(**names), **names).splitlines()


def guard_names() -> list[str]:
    """The lines that name what guarded rows are compared with."""
    return ["larger, magnitude, largest_lane = vector.maximum, vector.absolute, vector.reduce_max"]


def product_lines(product: ContractionVariant, guarded: bool, contract: str = "contract") -> list[str]:
    """The lines that multiply: seven tiles for each pair of row tiles, or eight by definition; `contract` is the name of
    the micro-kernel."""
    fetched = product.fetches * product.cache_line
    names: dict[str, object] = {
        "rows": product.rows, "twice": 2 * product.rows, "inner": product.inner, "contract": contract,
        "tile_size": product.rows * product.columns, "fetched": fetched, "last": PRODUCTS - 1,
        "turns": ceil_div(product.unroll * product.columns, fetched),
    }  # fmt: skip
    return _PRODUCTS.format(
        by_definition=_BY_DEFINITION.format(**names) if guarded else "",
        where="where" if guarded else "i", matrix="matrix" if guarded else "i", fresh="fresh" if guarded else 1,
        matrices=MATRICES if guarded else PRODUCTS, **names,
    ).splitlines()  # fmt: skip


def combine_lines(product: ContractionVariant, guarded: bool) -> list[str]:
    """The lines that make pair `r`'s results of its products: quarter n (C11, C12, C21, C22) is where product n was."""
    text = _COMBINE.format(tile_size=product.rows * product.columns, lanes=product.lanes).splitlines()
    return ["if plain[r] == 0:", *("    " + line for line in text)] if guarded else text
