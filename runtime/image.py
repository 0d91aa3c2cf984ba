"""Machine code that needs no linker any more: one block of position-independent bytes, ready to be copied and run.

`graphc.runtime.link` makes images of object files, once, when a model is stored; from then on a process that runs the
model needs neither LLVM nor the objects. An image holds no address. What it wants from the process, functions of the C
library, it calls through words of its own that `load_image` fills in.

The memory is written first and then made executable and read-only: it is never both writable and executable.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Any, NamedTuple

import numpy as np

from graphc.errors import CompileError

__all__ = ["Image", "load_image"]


class Image(NamedTuple):
    """A block of machine code.

    code      the bytes; may lie at any address that is a multiple of 64
    machine   the instruction set, in the words of `platform.machine()`
    entries   offset of each function, by symbol
    imports   offset of the 8-byte word that must hold the address of each function of the process, by symbol
    """

    code: bytes
    machine: str
    entries: dict[str, int]
    imports: dict[str, int]


# Loaded code stays until the process ends: plans hold bare addresses.
_FOREVER: list[Any] = []


def load_image(image: Image) -> int:
    """The address where the image now lies, ready to run.

    Raises CompileError when the process lacks a function that it imports, or may not have memory for code.
    """
    memory = mmap.mmap(-1, max(len(image.code), 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.write(image.code)
    words = np.frombuffer(memory, np.uint8)
    for name, at in image.imports.items():
        words[at : at + 8] = np.frombuffer(_function(name).to_bytes(8, "little"), np.uint8)
    address = int(words.ctypes.data)
    protect = _process().mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if protect(address, len(memory), mmap.PROT_READ | mmap.PROT_EXEC):
        raise CompileError("the system refuses memory for machine code")
    _FOREVER.append((memory, words))
    return address


def _process() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _function(name: str) -> int:
    """The address of a function that this process has."""
    for library in (None, "libm.so.6"):
        try:
            function = getattr(ctypes.CDLL(library), name)
        except (OSError, AttributeError):
            continue
        return int(ctypes.cast(function, ctypes.c_void_p).value or 0)
    raise CompileError(f"stored code calls {name}, which this process does not have")
