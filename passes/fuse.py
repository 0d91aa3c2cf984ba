"""Fusion: groups of operations become one kernel each, so that what one writes for the other stays in registers.

Groups are planned on the graph as it is, by the *kind* of operations, and applied once at the end. A group grows from
one operation, its root, towards the operands: an operation joins when everything that reads it is in the group already.
So a group has one way out, its root, and a cycle through it cannot exist.

Two sorts of groups:

- an anchor (a convolution, a matrix product, a window) with the elementwise operations behind it, its epilogue;
- elementwise, injective and reducing operations that make one loop nest, such as a softmax or a layer normalisation;
  `graphc.kernels.lower.why_not` has the last word on these.

A result that is also wanted rounded (a residual, and the operand of a convolution in bfloat16) is stored in both forms
by the kernel that computes it: the cast is a second way out, which nothing inside of the group depends on.

Views (transposes, slices, broadcasts, most reshapes) cost nothing where their reader can follow strides, so a group
never begins or ends with one. What is not done is recorded with the reason.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Container, Iterable, Set

from graphc.ir.bodies import deep
from graphc.ir.graph import Graph, Node, Value, location, make, remake
from graphc.ir.rules import located
from graphc.ir.trace import is_explaining, record, refuse
from graphc.ir.types import TensorType, Type
from graphc.kernels.lower import why_not
from graphc.ops.fusion import body_of, fusion
from graphc.ops.spec import NEST_KINDS, Kind, Layout, has_kernel

__all__ = ["fuse", "plan"]

#: operands and results of a fused kernel, at most: each takes a register for its address
OPERANDS = 12
#: operations of a fused kernel, at most
OPERATIONS = 64


def fuse(graph: Graph) -> Graph:
    """The graph with fusions in place of groups of operations; shapes must be known."""
    return deep(lambda g: _apply(g, _Planner(g)))(graph)


class Group:
    """Operations that become one kernel; `root` gives its result. Members stand as they joined, root first."""

    __slots__ = ("lowered", "members", "numbers", "reads", "root", "rounded")
    #: the body, and why it is not one loop nest, once the planner has asked
    lowered: tuple[Graph, str | None] | None

    def __init__(self, root: Node, numbers: Set[Value] = frozenset(), others: Iterable[Node] = ()) -> None:
        self.root, self.numbers = root, numbers
        self.rounded: Node | None = None  # a cast of the root's result, stored beside it
        self.members: dict[Node, None] = {}
        self.reads: dict[Value, None] = {}
        self.add(root)
        for node in others:
            self.add(node)

    def add(self, node: Node) -> None:
        """Take in one more operation, after all members that read it."""
        self.members[node] = None
        self.lowered = None
        for v in node.outputs:
            self.reads.pop(v, None)
        for v in node.inputs:
            if v.node not in self.members and v not in self.numbers:
                self.reads[v] = None

    def without(self, nodes: Container[Node]) -> Group:
        """The group of the other members."""
        return Group(self.root, self.numbers, [n for n in self.members if n is not self.root and n not in nodes])

    @property
    def anchor(self) -> Node | None:
        return next((n for n in self.members if n.op.kind is Kind.ANCHOR), None)

    @property
    def operands(self) -> list[Value]:
        """What the group reads from outside, in a fixed order; single numbers are written into the kernel instead."""
        return list(self.reads)

    @property
    def results(self) -> tuple[Value, ...]:
        """What the group's kernel stores."""
        return self.root.outputs if self.rounded is None else (*self.root.outputs, *self.rounded.outputs)

    def body(self) -> Graph:
        return body_of(self.operands, self.results)


def _written_numbers(graph: Graph) -> set[Value]:
    """Constants of one element (repeated to any shape) that are written into kernels instead of being operands.

    Those are numbers that any model has (whole ones, 1/2, 1/6 and the like) and those that this graph reads in several
    places. A learned number is an operand, or every layer would need a kernel of its own.
    """
    repeated = {}
    readers: Counter[Value] = Counter()
    for node in graph.nodes:
        if node.op.name == "constant":
            repeated.update({v: v for v in node.outputs if v.literal is not None and v.literal.size == 1})
        elif node.op.name in ("broadcast_to", "reshape") and node.inputs[0] in repeated:
            repeated[node.outputs[0]] = repeated[node.inputs[0]]
        else:
            readers.update(repeated[v] for v in node.inputs if v in repeated)
    return {
        v
        for v, source in repeated.items()
        if v.dtype.kind in ("float", "int", "uint", "bool") and (readers[source] > 2 or _is_common(source))
    }


def _is_common(v: Value) -> bool:
    """Whether a number is one that any model has."""
    assert v.literal is not None
    number = float(v.literal.item())
    if not math.isfinite(number):
        return True
    return (number.is_integer() and abs(number) < 256) or any(
        abs(number * n - round(number * n)) < 1e-6 for n in (2, 3, 4, 5, 6, 8)
    )


# --- the plan --------------------------------------------------------------------------------------------------------


def plan(graph: Graph) -> list[Group]:
    """The groups of at least two operations, disjoint, each with one way out."""
    return _Planner(graph).run()


class _Planner:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.order = {node: k for k, node in enumerate(graph.nodes)}
        self.outputs = {v.node for v in graph.outputs}
        self.taken: set[Node] = set()
        self.fusible = {node for node in graph.nodes if _is_fusible(node)}
        self.views = _views(graph, self.fusible)
        self.numbers = _written_numbers(graph)
        self.explaining = is_explaining()
        self.behind = self._behind_anchors()
        self.bodies: dict[object, tuple[Graph, str | None]] = {}

    def run(self) -> list[Group]:
        """Anchors first: what could stand behind one is not worth more anywhere else."""
        groups = []
        roots = [n for n in reversed(self.graph.nodes) if n in self.fusible and n not in self.views]
        for find in (self.behind_anchor, self.nest):
            for node in roots:
                if node in self.taken or node.outputs[0] in self.numbers:
                    continue
                group = find(node)
                if group is not None and len(group.members) > 1:
                    self.taken.update(group.members)
                    groups.append(group)
        return [*groups, *self.also_rounded(groups)]

    def also_rounded(self, groups: list[Group]) -> list[Group]:
        """Casts join the group, or the anchor alone, whose result they store in another form; the anchors' new groups."""
        by_root = {group.root: group for group in groups}
        alone = []
        for node in self.graph.nodes:
            if node.op.name != "cast" or node in self.taken or node not in self.fusible:
                continue
            before = node.inputs[0].node
            group = by_root.get(before)
            if group is None and before in self.fusible - self.taken and before.op.takes_epilogue:
                group = Group(before, self.numbers)
            if group is None or group.rounded is not None or not _rounds(node) or len(group.reads) + 2 > OPERANDS:
                continue
            group.rounded, group.lowered = node, None
            if self.objection(group) is not None:
                group.rounded, group.lowered = None, None
                continue
            self.taken.add(node)
            if before not in by_root:
                by_root[before] = group
                self.taken.add(before)
                alone.append(group)
        return alone

    def grow(self, group: Group, joins: Callable[[Group, Node], str | None]) -> None:
        """Take in producers, latest first, while `joins(group, node)` has no objection. A node is offered once all its
        readers have been decided, so that each is offered once."""
        heap: list[int] = []
        offered: set[Node] = set()

        def offer(node: Node) -> None:
            for v in node.inputs:
                if v.node in offered or v in self.numbers or not (v.node in self.fusible or self.explaining):
                    continue
                offered.add(v.node)
                heapq.heappush(heap, -self.order[v.node])

        offer(group.root)
        while heap and len(group.members) < OPERATIONS:
            node = self.graph.nodes[-heapq.heappop(heap)]
            why = self.leaves(group, node) or joins(group, node)
            if why is None:
                group.add(node)
                offer(node)
            elif self.explaining and node.op.kind is not Kind.LEAF:
                refuse("fuse", node, f"{why}; not part of the kernel of {group.root.op.name}")

    def leaves(self, group: Group, node: Node) -> str | None:
        """Why a producer would not end inside the group."""
        if node.op.kind is Kind.CONTROL:
            return f"a {node.op.name} holds bodies, in which kernels are made"
        if node in self.taken:
            return "it is part of another kernel"
        if node in self.outputs:
            return "it is an output of the graph"
        for v in node.outputs:
            for reader in self.graph.users.get(v, ()):
                if reader not in group.members:
                    return "something else reads it too"
        return None

    def body(self, group: Group) -> tuple[Graph, str | None]:
        """The group's body, and why it is not one loop nest. Equal groups share it: large graphs repeat themselves."""
        if group.lowered is not None:
            return group.lowered
        operands = group.operands
        names: dict[Value, object] = {v: k for k, v in enumerate(operands)}
        rows: list[object] = [tuple([v.type for v in operands])]
        for k, node in enumerate(sorted(group.members, key=self.order.__getitem__)):
            rows.append((node.op.name, node.identity, tuple([names.get(v, v) for v in node.inputs])))
            names[node.outputs[0]] = ~k
        if group.rounded is not None:
            rows.append(group.rounded.identity)
        key = tuple(rows)
        found = self.bodies.get(key)
        if found is None:
            body = group.body()
            found = self.bodies[key] = body, why_not(body) if group.anchor is None else None
        group.lowered = found
        return found

    def objection(self, group: Group) -> str | None:
        """Why a group is not one loop nest."""
        if len(group.reads) + 1 > OPERANDS:
            return f"it has more than {OPERANDS} operands"
        return self.body(group)[1]

    # -- anchors ----------------------------------------------------------------------------------------------------

    def _behind_anchors(self) -> set[Node]:
        """The operations from which arithmetic of one shape, read by such arithmetic alone, leads back to an anchor: no
        other ends an epilogue."""
        found: set[Node] = set()
        for node in self.graph.nodes:
            if node.op.kind is not Kind.ELEMENTWISE or node not in self.fusible:
                continue
            for v in node.inputs:
                before = v.node
                if (before in found or before.op.takes_epilogue) and v.shape == node.outputs[0].shape:
                    readers = self.graph.users[v]
                    if before not in self.outputs and all(r.op.kind is Kind.ELEMENTWISE for r in readers):
                        found.add(node)
                        break
        return found

    def behind_anchor(self, root: Node) -> Group | None:
        """The anchor whose epilogue ends in `root`, with that epilogue; None when there is none."""
        if root.op.kind is not Kind.ELEMENTWISE or not (self.explaining or root in self.behind):
            return None
        group = Group(root, self.numbers)
        self.grow(group, self.joins_epilogue)
        anchor = group.anchor
        if anchor is None:
            return None
        group = _needed(group, anchor)
        return group if len(group.reads) + 1 <= OPERANDS else None

    def joins_epilogue(self, group: Group, node: Node) -> str | None:
        """Why a producer cannot stand before the group in an anchor's kernel."""
        if node not in self.fusible:
            return f"no kernel computes {node.op.name} on {', '.join(map(str, node.types))}"
        shape = group.root.outputs[0].shape
        if node.op.kind is Kind.ELEMENTWISE:
            return None if node.outputs[0].shape == shape else "its shape is another one"
        if node.op.kind is not Kind.ANCHOR:
            return f"{node.op.name} does not belong to an epilogue"
        if not node.op.takes_epilogue:
            return f"the template {node.op.template} takes no epilogue"
        if group.anchor is not None:
            return "the kernel has an anchor already"
        return None if node.outputs[0].shape == shape else "its shape is another one"

    # -- nests ------------------------------------------------------------------------------------------------------

    def nest(self, root: Node) -> Group | None:
        """The largest group that makes one loop nest; None when that is the operation alone."""
        if root.op.kind not in NEST_KINDS or root.op.apart:
            return None
        group = Group(root, self.numbers)
        self.grow(group, self.joins_nest)
        group = self.trimmed(group)
        if len(group.members) == 1:
            return None
        why = self.objection(group)
        if why is None:
            return group
        refuse("fuse", root, f"{why}; growing step by step")
        group = Group(root, self.numbers)
        self.grow(group, self.joins_checked)
        group = self.trimmed(group)
        return group if self.objection(group) is None else None

    def joins_nest(self, group: Group, node: Node) -> str | None:
        """Why a producer, all of whose readers are in the group, should not be computed inside its loop nest."""
        if node.op.kind not in NEST_KINDS or node not in self.fusible:
            return f"{node.op.name} has a kernel of its own"
        if node.op.apart:
            return f"{node.op.name} stays apart: its operands are computed in their places"
        if len(group.reads) + len(node.inputs) - 1 > OPERANDS:
            return f"the kernel would have more than {OPERANDS} operands"
        result = node.outputs[0]
        readers = self.graph.users[result]
        if any(m.op.looks_up and m.inputs[0] == result for m in readers):
            return "what is looked up must be in memory"
        if node.op.kind is not Kind.REDUCE and any(_repeats(m, result) for m in readers) and not _is_repeatable(node):
            return "a reader would compute it many times"
        if node.op.kind is Kind.INJECTIVE and all(m.op.kind is Kind.INJECTIVE for m in group.members):
            return None  # elements only move: once through however many shapes is cheaper than several times
        if any(m.op.name == "reshape" and not _only_units(m) for m in readers):
            return "a reader sees it in another shape"
        if node.op.name == "reshape" and not _only_units(node):
            return "it sees its operand in another shape, which is free"
        return None

    def joins_checked(self, group: Group, node: Node) -> str | None:
        """As `joins_nest`, with a trial lowering of every step."""
        return self.joins_nest(group, node) or self.objection(
            Group(group.root, self.numbers, [n for n in group.members if n is not group.root] + [node])
        )

    def trimmed(self, group: Group) -> Group:
        """The group without views at the operands' side: their readers follow strides."""
        while True:
            loose = {
                n
                for n in group.members
                if n in self.views and n is not group.root and all(v.node not in group.members for v in n.inputs)
            }
            if not loose:
                return group
            group = group.without(loose)


def _is_fusible(node: Node) -> bool:
    kind = node.op.kind
    return (
        (kind in NEST_KINDS or kind is Kind.ANCHOR)
        and len(node.types) == 1
        and _has_elements(node.types[0])
        and all(_has_elements(v.type) for v in node.inputs)
    )


def _has_elements(t: Type) -> bool:
    """Whether kernels compute with such values, and there are any."""
    return isinstance(t, TensorType) and t.is_static and has_kernel(t.dtype) and 0 not in t.shape


def _views(graph: Graph, fusible: Set[Node]) -> set[Node]:
    """The operations whose results lie in their operands' memory under other strides, supposing that all else is dense.

    A reshape behind a transpose is none: it has to copy. Nor is a view whose reader would copy it.
    """
    layouts: dict[Value, Layout] = {}
    views: set[Node] = set()
    for node in graph.nodes:
        if node.op.kind is Kind.INJECTIVE and node.op.view is not None and node in fusible:
            operand = node.inputs[0]
            layout = node.op.view(
                layouts.get(operand) or Layout.dense(operand.tensor.static_shape), node.types[0], **node.attrs
            )
            if layout is not None and not _must_be_dense(graph, node, layout):
                layouts[node.outputs[0]] = layout
                views.add(node)
    return views


def _must_be_dense(graph: Graph, node: Node, layout: Layout) -> bool:
    """Whether a reader would copy the result anyway: the images of convolutions and windows lie densely."""
    images = Layout(0, layout.shape[1:], layout.strides[1:])
    if images.is_dense:
        return False
    v = node.outputs[0]
    return any(u.op.dense_images and u.inputs[0] == v for u in graph.users.get(v, ()))


def _rounds(node: Node) -> bool:
    """Whether a cast gives a form in which less is read: that of contractions in bfloat16."""
    return (node.inputs[0].dtype.name, node.outputs[0].dtype.name) == ("float32", "bfloat16")


def _needed(group: Group, anchor: Node) -> Group:
    """What depends on the anchor of its group; the rest is better done before, once."""
    depends = {anchor}
    for node in reversed(group.members):
        if any(v.node in depends for v in node.inputs):
            depends.add(node)
    return group.without({n for n in group.members if n not in depends})


def _repeats(reader: Node, operand: Value) -> bool:
    """Whether an operation reads elements of the operand more than once."""
    return (
        reader.op.kind is Kind.INJECTIVE
        and reader.op.name in ("broadcast_to", "pad")
        and _size(reader.outputs[0]) > _size(operand)
    )


def _is_repeatable(node: Node) -> bool:
    """Whether an operation may be computed again for every reader: when it is little more than finding an element, or
    follows a reduction, whose result is kept for the whole row."""
    seen: set[Node] = set()
    stack = [node]
    while stack:
        n = stack.pop()
        if n in seen or len(seen) > 16:
            continue
        seen.add(n)
        if n.op.kind is Kind.REDUCE:
            return True
        stack += [v.node for v in n.inputs]
    return node.op.kind is Kind.INJECTIVE


def _only_units(node: Node) -> bool:
    """Whether a reshape only adds or drops axes of extent 1."""
    before, after = ([d for d in v.shape if d != 1] for v in (node.inputs[0], node.outputs[0]))
    return before == after


def _size(v: Value) -> int:
    size = 1
    for d in v.tensor.static_shape:
        size *= d
    return size


# --- applying it -----------------------------------------------------------------------------------------------------


def _apply(graph: Graph, planner: _Planner) -> Graph:
    by_root = {group.root: group for group in planner.run()}
    inside = {n for group in by_root.values() for n in (*group.members, group.rounded) if n is not group.root}
    new: dict[Value, Value] = {}
    for node in graph.nodes:
        if node in inside:
            continue
        group = by_root.get(node)
        if group is None:
            results, outs = node.outputs, remake(node, tuple([new.get(v, v) for v in node.inputs]), node.where)
        else:
            record("fuse", node)
            with location(*located(*sorted(group.members, key=planner.order.__getitem__))):
                outs = make(fusion, *[new.get(v, v) for v in group.reads], body=planner.body(group)[0])
            results = group.results
        if outs[0].node is not node:
            new.update(zip(results, outs, strict=True))
    outputs = tuple([new.get(v, v) for v in graph.outputs])
    return graph if outputs == graph.outputs else graph.with_outputs(outputs)
