"""One kernel for launches that differ in nothing but their epilogues.

A network's layers end in few ways: as they are, with an activation, with a residual. Most of what a kernel costs to
compile is its template, so the launches of a program that use one variant of a template get one kernel, which holds all
their epilogues and is told at each launch which to run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from graphc.ir.dtypes import DType
from graphc.kernels.epilogue import Access, Epilogue, Epilogues, EpilogueStore
from graphc.kernels.ir import Kernel, Launch, Operand
from graphc.kernels.program import Program, Rebind

__all__ = ["MOST_CHOICES", "share_kernels"]

#: epilogues in a kernel; choosing costs a comparison each, for every vector of results
MOST_CHOICES = 4
#: scalar operations of an epilogue that is worth sharing for; a longer one costs more to compile than its template
MOST_OPERATIONS = 64


def share_kernels(program: Program) -> None:
    """Give the launches of `program` kernels with several epilogues, where that makes fewer kernels."""
    variants: dict[Kernel, list[Epilogue]] = {}
    for kernel in dict.fromkeys(launch.kernel for launch in program.launches):
        epilogue = getattr(kernel, "epilogue", None)
        if isinstance(epilogue, Epilogue) and len(epilogue.operations) <= MOST_OPERATIONS:
            variants.setdefault(_with(kernel, None), []).append(epilogue)
    shared: dict[Kernel, tuple[Kernel, int]] = {}  # a kernel's replacement, and the number of its epilogue there
    for variant, epilogues in variants.items():
        for group in _groups(epilogues):
            kernel = _with(variant, Epilogues(tuple(_counting(e, group[0].buffers) for e in group)))
            shared.update((_with(variant, e), (kernel, number)) for number, e in enumerate(group))
    before = list(program.instructions)
    for at, instruction in enumerate(before):
        if isinstance(instruction, Launch) and instruction.kernel in shared:
            program.instructions[at] = _shared(instruction, *shared[instruction.kernel])
        elif isinstance(instruction, Rebind):
            launch = before[instruction.launch]
            assert isinstance(launch, Launch)
            if launch.kernel in shared:
                own, choices = _epilogues(launch.kernel), _epilogues(shared[launch.kernel][0])
                if instruction.operand >= len(launch.operands) - len(own.buffers):
                    operand = instruction.operand + len(choices.buffers) - len(own.buffers)
                    program.instructions[at] = replace(instruction, operand=operand)


def _epilogues(kernel: Any) -> Epilogue | Epilogues:
    found: Epilogue | Epilogues = kernel.epilogue
    return found


def _with(kernel: Any, epilogue: Epilogue | Epilogues | None) -> Kernel:
    """The same variant of the same template with another epilogue."""
    changed: Kernel = replace(kernel, epilogue=epilogue)
    return changed


def _groups(epilogues: Iterable[Epilogue]) -> Iterator[list[Epilogue]]:
    """Two or more that can be in one kernel: the element types of their operands, from the last one on, agree, and
    all are short or none is, since one that is not would keep the others' results out of registers.

    Their order depends on nothing else, so that another program with the same epilogues has the same kernel.
    """
    left = sorted(epilogues, key=lambda e: (-len(e.buffers), repr((e.loads, _description(e)))))
    while left:
        longest, short = left[0].buffers, left[0].short
        alike = (e for e in left if longest[len(longest) - len(e.buffers) :] == e.buffers and e.short == short)
        group = list(islice(alike, MOST_CHOICES))
        left = [e for e in left if e not in group]
        if len(group) > 1:
            yield group


def _description(epilogue: Epilogue) -> list[object]:
    """What an epilogue computes, in as many words as it has operations; its own text would unfold what it shares."""
    operations = epilogue.operations
    number = {e: k for k, e in enumerate(operations)}
    values = [(e.op, str(e.dtype), e.attr, [number[a] for a in e.args]) for e in operations]
    return [*values, *((number[store.value], store.access) for store in epilogue.stores)]


def _counting(epilogue: Epilogue, buffers: tuple[DType, ...]) -> Epilogue:
    """The epilogue where its operands are the last ones of `buffers`."""
    by = len(buffers) - len(epilogue.buffers)

    def moved(access: Access) -> Access:
        return replace(access, buffer=access.buffer + by)

    stores = tuple(EpilogueStore(moved(store.access), store.value) for store in epilogue.stores)
    return Epilogue(buffers, epilogue.outputs, tuple(map(moved, epilogue.loads)), stores)


def _shared(launch: Launch, kernel: Kernel, number: int) -> Launch:
    """The launch with a kernel of several epilogues, `number` of which is its own; what the others take is filled up."""
    own, choices = _epilogues(launch.kernel), _epilogues(kernel)
    first, strides = len(launch.operands) - len(own.buffers), len(launch.integers) - len(own.integers)
    nothing = (Operand(launch.operands[0].buffer),) * (len(choices.buffers) - len(own.buffers))
    given = dict(zip(own.integers, launch.integers[strides:], strict=True))
    return replace(
        launch,
        kernel=kernel,
        operands=(*launch.operands[:first], *nothing, *launch.operands[first:]),
        integers=(*launch.integers[:strides], number, *(given.get(name, 0) for name in choices.integers)),
    )
