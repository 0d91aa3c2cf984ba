"""Kernels around an anchor: their epilogue data printed as lines for the template.

The expressions are written over vectors (graphc.codegen.cpu.vector): the operators and functions there mean the same
for a vector as for a number.
"""

from __future__ import annotations

from collections import Counter

from graphc.codegen.cpu.templates.contraction import contraction_source
from graphc.codegen.cpu.templates.epilogue import Argument
from graphc.codegen.cpu.templates.epilogue import Epilogue as Lines
from graphc.codegen.cpu.templates.strassen import strassen_source
from graphc.codegen.cpu.templates.windows import window_source
from graphc.codegen.cpu.templates.winograd import winograd_source
from graphc.codegen.scalar import Text, expression, literal, register_type
from graphc.ir.scalar import Scalar, walk
from graphc.kernels.epilogue import Access, Epilogue, Epilogues, EpilogueStore
from graphc.kernels.lower_contraction import ContractionKernel
from graphc.kernels.lower_strassen import StrassenKernel
from graphc.kernels.lower_window import WindowKernel
from graphc.kernels.lower_winograd import WinogradKernel

__all__ = ["contraction", "epilogue_lines", "strassen", "value_lines", "window", "winograd"]


def contraction(kernel: ContractionKernel, name: str) -> str:
    """The module text of a contraction kernel."""
    return contraction_source(kernel.variant, epilogue_lines(kernel.epilogue), name)


def window(kernel: WindowKernel, name: str) -> str:
    """The module text of a window kernel."""
    return window_source(kernel.variant, epilogue_lines(kernel.epilogue), name)


def strassen(kernel: StrassenKernel, name: str) -> str:
    """The module text of a Strassen kernel."""
    return strassen_source(kernel.variant, epilogue_lines(kernel.epilogue), name)


def winograd(kernel: WinogradKernel, name: str) -> str:
    """The module text of a Winograd kernel."""
    return winograd_source(kernel.variant, epilogue_lines(kernel.epilogue), name)


def epilogue_lines(epilogue: Epilogue | Epilogues) -> Lines:
    """The epilogue as source: operands are `e0`, `e1`, ..., strides `s0_m` and so on."""
    pointers = [Argument(f"e{k}", dtype.name) for k, dtype in enumerate(epilogue.buffers)]
    strides = [Argument(_stride(*name), "int") for name in epilogue.integers]
    used: set[str] = set()
    choices = epilogue.choices if isinstance(epilogue, Epilogues) else (epilogue,)
    which = [Argument("choice", "int")] if isinstance(epilogue, Epilogues) else []
    lines = tuple(tuple(_lines(choice, used)) for choice in choices)
    short = all(choice.short for choice in choices)
    imports = (f"from graphc.codegen.cpu.intrinsics import {', '.join(sorted(used))}",) if used else ()
    return Lines((*pointers, *which, *strides), lines, imports, short)


def _stride(number: int, variable: str) -> str:
    return f"s{number}_{variable}"


def _lines(epilogue: Epilogue, used: set[str]) -> list[str]:
    def place(number: int, access: Access) -> str:
        return " + ".join(f"{variable} * {_stride(number, variable)}" for variable in access.strides) or "0"

    lines = []
    for k, access in enumerate(epilogue.loads):
        buffer, at = f"e{access.buffer}", place(k, access)
        lines.append(f"x{k} = load({buffer}, {at}, lanes)" if access.vector else f"x{k} = {buffer}[{at}]")
    targets = [place(len(epilogue.loads) + k, store.access) for k, store in enumerate(epilogue.stores)]
    values = value_lines([_stored(store, epilogue) for store in epilogue.stores], lines, used)
    for store, at, value in zip(epilogue.stores, targets, values, strict=True):
        lines.append(f"store(e{store.access.buffer}, {at}, {value}, lanes)")
    return lines


def _stored(store: EpilogueStore, epilogue: Epilogue) -> Scalar:
    """What is given to a store, which rounds to the element type of its memory by itself."""
    value = store.value
    if value.op == "cast" and value.dtype.name == "bfloat16" == epilogue.buffers[store.access.buffer].name:
        return value.args[0]
    return value


def value_lines(roots: list[Scalar], lines: list[str], used: set[str]) -> list[str]:
    """The texts of expressions; what is used more than once, or is long, gets a line of its own."""
    order = walk(roots)
    uses = Counter([*roots, *(a for e in order for a in e.args)])
    texts: dict[Scalar, Text] = {}
    for e in order:
        if e.op == "load":
            texts[e] = Text(f"x{e.attr}")
        elif e.op == "temp":
            texts[e] = Text("acc")
        elif e.op == "const":
            texts[e] = Text(literal(e.attr, e.dtype))
            if register_type(e.dtype).kind != "bool":
                used.add(register_type(e.dtype).name)
        else:
            text = (
                Text(f"~{texts[e.args[0]].within(10)}")
                if e.op == "not"
                else expression(e, [texts[a] for a in e.args], used)
            )
            if uses[e] > 1 or len(text.text) > 60:
                lines.append(f"v{len(lines)} = {text.text}")
                text = Text(f"v{len(lines) - 1}")
            texts[e] = text
    return [texts[r].text for r in roots]
