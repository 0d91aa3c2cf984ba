"""Window computations as data: depthwise convolutions and pooling over blocked activations.

Every output pixel of a channel combines the input pixels under a window with nothing but that channel's own numbers:

    y[b, q, i, j, lane] = combine over taps (u, v) of x[b, q, i * stride - top + u * dilation, ...] (* w[q, u, v, lane])

x and y hold blocks of as many channels as a vector has lanes: x[batch, blocks, height, width, lanes] and
w[blocks, *kernel, lanes]. Taps outside the image are skipped, and the epilogue learns how many were not (`taps`), for
averages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from graphc.ir.dims import ceil_div
from graphc.kernels.machine import Machine

__all__ = ["SLOTS", "WindowProblem", "WindowSchedule", "WindowVariant", "arguments", "schedule"]

Combine = Literal["fma", "add", "max"]

#: The argument block of a window kernel: int64 slots in this order, then those of the epilogue.
SLOTS = (
    "x",                                         # address of the input
    "w",                                         # address of the weights (combine "fma", else anything readable)
    "blocks",                                    # channel blocks
    "height", "width", "out_height", "out_width",
    "kernel_height", "kernel_width", "stride_height", "stride_width", "dilation_height", "dilation_width",
    "top", "left",
    "inner_first", "inner_last",                 # output columns whose windows lie inside the image's width
    "rows_per_task", "row_tasks",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class WindowProblem:
    """Windows over `batch` images of `blocks` x `lanes` channels; `pads` is (top, left, bottom, right).

    combine  "fma": depthwise convolution; "add": sums, for averages; "max"
    """

    batch: int
    blocks: int
    height: int
    width: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    lanes: int = 8
    combine: Combine = "fma"
    dtype: str = "float32"

    @property
    def reach(self) -> tuple[int, int]:
        """Height and width of the image that a window covers."""
        return (self.dilation[0] * (self.kernel[0] - 1) + 1, self.dilation[1] * (self.kernel[1] - 1) + 1)

    @property
    def output(self) -> tuple[int, int]:
        """Height and width of y."""
        top, left, bottom, right = self.pads
        return (
            (self.height + top + bottom - self.reach[0]) // self.stride[0] + 1,
            (self.width + left + right - self.reach[1]) // self.stride[1] + 1,
        )

    @property
    def inside(self) -> tuple[int, int]:
        """First output column whose window lies inside the image's width, and the one after the last."""
        first = min(ceil_div(self.pads[1], self.stride[1]), self.output[1])
        last = (self.width - self.reach[1] + self.pads[1]) // self.stride[1] + 1
        return first, max(first, min(last, self.output[1]))

    @property
    def flops(self) -> int:
        high, wide = self.output
        return 2 * self.batch * self.blocks * self.lanes * high * wide * self.kernel[0] * self.kernel[1]


@dataclass(frozen=True, slots=True)
class WindowVariant:
    """What a window kernel is compiled for: `pixels` neighbours in registers, `stride` input pixels apart."""

    pixels: int
    lanes: int
    stride: int
    combine: Combine
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class WindowSchedule:
    """How a problem is computed, and how its rows are dealt out to tasks."""

    variant: WindowVariant
    rows_per_task: int
    row_tasks: int
    tasks: int

    @property
    def scratch_bytes(self) -> int:
        """Private memory that a thread needs, 64-byte aligned."""
        return self.variant.pixels * self.variant.lanes * np.dtype(self.variant.dtype).itemsize


def schedule(problem: WindowProblem, machine: Machine, threads: int = 1, pixels: int | None = None) -> WindowSchedule:
    """Pixels that cover a row's interior with the least work, and tasks of whole rows; `pixels` forces the tile."""
    first, last = problem.inside
    if pixels is None:
        sizes = [n for n in (8, 6, 4) if n <= min(last - first, machine.isa.registers // 2)]
        pixels = min(sizes, key=lambda n: ceil_div(last - first, n) * (n + 2), default=1)
    variant = WindowVariant(pixels, problem.lanes, problem.stride[1], problem.combine, problem.dtype)
    planes, rows = problem.batch * problem.blocks, problem.output[0]
    # Planes are dealt out whole, unless there are too few of them for the threads.
    cuts = min(rows, max(1, ceil_div(4 * threads, planes))) if threads > 1 and planes < 4 * threads else 1
    per_task = ceil_div(rows, max(1, cuts))
    row_tasks = ceil_div(rows, max(1, per_task))
    return WindowSchedule(variant, per_task, row_tasks, planes * row_tasks)


def arguments(problem: WindowProblem, s: WindowSchedule) -> dict[str, int]:
    """The slots of `SLOTS` that hold sizes; the caller adds the addresses x and w."""
    first, last = problem.inside
    if last - first < s.variant.pixels:
        first = last = 0
    numbers = (
        problem.blocks, problem.height, problem.width, *problem.output,
        *problem.kernel, *problem.stride, *problem.dilation, *problem.pads[:2],
        first, last, s.rows_per_task, s.row_tasks,
    )  # fmt: skip
    return dict(zip(SLOTS[2:], numbers, strict=True))
