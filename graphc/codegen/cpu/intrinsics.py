"""What the text of CPU kernels calls: buffers, conversions, and every scalar function, on numbers and on vectors.

A buffer is a pointer that knows its element type and which other buffers it can share memory with. It tells LLVM the
latter as scoped `noalias` metadata, so that loops vectorise without run-time overlap checks. Reading converts storage to
what kernels compute in (16-bit floats to float32, bytes to booleans), writing converts back.

The functions take numbers or `Vector`s of one type. Their names are NumPy's where NumPy has the function.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from llvmlite import ir
from numba import types
from numba.core import datamodel
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, register_model

from graphc.codegen.cpu.compile import target_features
from graphc.codegen.cpu.piecewise import PIECEWISE, has_tables
from graphc.codegen.cpu.vector import Vector
from graphc.codegen.math import exp_nonpositive as _exp_nonpositive
from graphc.codegen.math import expansion
from graphc.codegen.scalar import FUNCTIONS, register_type
from graphc.ir.dtypes import DType, dtype_of
from graphc.ir.scalar import COMPARISONS, Scalar, temp, walk

I1, I8, I16, I32, I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
F32, F64 = ir.FloatType(), ir.DoubleType()
inf, nan = float("inf"), float("nan")

# -- types of values ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lane:
    """The type of one value: a number (`lanes` 0), or a vector of as many."""

    dtype: DType
    lanes: int = 0

    @property
    def element(self) -> ir.Type:
        if self.dtype.is_float:
            return F32 if self.dtype.bits == 32 else F64
        return I1 if self.dtype.kind == "bool" else ir.IntType(self.dtype.bits)

    @property
    def type(self) -> ir.Type:
        return ir.VectorType(self.element, self.lanes) if self.lanes else self.element

    @property
    def mangled(self) -> str:
        """How the names of LLVM's own functions end for this type."""
        name = f"{'f' if self.dtype.is_float else 'i'}{self.dtype.bits}"
        return f"v{self.lanes}{name}" if self.lanes else name

    @property
    def numba(self) -> types.Type:
        element = types.boolean if self.dtype.kind == "bool" else getattr(types, self.dtype.name)
        return Vector(element, self.lanes) if self.lanes else element

    def of(self, dtype: object) -> Lane:
        return Lane(dtype_of(dtype), self.lanes)

    def constant(self, value: Any) -> ir.Constant:
        if self.dtype.is_float:
            value = float(value) if self.dtype.bits == 64 else float(self.dtype.numpy.type(value))
        else:
            value = int(value)
        return ir.Constant(self.type, [value] * self.lanes if self.lanes else value)


def _lane(t: types.Type) -> Lane:
    t = types.unliteral(t)
    if isinstance(t, Vector):
        return Lane(_lane(t.dtype).dtype, t.lanes)
    return Lane(dtype_of("bool" if t == types.boolean else str(t)))


def _common(args: Sequence[types.Type]) -> Lane:
    """The type that operands are brought to: the vector's if there is one, else the first one's that is not a literal."""
    vectors = [a for a in args if isinstance(a, Vector)]
    plain = [a for a in args if types.unliteral(a) is a]
    return _lane((vectors or plain or list(args))[0])


# -- LLVM code ------------------------------------------------------------------------------------------------------

Builder: TypeAlias = Any  # llvmlite has no types
#: products and sums of our own functions may fuse, and nothing else: see graphc.codegen.math
_FUSE = ("contract",)


def _call(b: Builder, name: str, result: ir.Type, args: Sequence[ir.Value]) -> ir.Value:
    function = b.module.globals.get(name)
    if function is None:
        function = ir.Function(b.module, ir.FunctionType(result, [a.type for a in args]), name)
    return b.call(function, args)


def _each_lane(
    b: Builder, lane: Lane, args: Sequence[ir.Value], one: Callable[[Sequence[ir.Value]], ir.Value]
) -> ir.Value:
    """A function without a vector form, lane by lane."""
    if not lane.lanes:
        return one(args)
    result = ir.Constant(lane.type, ir.Undefined)
    for k in range(lane.lanes):
        number = ir.Constant(I32, k)
        result = b.insert_element(result, one([b.extract_element(a, number) for a in args]), number)
    return result


def _signed(dtype: DType) -> bool:
    return dtype.kind == "int"


def _compare(b: Builder, lane: Lane, op: str, x: ir.Value, y: ir.Value) -> ir.Value:
    symbol = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}[op]
    if lane.dtype.is_float:
        return (b.fcmp_unordered if op == "ne" else b.fcmp_ordered)(symbol, x, y, flags=_FUSE)
    return (b.icmp_signed if _signed(lane.dtype) else b.icmp_unsigned)(symbol, x, y)


def _extremum(b: Builder, lane: Lane, op: str, x: ir.Value, y: ir.Value) -> ir.Value:
    """NumPy's maximum or minimum: NaN if either operand is."""
    symbol = ">" if op == "maximum" else "<"
    if lane.dtype.is_float:
        if isinstance(x, ir.Constant):
            x, y = y, x
        if isinstance(y, ir.Constant):  # a comparison with NaN is false and leaves x: one machine instruction
            return b.select(b.fcmp_ordered(symbol, y, x, flags=_FUSE), y, x)
        return _call(b, f"llvm.{op}.{lane.mangled}", lane.type, (x, y))
    return b.select((b.icmp_signed if _signed(lane.dtype) else b.icmp_unsigned)(symbol, x, y), x, y)


def _integer_division(b: Builder, lane: Lane, op: str, x: ir.Value, y: ir.Value) -> ir.Value:
    """Quotients and remainders of integers; by zero they are 0, and the one quotient that overflows wraps around."""
    zero, one = lane.constant(0), lane.constant(1)
    by_zero = b.icmp_unsigned("==", y, zero)
    if not _signed(lane.dtype):
        safe = b.select(by_zero, one, y)
        value = b.udiv(x, safe) if op in ("div", "floordiv") else b.urem(x, safe)
        return b.select(by_zero, zero, value)
    minus = b.icmp_unsigned("==", y, lane.constant(-1))
    safe = b.select(b.or_(by_zero, minus), one, y)
    quotient = b.select(minus, b.neg(x), b.sdiv(x, safe))
    remainder = b.select(minus, zero, b.srem(x, safe))
    if op in ("floordiv", "mod"):
        # rounding down: one less where the remainder has the other sign than the divisor
        wrong = b.and_(b.icmp_unsigned("!=", remainder, zero), b.icmp_signed("<", b.xor(remainder, y), zero))
        quotient = b.select(wrong, b.sub(quotient, one), quotient)
        remainder = b.select(wrong, b.add(remainder, y), remainder)
    return b.select(by_zero, zero, quotient if op in ("div", "floordiv") else remainder)


def _float_remainder(b: Builder, lane: Lane, op: str, x: ir.Value, y: ir.Value) -> ir.Value:
    remainder = b.frem(x, y, flags=_FUSE)
    if op == "fmod":
        return remainder
    zero = lane.constant(0)
    other_sign = b.xor(b.fcmp_ordered("<", remainder, zero), b.fcmp_ordered("<", y, zero))
    wrong = b.and_(other_sign, b.fcmp_unordered("!=", remainder, zero))
    return b.select(wrong, b.fadd(remainder, y, flags=_FUSE), remainder)


def convert(b: Builder, old: Lane, new: Lane, x: ir.Value) -> ir.Value:
    """C's conversions; to boolean is "not zero"."""
    if old.dtype == new.dtype:
        return x
    if new.dtype.kind == "bool":
        return _compare(b, old, "ne", x, old.constant(0))
    if old.dtype.kind == "bool":
        return b.uitofp(x, new.type) if new.dtype.is_float else b.zext(x, new.type)
    if old.dtype.is_float and new.dtype.is_float:
        return b.fpext(x, new.type) if new.dtype.bits > old.dtype.bits else b.fptrunc(x, new.type)
    if old.dtype.is_float:
        if new.dtype.bits < 32:  # by way of int32: what does not fit wraps around
            wide = Lane(dtype_of("int32"), new.lanes)
            return b.trunc(b.fptosi(x, wide.type), new.type)
        return (b.fptosi if _signed(new.dtype) else b.fptoui)(x, new.type)
    if new.dtype.is_float:
        return (b.sitofp if _signed(old.dtype) else b.uitofp)(x, new.type)
    if new.dtype.bits == old.dtype.bits:
        return x
    if new.dtype.bits < old.dtype.bits:
        return b.trunc(x, new.type)
    return (b.sext if _signed(old.dtype) else b.zext)(x, new.type)


_LLVM_NAMES = {
    "floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "rint", "sqrt": "sqrt", "abs": "fabs", "exp": "exp", "exp2": "exp2",
    "log": "log", "log2": "log2", "sin": "sin", "cos": "cos", "tan": "tan", "asin": "asin", "acos": "acos", "atan": "atan",
    "atan2": "atan2", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "pow": "pow",
}  # fmt: skip
_LIBM_NAMES = {"erf": "erf", "expm1": "expm1", "log1p": "log1p", "asinh": "asinh", "acosh": "acosh", "atanh": "atanh"}
_VECTOR_INSTRUCTIONS = ("floor", "ceil", "trunc", "round", "sqrt", "abs")


def operation(b: Builder, op: str, lane: Lane, args: Sequence[ir.Value]) -> ir.Value:
    """A scalar operation on values of type `lane`; a predicate or comparison gives booleans."""
    if op in COMPARISONS:
        return _compare(b, lane, op, *args)
    if op in ("maximum", "minimum"):
        return _extremum(b, lane, op, *args)
    if lane.dtype.is_float:
        return _float_operation(b, op, lane, args)
    match op:
        case "add" | "sub" | "mul" | "xor" | "shl":
            return getattr(b, op)(*args)
        case "and" | "or":
            return getattr(b, f"{op}_")(*args)
        case "shr":
            return (b.ashr if _signed(lane.dtype) else b.lshr)(*args)
        case "neg":
            return b.neg(*args)
        case "not":
            return b.not_(*args)
        case "abs" if not _signed(lane.dtype):
            return args[0]
        case "abs":
            return b.select(b.icmp_signed("<", args[0], lane.constant(0)), b.neg(args[0]), args[0])
        case "sign":
            positive = convert(b, lane.of("bool"), lane, _compare(b, lane, "gt", args[0], lane.constant(0)))
            negative = b.ashr(args[0], lane.constant(lane.dtype.bits - 1)) if _signed(lane.dtype) else lane.constant(0)
            return b.or_(positive, negative)
        case "div" | "floordiv" | "mod" | "fmod":
            return _integer_division(b, lane, op, *args)
        case "pow":
            return _integer_power(b, lane, *args)
        case "floor" | "ceil" | "trunc" | "round":
            return args[0]
        case "isnan" | "isinf" | "isposinf" | "isneginf":
            return lane.of("bool").constant(False)
    raise TypeError(f"{op} of {lane.dtype}")


def _float_operation(b: Builder, op: str, lane: Lane, args: Sequence[ir.Value]) -> ir.Value:
    if op in ("add", "sub", "mul", "div"):
        return getattr(b, f"f{op}")(*args, flags=_FUSE)
    if op == "neg":
        return b.fneg(args[0])
    if op in ("fmod", "mod"):
        return _float_remainder(b, lane, op, *args)
    if op == "floordiv":
        return _call(b, f"llvm.floor.{lane.mangled}", lane.type, [b.fdiv(*args, flags=_FUSE)])
    if op == "isnan":
        return b.fcmp_unordered("uno", args[0], args[0], flags=_FUSE)
    if op in ("isinf", "isposinf", "isneginf"):
        x = _call(b, f"llvm.fabs.{lane.mangled}", lane.type, args) if op == "isinf" else args[0]
        return b.fcmp_ordered("==", x, lane.constant(-inf if op == "isneginf" else inf), flags=_FUSE)
    if op in PIECEWISE and lane.dtype.bits == 32 and has_tables(lane.lanes, target_features()):
        return PIECEWISE[op].emit(b, lane.lanes, args[0])
    expanded = expansion(op, *(temp(k, lane.dtype) for k in range(len(args))))
    if expanded is not None:
        return emit(b, expanded, lane, args)
    one = Lane(lane.dtype)
    if op in _VECTOR_INSTRUCTIONS:
        return _call(b, f"llvm.{_LLVM_NAMES[op]}.{lane.mangled}", lane.type, args)
    if op in _LLVM_NAMES:
        return _each_lane(b, lane, args, lambda a: _call(b, f"llvm.{_LLVM_NAMES[op]}.{one.mangled}", one.type, a))
    if op in _LIBM_NAMES:
        name = _LIBM_NAMES[op] + ("f" if lane.dtype.bits == 32 else "")
        return _each_lane(b, lane, args, lambda a: _call(b, name, one.type, a))
    raise TypeError(f"{op} of {lane.dtype}")


def _integer_power(b: Builder, lane: Lane, x: ir.Value, y: ir.Value) -> ir.Value:
    """x**y by squaring: six to sixty-four steps without branches. A negative exponent gives 1 / x**-y, rounded towards zero."""
    zero, one = lane.constant(0), lane.constant(1)
    result, base, rest = one, x, y
    for _ in range(lane.dtype.bits):
        odd = b.icmp_unsigned("!=", b.and_(rest, one), zero)
        result = b.select(odd, b.mul(result, base), result)
        base = b.mul(base, base)
        rest = b.lshr(rest, one)
    if not _signed(lane.dtype):
        return result
    # 1 / x**n is 0 but for x = 1 and x = -1, whose powers repeat
    minus = lane.constant(-1)
    flipped = b.select(b.icmp_unsigned("==", b.and_(y, one), zero), one, minus)
    inverse = b.select(b.icmp_unsigned("==", x, one), one, b.select(b.icmp_unsigned("==", x, minus), flipped, zero))
    return b.select(b.icmp_signed("<", y, zero), inverse, result)


def emit(b: Builder, e: Scalar, lane: Lane, args: Sequence[ir.Value]) -> ir.Value:
    """LLVM code of an expression of plain arithmetic, in which `temp(k)` is argument k."""
    values: dict[Scalar, ir.Value] = {}
    for x in walk((e,)):
        here, inner = lane.of(x.dtype), [values[a] for a in x.args]
        if x.op == "const":
            values[x] = here.constant(x.attr)
        elif x.op == "temp":
            values[x] = args[x.attr]
        elif x.op == "cast":
            values[x] = convert(b, lane.of(x.args[0].dtype), here, inner[0])
        elif x.op == "bitcast":
            values[x] = b.bitcast(inner[0], here.type)
        elif x.op == "select":
            values[x] = b.select(*inner)
        else:
            values[x] = operation(b, x.op, lane.of(x.args[0].dtype), inner)
    return values[e]


# -- functions ------------------------------------------------------------------------------------------------------


def _function(name: str, arity: int, typed: Callable[..., Any], doc: str) -> Any:
    """An intrinsic of `arity` arguments; Numba takes their number from the signature, so one is written."""
    names = ", ".join("xyz"[:arity])
    scope: dict[str, Any] = {"typed": typed}
    exec(f"def {name}(typingctx, {names}):\n    return typed({names})", scope)
    scope[name].__doc__ = doc
    scope[name].__module__ = __name__
    return intrinsic(scope[name])


def _lanewise(name: str, op: str, arity: int) -> Any:
    def typed(*args: types.Type) -> Any:
        lane = _common(args)
        if lane.dtype.kind not in ("float", "int", "uint", "bool"):
            return None
        result = lane.of("bool") if op.startswith("is") else lane

        def codegen(context: Any, b: Builder, sig: Any, values: Sequence[ir.Value]) -> ir.Value:
            return operation(b, op, lane, values)

        return signature(result.numba, *[lane.numba] * arity), codegen

    return _function(name, arity, typed, f"The scalar operation {op!r}.")


_BINARY = ("maximum", "minimum", "fmod", "mod", "floordiv", "pow", "atan2")
globals().update(
    {
        name: _lanewise(name, op, 2 if op in _BINARY else 1)
        for op, name in FUNCTIONS.items()
        if op not in ("select", "bitcast")
    }
)
truncated_divide = _lanewise("truncated_divide", "div", 2)
logical_not = _lanewise("logical_not", "not", 1)


def _typed_exp_nonpositive(x: types.Type) -> Any:
    lane = _lane(x)

    def codegen(context: Any, b: Builder, sig: Any, args: Sequence[ir.Value]) -> ir.Value:
        if lane.dtype.name != "float32":
            return operation(b, "exp", lane, args)
        return emit(b, _exp_nonpositive(temp(0, lane.dtype)), lane, args)

    return signature(lane.numba, lane.numba), codegen


exp_nonpositive = _function("exp_nonpositive", 1, _typed_exp_nonpositive, "exp of a number that is not positive.")


@intrinsic
def select(typingctx: Any, condition: types.Type, x: types.Type, y: types.Type) -> Any:
    """x where the condition holds, else y. Both are evaluated."""
    lane = _common((x, y))
    if isinstance(condition, Vector) and not lane.lanes:
        lane = Lane(lane.dtype, condition.lanes)
    test = condition if isinstance(condition, Vector) else types.boolean

    def codegen(context: Any, b: Builder, sig: Any, args: Sequence[ir.Value]) -> ir.Value:
        return b.select(*args)

    return signature(lane.numba, test, lane.numba, lane.numba), codegen


def _conversion(dtype: DType) -> Any:
    """`float32(x)` and so on: x as the register type of `dtype`, rounded as if it had been stored as `dtype`."""

    def typed(x: types.Type) -> Any:
        old = _lane(x)
        new = old.of(register_type(dtype))

        def codegen(context: Any, b: Builder, sig: Any, args: Sequence[ir.Value]) -> ir.Value:
            value = convert(b, old, new, args[0])
            if new.dtype == dtype or (new.dtype == old.dtype and isinstance(value, ir.Constant)):
                return value
            return from_storage(b, dtype, new, to_storage(b, dtype, new, value))

        return signature(new.numba, old.numba), codegen

    return _function(dtype.name, 1, typed, f"x as {dtype}.")


def _bits(dtype: DType) -> Any:
    def typed(x: types.Type) -> Any:
        old = _lane(x)
        new = old.of(dtype)
        return signature(new.numba, old.numba), lambda context, b, sig, args: b.bitcast(args[0], new.type)

    return _function(f"bits_{dtype}", 1, typed, f"The bits of x as {dtype}.")


_STORED = (
    "bool", "int2", "int4", "int8", "int16", "int32", "int64", "uint2", "uint4", "uint8", "uint16", "uint32", "uint64",
    "float16", "bfloat16", "float32", "float64",
)  # fmt: skip
globals().update({name: _conversion(dtype_of(name)) for name in _STORED})
globals().update({f"bits_{name}": _bits(dtype_of(name)) for name in ("int32", "int64", "float32", "float64")})


# -- storage --------------------------------------------------------------------------------------------------------


def storage_type(dtype: DType, lanes: int = 0) -> ir.Type:
    """How an element lies in memory."""
    if dtype.is_float and dtype.bits >= 32:
        element: ir.Type = F32 if dtype.bits == 32 else F64
    else:
        element = ir.IntType(8 * dtype.itemsize)
    return ir.VectorType(element, lanes) if lanes else element


def from_storage(b: Builder, dtype: DType, lane: Lane, value: ir.Value) -> ir.Value:
    """The register's value of a stored one; `lane` is the register's type."""
    if dtype.kind == "bool":
        return b.icmp_unsigned("!=", value, ir.Constant(value.type, [0] * lane.lanes if lane.lanes else 0))
    if dtype.name == "bfloat16":
        bits = lane.of("int32")
        return b.bitcast(b.shl(b.zext(value, bits.type), bits.constant(16)), lane.type)
    if dtype.name == "float16":
        half = ir.VectorType(ir.HalfType(), lane.lanes) if lane.lanes else ir.HalfType()
        return b.fpext(b.bitcast(value, half), lane.type)
    return value


def to_storage(b: Builder, dtype: DType, lane: Lane, value: ir.Value) -> ir.Value:
    """The stored value of a register's one."""
    stored = storage_type(dtype, lane.lanes)
    if dtype.kind == "bool":
        return b.zext(value, stored)
    if dtype.name == "bfloat16":
        # round to nearest, halves to even; NaN must not become infinity when its low bits go
        bits = lane.of("int32")
        x = b.bitcast(value, bits.type)
        even = b.and_(b.lshr(x, bits.constant(16)), bits.constant(1))
        rounded = b.add(x, b.add(even, bits.constant(0x7FFF)))
        quiet = b.or_(x, bits.constant(0x00400000))
        kept = b.select(b.fcmp_unordered("uno", value, value, flags=_FUSE), quiet, rounded)
        return b.trunc(b.lshr(kept, bits.constant(16)), stored)
    if dtype.name == "float16":
        half = ir.VectorType(ir.HalfType(), lane.lanes) if lane.lanes else ir.HalfType()
        return b.bitcast(b.fptrunc(value, half), stored)
    if dtype.is_integer and dtype.bits < 8:
        unused = lane.constant(8 - dtype.bits)
        return (b.ashr if _signed(dtype) else b.lshr)(b.shl(value, unused), unused)
    return value


class Buffer(types.Type):  # type: ignore[misc]
    """A pointer to elements of `dtype`. `scope` names its memory; `others` are the names of memory it shares nothing with."""

    def __init__(self, dtype: DType, scope: str, others: tuple[str, ...]) -> None:
        self.element, self.scope, self.others = dtype, scope, others
        super().__init__(name=f"buffer({dtype}, {scope} apart from {' '.join(others)})")

    @property
    def lane(self) -> Lane:
        return Lane(register_type(self.element))


@register_model(Buffer)
class _BufferModel(datamodel.models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Buffer) -> None:
        super().__init__(dmm, fe_type, storage_type(fe_type.element).as_pointer())


@infer_global(operator.getitem)
class _Get(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: Sequence[types.Type], kws: Any) -> Any:
        if isinstance(args[0], Buffer):
            return signature(args[0].lane.numba, args[0], types.int64)
        return None


@infer_global(operator.setitem)
class _Set(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: Sequence[types.Type], kws: Any) -> Any:
        if isinstance(args[0], Buffer):
            return signature(types.none, args[0], types.int64, args[0].lane.numba)
        return None


def _mark(b: Builder, access: Any, buffer: Buffer) -> None:
    """Say which memory a load or store touches, and which it does not."""
    module = b.module
    domain = module.add_metadata(["graphc buffers"])

    def scopes(names: Sequence[str]) -> Any:
        return module.add_metadata([module.add_metadata([name, domain]) for name in names])

    access.set_metadata("alias.scope", scopes([buffer.scope]))
    if buffer.others:
        access.set_metadata("noalias", scopes(buffer.others))


def _read(b: Builder, buffer: Buffer, pointer: ir.Value, index: ir.Value, *, lanes: int) -> ir.Value:
    lane = Lane(buffer.lane.dtype, lanes)
    here = b.gep(pointer, [index], inbounds=True)
    if lanes:
        here = b.bitcast(here, storage_type(buffer.element, lanes).as_pointer())
    value = b.load(here)
    value.align = buffer.element.itemsize
    _mark(b, value, buffer)
    return from_storage(b, buffer.element, lane, value)


def _write(b: Builder, buffer: Buffer, pointer: ir.Value, index: ir.Value, value: ir.Value, *, lanes: int) -> None:
    lane = Lane(buffer.lane.dtype, lanes)
    here = b.gep(pointer, [index], inbounds=True)
    if lanes:
        here = b.bitcast(here, storage_type(buffer.element, lanes).as_pointer())
    access = b.store(to_storage(b, buffer.element, lane, value), here)
    access.align = buffer.element.itemsize
    _mark(b, access, buffer)


@lower_builtin(operator.getitem, Buffer, types.Integer)
def _get(context: Any, b: Builder, sig: Any, args: Sequence[ir.Value]) -> ir.Value:
    return _read(b, sig.args[0], *args, lanes=0)


@lower_builtin(operator.setitem, Buffer, types.Integer, types.Any)
def _set(context: Any, b: Builder, sig: Any, args: Sequence[ir.Value]) -> Any:
    _write(b, sig.args[0], *args, lanes=0)
    return context.get_dummy_value()


@cache
def loader(lanes: int) -> Any:
    """`load(buffer, index)`: `lanes` consecutive elements as a vector."""

    @intrinsic
    def load(typingctx: Any, buffer: types.Type, index: types.Type) -> Any:
        result = Lane(buffer.lane.dtype, lanes).numba
        return signature(result, buffer, types.int64), lambda context, b, sig, args: _read(
            b, buffer, *args, lanes=lanes
        )

    return load


@cache
def storer(lanes: int) -> Any:
    """`store(buffer, index, value)`: a vector, or a number repeated, to `lanes` consecutive elements."""

    @intrinsic
    def store(typingctx: Any, buffer: types.Type, index: types.Type, value: types.Type) -> Any:
        kind = Lane(buffer.lane.dtype, lanes).numba

        def codegen(context: Any, b: Builder, sig: Any, args: Sequence[ir.Value]) -> Any:
            _write(b, buffer, *args, lanes=lanes)
            return context.get_dummy_value()

        return signature(types.none, buffer, types.int64, kind), codegen

    return store


@cache
def transposer(lanes: int) -> Any:
    """`transpose(out, at, step, x, start, stride)`: a square of `lanes` x `lanes` elements, rows and columns exchanged.

    out[at + i * step + j] = x[start + j * stride + i], in registers: `lanes` loads, shuffles, `lanes` stores.
    """

    @intrinsic
    def transpose(typingctx: Any, out: Any, at: Any, step: Any, x: Any, start: Any, stride: Any) -> Any:
        def codegen(context: Any, b: Builder, sig: Any, args: Sequence[ir.Value]) -> Any:
            target, at, step, source, start, stride = args

            def place(base: ir.Value, k: int, gap: ir.Value) -> ir.Value:
                return b.add(base, b.mul(gap, ir.Constant(I64, k)))

            rows = [_read(b, x, source, place(start, j, stride), lanes=lanes) for j in range(lanes)]
            for i, row in enumerate(_exchanged(b, rows)):
                _write(b, out, target, place(at, i, step), row, lanes=lanes)
            return context.get_dummy_value()

        return signature(types.none, out, types.int64, types.int64, x, types.int64, types.int64), codegen

    return transpose


def _exchanged(b: Builder, rows: list[ir.Value]) -> list[ir.Value]:
    """Rows and columns of a square exchanged: each round exchanges the corners of squares twice as large."""
    rows, lanes, size = list(rows), len(rows), 1
    while size < lanes:
        upper = [j if not j & size else lanes + j - size for j in range(lanes)]
        lower = [j + size if not j & size else lanes + j for j in range(lanes)]
        for i in range(lanes):
            if not i & size:
                pair = rows[i], rows[i + size]
                rows[i], rows[i + size] = (
                    b.shuffle_vector(*pair, ir.Constant(ir.VectorType(I32, lanes), mask)) for mask in (upper, lower)
                )
        size *= 2
    return rows


@cache
def repeater(lanes: int) -> Any:
    """`repeat(x)`: a number in all lanes of a vector."""

    @intrinsic
    def repeat(typingctx: Any, x: types.Type) -> Any:
        kind = Lane(_lane(x).dtype, lanes).numba
        return signature(kind, kind), lambda context, b, sig, args: args[0]

    return repeat


@intrinsic(prefer_literal=True)
def operand(
    typingctx: Any, block: types.Type, slot: types.Type, dtype: types.Type, scope: types.Type, others: types.Type
) -> Any:
    """The buffer whose address stands in a slot of the argument block; `others` names the scopes it is apart from."""
    result = Buffer(dtype_of(dtype.literal_value), scope.literal_value, tuple(others.literal_value.split()))

    def codegen(context: Any, b: Builder, sig: Any, args: Sequence[ir.Value]) -> ir.Value:
        # read as a pointer: an integer turned into one would hide from LLVM where it comes from
        at = b.gep(args[0], [ir.Constant(I64, slot.literal_value)])
        return b.load(b.bitcast(at, storage_type(result.element).as_pointer().as_pointer()))

    return signature(result, block, slot, dtype, scope, others), codegen


@intrinsic(prefer_literal=True)
def workspace(
    typingctx: Any, address: types.Type, offset: types.Type, dtype: types.Type, scope: types.Type, others: types.Type
) -> Any:
    """A buffer `offset` bytes into the thread's private memory at `address`."""
    result = Buffer(dtype_of(dtype.literal_value), scope.literal_value, tuple(others.literal_value.split()))

    def codegen(context: Any, b: Builder, sig: Any, args: Sequence[ir.Value]) -> ir.Value:
        here = b.gep(b.inttoptr(args[0], I8.as_pointer()), [args[1]])
        return b.bitcast(here, storage_type(result.element).as_pointer())

    return signature(result, types.int64, types.int64, dtype, scope, others), codegen


__all__ = [
    "Buffer", "inf", "loader", "logical_not", "nan", "operand", "repeater", "select", "storer", "transposer", "truncated_divide", "workspace", *_STORED,
    *(name for op, name in FUNCTIONS.items() if op != "bitcast"),
]  # fmt: skip
