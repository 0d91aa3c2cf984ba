"""Source of the kernels that go along an axis in order: running totals and sorting."""

from __future__ import annotations

from graphc.codegen.scalar import identity_of, register_type
from graphc.kernels.loops import PANEL
from graphc.kernels.lower_ordered import ScanKernel, SortKernel

__all__ = ["scan_source", "sort_source"]

_SCAN = '''\
"""Running totals along an axis{direction}; x and y are {dtype}[rows, length, width], width {width}."""

from graphc.codegen.cpu.intrinsics import {imports}


def {name}(block, first, last, scratch):
    x = operand(block, 0, "{dtype}", "x", "y total")
    y = operand(block, 1, "{dtype}", "y", "x total")
    rows = block[2]
    length = block[3]
    width = block[4]
    chunk = block[5]
{workspace}    for row in range(first * chunk, min(last * chunk, rows)):
        start = row * length * width
{body}
'''

_NARROW = """\
        total = {identity}
        for k in range(length):
            at = start + {at}
{step}
"""

_WIDE = """\
        for panel in range(0, width, {panel}):
            panel_end = min(panel + {panel}, width)
            for j in range(panel, panel_end):
                total[j - panel] = {identity}
            for k in range(length):
                line = start + ({at}) * width
                for j in range(panel, panel_end):
{step}
"""


def scan_source(kernel: ScanKernel, name: str) -> str:
    """The module that defines the scan kernel `name`."""
    t = register_type(kernel.dtype)
    symbol = "+" if kernel.combine == "add" else "*"
    total, at = ("total", "at") if kernel.narrow else ("total[j - panel]", "line + j")
    added = f"{total} {symbol} x[{at}]"
    if t.is_integer:
        added = f"{t}({added})"
    store, advance = f"y[{at}] = {total}", f"{total} = {added}"
    if kernel.exclusive:  # x first: it may lie where y does
        step = [f"here = {added}", store, f"{total} = here"]
    else:
        step = [advance, store]
    depth = 12 if kernel.narrow else 20
    body = (_NARROW if kernel.narrow else _WIDE).format(
        identity=identity_of(kernel.combine, kernel.dtype),
        at="length - 1 - k" if kernel.reverse else "k",
        step="\n".join(" " * depth + line for line in step),
        panel=PANEL,
    )
    workspace = "" if kernel.narrow else f'    total = workspace(scratch, 0, "{t}", "total", "x y")\n'
    imports = {"operand"} | ({"workspace"} if workspace else set()) | {t.name}
    return _SCAN.format(
        direction=", backwards" if kernel.reverse else "",
        dtype=kernel.dtype,
        width="1" if kernel.narrow else "more",
        imports=", ".join(sorted(imports)),
        name=name,
        workspace=workspace,
        body=body.rstrip("\n"),
    )


_SORT = '''\
"""The first elements along an axis, {order}, and their places; equals keep their order, NaN is larger than all numbers."""

from graphc.codegen.cpu.intrinsics import {imports}


def {name}(block, first, last, scratch):
    x = operand(block, 0, "{dtype}", "x", "values places work")
    values = operand(block, 1, "{dtype}", "values", "x places work")
    places = operand(block, 2, "int64", "places", "x values work")
    lines = block[3]
    length = block[4]
    width = block[5]
    count = block[6]
    chunk = block[7]
    room = {room}
    keys = workspace(scratch, 0, "{register}", "work", "x values places")
    origins = workspace(scratch, 8 * room, "int64", "work", "x values places")
{more}    for line in range(first * chunk, min(last * chunk, lines)):
        row, column = line // width, line % width
        start = row * length * width + column
{body}
        target = row * count * width + column
        for k in range(count):
            values[target + k * width] = keys[k]
            places[target + k * width] = origins[k]
'''

#: a sorted list of the best so far; most elements are turned away by one comparison
_FEW = """\
        held = 0
        for k in range(length):
            key = x[start + k * width]
            if held == count:
                if count == 0:
                    continue
                other = keys[count - 1]
                if not ({key_before_other}):
                    continue
                held -= 1
            j = held
            while j > 0:
                other = keys[j - 1]
                if not ({key_before_other}):
                    break
                keys[j] = other
                origins[j] = origins[j - 1]
                j -= 1
            keys[j] = key
            origins[j] = k
            held += 1
"""

#: merge sort from the bottom up, between two halves of the workspace
_ALL = """\
        for k in range(length):
            keys[k] = x[start + k * width]
            origins[k] = k
        run = 1
        while run < length:
            for low in range(0, length, 2 * run):
                middle, high = min(low + run, length), min(low + 2 * run, length)
                left, right = low, middle
                for k in range(low, high):
                    from_right = left == middle
                    if not from_right and right < high:
                        key, other = keys[right], keys[left]
                        from_right = {key_before_other}
                    if from_right:
                        next_keys[k], next_origins[k] = keys[right], origins[right]
                        right += 1
                    else:
                        next_keys[k], next_origins[k] = keys[left], origins[left]
                        left += 1
            keys, next_keys = next_keys, keys
            origins, next_origins = next_origins, origins
            run *= 2
"""

_MORE = """\
    next_keys = workspace(scratch, 16 * room, "{register}", "work", "x values places")
    next_origins = workspace(scratch, 24 * room, "int64", "work", "x values places")
"""


def sort_source(kernel: SortKernel, name: str) -> str:
    """The module that defines the sort kernel `name`."""
    t = register_type(kernel.dtype)
    symbol = ">" if kernel.descending else "<"
    before = f"key {symbol} other"
    if t.is_float:
        nan, number = ("key", "other") if kernel.descending else ("other", "key")
        before += f" or ({nan} != {nan} and {number} == {number})"
    return _SORT.format(
        order="largest first" if kernel.descending else "smallest first",
        imports="operand, workspace",
        name=name,
        dtype=kernel.dtype,
        register=t,
        room="count" if kernel.few else "length",
        more="" if kernel.few else _MORE.format(register=t),
        body=(_FEW if kernel.few else _ALL).format(key_before_other=before).rstrip("\n"),
    )
