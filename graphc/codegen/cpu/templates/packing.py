"""The packing kernel: a right operand that is only known at run time, into the panels that contractions read.

The same layout as `graphc.kernels.contraction.pack_matrix` makes of a constant: [batch, groups, panels, k, columns],
zeros behind the last column. Rows that lie in memory as they are packed move a vector at a time, any others an element
at a time, a few columns together so that transposed operands are read along their rows.
"""

from __future__ import annotations

from graphc.codegen.cpu.templates.epilogue import Argument, declarations, indent

__all__ = ["PACK_ARGUMENTS", "pack_arguments", "pack_source"]

_INTEGERS = ("groups", "panels", "k", "n", "b_batch", "b_group", "b_step", "b_column")


def pack_arguments(dtype: str = "float32") -> tuple[Argument, ...]:
    """The argument block: the operand b, the packed result, sizes, and b's strides in elements."""
    return (Argument("b", dtype), Argument("packed", dtype), *(Argument(name, "int") for name in _INTEGERS))


#: The argument block for float32.
PACK_ARGUMENTS = pack_arguments()

_SOURCE = '''\
"""Packing of a right operand into panels of {columns} columns ({vectors} vectors of {lanes} {dtype})."""

from graphc.codegen.cpu import vector
from graphc.codegen.cpu.vector import offset

load, store = vector.loader({lanes}, True), vector.storer({lanes})
pointer_{dtype} = vector.argument_pointer("{dtype}")


def {name}(block, first, last, scratch):
{declarations}
    for task in range(first, last):
        panel, above = task % panels, task // panels
        g, batch = above % groups, above // groups
        column = panel * {columns}
        columns = min({columns}, n - column)
        source = offset(b, batch * b_batch + g * b_group + column * b_column)
        target = offset(packed, task * k * {columns})
        if b_column == 1:
            for step in range(k):
                for j in range({vectors}):
                    lanes = max(0, min({lanes}, columns - j * {lanes}))
                    values = load(source, step * b_step + j * {lanes}, lanes)
                    store(target, step * {columns} + j * {lanes}, values, {lanes})
        else:
            for j in range(0, {columns}, 4):
                for step in range(k):
                    for i in range(j, min(columns, j + 4)):
                        target[step * {columns} + i] = source[step * b_step + i * b_column]
                    for i in range(max(columns, j), j + 4):
                        target[step * {columns} + i] = 0
'''


def pack_source(vectors: int, lanes: int, dtype: str = "float32", name: str = "pack") -> str:
    """The module text of `name(block, first, last, scratch)`; tasks are batch x groups x panels."""
    return _SOURCE.format(
        name=name, vectors=vectors, lanes=lanes, columns=vectors * lanes, dtype=dtype,
        declarations=indent(list(declarations(pack_arguments(dtype))), 1),
    )  # fmt: skip
