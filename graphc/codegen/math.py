"""Transcendental functions as expressions of plain arithmetic, so that they vectorise on every target.

Numba ships no vector math library, and a call a lane would cost more than the rest of a kernel. Each function here is
written once, without branches, over scalar expressions: for the CPU they become LLVM instructions on scalars or
vectors, for CUDA lines of the kernel.

Only multiplication followed by addition may be fused on the way, never reordered: range reductions count on it.
Errors are at most 2 units in the last place of float32 (tests measure them on a sample of every exponent, or on all
values), those of sin, cos and tan up to 2**26 in magnitude; only `gate_tanh` of recurrent layers may be 3 off. NaN gives
NaN, infinities their limits.

Coefficients are those of S. Moshier's Cephes library (single precision, public domain) unless a comment says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from graphc.ir.scalar import Scalar, bitcast, cast, const, scalar, select

__all__ = ["EXPANSIONS", "exp_nonpositive", "expansion"]

_LOG2E = 1.4426950408889634
# ln 2 in two parts; the first has few enough bits that its product with an exponent is exact
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
# 1.5 * 2**23: adding it rounds a float32 to an integer, which then stands in the low bits
_SHIFTER = 12582912.0
_SHIFTER_BITS = 0x4B400000
_SIGN_BIT = -0x80000000
_ONE_BITS = 0x3F800000  # of 1.0
# what pi / 2 is more than the float32 nearest to it
_HALF_PI_LOW = -4.371139000186241e-08


def _poly(x: Scalar, *coefficients: float) -> Scalar:
    """Horner's rule, highest power first."""
    total: Scalar = const(coefficients[0], x.dtype)
    for c in coefficients[1:]:
        total = total * x + c
    return total


def _abs(x: Scalar) -> Scalar:
    return scalar("abs", x)


def _with_sign(magnitude: Scalar, x: Scalar) -> Scalar:
    """A value that is not negative, with the sign of `x`."""
    sign = scalar("and", bitcast(x, "int32"), const(_SIGN_BIT, "int32"))
    return bitcast(scalar("or", bitcast(magnitude, "int32"), sign), "float32")


def _clamp(x: Scalar, low: float, high: float) -> Scalar:
    """`x` between two limits; NaN stays NaN, because no comparison with it holds."""
    x = select(x > high, const(high, x.dtype), x)
    return select(x < low, const(low, x.dtype), x)


def _round_to_int(x: Scalar) -> tuple[Scalar, Scalar]:
    """The nearest integer as a float32 and as an int32, for |x| < 2**22. NaN gives some integer."""
    shifted = x + _SHIFTER
    return shifted - _SHIFTER, bitcast(shifted, "int32") - _SHIFTER_BITS


def _power_of_two(n: Scalar) -> Scalar:
    """2**n for -126 <= n <= 127, n an int32."""
    return bitcast(scalar("shl", n + 127, const(23, "int32")), "float32")


def _scaled(x: Scalar, n: Scalar) -> Scalar:
    """x * 2**n in two steps, so that neither power leaves the range and a tiny result is rounded once."""
    half = scalar("shr", n, const(1, "int32"))
    return x * _power_of_two(half) * _power_of_two(n - half)


def _reduced_exp(x: Scalar) -> tuple[Scalar, Scalar]:
    """(r, n) with exp(x) = exp(r) * 2**n and |r| <= ln(2) / 2."""
    whole, n = _round_to_int(x * _LOG2E)
    return x - whole * _LN2_HIGH - whole * _LN2_LOW, n


def _exp_tail(r: Scalar) -> Scalar:
    """(exp(r) - 1 - r) / r**2 for |r| <= ln(2) / 2."""
    # a minimax fit of our own: relative error of exp(r) 4e-9
    return _poly(
        r, 0.0013814314734190702, 0.008368851616978645, 0.041668400168418884, 0.1666651964187622, 0.4999999403953552
    )


def exp(x: Scalar) -> Scalar:
    r, n = _reduced_exp(_clamp(x, -104.0, 89.0))
    return _scaled(_exp_tail(r) * (r * r) + r + 1.0, n)


def exp_nonpositive(x: Scalar) -> Scalar:
    """exp of what is not positive, as in a softmax, in two thirds of the instructions: one power of two is enough, and
    what would be below the normal numbers is 0."""
    return select(x < -87.0, 0.0, _exp_in_range(x))


def _exp_in_range(x: Scalar) -> Scalar:
    """exp for |x| <= 87, where one power of two is enough."""
    q, power = _exp_parts(x)
    return (q + 1.0) * power


def exp2(x: Scalar) -> Scalar:
    x = _clamp(x, -151.0, 129.0)
    whole, n = _round_to_int(x)
    r = (x - whole) * math.log(2.0)
    return _scaled(_exp_tail(r) * (r * r) + r + 1.0, n)


def expm1(x: Scalar) -> Scalar:
    clamped = _clamp(x, -25.0, 89.0)
    r, n = _reduced_exp(clamped)
    small = _exp_tail(r) * (r * r) + r
    half = scalar("shr", n, const(1, "int32"))
    # (small + 1) * 2**n - 1 without losing small when n is 0
    first, second = _power_of_two(half), _power_of_two(n - half)
    return select(_abs(x) < 1e-10, x, (first * small + (first - _power_of_two(half - n))) * second)


def _log_parts(x: Scalar) -> tuple[Scalar, Scalar]:
    """(f, e) with x = (1 + f) * 2**e and 1 + f between sqrt(1/2) and sqrt(2), for finite x > 0."""
    tiny = x < 1.17549435e-38
    x = select(tiny, x * 8388608.0, x)
    # counting exponents from sqrt(1/2) takes a single subtraction
    bits = bitcast(x, "int32") - 0x3F3504F3
    exponent = scalar("shr", bits, const(23, "int32"))
    mantissa = bitcast(scalar("and", bits, const(0x007FFFFF, "int32")) + 0x3F3504F3, "float32")
    return mantissa - 1.0, cast(exponent, "float32") - select(tiny, const(23.0, "float32"), 0.0)


def _log_tail(f: Scalar) -> Scalar:
    """log(1 + f) - f + f**2 / 2."""
    p = _poly(
        f, 7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
        2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
    )  # fmt: skip
    return f * (f * f) * p


def _log_limits(x: Scalar, result: Scalar) -> Scalar:
    """Logarithms of infinity, zero and negative numbers."""
    result = select(x < math.inf, result, x)  # NaN too: not less than anything
    result = select(scalar("eq", x, 0.0), const(-math.inf, x.dtype), result)
    return select(x < 0.0, const(math.nan, x.dtype), result)


def log(x: Scalar) -> Scalar:
    f, e = _log_parts(x)
    return _log_limits(x, e * _LN2_HIGH + (f - ((f * f) * 0.5 - (_log_tail(f) + e * _LN2_LOW))))


def log2(x: Scalar) -> Scalar:
    f, e = _log_parts(x)
    # log2(e) = 1 + 0.4427: the one is added last, so that f keeps its bits
    rest = _log_tail(f) - (f * f) * 0.5
    return _log_limits(x, e + (f + (rest + (rest * 0.44269504088896340735 + f * 0.44269504088896340735))))


def log1p(x: Scalar) -> Scalar:
    whole = x + 1.0
    lost = (x - (whole - 1.0)) / whole
    # at the ends nothing was lost, and the correction would be NaN
    return select(whole < math.inf, select(whole > 0.0, log(whole) + lost, log(whole)), log(whole))


def sigmoid(x: Scalar) -> Scalar:
    """1 / (1 + exp(-x)); where that sum leaves the range it is computed 2**64 times smaller, and so is the result."""
    far = x < -64.0
    scale = select(far, 2.0**-64, const(1.0, "float32"))
    lowered = select(far, const(_ONE_BITS - (64 << 23), "int32"), const(_ONE_BITS, "int32"))
    q, power = _exp_parts(_clamp(-x, -88.0, 104.0), lowered)
    return 1.0 / ((q * power + scale) + power) * scale


def tanh(x: Scalar) -> Scalar:
    square = x * x
    p = _poly(square, -5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)
    small = p * square * x + x
    magnitude = _abs(x)
    large = _with_sign(1.0 - 2.0 / (exp(magnitude + magnitude) + 1.0), x)
    return select(magnitude < 0.625, small, large)


def _exp_parts(x: Scalar, one: Scalar | None = None) -> tuple[Scalar, Scalar]:
    """(q, power) with exp(x) = (1 + q) * power for |x| <= 88, where one power of two is enough and is a normal number; with
    the bits of another power of two in place of `one`, that many times exp(x)."""
    shifted = x * _LOG2E + _SHIFTER
    whole = shifted - _SHIFTER
    r = x - whole * _LN2_HIGH - whole * _LN2_LOW
    # the shifter's own bits leave the word, so that n stands in the exponent
    n = scalar("shl", bitcast(shifted, "int32"), const(23, "int32"))
    return _exp_tail(r) * (r * r) + r, bitcast(n + (const(_ONE_BITS, "int32") if one is None else one), "float32")


def gate_sigmoid(x: Scalar) -> Scalar:
    """sigmoid in half of the instructions; results below all normal numbers are one such number."""
    q, power = _exp_parts(_clamp(-x, -88.0, 88.0))
    return 1.0 / ((q * power + 1.0) + power)


def gate_tanh(x: Scalar) -> Scalar:
    """tanh in two thirds of the instructions, within 3 units in the last place."""
    q, power = _exp_parts(_clamp(x + x, -20.0, 20.0))
    e = q * power + (power - 1.0)
    return e / (e + 2.0)


def erf(x: Scalar) -> Scalar:
    """N. Juffa's approximation (https://stackoverflow.com/a/35148199, BSD licence): 1 - exp(-polynomial), and a polynomial near 0."""
    t = _abs(x)
    t = select(t > 4.0, const(4.0, x.dtype), t)  # where it is 1; NaN stays
    square = t * t
    r = t * -1.72853470e-5 + 3.83197126e-4
    u = t * -3.88396438e-3 + 2.42546219e-2
    r = r * square + u
    r = ((r * t - 1.06777877e-1) * t - 6.34846687e-1) * t - 1.28717512e-1
    large = 1.0 - _exp_in_range(r * t - t)
    p = _poly(square, -5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1)
    return select(t > 0.927734375, _with_sign(large, x), p * x + x)


def _reduced_angle(x: Scalar) -> tuple[Scalar, Scalar]:
    """(r, n) with x = r + n * pi / 2 and |r| <= pi / 4, r in float64 and exact to 2**26 in magnitude, n an int32."""
    wide = cast(x, "float64")
    shifter = 6755399441055744.0  # 1.5 * 2**52
    shifted = wide * (2.0 / math.pi) + shifter
    whole = shifted - shifter
    # the first 26 bits of pi / 2, and the rest
    r = wide - whole * 1.5707963109016418 - whole * 1.5893254773528196e-08
    return r, cast(bitcast(shifted, "int64"), "int32")


def _sin_cos(r: Scalar) -> tuple[Scalar, Scalar]:
    """Sine and cosine for |r| <= pi / 4, exact enough for float32."""
    square = r * r
    sine = _poly(square, -1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1) * square * r + r
    cosine = (
        _poly(square, 2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2) * square * square
        - square * 0.5
        + 1.0
    )
    return sine, cosine


def _quadrant(r: Scalar, n: Scalar) -> Scalar:
    """sin(r + n * pi / 2)."""
    sine, cosine = _sin_cos(cast(r, "float32"))
    odd = scalar("ne", scalar("and", n, const(1, "int32")), 0)
    flip = scalar("shl", scalar("and", n, const(2, "int32")), const(30, "int32"))
    value = select(odd, cosine, sine)
    return bitcast(scalar("xor", bitcast(value, "int32"), flip), "float32")


def sin(x: Scalar) -> Scalar:
    r, n = _reduced_angle(x)
    return _quadrant(r, n)


def cos(x: Scalar) -> Scalar:
    r, n = _reduced_angle(x)
    return _quadrant(r, n + 1)


def tan(x: Scalar) -> Scalar:
    # a quotient of two rounded numbers would be too coarse
    r, n = _reduced_angle(x)
    sine, cosine = _sin_cos(r)
    odd = scalar("ne", scalar("and", n, const(1, "int32")), 0)
    return cast(select(odd, -cosine, sine) / select(odd, sine, cosine), "float32")


def _atan_tail(z: Scalar) -> Scalar:
    """(atan(y) - y) / y**3 of z = y**2 for |y| <= 1."""
    # a minimax fit of our own: relative error of atan(y) 1.7e-8
    return _poly(
        z, -0.001793589093722403, 0.010914460755884647, -0.03117757849395275, 0.057957325130701065, -0.08403434604406357,
        0.10952180624008179, -0.14264240860939026, 0.19998548924922943, -0.33333298563957214,
    )  # fmt: skip


def atan(x: Scalar) -> Scalar:
    t = _abs(x)
    far = t > 1.0
    y = select(far, 1.0 / t, t)
    tail = _atan_tail(y * y) * (y * y) * y
    return _with_sign(select(far, math.pi / 2 - (y + (tail - _HALF_PI_LOW)), y + tail), x)


def atan2(y: Scalar, x: Scalar) -> Scalar:
    big, small = _abs(x), _abs(y)
    swap = small > big
    big, small = select(swap, small, big), select(swap, big, small)
    # equal infinities and two zeros have quotients of their own
    ratio = select(scalar("eq", big, small), select(scalar("eq", big, 0.0), const(0.0, "float32"), 1.0), small / big)
    angle = atan(ratio)
    angle = select(swap, math.pi / 2 - angle, angle)
    angle = select(bitcast(x, "int32") < 0, math.pi - angle, angle)
    not_numbers = scalar("or", scalar("ne", x, x), scalar("ne", y, y))  # the comparisons above may have lost them
    return select(not_numbers, x + y, _with_sign(angle, y))


def _asin_tail(x: Scalar) -> Scalar:
    """asin(x) - x for 0 <= x <= 1/2."""
    z = x * x
    return _poly(z, 4.2163199048e-2, 2.4181311049e-2, 4.5470025998e-2, 7.4953002686e-2, 1.6666752422e-1) * z * x


def asin(x: Scalar) -> Scalar:
    t = _abs(x)
    large = t > 0.5
    reduced = select(large, scalar("sqrt", (1.0 - t) * 0.5), t)
    tail = _asin_tail(reduced)
    # pi / 2 - 2 * asin(reduced): what is large first, for that difference is exact
    rest = (math.pi / 2 - (reduced + reduced)) + (_HALF_PI_LOW - (tail + tail))
    return _with_sign(select(large, rest, tail + reduced), x)


def acos(x: Scalar) -> Scalar:
    t = _abs(x)
    large = t > 0.5
    reduced = select(large, scalar("sqrt", (1.0 - t) * 0.5), x)
    small = _asin_tail(reduced) + reduced
    double = small + small
    return select(large, select(x < 0.0, math.pi - double, double), math.pi / 2 - small)


def sinh(x: Scalar) -> Scalar:
    square = x * x
    near = _poly(square, 2.03721912945e-4, 8.33028376239e-3, 1.66667160211e-1) * square * x + x
    half = _half_exp(_abs(x))
    return select(_abs(x) < 1.0, near, _with_sign(half - 0.25 / half, x))


def cosh(x: Scalar) -> Scalar:
    half = _half_exp(_abs(x))
    return half + 0.25 / half


def _half_exp(x: Scalar) -> Scalar:
    """exp(x) / 2 for x >= 0, which overflows later than exp does."""
    r, n = _reduced_exp(select(x > 90.0, const(90.0, x.dtype), x))
    return _scaled(_exp_tail(r) * (r * r) + r + 1.0, n - 1)


def asinh(x: Scalar) -> Scalar:
    t = _abs(x)
    # for large t the square would overflow and adds nothing
    big = t > 1e9
    near = log1p(t + t * t / (scalar("sqrt", t * t + 1.0) + 1.0))
    far = log(t) + math.log(2.0)
    return _with_sign(select(big, far, near), x)


def acosh(x: Scalar) -> Scalar:
    t = x - 1.0
    near = log1p(t + scalar("sqrt", t * 2.0 + t * t))
    near = select(t < 0.0, const(math.nan, x.dtype), near)
    return select(x > 1e9, log(x) + math.log(2.0), near)


def atanh(x: Scalar) -> Scalar:
    t = _abs(x)
    z = t * t
    # a minimax fit of our own: relative error 5e-9
    tail = _poly(
        z, 0.1766912341117859, 0.05135820806026459, 0.11823730915784836, 0.14222761988639832, 0.20002518594264984,
        0.33333301544189453,
    )  # fmt: skip
    return _with_sign(select(t < 0.5, tail * z * t + t, log1p((t + t) / (1.0 - t)) * 0.5), x)


def power(x: Scalar, y: Scalar) -> Scalar:
    """x**y as 2**(y * log2|x|) in float64, whose spare bits keep the product exact enough; then C's special cases."""
    magnitude = _abs(x)
    f, e = _log_parts(magnitude)
    wide = cast(f, "float64")
    s = wide / (wide + 2.0)
    # log(1 + f) = 2 artanh(s), whose series needs seven terms for |s| <= 0.172
    series = _poly(s * s, *(1 / k for k in range(13, 0, -2)))
    log = s * series * (2.0 / math.log(2.0)) + cast(e, "float64")
    finite = select(scalar("eq", magnitude, 0.0), const(-math.inf, "float64"), log)
    t = _clamp(cast(y, "float64") * select(magnitude < math.inf, finite, cast(magnitude, "float64")), -200.0, 200.0)
    shifter = 6755399441055744.0
    whole = (t + shifter) - shifter
    r = (t - whole) * math.log(2.0)
    p = _poly(r, *(1 / math.factorial(k) for k in range(8, -1, -1)))
    result = _scaled(cast(p, "float32"), _round_to_int(cast(whole, "float32"))[1])

    half = y * 0.5
    integral = scalar("eq", scalar("floor", y), y)
    odd = scalar("and", integral, scalar("ne", scalar("floor", half), half))
    result = select(odd, _with_sign(result, x), result)
    undefined = scalar("and", scalar("and", x < 0.0, x > -math.inf), scalar("eq", integral, const(False, "bool")))
    result = select(undefined, const(math.nan, "float32"), result)
    endless = scalar("eq", _abs(y), math.inf)
    one = scalar("or", scalar("eq", x, 1.0), scalar("eq", y, 0.0))
    one = scalar("or", one, scalar("and", scalar("eq", x, -1.0), endless))
    return select(one, const(1.0, "float32"), result)


def sign(x: Scalar) -> Scalar:
    return select(x > 0.0, const(1.0, x.dtype), select(x < 0.0, const(-1.0, x.dtype), x))


def rsqrt(x: Scalar) -> Scalar:
    return 1.0 / scalar("sqrt", x)


def reciprocal(x: Scalar) -> Scalar:
    return 1.0 / x


def _sigmoid_any(x: Scalar) -> Scalar:
    e = scalar("exp", -_abs(x))
    return select(x < 0.0, e, 1.0) / (e + 1.0)


#: functions of float32 (of any float type for the last few) by the scalar operation's name
EXPANSIONS: Mapping[str, Callable[..., Scalar]] = {
    f.__name__: f
    for f in (
        exp, exp2, expm1, log, log2, log1p, sigmoid, gate_sigmoid, tanh, gate_tanh, erf, sin, cos, tan, asin, acos, atan, atan2, sinh, cosh, asinh, acosh, atanh,
    )
} | {"pow": power}  # fmt: skip
_ANY_FLOAT: Mapping[str, Callable[..., Scalar]] = {
    "sign": sign,
    "rsqrt": rsqrt,
    "reciprocal": reciprocal,
    "sigmoid": _sigmoid_any,
    "gate_sigmoid": _sigmoid_any,
    "gate_tanh": lambda x: scalar("tanh", x),
}


def expansion(op: str, *args: Scalar) -> Scalar | None:
    """The operation on `args` (float32 or float64) as plain arithmetic; None when a target has to bring its own."""
    if args[0].dtype.name == "float32" and op in EXPANSIONS:
        return EXPANSIONS[op](*args)
    return _ANY_FLOAT[op](*args) if op in _ANY_FLOAT else None
