"""A compiled model as data: the launch plan, a table of int64 rows that native code walks.

This is the only place that knows how a row is laid out; `walk.py` reads rows, everything else builds them here.

A row is eight int64 words, one cache line: `[opcode, operand 1, ..., operand 7]`. Addresses are absolute. A *cell* is
the address of one int64 in memory. `target` is the index of a row.

    LAUNCH        kernel, block, tasks, group, threads, grain
                      Do tasks [0, tasks) of the kernel with the argument block. `group` rows from this one on do not
                      depend on each other and run as one parallel phase (1: this row alone). At most `threads` threads
                      take part (0: all of the run); one claims at least `grain` tasks at a time.
    JUMP          target
    BRANCH_FALSE  byte, target           jump when the byte at that address is 0 (a bool tensor of one element)
    BRANCH_LESS   cell, cell, target     jump when the first int64 is less than the second
    SET           cell, value            *cell = value
    ADD           cell, value            *cell += value
    REBIND        cell, base, counter, stride
                      *cell = *base + *counter * stride, where base and counter are cells: point a kernel's argument at
                      the slice of this iteration
    TICK          clock                  for profiles; `clock` is three cells in a row: [address of the cell that holds
                      the time of the last tick, sum, count]. Adds the nanoseconds since the last tick to the sum,
                      counts, and makes now the last tick
    END

One thread evaluates control flow, so cells need no care: a kernel's results are visible to the rows after it.

A plan can be written before anything has an address (`relocatable.py`): `ADDRESSES` says which words of a row are some.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ADDRESSES", "ROW", "Op", "Plan", "PlanBuilder"]

ROW = 8
"""int64 words in a row."""

MAX_TASKS = 1 << 31
"""A launch (or a group of them) has fewer tasks than this."""


class Op(IntEnum):
    """Opcodes: the first word of a row."""

    END = 0
    LAUNCH = 1
    JUMP = 2
    BRANCH_FALSE = 3
    BRANCH_LESS = 4
    SET = 5
    ADD = 6
    REBIND = 7
    TICK = 8


#: the words of a row that are addresses of memory, by opcode; a launch also holds its kernel's, in word 1
ADDRESSES = {
    Op.LAUNCH: (2,),
    Op.BRANCH_FALSE: (1,),
    Op.BRANCH_LESS: (1, 2),
    Op.SET: (1,),
    Op.ADD: (1,),
    Op.REBIND: (1, 2, 3),
}


@dataclass(frozen=True)
class Plan:
    """A finished plan: rows, and what must stay alive and be at hand while it runs.

    Attributes:
        rows: int64[n, 8], C-contiguous, ends with END.
        scratch_bytes: private memory each thread needs, for the hungriest kernel.
        keep: objects that own the memory the rows point into.
        address: of the first row.
    """

    rows: NDArray[np.int64]
    scratch_bytes: int = 0
    keep: tuple[Any, ...] = ()
    address: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", int(self.rows.ctypes.data))


@dataclass
class PlanBuilder:
    """Writes a plan row by row; each method appends one row and returns its index.

    A jump to a row that does not exist yet takes `target=-1`, and `aim` fills it in.
    """

    scratch_bytes: int = 0
    keep: list[Any] = field(default_factory=list)
    _rows: list[list[int]] = field(default_factory=list)

    @property
    def here(self) -> int:
        """Index of the row that the next call appends: a target to jump back to."""
        return len(self._rows)

    def launch(
        self, kernel: int, block: int, tasks: int = 1, *, threads: int = 0, grain: int = 1, scratch_bytes: int = 0
    ) -> int:
        """Run the kernel at address `kernel` for tasks [0, tasks), with `scratch_bytes` of private memory a thread."""
        if not kernel or not block:
            raise ValueError(f"a launch needs a kernel and a block, got addresses {kernel} and {block}")
        if not 0 <= tasks < MAX_TASKS:
            raise ValueError(f"a launch has 0 to {MAX_TASKS - 1} tasks, got {tasks}")
        self.scratch_bytes = max(self.scratch_bytes, scratch_bytes)
        return self._append(Op.LAUNCH, kernel, block, tasks, 1, max(0, threads), max(1, grain))

    def group(self, first: int) -> None:
        """Say that the launches from row `first` on do not depend on each other: one phase for all of them."""
        rows = self._rows[first:]
        if not rows or any(row[0] != Op.LAUNCH for row in rows):
            raise ValueError(f"rows {first} to {len(self._rows) - 1} are not all launches")
        if sum(row[3] for row in rows) >= MAX_TASKS:
            raise ValueError(f"a group has at most {MAX_TASKS - 1} tasks together")
        rows[0][4] = len(rows)

    def jump(self, target: int = -1) -> int:
        """Go on at row `target`."""
        return self._append(Op.JUMP, target)

    def branch_false(self, condition: int, target: int = -1) -> int:
        """Go on at row `target` when the byte at address `condition` is 0."""
        return self._append(Op.BRANCH_FALSE, condition, target)

    def branch_less(self, left: int, right: int, target: int = -1) -> int:
        """Go on at row `target` when the int64 at `left` is less than the int64 at `right`."""
        return self._append(Op.BRANCH_LESS, left, right, target)

    def set(self, cell: int, value: int) -> int:
        """*cell = value."""
        return self._append(Op.SET, cell, value)

    def add(self, cell: int, value: int) -> int:
        """*cell += value."""
        return self._append(Op.ADD, cell, value)

    def rebind(self, cell: int, base: int, counter: int, stride: int) -> int:
        """*cell = *base + *counter * stride (in bytes, when the cell is an argument slot that holds an address)."""
        return self._append(Op.REBIND, cell, base, counter, stride)

    def tick(self, clock: int) -> int:
        """Add the time since the last tick to the sum of the three cells at `clock` (see the module)."""
        return self._append(Op.TICK, clock)

    def aim(self, row: int, target: int | None = None) -> None:
        """Let the jump or branch in `row` go to `target`, or to the next row to be appended."""
        slot = _TARGET.get(Op(self._rows[row][0]))
        if slot is None:
            raise ValueError(f"row {row} is {Op(self._rows[row][0]).name}, which does not jump")
        self._rows[row][slot] = self.here if target is None else target

    def cells(self, *values: int) -> list[int]:
        """Addresses of new int64 words in memory that the plan owns, with these first values."""
        memory = np.array(values, np.int64)
        self.keep.append(memory)
        return [int(memory.ctypes.data) + 8 * i for i in range(len(values))]

    def build(self) -> Plan:
        """The finished plan, an END appended. Raises ValueError when a jump leads nowhere."""
        self._append(Op.END)
        for index, row in enumerate(self._rows):
            slot = _TARGET.get(Op(row[0]))
            if slot is not None and not 0 <= row[slot] < len(self._rows):
                raise ValueError(f"row {index} ({Op(row[0]).name}) jumps to row {row[slot]} of {len(self._rows)}")
        return Plan(np.array(self._rows, np.int64).reshape(-1, ROW), self.scratch_bytes, tuple(self.keep))

    def _append(self, op: Op, *operands: int) -> int:
        row = [int(op), *operands]
        self._rows.append(row + [0] * (ROW - len(row)))
        return len(self._rows) - 1


# Where a row's target stands, for the opcodes that have one.
_TARGET = {Op.JUMP: 1, Op.BRANCH_FALSE: 2, Op.BRANCH_LESS: 3}
