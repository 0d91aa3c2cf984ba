"""`graphc.random`: random numbers from explicit keys, with JAX's names and arguments.

    key = graphc.random.key(0)
    key, used = graphc.random.split(key)
    noise = graphc.random.normal(used, (3, 4))

A key is an array, uint32[2]. A draw is a function of its key and of nothing else: the same key gives the same numbers
whatever the number of threads, eagerly or compiled, on a CPU or a GPU, and under `vmap` what each case gives by itself.
So a key is used once; `split` and `fold_in` make new ones. The bits are those of Threefry-2x32 with 20 rounds, which
enciphers each element's position (Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", 2011).
Bits, integers and uniform numbers are the same to the last bit everywhere; what goes through a logarithm or a cosine
is so up to the rounding of those functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from graphc import ops
from graphc.errors import GraphTypeError
from graphc.frontends.python.array_api.operands import shape_of_result
from graphc.frontends.python.functions import Array, array_function, value_of
from graphc.ir.dims import DimLike
from graphc.ir.dtypes import DType, dtype_of
from graphc.ir.graph import Value
from graphc.ops import random as draws
from graphc.ops.functions import full
from graphc.ops.shapes import broadcast_shapes, normalize_axis

__all__ = [
    "bernoulli", "bits", "categorical", "choice", "exponential", "fold_in", "gumbel", "key", "laplace", "normal",
    "permutation", "randint", "shuffle", "split", "truncated_normal", "uniform",
]  # fmt: skip

Shape = Sequence[DimLike] | int
_UINT32, _UINT64, _INT64, _FLOAT32, _FLOAT64 = map(dtype_of, ("uint32", "uint64", "int64", "float32", "float64"))

# ----------------------------------------------------------------------------------------------------------------- keys


@array_function
def key(seed: Array) -> Value:
    """A key (uint32[2]) from an integer, a Python one or an array of rank 0; its low 64 bits count."""
    if isinstance(seed, int):
        return value_of(draws.make_key(seed))
    return _words(value_of(seed, what="the seed of a key"), "the seed of a key")


@array_function
def split(key: Array, num: Shape = 2) -> Value:
    """`num` new keys, uint32[num, 2] (or uint32[*num, 2] for a shape); the old one must not be used again."""
    return ops.random_bits(_key(key, "split"), shape=(*_shape(num), 2))


@array_function
def fold_in(key: Array, data: Array) -> Value:
    """A new key from a key and an integer: one for every step of a loop, say, whose number is known only there.

    Both are enciphered, so neither keys nor numbers that are close to each other give related keys.
    """
    word = _words(value_of(data, what="the number folded into a key"), "the number folded into a key")
    mixed = ops.bitwise_xor(_key(key, "fold_in"), ops.random_bits(word, shape=(2,)))
    return ops.random_bits(mixed, shape=(2,))


def _words(v: Value, what: str) -> Value:
    """An integer as two words, the high one first."""
    if v.rank or not v.dtype.is_integer:
        raise GraphTypeError(f"{what} is {v.type}; an integer of rank 0 is needed")
    wide = ops.cast(v, dtype=_UINT64)
    pair = [ops.reshape(ops.cast(w, dtype=_UINT32), shape=(1,)) for w in (ops.shift_right(wide, 32), wide)]
    return ops.concat(*pair, axis=0)


def _key(key: Array, what: str) -> Value:
    if isinstance(key, int):
        raise GraphTypeError(f"random.{what}: the key is the number {key}; graphc.random.key({key}) makes a key of it")
    v = value_of(key, what=f"random.{what}")
    if v.dtype != _UINT32 or v.shape != (2,):
        hint = "; graphc.vmap draws for many keys at once" if v.dtype == _UINT32 and v.rank > 1 else ""
        raise GraphTypeError(
            f"random.{what}: the key is {v.type}, uint32[2] is needed: graphc.random.key makes one{hint}"
        )
    return v


# -------------------------------------------------------------------------------------------------------------- integers


@array_function
def bits(key: Array, shape: Shape = (), dtype: Any = "uint32") -> Value:
    """Random bits: unsigned integers (uint8, uint16, uint32, uint64), every value as likely as any other."""
    wanted = dtype_of(dtype)
    if wanted.kind != "uint" or wanted.bits < 8:
        raise GraphTypeError(f"random.bits: dtype is {wanted}; uint8, uint16, uint32 or uint64 is needed")
    k = _key(key, "bits")
    if wanted.bits == 64:
        return _bits64(k, _shape(shape))
    drawn = ops.random_bits(k, shape=_shape(shape))
    return drawn if wanted == _UINT32 else ops.cast(drawn, dtype=wanted)


def _bits64(key: Value, shape: Sequence[DimLike]) -> Value:
    high, low = (ops.cast(ops.random_bits(k, shape=tuple(shape)), dtype=_UINT64) for k in draws.split_key(key))
    return ops.bitwise_or(ops.shift_left(high, 32), low)


@array_function
def randint(key: Array, shape: Shape, minval: Array, maxval: Array, dtype: Any = "int64") -> Value:
    """Integers in [minval, maxval), which broadcast to `shape`; minval where that is empty.

    The remainder of 64 random bits: of n numbers none is more likely than another by more than n / 2**64.
    """
    wanted = dtype_of(dtype)
    if not wanted.is_integer:
        raise GraphTypeError(f"random.randint: dtype is {wanted}; an integer type is needed")
    wide = _UINT64 if wanted == _UINT64 else _INT64
    extents = _shape(shape)
    low, high = (_like(v, wide, extents, "randint") for v in (minval, maxval))
    some = ops.gt(high, low)
    start, end = (ops.cast(v, dtype=_UINT64) for v in (low, high))
    count = ops.select(some, ops.sub(end, start), full(1, extents, _UINT64))
    offset = ops.mod(_bits64(_key(key, "randint"), extents), count)
    return ops.cast(ops.add(start, offset), dtype=wanted)


@array_function
def permutation(key: Array, x: Array, axis: int = 0, independent: bool = False) -> Value:
    """The slices of `x` along `axis` in random order, or the numbers below `x` when that is a Python int.

    With `independent` every line along `axis` gets an order of its own. The order is that of 64 random bits a slice.
    """
    k = _key(key, "permutation")
    v = ops.iota(shape=(x,), axis=0, dtype=_INT64) if isinstance(x, int) else value_of(x, what="random.permutation")
    if not v.rank:
        raise GraphTypeError(
            f"random.permutation: x is {v.type}, which has no axis; a Python int n stands for range(n)"
        )
    axis = normalize_axis(axis, v.rank, "random.permutation")
    if independent:
        return ops.gather_elements(v, ops.sort(_bits64(k, v.shape), axis=axis)[1], axis=axis)
    return ops.gather(v, _order(k, v.shape[axis]), axis=axis)


@array_function
def shuffle(key: Array, x: Array, axis: int = 0) -> Value:
    """`permutation` of an array."""
    return permutation(key, x, axis)


def _order(key: Value, count: DimLike) -> Value:
    """The numbers below `count` in random order."""
    return ops.sort(_bits64(key, (count,)), axis=0)[1]


# ---------------------------------------------------------------------------------------------------------------- floats


@array_function
def uniform(key: Array, shape: Shape = (), dtype: Any = "float32", minval: Array = 0.0, maxval: Array = 1.0) -> Value:
    """Numbers in [minval, maxval), which broadcast to `shape`: a multiple of 2**-p, p the bits of the type's mantissa,
    scaled. (Rounding of the scaled number may reach maxval, as it may in NumPy and JAX.)"""
    wanted, k = _float(dtype, "uniform"), _key(key, "uniform")
    return _uniform(k, _shape(shape), wanted, minval, maxval)


def _uniform(key: Value, shape: tuple[DimLike, ...], dtype: DType, low: Array = 0.0, high: Array = 1.0) -> Value:
    drawn = draws.unit(key, shape, dtype)
    if drawn.dtype != dtype:  # fewer bits, or the largest number would be rounded to 1
        precision = 2.0 ** (ml_dtypes.finfo(dtype.numpy).nmant + 1)
        drawn = ops.cast(ops.div(ops.floor(ops.mul(drawn, precision)), precision), dtype=dtype)
    if isinstance(low, float | int) and isinstance(high, float | int) and (low, high) == (0, 1):
        return drawn
    start, end = (_like(v, dtype, shape, "uniform") for v in (low, high))
    return ops.maximum(start, ops.add(ops.mul(drawn, ops.sub(end, start)), start))


@array_function
def normal(key: Array, shape: Shape = (), dtype: Any = "float32") -> Value:
    """Numbers of the standard normal distribution, by the transform of Box and Muller."""
    return draws.normal(_key(key, "normal"), _shape(shape), dtype=_float(dtype, "normal"))


@array_function
def truncated_normal(
    key: Array, lower: Array, upper: Array, shape: Shape | None = None, dtype: Any = "float32"
) -> Value:
    """Numbers of the standard normal distribution between `lower` and `upper`, by the inverse of its integral."""
    wanted = _float(dtype, "truncated_normal")
    computed = wanted if wanted.bits >= 32 else _FLOAT32
    bounds = [_plain(v, computed, "truncated_normal") for v in (lower, upper)]
    extents = _drawn_shape(shape, bounds, "truncated_normal")
    low, high = (_repeat(v, extents) for v in bounds)
    ends = [ops.erf(ops.mul(v, math.sqrt(0.5))) for v in (low, high)]
    inner = ops.mul(_erfinv(_uniform(_key(key, "truncated_normal"), extents, computed, *ends)), math.sqrt(2.0))
    result = ops.minimum(ops.maximum(inner, low), high)
    return result if wanted == computed else ops.cast(result, dtype=wanted)


def _erfinv(y: Value) -> Value:
    """The inverse of the error function: M. Giles, "Approximating the erfinv function" (2011), single precision; in
    float64 followed by one step of Halley's method, which triples the digits."""
    largest = float(np.nextafter(y.dtype.numpy.type(1), y.dtype.numpy.type(0)))
    y = ops.maximum(ops.minimum(y, largest), -largest)
    w = ops.neg(ops.log(ops.mul(ops.sub(1.0, y), ops.add(1.0, y))))
    near = _polynomial(ops.sub(w, 2.5), _ERFINV_NEAR)
    far = _polynomial(ops.sub(ops.sqrt(ops.maximum(w, 5.0)), 3.0), _ERFINV_FAR)
    x = ops.mul(ops.select(ops.lt(w, 5.0), near, far), y)
    if y.dtype != _FLOAT64:
        return x
    step = ops.mul(ops.mul(ops.sub(ops.erf(x), y), math.sqrt(math.pi) / 2), ops.exp(ops.mul(x, x)))
    return ops.sub(x, ops.div(step, ops.add(1.0, ops.mul(x, step))))


_ERFINV_NEAR = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
    0.246640727, 1.50140941,
)  # fmt: skip
_ERFINV_FAR = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
    1.00167406, 2.83297682,
)  # fmt: skip


def _polynomial(x: Value, coefficients: Sequence[float]) -> Value:
    """By Horner's rule, the highest power's coefficient first."""
    result: Any = coefficients[0]
    for c in coefficients[1:]:
        result = ops.add(ops.mul(x, result), c)
    return result


@array_function
def exponential(key: Array, shape: Shape = (), dtype: Any = "float32") -> Value:
    """Numbers of the exponential distribution with mean 1."""
    wanted = _float(dtype, "exponential")
    drawn = draws.unit(_key(key, "exponential"), _shape(shape), wanted)
    return _narrow(ops.neg(ops.log1p(ops.neg(drawn))), wanted)


@array_function
def gumbel(key: Array, shape: Shape = (), dtype: Any = "float32") -> Value:
    """Numbers of the standard Gumbel distribution."""
    wanted = _float(dtype, "gumbel")
    return _narrow(_gumbel(_key(key, "gumbel"), _shape(shape), wanted), wanted)


def _gumbel(key: Value, shape: Sequence[DimLike], dtype: DType) -> Value:
    drawn = draws.unit(key, tuple(shape), dtype)
    smallest = float(np.finfo(drawn.dtype.numpy).tiny)
    return ops.neg(ops.log(ops.neg(ops.log(ops.maximum(drawn, smallest)))))


@array_function
def laplace(key: Array, shape: Shape = (), dtype: Any = "float32") -> Value:
    """Numbers of the standard Laplace distribution: an exponential one with a random sign."""
    wanted = _float(dtype, "laplace")
    for_size, for_sign = draws.split_key(_key(key, "laplace"))
    size = ops.neg(ops.log1p(ops.neg(draws.unit(for_size, _shape(shape), wanted))))
    negative = ops.ge(ops.random_bits(for_sign, shape=_shape(shape)), 2**31)
    return _narrow(ops.select(negative, ops.neg(size), size), wanted)


# --------------------------------------------------------------------------------------------------------------- choices


@array_function
def bernoulli(key: Array, p: Array = 0.5, shape: Shape | None = None) -> Value:
    """True with probability `p`, element by element; `p` broadcasts to `shape`, by default it has its own.

    A dropout mask: `graphc.where(bernoulli(key, keep, x.shape), x / keep, 0)`.
    """
    probability = value_of(p, what="random.bernoulli")
    if not probability.dtype.is_float:
        probability = ops.cast(probability, dtype=_FLOAT32)
    extents = _drawn_shape(shape, [probability], "bernoulli")
    return draws.bernoulli(_key(key, "bernoulli"), _repeat(probability, extents))


@array_function
def categorical(key: Array, logits: Array, axis: int = -1, shape: Shape | None = None) -> Value:
    """int64: an index along `axis` with probability softmax(logits); a draw for every other element of the logits.

    `shape` is that of the result: the logits without `axis` broadcast to it. (The largest of logits + Gumbel noise.)
    """
    v = value_of(logits, what="random.categorical")
    if not v.dtype.is_float or not v.rank:
        raise GraphTypeError(f"random.categorical: the logits are {v.type}; a float array with an axis is needed")
    axis = normalize_axis(axis, v.rank, "random.categorical")
    order = (*(k for k in range(v.rank) if k != axis), axis)
    last = v if axis == v.rank - 1 else ops.transpose(v, perm=order)
    wide = last if last.dtype.bits >= 32 else ops.cast(last, dtype=_FLOAT32)
    batch = wide.shape[:-1]
    extents = batch if shape is None else _shape(shape)
    if shape is not None and broadcast_shapes(batch, extents, what="random.categorical") != extents:
        raise GraphTypeError(f"random.categorical: the logits {v.type} without axis {axis} do not fit {list(extents)}")
    every = (*extents, wide.shape[-1])
    noise = _gumbel(_key(key, "categorical"), every, wide.dtype)
    return ops.argmax(ops.add(_repeat(wide, every), noise), axis=len(every) - 1)


@array_function
def choice(
    key: Array, a: Array, shape: Shape = (), replace: bool = True, p: Array | None = None, axis: int = 0
) -> Value:
    """Slices of `a` along `axis`, or numbers below `a` when that is a Python int, drawn at random.

    `p` gives the probability of each, all the same by default. Without `replace` none is drawn twice.
    """
    k, extents = _key(key, "choice"), _shape(shape)
    v = None if isinstance(a, int) else value_of(a, what="random.choice")
    if v is not None and not v.rank:
        raise GraphTypeError(f"random.choice: a is {v.type}, which has no axis; a Python int n stands for range(n)")
    axis = 0 if v is None else normalize_axis(axis, v.rank, "random.choice")
    options: DimLike = a if v is None else v.shape[axis]
    places = _places(k, options, extents, replace, p)
    return places if v is None else ops.gather(v, places, axis=axis)


def _places(key: Value, options: DimLike, shape: tuple[DimLike, ...], replace: bool, p: Array | None) -> Value:
    if options == 0:
        raise GraphTypeError("random.choice: there is nothing to choose from")
    weights = None if p is None else value_of(p, what="random.choice: p")
    if weights is not None and (weights.shape != (options,) or not weights.dtype.is_float):
        raise GraphTypeError(f"random.choice: p is {weights.type}; {options} floats are needed, one a choice")
    count: Any = math.prod(shape)
    if not replace and isinstance(count, int) and isinstance(options, int) and count > options:
        raise GraphTypeError(f"random.choice: {count} different ones of {options} cannot be drawn; use replace=True")
    if replace:
        if weights is None:
            last = (
                options if isinstance(options, int) else ops.gather(ops.shape_of(_line(options)), np.int64(0), axis=0)
            )
            return randint(key, shape, 0, last)
        return categorical(key, ops.log(weights), shape=shape)
    if weights is None:
        order = _order(key, options)
    else:  # the largest of log p + Gumbel noise, as many as are wanted: Gumbel's trick for draws without replacement
        wide = weights if weights.dtype.bits >= 32 else ops.cast(weights, dtype=_FLOAT32)
        order = ops.sort(ops.add(ops.log(wide), _gumbel(key, (options,), wide.dtype)), axis=0, descending=True)[1]
    return ops.reshape(ops.slice(order, starts=(0,), stops=(count,), steps=(1,)), shape=shape)


def _line(count: DimLike) -> Value:
    return ops.iota(shape=(count,), axis=0, dtype=_INT64)


# --------------------------------------------------------------------------------------------------------------- helpers


def _shape(shape: Shape) -> tuple[DimLike, ...]:
    return shape_of_result("the shape of random numbers", shape)


def _float(dtype: Any, what: str) -> DType:
    wanted = dtype_of(dtype)
    if not wanted.is_float or wanted.bits < 16:
        raise GraphTypeError(f"random.{what}: dtype is {wanted}; a floating point type of 16 bits or more is needed")
    return wanted


def _plain(x: Array, dtype: DType, what: str) -> Value:
    """A parameter in the type that is computed with."""
    v = value_of(x, dtype.numpy, f"random.{what}")
    return v if v.dtype == dtype else ops.cast(v, dtype=dtype)


def _like(x: Array, dtype: DType, shape: tuple[DimLike, ...], what: str) -> Value:
    v = _plain(x, dtype, what)
    return _repeat(v, _drawn_shape(shape, [v], what))


def _repeat(v: Value, shape: tuple[DimLike, ...]) -> Value:
    return v if v.shape == shape else ops.broadcast_to(v, shape=shape)


def _drawn_shape(shape: Shape | None, parameters: Sequence[Value], what: str) -> tuple[DimLike, ...]:
    """The shape that was asked for, or the parameters' own. Raises GraphTypeError when they do not broadcast to it."""
    common = broadcast_shapes(*(v.shape for v in parameters), what=f"random.{what}")
    if shape is None:
        return common
    wanted = _shape(shape)
    if broadcast_shapes(common, wanted, what=f"random.{what}") != wanted:
        raise GraphTypeError(f"random.{what}: parameters of shape {list(common)} do not broadcast to {list(wanted)}")
    return wanted


def _narrow(v: Value, dtype: DType) -> Value:
    return v if v.dtype == dtype else ops.cast(v, dtype=dtype)
