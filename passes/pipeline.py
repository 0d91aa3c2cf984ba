"""The passes in their order: the story of a compilation.

`prepare` works on the whole graph, where sizes may still be symbolic; `optimise` on a stretch of it that becomes one
native program, where every size is a number. Between the two, under a memory budget, a stretch is rematerialised: that
is no pass of this list, because it measures the programs that `optimise` makes of its attempts (`_NativeStage._plan`
in `runtime/specialisation.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from graphc.errors import OptionError
from graphc.ir.graph import Graph
from graphc.ir.manager import Hook, Pass, PassManager
from graphc.kernels.choice import ALGORITHMS
from graphc.kernels.machine import Machine, host_machine
from graphc.options import Options
from graphc.passes.attention import fuse_attention
from graphc.passes.batch_norm import fold_batch_norm
from graphc.passes.calls import expand_calls
from graphc.passes.captures import sink_constants
from graphc.passes.decompose import decompose
from graphc.passes.fold import fold
from graphc.passes.fuse import fuse
from graphc.passes.hoist import hoist
from graphc.passes.layout import block_layout, pack_only
from graphc.passes.maxima_first import maximum_first
from graphc.passes.mixed_precision import multiply_bfloat16, round_parts
from graphc.passes.pool_tiles import pool_tiles
from graphc.passes.recurrence import pack_recurrences
from graphc.passes.scale_weights import scale_weights
from graphc.passes.siblings import merge_siblings
from graphc.passes.simplify import simplify
from graphc.passes.sums_first import sum_first
from graphc.passes.views import sink_views

__all__ = ["PARTS", "optimise", "pipeline", "prepare"]

#: what passes do that can be left out by itself, in one namespace with the names of passes ("fold" and "simplify" leave
#: the cleaning passes too)
PARTS = {
    "sink": "constants go into the bodies of control flow, in the cleaning passes",
    "blocking": "layout blocks activations; without it, it packs weights only",
    "winograd": "layout takes minimal filtering for convolutions",
    "strassen": "layout takes halved sums for products and 1x1 convolutions",
}


def pipeline(options: Options, machine: Machine | None = None) -> list[Pass]:
    """All passes that `options` ask for, in order; see the comments for why in this order.

    Raises OptionError when `options.disable` names a pass that does not exist or that nothing runs without.
    """
    machine = machine or host_machine()
    return [
        *_chosen(options, _preparation(options), machine),
        *_chosen(options, _optimisation(options, machine), machine),
    ]


def prepare(graph: Graph, options: Options, hooks: Iterable[Hook] = ()) -> Graph:
    """The graph after the passes that do not need to know sizes."""
    return PassManager(_chosen(options, _preparation(options), host_machine()), hooks).run(graph)


def optimise(graph: Graph, options: Options, hooks: Iterable[Hook] = ()) -> Graph:
    """A graph of known sizes, ready to be lowered to kernels."""
    machine = host_machine()
    return PassManager(_chosen(options, _optimisation(options, machine), machine), hooks).run(graph)


def _preparation(options: Options) -> list[Pass]:
    return [
        # Functions that were kept whole for differentiation, and the loops that it left twice.
        Pass("calls", expand_calls, needed=True),
        Pass("clean", lambda g: _clean(g, options), level=1),
    ]


def _optimisation(options: Options, machine: Machine) -> list[Pass]:
    threads = options.thread_count
    strict, mixed = options.precision == "strict", options.precision == "bfloat16"
    return [
        # What the sizes made constant goes first: every later pass gets less to look at.
        Pass("fold", fold, level=1),
        Pass("simplify", lambda g: _simplify(g, options), level=1),
        # Arithmetic behind a reshaped or transposed product moves before the view, next to the product.
        Pass("views", _then_clean(sink_views, options), level=1),
        # Sums over pixels before the contractions that compute these: means are sums with scales behind, for the next.
        Pass("sums-first", (lambda g: g) if strict or mixed else _then_clean(sum_first, options), level=1),
        # Scales meet weights while both are still as the model has them, nothing between convolution and scale.
        Pass("batch-norm", (lambda g: g) if strict else _then_clean(fold_batch_norm, options), level=1),
        # Maxima over pixels before what follows a convolution, once that is one bias and an activation.
        Pass("maxima-first", (lambda g: g) if strict else _then_clean(maximum_first, options), level=1),
        # Attention while its products are still products and its softmax is in one piece.
        Pass("attention", lambda g: g if strict else fuse_attention(g), level=1),
        # Recurrent layers that a kernel computes whole, before decomposition makes loops of them.
        Pass("recurrence", lambda g: pack_recurrences(g, machine, threads, _algorithms(options)), level=1),
        # Products of one operand that are left: an attention reads slices as they lie, a recurrence has taken its own.
        Pass("siblings", _then_clean(merge_siblings, options), level=2),
        # Operations without kernels become smaller ones before layouts are chosen: convolutions over lines and volumes
        # become convolutions over images, and those take part.
        Pass("decompose", decompose, requires=("batch-norm",), needed=True),
        # What is a contraction by now multiplies bfloat16 numbers, where that was asked for.
        Pass("mixed-precision", multiply_bfloat16, requires=("decompose",), asked=mixed),
        # Then activations are blocked and weights packed. At level 0 every contraction converts for itself.
        Pass("layout", _layout(options, machine, threads), requires=("decompose",), needed=True),
        # Packing constant weights is constant folding. What conversions are left are merged and cancelled.
        Pass("pack", fold, requires=("layout",), needed=True),
        Pass("clean-layout", lambda g: _clean(g, options), requires=("layout",), level=1),
        # Every convolution has its algorithm: weights that are plain take scales of channels, tiles of pixels pooling.
        Pass("scale-weights", (lambda g: g) if strict else scale_weights, requires=("clean-layout",), level=2),
        Pass("pool-tiles", pool_tiles, requires=("clean-layout",), level=2),
        # Which rounded values are left is known; they are rounded by the kernels that compute them.
        Pass("rounded-parts", round_parts, requires=("layout",), level=2, asked=mixed),
        # Decomposition and layout made new views; fusion wants arithmetic and product side by side.
        Pass("late-views", _then_clean(sink_views, options), requires=("clean-layout",), level=2),
        # What every turn of a loop would do again, packing weights that are no constants above all.
        Pass("hoist", hoist, requires=("layout",), level=1),
        # Fusion is last: a fused group is a kernel, and no other pass looks inside.
        Pass("fuse", fuse, requires=("layout", "clean-layout"), level=2),
    ]


def _layout(options: Options, machine: Machine, threads: int) -> Callable[[Graph], Graph]:
    strict = options.precision == "strict"
    if options.level < 2 or "blocking" in options.disable:
        return lambda g: pack_only(g, machine, threads, narrow=not strict)
    return lambda g: block_layout(g, machine, threads, _algorithms(options), narrow=not strict)


def _algorithms(options: Options) -> frozenset[str]:
    """Algorithms that do less arithmetic than the plain sum, as far as they are allowed."""
    return frozenset() if options.precision == "strict" or options.level < 2 else ALGORITHMS - options.disable


def _simplify(graph: Graph, options: Options) -> Graph:
    return simplify(graph, options.precision == "strict", folding="fold" not in options.disable)


def _clean(graph: Graph, options: Options, rounds: int = 8) -> Graph:
    """Simplify, fold and sink constants into bodies until nothing is left to do: each makes work for the others.

    Simplification folds what it meets, so that a second round is for graphs with control flow.
    """
    for _ in range(rounds):
        before = graph
        if "simplify" not in options.disable:
            graph = _simplify(graph, options)
        if "fold" not in options.disable:
            graph = fold(graph)
        if "sink" not in options.disable:
            graph = sink_constants(graph)
        if graph is before:
            break
    return graph


def _then_clean(transform: Callable[[Graph], Graph], options: Options) -> Callable[[Graph], Graph]:
    """A pass, and what its changes make for simplification and folding to do."""

    def run(graph: Graph) -> Graph:
        after = transform(graph)
        return graph if after is graph else _clean(after, options)

    return run


def _chosen(options: Options, passes: list[Pass], machine: Machine) -> list[Pass]:
    """The passes of the chosen level that were not disabled."""
    if options.disable:
        every = [*_preparation(options), *_optimisation(options, machine)]
        known = {*PARTS, *(p.name for p in every if not p.needed)}
        for name in sorted(options.disable - known):
            if any(p.name == name for p in every):
                raise OptionError(f"the pass {name!r} cannot be left out: kernels need what it makes")
            raise OptionError(f"no pass {name!r}; those that can be left out are {', '.join(sorted(known))}")
    return [p for p in passes if p.asked and p.level <= options.level and p.name not in options.disable]
