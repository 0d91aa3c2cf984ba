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
    from graphc import backend
    from graphc.api import compile, load
    from graphc.ir.graph import Graph
    from graphc.runtime.executable import Executable

__version__ = "0.1.0"

# Installed, frontends/, passes/ and runtime/ lie in this package. In a checkout they stand beside it: with this line
# `python -m graphc` and `python -m bench.compare` also work there, whatever is installed.
if not os.path.isdir(os.path.join(__path__[0], "runtime")):
    __path__.append(os.path.dirname(__path__[0]))

_HOME = {
    "compile": "graphc.api",
    "load": "graphc.api",
    "Graph": "graphc.ir.graph",
    "Executable": "graphc.runtime.executable",
}

__all__ = ["Executable", "Graph", "backend", "compile", "load"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    if name == "backend":
        return import_module("graphc.backend")
    raise AttributeError(f"module 'graphc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
