"""Dimensions: an int, or integer arithmetic over named symbols such as `2*n + 1` or `(h - 3)//2 + 1`.

A symbolic dimension is kept in a normal form: a sum of integer multiples of products of atoms, where an atom is a
symbol, a floor division, or a maximum or minimum that could not be simplified. Two expressions with the same normal
form are equal, so `n + n == 2*n` and `(2*n)//2 == n`.
"""

from __future__ import annotations

import ast
import itertools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias, overload

__all__ = [
    "Dim",
    "DimLike",
    "Symbol",
    "ceil_div",
    "dim_max",
    "dim_min",
    "fresh_symbol",
    "parse_dim",
    "product",
    "substitute",
    "symbols_of",
]


@dataclass(frozen=True, slots=True)
class Symbol:
    """A named dimension with inclusive bounds; `upper` None means unbounded.

    Values are given to names (`substitute`), so one program should not use a name with two bounds.
    """

    name: str
    lower: int = 0
    upper: int | None = None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class _Call:
    """An atom that is not a symbol: floordiv, max or min of two dimensions."""

    function: str
    left: DimLike
    right: DimLike

    def __str__(self) -> str:
        if self.function == "floordiv":
            return f"({self.left})//({self.right})"
        return f"{self.function}({self.left}, {self.right})"


_Atom: TypeAlias = Symbol | _Call
_Monomial: TypeAlias = tuple[_Atom, ...]  # sorted by text; an atom repeats for a power


class Dim:
    """A symbolic dimension; immutable and hashable. Arithmetic with ints and other Dims gives an int when it can."""

    __slots__ = ("_hash", "terms")
    terms: tuple[tuple[_Monomial, int], ...]

    def __init__(self, what: Symbol | str) -> None:
        symbol = Symbol(what) if isinstance(what, str) else what
        self._set({(symbol,): 1})

    def _set(self, terms: Mapping[_Monomial, int]) -> None:
        self.terms = tuple(
            sorted(((m, c) for m, c in terms.items() if c), key=lambda t: ([str(a) for a in t[0]], t[1]))
        )
        self._hash = hash(self.terms)

    @property
    def name(self) -> str | None:
        """The symbol's name when the dimension is one bare symbol, else None."""
        if len(self.terms) == 1:
            (monomial, coefficient) = self.terms[0]
            if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], Symbol):
                return monomial[0].name
        return None

    def __add__(self, other: DimLike) -> DimLike:
        terms = dict(self.terms)
        for monomial, coefficient in _terms(other):
            terms[monomial] = terms.get(monomial, 0) + coefficient
        return _make(terms)

    def __mul__(self, other: DimLike) -> DimLike:
        terms: dict[_Monomial, int] = {}
        for (m1, c1), (m2, c2) in itertools.product(self.terms, _terms(other)):
            monomial = tuple(sorted(m1 + m2, key=str))
            terms[monomial] = terms.get(monomial, 0) + c1 * c2
        return _make(terms)

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> DimLike:
        return self * -1

    def __sub__(self, other: DimLike) -> DimLike:
        return self + (-other)

    def __rsub__(self, other: DimLike) -> DimLike:
        return (-self) + other

    def __floordiv__(self, other: DimLike) -> DimLike:
        return _floordiv(self, other)

    def __rfloordiv__(self, other: DimLike) -> DimLike:
        return _floordiv(other, self)

    def __mod__(self, other: DimLike) -> DimLike:
        return self - (self // other) * other

    def __rmod__(self, other: DimLike) -> DimLike:
        return other - (other // self) * self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        text = ""
        for monomial, c in sorted(self.terms, key=lambda t: (not t[0], [str(a) for a in t[0]])):
            factors = ([str(abs(c))] if abs(c) != 1 or not monomial else []) + [str(a) for a in monomial]
            text += ("-" if c < 0 else "+" if text else "") + "*".join(factors)
        return text

    def __repr__(self) -> str:
        return f"Dim({self})"

    def __bool__(self) -> bool:
        raise TypeError(f"the dimension {self} is symbolic: its truth value is not known before the model runs")


DimLike: TypeAlias = int | Dim


def _terms(d: DimLike) -> tuple[tuple[_Monomial, int], ...]:
    if isinstance(d, Dim):
        return d.terms
    return (((), operator.index(d)),) if d else ()


def _make(terms: Mapping[_Monomial, int]) -> DimLike:
    kept = {m: c for m, c in terms.items() if c}
    if not kept:
        return 0
    if set(kept) == {()}:
        return kept[()]
    dim = Dim.__new__(Dim)
    dim._set(kept)
    return dim


def _atom(function: str, left: DimLike, right: DimLike) -> DimLike:
    return _make({(_Call(function, left, right),): 1})


def _floordiv(left: DimLike, right: DimLike) -> DimLike:
    if isinstance(right, int):
        if right == 1:
            return left
        if isinstance(left, int):
            return left // right
        if right:  # the part that divides evenly comes out; the rest stays under the division
            whole = _make({m: c // right for m, c in left.terms if c % right == 0})
            rest = _make({m: c for m, c in left.terms if c % right})
            inner = rest // right if isinstance(rest, int) else _atom("floordiv", rest, right)
            return whole + inner
    if left == right:
        return 1
    if isinstance(right, Dim) and len(right.terms) == 1 and isinstance(left, Dim):
        ((divisor, scale),) = right.terms
        quotient: dict[_Monomial, int] = {}
        for monomial, c in left.terms:
            rest_atoms = list(monomial)
            try:
                for a in divisor:
                    rest_atoms.remove(a)
            except ValueError:
                break
            if c % scale:
                break
            quotient[tuple(rest_atoms)] = c // scale
        else:
            return _make(quotient)
    return _atom("floordiv", left, right) if left != 0 else 0


def _extreme(function: str, choose: Callable[[int, int], int], left: DimLike, right: DimLike) -> DimLike:
    if isinstance(left, int) and isinstance(right, int):
        return choose(left, right)
    if left == right:
        return left
    return _atom(function, left, right)


def dim_max(left: DimLike, right: DimLike) -> DimLike:
    """The larger of two dimensions."""
    return _extreme("max", max, left, right)


def dim_min(left: DimLike, right: DimLike) -> DimLike:
    """The smaller of two dimensions."""
    return _extreme("min", min, left, right)


_FUNCTIONS: dict[str, Callable[[DimLike, DimLike], DimLike]] = {"floordiv": _floordiv, "max": dim_max, "min": dim_min}


@overload
def ceil_div(a: int, b: int) -> int: ...
@overload
def ceil_div(a: DimLike, b: DimLike) -> DimLike: ...
def ceil_div(a: DimLike, b: DimLike) -> DimLike:
    """a / b rounded up: how many parts of `b` hold `a`."""
    return -(-a // b)


def product(dims: tuple[DimLike, ...]) -> DimLike:
    """The product of dimensions: the number of elements of a shape."""
    return reduce(operator.mul, dims, 1)


def substitute(d: DimLike, values: Mapping[str, DimLike]) -> DimLike:
    """`d` with symbols replaced by the dimensions that `values` gives for their names."""
    if isinstance(d, int):
        return d
    total: DimLike = 0
    for monomial, coefficient in d.terms:
        term: DimLike = coefficient
        for atom in monomial:
            if isinstance(atom, Symbol):
                term = term * values.get(atom.name, _make({(atom,): 1}))
            else:
                left, right = substitute(atom.left, values), substitute(atom.right, values)
                term = term * _FUNCTIONS[atom.function](left, right)
        total = total + term
    return total


def symbols_of(d: DimLike) -> frozenset[str]:
    """The names of all symbols in `d`."""
    found: set[str] = set()
    for monomial, _ in _terms(d):
        for atom in monomial:
            if isinstance(atom, Symbol):
                found.add(atom.name)
            else:
                found |= symbols_of(atom.left) | symbols_of(atom.right)
    return frozenset(found)


_counter = itertools.count()


def fresh_symbol(prefix: str = "u") -> Dim:
    """A new symbol for a size that only the run can tell (NonZero and the like)."""
    return Dim(Symbol(f"{prefix}{next(_counter)}_"))


def parse_dim(text: str) -> DimLike:
    """The dimension that `str()` of it printed. Raises ValueError for anything else."""
    operators = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv}

    def build(node: ast.expr) -> DimLike:
        match node:
            case ast.Constant(value=int(value)):
                return value
            case ast.Name(id=name):
                return Dim(name)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -build(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in operators:
                return operators[type(op)](build(left), build(right))
            case ast.Call(func=ast.Name(id=name), args=[left, right]) if name in _FUNCTIONS:
                return _FUNCTIONS[name](build(left), build(right))
        raise ValueError(f"not a dimension: {text!r}")

    try:
        return build(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, RecursionError):
        raise ValueError(f"not a dimension: {text!r}") from None
