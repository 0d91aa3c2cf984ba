"""Scalar expressions: what one element of a kernel computes, and where it reads and writes.

One small language serves every target: operations describe themselves in it, fusion substitutes expressions into
each other, and the code generators print it. Expressions are immutable and interned, so sharing is visible as
identity. Integer arithmetic on indices is simplified while it is built, so that addresses come out affine wherever
they are (`linear_form` then reads the coefficients).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

from graphc.errors import GraphTypeError
from graphc.ir.dtypes import DType, dtype_of

__all__ = [
    "COMPARISONS",
    "OPERATIONS",
    "Linear",
    "Scalar",
    "affine",
    "bitcast",
    "cast",
    "choose",
    "const",
    "evaluated",
    "index",
    "is_sum",
    "linear",
    "linear_form",
    "load",
    "param",
    "scalar",
    "select",
    "temp",
    "walk",
]

T = TypeVar("T")
_ABSENT: Any = object()
#: what is remembered about expressions, in each memo
_MEMO_SIZE = 1 << 16

INT64 = dtype_of("int64")
BOOL = dtype_of("bool")

COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge"}
_ARITHMETIC = {"add", "sub", "mul", "div", "floordiv", "mod", "fmod", "pow", "maximum", "minimum", "atan2"}
_LOGIC = {"and", "or", "xor", "shl", "shr"}
_UNARY = {
    "neg", "abs", "sign", "not", "exp", "exp2", "expm1", "log", "log2", "log1p", "sqrt", "rsqrt", "reciprocal",
    "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh",
    "sigmoid", "erf", "gate_sigmoid", "gate_tanh", "floor", "ceil", "round", "trunc",
}  # fmt: skip
_PREDICATES = {"isnan", "isinf", "isposinf", "isneginf"}
#: the names that `scalar` takes, select and choose aside
OPERATIONS = frozenset(COMPARISONS | _ARITHMETIC | _LOGIC | _UNARY | _PREDICATES)


class Scalar:
    """A node of an expression: an operation, its arguments, the element type of its value, and a static attribute.

    op                    args            attr
    const                 ()              the Python value
    index                 ()              number of the loop, outermost 0; int64
    param                 ()              number of the integer argument; int64
    load                  (offset,)       number of the buffer; offset counts elements, int64
    temp                  ()              number of an earlier stage's result
    cast                  (x,)            None; the type is the node's dtype
    bitcast               (x,)            None; the same bits as another type of the same width
    select                (cond, a, b)    only the chosen side is evaluated
    choose                (cond, a, b)    as select, but both sides may be evaluated
    any other             its operands    one of the names above; operands and result as in NumPy
    """

    __slots__ = ("__weakref__", "args", "attr", "dtype", "op")
    op: str
    args: tuple[Scalar, ...]
    dtype: DType
    attr: Any

    def with_args(self, args: tuple[Scalar, ...]) -> Scalar:
        """The same operation on other arguments, simplified as when it is built; the same object on its own."""
        if args == self.args:
            return self
        match self.op:
            case "load":
                return load(self.attr, args[0], self.dtype)
            case "cast":
                return cast(args[0], self.dtype)
            case "bitcast":
                return bitcast(args[0], self.dtype)
        return scalar(self.op, *args)

    def __add__(self, other: Scalar | float) -> Scalar:
        return scalar("add", self, other)

    def __radd__(self, other: float) -> Scalar:
        return scalar("add", other, self)

    def __sub__(self, other: Scalar | float) -> Scalar:
        return scalar("sub", self, other)

    def __rsub__(self, other: float) -> Scalar:
        return scalar("sub", other, self)

    def __mul__(self, other: Scalar | float) -> Scalar:
        return scalar("mul", self, other)

    def __rmul__(self, other: float) -> Scalar:
        return scalar("mul", other, self)

    def __truediv__(self, other: Scalar | float) -> Scalar:
        return scalar("div", self, other)

    def __rtruediv__(self, other: float) -> Scalar:
        return scalar("div", other, self)

    def __floordiv__(self, other: Scalar | float) -> Scalar:
        return scalar("floordiv", self, other)

    def __mod__(self, other: Scalar | float) -> Scalar:
        return scalar("mod", self, other)

    def __neg__(self) -> Scalar:
        return scalar("neg", self)

    def __lt__(self, other: Scalar | float) -> Scalar:
        return scalar("lt", self, other)

    def __le__(self, other: Scalar | float) -> Scalar:
        return scalar("le", self, other)

    def __gt__(self, other: Scalar | float) -> Scalar:
        return scalar("gt", self, other)

    def __ge__(self, other: Scalar | float) -> Scalar:
        return scalar("ge", self, other)

    def __and__(self, other: Scalar) -> Scalar:
        return scalar("and", self, other)

    def __or__(self, other: Scalar) -> Scalar:
        return scalar("or", self, other)

    def __invert__(self) -> Scalar:
        return scalar("not", self)

    def __bool__(self) -> bool:
        raise GraphTypeError(f"{self!r} is known when the kernel runs, not now: choose with select(condition, a, b)")

    def __repr__(self) -> str:
        if self.op == "const":
            return repr(self.attr)
        if self.op in ("index", "param", "temp"):
            return f"{self.op[0]}{self.attr}"
        inner = ", ".join(map(repr, self.args))
        if self.op == "load":
            return f"b{self.attr}[{inner}]"
        return f"{self.dtype if self.op == 'cast' else self.op}({inner})"


_interned: WeakValueDictionary[object, Scalar] = WeakValueDictionary()


def _make(op: str, args: tuple[Scalar, ...], dtype: DType, attr: Any = None) -> Scalar:
    # floats compare by their bits: 0.0 and -0.0 differ and NaN equals itself
    key = (op, args, dtype, type(attr), attr.hex() if isinstance(attr, float) else attr)
    node = _interned.get(key)
    if node is None:
        node = object.__new__(Scalar)
        node.op, node.args, node.dtype, node.attr = op, args, dtype, attr
        node = _interned.setdefault(key, node)
    return node


def const(value: Any, dtype: object = "int64") -> Scalar:
    """A literal number of the given element type."""
    t = dtype_of(dtype)
    convert: Callable[[Any], Any] = {"float": float, "bool": bool, "complex": complex}.get(t.kind, int)
    return _make("const", (), t, convert(value))


def index(axis: int) -> Scalar:
    """The counter of loop `axis`."""
    return _make("index", (), INT64, axis)


def param(number: int) -> Scalar:
    """An integer that the launch passes in."""
    return _make("param", (), INT64, number)


def temp(number: int, dtype: DType) -> Scalar:
    """The result of an earlier stage of the same kernel."""
    return _make("temp", (), dtype, number)


def load(buffer: int, offset: Scalar | int, dtype: DType) -> Scalar:
    """The element of buffer `buffer` at `offset` elements from the operand's address."""
    return _make("load", (offset if isinstance(offset, Scalar) else const(offset),), dtype, buffer)


def cast(x: Scalar, dtype: object) -> Scalar:
    """`x` converted to another element type, as `astype` does."""
    t = dtype_of(dtype)
    if x.dtype == t:
        return x
    if (
        x.op == "const"
        and t.kind in ("int", "uint", "float")
        and t.bits >= 32
        and x.dtype.kind != "complex"
        and math.isfinite(x.attr)
    ):
        return const(x.attr, t) if t.kind == "float" or float(x.attr).is_integer() else _make("cast", (x,), t)
    return _make("cast", (x,), t)


def bitcast(x: Scalar, dtype: object) -> Scalar:
    """The bits of `x` taken as another element type of the same width."""
    return _make("bitcast", (x,), dtype_of(dtype))


def select(condition: Scalar, a: Scalar | float, b: Scalar | float) -> Scalar:
    """`a` where the condition holds, else `b`. Only the chosen side is evaluated, so a load in the other is safe."""
    a, b = _coerce(a, b)
    if condition.op == "const":
        return a if condition.attr else b
    return a if a is b else _make("select", (condition, a, b), a.dtype)


def choose(condition: Scalar, a: Scalar | float, b: Scalar | float) -> Scalar:
    """`a` where the condition holds, else `b`, when both can be evaluated anywhere: no branch is needed."""
    a, b = _coerce(a, b)
    if condition.op == "const":
        return a if condition.attr else b
    return a if a is b else _make("choose", (condition, a, b), a.dtype)


def _coerce(*args: Scalar | float) -> tuple[Scalar, ...]:
    """Python numbers take the element type of the expressions beside them; integers alone are indices."""
    dtype = next((a.dtype for a in args if isinstance(a, Scalar)), INT64)
    if dtype is INT64 and any(isinstance(a, float) for a in args):
        given = ", ".join(map(repr, args))
        raise GraphTypeError(f"the element type of {given} is not known; say which with const(value, dtype)")
    return tuple(a if isinstance(a, Scalar) else const(a, dtype) for a in args)


_FOLD: Mapping[str, Callable[[int, int], Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "maximum": max, "minimum": min,
    "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge, "eq": operator.eq, "ne": operator.ne,
}  # fmt: skip


def scalar(op: str, *operands: Scalar | float) -> Scalar:
    """An operation on expressions; Python numbers among the operands take the type of the others.

    Raises GraphTypeError for an unknown name or for operands of different element types.
    """
    if op in ("select", "choose"):
        condition, *sides = operands
        if not isinstance(condition, Scalar):
            raise GraphTypeError(f"{op} by {condition!r}, which is no expression")
        return (select if op == "select" else choose)(condition, *sides)
    args = _coerce(*operands)
    first = args[0].dtype
    if any(a.dtype != first for a in args):
        raise GraphTypeError(f"scalar {op} on mixed element types {', '.join(str(a.dtype) for a in args)}")
    if first is INT64:
        simple = _simplify_int(op, args)
        if simple is not None:
            return simple
    if op in COMPARISONS or op in _PREDICATES:
        return _make(op, args, BOOL)
    if op in _ARITHMETIC or op in _LOGIC or op in _UNARY:
        return _make(op, args, first)
    raise GraphTypeError(f"no scalar operation {op!r}")


def _simplify_int(op: str, args: tuple[Scalar, ...]) -> Scalar | None:
    """Index arithmetic that can be done now."""
    if len(args) != 2:
        return None
    a, b = args
    if a.op == "const" and b.op == "const":
        if op in _FOLD:
            value = _FOLD[op](a.attr, b.attr)
            return const(value, BOOL if op in COMPARISONS else INT64)
        if op in ("floordiv", "mod") and b.attr > 0:
            return const(a.attr // b.attr if op == "floordiv" else a.attr % b.attr)
    zero_a, zero_b = a.op == "const" and a.attr == 0, b.op == "const" and b.attr == 0
    one_a, one_b = a.op == "const" and a.attr == 1, b.op == "const" and b.attr == 1
    match op:
        case "add":
            return b if zero_a else a if zero_b else None
        case "sub":
            return a if zero_b else None
        case "mul":
            return const(0) if zero_a or zero_b else b if one_a else a if one_b else None
        case "floordiv":
            return a if one_b else const(0) if zero_a else None
        case "mod":
            return const(0) if one_b or zero_a else None
    return None


def walk(roots: Iterable[Scalar]) -> list[Scalar]:
    """Every expression that `roots` are made of, arguments first, each once. Iterative."""
    seen: dict[Scalar, None] = {}
    stack = [(r, False) for r in roots][::-1]
    while stack:
        e, done = stack.pop()
        if e in seen:
            continue
        if done:
            seen[e] = None
        else:
            stack.append((e, True))
            stack += [(a, False) for a in reversed(e.args)]
    return list(seen)


def rewrite(root: Scalar, replace: Callable[[Scalar], Scalar | None]) -> Scalar:
    """`root` with every expression `e` for which `replace(e)` is not None replaced, bottom up, and simplified again."""
    new: dict[Scalar, Scalar] = {}
    for e in walk((root,)):
        e2 = e.with_args(tuple(new[a] for a in e.args))
        hit = replace(e2)
        new[e] = e2 if hit is None else hit
    return new[root]


def evaluated(
    root: Scalar,
    operands: Callable[[Scalar], Sequence[Scalar]],
    value: Callable[[Scalar, Sequence[T]], T],
    memo: dict[Scalar, T],
) -> T:
    """`value(e, the values of operands(e))` of the root, operands first. Iterative.

    `memo` keeps what was found, here and from call to call; it forgets rather than grow without bound.
    """
    if root in memo:
        return memo[root]
    if len(memo) > _MEMO_SIZE:
        memo.clear()
    done: dict[Scalar, T] = {}  # another thread may clear the memo
    stack = [root]
    while stack:
        e = stack[-1]
        if e not in done:
            found = memo.get(e, _ABSENT)
            if found is _ABSENT:
                below = operands(e)
                missing = [a for a in below if a not in done]
                if missing:
                    stack += missing
                    continue
                found = memo[e] = value(e, [done[a] for a in below])
            done[e] = found
        stack.pop()
    return done[root]


class Linear(NamedTuple):
    """`base + sum(coefficient * atom)`; an atom is anything that is not itself a sum or a multiple."""

    base: int
    terms: Mapping[Scalar, int]

    def plus(self, other: Linear, sign: int = 1) -> Linear:
        terms = dict(self.terms)
        for atom, c in other.terms.items():
            terms[atom] = terms.get(atom, 0) + sign * c
        return Linear(self.base + sign * other.base, {atom: c for atom, c in terms.items() if c})

    def times(self, factor: int) -> Linear:
        return Linear(self.base * factor, {atom: c * factor for atom, c in self.terms.items() if c * factor})


def is_sum(x: Scalar) -> bool:
    """Whether a linear form looks through this expression: sums, differences and multiples of int64."""
    if x.dtype is not INT64:
        return False
    return x.op in ("add", "sub", "neg") or (x.op == "mul" and "const" in (x.args[0].op, x.args[1].op))


def linear_form(e: Scalar) -> Linear:
    """An int64 expression as a linear form. Products of two non-constants are atoms."""
    return evaluated(e, lambda x: x.args if is_sum(x) else (), _linear, _linear_forms)


_linear_forms: dict[Scalar, Linear] = {}


def _linear(e: Scalar, forms: Sequence[Linear]) -> Linear:
    """The form of one expression from those that it looks through."""
    match e.op:
        case "const":
            return Linear(e.attr, {})
        case "add" if forms:
            return forms[0].plus(forms[1])
        case "sub" if forms:
            return forms[0].plus(forms[1], -1)
        case "neg" if forms:
            return forms[0].times(-1)
        case "mul" if forms:
            a, b = forms
            return b.times(a.base) if not a.terms else a.times(b.base)
    return Linear(0, {e: 1})


def affine(offset: Scalar) -> tuple[int, dict[int, int]] | None:
    """(base, {loop: coefficient}) when the expression is affine in the loop counters with known numbers, else None."""
    base, terms = linear_form(offset)
    return (base, {i.attr: c for i, c in terms.items()}) if all(i.op == "index" for i in terms) else None


def linear(indices: Sequence[Scalar], strides: Sequence[int], base: int = 0) -> Scalar:
    """The offset `base + sum(index * stride)`."""
    total = const(base)
    for i, s in zip(indices, strides, strict=True):
        total = total + i * s
    return total
