"""Kernels as numba-cuda source: `source(kernel)` prints loop nests and products. Importing this does not import Numba.

A CUDA kernel takes its operands as one-dimensional arrays and its integers as arguments, in the order of a launch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from graphc.codegen.cpu import KernelSource
from graphc.codegen.cuda.loops import cuda_loop_source, loop_grid
from graphc.codegen.cuda.product import ProductKernel, product_grid, product_source
from graphc.errors import CompileError
from graphc.kernels.ir import Kernel, LoopNest

__all__ = ["THREADS", "KernelSource", "ProductKernel", "launch_shape", "source"]

#: threads in a block of a loop nest
THREADS = 256


def source(kernel: Kernel, threads: int = THREADS) -> KernelSource:
    """The kernel as text, for blocks of `threads` threads (a power of two).

    Raises CompileError for a kernel that has no CUDA form.
    """
    if isinstance(kernel, LoopNest):
        text = cuda_loop_source(kernel, "kernel", threads)
    elif isinstance(kernel, ProductKernel):
        text = product_source(kernel, "kernel")
    else:
        raise CompileError(f"no CUDA source for kernels of kind {type(kernel).__name__}")
    name = f"{kernel.family}_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return KernelSource(name, text.replace("def kernel(", f"def {name}("))


def launch_shape(
    kernel: Kernel, integers: Sequence[int], threads: int = THREADS
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """The grid and the block that a launch with these integers needs."""
    if isinstance(kernel, LoopNest):
        return loop_grid(kernel, integers, threads), (threads, 1, 1)
    if isinstance(kernel, ProductKernel):
        return product_grid(kernel, integers)
    raise CompileError(f"no CUDA form of kernels of kind {type(kernel).__name__}")
