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

__version__ = "0.1.0"

# Installed, frontends/, passes/ and runtime/ lie in this package. In a checkout they stand beside it: with this line
# `python -m graphc` and `python -m bench.compare` also work there, whatever is installed.
if not os.path.isdir(os.path.join(__path__[0], "runtime")):
    __path__.append(os.path.dirname(__path__[0]))

_PYTHON = "graphc.frontends.python"
#: where a public name lives; the array functions are listed by `graphc.frontends.python.api`
_HOME = {
    "compile": "graphc.api",
    "load": "graphc.api",
    "function": "graphc.api",
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
    raise AttributeError(f"module 'graphc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
