"""`graphc inspect`: what a model is compiled to, without compiling any kernel's machine code."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from graphc.cli import show
from graphc.cli.draw import draw_memory
from graphc.cli.dryrun import DryRun, dry_run
from graphc.cli.feeds import feeds_for
from graphc.errors import OptionError
from graphc.ir.graph import Graph, location_of
from graphc.kernels.ir import Launch
from graphc.kernels.program import Branch, Count, Exhausted, Instruction, Jump, Label, Place, Program, Rebind
from graphc.options import Options
from graphc.runtime.executable import Source
from graphc.runtime.planned import Planned

__all__ = ["inspect"]


def inspect(arguments: argparse.Namespace) -> int:
    """The command; returns its exit code."""
    from graphc.api import source_of

    if arguments.save and not arguments.memory:
        raise OptionError("--save draws the memory plan: give --memory too")
    options = Options.of(
        threads=arguments.threads, precision=arguments.precision, level=arguments.level, disable=arguments.disable
    )
    source = source_of(arguments.model)
    seen = dry_run(source, feeds_for(source.inputs, shapes=arguments.shape), options, explain=arguments.why is not None)
    sections: list[Callable[[], None]] = []
    if arguments.after is not None:
        sections.append(partial(_after, seen, arguments.after))
    if arguments.passes:
        sections.append(partial(_passes, seen))
    if arguments.plan:
        sections.append(partial(_plans, seen))
    if arguments.kernels is not None:
        sections.append(partial(_kernels, seen, arguments.kernels))
    if arguments.memory:
        sections.append(partial(_memory, seen, arguments.save))
    if arguments.host:
        sections.append(partial(_host, seen))
    if arguments.why is not None:
        sections.append(partial(_why, seen, arguments.why))
    for section in sections or [partial(_summary, source, seen)]:
        section()
    return 0


# --- the graph -------------------------------------------------------------------------------------------------------


def _after(seen: DryRun, name: str) -> None:
    """The graph as text after a pass; several graphs when host stages cut the model into stretches."""
    if name == "import":
        print(seen.imported, end="")
        return
    if name == "last":
        graphs = seen.graphs or [seen.prepared]
    else:
        graphs = [record.graph for record in seen.passes if record.name == name]
        if not graphs:
            known = dict.fromkeys(record.name for record in seen.passes)
            raise OptionError(f"--after {name}: no such pass; there are import, {', '.join(known)}, last")
    for graph in graphs:
        print(graph, end="")


def _passes(seen: DryRun) -> None:
    rows = [("import", len(seen.imported.nodes), "", show.seconds_text(seen.import_seconds))]
    rows += [
        (record.name, len(record.graph.nodes), "" if record.changed else "no change", show.seconds_text(record.seconds))
        for record in seen.passes
    ]
    show.table(["pass", "nodes", "", "time"], rows, right=["nodes", "time"])


def _host(seen: DryRun) -> None:
    if not seen.host:
        print("Everything runs in kernels; nothing runs on the host.")
        return
    rows = [
        (node.op.name, ", ".join(map(str, node.types)), ", ".join(location_of(node)) or "-", reason)
        for node, reason in seen.host
    ]
    show.table(["on the host", "result", "from", "because"], rows)


def _why(seen: DryRun, rule: str) -> None:
    """What rules did: counts over the whole graph, or every node that one rule (or all of a prefix) met."""
    events = [e for e in seen.trace.events if e.rule.startswith(rule)]
    if rule and not events:
        known = sorted({e.rule for e in seen.trace.events})
        raise OptionError(f"--why {rule}: no rule of that name met a node; there are {', '.join(known)}")
    if rule:
        rows = [(e.rule, e.op, ", ".join(e.where) or "-", e.why or "applied") for e in dict.fromkeys(events)]
        show.table(["rule", "at", "from", ""], rows)
        return
    applied = Counter(e.rule for e in events if not e.why)
    refused = Counter((e.rule, e.op, e.why) for e in events if e.why)
    show.table(["applied", "times"], applied.most_common(), right=["times"])
    show.table(["not applied", "at", "because", "times"], ((*e, n) for e, n in refused.most_common()), right=["times"])


# --- the plan --------------------------------------------------------------------------------------------------------


def _plans(seen: DryRun) -> None:
    for stretch in seen.stretches:
        program = stretch.program
        rows = [(at, *_row(stretch, program, i)) for at, i in enumerate(program.instructions)]
        show.table(
            ["step", "kernel", "tasks", "bytes", "computes"],
            rows,
            title=_title(seen, stretch),
            right=["step", "tasks", "bytes"],
        )
    _unplanned(seen)


def _row(stretch: Planned, program: Program, instruction: Instruction) -> tuple[str, str, str, str]:
    """Kernel, tasks, bytes of the buffers it touches, what it computes."""
    match instruction:
        case Launch():
            touched = {o.buffer for o in instruction.operands}
            size = show.bytes_text(sum(program.buffers[b].nbytes for b in touched))
            return stretch.sources[instruction.kernel].name, str(instruction.tasks), size, ", ".join(instruction.nodes)
        case Label(name=name):
            return f"L{name}:", "", "", ""
        case Jump(target=target):
            return "jump", "", "", f"to L{target}"
        case Branch(target=target):
            return "branch", "", "", f"to L{target} unless the condition holds"
        case Count(reset=reset):
            return "count", "", "", "from zero" if reset else "one more"
        case Exhausted(target=target):
            return "limit", "", "", f"to L{target} when the count has reached it"
        case Rebind(launch=launch):
            return "rebind", "", "", f"an operand of step {launch} to the slice of this turn"


def _kernels(seen: DryRun, name: str) -> None:
    """Generated source, each kernel once, with a comment that says how often and for what it is launched."""
    uses: Counter[str] = Counter()
    example: dict[str, Launch] = {}
    texts: dict[str, str] = {}
    for stretch in seen.stretches:
        for launch in stretch.program.launches:
            source = stretch.sources[launch.kernel]
            uses[source.name] += 1
            example.setdefault(source.name, launch)
            texts[source.name] = source.text
    chosen = [n for n in texts if name in n]
    if name and not chosen:
        raise OptionError(f"--kernels {name}: no kernel's name contains that; there are {', '.join(texts)}")
    for n in chosen:
        nodes = ", ".join(example[n].nodes) or "nothing that has a name"
        print(f"# {n}: {uses[n]} launch{'es' if uses[n] > 1 else ''}, the first for {nodes}\n{texts[n]}")


def _memory(seen: DryRun, save: str | None) -> None:
    rows = []
    for number, stretch in enumerate(seen.stretches):
        m = stretch.memory
        ratio = f"{m.arena / m.lower_bound:.3f}" if m.lower_bound else "-"
        sizes = (show.bytes_text(n) for n in (m.arena, m.lower_bound))
        rows.append((number, *sizes, ratio, show.bytes_text(m.unshared), show.bytes_text(m.constants)))
    numbers = ["arena", "lower bound", "ratio", "without sharing", "constants"]
    show.table(["stretch", *numbers], rows, right=numbers)
    if save:
        if not seen.stretches:
            raise OptionError("--save: nothing is planned, so there is nothing to draw")
        largest = max(seen.stretches, key=lambda s: s.memory.arena)
        Path(save).write_text(draw_memory(largest), encoding="utf-8")
        show.note(f"wrote {save}")
    _unplanned(seen)


def _unplanned(seen: DryRun) -> None:
    if seen.unplanned:
        show.note(f"{seen.unplanned} stretches depend on sizes that only a run knows; they are planned then, not shown")


def _title(seen: DryRun, stretch: Planned) -> str:
    return f"stretch {seen.stretches.index(stretch)} of {len(seen.stretches)}" if len(seen.stretches) > 1 else ""


# --- the summary -----------------------------------------------------------------------------------------------------


def _summary(source: Source, seen: DryRun) -> None:
    show.heading(source.name)
    rows = [("input", p.name, p.type) for p in source.inputs] + [("output", p.name, p.type) for p in source.outputs]
    show.table(["", "name", "type"], rows)
    before, after = _operations(seen.imported), Counter[str]()
    for graph in seen.graphs or [seen.prepared]:
        after += _operations(graph)
    names = sorted(before | after, key=lambda n: (-before[n], -after[n], n))
    show.table(
        ["operation", "imported", "optimised"],
        [(n, before[n] or "", after[n] or "") for n in names],
        right=["imported", "optimised"],
    )
    launches = [x for s in seen.stretches for x in s.program.launches]
    kernels = {s.sources[x.kernel].name for s in seen.stretches for x in s.program.launches}
    out = show.console().print
    out(f"{len(launches)} launches of {len(kernels)} kernels")
    for stretch in seen.stretches:
        m = stretch.memory
        arrays = sum(b.nbytes for b in stretch.program.buffers if b.place in (Place.INPUT, Place.OUTPUT))
        out(
            f"memory: {show.bytes_text(m.arena)} planned, lower bound {show.bytes_text(m.lower_bound)}; "
            f"{show.bytes_text(m.constants)} of constants, {show.bytes_text(arrays)} of inputs and outputs"
        )
    out(f"on the host: {len(seen.host)} operations (--host says why)" if seen.host else "on the host: nothing")
    _unplanned(seen)
    out("more: --after PASS, --passes, --plan, --kernels, --memory, --host, --why")


def _operations(graph: Graph) -> Counter[str]:
    """How often each operation occurs; inputs and constants are not operations."""
    return Counter(n.op.name for n in graph.nodes if n.op.name not in ("input", "constant"))
