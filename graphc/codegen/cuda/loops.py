"""Loop nests as numba-cuda source.

A map gives every thread points of its own: the loops become one, and the counters are recovered from its number. A
nest with reductions gives every outer point to a block, whose threads share the inner loops and combine their partial
results in shared memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from graphc.codegen.cuda.expressions import CUDA, expanded
from graphc.codegen.scalar import INNERMOST, Level, Writer, identity_of, nested, register_type
from graphc.ir.dims import ceil_div
from graphc.ir.scalar import Scalar, scalar, temp
from graphc.kernels.ir import LoopNest, Map, Reduce, Store
from graphc.kernels.loops import inner_extents, rewritten

__all__ = ["cuda_loop_source", "loop_grid"]

_MAX_BLOCKS = 1 << 16
#: temps that stand for the two partial results that meet in shared memory
_MINE, _THEIRS = 1 << 20, (1 << 20) + 1


def loop_grid(kernel: LoopNest, integers: Sequence[int], threads: int) -> tuple[int, int, int]:
    """How many blocks a launch has work for."""
    points = math.prod(integers[e.attr] if e.op == "param" else e.attr for e in kernel.extents)
    blocks = points if inner_extents(kernel) else ceil_div(points, threads)
    return max(1, min(blocks, _MAX_BLOCKS)), 1, 1


def cuda_loop_source(kernel: LoopNest, name: str, threads: int) -> str:
    """The module that defines the kernel `name` for blocks of `threads` threads."""
    return _Source(_prepared(kernel), threads).text(name)


def _prepared(kernel: LoopNest) -> LoopNest:
    """The kernel with every expression in CUDA's form."""
    return replace(kernel, stages=tuple(rewritten(s, lambda e: expanded([e])[0]) for s in kernel.stages))


class _Source:
    """The state of one kernel's printing."""

    def __init__(self, kernel: LoopNest, threads: int) -> None:
        self.kernel, self.threads = kernel, threads
        self.inner = inner_extents(kernel)
        inputs = len(kernel.buffers) - kernel.outputs
        self.buffers = [f"x{k}" if k < inputs else f"out{k - inputs}" for k in range(len(kernel.buffers))]
        self.used = {"cuda"}
        self.writer = Writer([Level("")], [f"{b}[{{}}]" for b in self.buffers], self.used, CUDA)
        self.extents = [f"p{e.attr}" if e.op == "param" else str(e.attr) for e in (*kernel.extents, *self.inner)]

    def text(self, name: str) -> str:
        top = self.writer.levels[0]
        self._shared_memory(top)
        outer = len(self.kernel.extents)
        points = " * ".join(self.extents[:outer]) or "1"
        if self.inner:
            top.lines.append("thread = cuda.threadIdx.x")
            self._point_loop(f"for point in range(cuda.blockIdx.x, {points}, cuda.gridDim.x):", "point", range(outer))
        else:
            self._point_loop(f"for point in range(cuda.grid(1), {points}, cuda.gridsize(1)):", "point", range(outer))
        for stage in self.kernel.stages:
            if isinstance(stage, Reduce):
                self._reduce(stage)
            else:
                self._map(stage)
        arguments = [*self.buffers, *(f"p{k}" for k in range(self.kernel.params))]
        summary = ", ".join(f"{b} {t}" for b, t in zip(self.buffers, self.kernel.buffers, strict=True))
        return "\n".join(
            [
                f'"""{summary}; blocks of {self.threads} threads."""',
                "",
                f"from graphc.codegen.cuda.primitives import {', '.join(sorted(self.used))}",
                "",
                "",
                f"def {name}({', '.join(arguments)}):",
                *(f"    {line}" for line in nested(self.writer.levels)),
                "",
            ]
        )

    def _shared_memory(self, top: Level) -> None:
        """A place for every thread's partial result, for each reduction that has loops."""
        for s in self.kernel.stages:
            if isinstance(s, Reduce) and s.extents:
                dtype = register_type(s.value.dtype)
                kind = "boolean" if dtype.kind == "bool" else dtype.name
                self.used.add(kind)
                top.lines.append(f"shared{s.result} = cuda.shared.array({self.threads}, {kind})")

    def _point_loop(self, header: str, number: str, loops: range) -> None:
        """A loop over points, with the counters of `loops` recovered from the point's number, the last fastest."""
        level = Level(header)
        self.writer.levels.append(level)
        rest = number
        for loop in reversed(loops):
            self.writer.depth[loop] = len(self.writer.levels) - 1
            if loop == loops[0]:
                level.lines.append(f"i{loop} = {rest}")
            else:
                level.lines.append(f"i{loop} = {rest} % {self.extents[loop]}")
                level.lines.append(f"rest{loop} = {rest} // {self.extents[loop]}")
                rest = f"rest{loop}"

    def _inner_loop(self) -> None:
        outer = len(self.kernel.extents)
        count = " * ".join(self.extents[outer:])
        header = f"for element in range(thread, {count}, {self.threads}):"
        self._point_loop(header, "element", range(outer, outer + len(self.inner)))

    def _close(self, point: int) -> None:
        levels = self.writer.levels
        lines = nested(levels[point + 1 :])
        self.writer.leave(point)
        levels[point].lines += lines

    def _map(self, stage: Map) -> None:
        point = len(self.writer.levels) - 1
        if stage.extents:
            self._inner_loop()
        elif self.inner:
            self.writer.levels.append(Level("if thread == 0:"))
        self._stores(stage.stores)
        self._close(point)

    def _stores(self, stores: Sequence[Store]) -> None:
        values = self.writer.values([s.value for s in stores], named=len(stores) > 1)
        offsets = self.writer.values([s.offset for s in stores])
        for s, value, offset in zip(stores, values, offsets, strict=True):
            self.writer.levels[-1].lines.append(f"{self.buffers[s.buffer]}[{offset}] = {value}")

    def _reduce(self, stage: Reduce) -> None:
        """Each thread combines elements of its own, then the block halves the partial results until one is left."""
        writer, name, dtype = self.writer, f"r{stage.result}", stage.value.dtype
        point = len(writer.levels) - 1
        start = identity_of(stage.combine, dtype)
        self.used |= {w for w in (register_type(dtype).name, "inf", "nan") if f"{w}(" in start or f"{w})" in start}
        writer.levels[point].lines.append(f"{name} = {start}")
        if stage.extents:
            self._inner_loop()
        writer.temps[_MINE] = (name, INNERMOST)
        combined = self._combined(stage.combine, temp(_MINE, dtype), stage.value)
        value, *_ = writer.values([combined, *(s.value for s in stage.stores)])
        self._stores(stage.stores)
        writer.levels[-1].lines.append(f"{name} = {value}")
        self._close(point)
        writer.temps[stage.result] = (name, point)
        if stage.extents:
            self._meet(stage, point)

    def _meet(self, stage: Reduce, point: int) -> None:
        writer, name, shared = self.writer, f"r{stage.result}", f"shared{stage.result}"
        writer.temps[_MINE], writer.temps[_THEIRS] = (
            (f"{shared}[thread]", INNERMOST),
            (f"{shared}[thread + step]", INNERMOST),
        )
        writer.levels.append(Level("if thread < step:"))
        dtype = stage.value.dtype
        (value,) = writer.values([self._combined(stage.combine, temp(_MINE, dtype), temp(_THEIRS, dtype))])
        writer.levels[-1].lines.append(f"{shared}[thread] = {value}")
        lines = nested(writer.levels[point + 1 :])
        writer.leave(point)
        writer.levels[point].lines += [
            f"{shared}[thread] = {name}",
            "cuda.syncthreads()",
            f"step = {self.threads // 2}",
            "while step > 0:",
            *(f"    {line}" for line in lines),
            "    cuda.syncthreads()",
            "    step //= 2",
            f"{name} = {shared}[0]",
            "cuda.syncthreads()",
        ]

    def _combined(self, combine: str, a: Scalar, b: Scalar) -> Scalar:
        return expanded([scalar(combine, a, b)])[0]
