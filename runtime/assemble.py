"""A static graph, compiled: its program placed in memory, its kernels loaded, its launch plan written.

`CompiledGraph` is what runs. Between its first and its last kernel there is no Python and no allocation: a call writes
the addresses of the caller's arrays into the argument blocks and enters the native driver.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from graphc.errors import GraphcError
from graphc.ir.graph import Graph
from graphc.kernels.ir import Kernel, Launch, Operand
from graphc.kernels.program import Branch, Count, Exhausted, Instruction, Jump, Label, Place, Rebind
from graphc.options import Options
from graphc.runtime.native import kernel_addresses
from graphc.runtime.plan import Plan, PlanBuilder
from graphc.runtime.planned import planned
from graphc.runtime.progress import compiling
from graphc.runtime.threads import run

__all__ = ["Clocks", "CompiledGraph", "aligned_empty"]

ALIGNMENT = 64  # bytes: a cache line, and the widest vector


def aligned_empty(nbytes: int) -> np.ndarray:
    """Uninitialised bytes whose address is a multiple of 64."""
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


class Clocks:
    """What the launches of a program, in its order, took since they are measured."""

    def __init__(self, launches: list[Launch], cells: np.ndarray) -> None:
        self.launches, self._cells = launches, cells

    def read(self) -> np.ndarray:
        """float64[launches, 2], a copy: seconds altogether, and how often it ran. Not while a run is under way."""
        return self._cells[:-1, 1:] * (1e-9, 1.0)


class CompiledGraph:
    """A graph of static shapes, ready to run. Runs take turns: the arena is one."""

    def __init__(self, graph: Graph, options: Options) -> None:
        self.graph, self.options = graph, options
        plan = planned(graph, options)
        self.program, self.memory, self.blocks, self.offsets = plan.program, plan.memory, plan.blocks, plan.offsets
        self.sources = plan.sources
        kernels = list(self.sources)
        texts = [(self.sources[k].name, self.sources[k].text) for k in kernels]
        with compiling(options.progress) as progress:
            self._addresses = dict(zip(kernels, kernel_addresses(texts, progress=progress), strict=True))
        self._place_buffers()
        self._inputs = [(v.dtype.numpy, v.tensor.static_shape) for v in graph.inputs]
        self._outputs = [(v.dtype.numpy, v.tensor.static_shape) for v in graph.outputs]
        self.plan = self._write_plan()
        # a plan without parallel launches never wakes the other threads
        self._threads = options.thread_count if any(launch.tasks > 1 for launch in self.program.launches) else 1
        self._lock = threading.Lock()

    # -- memory ---------------------------------------------------------------------------------------------------

    def _place_buffers(self) -> None:
        self._arena = aligned_empty(self.memory.arena)
        self._constants = {
            i: _aligned(b.array)
            for i, b in enumerate(self.program.buffers)
            if b.place is Place.CONSTANT and b.array is not None
        }

    def _address(self, operand: Operand) -> int:
        """Where an operand is; for the caller's arrays the offset in them, to which a run adds the array's address."""
        buffer = self.program.buffers[operand.buffer]
        match buffer.place:
            case Place.ARENA:
                return int(self._arena.ctypes.data) + self.offsets[operand.buffer] + operand.byte_offset
            case Place.CONSTANT:
                return int(self._constants[operand.buffer].ctypes.data) + operand.byte_offset
        return operand.byte_offset

    # -- the plan ---------------------------------------------------------------------------------------------------

    def _write_plan(self) -> Plan:
        """Argument blocks, one after the other, and the rows that refer to them."""
        program = self.program
        starts: dict[int, int] = {}
        words: list[int] = []
        patches: dict[tuple[Place, int], list[tuple[int, int]]] = {}

        def word(operand: Operand) -> int:
            buffer = program.buffers[operand.buffer]
            if buffer.place in (Place.INPUT, Place.OUTPUT):
                patches.setdefault((buffer.place, buffer.number), []).append((len(words), operand.byte_offset))
            words.append(self._address(operand))
            return len(words) - 1

        bases: dict[int, int] = {}
        for at, instruction in enumerate(program.instructions):
            if isinstance(instruction, Launch):
                words += [0] * (-len(words) % 8)  # a block begins a cache line
                starts[at] = len(words)
                for operand in instruction.operands:
                    word(operand)
                words.extend(instruction.integers)
            elif isinstance(instruction, Rebind):
                bases[at] = word(instruction.base)
        memory = aligned_empty(8 * max(1, len(words))).view(np.int64)
        memory[: len(words)] = words
        self._words = memory
        self._patches = [
            [
                (np.array([i for i, _ in sites]), np.array([o for _, o in sites]))
                if (sites := patches.get((place, k)))
                else None
                for k in range(n)
            ]
            for place, n in ((Place.INPUT, len(self.graph.inputs)), (Place.OUTPUT, len(self.graph.outputs)))
        ]
        self._slots = starts, bases
        return self._write_rows(PlanBuilder())

    def _write_rows(self, builder: PlanBuilder, clocks: Mapping[int, int] | None = None) -> Plan:
        """The rows; after the launch at instruction i the time goes to the clock at address `clocks[i]`, if any."""
        address = int(self._words.ctypes.data)
        rows = _Rows(builder, self._address, lambda i: address + 8 * i)
        for at, instruction in enumerate(self.program.instructions):
            rows.add(at, instruction, self._addresses, *self._slots)
            if clocks is not None and at in clocks:
                builder.tick(clocks[at])
        rows.finish()
        return builder.build()

    # -- time in the launches -----------------------------------------------------------------------------------------

    def profile(self) -> Clocks:
        """From now on every run measures its launches.

        The control flow before a launch counts as its own. Measuring costs one reading of the clock a launch.
        """
        builder = PlanBuilder()
        (last,) = builder.cells(0)
        launches = [(at, i) for at, i in enumerate(self.program.instructions) if isinstance(i, Launch)]
        cells = np.array([[last, 0, 0]] * (len(launches) + 1), np.int64)
        builder.keep.append(cells)
        addresses = [int(cells.ctypes.data) + cells.strides[0] * k for k in range(len(cells))]
        builder.tick(addresses.pop())  # starts the clock: what passed between two runs is nobody's time
        with self._lock:
            self.plan = self._write_rows(builder, {at: a for (at, _), a in zip(launches, addresses, strict=True)})
        return Clocks([launch for _, launch in launches], cells)

    # -- running ------------------------------------------------------------------------------------------------------

    def run(self, arguments: Sequence[np.ndarray], donated: Mapping[int, int] | None = None) -> list[np.ndarray]:
        """The outputs, new arrays, for inputs of exactly the graph's types.

        `donated` says for outputs which input's array they may be written into; they must be able to share it
        (`Program.may_share`). An array that is not laid out as the program needs it is left alone.
        """
        keep = []
        results = [np.empty(shape, dtype) for dtype, shape in self._outputs]
        for output, number in (donated or {}).items():
            array = arguments[number]
            if array.flags.carray and array.dtype == self._inputs[number][0]:
                results[output] = array
        with self._lock:
            words, (inputs, outputs) = self._words, self._patches
            for sites, array, (dtype, shape) in zip(inputs, arguments, self._inputs, strict=True):
                if array.shape != shape:
                    raise GraphcError(f"native code for an input of shape {shape} was given {array.shape}")
                if sites is not None:
                    if not (array.flags.c_contiguous and array.flags.aligned) or array.dtype != dtype:
                        array = np.ascontiguousarray(array, dtype)
                        keep.append(array)
                    words[sites[0]] = sites[1] + array.ctypes.data
            for sites, array in zip(outputs, results, strict=True):
                if sites is not None:
                    words[sites[0]] = sites[1] + array.ctypes.data
            run(self.plan, self._threads)
        return results


class _Rows:
    """Instructions to rows: resolves labels and knows which row each instruction became."""

    def __init__(self, builder: PlanBuilder, address: Callable[[Operand], int], slot: Callable[[int], int]) -> None:
        self._builder, self._address, self._slot = builder, address, slot
        self._labels: dict[int, int] = {}
        self._jumps: list[tuple[int, int]] = []

    def add(
        self,
        at: int,
        instruction: Instruction,
        kernels: dict[Kernel, int],
        starts: dict[int, int],
        bases: dict[int, int],
    ) -> None:
        builder = self._builder
        match instruction:
            case Launch(kernel=kernel, tasks=tasks, scratch_bytes=scratch):
                builder.launch(kernels[kernel], self._slot(starts[at]), tasks, scratch_bytes=scratch)
            case Label(name=name):
                self._labels[name] = builder.here
            case Jump(target=target):
                self._jumps.append((builder.jump(), target))
            case Branch(condition=condition, target=target):
                self._jumps.append((builder.branch_false(self._address(condition)), target))
            case Count(counter=counter, reset=reset):
                cell = self._address(counter)
                builder.set(cell, 0) if reset else builder.add(cell, 1)
            case Exhausted(counter=counter, limit=limit, target=target):
                go_on = builder.branch_less(self._address(counter), self._address(limit))
                self._jumps.append((builder.jump(), target))
                builder.aim(go_on)
            case Rebind(launch=launch, operand=operand, counter=counter, stride=stride):
                cell = self._slot(starts[launch] + operand)
                builder.rebind(cell, self._slot(bases[at]), self._address(counter), stride)

    def finish(self) -> None:
        for row, target in self._jumps:
            self._builder.aim(row, self._labels[target])


def _aligned(array: np.ndarray) -> np.ndarray:
    """The array's bytes at an aligned address, copied only when they are not."""
    if array.flags.c_contiguous and array.ctypes.data % ALIGNMENT == 0:
        return array
    copy = aligned_empty(max(array.nbytes, 1))[: array.nbytes].view(array.dtype).reshape(array.shape)
    np.copyto(copy, array)
    return copy
