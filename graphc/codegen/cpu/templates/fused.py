"""Kernels around an anchor: their epilogue data printed as lines for the template.

The expressions are written over vectors (graphc.codegen.cpu.vector): the operators and functions there mean the same
for a vector as for a number.
"""

from __future__ import annotations

from graphc.codegen.cpu.templates.epilogue import Argument
from graphc.codegen.cpu.templates.epilogue import Epilogue as Lines
from graphc.codegen.scalar import Printer
from graphc.kernels.epilogue import Access, Epilogue

__all__ = ["epilogue_lines"]


def epilogue_lines(epilogue: Epilogue) -> Lines:
    """The epilogue as source: operands are `e0`, `e1`, ..., strides `e0_m` and so on."""
    pointers = [Argument(f"e{k}", dtype.name if dtype.kind != "bool" else "uint8") for k, dtype in enumerate(epilogue.buffers)]
    integers: list[Argument] = []

    def place(number: int, access: Access) -> str:
        terms = []
        for variable in access.strides:
            name = f"a{number}_{variable}"
            integers.append(Argument(name, "int"))
            terms.append(f"{variable} * {name}")
        return " + ".join(terms) or "0"

    printer = Printer(vector=True)
    lines = []
    for k, access in enumerate(epilogue.loads):
        at = place(k, access)
        name = f"e{access.buffer}"
        lines.append(f"x{k} = load({name}, {at}, lanes)" if access.vector else f"x{k} = {name}[{at}]")
    stores = []
    for k, store in enumerate(epilogue.stores):
        at = place(len(epilogue.loads) + k, store.access)
        value = printer.expression(store.value, lines, load=lambda e: f"x{e.attr}", temp=lambda e: "acc")
        stores.append(f"store(e{store.access.buffer}, {at}, {value}, lanes)")
    return Lines((*pointers, *integers), (*lines, *stores), tuple(printer.imports))
