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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["PLACES", "Argument", "Epilogue", "argument_block", "indent", "store_dense"]

#: the names above that say where a result is
PLACES = ("b", "g", "m", "q", "c")


@dataclass(frozen=True, slots=True)
class Argument:
    """A slot of the argument block: `kind` is "int", or the type of the elements that it points to ("float32", ...)."""

    name: str
    kind: str

    def declaration(self, slot: int) -> str:
        """The line that gives the slot its name in a kernel."""
        value = f"block[{slot}]" if self.kind == "int" else f"pointer_{self.kind}(block, {slot})"
        return f"{self.name} = {value}"


def argument_block(
    addresses: Mapping[str, str], numbers: Sequence[str], behind: Sequence[Argument] = ()
) -> tuple[Argument, ...]:
    """The slots of a kernel's argument block: all addresses, then all numbers, the template's own before those of what
    stands behind it. `addresses` says what elements each points to."""
    own = (*(Argument(name, kind) for name, kind in addresses.items()), *(Argument(name, "int") for name in numbers))
    return tuple(sorted((*own, *behind), key=lambda slot: slot.kind == "int"))


@dataclass(frozen=True, slots=True)
class Epilogue:
    """Arguments (they follow the template's own slots), imports and lines of an epilogue.

    `choices` holds its lines; where there are several epilogues, the argument "choice" says which of them runs. `short`
    says that they are few enough to be written out for every vector of a tile.
    """

    arguments: tuple[Argument, ...]
    choices: tuple[tuple[str, ...], ...]
    imports: tuple[str, ...] = ()
    short: bool = False

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines, in place."""
        return self._chosen(self.choices)

    def in_registers(self, whole: str, *, margin: str = " " * 20, **first: str) -> dict[str, str]:
        """Parts of a template's text that let a micro-kernel finish its results where `whole` holds, if this is `short`.

        definitions  functions that do what the lines do
        finish       the last argument of what makes the micro-kernel
        which        the line that says which function finishes the results; -1: they are kept in memory
        given        the micro-kernel's last arguments; `first` says what the first result's places are, where they are
                     not what their names say
        kept         what follows the bound of a loop, so that it runs only for results that were kept in memory
        """
        if not self.short:
            return dict.fromkeys(("definitions", "finish", "which", "given", "kept"), "")
        heads = [call for (call,) in self._calls()]
        texts = [
            "\n".join(("@finishing", f"def {head}:", *("    " + line for line in choice)))
            for head, choice in zip(heads, self.choices, strict=True)
        ]
        choice = "choice" if len(self.choices) > 1 else "0"
        places = [first.get(place, place) for place in PLACES]
        given = ("which", *places, *(a.name for a in self.arguments))
        return {
            "definitions": "\n\n" + "\n\n\n".join(texts) + "\n\n\n",
            "finish": f", finish=({', '.join(head.partition('(')[0] for head in heads)},)",
            "which": f"{margin}which = {choice} if {whole} else -1\n",
            "given": f",\n{margin}    {', '.join(given)}",
            "kept": " if which < 0 else 0",
        }

    def calls(self) -> tuple[str, ...]:
        """The lines, as calls of the functions where there are some."""
        return self._chosen(self._calls()) if self.short else self.lines

    def _calls(self) -> list[tuple[str]]:
        names = ", ".join(("acc", *PLACES, "lanes", *(a.name for a in self.arguments)))
        return [(f"finish{number}({names})",) for number in range(len(self.choices))]

    def _chosen(self, choices: Sequence[Sequence[str]]) -> tuple[str, ...]:
        if len(choices) == 1:
            return tuple(choices[0])
        lines = []
        for number, choice in enumerate(choices):
            is_last = number == len(choices) - 1
            lines.append("else:" if is_last else f"{'elif' if number else 'if'} choice == {number}:")
            lines += [f"    {line}" for line in choice]
        return tuple(lines)


def store_dense(dtype: str = "float32") -> Epilogue:
    """Store the results as they are: y[b * y_batch + g * y_group + q * y_vector + m * y_row + lane]."""
    arguments = (Argument("y", dtype), *(Argument(f"y_{part}", "int") for part in ("batch", "group", "vector", "row")))
    return Epilogue(
        arguments, (("store(y, b * y_batch + g * y_group + q * y_vector + m * y_row, acc, lanes)",),), short=True
    )


def declarations(arguments: Sequence[Argument]) -> Iterator[str]:
    """The lines at a kernel's top that name its slots."""
    for slot, argument in enumerate(arguments):
        yield argument.declaration(slot)


def imports(arguments: Sequence[Argument], epilogue: Epilogue, *, in_registers: bool = True) -> Iterator[str]:
    """The lines at a module's top that the declarations and the epilogue need."""
    if epilogue.short and in_registers:
        yield "from graphc.codegen.cpu.finish import finishing"
    yield from epilogue.imports
    for kind in sorted({a.kind for a in arguments} - {"int"}):
        yield f'pointer_{kind} = vector.argument_pointer("{kind}")'


def indent(lines: Sequence[str], depth: int) -> str:
    """Lines as text, `depth` levels in."""
    return "\n".join("    " * depth + line for line in lines)
