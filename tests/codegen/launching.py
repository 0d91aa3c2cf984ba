"""Run a generated kernel on NumPy arrays, for the tests of templates."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from graphc.codegen.cpu.templates.epilogue import Argument, Epilogue
from graphc.ir.dims import ceil_div
from graphc.runtime.cache import aligned
from graphc.runtime.native import kernel_addresses

_PARTS = ("batch", "group", "vector", "row")
Y = "b * y_batch + g * y_group + q * y_vector + m * y_row"


def epilogue(
    *lines: str,
    dtype: str = "float32",
    arguments: Sequence[Argument] = (),
    imports: Sequence[str] = (),
    short: bool = False,
) -> Epilogue:
    """Lines that end in a store to a dense y, whose arguments come first; `short`: done to results in registers."""
    y = (Argument("y", dtype), *(Argument(f"y_{part}", "int") for part in _PARTS))
    return Epilogue((*y, *arguments), ((*lines, f"store(y, {Y}, acc, lanes)"),), tuple(imports), short)


def launch(
    name: str,
    source: str,
    arguments: Sequence[Argument],
    values: Mapping[str, object],
    tasks: int,
    scratch_bytes: int,
    calls: int = 1,
) -> None:
    """Run all tasks of a kernel, in `calls` pieces. A guard behind the scratch memory must stay as it is."""
    (address,) = kernel_addresses([(name, source)])
    kernel = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(address)
    slots = [values[a.name] for a in arguments]
    block = np.array([v.ctypes.data if isinstance(v, np.ndarray) else v for v in slots], np.int64)
    scratch = aligned(np.full(scratch_bytes + 64, 0x7F, np.uint8))
    bounds = [tasks * n // calls for n in range(calls + 1)]
    for first, last in pairwise(bounds):
        kernel(block.ctypes.data, first, last, scratch.ctypes.data)
    assert (scratch[scratch_bytes:] == 0x7F).all(), "the kernel wrote past its scratch memory"


def surrounded(x: np.ndarray, margin: int = 256) -> np.ndarray:
    """A copy of `x` with NaNs before and behind it in memory: what reads past its ends shows."""
    room = np.full(x.size + 2 * margin, np.nan, x.dtype)
    copy = room[margin : margin + x.size].reshape(x.shape)
    copy[...] = x
    return copy


def to_blocked(x: np.ndarray, block: int, groups: int = 1) -> np.ndarray:
    """x[batch, channels, height, width] as [batch, groups * blocks, height, width, block], groups padded with zeros."""
    batch, channels, height, width = x.shape
    each = channels // groups
    blocks = ceil_div(each, block)
    full = np.zeros((batch, groups, blocks * block, height, width), x.dtype)
    full[:, :, :each] = x.reshape(batch, groups, each, height, width)
    return np.ascontiguousarray(full.reshape(batch, groups * blocks, block, height, width).transpose(0, 1, 3, 4, 2))


def from_blocked(y: np.ndarray, channels: int, groups: int = 1) -> np.ndarray:
    """The inverse: y[batch, groups * blocks, height, width, block] as [batch, channels, height, width]."""
    batch, blocks, height, width, block = y.shape
    full = y.transpose(0, 1, 4, 2, 3).reshape(batch, groups, blocks // groups * block, height, width)
    return np.ascontiguousarray(full[:, :, : channels // groups].reshape(batch, channels, height, width))
