"""Loop nests as Numba source.

The text follows the nest: the argument block is unpacked, then loops in the nest's order. Three arrangements differ:

- plain: LLVM vectorises the innermost loop; a short innermost loop of known length is written as vectors instead;
- panel: the last outer loop runs innermost, and reductions keep a row of accumulators (see `panel_loop`);
- tiled: where loads are contiguous along one loop and stores along another, both go in small squares, and a plain copy
  turns the squares around in registers.

A task is `chunk` steps of the outermost loop; `chunk` is the last of the launch's integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc.codegen.scalar import INNERMOST, Level, Writer, identity_of, nested, register_type
from graphc.ir.scalar import Scalar, const, load, rewrite, walk
from graphc.kernels.index import substitute
from graphc.kernels.ir import LoopNest, Map, Reduce
from graphc.kernels.loops import (
    PANEL,
    expressions,
    inner_extents,
    is_turned_copy,
    panel_loop,
    rewritten,
    step_of,
    tile_loops,
    unit_step,
    vector_loop,
)

__all__ = ["loop_source"]

#: the side of the squares in which a transposition goes, in elements
_TILE = 16
#: the side of the squares that a copy turns around in registers, and how far it goes along one page of memory at a time
_TURN, _STRIP = 8, 64
_COMBINE = {"add": "{0} + {1}", "mul": "{0} * {1}", "and": "{0} & {1}", "or": "{0} | {1}"}


def loop_source(kernel: LoopNest, name: str) -> str:
    """The module that defines the kernel `name`."""
    return _Source(kernel).text(name)


class _Source:
    """The state of one kernel's printing."""

    def __init__(self, kernel: LoopNest) -> None:
        self.panel = panel_loop(kernel)
        self.tiles = tile_loops(kernel)
        self.vector, self.lanes = vector_loop(kernel)
        inputs = len(kernel.buffers) - kernel.outputs
        self.buffers = [f"x{k}" if k < inputs else f"out{k - inputs}" for k in range(len(kernel.buffers))]
        reads = [f"{b}[{{}}]" for b in self.buffers]
        if self.lanes:
            self.panel = None
            kernel = _vectorised(kernel, self.vector)
            reads += [f"load({b}, {{}})" for b in self.buffers]
        self.kernel = kernel
        self.turned = self.tiles is not None and is_turned_copy(kernel, *self.tiles)
        self.inner = inner_extents(kernel)
        self.used: set[str] = {"operand"}
        self.extents: list[str] = []  # the text of each loop's extent
        self.top = Level("")
        self.writer = Writer([self.top], reads, self.used)

    # -- the module -------------------------------------------------------------------------------------------------

    def text(self, name: str) -> str:
        self._unpack()
        self._outer_loops()
        for stage in self.kernel.stages:
            self._stage(stage)
        body = nested(self.writer.levels)
        header = []
        if self.lanes or self.turned:
            makers = {"load": "loader", "store": "storer", "repeat": "repeater", "transpose": "transposer"}
            made = {f: m for f, m in makers.items() if any(f"{f}(" in line for line in body)}
            self.used |= set(made.values())
            header = ["", f"{', '.join(made)} = {', '.join(f'{m}({self.lanes or _TURN})' for m in made.values())}"]
        imports = _wrapped(f"from graphc.codegen.cpu.intrinsics import {', '.join(sorted(self.used))}")
        function = [f"def {name}(block, first, last, scratch):", *(f"    {line}" for line in body)]
        return "\n".join([f'"""{self._summary()}"""', "", imports, *header, "", "", *function, ""])

    def _summary(self) -> str:
        """One line that says what the kernel computes."""
        kinds = [s.combine if isinstance(s, Reduce) else "map" for s in self.kernel.stages]
        names = zip(self.buffers, self.kernel.buffers, strict=True)
        return f"{', '.join(kinds)}: {', '.join(f'{n} {t}' for n, t in names)}."

    def _unpack(self) -> None:
        """Names for the argument block's slots: buffers, then integers."""
        kernel, lines = self.kernel, self.top.lines
        scopes = self._scopes()
        same = {b: a for a, b in sorted(kernel.in_place, reverse=True)}
        changed = {a: b for b, a in same.items()}
        for k, (buffer, dtype) in enumerate(zip(self.buffers, kernel.buffers, strict=True)):
            if k in same:  # one pointer: of two that may meet LLVM cannot tell that they do so element by element
                lines.append(f"{buffer} = {self.buffers[same[k]]}")
                continue
            lines.append(
                f'{buffer} = operand(block, {k}, "{dtype}", "{scopes[k]}", "{" ".join(self._others(changed.get(k, k), scopes))}")'
            )
        slots = len(kernel.buffers)
        read = {e.attr for e in walk([*expressions(kernel), *kernel.extents, *self.inner]) if e.op == "param"}
        for k in sorted(read):
            lines.append(f"p{k} = block[{slots + k}]")
        if kernel.extents:
            lines.append(f"chunk = block[{slots + kernel.params - 1}]")
        self.extents = [f"p{e.attr}" if e.op == "param" else str(e.attr) for e in (*kernel.extents, *self.inner)]
        if self.panel is not None:
            reductions = [s for s in kernel.stages if isinstance(s, Reduce)]
            self.used.add("workspace")
            others = " ".join(dict.fromkeys(scopes))
            for number, s in enumerate(reductions):
                dtype = register_type(s.value.dtype)
                apart = " ".join([others, *(f"r{t.result}" for t in reductions if t is not s)])
                lines.append(
                    f'r{s.result} = workspace(scratch, {8 * PANEL * number}, "{dtype}", "r{s.result}", "{apart}")'
                )

    def _scopes(self) -> list[str]:
        """A name for each buffer's memory: one for an input and an output that may share it."""
        scopes = list(self.buffers)
        for a, b in sorted(self.kernel.aliased):
            old, new = scopes[b], scopes[a]
            scopes = [new if s == old else s for s in scopes]
        return scopes

    def _others(self, k: int, scopes: Sequence[str]) -> list[str]:
        """What buffer k surely does not overlap: for an input the outputs' memory, for an output everybody else's."""
        first_output = len(self.buffers) - self.kernel.outputs
        candidates = scopes[first_output:] if k < first_output else scopes
        rows = [f"r{s.result}" for s in self.kernel.stages if isinstance(s, Reduce)] if self.panel is not None else []
        return [s for s in dict.fromkeys(candidates) if s != scopes[k]] + rows

    # -- loops ------------------------------------------------------------------------------------------------------

    def _range(self, loop: int) -> str:
        return "first_step, last_step" if loop == 0 and self.kernel.extents else self.extents[loop]

    def _open(self, loop: int, bounds: str | None = None) -> None:
        self.writer.levels.append(Level(f"for i{loop} in range({bounds or self._range(loop)}):"))
        self.writer.depth[loop] = len(self.writer.levels) - 1

    def _outer_loops(self) -> None:
        outer = len(self.kernel.extents)
        if outer:
            self.top.lines.append(f"first_step, last_step = first * chunk, min(last * chunk, {self.extents[0]})")
        if self.tiles is not None:
            self._tiled_loops(*self.tiles)
            return
        for loop in range(outer):
            if loop == self.panel:
                self._open_panel(loop)
            elif loop != self.vector:
                self._open(loop)

    def _open_panel(self, loop: int) -> None:
        """The loop over panels; the loop inside a panel comes innermost, in each stage."""
        if self.extents[loop].isdigit():
            return
        low, high = ("first_step", "last_step") if loop == 0 else ("0", self.extents[loop])
        level = Level(f"for panel in range({low}, {high}, {PANEL}):")
        level.lines.append(f"panel_end = min(panel + {PANEL}, {high})")
        self.writer.levels.append(level)

    def _panel_range(self, loop: int) -> tuple[str, str]:
        """The bounds of the loop inside a panel, and the place of its accumulator."""
        if self.extents[loop].isdigit():
            return self.extents[loop], f"i{loop}"
        return "panel, panel_end", f"i{loop} - panel"

    def _tiled_loops(self, rows: int, columns: int) -> None:
        for loop in range(len(self.kernel.extents)):
            if loop not in (rows, columns):
                self._open(loop)
        sides = {rows: _STRIP, columns: _TURN} if self.turned else {rows: _TILE, columns: _TILE}
        tiled = [k for k in (rows, columns) if self.turned or not self.extents[k].isdigit()]
        for loop in tiled:
            low, high = ("first_step", "last_step") if loop == 0 else ("0", self.extents[loop])
            level = Level(f"for t{loop} in range({low}, {high}, {sides[loop]}):")
            level.lines.append(f"end{loop} = min(t{loop} + {sides[loop]}, {high})")
            self.writer.levels.append(level)
        if self.turned:
            self._turn(rows, columns)
        for loop in (rows, columns):
            start = f"i{loop}" if self.turned and loop == rows else f"t{loop}"
            self._open(loop, f"{start}, end{loop}" if loop in tiled else None)

    def _turn(self, rows: int, columns: int) -> None:
        """The whole squares of a tile of a copy; the loops after it do what is left."""
        writer, ((store,),) = self.writer, (stage.stores for stage in self.kernel.stages if isinstance(stage, Map))
        source, point = store.value.args[0], len(writer.levels) - 1
        writer.levels[point].lines.append(f"i{rows}, i{columns} = t{rows}, t{columns}")
        writer.levels.append(Level(f"while i{rows} + {_TURN} <= end{rows} and i{columns} + {_TURN} <= end{columns}:"))
        writer.depth[rows] = writer.depth[columns] = point + 1
        step, stride = step_of(store.offset, rows), step_of(source, columns)
        assert step is not None
        assert stride is not None
        at, gap, start, pitch = writer.values([store.offset, step, source, stride])
        out, x = self.buffers[store.buffer], self.buffers[store.value.attr]
        writer.levels[-1].lines += [f"transpose({out}, {at}, {gap}, {x}, {start}, {pitch})", f"i{rows} += {_TURN}"]
        self._close(point)

    def _inner_loops(self, stage: Map | Reduce) -> None:
        outer = len(self.kernel.extents)
        for k in range(len(stage.extents)):
            if outer + k != self.vector:
                self._open(outer + k)
        if self.panel is not None:
            self._open(self.panel, self._panel_range(self.panel)[0])

    # -- stages -----------------------------------------------------------------------------------------------------

    def _stage(self, stage: Map | Reduce) -> None:
        point = len(self.writer.levels) - 1
        if isinstance(stage, Reduce):
            self._reduce(stage, point)
        else:
            self._inner_loops(stage)
            self._stores(stage)
            self._close(point)

    def _close(self, point: int) -> None:
        """The loops inside the outer point are complete: they become lines of it."""
        levels = self.writer.levels
        lines = nested(levels[point + 1 :])
        self.writer.leave(point)
        levels[point].lines += lines

    def _stores(self, stage: Map | Reduce) -> None:
        """The stores of a stage; what they write is computed before the first of them changes memory."""
        outputs = len(self.buffers) - self.kernel.outputs
        changing = bool(self.kernel.aliased) or any(
            e.op == "load" and outputs <= e.attr % len(self.buffers) for e in walk([s.value for s in stage.stores])
        )
        several = len(stage.stores) > 1 or isinstance(stage, Reduce)
        values = self.writer.values([s.value for s in stage.stores], named=changing and several)
        offsets = self.writer.values([s.offset for s in stage.stores])
        for s, value, offset in zip(stage.stores, values, offsets, strict=True):
            target = self.buffers[s.buffer]
            line = f"store({target}, {offset}, {value})" if self.lanes else f"{target}[{offset}] = {value}"
            self.writer.levels[-1].lines.append(line)

    def _reduce(self, stage: Reduce, point: int) -> None:
        """An accumulator, and the loops that combine into it; in a panel, a row of accumulators."""
        writer, name = self.writer, f"r{stage.result}"
        start = identity_of(stage.combine, stage.value.dtype)
        self.used |= {word for word in (register_type(stage.value.dtype).name, "inf") if word in start}
        if self.panel is None:
            writer.levels[point].lines.append(f"{name} = repeat({start})" if self.lanes else f"{name} = {start}")
            result = name
        else:
            bounds, place = self._panel_range(self.panel)
            writer.levels[point].lines += [f"for i{self.panel} in range({bounds}):", f"    {name}[{place}] = {start}"]
            result = f"{name}[{place}]"
        self._inner_loops(stage)
        value, *_ = writer.values([stage.value, *(s.value for s in stage.stores)], named=bool(stage.stores))
        self._stores(stage)
        writer.levels[-1].lines.append(f"{result} = {self._combined(stage, result, value)}")
        self._close(point)
        writer.temps[stage.result] = (result, point if self.panel is None else INNERMOST)

    def _combined(self, stage: Reduce, result: str, value: str) -> str:
        t = register_type(stage.value.dtype)
        if stage.combine in ("maximum", "minimum"):
            self.used.add(stage.combine)
            return f"{stage.combine}({result}, {value})"
        text = _COMBINE[stage.combine].format(
            result, value if value.isidentifier() or stage.combine == "add" else f"({value})"
        )
        if t.is_integer and t.name != "int64":
            self.used.add(t.name)
            return f"{t}({text})"
        return text


def _vectorised(kernel: LoopNest, loop: int) -> LoopNest:
    """Without counter `loop`; a load that moves with it reads buffer `k + len(buffers)`, the vector view of buffer k."""
    buffers = len(kernel.buffers)
    gone = {loop: const(0)}

    def change(e: Scalar) -> Scalar:
        moving = rewrite(
            e,
            lambda x: (
                load(x.attr + buffers, x.args[0], x.dtype) if x.op == "load" and unit_step(x.args[0], loop) else None
            ),
        )
        return substitute(moving, gone)

    return replace(kernel, stages=tuple(rewritten(s, change) for s in kernel.stages))


def _wrapped(line: str) -> str:
    """An import line, broken when it is long."""
    if len(line) <= 120:
        return line
    module, _, names = line.partition(" import ")
    rows, row = [], "   "
    for n in names.split(", "):
        if len(row) + len(n) > 110:
            rows.append(row)
            row = "   "
        row += f" {n},"
    return "\n".join([f"{module} import (", *rows, row, ")"])
