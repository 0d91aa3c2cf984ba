"""Results finished in registers: functions of a kernel's text that a micro-kernel calls on what it has computed.

A tile's sums could go to memory and come back one by one for the epilogue, which costs what several steps of a
contraction do. So an epilogue of a few operations is a function of the kernel's text:

    @finishing
    def finish0(acc, b, g, m, q, c, lanes, ...): ...

The micro-kernel calls it for every vector of results, while all are in registers, and LLVM inlines each of these calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import signature
from numba.extending import intrinsic

from graphc.codegen.cpu.front import add_function
from graphc.codegen.cpu.simd import I64, Shape, Values, constant
from graphc.codegen.cpu.templates.epilogue import PLACES
from graphc.codegen.cpu.vector import Vector

__all__ = ["Finish", "Function", "arguments_for", "as_intrinsic", "finishing"]

Function = Any
"""What `finishing` makes of a function."""


class Finish:
    """The end of a micro-kernel: one of the `functions`, of which there may be none, finishes its results, or none does.

    values  the number of the function, -1 for none; the places of the first result; what all functions take besides
    kinds   the types of these
    """

    def __init__(
        self, context: Any, b: ir.IRBuilder, functions: Sequence[Function], kinds: Sequence[Any], values: Values
    ) -> None:
        self.functions, self._context, self._b, self._kinds, self._values = functions, context, b, kinds, values

    def emit(
        self,
        results: Sequence[tuple[ir.Value, Mapping[str, int | ir.Value]]],
        shape: Shape,
        otherwise: Callable[[], None],
    ) -> None:
        """Finish results, of which each comes with how far its places are from the first one's; or do `otherwise`."""
        if not self.functions:
            otherwise()
            return
        own = 1 + len(PLACES)
        which, first, rest = self._values[0], self._values[1:own], self._values[own:]
        b, vector = self._b, Vector(getattr(types, shape.dtype), shape.lanes)
        kinds = (vector, *[types.int64] * own, *self._kinds[own:])  # places and lanes are numbers
        kept, done = b.append_basic_block("kept"), b.append_basic_block("done")
        switch = b.switch(which, kept)
        for number, function in enumerate(self.functions):
            finished = b.append_basic_block("finished")
            switch.add_case(ir.Constant(I64, number), finished)
            b.position_at_end(finished)
            call = add_function(self._context, b, function.finishes, kinds)
            for value, moved in results:
                places = [_further(b, place, moved.get(name, 0)) for name, place in zip(PLACES, first, strict=True)]
                call([value, *places, constant(vector.lanes), *rest])
            b.branch(done)
        b.position_at_end(kept)
        otherwise()
        b.branch(done)
        b.position_at_end(done)


def _further(b: ir.IRBuilder, place: ir.Value, step: int | ir.Value) -> ir.Value:
    return b.add(place, constant(step) if isinstance(step, int) else step)


def arguments_for(functions: Sequence[Function]) -> int:
    """How many arguments a micro-kernel takes for these functions."""
    own = 2  # the vector and its lanes
    return 1 + functions[0].finishes.__code__.co_argcount - own if functions else 0


def as_intrinsic(name: str, codegen: Any, kinds: Sequence[Any], more: int) -> Any:
    """A Numba intrinsic without a result that takes arguments of these types, and `more` of whatever types they are."""

    def typed(rest: Sequence[Any]) -> Any:
        return signature(types.void, *kinds, *map(types.unliteral, rest)), codegen

    # Numba reads an intrinsic's arity from its Python parameters, so the function is spelt out.
    names = [f"a{n}" for n in range(len(kinds) + more)]
    scope: dict[str, Any] = {"typed": typed}
    rest = "".join(f"{n}, " for n in names[len(kinds) :])
    exec(f"def {name}(typingctx, {', '.join(names)}):\n    return typed(({rest}))", scope)
    return intrinsic(scope[name])


def finishing(function: Callable[..., None]) -> Any:
    """Decorates a function that finishes results: the kernel's text can call it, too."""

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: Values) -> Any:
        add_function(context, b, function, tuple(sig.args))(list(args))
        return context.get_dummy_value()

    made = as_intrinsic(function.__name__, codegen, (), function.__code__.co_argcount)
    made.finishes = function
    return made
