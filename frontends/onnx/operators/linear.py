"""Matrix products, Einstein sums and determinants."""

from __future__ import annotations

from graphc import ops
from graphc.frontends.onnx.context import Context
from graphc.frontends.onnx.operators._common import INT64, broadcast, reshape, scalar
from graphc.frontends.onnx.registry import importer
from graphc.ir.dims import DimLike, product
from graphc.ir.graph import Value
from graphc.ops import functions

__all__: list[str] = []


@importer("MatMul", 1, 9, 13)
def matmul(c: Context, a: Value, b: Value) -> Value:
    return functions.matmul(a, b)


@importer("Gemm", 6, 7, 9, 11, 13)
def gemm(c: Context, a: Value, b: Value, bias: Value | None = None) -> Value:
    """alpha * A B + beta * C."""
    c.ignore("broadcast")  # opset 6 says whether C is broadcast; its shape says so as well
    a = ops.transpose(a, perm=(1, 0)) if c.flag("transA") else a
    b = ops.transpose(b, perm=(1, 0)) if c.flag("transB") else b
    y = ops.dot(a, b)
    alpha, beta = c.float("alpha", 1.0), c.float("beta", 1.0)
    if alpha != 1:
        y = ops.mul(y, scalar(alpha, y.dtype))
    if bias is None or beta == 0:
        return y
    if beta != 1:
        bias = ops.mul(bias, scalar(beta, bias.dtype))
    return ops.add(y, broadcast(bias, y.shape))


@importer("Einsum", 12, 28)
def einsum(c: Context, *xs: Value) -> Value:
    equation = c.string("equation").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(xs):
        c.invalid(f"the equation {equation!r} has {len(terms)} terms for {len(xs)} operands")
    names = [_axis_names(c, t, x.rank) for t, x in zip(terms, xs, strict=True)]
    out = _axis_names(c, right, None, names) if arrow else _implicit(names)
    operands = [_diagonal(x, n) for x, n in zip(xs, names, strict=True)]
    value, have = operands[0]
    for k, (other, theirs) in enumerate(operands[1:], 1):
        later = {n for _, rest in operands[k + 1 :] for n in rest} | set(out)
        value, have = _contract(value, have, other, theirs, later)
    value, have = _sum_out(value, have, set(out))
    if sorted(have) != sorted(out):
        c.invalid(f"the equation {equation!r} makes the axes {''.join(have)!r}")
    return value if have == out else ops.transpose(value, perm=tuple(have.index(n) for n in out))


Axes = list[str]


def _axis_names(c: Context, term: str, rank: int | None, given: list[Axes] | None = None) -> Axes:
    """One name an axis; those an ellipsis stands for are called by digits, aligned at the right."""
    if "..." not in term:
        names = list(term)
    else:
        before, _, after = term.partition("...")
        known = max((sum(n.isdigit() for n in names) for names in given or []), default=0)
        hidden = known if rank is None else rank - len(before) - len(after)
        names = [*before, *(str(k) for k in reversed(range(hidden))), *after]
    if rank is not None and len(names) != rank:
        c.invalid(f"the term {term!r} does not name the axes of an operand of rank {rank}")
    return names


def _implicit(names: list[Axes]) -> Axes:
    """Without an arrow: the ellipsis, then the names that stand once, in alphabetical order."""
    every = [n for axes in names for n in axes]
    dots = sorted({n for n in every if n.isdigit()}, reverse=True)
    return [*dots, *sorted(n for n in set(every) if every.count(n) == 1 and not n.isdigit())]


def _diagonal(x: Value, names: Axes) -> tuple[Value, Axes]:
    """Axes of one name become their diagonal."""
    names = list(names)
    for name in dict.fromkeys(names):
        while names.count(name) > 1:
            first = names.index(name)
            second = names.index(name, first + 1)
            shape = x.shape
            rows = ops.iota(shape=shape, axis=first, dtype=INT64)
            columns = ops.iota(shape=shape, axis=second, dtype=INT64)
            x = ops.reduce_sum(ops.select(ops.eq(rows, columns), x, scalar(0, x.dtype)), axes=(second,))
            del names[second]
    return x, names


def _sum_out(x: Value, names: Axes, kept: set[str]) -> tuple[Value, Axes]:
    axes = tuple(k for k, n in enumerate(names) if n not in kept)
    return (ops.reduce_sum(x, axes=axes) if axes else x), [n for n in names if n in kept]


def _contract(a: Value, a_names: Axes, b: Value, b_names: Axes, later: set[str]) -> tuple[Value, Axes]:
    """One product of two operands: names that nobody needs later are summed, through a batched matrix product."""
    a, a_names = _sum_out(a, a_names, later | set(b_names))
    b, b_names = _sum_out(b, b_names, later | set(a_names))
    batch = [n for n in a_names if n in b_names and n in later]
    summed = [n for n in a_names if n in b_names and n not in later]
    rows = [n for n in a_names if n not in b_names]
    columns = [n for n in b_names if n not in a_names]
    extents: dict[str, DimLike] = {}
    for names, x in ((a_names, a), (b_names, b)):
        for n, d in zip(names, x.shape, strict=True):
            extents[n] = d if extents.get(n, 1) == 1 else extents[n]

    def arrange(x: Value, names: Axes, *groups: Axes) -> Value:
        order = [n for g in groups for n in g]
        x = x if names == order else ops.transpose(x, perm=tuple(names.index(n) for n in order))
        x = broadcast(x, [extents[n] for n in order])
        return reshape(
            x, [*(extents[n] for n in groups[0]), *(product(tuple(extents[n] for n in g)) for g in groups[1:])]
        )

    y = ops.dot(arrange(a, a_names, batch, rows, summed), arrange(b, b_names, batch, summed, columns))
    names = [*batch, *rows, *columns]
    return reshape(y, [extents[n] for n in names]), names


@importer("Det", 11, 22)
def determinant(c: Context, x: Value) -> Value:
    """Elimination with the largest pivot of each column; one step a column, so for the small matrices it is used on."""
    n = x.shape[-1]
    if not isinstance(n, int) or n > 16:
        c.unsupported(f"determinants of {n} x {n} matrices; 16 x 16 is the largest")
    batch = x.shape[:-2]
    result = broadcast(scalar(1, x.dtype), batch)
    lead = len(batch)
    while n:
        column = reshape(ops.slice(x, starts=(0,) * x.rank, stops=(*batch, n, 1), steps=(1,) * x.rank), (*batch, n))
        pivot = ops.argmax(ops.abs(column), axis=lead)
        # Exchange the pivot's row with the first: rows come from where, for each place, they are now.
        place = ops.iota(shape=(*batch, n), axis=lead, dtype=INT64)
        chosen = broadcast(reshape(pivot, (*batch, 1)), (*batch, n))
        source = ops.select(ops.eq(place, 0), chosen, ops.select(ops.eq(place, chosen), 0, place))
        x = ops.gather_elements(x, broadcast(reshape(source, (*batch, n, 1)), (*batch, n, n)), axis=lead)
        head = ops.slice(x, starts=(0,) * x.rank, stops=(*batch, 1, 1), steps=(1,) * x.rank)
        sign = ops.select(ops.eq(pivot, 0), scalar(1, x.dtype), scalar(-1, x.dtype))
        result = ops.mul(result, ops.mul(sign, reshape(head, batch)))
        row = ops.slice(x, starts=(*[0] * lead, 0, 1), stops=(*batch, 1, n), steps=(1,) * x.rank)
        below = ops.slice(x, starts=(*[0] * lead, 1, 0), stops=(*batch, n, 1), steps=(1,) * x.rank)
        rest = ops.slice(x, starts=(*[0] * lead, 1, 1), stops=(*batch, n, n), steps=(1,) * x.rank)
        # a column of zeros has the pivot 0: the determinant is 0 whatever the factors are
        safe = ops.select(ops.eq(head, scalar(0, x.dtype)), scalar(1, x.dtype), head)
        factors = ops.div(below, broadcast(safe, below.shape))
        x = ops.sub(rest, ops.mul(factors, row))
        n -= 1
    return result
