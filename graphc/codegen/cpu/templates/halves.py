"""The lines of Strassen's algorithm that kernels share: left sums, the products of panels, their results.

See graphc.kernels.strassen for the algorithm, and for what a group, its tiles and its parts are. The lines expect:

    x_here or x_task          the left operand, of one level and of two: `rows_here` rows, `row_stride` apart, of
                              `all_rounds` rounds, `step_stride` apart
    row_size                  of two levels: distance between its rows in scratch memory
    groups                    groups of row tiles
    part, rounds              elements, and rounds, of the first part of the steps
    w_group, size             the packed matrices of a group of panels, and the elements of one
    w_next                    distance from them to those that are needed next

the names that `scratch_lines` gives to parts of the scratch memory,

    x_here                    of two levels: the left operand, dense, all groups' rows, filled up with zeros
    left, left2               the left sums of the first and of the second level
    products, product_stride  the products' tiles, and the distance between products
    plain, tops               of guarded rows: for each group whether it is computed by definition; and the largest
                              magnitudes of a group's rows

and the names that `halves_names` makes at the head of a module.
"""

from __future__ import annotations

from graphc.codegen.cpu.templates.epilogue import indent
from graphc.ir.dims import ceil_div
from graphc.kernels.strassen import PRODUCTS, RATIO, SUMS, StrassenVariant

__all__ = ["combine_lines", "halves_names", "left_sums", "place_of", "product_lines", "scratch_lines"]


def halves_names(variant: StrassenVariant) -> list[str]:
    """The lines that name what the others call."""
    lanes = variant.product.lanes
    lines = [f"whole, keep, fill = vector.loader({lanes}), vector.storer({lanes}), vector.filler({lanes})"]
    if variant.guarded:
        lines.append("larger, magnitude, largest_lane = vector.maximum, vector.absolute, vector.reduce_max")
    return lines


def scratch_lines(variant: StrassenVariant, most_groups: str) -> list[str]:
    """The lines that lay out scratch memory from `free` on, which `StrassenVariant.scratch_elements` counts. A line lies
    between what is used together, so that it does not meet in one set of L1."""
    v, tiles = variant.product, variant.tiles
    lines, first = ["left = free"], tiles // 2  # row tiles, and parts, of a half
    if variant.levels == 2:
        lines = ["x_here = free", f"left = offset(x_here, {most_groups} * {tiles * v.rows} * row_size)"]
    behind = f"left, {most_groups} * {SUMS} * ({first * v.rows} * {first} * part + {v.lanes})"
    if variant.levels == 2:
        lines.append(f"left2 = offset({behind})")
        behind = f"left2, {most_groups} * {SUMS * PRODUCTS} * ({v.rows} * part + {v.lanes})"
    lines.append(f"products = offset({behind})")
    lines.append(f"product_stride = {most_groups} * {v.rows * v.columns} + {v.lanes}")
    if variant.guarded:
        lines.append(f"plain = offset(products, {variant.count} * product_stride)")
        lines.append(f"tops = offset(plain, {most_groups})  # of a group's parts, the largest magnitudes")
    return lines


# --------------------------------------------------------------------------------------------------------------- sums

#: a matrix's steps lie side by side: row by row. The largest magnitude of each part of a row is known at its end
_FIRST_GUARDED = """\
for r in range(groups):
    sums = offset(left, r * {sums} * ({size}))
    for p in range({rows}):
        {addresses}
        for h in range({first}):
            m11, m12, m21, m22 = fill({zero}), fill({zero}), fill({zero}), fill({zero})
            for n in range(h * rounds, (h + 1) * rounds):
                for i in range(0, {inner}, {lanes}):
{body}
                    m11, m12 = larger(m11, magnitude(a11)), larger(m12, magnitude(a12))
                    m21, m22 = larger(m21, magnitude(a21)), larger(m22, magnitude(a22))
            at = (p * {first} + h) * 4
            tops[at], tops[at + 1] = largest_lane(m11), largest_lane(m12)
            tops[at + 2], tops[at + 3] = largest_lane(m21), largest_lane(m22)
    plain[r] = 0
    for p in range({tile_rows}):  # of all rows and parts that are added
        high, low, total = {zero}, {huge}, {zero}
        for n in range({first}):
            for i in range({first} * 4):
                top = tops[(n * {tile_rows} + p) * {first} * 4 + i]
                high, low, total = max(high, top), min(low, top), total + top
        # not true of NaN and infinity either
        if not (high <= low * {ratio} and total < {huge}):
            plain[r] = 1"""

#: an image's rows lie side by side in memory: all rows of a round, then the next round
_FIRST_IMAGE = """\
for r in range(groups):
    sums = offset(left, r * {sums} * ({size}))
    for n in range({first} * rounds):
        for p in range({rows}):
            {addresses}
            for i in range(0, {inner}, {lanes}):
{body}"""

#: two rows of the left operand: the last row again where there are no more, zeros behind the last step
_READ = """\
a11, a21 = whole({x}, upper + n * step_stride + i, 0), whole({x}, lower + n * step_stride + i, 0)
a12, a22 = fill({zero}), fill({zero})
if {first} * rounds + n < all_rounds:
    a12 = whole({x}, upper + ({first} * rounds + n) * step_stride + i, 0)
    a22 = whole({x}, lower + ({first} * rounds + n) * step_stride + i, 0)"""

#: they are brought into scratch memory
_BRING = """\
at = (r * {group_rows} + p) * row_size + n * {inner} + i
keep(x_here, at, a11, 0)
keep(x_here, {half} + at, a12, 0)
at = at + {rows} * row_size
keep(x_here, at, a21, 0)
keep(x_here, {half} + at, a22, 0)"""

#: S1, S2, S3, S4 at `at`
_SUM = """\
s1 = a21 + a22
s2 = s1 - a11
keep(sums, at, s1, 0)
keep(sums, {size} + at, s2, 0)
keep(sums, 2 * ({size}) + at, a11 - a21, 0)
keep(sums, 3 * ({size}) + at, a12 - s2, 0)"""

#: the sums of an operand of 2 x {rows} rows, its halves a part long
_SECOND = """\
for p in range({rows}):
    for k in range(0, part, {lanes}):
        upper, lower = p * across + k, ({rows} + p) * across + k
        a11, a12 = whole(operand, upper, 0), whole(operand, part + upper, 0)
        a21, a22 = whole(operand, lower, 0), whole(operand, part + lower, 0)
        at = p * part + k
{sum}"""


def left_sums(variant: StrassenVariant) -> list[str]:
    """The lines that make all left sums, and find which groups have rows that would spoil each other.

    Those of two levels bring the left operand into scratch memory too, where its blocks are dense.
    """
    v, tiles = variant.product, variant.tiles
    first = tiles // 2  # row tiles, and parts, of a half
    half = "part" if first == 1 else f"{first} * part"
    size = f"{first * v.rows} * {half} + {v.lanes}"
    names: dict[str, object] = {
        "rows": first * v.rows, "tile_rows": v.rows, "group_rows": tiles * v.rows, "first": first, "half": half, "size": size,
        "sums": SUMS, "inner": v.inner, "lanes": v.lanes, "ratio": RATIO, "zero": f"{v.dtype}(0)", "huge": f"{v.dtype}(1e30)",
    }  # fmt: skip
    above, below = (
        f"min(rows_here - 1, r * {tiles * v.rows} + {p}) * row_stride" for p in ("p", f"{first * v.rows} + p")
    )
    addresses = f"upper, lower = {above}, {below}"
    body = [
        *_READ.format(x="x_here" if variant.levels == 1 else "x_task", **names).splitlines(),
        *(_BRING.format(**names).splitlines() if variant.levels == 2 else ()),
        f"at = p * {half} + n * {v.inner} + i",
        *_SUM.format(**names).splitlines(),
    ]
    lines = (_FIRST_GUARDED if variant.guarded else _FIRST_IMAGE).format(
        addresses=addresses, body=indent(body, 5 if variant.guarded else 4), **names
    )
    if variant.levels == 1:
        return lines.splitlines()
    size = f"{v.rows} * part + {v.lanes}"
    inner = _SUM.format(size=size)
    return [
        *lines.splitlines(),
        "for r in range(groups):",
        f"    for i in range({PRODUCTS}):",
        *indent(_outer_operand(variant), 2).splitlines(),
        f"        sums = offset(left2, (r * {PRODUCTS} + i) * {SUMS} * ({size}))",
        *indent(
            _SECOND.format(rows=v.rows, lanes=v.lanes, sum=indent(inner.splitlines(), 2)).splitlines(), 2
        ).splitlines(),
    ]


def _outer_operand(variant: StrassenVariant, i: str = "i") -> list[str]:
    """The lines that find group r's left operand of product `i` on the first of two levels: A11, A12, S4, A22, S1, S2, S3."""
    rows = 2 * variant.product.rows
    size = f"{rows} * 2 * part + {variant.product.lanes}"
    return [
        f"operand, across = offset(left, (r * {SUMS} + (3 if {i} == 2 else {i} - 4)) * ({size})), 2 * part",
        f"if {i} < 2 or {i} == 3:",
        f"    operand, across = offset(x_here, (r * {2 * rows} + ({rows} if {i} == 3 else 0)) * row_size), row_size",
        f"    operand = offset(operand, 2 * part if {i} > 0 else 0)",
    ]


# ----------------------------------------------------------------------------------------------------------- products

_PRODUCTS = """\
for i in range({runs}):
    for r in range(groups):
{operand}
{by_definition}        # The first row tiles fetch the next matrix, each other lines of it.
        ahead = (size if i < {last} else w_next - {last} * size) + r * {fetched} if r < {turns} else 0
        if valid > 0:
            {contract}(
                offset(products, {where} * product_stride + r * {tile_size}), {fresh}, source,
                offset(w_group, {matrix} * size), ahead, valid, steps, outer, 0, across, 1,
            )"""

_ONE_LEVEL = """\
source, across, outer = offset(left, (r * 4 + (3 if i == 2 else i - 4)) * ({rows} * part + {lanes})), part, {inner}
steps, valid = rounds, {rows}
if i < 2 or i == 3:
    row = r * {twice} + ({rows} if i == 3 else 0)
    source = offset(x_here, row * row_stride + (rounds * step_stride if i > 0 else 0))
    across, outer, valid = row_stride, step_stride, min({rows}, rows_here - row)
    steps = all_rounds - rounds if i > 0 else rounds"""

_TWO_LEVELS = """\
j = i % 7
source, across = offset(left2, ((r * 7 + i // 7) * 4 + (3 if j == 2 else j - 4)) * ({rows} * part + {lanes})), part
steps, outer, valid = rounds, {inner}, {rows}
if j < 2 or j == 3:
{outer}
    source = offset(operand, ({rows} * across if j == 3 else 0) + (part if j > 0 else 0))"""

_BY_DEFINITION_ONE = """\
where, matrix, fresh = i, i, 1
if plain[r] != 0:  # rows that would spoil each other: all eight products, two for each quarter
    where, second = i // 2, i % 2
    matrix, fresh = (2 if second else 7) if where % 2 else second, 1 - second
    row = r * {twice} + where // 2 * {rows}
    source = offset(x_here, row * row_stride + second * rounds * step_stride)
    across, outer, valid = row_stride, step_stride, min({rows}, rows_here - row)
    steps = all_rounds - rounds if second else rounds
elif i == 7:
    valid = 0"""

_BY_DEFINITION_TWO = """\
where, matrix, fresh = i, i, 1
if plain[r] != 0:  # rows that would spoil each other: all 64 products, four for each of sixteen tiles
    n, k = i // 4, i % 4
    a, b = n // 4, n % 4
    where = {place}
    large = (2 if k > 1 else 7) if b > 1 else k // 2
    small = (2 if k % 2 else 7) if b % 2 else k % 2
    matrix = 7 * large + small
    if large == 7:  # blocks that no product reads
        matrix = 52 + min(small, 3)
    elif small == 7:
        matrix = 49 + large
    fresh = 1 if k == 0 else 0
    source, across = offset(x_here, (r * {four} + a * {rows}) * row_size + k * part), row_size
elif i >= 49:
    valid = 0"""


def product_lines(variant: StrassenVariant, contract: str = "contract") -> list[str]:
    """The lines that multiply: a tile of each product for each group, or all products by definition; `contract` is the name
    of the micro-kernel."""
    v, guarded, two = variant.product, variant.guarded, variant.levels == 2
    fetched = v.fetches * v.cache_line
    names: dict[str, object] = {
        "rows": v.rows, "twice": 2 * v.rows, "four": 4 * v.rows, "lanes": v.lanes, "inner": v.inner, "contract": contract,
        "tile_size": v.rows * v.columns, "fetched": fetched, "last": variant.count - 1, "place": place_of(2, "a", "b"),
        "turns": ceil_div(v.unroll * v.columns, fetched), "outer": indent(_outer_operand(variant, "(i // 7)"), 1),
    }  # fmt: skip
    by_definition = (_BY_DEFINITION_TWO if two else _BY_DEFINITION_ONE).format(**names) if guarded else ""
    return _PRODUCTS.format(
        operand=indent((_TWO_LEVELS if two else _ONE_LEVEL).format(**names).splitlines(), 2),
        by_definition="".join(line + "\n" for line in indent(by_definition.splitlines(), 2).splitlines()),
        where="where" if guarded else "i", matrix="matrix" if guarded else "i", fresh="fresh" if guarded else 1,
        runs=8**variant.levels if guarded else variant.count, **names,
    ).splitlines()  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ results

#: the four quarters of a result take the places of its first four products
_COMBINE = """\
for at in range(begin, begin + {tile_size}, {lanes}):
    p1, p5 = whole(products, at, 0), whole(products, 4 * {stride} + at, 0)
    u = p1 + whole(products, 5 * {stride} + at, 0)
    v = u + whole(products, 6 * {stride} + at, 0)
    upper = p1 + whole(products, {stride} + at, 0)
    keep(products, {stride} + at, u + p5 + whole(products, 2 * {stride} + at, 0), 0)
    keep(products, 2 * {stride} + at, v - whole(products, 3 * {stride} + at, 0), 0)
    keep(products, 3 * {stride} + at, v + p5, 0)
    keep(products, at, upper, 0)"""


def combine_lines(variant: StrassenVariant) -> list[str]:
    """The lines that make group r's results of its products; where they are then, `place_of` says."""
    v = variant.product
    names = {"tile_size": v.rows * v.columns, "lanes": v.lanes}

    def combine(stride: str) -> list[str]:
        return _COMBINE.format(stride=stride, **names).splitlines()

    begin = f"begin = r * {v.rows * v.columns}"
    if variant.levels == 1:
        lines = [begin, *combine("product_stride")]
    else:
        lines = ["for i in range(7):", f"    {begin} + 7 * i * product_stride"]
        lines += ["    " + line for line in combine("product_stride")]
        lines += ["for i in range(4):", f"    {begin} + i * product_stride"]
        lines += ["    " + line for line in combine("7 * product_stride")]
    return ["if plain[r] == 0:", *("    " + line for line in lines)] if variant.guarded else lines


def place_of(levels: int, a: str, b: str) -> str:
    """The number of the product in whose place the result of row tile `a` and panel `b` of a group is."""
    if levels == 1:
        return f"2 * {a} + {b}"
    return f"7 * ({a} // 2 * 2 + {b} // 2) + {a} % 2 * 2 + {b} % 2"
