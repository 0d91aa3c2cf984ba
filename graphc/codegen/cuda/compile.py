"""CUDA source text to PTX, through numba-cuda. Needs the extra `cuda` (the nvvm and nvrtc wheels), and no GPU."""

from __future__ import annotations

from typing import Any

from graphc.codegen.cpu import KernelSource
from graphc.codegen.cuda.product import ProductKernel
from graphc.errors import CompileError
from graphc.ir.dtypes import DType
from graphc.kernels.ir import Kernel, LoopNest

__all__ = ["compile_ptx", "define"]


def define(source: KernelSource) -> Any:
    """The Python function that a text defines. Raises CompileError when the text does not run."""
    scope: dict[str, Any] = {"__name__": f"graphc.generated.{source.name}"}
    try:
        exec(compile(source.text, f"<graphc cuda kernel {source.name}>", "exec"), scope)
    except Exception as error:
        raise CompileError(f"the source text of CUDA kernel {source.name!r} does not run: {error!r}") from error
    return scope[source.name]


def compile_ptx(kernel: Kernel, source: KernelSource, capability: tuple[int, int] = (8, 0)) -> str:
    """The PTX of a kernel for a compute capability: (8, 0) is sm_80, (9, 0) is sm_90.

    Raises CompileError when numba-cuda is not installed or refuses the text.
    """
    try:
        from numba import cuda, types
    except ImportError as error:
        raise CompileError(f"PTX needs numba-cuda: pip install graphc[cuda] ({error})") from error

    def array(dtype: DType) -> Any:
        return types.Array(types.boolean if dtype.kind == "bool" else getattr(types, dtype.name), 1, "C")

    if isinstance(kernel, LoopNest):
        signature = (*map(array, kernel.buffers), *[types.int64] * kernel.params)
    elif isinstance(kernel, ProductKernel):
        signature = (*[array(kernel.dtype)] * 3, *[types.int64] * 13)
    else:
        raise CompileError(f"no CUDA form of kernels of kind {type(kernel).__name__}")
    try:
        ptx, _ = cuda.compile_ptx(define(source), signature, cc=capability)
    except Exception as error:
        raise CompileError(f"numba-cuda cannot compile kernel {source.name!r}: {error}") from error
    return str(ptx)
