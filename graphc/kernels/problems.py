"""What contractions compute, as data: matrix products and convolutions of blocked images, by their sizes alone.

How one is computed is said by others: `contraction` (as the sum that it is), `winograd`, `strassen`; `choice` takes one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.ir.dims import ceil_div
from graphc.ops.layout import window_output

__all__ = ["MERGED_ELEMENTS", "ConvProblem", "GemmProblem", "Problem", "picked_problem"]

#: a first layer's few channels and a row of its window are read as one run of at most this many elements
MERGED_ELEMENTS = 40


@dataclass(frozen=True, slots=True)
class GemmProblem:
    """y[b, g] = a[b, g] @ w[b, g] with `m` rows, `n` columns and `k` steps, for `batch` x `groups` pairs.

    Strides count elements: `row_stride` and `step_stride` inside a matrix of the left operand (by default dense, row by
    row), `batch_stride` and `group_stride` between its matrices. `shared` says that all batches multiply with the same
    right operands (those of the groups always differ).
    """

    m: int
    n: int
    k: int
    batch: int = 1
    groups: int = 1
    row_stride: int | None = None
    step_stride: int = 1
    batch_stride: int | None = None
    group_stride: int | None = None
    shared: bool = True
    dtype: str = "float32"

    @property
    def rows(self) -> int:
        return self.m

    @property
    def columns(self) -> int:
        return self.n

    @property
    def steps(self) -> int:
        return self.k

    @property
    def taps(self) -> int:
        return 1

    @property
    def row_bytes(self) -> int:
        """Bytes of the left operand that one row brings into the cache."""
        return self.k * np.dtype(self.dtype).itemsize

    @property
    def flops(self) -> int:
        return 2 * self.batch * self.groups * self.m * self.n * self.k


@dataclass(frozen=True, slots=True)
class ConvProblem:
    """A convolution of blocked images; channels and filters count one group, `pads` is (top, left, bottom, right).

    `block` is the number of channels that are consecutive in x: usually the lanes of a vector, 3 for an RGB image. Where
    they are `picked`, a pointwise convolution finds each of its channels through a table.
    """

    batch: int
    channels: int
    filters: int
    height: int
    width: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    block: int = 8
    dtype: str = "float32"
    picked: bool = False

    @property
    def output(self) -> tuple[int, int]:
        """Height and width of y."""
        top, left, bottom, right = self.pads
        size, padding = (self.height, self.width), ((top, bottom), (left, right))
        high, wide = window_output(size, self.kernel, self.stride, padding, self.dilation)
        return high, wide

    @property
    def blocks(self) -> int:
        """Blocks of input channels of a group."""
        return ceil_div(self.channels, self.block)

    @property
    def pointwise(self) -> bool:
        """Whether output pixel m is input pixel m, so that no table is needed."""
        return self.kernel == (1, 1) and self.stride == (1, 1) and not any(self.pads)

    @property
    def merged(self) -> bool:
        """Whether a kernel's row is one run of consecutive elements: few channels, and borders padded by the caller."""
        consecutive = self.blocks == 1 and self.block == self.channels and self.dilation[1] == 1 and not any(self.pads)
        return consecutive and self.kernel[1] > 1 and self.kernel[1] * self.block <= MERGED_ELEMENTS

    @property
    def taps(self) -> int:
        return self.kernel[0] if self.merged else self.kernel[0] * self.kernel[1]

    @property
    def inner(self) -> int:
        """Consecutive elements of x that one tap reads."""
        return self.block * (self.kernel[1] if self.merged else 1)

    @property
    def rows(self) -> int:
        return math.prod(self.output)

    @property
    def columns(self) -> int:
        return self.filters

    @property
    def steps(self) -> int:
        return self.channels if self.picked else self.blocks * self.block * self.kernel[0] * self.kernel[1]

    @property
    def row_bytes(self) -> int:
        """Bytes of x that one output pixel brings into the cache: neighbouring windows overlap."""
        return self.blocks * self.block * self.stride[0] * self.stride[1] * np.dtype(self.dtype).itemsize

    @property
    def flops(self) -> int:
        return 2 * self.batch * self.groups * self.rows * self.filters * self.channels * self.kernel[0] * self.kernel[1]


Problem = GemmProblem | ConvProblem


def picked_problem(image: Sequence[int], channels: int, filters: int, groups: int, dtype: str) -> ConvProblem:
    """The pointwise convolution of an image [batch, blocks, height, width, lanes] whose channels are picked one by one;
    `channels` and `filters` count one group."""
    batch, _, height, width, lanes = image
    return ConvProblem(
        batch, channels, filters, height, width, (1, 1), groups=groups, block=lanes, dtype=dtype, picked=True
    )
