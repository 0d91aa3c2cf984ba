"""Convolutions and matrix products in the forms that their kernels want: blocked images, packed weights.

For each one the algorithm is chosen (`graphc.kernels.choice`) and its operation put in place of `conv` or `dot`. Packing
is an operation like any other: of constants it folds. A convolution can also be

    filtered        minimal filtering (Winograd); a strided one of few channels, or a dilated one, over the phases of its
                    image
    few filters     lanes filled with neighbouring pixels, where there are too few filters to fill them
    narrow groups   several groups as one, with zeros between them, where there are too few channels in one
    depthwise       every channel with a filter of its own

Contractions whose operands are bfloat16 numbers in float32 (see `mixed_precision`) become kernels that read bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from graphc import ops
from graphc.ir.dims import ceil_div
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Node, Value, constant
from graphc.ir.types import TensorType
from graphc.kernels.choice import choose, estimated
from graphc.kernels.contraction import Schedule, schedule
from graphc.kernels.machine import Machine
from graphc.kernels.problems import MERGED_ELEMENTS, ConvProblem, GemmProblem, picked_problem
from graphc.kernels.strassen import StrassenPlan, column_scales
from graphc.kernels.winograd import WinogradPlan, worthwhile
from graphc.ops.layout import summed_in, together
from graphc.ops.spec import Kind
from graphc.passes.blocked import Blocked, Forms, arranged
from graphc.passes.match import constant_array, constant_source
from graphc.passes.mixed_precision import rounded_from

__all__ = ["CYCLES_PER_BYTE_MOVED", "Contractions", "is_known"]

CONTRACTED = ("float32", "float64")
#: filling lanes with neighbouring pixels must save at least this factor of the arithmetic
FILLING_MUST_SAVE = 1.4
#: what kernels find pixels and channels by are numbers of 32 bits
OFFSETS = 1 << 31
#: what changing a layout costs: such copies run at a fraction of the memory's speed
CYCLES_PER_BYTE_MOVED = 0.4
#: by how much more where single lines from all over an image go beyond L2
FAR_IS_SLOWER = 2


class Contractions:
    """What puts a graph's contractions into their kernels' forms.

    `vectors` says what blocks are as wide as: the machine's vectors, or half of them. `cycles` adds up what the
    convolutions are estimated to take; `misfits` tells whether narrower blocks would leave fewer lanes empty.
    """

    def __init__(
        self,
        graph: Graph,
        forms: Forms,
        machine: Machine,
        vectors: Machine,
        threads: int,
        algorithms: frozenset[str],
        narrow: bool,
    ) -> None:
        self.graph, self.forms = graph, forms
        self.machine, self.vectors, self.threads = machine, vectors, threads
        self.algorithms, self.narrow = algorithms, narrow
        self.cycles, self.misfits = 0.0, False

    def place(self, node: Node) -> str | None:
        """Put a convolution or matrix product into its kernel's form; the reason when there is none."""
        t = node.types[0]
        assert isinstance(t, TensorType)
        if t.dtype.name not in CONTRACTED:
            return f"no contraction kernel computes {t.dtype}"
        if 0 in t.static_shape or any(0 in v.tensor.static_shape for v in node.inputs):
            self.forms.plain_forms[node.outputs[0]] = ops.broadcast_to(constant(0, t.dtype), shape=t.shape)
            return None
        if node.op.name == "dot":
            self.forms.plain_forms[node.outputs[0]] = self.product(node)
            return None
        if node.inputs[0].rank != 4:
            return f"it has {node.inputs[0].rank - 2} spatial dimensions"
        if math.prod(node.inputs[0].tensor.static_shape[2:]) * self.lanes(node.inputs[0]) >= OFFSETS:
            return f"a block of {node.inputs[0].type} has more elements than offsets count"
        row = self.few_filters(node)
        if row is not None:
            self.forms.plain_forms[node.outputs[0]] = row
        else:
            wide = self.wider_groups(node)
            form = self.depthwise(wide) or self.by_phases(wide) or self.over_phases(wide) or self.convolution(wide)
            self.forms.blocked_forms[node.outputs[0]] = form
        return None

    def allowed(self, node: Node) -> frozenset[str]:
        """The algorithms for a contraction. Columns that are all the same give equal results, by Strassen's algorithm up to
        rounding; that would be seen where no other contraction sums them, in what a classifier calls equally likely."""
        w = node.inputs[1]
        if node in self.read_by_contractions or not is_known(w):
            return self.algorithms
        columns = _array(w) if w.rank == 2 else _array(w).reshape(w.shape[0], -1).T
        alike = columns.ndim == 2 and columns.shape[1] > 1 and bool((columns == columns[:, :1]).all())
        return self.algorithms - {"strassen"} if alike else self.algorithms

    @cached_property
    def read_by_contractions(self) -> set[Node]:
        """Nodes whose results another contraction reads, however far away."""
        found: set[Node] = set()
        for node in reversed(self.graph.nodes):
            readers = [user for v in node.outputs for user in self.graph.users.get(v, ())]
            if any(user in found or user.op.name in ("conv", "dot") for user in readers):
                found.add(node)
        return found

    def operands(self, node: Node) -> tuple[Value, Value]:
        """A contraction's operands: as bfloat16 where both are such numbers in float32."""
        x, w = node.inputs
        narrow = (rounded_from(x), rounded_from(w)) if self.narrow else (None, None)
        return (x, w) if narrow[0] is None or narrow[1] is None else (narrow[0], narrow[1])

    def unrounded(self, node: Node) -> tuple[Value, Value] | None:
        """A contraction's operands before they were rounded to bfloat16; None when they come as such."""
        x, w = (_unrounded(v) for v in self.operands(node))
        if x is None or w is None or not (x in self.forms.plain_forms or x in self.forms.blocked_forms):
            return None
        return x, w

    def lanes(self, x: Value) -> int:
        """Lanes of a block of channels, for a contraction of such operands: a vector of its sums."""
        return self.vectors.isa.lanes(dtype_of(summed_in(x.dtype)).itemsize)

    def product(self, node: Node) -> Value:
        """dot(a, b) with b packed; a right operand that is the same for all batches is packed once."""
        a, b = (self.forms.plain(v) for v in self.operands(node))
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
        halves = shared and together(a.dtype) == 1 and is_known(b)
        allowed = self.allowed(node) & {"strassen"} if halves else frozenset()
        found = choose(problem, self.machine, self.threads, allowed, b.tensor.nbytes)
        if isinstance(found, StrassenPlan):
            columns, levels = found.variant.product.columns, found.variant.levels
            scales = column_scales(_array(b), columns, levels)
            if scales is not None:
                packed = ops.pack_strassen_weights(
                    _divided(b, scales), columns=columns, channels=found.channels, guarded=True, levels=levels
                )
                return _multiplied(ops.dot_strassen(a, packed, columns_total=n, levels=levels), scales)
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
        form = self.forms.form_of(x)
        if form is not None and (form.places is not None or form.shared or (groups > 1 and channels % lanes)):
            found = self.from_places(node, form)
            if found is not None:
                return found
        size = min(channels + channels % together(x.dtype), lanes)
        apart = 1 if channels % lanes == 0 else groups  # groups of whole blocks need no room between them
        if size == lanes or (apart == 1 and x in self.forms.blocked_forms and 2 * channels >= lanes):
            form = self.forms.blocks(x, lanes, apart)
            assert form is not None
            image, size = form.value, lanes
        else:
            source = self.forms.plain(x)
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
        y = self.contract(image, self.forms.plain(w), strides, padding, dilation, groups, exact, self.allowed(node))
        return Blocked(y, filters, groups=1 if filters // groups % lanes == 0 else groups)

    def from_places(self, node: Node, form: Blocked) -> Blocked | None:
        """A convolution of channels that stand anywhere among the lanes of blocks; None where they have to move first."""
        x, w = self.operands(node)
        strides, padding, dilation, groups = _window(node)
        filters, channels, *kernel = w.tensor.static_shape
        lanes = self.lanes(x)
        if form.axis != 1 or form.lanes != lanes or form.value.rank != 5 or together(x.dtype) > 1:
            return None
        apart = 1 if filters // groups % lanes == 0 else groups
        if groups == 1 and not form.shared and is_known(w):
            spread = np.zeros((filters, int(form.value.shape[1]) * lanes, *kernel), w.dtype.numpy)
            spread[:, form.slots] = _array(w)
            y = self.contract(form.value, constant(spread), strides, padding, dilation, algorithms=self.allowed(node))
            return Blocked(y, filters)
        if (strides, tuple(kernel)) != ((1, 1), (1, 1)) or any(map(any, padding)):
            return None
        if math.prod(form.value.tensor.static_shape[1:]) >= OFFSETS:
            return None
        image = form.value.tensor.static_shape
        problem = picked_problem(image, channels, filters // groups, groups, x.dtype.name)
        self.misfits |= -(filters // groups) % lanes >= lanes // 2
        self.cycles += estimated(problem, self.vectors).cycles
        found = choose(problem, self.vectors, self.threads)
        assert isinstance(found, Schedule)
        packed = ops.pack_conv_weights(
            self.forms.plain(w), block=channels, columns=found.variant.columns, groups=groups
        )
        places = tuple(tuple(map(int, group)) for group in form.slots.reshape(groups, channels))
        y = ops.conv_picked(form.value, packed, places=places, filters=filters, lanes=lanes)
        return Blocked(y, filters, groups=apart)

    def contract(
        self,
        image: Value,
        w: Value,
        strides: Any,
        padding: Any,
        dilation: Any,
        groups: int = 1,
        exact: tuple[Value, Value] | None = None,
        algorithms: frozenset[str] | None = None,
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
        if together(w.dtype) == 1 and is_known(w):
            allowed = self.algorithms if algorithms is None else algorithms
        found = choose(problem, self.vectors, self.threads, allowed, w.tensor.nbytes)
        cycles = estimated(problem, self.vectors, allowed, w.tensor.nbytes).cycles
        if exact is not None and "winograd" in self.algorithms and together(weights.dtype) == 1 and is_known(weights):
            # minimal filtering in float32 may still be faster than the plain sum in bfloat16
            whole = replace(problem, dtype=weights.dtype.name)
            filtered = worthwhile(
                whole, weights.tensor.nbytes, schedule(problem, self.vectors), self.vectors, threads=1
            )
            if filtered is not None:
                form = self.forms.blocks(exact[0], lanes, 1 if channels % lanes == 0 else groups)
                assert form is not None
                image, w = form.value, weights  # a constant, whose plain form is itself
                found, cycles = filtered, filtered.cycles
        self.cycles += cycles
        if isinstance(found, WinogradPlan):
            return self.filtered(image, w, found, padding, groups)
        if isinstance(found, StrassenPlan):
            columns, levels = found.variant.product.columns, found.variant.levels
            scales = column_scales(_array(w).reshape(filters, channels).T, columns, levels)
            if scales is not None:
                divided = _divided(w, scales)
                packed = ops.pack_strassen_weights(
                    divided, columns=columns, channels=found.channels, guarded=False, levels=levels
                )
                y = ops.conv_strassen(image, packed, filters=filters, lanes=lanes, levels=levels)
                return _multiplied(y, scales)
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
            strides=v.stride,
        )
        result: Value = ops.conv_winograd(
            image,
            packed,
            kernel=v.kernel,
            tile=v.tile,
            padding=padding,
            filters=int(w.shape[0]),
            lanes=lanes,
            strides=v.stride,
        )
        return result

    def filterable(self, node: Node) -> tuple[Value, Value] | None:
        """The operands of a convolution, not rounded, if minimal filtering may compute it in some form."""
        found = self.unrounded(node) if "winograd" in self.algorithms and _window(node)[3] == 1 else None
        return found if found is not None and is_known(found[1]) else None

    def filtering_of_phases(
        self, node: Node, whole: ConvProblem, phased: ConvProblem, moved: float
    ) -> WinogradPlan | None:
        """The plan of minimal filtering for `phased`, which stands for the convolution `whole`; None when it is not estimated
        to take less than that in any form. `moved` are the cycles of bringing pixels to their phases (and back)."""
        filtering, nbytes = frozenset({"winograd"}), node.inputs[1].tensor.nbytes
        direct = schedule(replace(whole, dtype=self.operands(node)[1].dtype.name), self.vectors)
        expected = worthwhile(phased, nbytes, direct, self.vectors, threads=1)
        as_it_is = min(direct.cycles, estimated(whole, self.vectors, filtering, nbytes).cycles)
        if expected is None or expected.cycles + moved >= as_it_is:
            return None
        found = choose(phased, self.vectors, self.threads, filtering, nbytes)
        if not isinstance(found, WinogradPlan):
            return None
        self.cycles += expected.cycles + moved
        return found

    def by_phases(self, node: Node) -> Blocked | None:
        """A strided convolution as one of stride 1 over the image's phases, for minimal filtering; None when that is not
        estimated to be faster than the convolution as it is.

        Phase (i, j) holds every strides[0]-th row from row i on, and columns likewise: all phases together are an image
        of as many times the channels and a smaller window.
        """
        exact, rounded = self.filterable(node), self.operands(node)[1].dtype.name
        (down, along), padding, dilation, _ = _window(node)
        if exact is None or dilation != (1, 1) or (down, along) == (1, 1):
            return None
        x, w = exact
        n, channels, height, width = x.tensor.static_shape
        filters, _, *kernel = w.tensor.static_shape
        lanes = self.lanes(x)
        window = (ceil_div(kernel[0], down), ceil_div(kernel[1], along))
        form = self.forms.blocks(x, lanes) if channels >= lanes or x in self.forms.blocked_forms else None
        blocks = form.value.shape[1] if form is not None else 0
        deep = int(blocks) * lanes or channels  # channels of a phase, room in blocks included
        out = node.outputs[0].tensor.static_shape[2:]
        high, wide = (o + k - 1 for o, k in zip(out, window, strict=True))
        blocked = (n, ceil_div(down * along * deep, lanes), high, wide, lanes)
        size = int(form.lanes if form is not None else channels + channels % together(rounded))
        step = (down, along)
        whole = _problem((n, ceil_div(channels, size), height, width, size), w.tensor, step, padding, dilation, 1)
        taps = w.tensor.with_shape((filters, down * along * deep, *window))
        phased = _problem(blocked, taps, (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
        moved = CYCLES_PER_BYTE_MOVED * math.prod(blocked) * x.dtype.itemsize
        found = self.filtering_of_phases(node, whole, phased, moved)
        if found is None:
            return None
        low, zero = (padding[0][0], padding[1][0]), np.zeros((), x.dtype.numpy)
        ends = (high * down - low[0] - height, wide * along - low[1] - width)
        if form is not None:
            image = ops.pad(form.value, zero, low=(0, 0, *low, 0), high=(0, 0, *ends, 0))
            image = ops.reshape(image, shape=(n, blocks, high, down, wide, along, lanes))
            image = ops.reshape(ops.transpose(image, perm=(0, 3, 5, 1, 2, 4, 6)), shape=blocked)
        else:
            image = ops.pad(self.forms.plain(x), zero, low=(0, 0, *low), high=(0, 0, *ends))
            image = ops.reshape(image, shape=(n, channels, high, down, wide, along))
            image = ops.transpose(image, perm=(0, 3, 5, 1, 2, 4))
            image = ops.block(ops.reshape(image, shape=(n, down * along * channels, high, wide)), size=lanes)
        return Blocked(self.filtered(image, w, found, ((0, 0), (0, 0)), phases=step, deep=deep), filters)

    def over_phases(self, node: Node) -> Blocked | None:
        """A dilated convolution as one of neighbouring pixels over each of the image's phases, for minimal filtering; None
        when that is not estimated to be faster than the convolution as it is.

        Phase (i, j) holds every dilation[0]-th row from row i on, and columns likewise: what a window reads of one phase
        are neighbours there, so that the phases are images of a batch.
        """
        exact = self.filterable(node)
        strides, padding, (down, along), _ = _window(node)
        if exact is None or strides != (1, 1) or (down, along) == (1, 1):
            return None
        x, w = exact
        n, channels, height, width = x.tensor.static_shape
        filters, _, *kernel = w.tensor.static_shape
        lanes = self.lanes(x)
        form = self.forms.blocks(x, lanes) if channels >= lanes or x in self.forms.blocked_forms else None
        if form is None:
            return None
        blocks = int(form.value.shape[1])
        out = node.outputs[0].tensor.static_shape[2:]
        rows, columns = (ceil_div(o, d) for o, d in zip(out, (down, along), strict=True))  # of a phase's result
        high, wide = rows + kernel[0] - 1, columns + kernel[1] - 1
        blocked, plain = (n * down * along, blocks, high, wide, lanes), ((0, 0), (0, 0))
        whole = _problem((n, blocks, height, width, lanes), w.tensor, strides, padding, (down, along), 1)
        phased = _problem(blocked, w.tensor, (1, 1), plain, (1, 1), 1)
        made = math.prod((n, down, along, rows, columns, ceil_div(filters, lanes) * lanes))
        both = math.prod(blocked) * x.dtype.itemsize, made * x.dtype.itemsize
        far = FAR_IS_SLOWER if max(both) > self.vectors.l2_bytes else 1
        found = self.filtering_of_phases(node, whole, phased, CYCLES_PER_BYTE_MOVED * far * sum(both))
        if found is None:
            return None
        low = (padding[0][0], padding[1][0])
        ends = (high * down - low[0] - height, wide * along - low[1] - width)
        image = ops.pad(form.value, np.zeros((), x.dtype.numpy), low=(0, 0, *low, 0), high=(0, 0, *ends, 0))
        image = ops.reshape(image, shape=(n, blocks, high, down, wide, along, lanes))
        image = ops.reshape(ops.transpose(image, perm=(0, 3, 5, 1, 2, 4, 6)), shape=blocked)
        y = self.filtered(image, w, found, plain)
        results = int(y.shape[1])
        y = ops.reshape(y, shape=(n, down, along, results, rows, columns, lanes))
        y = ops.transpose(y, perm=(0, 3, 4, 1, 5, 2, 6))
        y = ops.reshape(y, shape=(n, results, rows * down, columns * along, lanes))
        y = ops.slice(y, starts=(0,) * 5, stops=(n, results, *out, lanes), steps=(1,) * 5)
        return Blocked(y, filters)

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
        if (
            groups > 1
            or dilation[1] > 1
            or copies < 2
            or wide < 4 * copies
            or copies * width < FILLING_MUST_SAVE * wider
        ):
            return None
        steps = ceil_div(wide, copies)
        weights, zero = self.forms.plain(w), np.zeros((), w.dtype.numpy)
        shifted = [
            ops.pad(weights, zero, low=(0, 0, 0, k * step), high=(0, 0, 0, (copies - 1 - k) * step))
            for k in range(copies)
        ]
        repeated = ops.concat(*shifted, axis=0)
        self.forms.plain_forms[repeated] = repeated
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

    def wider_groups(self, node: Node) -> Node:
        """A convolution whose groups are too narrow for a block, with several of them as one, and zeros for weights between
        them; any other as it is.

        The kernel multiplies with as many zeros as for lanes that would be empty; but blocks are whole, which is what
        minimal filtering and the layers around want.
        """
        x, w = node.inputs
        strides, padding, dilation, groups = _window(node)
        filters, each, *kernel = w.tensor.static_shape
        made, lanes = filters // groups, self.lanes(x)
        if (
            "winograd" not in self.algorithms
            or self.operands(node) != (x, w)
            or not is_known(w)
            or not 1 < each < lanes
            or each % made
            or lanes % made
            or groups % (lanes // made)
        ):
            return node
        many = lanes // made
        spread = np.zeros((filters, many, each, *kernel), w.dtype.numpy)
        rows = np.arange(filters)
        spread[rows, rows // made % many] = _array(w)
        weights = constant(spread.reshape(filters, many * each, *kernel))
        self.forms.plain_forms[weights] = weights
        wide: Value = ops.conv(x, weights, strides=strides, padding=padding, dilation=dilation, groups=groups // many)
        return wide.node

    def depthwise(self, node: Node) -> Blocked | None:
        """A convolution of every channel with a filter of its own; None when it is another one."""
        x, w = node.inputs
        strides, padding, dilation, groups = _window(node)
        if not groups == x.shape[1] == w.shape[0] or groups == 1:
            return None
        lanes = self.vectors.isa.lanes(x.dtype.itemsize)
        form = self.forms.blocked_forms.get(x)
        if form is None or form.lanes != lanes or form.axis != 1 or form.shared:
            form = self.forms.blocks(x, lanes, self.groups_wanted(node, lanes))
        assert form is not None
        packed = ops.pack_depthwise_weights(_apart(self.forms.plain(w), form), size=lanes)
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
        batch=n, channels=ceil_div(channels, size) * size, filters=filters // groups, height=height, width=width,
        kernel=(kh, kw), stride=strides, dilation=dilation, pads=(top, left, bottom, right), groups=groups,
        block=size, dtype=w.dtype.name,
    )  # fmt: skip


def _unrounded(v: Value) -> Value | None:
    """The numbers from which a bfloat16 value was rounded; None when it is not made of others. Any else is itself."""
    if together(v.dtype) == 1:
        return v
    repeated: list[Node] = []
    while v.node.op.name == "broadcast_to":
        repeated.append(v.node)
        v = v.node.inputs[0]
    source: Value | None = v.node.inputs[0] if v.node.op.name == "cast" else None
    if source is None or source.dtype.name != summed_in(v.dtype):
        return None
    for node in reversed(repeated):
        source = ops.broadcast_to(source, **node.attrs)
    return source


def is_known(w: Value) -> bool:
    """Whether weights are constant, so that whatever is made of them is made once."""
    return constant_source(w) is not None


def _array(w: Value) -> np.ndarray:
    """The elements of known weights."""
    array = constant_array(w)
    assert array is not None
    return array


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
    if form.places is not None:
        spread = arranged(w, form, axis=0)  # [blocks, 1, KH, KW, lanes]
        shape = (int(form.value.shape[1]) * form.lanes, *w.shape[1:])
        result: Value = ops.reshape(ops.transpose(spread, perm=(0, 4, 1, 2, 3)), shape=shape)
        return result
    if form.groups == 1:
        return w
    each = form.channels // form.groups
    room = -each % form.lanes
    grouped = ops.reshape(w, shape=(form.groups, each, *w.shape[1:]))
    padded = ops.pad(grouped, np.zeros((), w.dtype.numpy), low=(0,) * 5, high=(0, room, 0, 0, 0))
    return ops.reshape(padded, shape=(form.groups * (each + room), *w.shape[1:]))
