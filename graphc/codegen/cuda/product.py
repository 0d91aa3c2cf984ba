"""The plain matrix product on CUDA: squares of both operands in shared memory, one result a thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.errors import CompileError
from graphc.ir.dims import ceil_div
from graphc.ir.dtypes import DType

__all__ = ["ProductKernel", "product_grid", "product_source"]


@dataclass(frozen=True)
class ProductKernel:
    """c[b, i, j] = sum over l of a[b, i, l] * c[b, l, j], for any strides; squares of `tile` x `tile` elements.

    Operands a, b, c; integers batches, m, n, k, then the strides of a, b and c: batch, row, column.
    """

    dtype: DType
    tile: int = 16

    @property
    def family(self) -> str:
        return "product"


def product_grid(kernel: ProductKernel, integers: Sequence[int]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Grid and block: blocks in x go along columns, in y along rows, in z through the batch."""
    batches, m, n = integers[:3]
    side = kernel.tile
    return (max(1, ceil_div(n, side)), max(1, ceil_div(m, side)), max(1, min(batches, 65535))), (side, side, 1)


_SOURCE = '''\
"""c = a @ b in {dtype}, by squares of {tile} x {tile} elements in shared memory."""

from graphc.codegen.cuda.primitives import cuda, {dtype}


def {name}(
    a, b, c, batches, m, n, k,
    a_batch, a_row, a_column, b_batch, b_row, b_column, c_batch, c_row, c_column,
):
    square_a = cuda.shared.array(({tile}, {tile}), {dtype})
    square_b = cuda.shared.array(({tile}, {tile}), {dtype})
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    row, column = cuda.blockIdx.y * {tile} + y, cuda.blockIdx.x * {tile} + x
    for batch in range(cuda.blockIdx.z, batches, cuda.gridDim.z):
        total = {dtype}(0)
        for start in range(0, k, {tile}):
            square_a[y, x] = {dtype}(0)
            square_b[y, x] = {dtype}(0)
            if row < m and start + x < k:
                square_a[y, x] = a[batch * a_batch + row * a_row + (start + x) * a_column]
            if start + y < k and column < n:
                square_b[y, x] = b[batch * b_batch + (start + y) * b_row + column * b_column]
            cuda.syncthreads()
            for l in range({tile}):
                total = {total}
            cuda.syncthreads()
        if row < m and column < n:
            c[batch * c_batch + row * c_row + column * c_column] = total
'''


def product_source(kernel: ProductKernel, name: str) -> str:
    """The module that defines the product kernel `name`. Raises CompileError for an element type without arithmetic."""
    dtype = kernel.dtype
    if not (dtype.is_integer and dtype.bits >= 8) and not (dtype.is_float and dtype.bits >= 32):
        raise CompileError(f"CUDA kernels do not multiply matrices of {dtype} yet")
    total = "total + square_a[y, l] * square_b[l, x]"
    return _SOURCE.format(
        name=name, dtype=dtype, tile=kernel.tile, total=f"{dtype}({total})" if dtype.is_integer else total
    )
