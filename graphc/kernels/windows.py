"""Window computations as data: depthwise convolutions and pooling over blocked activations.

Every output pixel of a channel combines the input pixels under a window with nothing but that channel's own numbers:

    y[b, q, i, j, lane] = combine over taps (u, v) of x[b, q, i * stride - top + u * dilation, ...] (* w[q, u, v, lane])

x and y hold blocks of as many channels as a vector has lanes: x[batch, blocks, height, width, lanes] and
w[blocks, *kernel, lanes]. Taps outside the image change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from graphc.ir.dims import ceil_div
from graphc.kernels.machine import Machine
from graphc.ops.layout import window_output

__all__ = ["ADDRESSES", "NUMBERS", "WindowProblem", "WindowSchedule", "WindowVariant", "arguments", "schedule"]

Combine = Literal["fma", "add", "max"]

#: The argument block: addresses, then numbers, as in `contraction`.
ADDRESSES = (
    "x",                                         # address of the input
    "w",                                         # address of the weights (combine "fma", else anything readable)
)  # fmt: skip
NUMBERS = (
    "blocks",                                    # channel blocks
    "height", "width", "out_height", "out_width",
    "kernel_height", "kernel_width", "stride_height", "dilation_height", "top", "left",
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
    def output(self) -> tuple[int, int]:
        """Height and width of y."""
        top, left, bottom, right = self.pads
        size, padding = (self.height, self.width), ((top, bottom), (left, right))
        high, wide = window_output(size, self.kernel, self.stride, padding, self.dilation)
        return high, wide

    @property
    def flops(self) -> int:
        high, wide = self.output
        return 2 * self.batch * self.blocks * self.lanes * high * wide * self.kernel[0] * self.kernel[1]


@dataclass(frozen=True, slots=True)
class WindowVariant:
    """What a window kernel is compiled for.

    pixels    neighbours of a row that are held in registers, `stride` input pixels apart
    taps      taps of a row of the window that are written out, `dilation` apart; `whole` says that these are all
    guarded   input pixels of a tile, counted from either side, that may lie beside the image
    """

    pixels: int
    lanes: int
    stride: int
    taps: int
    dilation: int
    guarded: int
    whole: bool
    combine: Combine
    dtype: str = "float32"

    @property
    def readers(self) -> dict[int, list[tuple[int, int]]]:
        """For each input pixel that a tile reads, counted from its first: which pixels with which tap."""
        found: dict[int, list[tuple[int, int]]] = {}
        for p in range(self.pixels):
            for k in range(self.taps):
                found.setdefault(p * self.stride + k * self.dilation, []).append((p, k))
        return dict(sorted(found.items()))

    def is_guarded(self, position: int) -> bool:
        """Whether this input pixel, counted from a tile's first, may lie beside the image."""
        last = (self.pixels - 1) * self.stride + (self.taps - 1) * self.dilation
        return position < self.guarded or position > last - self.guarded or not self.whole


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
        return (self.variant.pixels + 1) * self.variant.lanes * np.dtype(self.variant.dtype).itemsize


#: taps of a row of the window that are written out at most; of more, as many as divide them
WRITTEN_OUT = 11


def schedule(problem: WindowProblem, machine: Machine, threads: int = 1, pixels: int | None = None) -> WindowSchedule:
    """Pixels that cover a row with the least work, and tasks of whole rows; `pixels` forces the tile."""
    wide, dilation = problem.kernel[1], problem.dilation[1]
    taps = max(n for n in range(1, min(wide, WRITTEN_OUT) + 1) if wide % n == 0)
    width = problem.output[1]
    if pixels is None:  # beside the results, registers hold a row's weights and what is read
        most = max(1, min(width, 14, machine.isa.registers - min(taps, 4) - 3))
        pixels = min(range(most, 0, -1), key=lambda n: ceil_div(width, n) * (n + 2))
    beside = max(problem.pads[1], problem.pads[3])
    variant = WindowVariant(
        pixels, problem.lanes, problem.stride[1], taps, dilation, beside, taps == wide, problem.combine, problem.dtype
    )
    planes, rows = problem.batch * problem.blocks, problem.output[0]
    # Planes are dealt out whole, unless there are too few of them for the threads.
    cuts = min(rows, max(1, ceil_div(4 * threads, planes))) if threads > 1 and planes < 4 * threads else 1
    per_task = ceil_div(rows, max(1, cuts))
    row_tasks = ceil_div(rows, max(1, per_task))
    return WindowSchedule(variant, per_task, row_tasks, planes * row_tasks)


def arguments(problem: WindowProblem, s: WindowSchedule) -> dict[str, int]:
    """The `NUMBERS` that are sizes; the caller adds the addresses x and w."""
    numbers = (
        problem.blocks, problem.height, problem.width, *problem.output, *problem.kernel,
        problem.stride[0], problem.dilation[0], *problem.pads[:2], s.rows_per_task, s.row_tasks,
    )  # fmt: skip
    return dict(zip(NUMBERS, numbers, strict=True))
