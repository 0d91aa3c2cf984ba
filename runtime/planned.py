"""A static graph up to the point where machine code is needed: its program, where its buffers lie, its kernels' source.

`graphc.runtime.assemble` goes on from here to what runs; `graphc inspect` shows it as it is, and a memory budget is
held against its arena.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from graphc.codegen.cpu import KernelSource, source
from graphc.ir.graph import Graph
from graphc.kernels.build import build
from graphc.kernels.choice import install
from graphc.kernels.ir import Kernel
from graphc.kernels.program import Place, Program
from graphc.options import Options
from graphc.passes.pipeline import optimise
from graphc.runtime.arena import Block, lower_bound, plan_arena, plan_naive
from graphc.runtime.measured import kept

install(kept)  # what was measured on this machine is used from here on

__all__ = ["MemoryReport", "Planned", "arena_bytes", "planned"]


@dataclass(frozen=True)
class MemoryReport:
    """Bytes of a compiled graph: the planned arena, the least any plan could take, without sharing, constants."""

    arena: int
    lower_bound: int
    unshared: int
    constants: int


@dataclass(frozen=True, eq=False)
class Planned:
    """A graph of static shapes, its program, and the offset of every buffer in the arena."""

    graph: Graph
    program: Program
    blocks: list[Block]
    offsets: Mapping[int, int]
    memory: MemoryReport

    @cached_property
    def sources(self) -> dict[Kernel, KernelSource]:
        """The source of every kernel, in the order of their first launch."""
        return {kernel: source(kernel) for kernel in dict.fromkeys(launch.kernel for launch in self.program.launches)}


def planned(graph: Graph, options: Options) -> Planned:
    """The plan of an optimised graph. Raises CompileError naming the operation that has no kernel."""
    program = build(graph, options.thread_count)
    blocks = [Block(b, program.buffers[b].nbytes, first, last) for b, (first, last) in program.lifetimes().items()]
    offsets, arena = (plan_arena if options.memory == "planned" else plan_naive)(blocks)
    constants = sum(b.nbytes for b in program.buffers if b.place is Place.CONSTANT)
    memory = MemoryReport(arena, lower_bound(blocks), sum(b.nbytes for b in blocks), constants)
    return Planned(graph, program, blocks, offsets, memory)


def arena_bytes(graph: Graph, options: Options) -> int:
    """The bytes of the arena that a prepared graph would get."""
    return planned(optimise(graph, options), options).memory.arena
