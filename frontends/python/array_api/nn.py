"""Activations and what networks are made of, under the names of PyTorch and `jax.nn`; not in the array API standard."""

from __future__ import annotations

from typing import Any

from graphc import ops
from graphc.frontends.python.array_api.operands import axis_of, dtype_or, elementwise, operand
from graphc.frontends.python.functions import Array, array_function, promoted
from graphc.frontends.python.promotion import DEFAULTS
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Value, constant
from graphc.ops import functions

__all__ = [
    "elu", "erf", "gelu", "hard_sigmoid", "hard_swish", "leaky_relu", "log_sigmoid", "log_softmax", "mish",
    "one_hot", "relu", "relu6", "rsqrt", "selu", "sigmoid", "silu", "softmax", "softplus", "softsign",
]  # fmt: skip


_INT64 = dtype_of("int64")


def _activation(name: str, compute: Any, x: Array) -> Value:
    return elementwise(name, compute, x, accepts=("float",), floating=True)


@array_function
def relu(x: Array, /) -> Array:
    """max(x, 0); the derivative at 0 is 0."""
    return elementwise("relu", ops.relu, x, accepts=("int", "float"))


@array_function
def relu6(x: Array, /) -> Array:
    """min(max(x, 0), 6); the derivative at 0 and at 6 is 0."""
    return _activation("relu6", functions.relu6, x)


@array_function
def leaky_relu(x: Array, /, negative_slope: float = 0.01) -> Array:
    """x, negative_slope * x below zero."""
    return _activation("leaky_relu", lambda v: functions.leaky_relu(v, alpha=negative_slope), x)


@array_function
def elu(x: Array, /, alpha: float = 1.0) -> Array:
    """x, alpha * (exp(x) - 1) below zero."""
    return _activation("elu", lambda v: functions.elu(v, alpha=alpha), x)


@array_function
def selu(x: Array, /) -> Array:
    """The self-normalising scaled elu of Klambauer et al. (2017)."""
    return _activation("selu", functions.selu, x)


@array_function
def gelu(x: Array, /, approximate: str = "none") -> Array:
    """x times the normal distribution function of x; "tanh" approximates that function (PyTorch's argument)."""
    return _activation("gelu", lambda v: functions.gelu(v, approximate=approximate), x)


@array_function
def silu(x: Array, /) -> Array:
    """x * sigmoid(x), also called swish."""
    return _activation("silu", functions.swish, x)


@array_function
def mish(x: Array, /) -> Array:
    """x * tanh(softplus(x))."""
    return _activation("mish", functions.mish, x)


@array_function
def hard_sigmoid(x: Array, /) -> Array:
    """min(max(x / 6 + 1/2, 0), 1), as PyTorch has it; the derivative at -3 and at 3 is 0."""
    return _activation("hard_sigmoid", lambda v: functions.hard_sigmoid(v, alpha=1 / 6, beta=0.5), x)


@array_function
def hard_swish(x: Array, /) -> Array:
    """x * hard_sigmoid(x)."""
    return _activation("hard_swish", functions.hard_swish, x)


@array_function
def sigmoid(x: Array, /) -> Array:
    """1 / (1 + exp(-x))."""
    return _activation("sigmoid", ops.sigmoid, x)


@array_function
def log_sigmoid(x: Array, /) -> Array:
    """log(sigmoid(x)), accurate where the sigmoid underflows."""
    return _activation("log_sigmoid", lambda v: ops.neg(ops.softplus(ops.neg(v))), x)


@array_function
def softplus(x: Array, /) -> Array:
    """log(1 + exp(x)), without overflow."""
    return _activation("softplus", ops.softplus, x)


@array_function
def softsign(x: Array, /) -> Array:
    """x / (1 + |x|)."""
    return _activation("softsign", functions.softsign, x)


@array_function
def erf(x: Array, /) -> Array:
    """The error function."""
    return _activation("erf", ops.erf, x)


@array_function
def rsqrt(x: Array, /) -> Array:
    """1 / sqrt(x)."""
    return _activation("rsqrt", ops.rsqrt, x)


@array_function
def softmax(x: Array, /, axis: int = -1) -> Array:
    """exp(x) / sum(exp(x)) along `axis`, without overflow."""
    (v,) = promoted("softmax", x)
    return functions.softmax(v, axis=axis_of("softmax", axis, v.rank))


@array_function
def log_softmax(x: Array, /, axis: int = -1) -> Array:
    """log(softmax(x)) along `axis`, accurate where the softmax underflows."""
    (v,) = promoted("log_softmax", x)
    return functions.log_softmax(v, axis=axis_of("log_softmax", axis, v.rank))


@array_function
def one_hot(x: Array, num_classes: int, /, *, axis: int = -1, dtype: Any = None) -> Array:
    """1 where the new axis's index equals the element of x, else 0; all 0 for an element out of range."""
    v = operand("one_hot", x)
    wanted = dtype_or(dtype, DEFAULTS["float"])
    on, off = (constant(n, wanted) for n in (1, 0))
    at = axis_of("one_hot", axis, v.rank + 1)
    shape = (*v.shape[:at], num_classes, *v.shape[at:])
    places = functions.unsqueeze(ops.cast(v, dtype=_INT64), (at,))
    return ops.select(ops.eq(ops.iota(shape=shape, axis=at, dtype=_INT64), places), on, off)
