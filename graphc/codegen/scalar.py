"""Scalar expressions as the text of Python expressions and statements, the same for every target.

Targets differ in what stands behind the names: `float32(x)`, `exp(x)` or `select(c, a, b)` are intrinsics on the CPU,
device functions on CUDA and plain functions in the simulator. Small floats are computed in float32 and small integers
in a byte; buffers convert when they are read and written.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from graphc.errors import CompileError
from graphc.ir.dtypes import DType, dtype_of
from graphc.ir.scalar import COMPARISONS, Scalar, walk
from graphc.kernels.index import guarded_selects, walk_unguarded
from graphc.ops.reduce import combine_identity

__all__ = [
    "CPU",
    "FUNCTIONS",
    "INNERMOST",
    "Dialect",
    "Level",
    "Text",
    "Writer",
    "expression",
    "identity_of",
    "literal",
    "nested",
    "register_type",
]

INT64 = dtype_of("int64")
#: longer expressions are given a name
_MAX_INLINE = 60
INNERMOST = -1

#: scalar operations that are calls, and the functions' names (those of NumPy where there is one)
FUNCTIONS: Mapping[str, str] = {
    "maximum": "maximum", "minimum": "minimum", "fmod": "fmod", "mod": "mod", "floordiv": "floor_divide", "pow": "power", "atan2": "arctan2",
    "abs": "absolute", "sign": "sign", "exp": "exp", "exp2": "exp2", "expm1": "expm1", "log": "log", "log2": "log2", "log1p": "log1p",
    "sqrt": "sqrt", "rsqrt": "rsqrt", "reciprocal": "reciprocal", "sin": "sin", "cos": "cos", "tan": "tan", "asin": "arcsin",
    "acos": "arccos", "atan": "arctan", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "asinh": "arcsinh", "acosh": "arccosh",
    "atanh": "arctanh", "sigmoid": "sigmoid", "gate_sigmoid": "gate_sigmoid", "gate_tanh": "gate_tanh", "erf": "erf", "floor": "floor", "ceil": "ceil", "round": "rint", "trunc": "trunc",
    "isnan": "isnan", "isinf": "isinf", "isposinf": "isposinf", "isneginf": "isneginf", "select": "select", "choose": "select", "bitcast": "bitcast",
}  # fmt: skip

# how tightly Python's operators bind; a call or a name binds tightest
_ATOM, _UNARY, _PRODUCT, _SUM, _SHIFT, _AND, _XOR, _OR, _COMPARE, _CHOICE = range(10, 0, -1)
_OPERATORS: Mapping[str, tuple[str, int]] = {
    "mul": ("*", _PRODUCT), "div": ("/", _PRODUCT), "floordiv": ("//", _PRODUCT), "mod": ("%", _PRODUCT), "add": ("+", _SUM), "sub": ("-", _SUM),
    "shl": ("<<", _SHIFT), "shr": (">>", _SHIFT), "and": ("&", _AND), "xor": ("^", _XOR), "or": ("|", _OR),
    "eq": ("==", _COMPARE), "ne": ("!=", _COMPARE), "lt": ("<", _COMPARE), "le": ("<=", _COMPARE), "gt": (">", _COMPARE), "ge": (">=", _COMPARE),
}  # fmt: skip


def register_type(dtype: DType) -> DType:
    """The type in which values of an element type are computed: float32 for 16-bit floats, bytes for 2- and 4-bit integers."""
    if dtype.is_integer and dtype.bits < 8:
        return dtype_of("int8" if dtype.kind == "int" else "uint8")
    return dtype.computed_in


def literal(value: float, dtype: DType) -> str:
    """A number in the text, of the register type of `dtype`."""
    t = register_type(dtype)
    if t.kind == "bool":
        return str(bool(value))
    if t.is_float:
        number = (
            "nan"
            if math.isnan(value)
            else ("inf" if value > 0 else "-inf")
            if math.isinf(value)
            else repr(float(value))
        )
        return f"{t}({number})"
    return str(int(value)) if t is INT64 else f"{t}({int(value)})"


def identity_of(combine: str, dtype: DType) -> str:
    """What a reduction starts from."""
    t = register_type(dtype)
    return literal(combine_identity(combine, t), t)


@dataclass(frozen=True)
class Dialect:
    """How targets differ: what a function of an element type is called, and whether a choice is Python's own."""

    function: Callable[[str, DType], str] = lambda name, dtype: name
    ternary: bool = False


CPU = Dialect()


@dataclass
class Text:
    """A piece of an expression and how tightly it binds."""

    text: str
    binds: int = _ATOM

    def within(self, binds: int) -> str:
        return self.text if self.binds >= binds else f"({self.text})"


def expression(e: Scalar, args: Sequence[Text], used: set[str], dialect: Dialect = CPU) -> Text:
    """The text of an operation on texts; names of functions that it calls are added to `used`."""
    t = register_type(e.dtype)
    operand = register_type(e.args[0].dtype) if e.args else t
    if e.op == "cast":
        used.add(e.dtype.name)
        return Text(f"{e.dtype}({args[0].text})")
    if e.op == "bitcast":
        used.add(f"bits_{e.dtype}")
        return Text(f"bits_{e.dtype}({args[0].text})")
    if e.op == "neg":
        return _typed(Text(f"-{args[0].within(_UNARY)}", _UNARY), t, used)
    if e.op == "not":
        if t.kind == "bool" and dialect.ternary:
            return Text(f"not {args[0].text}", _CHOICE)
        if t.kind == "bool":
            used.add("logical_not")
            return Text(f"logical_not({args[0].text})")
        return _typed(Text(f"~{args[0].within(_UNARY)}", _UNARY), t, used)
    if e.op == "div" and operand.is_integer:
        used.add("truncated_divide")
        return Text(f"truncated_divide({args[0].text}, {args[1].text})")
    plain = dialect.ternary and operand.is_integer and e.op in ("floordiv", "mod")
    known_divisor = plain or (
        e.op in ("floordiv", "mod") and operand is INT64 and e.args[1].op == "const" and e.args[1].attr > 0
    )
    if e.op in _OPERATORS and (known_divisor or e.op not in FUNCTIONS):
        symbol, binds = _OPERATORS[e.op]
        compared = e.op in COMPARISONS
        text = Text(f"{args[0].within(binds + compared)} {symbol} {args[1].within(binds + 1)}", binds)
        return text if compared else _typed(text, t, used)
    if e.op in ("select", "choose") and dialect.ternary:
        condition, a, b = (x.within(_CHOICE + 1) for x in args)
        return Text(f"{a} if {condition} else {b}", _CHOICE)
    if e.op in FUNCTIONS:
        name = dialect.function(FUNCTIONS[e.op], operand)
        used.add(name)
        return Text(f"{name}({', '.join(a.text for a in args)})")
    raise CompileError(f"no text for the scalar operation {e.op!r}")


def _typed(x: Text, t: DType, used: set[str]) -> Text:
    """Integer arithmetic widens in Python; the type's own width wraps around."""
    if not t.is_integer or t is INT64:
        return x
    used.add(t.name)
    return Text(f"{t}({x.text})")


@dataclass
class Level:
    """The lines of one loop's body. `header` is the loop's own line, empty for the function's body."""

    header: str
    lines: list[str] = field(default_factory=list)


def nested(levels: Sequence[Level]) -> list[str]:
    """The lines of loops inside each other, each body before the next loop."""
    result: list[str] = []
    for level in reversed(levels):
        body = [*level.lines, *result]
        result = [level.header, *(f"    {line}" for line in body)] if level.header else body
    return result


class Writer:
    """Writes statements at the outermost loop where all that they need is known.

    `levels` are the loops around the statements written now, outermost first; `depth` says for each loop counter at
    which level it gets its value. A value that several others use, or that an inner loop need not compute again, gets
    a name.
    """

    def __init__(self, levels: list[Level], reads: Sequence[str], used: set[str], dialect: Dialect = CPU) -> None:
        """`reads` says how to read each buffer, as a format with the offset to fill in; `used` collects functions' names."""
        self.levels = levels
        self.depth: dict[int, int] = {}
        self.reads, self.used, self.dialect = reads, used, dialect
        #: text of each earlier stage's result, and its level: INNERMOST when it differs from point to point
        self.temps: dict[int, tuple[str, int]] = {}
        self._names: dict[Scalar, tuple[str, int]] = {}
        self._count = 0

    def values(self, roots: Sequence[Scalar], *, named: bool = False) -> list[str]:
        """Texts of expressions, for use in the innermost level; what they need is written before.

        With `named`, every text is a name or a number, so that it may be used after memory has changed.
        """
        at = len(self.levels) - 1
        texts = self._write(roots, at, self.levels[at].lines)
        if named:
            lines = self.levels[at].lines
            return [
                t.text if t.text.isidentifier() else self._named(e, t, at, lines)
                for e, t in zip(roots, texts, strict=True)
            ]
        return [t.text for t in texts]

    def leave(self, depth: int) -> None:
        """Forget the names that belong to levels deeper than `depth`."""
        self._names = {e: n for e, n in self._names.items() if n[1] <= depth}
        del self.levels[depth + 1 :]

    def _write(self, roots: Sequence[Scalar], at: int, lines: list[str], *, inside_branch: bool = False) -> list[Text]:
        everything = walk(roots)
        guarded = guarded_selects(roots, {e for e in everything if e in self._names})
        order = walk_unguarded(roots, guarded, self._names)
        target = self._targets(everything, guarded, at if inside_branch else None)
        needs = {e: e.args[:1] if e in guarded else e.args for e in order}
        uses = Counter([*roots, *(a for e in order for a in needs[e])])
        innermost_use = dict.fromkeys(roots, at)
        for e in order:
            for a in needs[e]:
                innermost_use[a] = max(innermost_use.get(a, 0), target[e])
        texts: dict[Scalar, Text] = {}
        for e in order:
            if e in self._names:
                texts[e] = Text(self._names[e][0])
                continue
            into = lines if target[e] == at else self.levels[target[e]].lines
            if e in guarded:
                texts[e] = Text(self._branch(e, texts[e.args[0]], target[e], into))
                continue
            text = texts[e] = self._leaf(e) or self._operation(e, [texts[a] for a in e.args])
            if e.op in ("const", "index", "param", "temp"):
                continue
            if uses[e] > 1 or target[e] < innermost_use[e] or len(text.text) > _MAX_INLINE:
                texts[e] = Text(self._named(e, text, target[e], into))
        return [texts[r] for r in roots]

    def _targets(self, order: Sequence[Scalar], guarded: set[Scalar], branch: int | None) -> dict[Scalar, int]:
        """The level at which each expression is written: the outermost one, but what loads stays inside its branch."""
        level: dict[Scalar, int] = {}
        pinned: set[Scalar] = set()
        for e in order:
            if e in self._names:
                level[e] = self._names[e][1]
                continue
            if e.op == "index":
                level[e] = self.depth[e.attr]
            elif e.op == "temp":
                at = self.temps[e.attr][1]
                level[e] = len(self.levels) - 1 if at == INNERMOST else at
            else:
                level[e] = max((level[a] for a in e.args), default=0)
            if branch is not None and (e.op == "load" or e in guarded or any(a in pinned for a in e.args)):
                pinned.add(e)
                level[e] = branch
        return level

    def _operation(self, e: Scalar, args: list[Text]) -> Text:
        if e.op == "load":
            return Text(self.reads[e.attr].format(args[0].text))
        return expression(e, args, self.used, self.dialect)

    def _leaf(self, e: Scalar) -> Text | None:
        if e.op == "const":
            t = register_type(e.dtype)
            if t is not INT64 and t.kind != "bool":
                self.used.add(t.name)
            if t.is_float and not math.isfinite(e.attr):
                self.used.add("nan" if math.isnan(e.attr) else "inf")
            return Text(literal(e.attr, e.dtype))
        if e.op == "index":
            return Text(f"i{e.attr}")
        if e.op == "param":
            return Text(f"p{e.attr}")
        return Text(self.temps[e.attr][0]) if e.op == "temp" else None

    def _named(self, e: Scalar, text: Text, level: int, lines: list[str]) -> str:
        name = f"{'a' if e.dtype is INT64 else 'v'}{self._count}"
        self._count += 1
        lines.append(f"{name} = {text.text}")
        self._names[e] = (name, level)
        return name

    def _branch(self, e: Scalar, condition: Text, level: int, lines: list[str]) -> str:
        """A choice whose sides must not both be evaluated: a load in the other one may leave its buffer."""
        name = f"{'a' if e.dtype is INT64 else 'v'}{self._count}"
        self._count += 1
        sides = []
        for side in e.args[1:]:
            before, inside = dict(self._names), list[str]()
            (text,) = self._write([side], level, inside, inside_branch=True)
            inside.append(f"{name} = {text.text}")
            self._names = {k: n for k, n in self._names.items() if k in before or n[1] < level}
            sides.append([f"    {line}" for line in inside])
        lines += [f"if {condition.text}:", *sides[0], "else:", *sides[1]]
        self._names[e] = (name, level)
        return name
