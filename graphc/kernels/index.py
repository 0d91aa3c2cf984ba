"""Arithmetic on loop counters: linear forms, ranges, and simplification that knows how far each loop runs.

Reshapes divide and take remainders, pads and concatenations compare. Most of that is decided once the extents of the
loops are known: `(i0 * 4 + i1) // 4` is `i0` when `i1` stays below 4. What is left over is what must be computed at run
time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from functools import lru_cache
from typing import NamedTuple

from graphc.ir.dtypes import dtype_of
from graphc.ir.scalar import COMPARISONS, Linear, Scalar, const, evaluated, is_sum, linear_form, scalar, walk

__all__ = [
    "Range",
    "counters_in",
    "linear_roots",
    "ranges",
    "simplify",
    "substitute",
    "unlinear",
]

INT64 = dtype_of("int64")
BOOL = dtype_of("bool")


#: int64 operations whose range follows from those of their arguments
_BOUNDED = frozenset({"add", "sub", "mul", "neg", "floordiv", "mod", "maximum", "minimum", "select", "choose"})


class Range(NamedTuple):
    """The smallest and the largest value that an expression takes."""

    low: int
    high: int


def unlinear(form: Linear) -> Scalar:
    """The expression of a linear form: loop counters first and in order, so that equal forms are the same object."""
    total = const(0)
    # sorted() is stable: atoms that are not counters stay as they came
    for atom, c in sorted(form.terms.items(), key=lambda t: t[0].attr if t[0].op == "index" else 1 << 30):
        total = total + atom * c
    return total + form.base


def ranges(e: Scalar, extents: tuple[int, ...]) -> Range | None:
    """The range of an int64 expression when loop k runs over `range(extents[k])`; None when nothing is known."""
    return evaluated(e, _bounding, lambda x, args: _range(x, args, extents), _known_ranges(extents))


@lru_cache(maxsize=1024)
def _known_ranges(extents: tuple[int, ...]) -> dict[Scalar, Range | None]:
    return {}


def _bounding(e: Scalar) -> tuple[Scalar, ...]:
    """The arguments whose ranges bound that of an expression: not a condition, and none of a value from data."""
    return e.args[-2:] if e.op in _BOUNDED else ()


def _range(x: Scalar, args: Sequence[Range | None], extents: tuple[int, ...]) -> Range | None:
    match x.op:
        case "const":
            return Range(x.attr, x.attr)
        case "index":
            # a loop that never runs must not look like one that runs once: its counter would become 0 and its loads constant
            return Range(0, extents[x.attr] - 1 if extents[x.attr] else 1)
        case "mod" if x.args[1].op == "const" and x.args[1].attr > 0:
            return Range(0, x.args[1].attr - 1)
        case "neg" if args[0] is not None:
            return Range(-args[0].high, -args[0].low)
    if len(args) < 2 or args[-1] is None or args[-2] is None:
        return None
    a, b = args[-2], args[-1]
    match x.op:
        case "add":
            return Range(a.low + b.low, a.high + b.high)
        case "sub":
            return Range(a.low - b.high, a.high - b.low)
        case "mul":
            products = [p * q for p in a for q in b]
            return Range(min(products), max(products))
        case "floordiv" if b.low > 0:
            quotients = [p // q for p in a for q in b]
            return Range(min(quotients), max(quotients))
        case "maximum":
            return Range(max(a.low, b.low), max(a.high, b.high))
        case "minimum":
            return Range(min(a.low, b.low), min(a.high, b.high))
        case "select" | "choose":
            return Range(min(a.low, b.low), max(a.high, b.high))
    return None


def simplify(e: Scalar, extents: Sequence[int], known: dict[Scalar, Scalar] | None = None) -> Scalar:
    """`e` with its index arithmetic done as far as the extents of the loops allow. `known` is a memo for one set of extents."""
    new = known if known is not None else {}
    extents = tuple(extents)
    for x in walk((e,)):
        if x not in new:
            new[x] = _simple(x.with_args(tuple(new[a] for a in x.args)), extents)
    return new[e]


def substitute(e: Scalar, counters: Mapping[int, Scalar], known: dict[Scalar, Scalar] | None = None) -> Scalar:
    """`e` with loop counters replaced, all at once (a counter in a replacement is not replaced again)."""
    new = known if known is not None else {}
    for x in walk((e,)):
        if x not in new:
            new[x] = counters.get(x.attr, x) if x.op == "index" else x.with_args(tuple(new[a] for a in x.args))
    return new[e]


def _simple(x: Scalar, extents: tuple[int, ...]) -> Scalar:
    """One node whose arguments are simple already."""
    if x.dtype is INT64:
        if x.op in ("add", "sub", "mul", "neg"):
            return unlinear(_joined(linear_form(x)))
        if x.op in ("floordiv", "mod") and x.args[1].op == "const" and x.args[1].attr > 0:
            return _divided(x, extents)
        if x.op in ("maximum", "minimum"):
            return _chosen(x, extents)
    elif x.dtype is BOOL:
        if x.op in COMPARISONS and x.args[0].dtype is INT64:
            return _compared(x, extents)
        if x.op in ("and", "or"):
            a, b = x.args
            for one, other in ((a, b), (b, a)):
                if one.op == "const":
                    return (other if one.attr else one) if x.op == "and" else (one if one.attr else other)
        if x.op == "not" and x.args[0].op == "const":
            return const(not x.args[0].attr, BOOL)
    if x.op in ("select", "choose"):
        return scalar(x.op, *x.args)
    return x


def _joined(form: Linear) -> Linear:
    """`k*c*(x // c) + k*(x % c)` is `k*x`: what dividing an offset and multiplying again leaves."""
    while True:
        for atom, c in form.terms.items():
            if atom.op != "mod" or atom.args[1].op != "const":
                continue
            quotient = scalar("floordiv", *atom.args)
            if form.terms.get(quotient) == c * atom.args[1].attr:
                rest = Linear(form.base, {a: v for a, v in form.terms.items() if a is not atom and a is not quotient})
                form = rest.plus(linear_form(atom.args[0]).times(c))
                break
        else:
            return form


def _divided(x: Scalar, extents: tuple[int, ...]) -> Scalar:
    """Floor division or remainder by a constant: multiples of the divisor leave, then common factors."""
    divisor = x.args[1].attr
    if ranges(x.args[0], extents) is None:  # data, not indices: it may wrap around
        return x
    form = linear_form(x.args[0])
    whole = Linear(form.base // divisor, {a: c // divisor for a, c in form.terms.items() if c % divisor == 0})
    rest = Linear(form.base % divisor, {a: c for a, c in form.terms.items() if c % divisor})
    if x.op == "floordiv":
        return unlinear(whole.plus(linear_form(_small_quotient(rest, divisor, extents))))
    return _small_remainder(rest, divisor, extents)


def _common_factor(form: Linear, divisor: int, extents: tuple[int, ...]) -> tuple[int, Linear, Linear] | None:
    """(g, a, b) with form == g*a + b, 0 <= b < g and g a divisor of `divisor`."""
    for g in sorted({abs(c) for c in form.terms.values() if 1 < abs(c) < divisor and divisor % abs(c) == 0}):
        a = Linear(form.base // g, {t: c // g for t, c in form.terms.items() if c % g == 0})
        b = Linear(form.base % g, {t: c for t, c in form.terms.items() if c % g})
        within = ranges(unlinear(b), extents)
        if within is not None and within.low >= 0 and within.high < g:
            return g, a, b
    return None


def _small_quotient(form: Linear, divisor: int, extents: tuple[int, ...]) -> Scalar:
    e = unlinear(form)
    within = ranges(e, extents)
    if within is not None and within.low // divisor == within.high // divisor:
        return const(within.low // divisor)
    common = _common_factor(form, divisor, extents)
    if common is not None:
        g, a, _ = common
        return _simple(scalar("floordiv", unlinear(a), divisor // g), extents)
    if e.op == "floordiv" and e.args[1].op == "const" and e.args[1].attr > 0:
        return _simple(scalar("floordiv", e.args[0], e.args[1].attr * divisor), extents)
    return scalar("floordiv", e, divisor)


def _small_remainder(form: Linear, divisor: int, extents: tuple[int, ...]) -> Scalar:
    e = unlinear(form)
    within = ranges(e, extents)
    if within is not None and within.low // divisor == within.high // divisor:
        return unlinear(form._replace(base=form.base - within.low // divisor * divisor))
    common = _common_factor(form, divisor, extents)
    if common is not None:
        g, a, b = common
        high = _simple(scalar("mod", unlinear(a), divisor // g), extents)
        return unlinear(linear_form(high).times(g).plus(b))
    return scalar("mod", e, divisor)


def _chosen(x: Scalar, extents: tuple[int, ...]) -> Scalar:
    a, b = x.args
    difference = ranges(unlinear(linear_form(a).plus(linear_form(b), -1)), extents)
    if difference is not None and difference.low >= 0:
        return a if x.op == "maximum" else b
    if difference is not None and difference.high <= 0:
        return b if x.op == "maximum" else a
    return x


def _compared(x: Scalar, extents: tuple[int, ...]) -> Scalar:
    a, b = x.args
    difference = ranges(unlinear(linear_form(a).plus(linear_form(b), -1)), extents)
    if difference is None:
        return x
    low, high = difference
    always, never = {
        "lt": (high < 0, low >= 0), "le": (high <= 0, low > 0), "gt": (low > 0, high <= 0), "ge": (low >= 0, high < 0),
        "eq": (low == high == 0, low > 0 or high < 0), "ne": (low > 0 or high < 0, low == high == 0),
    }[x.op]  # fmt: skip
    return const(True, BOOL) if always else const(False, BOOL) if never else x


def linear_roots(roots: Sequence[Scalar]) -> list[Scalar]:
    """Every largest int64 sum in the expressions: offsets, and what is divided, compared, clamped or converted."""
    order = walk(roots)
    found = {r for r in roots if r.dtype is INT64}
    for x in order:
        if not is_sum(x):
            found.update(a for a in x.args if a.dtype is INT64)
    return [x for x in order if x in found]


def counters_in(e: Scalar) -> set[int]:
    """The loops whose counters `e` depends on."""
    return {x.attr for x in walk((e,)) if x.op == "index"}


def walk_unguarded(roots: Sequence[Scalar], guarded: set[Scalar], known: Mapping[Scalar, object]) -> list[Scalar]:
    """What must be evaluated whatever the guarded choices say, arguments first."""
    seen: dict[Scalar, None] = {}
    stack = [(r, False) for r in reversed(roots)]
    while stack:
        e, done = stack.pop()
        if e in seen:
            continue
        if done or e in known:
            seen[e] = None
        else:
            stack.append((e, True))
            stack += [(a, False) for a in reversed(e.args[:1] if e in guarded else e.args)]
    return list(seen)


def guarded_selects(roots: Sequence[Scalar], known: Set[Scalar] = frozenset()) -> set[Scalar]:
    """The selects with a load on one side that is not made anyway."""
    always = set(walk_unguarded(roots, {e for e in walk(roots) if e.op == "select"}, dict.fromkeys(known)))
    loading: set[Scalar] = set()
    guarded = set()
    for e in walk(roots):
        if e in always and (e.op == "load" or e in known):
            continue
        if e.op == "load" or any(a in loading for a in e.args):
            loading.add(e)
        if e.op == "select" and (e.args[1] in loading or e.args[2] in loading):
            guarded.add(e)
    return guarded
