"""Layout: convolutions and what lies between them work on blocked channels; weights are packed.

Convolution kernels want a vector register to hold channels, so activations are kept as [N, blocks, H, W, lanes] through
whole chains of layers (see graphc.ops.layout). The pass walks the graph once, forward, and keeps for every value its
plain form, its blocked form, or both:

- a convolution takes its operand blocked and gives its result blocked;
- everything that can work on blocks as well as on channels does so when an operand is blocked: elementwise operations,
  and those in `blocked.TRANSFERS`;
- whatever cannot, takes the plain form. A conversion is made at the first use, once.

Matrix products take their right operand packed. Packing is an operation like any other: of constants it folds.

Contractions whose operands are bfloat16 numbers in float32 (see `mixed_precision`) become kernels that read bfloat16.

Lanes past the last channel hold leftovers. They meet only weights that are zero, so all that matters is that they stay
finite; operations that could make them otherwise (`SAFE` lists those that cannot) work on the plain form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from graphc import ops
from graphc.ir.bodies import deep
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Node, Value, constant, location, remake
from graphc.ir.trace import Trace, absorb, is_explaining, record, refuse, trace
from graphc.ir.types import TensorType
from graphc.kernels.choice import ALGORITHMS, choose, estimated
from graphc.kernels.contraction import ConvProblem, GemmProblem, Schedule, schedule
from graphc.kernels.machine import Machine
from graphc.kernels.strassen import StrassenPlan, column_scales
from graphc.kernels.winograd import WinogradPlan, worthwhile
from graphc.ops.layout import summed_in, together
from graphc.ops.spec import Kind
from graphc.passes.blocked import TRANSFERS, Blocked, to_blocks, to_plain
from graphc.passes.match import uniform
from graphc.passes.mixed_precision import rounded_from

__all__ = ["block_layout", "pack_only"]

#: elementwise operations that make finite numbers of finite numbers, overflow aside
SAFE = {
    "abs", "add", "atan", "cast", "ceil", "cos", "eq", "erf", "floor", "ge", "gt", "le", "logical_and", "logical_not",
    "logical_or", "logical_xor", "lt", "maximum", "minimum", "mul", "ne", "neg", "relu", "round", "select", "sigmoid",
    "sign", "sin", "sub", "tanh", "trunc",
}  # fmt: skip
CONTRACTED = ("float32", "float64")
#: filling lanes with neighbouring pixels must save at least this factor of the arithmetic
WORTHWHILE = 1.4
#: a first layer's few channels and a row of its window are read as one run of at most this many elements
MERGED_ELEMENTS = 40
#: blocks of half the machine's lanes must be estimated to take at most this share of the time: their arithmetic is no
#: faster, and everything else takes twice the instructions
NARROW_MUST_SAVE = 0.95
#: what changing a layout costs: such copies run at a fraction of the memory's speed
CYCLES_PER_BYTE_MOVED = 0.4


def block_layout(
    graph: Graph, machine: Machine, threads: int, algorithms: frozenset[str] = ALGORITHMS, narrow: bool = True
) -> Graph:
    """The graph with blocked activations and packed weights; all shapes must be known.

    `algorithms` names those allowed that do less arithmetic, and round otherwise, than the sums they replace: "winograd"
    (minimal filtering) and "strassen"; `narrow` allows kernels that multiply bfloat16, which take subnormal numbers for 0.
    """

    def arrange(g: Graph) -> Graph:
        wide = _attempt(g, machine, machine, threads, algorithms, narrow)
        if wide.misfits and machine.narrower is not None:
            half = _attempt(g, machine, machine.narrower, threads, algorithms, narrow)
            if half.cycles < NARROW_MUST_SAVE * wide.cycles:
                wide = half
        absorb(wide.trace)
        return wide.graph

    return deep(arrange)(graph)


class _Attempt(NamedTuple):
    """A graph in blocks, the cycles that it is estimated to take on one thread, and what to tell of it."""

    graph: Graph
    cycles: float
    misfits: bool
    trace: Trace


def _attempt(
    graph: Graph, machine: Machine, vectors: Machine, threads: int, algorithms: frozenset[str], narrow: bool
) -> _Attempt:
    with trace(is_explaining()) as seen:
        layout = _Layout(graph, machine, threads, spread=True, algorithms=algorithms, narrow=narrow, vectors=vectors)
        after = layout.run()
    moved = sum(
        n.outputs[0].tensor.nbytes
        for n in after.nodes
        if n.op.name in ("block", "unblock") and not _is_known(n.inputs[0])
    )
    return _Attempt(after, layout.cycles + CYCLES_PER_BYTE_MOVED * moved, layout.misfits, seen)


def pack_only(graph: Graph, machine: Machine, threads: int, narrow: bool = True) -> Graph:
    """Only what the contraction kernels need: every convolution between conversions of its own, packed weights."""
    return deep(lambda g: _Layout(g, machine, threads, spread=False, narrow=narrow).run())(graph)


class _Layout:
    """One walk. `plain` and `blocked` hold the forms of the old graph's values."""

    def __init__(
        self,
        graph: Graph,
        machine: Machine,
        threads: int,
        spread: bool,
        algorithms: frozenset[str] = frozenset(),
        narrow: bool = False,
        vectors: Machine | None = None,
    ) -> None:
        self.graph, self.machine, self.threads = graph, machine, threads
        self.spread, self.algorithms, self.narrow = spread, algorithms, narrow
        self.vectors = vectors or machine  # what blocks are as wide as
        self.cycles = 0.0  # estimated, of the convolutions
        self.misfits = False  # whether narrower blocks would leave fewer lanes empty
        self.plain_forms: dict[Value, Value] = {}
        self.blocked_forms: dict[Value, Blocked] = {}

    def run(self) -> Graph:
        plain = self.plain_forms
        for node in self.graph.nodes:
            if node.op.name in ("conv", "dot") or any(v in self.blocked_forms for v in node.inputs):
                with location(*node.where):
                    self.visit(node)
            else:  # nothing to decide: its operands have plain forms alone
                outs = remake(node, tuple([plain[v] for v in node.inputs]), node.where)
                plain.update(zip(node.outputs, outs, strict=True))
        outputs = tuple([self.plain(v) for v in self.graph.outputs])
        return self.graph if outputs == self.graph.outputs else self.graph.with_outputs(outputs)

    def visit(self, node: Node) -> None:
        if node.op.name in ("conv", "dot"):
            why = self.contraction(node)
            if why is None:
                record("layout", node)
                return
            refuse("layout", node, why)
        elif self.spread:
            found = self.on_blocks(node)
            if isinstance(found, Blocked):
                self.blocked_forms[node.outputs[0]] = found
                return
            if isinstance(found, Value):
                self.plain_forms[node.outputs[0]] = found
                return
            refuse("layout", node, found)
        made = remake(node, tuple([self.plain(v) for v in node.inputs]))
        self.plain_forms.update(zip(node.outputs, made, strict=True))

    # -- the two forms ------------------------------------------------------------------------------------------------

    def plain(self, v: Value) -> Value:
        """The value as it was, converted from blocks at the first call."""
        if v not in self.plain_forms:
            self.plain_forms[v] = to_plain(self.blocked_forms[v], v.shape)
        return self.plain_forms[v]

    def form_of(self, v: Value) -> Blocked | None:
        """The value's blocked form, if it has one."""
        return self.blocked_forms.get(v)

    def blocks(self, v: Value, lanes: int, groups: int = 1, axis: int = 1) -> Blocked | None:
        """The value in blocks, converted at the first call; None when it has no such axis, or not so many groups."""
        form = self.blocked_forms.get(v)
        if form is not None and (form.lanes, form.groups, form.axis) == (lanes, groups, axis):
            return form
        if axis >= v.rank or v.shape[axis] % groups:
            return None
        converted = to_blocks(self.plain(v), lanes, axis, groups)
        if form is None:
            self.blocked_forms[v] = converted
        return converted

    # -- contractions -------------------------------------------------------------------------------------------------

    def contraction(self, node: Node) -> str | None:
        """Put a convolution or matrix product into its kernel's form; the reason when there is none."""
        t = node.types[0]
        assert isinstance(t, TensorType)
        if t.dtype.name not in CONTRACTED:
            return f"no contraction kernel computes {t.dtype}"
        if 0 in t.static_shape or any(0 in v.tensor.static_shape for v in node.inputs):
            self.plain_forms[node.outputs[0]] = ops.broadcast_to(constant(0, t.dtype), shape=t.shape)
            return None
        if node.op.name == "dot":
            self.plain_forms[node.outputs[0]] = self.product(node)
            return None
        if node.inputs[0].rank != 4:
            return f"it has {node.inputs[0].rank - 2} spatial dimensions"
        row = self.few_filters(node)
        if row is not None:
            self.plain_forms[node.outputs[0]] = row
        else:
            form = self.depthwise(node) or self.by_phases(node) or self.convolution(node)
            self.blocked_forms[node.outputs[0]] = form
        return None

    def operands(self, node: Node) -> tuple[Value, Value]:
        """A contraction's operands: as bfloat16 where both are such numbers in float32."""
        x, w = node.inputs
        narrow = (rounded_from(x), rounded_from(w)) if self.narrow else (None, None)
        return (x, w) if narrow[0] is None or narrow[1] is None else (narrow[0], narrow[1])

    def unrounded(self, node: Node) -> tuple[Value, Value] | None:
        """A contraction's operands before they were rounded to bfloat16; None when they come as such."""
        x, w = (_unrounded(v) for v in self.operands(node))
        if x is None or w is None or not (x in self.plain_forms or x in self.blocked_forms):
            return None
        return x, w

    def lanes(self, x: Value) -> int:
        """Lanes of a block of channels, for a contraction of such operands: a vector of its sums."""
        return self.vectors.isa.lanes(dtype_of(summed_in(x.dtype)).itemsize)

    def product(self, node: Node) -> Value:
        """dot(a, b) with b packed; a right operand that is the same for all batches is packed once."""
        a, b = (self.plain(v) for v in self.operands(node))
        while (
            b.node.op.name == "broadcast_to"
            and b.node.inputs[0].rank >= 2
            and b.node.inputs[0].shape[-2:] == b.shape[-2:]
        ):
            inner = b.node.inputs[0]
            if any(d != 1 for d in inner.shape[:-2]):
                break
            b = inner if inner.rank == 2 else ops.reshape(inner, shape=inner.shape[-2:])
        if b.rank > 2 and all(d == 1 for d in b.shape[:-2]):
            b = ops.reshape(b, shape=b.shape[-2:])
        odd = int(a.shape[-1]) % together(a.dtype)
        if odd:  # the padding of packed weights is 0
            room = (*(0,) * (a.rank - 1), odd)
            a = ops.pad(a, np.zeros((), a.dtype.numpy), low=(0,) * a.rank, high=room)
        *batch, m, k = a.tensor.static_shape
        n = int(b.shape[-1])
        shared = b.rank == 2
        problem = GemmProblem(
            m=m * math.prod(batch) if shared else m,
            n=n,
            k=k,
            batch=1 if shared else math.prod(batch),
            shared=shared,
            dtype=a.dtype.name,
        )
        halves = shared and together(a.dtype) == 1 and _is_known(b)
        allowed = self.algorithms & {"strassen"} if halves else frozenset()
        found = choose(problem, self.machine, self.threads, allowed, b.tensor.nbytes)
        if isinstance(found, StrassenPlan):
            columns = found.variant.product.columns
            scales = column_scales(_array(b), columns)
            if scales is not None:
                packed = ops.pack_strassen_weights(
                    _divided(b, scales), columns=columns, channels=2 * found.steps, guarded=True
                )
                return _multiplied(ops.dot_strassen(a, packed, columns_total=n), scales)
            found = choose(problem, self.machine, self.threads)
        assert isinstance(found, Schedule)
        result: Value = ops.dot_packed(a, ops.pack_matrix(b, columns=found.variant.columns), columns_total=n)
        return result

    def convolution(self, node: Node) -> Blocked:
        x, w = self.operands(node)
        strides, padding, dilation, groups = _window(node)
        lanes = self.lanes(x)
        channels, filters = int(x.shape[1]) // groups, int(w.shape[0])
        kernel = (int(w.shape[2]), int(w.shape[3]))
        size = min(channels + channels % together(x.dtype), lanes)
        apart = 1 if channels % lanes == 0 else groups  # groups of whole blocks need no room between them
        if size == lanes or (apart == 1 and x in self.blocked_forms and 2 * channels >= lanes):
            form = self.blocks(x, lanes, apart)
            assert form is not None
            image, size = form.value, lanes
        else:
            source = self.plain(x)
            if (
                groups == 1
                and kernel[1] > 1
                and dilation[1] == 1
                and kernel[1] * size <= MERGED_ELEMENTS
                and any(map(any, padding))
            ):
                # the kernel reads a whole row of the window at once if the borders are in memory
                low, high = zip(*padding, strict=True)
                source = ops.pad(source, np.zeros((), x.dtype.numpy), low=(0, 0, *low), high=(0, 0, *high))
                padding = ((0, 0), (0, 0))
            image = ops.block(source, size=size, groups=groups)
        exact = None if x.dtype == node.inputs[0].dtype else self.unrounded(node)
        y = self.contract(image, self.plain(w), strides, padding, dilation, groups, exact)
        return Blocked(y, filters, groups=1 if filters // groups % lanes == 0 else groups)

    def contract(
        self,
        image: Value,
        w: Value,
        strides: Any,
        padding: Any,
        dilation: Any,
        groups: int = 1,
        exact: tuple[Value, Value] | None = None,
    ) -> Value:
        """The convolution of blocked images with plain weights, in blocks of a vector's lanes.

        `exact` are the plain float32 operands from which bfloat16 ones were rounded: minimal filtering, which multiplies
        differences of them, begins with those.
        """
        filters, channels, *_ = w.tensor.static_shape
        size, lanes = int(image.shape[4]), self.lanes(image)
        problem = _problem(image.tensor.static_shape, w.tensor, strides, padding, dilation, groups)
        self.misfits |= any(-c % lanes >= lanes // 2 for c in (channels, filters // groups))
        weights = w if exact is None else exact[1]
        allowed: frozenset[str] = frozenset()
        if together(w.dtype) == 1 and _is_known(w):
            allowed = self.algorithms
        found = choose(problem, self.vectors, self.threads, allowed, w.tensor.nbytes)
        cycles = estimated(problem, self.vectors, allowed, w.tensor.nbytes).cycles
        if exact is not None and "winograd" in self.algorithms and together(weights.dtype) == 1 and _is_known(weights):
            # minimal filtering in float32 may still be faster than the plain sum in bfloat16
            whole = replace(problem, dtype=weights.dtype.name)
            filtered = worthwhile(
                whole, weights.tensor.nbytes, schedule(problem, self.vectors), self.vectors, threads=1
            )
            if filtered is not None:
                form = self.blocks(exact[0], lanes, 1 if channels % lanes == 0 else groups)
                assert form is not None
                image, w = form.value, weights  # a constant, whose plain form is itself
                found, cycles = filtered, filtered.cycles
        self.cycles += cycles
        if isinstance(found, WinogradPlan):
            return self.filtered(image, w, found, padding, groups=groups)
        if isinstance(found, StrassenPlan):
            columns = found.variant.product.columns
            scales = column_scales(_array(w).reshape(filters, channels).T, columns)
            if scales is not None:
                divided = _divided(w, scales)
                packed = ops.pack_strassen_weights(divided, columns=columns, channels=2 * found.steps, guarded=False)
                return _multiplied(ops.conv_strassen(image, packed, filters=filters, lanes=lanes), scales)
            found = choose(problem, self.vectors, self.threads)
        assert isinstance(found, Schedule)
        packed = ops.pack_conv_weights(w, block=size, columns=found.variant.columns, groups=groups)
        result: Value = ops.conv_blocked(
            image, packed, strides=strides, padding=padding, dilation=dilation, filters=filters, lanes=lanes
        )
        return result

    def filtered(
        self,
        image: Value,
        w: Value,
        found: WinogradPlan,
        padding: Any,
        groups: int = 1,
        phases: tuple[int, int] = (1, 1),
        deep: int | None = None,
    ) -> Value:
        """The convolution of blocked images by minimal filtering, as planned; of phases, see `by_phases`."""
        v, lanes = found.variant, found.variant.product.lanes
        packed = ops.pack_winograd_weights(
            w,
            tile=v.tile,
            block=lanes,
            columns=v.product.columns,
            groups=groups,
            phases=phases,
            deep=deep or w.shape[1],
        )
        result: Value = ops.conv_winograd(
            image, packed, kernel=v.kernel, tile=v.tile, padding=padding, filters=int(w.shape[0]), lanes=lanes
        )
        return result

    def by_phases(self, node: Node) -> Blocked | None:
        """A strided convolution as one of stride 1 over the image's phases, which minimal filtering takes; None when
        that is not estimated to save.

        Phase (i, j) holds every strides[0]-th row from row i on, and columns likewise: all phases together are an image
        of as many times the channels and a smaller window.
        """
        exact, rounded = self.unrounded(node), self.operands(node)[1].dtype.name
        if exact is None:
            return None
        x, w = exact
        (down, along), padding, dilation, groups = _window(node)
        n, channels, height, width = x.tensor.static_shape
        filters, _, *kernel = w.tensor.static_shape
        lanes = self.lanes(x)
        if (
            "winograd" not in self.algorithms
            or groups > 1
            or dilation != (1, 1)
            or (down, along) == (1, 1)
            or not _is_known(w)
        ):
            return None
        window = (-(-kernel[0] // down), -(-kernel[1] // along))
        form = self.blocks(x, lanes) if channels >= lanes or x in self.blocked_forms else None
        blocks = form.value.shape[1] if form is not None else 0
        deep = int(blocks) * lanes or channels  # channels of a phase, room in blocks included
        out = node.outputs[0].tensor.static_shape[2:]
        high, wide = (o + k - 1 for o, k in zip(out, window, strict=True))
        blocked = (n, -(-down * along * deep // lanes), high, wide, lanes)
        size = int(form.lanes if form is not None else channels + channels % together(rounded))
        step = (down, along)
        whole = _problem((n, -(-channels // size), height, width, size), w.tensor, step, padding, dilation, 1)
        taps = w.tensor.with_shape((filters, down * along * deep, *window))
        phased = _problem(blocked, taps, (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
        direct = schedule(replace(whole, dtype=rounded), self.vectors)
        found = worthwhile(phased, w.tensor.nbytes, direct, self.vectors, threads=1)
        moved = CYCLES_PER_BYTE_MOVED * math.prod(blocked) * x.dtype.itemsize
        if found is None or found.cycles + moved >= direct.cycles:
            return None
        low, zero = (padding[0][0], padding[1][0]), np.zeros((), x.dtype.numpy)
        ends = (high * down - low[0] - height, wide * along - low[1] - width)
        if form is not None:
            image = ops.pad(form.value, zero, low=(0, 0, *low, 0), high=(0, 0, *ends, 0))
            image = ops.reshape(image, shape=(n, blocks, high, down, wide, along, lanes))
            image = ops.reshape(ops.transpose(image, perm=(0, 3, 5, 1, 2, 4, 6)), shape=blocked)
        else:
            image = ops.pad(self.plain(x), zero, low=(0, 0, *low), high=(0, 0, *ends))
            image = ops.reshape(image, shape=(n, channels, high, down, wide, along))
            image = ops.transpose(image, perm=(0, 3, 5, 1, 2, 4))
            image = ops.block(ops.reshape(image, shape=(n, down * along * channels, high, wide)), size=lanes)
        self.cycles += found.cycles + moved
        return Blocked(self.filtered(image, w, found, ((0, 0), (0, 0)), phases=step, deep=deep), filters)

    def few_filters(self, node: Node) -> Value | None:
        """A convolution with so few filters that most lanes would be empty: neighbouring pixels of a row fill them.

        The filters are repeated, each copy one stride further along a wider window, and the window moves on by as many
        pixels as there are copies. That multiplies with more zeros but fills the lanes; None when it does not pay.
        """
        x, w = self.operands(node)
        strides, padding, dilation, groups = _window(node)
        lanes = self.lanes(x)
        n, filters, high, wide = node.outputs[0].tensor.static_shape
        copies = lanes // filters
        width, step = int(w.shape[3]), strides[1]
        wider = width + (copies - 1) * step
        if groups > 1 or dilation[1] > 1 or copies < 2 or wide < 4 * copies or copies * width < WORTHWHILE * wider:
            return None
        steps = -(-wide // copies)
        weights, zero = self.plain(w), np.zeros((), w.dtype.numpy)
        shifted = [
            ops.pad(weights, zero, low=(0, 0, 0, k * step), high=(0, 0, 0, (copies - 1 - k) * step))
            for k in range(copies)
        ]
        repeated = ops.concat(*shifted, axis=0)
        self.plain_forms[repeated] = repeated
        needed = (steps - 1) * copies * step + wider
        y = ops.conv(
            x,
            repeated,
            strides=(strides[0], copies * step),
            padding=(padding[0], (padding[1][0], max(0, needed - int(x.shape[3]) - padding[1][0]))),
            dilation=dilation,
            groups=1,
        )
        blocks = self.convolution(y.node).value  # [n, 1, high, steps, lanes]: the lanes are (pixel, filter)
        used = (n, 1, high, steps, copies * filters)
        blocks = ops.slice(blocks, starts=(0,) * 5, stops=used, steps=(1,) * 5)
        pixels = ops.reshape(blocks, shape=(n, high, steps * copies, filters))
        pixels = ops.slice(pixels, starts=(0,) * 4, stops=(n, high, wide, filters), steps=(1,) * 4)
        result: Value = ops.transpose(pixels, perm=(0, 3, 1, 2))
        return result

    def depthwise(self, node: Node) -> Blocked | None:
        """A convolution of every channel with a filter of its own; None when it is another one."""
        x, w = node.inputs
        strides, padding, dilation, groups = _window(node)
        if not groups == x.shape[1] == w.shape[0] or groups == 1:
            return None
        lanes = self.vectors.isa.lanes(x.dtype.itemsize)
        form = self.blocked_forms.get(x)
        if form is None or form.lanes != lanes or form.axis != 1:
            form = self.blocks(x, lanes, self.groups_wanted(node, lanes))
        assert form is not None
        packed = ops.pack_depthwise_weights(_apart(self.plain(w), form), size=lanes)
        return replace(
            form, value=ops.depthwise_blocked(form.value, packed, strides=strides, padding=padding, dilation=dilation)
        )

    def groups_wanted(self, node: Node, lanes: int) -> int:
        """The groups that the next convolution wants apart, when only elementwise operations stand before it."""
        for _ in range(8):
            readers = set(self.graph.users.get(node.outputs[0], ()))
            if len(readers) != 1:
                break
            (node,) = readers
            if node.op.name == "conv":
                groups = _window(node)[3]
                channels = int(node.inputs[0].shape[1])
                return groups if groups < channels and channels // groups % lanes else 1
            if node.op.kind is not Kind.ELEMENTWISE:
                break
        return 1

    # -- everything between -------------------------------------------------------------------------------------------

    def on_blocks(self, node: Node) -> Blocked | Value | str:
        """The node's result from blocked operands (plain where it has no channels), or why that cannot be."""
        if node.op.kind is Kind.ELEMENTWISE:
            return self.elementwise(node)
        transfer = TRANSFERS.get(node.op.name)
        if transfer is None:
            return f"{node.op.name} works on the plain form"
        first = node.inputs[0] if node.op.name != "concat" else next(v for v in node.inputs if v in self.blocked_forms)
        form = self.blocked_forms.get(first)
        if form is None:
            return "its first operand is not blocked"
        if form.mostly_empty and node.op.name != "broadcast_to":
            return "most lanes are empty"
        if node.op.name == "reduce_window" and form.axis in node.attrs["axes"]:
            return self.window_over_channels(node, form)
        return transfer(self, node, form)

    def window_over_channels(self, node: Node, form: Blocked) -> Blocked | str:
        """Sums over neighbouring channels, as in local response normalisation.

        Seen as an image with the blocks for rows and all pixels in one line, every block needs the blocks above and
        below: a convolution of one block of channels, with weights that are one inside the window and zero outside.
        """
        a, lanes = node.attrs, form.lanes
        if a["combine"] != "add" or a["axes"] != (1,) or form.axis != 1 or not form.exact or form.groups > 1:
            return "its window covers channels"
        (size,), (step,), (dilation,), ((low, high),) = a["window"], a["strides"], a["dilation"], a["padding"]
        if (step, dilation, low + high) != (1, 1, size - 1) or max(low, high) > lanes or form.value.rank != 5:
            return "its window covers channels, and not one result for each"
        if lanes != self.vectors.isa.lanes(form.value.dtype.itemsize):
            return "its lanes are not those of this machine"
        n, blocks, *pixels, _ = form.value.tensor.static_shape
        image = ops.reshape(form.value, shape=(n, 1, blocks, math.prod(pixels), lanes))
        out, row, lane = np.ogrid[:lanes, -1:2, :lanes]
        distance = lanes * row + lane - out
        inside = ((-low <= distance) & (distance <= high)).astype(form.value.dtype.numpy)
        weights = constant(inside.transpose(0, 2, 1)[..., None])  # [filters, channels, rows, 1]
        sums = self.contract(image, weights, (1, 1), ((1, 1), (0, 0)), (1, 1))
        return replace(form, value=ops.reshape(sums, shape=form.value.shape))

    def elementwise(self, node: Node) -> Blocked | str:
        forms = [self.blocked_forms[v] for v in node.inputs if v in self.blocked_forms]
        exact = all(f.exact for f in forms)
        if not exact and node.op.name not in SAFE:
            return f"{node.op.name} of lanes past the last channel might not be finite"
        operands = []
        for v in node.inputs:
            form = self.blocked_forms.get(v)
            value = (
                form.value if form is not None and form.like(forms[0]) else self.blocked_broadcast(v, forms[0], exact)
            )
            if isinstance(value, str):
                return value
            operands.append(value)
        return replace(forms[0], value=node.op(*operands, **node.attrs))

    def blocked_broadcast(self, v: Value, like: Blocked, exact: bool) -> Value | str:
        """An operand not blocked yet, for an operation on blocks; of a broadcast only what it repeats is converted."""
        shape = like.value.shape
        number = uniform(v)
        if number is not None:
            if not exact and not np.isfinite(number):
                return "a constant is not finite"
            return ops.broadcast_to(constant(number, v.dtype), shape=shape)
        source = v.node.inputs[0] if v.node.op.name == "broadcast_to" else v
        extents = (1,) * (v.rank - source.rank) + source.shape
        if extents == v.shape:
            form = self.blocks(v, like.lanes, like.groups, like.axis)
            return form.value if form is not None else "an operand has no blocked form"
        seen = source
        while seen.node.op.name == "reshape" and seen.shape != extents:
            seen = seen.node.inputs[0]  # [C, 1, 1] from a blocked [1, C, 1, 1]
        inner = self.blocked_forms.get(seen) if seen.shape == extents else None
        if inner is not None and inner.like(like):
            return ops.broadcast_to(inner.value, shape=shape)
        small = ops.reshape(self.plain(source), shape=extents)
        if extents[like.axis] == 1:
            return ops.broadcast_to(ops.reshape(small, shape=(*extents, 1)), shape=shape)
        return ops.broadcast_to(to_blocks(small, like.lanes, like.axis, like.groups).value, shape=shape)


def _window(node: Node) -> tuple[Any, Any, Any, int]:
    a = node.attrs
    return a["strides"], a["padding"], a["dilation"], a.get("groups", 1)


def _problem(
    image: Sequence[int], w: TensorType, strides: Any, padding: Any, dilation: Any, groups: int
) -> ConvProblem:
    """The convolution of a blocked image of this shape with plain weights."""
    n, _, height, width, size = image
    filters, channels, kh, kw = w.static_shape
    (top, bottom), (left, right) = padding
    return ConvProblem(
        batch=n, channels=-(-channels // size) * size, filters=filters // groups, height=height, width=width,
        kernel=(kh, kw), stride=strides, dilation=dilation, pads=(top, left, bottom, right), groups=groups,
        block=size, dtype=w.dtype.name,
    )  # fmt: skip


def _unrounded(v: Value) -> Value | None:
    """The numbers from which a bfloat16 value was rounded; None when it is not made of others. Any else is itself."""
    if together(v.dtype) == 1:
        return v
    if v.node.op.name == "broadcast_to":
        inner = _unrounded(v.node.inputs[0])
        return inner if inner is None else ops.broadcast_to(inner, **v.node.attrs)
    source = v.node.inputs[0] if v.node.op.name == "cast" else None
    return source if source is not None and source.dtype.name == summed_in(v.dtype) else None


def _is_known(w: Value) -> bool:
    """Whether weights are constant, so that whatever is made of them is made once."""
    return w.literal is not None or (w.node.op.name == "broadcast_to" and w.node.inputs[0].literal is not None)


def _array(w: Value) -> np.ndarray:
    """The elements of known weights."""
    source = w if w.literal is not None else w.node.inputs[0]
    assert source.literal is not None
    return np.broadcast_to(source.literal, w.shape)


def _divided(w: Value, scales: np.ndarray) -> Value:
    """Weights [K, N] or [N, K, 1, 1] with each column divided by its scale."""
    if (scales == 1).all():
        return w
    return constant(_array(w) / (scales if w.rank == 2 else scales[:, None, None, None]), w.dtype)


def _multiplied(y: Value, scales: np.ndarray) -> Value:
    """A product [..., N], or blocked images [batch, blocks, H, W, lanes], with each column multiplied by its scale."""
    if (scales == 1).all():
        return y
    if y.node.op.name == "conv_strassen":
        blocks, lanes = int(y.shape[1]), int(y.shape[4])
        padded = np.ones(blocks * lanes, scales.dtype)
        padded[: len(scales)] = scales
        scales = padded.reshape(1, blocks, 1, 1, lanes)
    result: Value = ops.mul(y, ops.broadcast_to(constant(scales, y.dtype), shape=y.shape))
    return result


def _apart(w: Value, form: Blocked) -> Value:
    """Depthwise weights [C, 1, KH, KW] with room after each group, as the blocks of `form` have it."""
    if form.groups == 1:
        return w
    each = form.channels // form.groups
    room = -each % form.lanes
    grouped = ops.reshape(w, shape=(form.groups, each, *w.shape[1:]))
    padded = ops.pad(grouped, np.zeros((), w.dtype.numpy), low=(0,) * 5, high=(0, room, 0, 0, 0))
    return ops.reshape(padded, shape=(form.groups * (each + room), *w.shape[1:]))
