"""What CUDA kernels call: CUDA's libdevice on the device, NumPy in Numba's simulator.

Every name carries the element type that it works on. Kernels import this module; it needs numba-cuda.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import boolean, cuda, float32, float64, int8, int16, int32, int64, uint8, uint16, uint32, uint64
from numba.core import config

__all__ = [
    "boolean", "cuda", "float32", "float64", "inf", "int8", "int16", "int32", "int64", "nan", "uint8", "uint16", "uint32", "uint64",
]  # fmt: skip

inf, nan = math.inf, math.nan

#: NumPy's name, libdevice's names for float32 and float64
_FUNCTIONS = [
    ("absolute", "fabsf", "fabs"), ("floor", "floorf", "floor"), ("ceil", "ceilf", "ceil"), ("trunc", "truncf", "trunc"),
    ("rint", "rintf", "rint"), ("sqrt", "fsqrt_rn", "dsqrt_rn"), ("fmod", "fmodf", "fmod"), ("power", "powf", "pow"),
    ("exp", "expf", "exp"), ("expm1", "expm1f", "expm1"), ("log", "logf", "log"), ("log2", "log2f", "log2"), ("log1p", "log1pf", "log1p"),
    ("sin", "sinf", "sin"), ("cos", "cosf", "cos"), ("tan", "tanf", "tan"), ("arcsin", "asinf", "asin"), ("arccos", "acosf", "acos"),
    ("arctan", "atanf", "atan"), ("arctan2", "atan2f", "atan2"), ("sinh", "sinhf", "sinh"), ("cosh", "coshf", "cosh"),
    ("tanh", "tanhf", "tanh"), ("arcsinh", "asinhf", "asinh"), ("arccosh", "acoshf", "acosh"), ("arctanh", "atanhf", "atanh"),
]  # fmt: skip
_BITS = [
    ("bits_int32", "float_as_int", np.int32), ("bits_float32", "int_as_float", np.float32),
    ("bits_int64", "double_as_longlong", np.int64), ("bits_float64", "longlong_as_double", np.float64),
]  # fmt: skip


def _simulated() -> dict[str, Any]:
    names: dict[str, Any] = {
        f"{name}_{t}": getattr(np, name) for name, _, _ in _FUNCTIONS for t in ("float32", "float64")
    }
    names |= {name: lambda x, t=t: x.view(t) for name, _, t in _BITS}
    return names | {f"erf_{t}": lambda x, t=t: np.dtype(t).type(math.erf(x)) for t in ("float32", "float64")}


def _device() -> dict[str, Any]:
    names = {f"{name}_float32": getattr(cuda.libdevice, single) for name, single, _ in _FUNCTIONS}
    names |= {f"{name}_float64": getattr(cuda.libdevice, double) for name, _, double in _FUNCTIONS}
    names |= {name: getattr(cuda.libdevice, function) for name, function, _ in _BITS}
    return names | {"erf_float32": cuda.libdevice.erff, "erf_float64": cuda.libdevice.erf}


globals().update(_simulated() if config.ENABLE_CUDASIM else _device())
