"""Run a generated kernel on NumPy arrays, for the tests of templates."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from graphc.codegen.cpu.templates.epilogue import Argument, Epilogue
from graphc.kernels.contraction import aligned
from graphc.runtime.native import kernel_addresses

_PARTS = ("batch", "group", "vector", "row")
Y = "b * y_batch + g * y_group + q * y_vector + m * y_row"


def epilogue(
    *lines: str, dtype: str = "float32", arguments: Sequence[Argument] = (), imports: Sequence[str] = ()
) -> Epilogue:
    """Lines that end in a store to a dense y, whose arguments come first."""
    y = (Argument("y", dtype), *(Argument(f"y_{part}", "int") for part in _PARTS))
    return Epilogue((*y, *arguments), (*lines, f"store(y, {Y}, acc, lanes)"), tuple(imports))


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
