"""Vector code in LLVM: the few building blocks that every SIMD intrinsic of graphc is made of.

Nothing here knows a vector width: a `Shape` says how many lanes of which element type, and LLVM maps them onto
registers. Addresses are only ever formed by GEP, because arithmetic on addresses turned into integers is miscompiled
by LLVM 22. All functions take an `ir.IRBuilder` and emit at its position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from llvmlite import ir

__all__ = [
    "BOOL",
    "I8",
    "I32",
    "I64",
    "Shape",
    "at",
    "bfloat16_dot",
    "broadcast",
    "call",
    "constant",
    "counted_loop",
    "fma",
    "load",
    "lookup",
    "lower_bfloat16",
    "maximum",
    "prefetch",
    "rounded_bfloat16",
    "splat",
    "store",
    "transposed",
    "upper_bfloat16",
    "widened_bfloat16",
]

BOOL, I8, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)
_INTEGERS = {f"{sign}int{bits}": ir.IntType(bits) for bits in (8, 16, 32, 64) for sign in ("", "u")}
_ELEMENTS: dict[str, ir.Type] = {"float32": ir.FloatType(), "float64": ir.DoubleType(), "bool": BOOL, **_INTEGERS}


@dataclass(frozen=True, slots=True)
class Shape:
    """A vector type: `lanes` elements of `dtype`: float32, float64, bool or an integer type (NumPy's names)."""

    dtype: str
    lanes: int

    @property
    def element(self) -> ir.Type:
        return _ELEMENTS[self.dtype]

    @property
    def type(self) -> ir.VectorType:
        return ir.VectorType(self.element, self.lanes)

    @property
    def itemsize(self) -> int:
        return 1 if self.dtype == "bool" else np.dtype(self.dtype).itemsize

    @property
    def bytes(self) -> int:
        return self.lanes * self.itemsize

    @property
    def mangled(self) -> str:
        """How the names of LLVM's own functions end for this type."""
        kind = "f" if self.dtype.startswith("float") else "i"
        bits = 1 if self.dtype == "bool" else 8 * self.itemsize
        return f"v{self.lanes}{kind}{bits}"

    def all(self, value: float) -> ir.Constant:
        """A constant with the same number in all lanes."""
        return ir.Constant(self.type, [value] * self.lanes)


def constant(value: int) -> ir.Constant:
    """A 64-bit integer."""
    return ir.Constant(I64, value)


def call(b: ir.IRBuilder, name: str, result: ir.Type, args: Sequence[ir.Value]) -> ir.Value:
    """Call LLVM's own function `name`. Declared by hand: llvmlite's declare_intrinsic refuses vector types."""
    function = b.module.globals.get(name)
    if function is None:
        function = ir.Function(b.module, ir.FunctionType(result, [a.type for a in args]), name)
    return b.call(function, args)


def fma(b: ir.IRBuilder, shape: Shape, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
    """x * y + z, rounded once."""
    return call(b, f"llvm.fma.{shape.mangled}", shape.type, (x, y, z))


def lookup(b: ir.IRBuilder, shape: Shape, table: Sequence[float], index: ir.Value) -> ir.Value:
    """For every lane the number of a table of sixteen that the lowest four bits of its index say: one instruction of
    AVX-512 (16 lanes of float32; 8 with its VL part)."""
    half = [ir.Constant(shape.type, list(table[k : k + shape.lanes])) for k in range(0, len(table), shape.lanes)]
    if shape.lanes == 16:
        return call(b, "llvm.x86.avx512.permvar.sf.512", shape.type, (half[0], index))
    return call(b, "llvm.x86.avx512.vpermi2var.ps.256", shape.type, (half[0], index, half[1]))


class _BFloat16(ir.Type):  # type: ignore[misc]
    """LLVM's bfloat, which llvmlite has no name for: operands of the processor's own instructions are of this type."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat16)

    def __hash__(self) -> int:
        return hash(_BFloat16)


_BFLOAT16 = _BFloat16()


def bfloat16_dot(b: ir.IRBuilder, shape: Shape, z: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    """z + x[0] * y[0] + x[1] * y[1] in every lane: float32 `z`, pairs of bfloat16 as 32-bit words `x` and `y`.

    One instruction of AVX512-BF16, which takes subnormal numbers for 0.
    """
    pairs = ir.VectorType(_BFLOAT16, 2 * shape.lanes)
    name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * shape.lanes}"
    return call(b, name, shape.type, (z, b.bitcast(x, pairs), b.bitcast(y, pairs)))


def lower_bfloat16(b: ir.IRBuilder, shape: Shape, words: ir.Value) -> ir.Value:
    """The first number of each pair as float32."""
    return b.bitcast(b.shl(words, Shape("int32", shape.lanes).all(16)), shape.type)


def upper_bfloat16(b: ir.IRBuilder, shape: Shape, words: ir.Value) -> ir.Value:
    """The second number of each pair as float32."""
    return b.bitcast(b.and_(words, Shape("int32", shape.lanes).all(-0x10000)), shape.type)


def widened_bfloat16(b: ir.IRBuilder, shape: Shape, stored: ir.Value) -> ir.Value:
    """Stored bfloat16 numbers (16-bit integers) as float32."""
    return lower_bfloat16(b, shape, b.zext(stored, Shape("int32", shape.lanes).type))


def rounded_bfloat16(b: ir.IRBuilder, shape: Shape, value: ir.Value) -> ir.Value:
    """float32 numbers as stored bfloat16: to nearest, halves to even; NaN stays NaN."""
    words, stored = Shape("int32", shape.lanes), Shape("uint16", shape.lanes)
    bits = b.bitcast(value, words.type)
    even = b.and_(b.lshr(bits, words.all(16)), words.all(1))
    rounded = b.add(bits, b.add(even, words.all(0x7FFF)))
    quiet = b.or_(bits, words.all(0x00400000))
    kept = b.select(b.fcmp_unordered("uno", value, value), quiet, rounded)
    return b.trunc(b.lshr(kept, words.all(16)), stored.type)


def maximum(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """The larger of two numbers in every lane; NaN where either is."""
    larger = b.select(b.fcmp_ordered(">", y, x), y, x)
    return b.select(b.fcmp_unordered("uno", y, y), y, larger)


def at(b: ir.IRBuilder, pointer: ir.Value, offset: ir.Value | int) -> ir.Value:
    """The address `offset` elements on."""
    return b.gep(pointer, [constant(offset) if isinstance(offset, int) else offset])


def load(b: ir.IRBuilder, shape: Shape, pointer: ir.Value, align: int) -> ir.Value:
    """A vector of consecutive elements; `align` is what is known of the address, in bytes."""
    value = b.load(b.bitcast(pointer, shape.type.as_pointer()))
    value.align = align
    return value


def store(b: ir.IRBuilder, shape: Shape, value: ir.Value, pointer: ir.Value, align: int) -> None:
    """Store a vector to consecutive elements."""
    b.store(value, b.bitcast(pointer, shape.type.as_pointer())).align = align


def prefetch(b: ir.IRBuilder, pointer: ir.Value) -> None:
    """Ask for the cache line at `pointer` to come as near as L2; any address is harmless."""
    reading, near, data = (ir.Constant(I32, n) for n in (0, 2, 1))
    call(b, "llvm.prefetch.p0", ir.VoidType(), [b.bitcast(pointer, I8.as_pointer()), reading, near, data])


def splat(b: ir.IRBuilder, shape: Shape, value: ir.Value) -> ir.Value:
    """A scalar in all lanes."""
    undefined = ir.Constant(shape.type, ir.Undefined)
    first = b.insert_element(undefined, value, ir.Constant(I32, 0))
    return b.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, shape.lanes), [0] * shape.lanes))


def broadcast(b: ir.IRBuilder, shape: Shape, pointer: ir.Value) -> ir.Value:
    """The element at `pointer` in all lanes: one instruction on every instruction set."""
    return splat(b, shape, b.load(pointer))


Values = list[ir.Value]


def transposed(b: ir.IRBuilder, rows: Values) -> Values:
    """A square of vectors, one a row, as one a column: blocks of half the width change places, then halves of those."""
    lanes, rows = len(rows), list(rows)
    span = lanes // 2
    while span:
        # first takes the blocks of its own that stay and those that come from second, in the order of columns
        stay = [c if not c & span else lanes + c - span for c in range(lanes)]
        come = [c + span if not c & span else lanes + c for c in range(lanes)]
        for i in (n for n in range(lanes) if not n & span):
            first, second = rows[i], rows[i + span]
            rows[i], rows[i + span] = (
                b.shuffle_vector(first, second, ir.Constant(ir.VectorType(I32, lanes), mask)) for mask in (stay, come)
            )
        span //= 2
    return rows


def counted_loop(
    b: ir.IRBuilder, count: ir.Value, carried: Values, body: Callable[[ir.Value, Values], Values]
) -> Values:
    """`for i in range(count): carried = body(i, carried)`; the values carried after the last round."""
    before = b.block
    head, inside, after = (b.append_basic_block(name) for name in ("loop.head", "loop.body", "loop.after"))
    b.branch(head)
    b.position_at_end(head)
    i = b.phi(I64)
    i.add_incoming(constant(0), before)
    phis = [b.phi(v.type) for v in carried]
    for phi, v in zip(phis, carried, strict=True):
        phi.add_incoming(v, before)
    b.cbranch(b.icmp_signed("<", i, count), inside, after)
    b.position_at_end(inside)
    new = body(i, list(phis))
    i.add_incoming(b.add(i, constant(1)), b.block)
    for phi, v in zip(phis, new, strict=True):
        phi.add_incoming(v, b.block)
    b.branch(head)
    b.position_at_end(after)
    return list(phis)
