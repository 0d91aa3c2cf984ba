"""Einstein's summation: a sum of products over named axes, as matrix products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc import ops
from graphc.errors import GraphTypeError
from graphc.frontends.python.functions import Array, array_function, promote
from graphc.ir.dims import DimLike, product
from graphc.ir.graph import Value

__all__ = ["einsum"]


@array_function
def einsum(subscripts: str, /, *operands: Array) -> Array:
    """NumPy's einsum with subscripts as text: `"ij,jk->ik"`, `"...ij,...jk->...ik"`, `"ii->i"`.

    Operands are contracted from the left, two at a time, each pair as one batched matrix product.
    Raises GraphTypeError when the subscripts do not fit the operands, naming them.
    """
    values = promote("einsum", *operands)
    terms, result = _parse(subscripts, values)
    extents: dict[str, DimLike] = {}
    for term, v in zip(terms, values, strict=True):
        for name, d in zip(term, v.shape, strict=True):
            known = extents.setdefault(name, d)
            if known == 1 and d != 1:
                extents[name] = d
            elif isinstance(known, int) and isinstance(d, int) and d not in (1, known):
                raise GraphTypeError(f"einsum {subscripts!r}: axis {name!r} is {known} and {d}")
    missing = [name for name in result if name not in extents]
    if missing:
        raise GraphTypeError(f"einsum {subscripts!r}: {', '.join(missing)} of the result stands in no operand")
    left = [*zip(terms, values, strict=True)]
    term, v = _single(*left.pop(0), extents)
    while left:
        other_term, other = _single(*left.pop(0), extents)
        needed = {*result, *(name for t, _ in left for name in t)}
        term, v = _contract(term, v, other_term, other, needed)
    gone = tuple(k for k, name in enumerate(term) if name not in result)
    if gone:
        v = ops.reduce_sum(v, axes=gone)
        term = [name for name in term if name in result]
    return ops.transpose(v, perm=tuple(term.index(name) for name in result))


def _parse(subscripts: str, values: Sequence[Value]) -> tuple[list[list[str]], list[str]]:
    """The names of each operand's axes and of the result's; axes of an ellipsis are called "0", "1", ... from the end."""
    text = subscripts.replace(" ", "")
    inputs, arrow, output = text.partition("->")
    parts = inputs.split(",")
    if len(parts) != len(values):
        raise GraphTypeError(f"einsum {subscripts!r} names {len(parts)} operands, {len(values)} were given")
    terms = []
    for k, (part, v) in enumerate(zip(parts, values, strict=True)):
        before, dots, after = part.partition("...")
        rest = v.rank - len(before) - len(after)
        if (
            rest < 0
            or (rest and not dots)
            or not (before + after).isascii()
            or (before + after and not (before + after).isalpha())
        ):
            raise GraphTypeError(f"einsum {subscripts!r}: operand {k} is {v.type}, which {part!r} does not describe")
        terms.append([*before, *(str(n) for n in reversed(range(rest))), *after])
    dotted = sorted({name for t in terms for name in t if name.isdigit()}, key=int, reverse=True)
    if arrow:
        before, dots, after = output.partition("...")
        return terms, [*before, *(dotted if dots else ()), *after]
    names = [name for t in terms for name in t if not name.isdigit()]
    return terms, [*dotted, *sorted(name for name in set(names) if names.count(name) == 1)]


def _single(term: list[str], v: Value, extents: dict[str, DimLike]) -> tuple[list[str], Value]:
    """An operand with axes of extent 1 repeated to what others say, and with a name that stands twice as a diagonal."""
    shape = tuple(extents[name] for name in term)
    v = v if v.shape == shape else ops.broadcast_to(v, shape=shape)
    for name in dict.fromkeys(term):
        while term.count(name) > 1:
            j = term.index(name)
            k = term.index(name, j + 1)
            extent = extents[name]
            if not isinstance(extent, int):
                raise GraphTypeError(f"einsum: the diagonal {name!r} of {v.type} needs a known extent")
            others = [a for a in range(v.rank) if a not in (j, k)]
            places = np.stack([np.arange(extent)] * 2, axis=-1)
            v = ops.gather_nd(ops.transpose(v, perm=(j, k, *others)), places)
            term = [name, *(term[a] for a in others)]
    return term, v


def _contract(a_term: list[str], a: Value, b_term: list[str], b: Value, needed: set[str]) -> tuple[list[str], Value]:
    """Two operands as one: names of both that are needed later are the batch, the others of both are summed over."""
    a_term, a = _summed(a_term, a, needed | set(b_term))
    b_term, b = _summed(b_term, b, needed | set(a_term))
    batch = [n for n in a_term if n in b_term and n in needed]
    inner = [n for n in a_term if n in b_term and n not in needed]
    rows = [n for n in a_term if n not in b_term]
    columns = [n for n in b_term if n not in a_term]
    a = ops.transpose(a, perm=tuple(map(a_term.index, (*batch, *rows, *inner))))
    b = ops.transpose(b, perm=tuple(map(b_term.index, (*batch, *inner, *columns))))
    n, m = len(batch), len(rows)
    cases, row_shape, column_shape = a.shape[:n], a.shape[n : n + m], b.shape[n + len(inner) :]
    summed = product(a.shape[n + m :])
    left = ops.reshape(a, shape=(product(cases), product(row_shape), summed))
    right = ops.reshape(b, shape=(product(cases), summed, product(column_shape)))
    result = ops.dot(left, right) if inner else ops.mul(left, right)
    return [*batch, *rows, *columns], ops.reshape(result, shape=(*cases, *row_shape, *column_shape))


def _summed(term: list[str], v: Value, needed: set[str]) -> tuple[list[str], Value]:
    """The sum over the axes that nobody else names."""
    gone = tuple(k for k, name in enumerate(term) if name not in needed)
    return [name for name in term if name in needed], ops.reduce_sum(v, axes=gone) if gone else v
