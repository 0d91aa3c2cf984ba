"""The passes in their order: the story of a compilation.

`prepare` works on the whole graph, where sizes may still be symbolic; `optimise` on a stretch of it that becomes one
native program, where every size is a number.
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
from graphc.passes.mixed_precision import multiply_bfloat16, round_parts
from graphc.passes.recurrence import pack_recurrences
from graphc.passes.simplify import simplify
from graphc.passes.views import sink_views

__all__ = ["optimise", "pipeline", "prepare"]


def pipeline(options: Options, machine: Machine | None = None) -> list[Pass]:
    """All passes that `options` ask for, in order; see the comments for why in this order.

    Raises OptionError when `options.disable` names a pass that does not exist or that nothing runs without.
    """
    return [*_preparation(options), *_optimisation(options, machine or host_machine())]


def prepare(graph: Graph, options: Options, hooks: Iterable[Hook] = ()) -> Graph:
    """The graph after the passes that do not need to know sizes."""
    return PassManager(_preparation(options), hooks).run(graph)


def optimise(graph: Graph, options: Options, hooks: Iterable[Hook] = ()) -> Graph:
    """A graph of known sizes, ready to be lowered to kernels."""
    return PassManager(_optimisation(options, host_machine()), hooks).run(graph)


def _preparation(options: Options) -> list[Pass]:
    passes = [
        # Functions that were kept whole for differentiation, and the loops that it left twice.
        (0, Pass("calls", expand_calls)),
        (1, Pass("clean", lambda g: _clean(g, options))),
    ]
    return _chosen(options, passes)


def _optimisation(options: Options, machine: Machine) -> list[Pass]:
    threads = options.thread_count
    strict, mixed = options.precision == "strict", options.precision == "bfloat16"
    passes = [
        # What the sizes made constant goes first: every later pass gets less to look at.
        (1, Pass("fold", fold)),
        (1, Pass("simplify", lambda g: _simplify(g, options))),
        # Arithmetic behind a reshaped or transposed product moves before the view, next to the product.
        (1, Pass("views", lambda g: _views(g, options))),
        # Scales meet weights while both are still as the model has them, nothing between convolution and scale.
        (1, Pass("batch-norm", lambda g: g if strict else _batch_norm(g, options))),
        # Attention while its products are still products and its softmax is in one piece.
        (1, Pass("attention", lambda g: g if strict else fuse_attention(g))),
        # Recurrent layers that a kernel computes whole, before decomposition makes loops of them.
        (1, Pass("recurrence", lambda g: pack_recurrences(g, machine, threads))),
        # Operations without kernels become smaller ones before layouts are chosen: convolutions over lines and volumes
        # become convolutions over images, and those take part.
        (0, Pass("decompose", decompose, requires=("batch-norm",))),
        # What is a contraction by now multiplies bfloat16 numbers, where that was asked for.
        *([(0, Pass("mixed-precision", multiply_bfloat16, requires=("decompose",)))] if mixed else []),
        # Then activations are blocked and weights packed. At level 0 every contraction converts for itself.
        (0, Pass("layout", _layout(options, machine, threads), requires=("decompose",))),
        # Packing constant weights is constant folding. What conversions are left are merged and cancelled.
        (0, Pass("pack", fold, requires=("layout",))),
        (1, Pass("clean-layout", lambda g: _clean(g, options), requires=("layout",))),
        # Which rounded values are left is known; they are rounded by the kernels that compute them.
        *([(2, Pass("rounded-parts", round_parts, requires=("layout",)))] if mixed else []),
        # Decomposition and layout made new views; fusion wants arithmetic and product side by side.
        (2, Pass("late-views", lambda g: _views(g, options), requires=("clean-layout",))),
        # What every turn of a loop would do again, packing weights that are no constants above all.
        (1, Pass("hoist", hoist, requires=("layout",))),
        # Fusion is last: a fused group is a kernel, and no other pass looks inside.
        (2, Pass("fuse", fuse, requires=("layout", "clean-layout"))),
    ]
    return _chosen(options, passes)


#: passes without which a graph cannot be lowered
NEEDED = ("calls", "decompose", "layout", "pack")


def _layout(options: Options, machine: Machine, threads: int) -> Callable[[Graph], Graph]:
    strict = options.precision == "strict"
    if options.level < 2 or "blocking" in options.disable:
        return lambda g: pack_only(g, machine, threads, narrow=not strict)
    algorithms = frozenset() if strict else ALGORITHMS - options.disable
    return lambda g: block_layout(g, machine, threads, algorithms, narrow=not strict)


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


def _views(graph: Graph, options: Options) -> Graph:
    after = sink_views(graph)
    return graph if after is graph else _clean(after, options)


def _batch_norm(graph: Graph, options: Options) -> Graph:
    """Scales into weights, which then fold."""
    after = fold_batch_norm(graph)
    return graph if after is graph else _clean(after, options)


def _chosen(options: Options, passes: list[tuple[int, Pass]]) -> list[Pass]:
    """The passes of the chosen level that were not disabled."""
    known = {
        "sink",
        "attention",
        "blocking",
        "fold",
        "simplify",
        "batch-norm",
        "views",
        "late-views",
        "fuse",
        "clean",
        "clean-layout",
        "hoist",
        "winograd",
        "strassen",
        "recurrence",
    }
    for name in options.disable:
        if name in NEEDED:
            raise OptionError(f"the pass {name!r} cannot be left out: kernels need what it makes")
        if name not in known:
            raise OptionError(f"no pass {name!r}; those that can be left out are {', '.join(sorted(known))}")
    return [p for level, p in passes if level <= options.level and p.name not in options.disable]
