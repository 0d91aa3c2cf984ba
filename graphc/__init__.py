"""graphc: a compiler for neural networks.

    exe = graphc.compile("model.onnx")
    exe.run(None, {"x": x})

Names are imported when they are first used, so that `import graphc` costs nothing and a warm run never loads Numba.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphc import backend as backend
    from graphc.api import compile as compile
    from graphc.api import function as function
    from graphc.api import load as load
    from graphc.frontends.python import random as random
    from graphc.frontends.python.array_api.creation import *  # noqa: F403
    from graphc.frontends.python.array_api.dtypes import *  # noqa: F403
    from graphc.frontends.python.array_api.elementwise import *  # noqa: F403
    from graphc.frontends.python.array_api.indexing import *  # noqa: F403
    from graphc.frontends.python.array_api.linalg import *  # noqa: F403
    from graphc.frontends.python.array_api.manipulation import *  # noqa: F403
    from graphc.frontends.python.array_api.nn import *  # noqa: F403
    from graphc.frontends.python.array_api.numpy_names import *  # noqa: F403
    from graphc.frontends.python.array_api.searching import *  # noqa: F403
    from graphc.frontends.python.array_api.statistical import *  # noqa: F403
    from graphc.frontends.python.control import checkpoint as checkpoint
    from graphc.frontends.python.control import cond as cond
    from graphc.frontends.python.control import custom_vjp as custom_vjp
    from graphc.frontends.python.control import fori_loop as fori_loop
    from graphc.frontends.python.control import scan as scan
    from graphc.frontends.python.control import while_loop as while_loop
    from graphc.frontends.python.debug import debug_nans as debug_nans
    from graphc.frontends.python.differentiate import grad as grad
    from graphc.frontends.python.differentiate import hessian_vector_product as hessian_vector_product
    from graphc.frontends.python.differentiate import jvp as jvp
    from graphc.frontends.python.differentiate import value_and_grad as value_and_grad
    from graphc.frontends.python.differentiate import vjp as vjp
    from graphc.frontends.python.jacobian import hessian as hessian
    from graphc.frontends.python.jacobian import jacfwd as jacfwd
    from graphc.frontends.python.jacobian import jacrev as jacrev
    from graphc.frontends.python.jacobian import linearize as linearize
    from graphc.frontends.python.tensor import Tensor as Tensor
    from graphc.frontends.python.trace import spec as spec
    from graphc.frontends.python.trace import trace as trace
    from graphc.frontends.python.vectorise import vmap as vmap
    from graphc.ir.graph import Graph as Graph
    from graphc.runtime.executable import Executable as Executable
    from graphc.saving import export as export
    from graphc.saving import to_onnx as to_onnx

__version__ = "0.1.0"
#: of the standard that the array functions follow
__array_api_version__ = "2024.12"

# Installed, frontends/, passes/ and runtime/ lie in this package. In a checkout they stand beside it: with this line
# `python -m graphc` and `python -m bench.compare` also work there, whatever is installed.
if not os.path.isdir(os.path.join(__path__[0], "runtime")):  # noqa: F405
    __path__.append(os.path.dirname(__path__[0]))  # noqa: F405

_PYTHON = "graphc.frontends.python"
#: the array functions, by the module of `graphc.frontends.python.array_api`: its `__all__`, as a test holds
_ARRAY_FUNCTIONS = {
    "creation": (
        "arange asarray empty empty_like eye from_dlpack full full_like linspace meshgrid ones ones_like tril "
        "triu zeros zeros_like"
    ),
    "dtypes": (
        "__array_namespace_info__ astype bfloat16 bool broadcast_arrays broadcast_to can_cast complex64 "
        "complex128 e finfo float16 float32 float64 iinfo inf int8 int16 int32 int64 isdtype nan newaxis pi "
        "result_type uint8 uint16 uint32 uint64"
    ),
    "elementwise": (
        "abs acos acosh add asin asinh atan atan2 atanh bitwise_and bitwise_invert bitwise_left_shift bitwise_or "
        "bitwise_right_shift bitwise_xor ceil clip conj copysign cos cosh divide equal exp exp2 expm1 floor "
        "floor_divide fmod greater greater_equal hypot imag isfinite isinf isnan less less_equal log log1p log2 "
        "log10 logaddexp logical_and logical_not logical_or logical_xor maximum minimum multiply negative "
        "nextafter not_equal positive pow real reciprocal remainder round sign signbit sin sinh sqrt square "
        "stop_gradient subtract tan tanh trunc"
    ),
    "indexing": "at take take_along_axis",
    "linalg": "diagonal dot einsum inner matmul matrix_transpose norm outer tensordot trace_of vecdot",
    "manipulation": (
        "concat expand_dims flip moveaxis pad permute_dims ravel repeat reshape roll split squeeze stack swapaxes "
        "tile unstack"
    ),
    "nn": (
        "elu erf gelu hard_sigmoid hard_swish leaky_relu log_sigmoid log_softmax mish one_hot relu relu6 rsqrt "
        "selu sigmoid silu softmax softplus softsign"
    ),
    "numpy_names": "absolute concatenate cumprod cumsum power transpose",
    "searching": (
        "argmax argmin argsort count_nonzero nonzero searchsorted sort top_k unique_all unique_counts "
        "unique_inverse unique_values where"
    ),
    "statistical": "all any cumulative_prod cumulative_sum diff logsumexp max mean min prod std sum var",
}
#: where every other public name lives
_HOME = {
    "compile": "graphc.api",
    "load": "graphc.api",
    "function": "graphc.api",
    "export": "graphc.saving",
    "to_onnx": "graphc.saving",
    "Graph": "graphc.ir.graph",
    "Executable": "graphc.runtime.executable",
    "Tensor": f"{_PYTHON}.tensor",
    "spec": f"{_PYTHON}.trace",
    "trace": f"{_PYTHON}.trace",
    "grad": f"{_PYTHON}.differentiate",
    "value_and_grad": f"{_PYTHON}.differentiate",
    "vjp": f"{_PYTHON}.differentiate",
    "jvp": f"{_PYTHON}.differentiate",
    "hessian_vector_product": f"{_PYTHON}.differentiate",
    "hessian": f"{_PYTHON}.jacobian",
    "jacfwd": f"{_PYTHON}.jacobian",
    "jacrev": f"{_PYTHON}.jacobian",
    "linearize": f"{_PYTHON}.jacobian",
    "vmap": f"{_PYTHON}.vectorise",
    "checkpoint": f"{_PYTHON}.control",
    "cond": f"{_PYTHON}.control",
    "custom_vjp": f"{_PYTHON}.control",
    "fori_loop": f"{_PYTHON}.control",
    "scan": f"{_PYTHON}.control",
    "while_loop": f"{_PYTHON}.control",
    "debug_nans": f"{_PYTHON}.debug",
}

_HOME |= {n: f"{_PYTHON}.array_api.{module}" for module, names in _ARRAY_FUNCTIONS.items() for n in names.split()}

#: public names that are modules
_MODULES = {"backend": "graphc.backend", "random": f"{_PYTHON}.random"}

__all__ = [*_HOME, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return import_module(_MODULES[name])
    hint = ""
    if not name.startswith("_"):
        from difflib import get_close_matches

        close = get_close_matches(name, __all__, n=1, cutoff=0.75)
        hint = f"; did you mean graphc.{close[0]}?" if close else ""
    # with a name and no object, Python adds no guess of its own
    raise AttributeError(f"module 'graphc' has no attribute {name!r}{hint}", name=name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
