"""Kernels as Numba source for the CPU: `source(kernel)` prints any kernel. Importing this does not import Numba."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module

from graphc.errors import CompileError
from graphc.kernels.ir import Kernel

__all__ = ["KernelSource", "source"]

#: who prints a kernel, by the name of its class: module and function (kernel, function's name) -> text
_PRINTERS = {
    "LoopNest": ("graphc.codegen.cpu.loops", "loop_source"),
    "ContractionKernel": ("graphc.codegen.cpu.templates.fused", "contraction"),
    "AttentionKernel": ("graphc.codegen.cpu.templates.attention", "attention_source"),
    "StrassenKernel": ("graphc.codegen.cpu.templates.fused", "strassen"),
    "WinogradKernel": ("graphc.codegen.cpu.templates.fused", "winograd"),
    "WindowKernel": ("graphc.codegen.cpu.templates.fused", "window"),
    "RecurrenceKernel": ("graphc.codegen.cpu.templates.recurrence", "recurrence_source"),
    "ScanKernel": ("graphc.codegen.cpu.templates.ordered", "scan_source"),
    "SortKernel": ("graphc.codegen.cpu.templates.ordered", "sort_source"),
}


@dataclass(frozen=True)
class KernelSource:
    """The text of a module that defines the function `name`; the name ends in a hash of what it does."""

    name: str
    text: str


@lru_cache(maxsize=4096)
def source(kernel: Kernel) -> KernelSource:
    """The kernel as text. Raises CompileError for a kind of kernel that nobody prints."""
    kind = type(kernel).__name__
    if kind not in _PRINTERS:
        raise CompileError(f"no source for kernels of kind {kind}; there are printers for {', '.join(_PRINTERS)}")
    module, function = _PRINTERS[kind]
    printer: Callable[[Kernel, str], str] = getattr(import_module(module), function)
    digest = hashlib.sha256(printer(kernel, "kernel").encode()).hexdigest()[:12]
    name = f"{kernel.family}_{digest}"
    return KernelSource(name, printer(kernel, name))
