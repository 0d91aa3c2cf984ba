"""A vector as a value in Numba code, so that generated kernels say what is vectorised instead of hoping for it.

LLVM unrolls a loop over eight lanes before its vectoriser sees it, and leaves scalar code that is ten times slower.
With this type an epilogue is written once, like scalar code, over values that happen to have lanes:

    y = maximum(load(tile, 0) + load(bias, q * 8), 0)

Operators (+ - * / // comparisons & | ^ ~ << >>) take vectors of one type, or a vector and a number, which is repeated
over the lanes in the vector's element type. Comparisons give a vector of booleans, for `select` and the bit operators.
The named functions also take plain numbers, so the same text serves scalar code. `loader` and `storer` make the memory
access functions of a width. Memory of bfloat16 is read and written as vectors of float32, rounded when stored.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import datamodel
from numba.core.typeconv import Conversion
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, lower_cast, register_model

from graphc.codegen.cpu import simd
from graphc.codegen.cpu.simd import I32, Shape

__all__ = [
    "Vector", "absolute", "argument_pointer", "filler", "fma", "loader", "maximum", "offset", "pointer", "pointer_type",
    "prefetch", "reduce_add", "reduce_largest", "reduce_max", "select", "storer", "transposer",
]  # fmt: skip


class Vector(types.Type):  # type: ignore[misc]
    """Numba's view of `lanes` elements of a Numba scalar type held in a register."""

    def __init__(self, dtype: types.Type, lanes: int) -> None:
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"vector({dtype}, {lanes})")

    def can_convert_from(self, typingctx: Any, other: types.Type) -> Any:
        return Conversion.safe if isinstance(other, (types.Number, types.Boolean)) else None

    def unify(self, typingctx: Any, other: types.Type) -> Any:
        """What a name is that holds a vector in one branch and a number in the other."""
        return self if isinstance(other, (types.Number, types.Boolean)) else None

    def of(self, dtype: types.Type) -> Vector:
        """The vector type of as many lanes of another element type."""
        return Vector(dtype, self.lanes)

    @property
    def shape(self) -> Shape:
        return Shape("bool" if self.dtype == types.boolean else str(self.dtype), self.lanes)


class _Stored(types.Type):  # type: ignore[misc]
    """An element type that exists in memory alone: kernels compute with float32 instead."""


BFLOAT16 = _Stored("bfloat16")


@register_model(_Stored)
class _StoredModel(datamodel.models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: _Stored) -> None:
        super().__init__(dmm, fe_type, ir.IntType(16))


def pointer_type(dtype: str) -> types.CPointer:
    """The type of addresses of elements of `dtype`."""
    return types.CPointer(BFLOAT16 if dtype == "bfloat16" else getattr(types, dtype))


def _held(element: types.Type, lanes: int) -> tuple[Vector, Shape]:
    """What a vector of elements is in registers, and how it lies in memory."""
    if element == BFLOAT16:
        return Vector(types.float32, lanes), Shape("uint16", lanes)
    vector = Vector(element, lanes)
    return vector, vector.shape


@register_model(Vector)
class _VectorModel(datamodel.models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        super().__init__(dmm, fe_type, fe_type.shape.type)


@lower_cast(types.Number, Vector)
@lower_cast(types.Boolean, Vector)
def _repeat(context: Any, b: ir.IRBuilder, source: types.Type, target: Vector, value: ir.Value) -> ir.Value:
    if isinstance(value, ir.Constant) and isinstance(value.constant, (int, float)):
        return target.shape.all(float(value.constant) if _is_float(target) else int(value.constant))
    scalar = context.cast(b, value, types.unliteral(source), target.dtype)
    return simd.splat(b, target.shape, scalar)


Emit = Callable[[ir.IRBuilder, Vector, list[ir.Value]], ir.Value]


def _operator(symbol: Any, arity: int, emit: Emit, *, compares: bool = False) -> None:
    """Give one of Python's operators a meaning on vectors."""

    class Template(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: tuple[types.Type, ...], kws: Any) -> Any:
            vectors = {a for a in args if isinstance(a, Vector)}
            if len(args) != arity or len(vectors) != 1:
                return None
            (v,) = vectors
            if any(not isinstance(a, (Vector, types.Number, types.Boolean)) for a in args):
                return None
            return signature(v.of(types.boolean) if compares else v, *[v] * arity)

    infer_global(symbol)(Template)

    def lower(context: Any, b: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
        return emit(b, sig.args[0], list(args))

    lower_builtin(symbol, *[Vector] * arity)(lower)


def _is_float(v: Vector) -> bool:
    return isinstance(v.dtype, types.Float)


def _is_signed(v: Vector) -> bool:
    return isinstance(v.dtype, types.Integer) and bool(v.dtype.signed)


def _arithmetic(on_float: str, on_int: str, on_unsigned: str | None = None) -> Emit:
    def emit(b: ir.IRBuilder, v: Vector, args: list[ir.Value]) -> ir.Value:
        name = on_float if _is_float(v) else on_int if _is_signed(v) or on_unsigned is None else on_unsigned
        return getattr(b, name)(*args)

    return emit


def _comparison(symbol: str) -> Emit:
    def emit(b: ir.IRBuilder, v: Vector, args: list[ir.Value]) -> ir.Value:
        if not _is_float(v):
            return (b.icmp_signed if _is_signed(v) else b.icmp_unsigned)(symbol, *args)
        return b.fcmp_unordered(symbol, *args) if symbol == "!=" else b.fcmp_ordered(symbol, *args)

    return emit


for _symbols, _emit in (
    ((operator.add, operator.iadd), _arithmetic("fadd", "add")),
    ((operator.sub, operator.isub), _arithmetic("fsub", "sub")),
    ((operator.mul, operator.imul), _arithmetic("fmul", "mul")),
    ((operator.truediv, operator.itruediv), _arithmetic("fdiv", "sdiv", "udiv")),
    ((operator.and_, operator.iand), lambda b, v, a: b.and_(*a)),
    ((operator.or_, operator.ior), lambda b, v, a: b.or_(*a)),
    ((operator.xor, operator.ixor), lambda b, v, a: b.xor(*a)),
    ((operator.lshift,), lambda b, v, a: b.shl(*a)),
    ((operator.rshift,), _arithmetic("ashr", "ashr", "lshr")),
):
    for _symbol in _symbols:
        _operator(_symbol, 2, _emit)
for _name, _text in {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}.items():
    _operator(getattr(operator, _name), 2, _comparison(_text), compares=True)
_operator(operator.neg, 1, lambda b, v, a: b.fneg(a[0]) if _is_float(v) else b.neg(a[0]))
_operator(operator.invert, 1, lambda b, v, a: b.not_(a[0]))


def _unified(typingctx: Any, args: tuple[types.Type, ...]) -> types.Type:
    """The type in which an operation on these arguments is done: the vector's, if one is among them."""
    plain = [types.unliteral(a) for a in args]
    vectors = [a for a in plain if isinstance(a, Vector)]
    return vectors[0] if vectors else typingctx.unify_types(*plain)


def _lanewise(
    name: str, emit: Callable[[ir.IRBuilder, Shape, bool, list[ir.Value]], ir.Value], arity: int, doc: str
) -> Any:
    """A function of `arity` vectors or numbers of one type; a number is a vector of one lane on the way."""

    def typed(typingctx: Any, *args: types.Type) -> Any:
        common = _unified(typingctx, args)
        if common is None:
            return None
        lanes = common if isinstance(common, Vector) else Vector(common, 1)

        def codegen(context: Any, b: ir.IRBuilder, sig: Any, values: list[ir.Value]) -> ir.Value:
            if isinstance(common, Vector):
                return emit(b, lanes.shape, _is_float(lanes), list(values))
            wide = [simd.splat(b, lanes.shape, v) for v in values]
            return b.extract_element(emit(b, lanes.shape, _is_float(lanes), wide), ir.Constant(I32, 0))

        return signature(common, *[common] * arity), codegen

    names = ", ".join("xyz"[:arity])
    scope: dict[str, Any] = {"typed": typed}
    exec(f"def {name}(typingctx, {names}):\n    return typed(typingctx, {names})", scope)
    scope[name].__doc__ = doc
    return intrinsic(scope[name])


def _extremum(symbol: str) -> Callable[[ir.IRBuilder, Shape, bool, list[ir.Value]], ir.Value]:
    """NumPy's maximum or minimum: NaN if either operand is. A constant operand saves the test of that operand."""

    def emit(b: ir.IRBuilder, s: Shape, is_float: bool, args: list[ir.Value]) -> ir.Value:
        x, y = args
        if not is_float:
            return b.select((b.icmp_unsigned if s.dtype.startswith("u") else b.icmp_signed)(symbol, x, y), x, y)
        if isinstance(x, ir.Constant):
            x, y = y, x
        # Written so that one max instruction does it: a comparison with NaN is false and leaves x.
        best = b.select(b.fcmp_ordered(symbol, y, x), y, x)
        return best if isinstance(y, ir.Constant) else b.select(b.fcmp_unordered("uno", y, y), y, best)

    return emit


maximum = _lanewise("maximum", _extremum(">"), 2, "The larger of two values; NaN if either is NaN.")
absolute = _lanewise(
    "absolute",
    lambda b, s, is_float, a: (
        simd.call(b, f"llvm.fabs.{s.mangled}", s.type, a)
        if is_float
        else b.select(b.icmp_signed("<", a[0], s.all(0)), b.neg(a[0]), a[0])
    ),
    1,
    "Without its sign.",
)
fma = _lanewise(
    "fma",
    lambda b, s, is_float, a: simd.fma(b, s, *a) if is_float else b.add(b.mul(a[0], a[1]), a[2]),
    3,
    "x * y + z, rounded once.",
)


@intrinsic
def select(typingctx: Any, condition: types.Type, x: types.Type, y: types.Type) -> Any:
    """x where the condition holds, else y. Both are evaluated."""
    common = _unified(typingctx, (x, y))
    if isinstance(condition, Vector) and not isinstance(common, Vector):
        common = condition.of(common)
    if not isinstance(condition, Vector):
        condition = types.boolean

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
        return b.select(*args)

    return signature(common, condition, common, common), codegen


def _convert(b: ir.IRBuilder, value: ir.Value, old: Vector, new: Vector) -> ir.Value:
    if old == new:
        return value
    kind, wider = new.shape.type, new.shape.itemsize > old.shape.itemsize
    if new.dtype == types.boolean:
        zero = old.shape.all(0)
        return b.fcmp_unordered("!=", value, zero) if _is_float(old) else b.icmp_unsigned("!=", value, zero)
    if old.dtype == types.boolean:
        return b.uitofp(value, kind) if _is_float(new) else b.zext(value, kind)
    if _is_float(old):
        if _is_float(new):
            return b.fpext(value, kind) if wider else b.fptrunc(value, kind)
        return (b.fptosi if _is_signed(new) else b.fptoui)(value, kind)
    if _is_float(new):
        return (b.sitofp if _is_signed(old) else b.uitofp)(value, kind)
    if new.shape.itemsize == old.shape.itemsize:
        return value
    return (b.sext if _is_signed(old) else b.zext)(value, kind) if wider else b.trunc(value, kind)


@lower_cast(Vector, Vector)
def _implicit(context: Any, b: ir.IRBuilder, source: Vector, target: Vector, value: ir.Value) -> ir.Value:
    """Where a vector of another type is wanted, as for numbers: Python's own floats are doubles."""
    return _convert(b, value, source, target)


def _reduction(name: str, fold: Callable[[ir.IRBuilder, Shape, bool, list[ir.Value]], ir.Value], doc: str) -> Any:
    """Fold the lanes in halves: a fixed order, so that results repeat."""

    def typed(typingctx: Any, x: types.Type) -> Any:
        if not isinstance(x, Vector):
            return None

        def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
            value, lanes = args[0], x.lanes
            while lanes > 1:
                lanes //= 2
                half = Shape(x.shape.dtype, lanes)
                undefined = ir.Constant(value.type, ir.Undefined)
                parts = [
                    b.shuffle_vector(
                        value, undefined, ir.Constant(ir.VectorType(I32, lanes), list(range(s, s + lanes)))
                    )
                    for s in (0, lanes)
                ]
                value = fold(b, half, _is_float(x), parts)
            return b.extract_element(value, ir.Constant(I32, 0))

        return signature(x.dtype, x), codegen

    scope: dict[str, Any] = {"typed": typed}
    exec(f"def {name}(typingctx, x):\n    return typed(typingctx, x)", scope)
    scope[name].__doc__ = doc
    return intrinsic(scope[name])


reduce_add = _reduction("reduce_add", lambda b, s, f, a: b.fadd(*a) if f else b.add(*a), "Sum of the lanes.")
reduce_max = _reduction("reduce_max", _extremum(">"), "Largest lane; NaN if one is.")
reduce_largest = _reduction(
    "reduce_largest",
    lambda b, s, f, a: b.select(b.fcmp_ordered(">", *a) if f else b.icmp_signed(">", *a), *a),
    "Largest lane of a vector without NaN, in half of the instructions.",
)


@cache
def loader(lanes: int, partial: bool = False) -> Any:
    """`load(pointer, index, count)`: the elements from `index` on as a vector; the address needs no alignment.

    With `partial`, only the first `count` lanes are read and the others are 0; without it `count` is ignored.
    """

    @intrinsic
    def load(typingctx: Any, pointer: types.Type, index: types.Type, count: types.Type) -> Any:
        result, shape = _held(pointer.dtype, lanes)

        def read(b: ir.IRBuilder, args: list[ir.Value]) -> ir.Value:
            pointer, index, count = args
            here = simd.at(b, pointer, index)
            if not partial:
                return simd.load(b, shape, here, shape.itemsize)
            whole, some, done = (b.append_basic_block(f"load.{n}") for n in ("whole", "some", "done"))
            b.cbranch(b.icmp_signed(">=", count, simd.constant(lanes)), whole, some)
            b.position_at_end(whole)
            all_lanes = simd.load(b, shape, here, shape.itemsize)
            b.branch(done)
            b.position_at_end(some)
            address = b.bitcast(here, shape.type.as_pointer())
            args = [address, ir.Constant(I32, shape.itemsize), _first(b, lanes, count), shape.all(0)]
            first_lanes = simd.call(b, f"llvm.masked.load.{shape.mangled}.p0", shape.type, args)
            b.branch(done)
            b.position_at_end(done)
            value = b.phi(shape.type)
            value.add_incoming(all_lanes, whole)
            value.add_incoming(first_lanes, some)
            return value

        def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
            value = read(b, args)
            return simd.widened_bfloat16(b, result.shape, value) if pointer.dtype == BFLOAT16 else value

        return signature(result, pointer, types.int64, types.int64), codegen

    return load


@cache
def storer(lanes: int, partial: bool = False) -> Any:
    """`store(pointer, index, value, count)`: a vector (or a number, repeated) to the elements from `index` on.

    With `partial`, only the first `count` lanes are written; without it `count` is ignored.
    """

    @intrinsic
    def store(typingctx: Any, pointer: types.Type, index: types.Type, value: types.Type, count: types.Type) -> Any:
        kind, shape = _held(pointer.dtype, lanes)
        rounds = pointer.dtype == BFLOAT16

        def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> Any:
            pointer, index, value, count = args
            value = simd.rounded_bfloat16(b, kind.shape, value) if rounds else value
            here = simd.at(b, pointer, index)
            if not partial:
                simd.store(b, shape, value, here, shape.itemsize)
                return context.get_dummy_value()
            with b.if_else(b.icmp_signed(">=", count, simd.constant(lanes))) as (whole, some):
                with whole:
                    simd.store(b, shape, value, here, shape.itemsize)
                with some:
                    address = b.bitcast(here, shape.type.as_pointer())
                    args = [value, address, ir.Constant(I32, shape.itemsize), _first(b, lanes, count)]
                    simd.call(b, f"llvm.masked.store.{shape.mangled}.p0", ir.VoidType(), args)
            return context.get_dummy_value()

        return signature(types.void, pointer, types.int64, kind, types.int64), codegen

    return store


def _first(b: ir.IRBuilder, lanes: int, count: ir.Value) -> ir.Value:
    """The mask of the first `count` lanes."""
    shape = Shape("int32", lanes)
    numbers = ir.Constant(shape.type, list(range(lanes)))
    return b.icmp_signed("<", numbers, simd.splat(b, shape, b.trunc(count, I32)))


@cache
def argument_pointer(dtype: str) -> Any:
    """`f(block, slot)`: the address in a slot of a launch's argument block, as a pointer to elements of `dtype`.

    Read as a pointer, not as an integer turned into one, which would hide from LLVM where it comes from.
    """
    result = pointer_type(dtype)

    @intrinsic
    def pointer_in(typingctx: Any, block: types.Type, slot: types.Type) -> Any:
        def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
            element = context.get_data_type(result.dtype)
            return b.load(b.bitcast(simd.at(b, *args), element.as_pointer().as_pointer()))

        return signature(result, types.CPointer(types.int64), types.int64), codegen

    return pointer_in


@cache
def pointer(dtype: str) -> Any:
    """`f(address)`: an integer address as a pointer to elements of `dtype`."""
    result = pointer_type(dtype)

    @intrinsic
    def as_pointer(typingctx: Any, address: types.Type) -> Any:
        def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
            return b.inttoptr(args[0], context.get_value_type(result))

        return signature(result, types.int64), codegen

    return as_pointer


@intrinsic
def prefetch(typingctx: Any, pointer: types.Type, index: types.Type) -> Any:
    """Ask for the cache line of the element at `index`; any address is harmless."""

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> Any:
        simd.prefetch(b, simd.at(b, *args))
        return context.get_dummy_value()

    return signature(types.void, pointer, types.int64), codegen


@intrinsic
def offset(typingctx: Any, pointer: types.Type, elements: types.Type) -> Any:
    """The pointer `elements` further on."""
    return signature(pointer, pointer, types.int64), lambda context, b, sig, args: simd.at(b, *args)


@cache
def filler(lanes: int) -> Any:
    """`fill(number)`: a vector of `lanes` lanes with the number in each."""

    @intrinsic
    def fill(typingctx: Any, number: types.Type) -> Any:
        result = Vector(types.unliteral(number), lanes)

        def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
            return simd.splat(b, result.shape, args[0])

        return signature(result, result.dtype), codegen

    return fill


@cache
def transposer(lanes: int) -> Any:
    """`transpose(target, source, target_stride, source_stride)`: a square block of lanes x lanes elements, transposed.

    target[i * target_stride + j] = source[j * source_stride + i], with vector loads and stores at any address.
    """

    @intrinsic
    def transpose(
        typingctx: Any, target: types.Type, source: types.Type, target_stride: types.Type, source_stride: types.Type
    ) -> Any:
        shape = Vector(source.dtype, lanes).shape

        def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> Any:
            target, source, target_stride, source_stride = args

            def line(start: ir.Value, stride: ir.Value, n: int) -> ir.Value:
                return simd.at(b, start, b.mul(stride, simd.constant(n)))

            rows = [simd.load(b, shape, line(source, source_stride, n), shape.itemsize) for n in range(lanes)]
            for n, row in enumerate(simd.transposed(b, rows)):
                simd.store(b, shape, row, line(target, target_stride, n), shape.itemsize)
            return context.get_dummy_value()

        return signature(types.void, target, source, types.int64, types.int64), codegen

    return transpose
