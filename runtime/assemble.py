"""A static graph, compiled: its program placed in memory, its kernels loaded, its launch plan written.

`CompiledGraph` is what runs. Between its first and its last kernel there is no Python and no allocation: a call writes
the addresses of the caller's arrays into the argument blocks and enters the native driver.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from graphc.ir.graph import Graph, Value
from graphc.kernels.ir import Kernel, Launch, Operand
from graphc.kernels.program import Branch, Count, Exhausted, Instruction, Jump, Label, Place, Rebind
from graphc.options import Options
from graphc.runtime.cache import aligned
from graphc.runtime.footprint import Footprint
from graphc.runtime.native import kernel_addresses
from graphc.runtime.plan import Plan, PlanBuilder
from graphc.runtime.planned import planned
from graphc.runtime.progress import compiling
from graphc.runtime.relocatable import ARENA, BLOCKS, CONSTANTS, PlacedPlan, Ports, RelocatablePlan, Sites, place

__all__ = ["Clocks", "CompiledGraph"]


class Clocks:
    """What the launches of a program, in its order, took since they are measured."""

    def __init__(self, launches: list[Launch], cells: np.ndarray) -> None:
        self.launches, self._cells = launches, cells

    def read(self) -> np.ndarray:
        """float64[launches, 2], a copy: seconds altogether, and how often it ran. Not while a run is under way."""
        return self._cells[:-1, 1:] * (1e-9, 1.0)


class CompiledGraph:
    """A graph of static shapes, ready to run. Runs take turns: the arena is one.

    `kernels` are its kernels as (name, text), `relocatable` is its launch plan before it got addresses, `constants` are
    what that counts as constants.
    """

    def __init__(self, graph: Graph, options: Options) -> None:
        self.graph, self.options = graph, options
        plan = planned(graph, options)
        self.program, self.memory, self.blocks, self.offsets = plan.program, plan.memory, plan.blocks, plan.offsets
        self.sources = plan.sources
        self.kernels = [(source.name, source.text) for source in self.sources.values()]
        with compiling(options.progress) as progress:
            addresses = kernel_addresses(self.kernels, progress=progress)
        self.constants = self._place_constants()
        self.relocatable = self._write_plan()
        at = [int(array.ctypes.data) for array in self.constants]
        self._placed = PlacedPlan(self.relocatable, addresses, at, self.constants, options.thread_count)
        self.plan = self._placed.plan

    def run(self, arguments: Sequence[np.ndarray], donated: Mapping[int, int] | None = None) -> list[np.ndarray]:
        """The outputs, new arrays, for inputs of exactly the graph's types; see `PlacedPlan.run`."""
        return self._placed.run(arguments, donated)

    @property
    def footprint(self) -> Footprint:
        """What it takes, in numbers."""
        memory = self.memory
        return Footprint(len(self.program.launches), memory.arena, memory.lower_bound, memory.constants)

    @property
    def runner(self) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
        """What `run` comes to, for those who call often."""
        return self._placed.run

    def _place_constants(self) -> list[np.ndarray]:
        """The constants at aligned addresses; `_regions` knows which buffer each is."""
        self._regions: dict[int, int] = {}
        placed: list[np.ndarray] = []
        for i, b in enumerate(self.program.buffers):
            if b.place is Place.CONSTANT and b.array is not None:
                self._regions[i] = CONSTANTS + len(placed)
                placed.append(aligned(b.array))
        return placed

    def _place(self, operand: Operand) -> int:
        """Where an operand is; for the caller's arrays the offset in them, to which a run adds the array's address."""
        buffer = self.program.buffers[operand.buffer]
        match buffer.place:
            case Place.ARENA:
                return place(ARENA, self.offsets[operand.buffer] + operand.byte_offset)
            case Place.CONSTANT:
                return place(self._regions[operand.buffer], operand.byte_offset)
        return operand.byte_offset

    def _write_plan(self) -> RelocatablePlan:
        """Argument blocks, one after the other, and the rows that refer to them."""
        program, graph = self.program, self.graph
        starts: dict[int, int] = {}
        words: list[int] = []
        slots: list[int] = []
        sites: dict[tuple[Place, int], list[tuple[int, int]]] = {}

        def word(operand: Operand) -> int:
            buffer = program.buffers[operand.buffer]
            if buffer.place in (Place.INPUT, Place.OUTPUT):
                sites.setdefault((buffer.place, buffer.number), []).append((len(words), operand.byte_offset))
            else:
                slots.append(len(words))
            words.append(self._place(operand))
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

        self._slots = starts, bases
        plan = self._write_rows(PlanBuilder())
        return RelocatablePlan(
            rows=plan.rows,
            blocks=np.array(words, np.int64),
            slots=np.array(slots, np.int64),
            inputs=_ports(graph.inputs),
            outputs=_ports(graph.outputs),
            input_sites=_sites(sites, Place.INPUT, len(graph.inputs)),
            output_sites=_sites(sites, Place.OUTPUT, len(graph.outputs)),
            arena=self.memory.arena,
            scratch=plan.scratch_bytes,
            # a plan without parallel launches never wakes the other threads
            is_parallel=any(launch.tasks > 1 for launch in program.launches),
        )

    def _write_rows(self, builder: PlanBuilder, clocks: Mapping[int, int] | None = None) -> Plan:
        """The rows; after the launch at instruction i the time goes to the clock at address `clocks[i]`, if any."""
        numbers = {kernel: 1 + number for number, kernel in enumerate(self.sources)}
        rows = _Rows(builder, self._place, lambda i: place(BLOCKS, 8 * i))
        for at, instruction in enumerate(self.program.instructions):
            rows.add(at, instruction, numbers, *self._slots)
            if clocks is not None and at in clocks:
                builder.tick(clocks[at])
        rows.finish()
        return builder.build()

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
        plan = self._write_rows(builder, {at: a for (at, _), a in zip(launches, addresses, strict=True)})
        self._placed.walk(plan)
        self.plan = self._placed.plan
        return Clocks([launch for _, launch in launches], cells)


def _ports(values: Sequence[Value]) -> Ports:
    return tuple((v.dtype.numpy, v.tensor.static_shape) for v in values)


def _sites(sites: Mapping[tuple[Place, int], list[tuple[int, int]]], where: Place, count: int) -> Sites:
    """The words that hold each argument's (or result's) address, and what is added to it in each."""
    found = [np.array(sites.get((where, k), []), np.int64).reshape(-1, 2) for k in range(count)]
    return tuple((pairs[:, 0].copy(), pairs[:, 1].copy()) for pairs in found)


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
