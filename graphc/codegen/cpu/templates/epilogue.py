"""What a template does with its results before they leave the cache: the consumer's part of a kernel.

A template computes a vector of results at a time and then runs the epilogue's lines, which finish the computation
(bias, residual, activation, conversion) and store. The lines are Numba source over these names:

    acc         the results, a Vector (see graphc.codegen.cpu.vector) of the template's element type
    b, g        batch (image) and group
    m           row (pixel, counted through the image)
    q           vector of columns (block of channels) within the group
    c           the same, counted through all groups
    lanes       how many lanes of the vector exist; pass it on to load and store
    load(pointer, index, lanes), store(pointer, index, value, lanes)

and over the epilogue's own arguments: an int is the number in its slot, anything else a pointer to such elements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Argument", "Epilogue", "indent", "store_dense"]


@dataclass(frozen=True, slots=True)
class Argument:
    """A slot of the argument block: `kind` is "int", or the type of the elements that it points to ("float32", ...)."""

    name: str
    kind: str

    def declaration(self, slot: int) -> str:
        """The line that gives the slot its name in a kernel."""
        value = f"block[{slot}]" if self.kind == "int" else f"pointer_{self.kind}(block, {slot})"
        return f"{self.name} = {value}"


@dataclass(frozen=True, slots=True)
class Epilogue:
    """Arguments (they follow the template's own slots), imports and lines of an epilogue."""

    arguments: tuple[Argument, ...]
    lines: tuple[str, ...]
    imports: tuple[str, ...] = ()


def store_dense(dtype: str = "float32") -> Epilogue:
    """Store the results as they are: y[b * y_batch + g * y_group + q * y_vector + m * y_row + lane]."""
    arguments = (Argument("y", dtype), *(Argument(f"y_{part}", "int") for part in ("batch", "group", "vector", "row")))
    return Epilogue(arguments, ("store(y, b * y_batch + g * y_group + q * y_vector + m * y_row, acc, lanes)",))


def declarations(arguments: Sequence[Argument]) -> Iterator[str]:
    """The lines at a kernel's top that name its slots."""
    for slot, argument in enumerate(arguments):
        yield argument.declaration(slot)


def imports(arguments: Sequence[Argument], epilogue: Epilogue) -> Iterator[str]:
    """The lines at a module's top that the declarations and the epilogue need."""
    yield from epilogue.imports
    for kind in sorted({a.kind for a in arguments} - {"int"}):
        yield f'pointer_{kind} = vector.argument_pointer("{kind}")'


def indent(lines: Sequence[str], depth: int) -> str:
    """Lines as text, `depth` levels in."""
    return "\n".join("    " * depth + line for line in lines)
