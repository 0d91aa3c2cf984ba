"""Random numbers from an explicit key: the same key and shape give the same numbers on every target and thread count.

A key is uint32[2]. `random_bits` enciphers each element's position with it (Threefry-2x32, 20 rounds: Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", SC 2011), so elements are independent of each other and nothing is
carried from one to the next. Never use a key twice; `split_key` makes new ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.errors import GraphTypeError
from graphc.ir import scalar as s
from graphc.ir.dims import DimLike, product
from graphc.ir.dtypes import DType, dtype_of
from graphc.ir.graph import Value
from graphc.ir.scalar import Scalar
from graphc.ir.types import TensorType
from graphc.ops.batching import leading
from graphc.ops.elementwise import add, cast, cos, log, lt, mul, shift_right, sqrt, sub
from graphc.ops.injective import reshape, slice_, tensor_operand
from graphc.ops.spec import Kind, OpSpec, Reader, Sample, expect, register

__all__ = ["bernoulli", "make_key", "normal", "random_bits", "split_key", "threefry2x32", "uniform", "unit"]

UINT32 = dtype_of("uint32")
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry2x32(
    k0: Any, k1: Any, x0: Any, x1: Any, rotate: Callable[[Any, int], Any], number: Callable[[int], Any]
) -> tuple[Any, Any]:
    """Encipher the counter (x0, x1) with the key (k0, k1); all uint32, arrays or scalar expressions.

    `rotate(x, n)` rotates left by n bits and `number` makes a constant. `+` must wrap around, `^` be exclusive or.
    """
    keys = (k0, k1, k0 ^ k1 ^ number(0x1BD11BDA))
    x0, x1 = x0 + keys[0], x1 + keys[1]
    for block in range(5):
        for n in _ROTATIONS[block % 2]:
            x0 = x0 + x1
            x1 = rotate(x1, n) ^ x0
        x0 = x0 + keys[(block + 1) % 3]
        x1 = x1 + keys[(block + 2) % 3] + number(block + 1)
    return x0, x1


def _bits_type(key: TensorType, *, shape: tuple[DimLike, ...]) -> TensorType:
    tensor_operand("random_bits", 0, key)
    expect(
        key.dtype == UINT32 and key.rank >= 1 and key.shape[-1] == 2,
        f"random_bits: the key is {key}, uint32[2] is needed",
    )
    return TensorType(UINT32, (*key.shape[:-1], *shape))


def _bits_reference(key: np.ndarray, *, shape: tuple[int, ...]) -> np.ndarray:
    count = np.arange(math.prod(shape), dtype=np.uint64)
    key = np.asarray(key, np.uint32)
    k0, k1 = key[..., :1], key[..., 1:]

    def rotate(x: np.ndarray, n: int) -> np.ndarray:
        return (x << np.uint32(n)) | (x >> np.uint32(32 - n))

    with np.errstate(over="ignore"):
        high, low = (count >> np.uint64(32)).astype(np.uint32), count.astype(np.uint32)
        words = threefry2x32(k0, k1, high, low, rotate, np.uint32)[0]
    return np.asarray(words.reshape((*key.shape[:-1], *shape)))


class _Word:
    """A uint32 expression with the operators that threefry2x32 needs."""

    def __init__(self, e: Scalar) -> None:
        self.e = e

    def __add__(self, other: _Word) -> _Word:
        return _Word(self.e + other.e)

    def __xor__(self, other: _Word) -> _Word:
        return _Word(s.scalar("xor", self.e, other.e))


def _bits_compute(
    result: TensorType, readers: Sequence[Reader], index: Sequence[Scalar], *, shape: tuple[int, ...]
) -> Scalar:
    cases = len(index) - len(shape)
    flat: Scalar = s.const(0)
    for i, extent in zip(index[cases:], shape, strict=True):
        flat = flat * extent + i
    small = product(shape) <= 2**32  # type: ignore[operator]
    high = s.const(0, UINT32) if small else s.cast(s.scalar("shr", flat, 32), UINT32)

    def rotate(x: _Word, n: int) -> _Word:
        return _Word(s.scalar("or", s.scalar("shl", x.e, n), s.scalar("shr", x.e, 32 - n)))

    k0, k1 = (_Word(readers[0](*index[:cases], s.const(k))) for k in (0, 1))
    words = threefry2x32(k0, k1, _Word(high), _Word(s.cast(flat, UINT32)), rotate, lambda n: _Word(s.const(n, UINT32)))
    return words[0].e


random_bits = register(
    OpSpec(
        name="random_bits",
        kind=Kind.INJECTIVE,
        summary=(
            "32 random bits an element from a key (uint32[2]): Threefry-2x32 of the element's position. Of keys "
            "uint32[..., 2], `shape` bits each."
        ),
        infer=_bits_type,
        reference=_bits_reference,
        compute=_bits_compute,
        no_gradient="its result is random bits",
        batch=leading(),
        samples=lambda: [
            Sample((np.array([1, 2], np.uint32),), {"shape": (3, 5)}),
            Sample((np.array([0, 0xFFFFFFFF], np.uint32),), {"shape": (7,)}),
            Sample((np.array([5, 6], np.uint32),), {"shape": ()}),
            Sample((np.array([5, 6], np.uint32),), {"shape": (0, 2)}),
            Sample((np.arange(12, dtype=np.uint32).reshape(3, 2, 2),), {"shape": (2, 3)}),
        ],
    )
)


def make_key(seed: int) -> np.ndarray:
    """A key (uint32[2]) from an integer."""
    return np.array([seed >> 32 & 0xFFFFFFFF, seed & 0xFFFFFFFF], np.uint32)


def split_key(key: Value, count: int = 2) -> tuple[Value, ...]:
    """`count` new keys; the old one must not be used again."""
    words = random_bits(key, shape=(count, 2))
    return tuple(
        reshape(slice_(words, starts=(k, 0), stops=(k + 1, 2), steps=(1, 1)), shape=(2,)) for k in range(count)
    )


def unit(key: Value, shape: Sequence[DimLike], dtype: DType) -> Value:
    """Uniform numbers in [0, 1): multiples of 2**-24, or of 2**-53 for float64. Each is exact."""
    shape = tuple(shape)
    if dtype.bits < 64:
        return mul(cast(shift_right(random_bits(key, shape=shape), 8), dtype=dtype_of("float32")), 2.0**-24)
    high, low = (random_bits(k, shape=shape) for k in split_key(key))
    high, low = (cast(shift_right(v, n), dtype=dtype) for v, n in ((high, 5), (low, 6)))
    return mul(add(mul(high, 2.0**26), low), 2.0**-53)


def uniform(
    key: Value, shape: Sequence[DimLike], *, low: float = 0.0, high: float = 1.0, dtype: DType | None = None
) -> Value:
    """Uniform numbers in [low, high) (float32 by default). Raises GraphTypeError for a type that is not float."""
    wanted = _float(dtype)
    drawn = unit(key, shape, wanted)
    scaled = drawn if (low, high) == (0.0, 1.0) else add(mul(drawn, high - low), low)
    return scaled if scaled.dtype == wanted else cast(scaled, dtype=wanted)


def normal(
    key: Value, shape: Sequence[DimLike], *, mean: float = 0.0, scale: float = 1.0, dtype: DType | None = None
) -> Value:
    """Normally distributed numbers (float32 by default), by the transform of Box and Muller."""
    wanted = _float(dtype)
    for_radius, for_angle = split_key(key)
    radius = sqrt(mul(log(sub(1.0, unit(for_radius, shape, wanted))), -2.0))
    drawn = mul(radius, cos(mul(unit(for_angle, shape, wanted), 2 * math.pi)))
    scaled = add(mul(drawn, scale), mean) if (mean, scale) != (0.0, 1.0) else drawn
    return scaled if scaled.dtype == wanted else cast(scaled, dtype=wanted)


def bernoulli(key: Value, probability: Value) -> Value:
    """True with the given probability, element by element."""
    wide = probability if probability.dtype.bits >= 32 else cast(probability, dtype=dtype_of("float32"))
    return lt(unit(key, wide.shape, wide.dtype), wide)


def _float(dtype: DType | None) -> DType:
    if dtype is not None and not dtype.is_float:
        raise GraphTypeError(f"random numbers of type {dtype} were asked for; a float type is needed")
    return dtype or dtype_of("float32")
