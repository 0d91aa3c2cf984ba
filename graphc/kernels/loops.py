"""Transformations of loop nests: LoopNest in, LoopNest out, the same values computed.

While lowering, extents and strides are numbers. The steps here take out loops that run once, split loops where an
index is divided, merge neighbours that run through memory as one, put them in the order of memory, and at last
replace the numbers by parameters, so that one compiled kernel serves every shape.

The stages of a nest that have inner loops all have the same ones.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from itertools import product

from graphc.ir.dims import ceil_div
from graphc.ir.dtypes import dtype_of
from graphc.ir.scalar import (
    COMPARISONS,
    Linear,
    Scalar,
    const,
    index,
    is_sum,
    linear_form,
    load,
    param,
    rewrite,
    walk,
)
from graphc.kernels.index import counters_in, guarded_selects, linear_roots, simplify, substitute
from graphc.kernels.ir import LoopNest, Map, Reduce, Stage, Store

__all__ = [
    "PANEL", "collapse", "drop_unit_loops", "expressions", "inner_extents", "is_turned_copy", "keep_costly", "order", "panel_loop",
    "parallel_first", "parametrise", "rewritten", "scratch_bytes", "split_divided", "split_domain", "step_of", "tile_loops",
    "unit_step", "unroll_lanes", "vector_loop",
]  # fmt: skip

INT64 = dtype_of("int64")
_COMPARE = {name: getattr(operator, name) for name in COMPARISONS}
#: how many points of the outer loop a panel reduction does at once: its accumulators stay in the first-level cache
PANEL = 256
#: innermost extents that stay numbers: the loop becomes a few vector instructions
_VECTOR_LENGTHS = (2, 4, 8, 16)
#: innermost extents that are written out when they cannot be vectors, and how much text that may make
_UNROLLED, _UNROLLED_SIZE = (2, 3, 4, 5, 6, 7, 8, 16), 400
#: more regions than this are not worth their launches; the comparisons stay in the kernel
_MAX_REGIONS = 4
_REGION_POINTS = 512
#: numbers that do not become parameters: they mean the same in every shape
_PLAIN = (-1, 0, 1)


# -- access ---------------------------------------------------------------------------------------------------------


def inner_extents(nest: LoopNest) -> tuple[Scalar, ...]:
    """The extents of the inner loops, () when no stage has any."""
    return next((s.extents for s in nest.stages if s.extents), ())


def expressions(nest: LoopNest) -> list[Scalar]:
    """Every offset and value of the nest, in order."""
    return [e for s in nest.stages for e in _of_stage(s)]


def _of_stage(stage: Stage) -> list[Scalar]:
    stored = [e for store in stage.stores for e in (store.offset, store.value)]
    return [stage.value, *stored] if isinstance(stage, Reduce) else stored


def rewritten(
    stage: Stage,
    change: Callable[[Scalar], Scalar],
    extents: tuple[Scalar, ...] | None = None,
    buffers: Sequence[int] = (),
) -> Stage:
    """A stage with every expression changed; also with other extents, and with stores into `buffers[k]` instead of k."""
    loops = stage.extents if extents is None else extents
    stores = tuple(
        Store(buffers[t.buffer] if buffers else t.buffer, change(t.offset), change(t.value)) for t in stage.stores
    )
    if isinstance(stage, Reduce):
        return Reduce(stage.result, stage.combine, loops, change(stage.value), stores)
    return Map(loops, stores)


def _numbers(extents: Sequence[Scalar]) -> list[int]:
    return [e.attr for e in extents]


def _loads(roots: Sequence[Scalar]) -> list[Scalar]:
    return [x for x in walk(roots) if x.op == "load"]


def _coefficient(offset: Scalar, loop: int) -> int:
    """How far a step of the loop moves an offset that is a sum; 0 also for loops inside other operations."""
    return linear_form(offset).terms.get(index(loop), 0)


def _mapped(nest: LoopNest, change: Callable[[Scalar], Scalar], outer: Sequence[int], inner: Sequence[int]) -> LoopNest:
    """The nest with every expression changed and new extents."""
    extents = tuple(map(const, inner))
    stages = tuple(rewritten(s, change, extents if s.extents else ()) for s in nest.stages)
    return replace(nest, extents=tuple(map(const, outer)), stages=stages)


def _renumbered(nest: LoopNest, counters: Mapping[int, Scalar], outer: Sequence[int], inner: Sequence[int]) -> LoopNest:
    """Other loops: `counters` gives the old ones as expressions of the new."""
    extents = [*outer, *inner]
    replaced: dict[Scalar, Scalar] = {}
    simplified: dict[Scalar, Scalar] = {}
    return _mapped(nest, lambda e: simplify(substitute(e, counters, replaced), extents, simplified), outer, inner)


# -- steps ----------------------------------------------------------------------------------------------------------


def drop_unit_loops(nest: LoopNest) -> LoopNest:
    """Without the loops that run once."""
    outer, inner = _numbers(nest.extents), _numbers(inner_extents(nest))
    if 1 not in outer and 1 not in inner:
        return nest
    counters, at = {}, 0
    for k, d in enumerate([*outer, *inner]):
        counters[k] = const(0) if d == 1 else index(at)
        at += d != 1
    return _renumbered(nest, counters, [d for d in outer if d != 1], [d for d in inner if d != 1])


def split_domain(nest: LoopNest) -> list[LoopNest]:
    """Pieces of a pure map, each with loops of its own, in which comparisons of a counter with a number are decided.

    A pad becomes its inside and its borders, a concatenation one piece an operand. The nest alone when it has
    reductions or inner loops, or when there would be too many pieces.
    """
    if len(nest.stages) != 1 or not isinstance(nest.stages[0], Map) or inner_extents(nest):
        return [nest]
    extents = _numbers(nest.extents)
    cuts: list[set[int]] = [{0, d} for d in extents]
    for x in walk(expressions(nest)):
        if x.op in COMPARISONS and x.args[0].dtype is INT64:
            form = linear_form(x.args[0] - x.args[1])
            if len(form.terms) == 1:
                ((atom, c),) = form.terms.items()
                if atom.op == "index" and abs(c) == 1:
                    cuts[atom.attr] |= {at for at in _turning_points(x.op, c, form.base) if 0 < at < extents[atom.attr]}
    pieces = 1
    for cut in cuts:
        pieces *= len(cut) - 1
    if pieces == 1 or pieces > _MAX_REGIONS or math.prod(extents) < pieces * _REGION_POINTS:
        return [nest]
    result = []
    for corner in product(*(list(zip(sorted(c), sorted(c)[1:], strict=False)) for c in cuts)):
        counters = {k: index(k) + low for k, (low, _) in enumerate(corner)}
        result.append(_renumbered(nest, counters, [high - low for low, high in corner], []))
    return result


def _turning_points(comparison: str, step: int, base: int) -> list[int]:
    """The counters i at which `step * i + base`, compared with 0, has another answer than at i - 1."""
    answer = _COMPARE[comparison]
    zero = -base * step  # steps are 1 or -1
    return [i for i in (zero, zero + 1) if answer(step * i + base, 0) != answer(step * (i - 1) + base, 0)]


def split_divided(nest: LoopNest) -> LoopNest:
    """Loops whose counter is divided by a number become two, so that the division and its remainder are counters again."""
    for _ in range(8):  # a loop can be split at most once a factor; shapes have few
        found = _division(nest)
        if found is None:
            return nest
        loop, step = found
        outer, inner = _numbers(nest.extents), _numbers(inner_extents(nest))
        extents = outer if loop < len(outer) else inner
        at = loop if loop < len(outer) else loop - len(outer)
        extents[at : at + 1] = [extents[at] // step, step]
        counters = {k: index(k if k < loop else k + 1) for k in range(len(outer) + len(inner))}
        counters[loop] = index(loop) * step + index(loop + 1)
        nest = _renumbered(nest, counters, outer, inner)
    return nest


def _division(nest: LoopNest) -> tuple[int, int] | None:
    """A loop and a factor of its extent by which an index is divided."""
    extents = [*_numbers(nest.extents), *_numbers(inner_extents(nest))]
    for x in walk(expressions(nest)):
        if x.dtype is INT64 and x.op in ("floordiv", "mod") and x.args[1].op == "const":
            divisor = x.args[1].attr
            for atom, c in linear_form(x.args[0]).terms.items():
                if atom.op == "index" and c > 0 and divisor % c == 0:
                    step = divisor // c
                    if 1 < step < extents[atom.attr] and extents[atom.attr] % step == 0:
                        return atom.attr, step
    return None


def order(nest: LoopNest) -> LoopNest:
    """Loops in the order of memory, the smallest step innermost: outer ones as results lie, inner ones as operands do."""
    roots = expressions(nest)
    outer, inner = len(nest.extents), len(inner_extents(nest))
    loads = [x.args[0] for x in _loads(roots)]
    stores = [t.offset for s in nest.stages for t in s.stores]

    def step(offsets: Sequence[Scalar], loop: int) -> int:
        return max((abs(_coefficient(o, loop)) for o in offsets), default=0)

    def outer_key(loop: int) -> tuple[int, int]:
        return -(step(stores[:1], loop) or 1 << 62), -step(loads, loop)

    def inner_key(loop: int) -> int:
        return -(step(loads, loop) or 1 << 62)

    loops = [*sorted(range(outer), key=outer_key), *sorted(range(outer, outer + inner), key=inner_key)]
    return _permuted(nest, loops)


def _permuted(nest: LoopNest, loops: Sequence[int]) -> LoopNest:
    """Loop k of the result is loop `loops[k]`."""
    if list(loops) == sorted(loops):
        return nest
    extents = [*_numbers(nest.extents), *_numbers(inner_extents(nest))]
    n = len(nest.extents)
    counters = {old: index(new) for new, old in enumerate(loops)}
    return _renumbered(nest, counters, [extents[k] for k in loops[:n]], [extents[k] for k in loops[n:]])


def collapse(nest: LoopNest) -> LoopNest:
    """Neighbouring loops that every access runs through as if they were one become one."""
    while True:
        outer, inner = _numbers(nest.extents), _numbers(inner_extents(nest))
        extents = [*outer, *inner]
        forms = [linear_form(r) for r in linear_roots(expressions(nest))]
        for k in range(len(extents) - 1):
            if k + 1 != len(outer) and all(_runs_on(f, k, extents[k + 1]) for f in forms):
                break
        else:
            return nest
        group, at = (outer, k) if k + 1 < len(outer) else (inner, k - len(outer))
        width = extents[k + 1]
        group[at : at + 2] = [extents[k] * width]
        counters = {j: index(j if j <= k else j - 1) for j in range(len(extents))}
        counters[k], counters[k + 1] = index(k) // width, index(k) % width
        nest = _renumbered(nest, counters, outer, inner)


def _runs_on(form: Linear, loop: int, width: int) -> bool:
    """Whether a step of `loop` is `width` steps of the next one."""
    return form.terms.get(index(loop), 0) == width * form.terms.get(index(loop + 1), 0)


def unroll_lanes(nest: LoopNest) -> LoopNest:
    """A short innermost loop written out, when it cannot be a vector: the loop around it is vectorised instead.

    Index arithmetic that the lanes need (a channel shuffle, a padded or odd channel count) then leaves that loop.
    """
    if inner_extents(nest) or len(nest.extents) < 2 or len(nest.stages) != 1:
        return nest
    last = len(nest.extents) - 1
    lanes, tiles = nest.extents[last].attr, tile_loops(nest)
    turned = tiles is not None and lanes in _VECTOR_LENGTHS[2:] and is_turned_copy(nest, *tiles)
    (stage,) = nest.stages
    size = sum(not is_sum(x) for x in walk(expressions(nest)))
    if (
        lanes not in _UNROLLED
        or len(stage.stores) > 1
        or size * lanes > _UNROLLED_SIZE
        or turned
        or vector_loop(nest)[1]
    ):
        return nest
    extents = _numbers(nest.extents)[:-1]
    stores = []
    for lane in range(lanes):
        change = partial(_lane, counters={last: const(lane)}, extents=tuple(extents))
        stores += [Store(t.buffer, change(t.offset), change(t.value)) for t in stage.stores]
    return replace(nest, extents=nest.extents[:-1], stages=(Map((), tuple(stores)),))


def _lane(e: Scalar, counters: Mapping[int, Scalar], extents: tuple[int, ...]) -> Scalar:
    return simplify(substitute(e, counters), extents)


def parallel_first(nest: LoopNest, threads: int) -> LoopNest:
    """The loop that is divided among threads outermost: the first whose extent divides well, the innermost only if alone."""
    extents = _numbers(nest.extents)
    # the loop that runs innermost stays there
    fixed = panel_loop(nest) is not None or not any(isinstance(s, Reduce) for s in nest.stages)
    candidates = range(max(len(extents) - 1, 1) if fixed else len(extents)) if extents else range(0)

    def waste(loop: int) -> float:
        return ceil_div(extents[loop], threads) * threads / max(extents[loop], 1)

    best = next((k for k in candidates if waste(k) <= 1.1), None)
    if best is None:
        best = min(candidates, key=waste, default=0)
    if best == 0:
        return nest
    total = len(extents) + len(inner_extents(nest))
    return _permuted(nest, [best, *(k for k in range(total) if k != best)])


def keep_costly(nest: LoopNest, costly: Set[str]) -> LoopNest:
    """A value that a reduction and a later map both need, and that takes a `costly` operation, is computed once.

    The reduction stores it where the map will put its result, and what comes after reads it there: a softmax takes one
    exponential an element instead of two.
    """
    for at, kept in enumerate(nest.stages):
        if not isinstance(kept, Reduce) or not kept.extents:
            continue
        common = [e for e in walk([kept.value]) if e.op in costly]
        for last, stage in enumerate(nest.stages[at + 1 :], at + 1):
            if not isinstance(stage, Map) or stage.extents != kept.extents:
                continue
            used = set(walk([t.value for t in stage.stores]))
            for e in common:
                home = next((t for t in stage.stores if nest.buffers[t.buffer] == e.dtype), None)
                if e in used and home is not None:
                    again = load(home.buffer, home.offset, e.dtype)
                    later = nest.stages[at + 1 : last + 1]
                    after = [rewritten(s, partial(_with, old=e, new=again)) if s.extents else s for s in later]
                    overwritten = {a for a, b in nest.aliased if b == home.buffer}
                    if not any(
                        x.attr in overwritten for s in (*after, *nest.stages[last + 1 :]) for x in _loads(_of_stage(s))
                    ):
                        stores = (*kept.stores, Store(home.buffer, home.offset, e))
                        before = nest.stages[:at]
                        return replace(
                            nest, stages=(*before, replace(kept, stores=stores), *after, *nest.stages[last + 1 :])
                        )
    return nest


def _with(x: Scalar, old: Scalar, new: Scalar) -> Scalar:
    return rewrite(x, lambda e: new if e is old else None)


# -- shapes that code generation asks about ---------------------------------------------------------------------------


def panel_loop(nest: LoopNest) -> int | None:
    """The outer loop that should run innermost, around nothing: when a reduction's operand is contiguous along it.

    Then many reductions advance side by side, a panel of them, instead of one after the other with long strides.
    Works on numbers and on parameters alike.
    """
    inner = inner_extents(nest)
    if not inner or not nest.extents or not any(isinstance(s, Reduce) for s in nest.stages):
        return None
    last, innermost = len(nest.extents) - 1, len(nest.extents) + len(inner) - 1
    offsets = [x.args[0] for x in _loads([s.value for s in nest.stages if isinstance(s, Reduce)])]
    along_panel, along_rows = (sum(_coefficient(o, k) == 1 for o in offsets) for k in (last, innermost))
    if along_panel == along_rows:  # a matrix product: by columns only the rows' side is read with strides
        return (
            last
            if along_panel and any(_coefficient(o, innermost) != 1 and innermost in counters_in(o) for o in offsets)
            else None
        )
    return last if along_panel > along_rows else None


def tile_loops(nest: LoopNest) -> tuple[int, int] | None:
    """Two loops of a pure map to run in small squares: loads are contiguous along the first, stores along the second."""
    if inner_extents(nest) or len(nest.extents) < 2 or not all(isinstance(s, Map) for s in nest.stages):
        return None
    last = len(nest.extents) - 1
    for x in _loads(expressions(nest)):
        if last in counters_in(x.args[0]) and _coefficient(x.args[0], last) != 1:
            for k in range(last):
                if _coefficient(x.args[0], k) == 1:
                    return k, last
    return None


def vector_loop(nest: LoopNest) -> tuple[int, int]:
    """The loop to write as one vector, and its length; (-1, 0) when there is none.

    That is the innermost loop of a map or the loop inside a panel, when its length is a small known number: LLVM unrolls
    such a loop before its vectoriser sees it, and leaves scalar code.
    """
    none, panel = (-1, 0), panel_loop(nest)
    extents = (*nest.extents, *inner_extents(nest))
    if (
        tile_loops(nest) is not None
        or len(extents) < 2
        or (panel is None and any(isinstance(s, Reduce) for s in nest.stages))
    ):
        return none
    loop = len(extents) - 1 if panel is None else panel
    if extents[loop].op != "const" or extents[loop].attr not in _VECTOR_LENGTHS:
        return none
    everything = expressions(nest)
    stores = [s for stage in nest.stages for s in stage.stores]
    if any(unit_step(s.offset, loop) != 1 or s.value.dtype.name == "int64" for s in stores) or any(
        loop in counters_in(e.args[0]) for e in guarded_selects(everything)
    ):
        return none
    for e in walk(everything):
        if e.op == "load":
            if unit_step(e.args[0], loop) is None or e.dtype.name == "int64":
                return none
        elif e.dtype.name != "int64" and any(a.dtype.name == "int64" and loop in counters_in(a) for a in e.args):
            return none
    return loop, int(extents[loop].attr)


def is_turned_copy(nest: LoopNest, rows: int, columns: int) -> bool:
    """Whether a tiled map only moves elements, by steps that are known before the loops."""
    stores = [s for stage in nest.stages for s in stage.stores]
    if len(nest.stages) != 1 or len(stores) != 1 or stores[0].value.op != "load" or nest.aliased:
        return False
    target, source = stores[0].offset, stores[0].value.args[0]
    moves = [step_of(e, k) for e in (target, source) for k in (rows, columns)]
    return None not in moves and moves[1] == const(1) and moves[2] == const(1)


def step_of(offset: Scalar, loop: int) -> Scalar | None:
    """By how much a step of the loop moves an offset, as an expression without counters; None when that varies."""
    total = const(0)
    for atom, c in linear_form(offset).terms.items():
        if loop not in counters_in(atom):
            continue
        factor = const(1)
        if atom.op == "mul":
            atom, factor = (atom.args[0], atom.args[1]) if atom.args[0].op == "index" else (atom.args[1], atom.args[0])
        if atom.op != "index" or counters_in(factor):
            return None
        total = total + factor * c
    return total


def unit_step(offset: Scalar, loop: int) -> int | None:
    """How far a step of the loop moves an offset: 0, 1, or None for anything else."""
    form = linear_form(offset)
    if form.terms.get(index(loop)) == 1 and not any(loop in counters_in(a) for a in form.terms if a is not index(loop)):
        return 1
    return None if loop in counters_in(offset) else 0


def scratch_bytes(nest: LoopNest) -> int:
    """The private memory that a thread needs: a panel's accumulators, 8 bytes each at most."""
    if panel_loop(nest) is None:
        return 0
    return 8 * PANEL * sum(isinstance(s, Reduce) for s in nest.stages)


# -- parameters -------------------------------------------------------------------------------------------------------


def parametrise(nest: LoopNest) -> tuple[LoopNest, tuple[int, ...]]:
    """The nest with parameters for its numbers, in the order in which they occur, and the numbers.

    Numbers stay where the generated code depends on them: steps of 0 and 1, divisors (a division by a known number is a
    multiplication), and a small innermost extent.
    """
    numbers: list[int] = []

    def new(value: int) -> Scalar:
        numbers.append(value)
        return param(len(numbers) - 1)

    panel = panel_loop(nest)
    total = len(nest.extents) + len(inner_extents(nest))
    rows = panel is None and any(isinstance(s, Reduce) for s in nest.stages)
    innermost = panel if panel is not None else -1 if rows else total - 1

    def extent(e: Scalar, loop: int) -> Scalar:
        return e if loop == innermost and loop > 0 and e.attr in _VECTOR_LENGTHS else new(e.attr)

    outer = tuple(extent(e, k) for k, e in enumerate(nest.extents))
    inner = tuple(extent(e, len(outer) + k) for k, e in enumerate(inner_extents(nest)))
    # lanes that lie side by side: their number is a step, and the numbers below it are places in it
    lanes = len(nest.stages[-1].stores) if total else 0
    for e in (*outer, *inner):
        lanes = max(lanes, e.attr if e.op == "const" else 0)
    plain = frozenset([*_PLAIN, *range(lanes + 1)]) if lanes > 1 else frozenset(_PLAIN)
    roots = set(linear_roots(expressions(nest)))
    done: dict[Scalar, Scalar] = {}

    def known(x: Scalar) -> Scalar:
        if x.op == "const" and x.dtype is INT64 and x not in done:
            done[x] = x if x.attr in plain else new(x.attr)
        return done.get(x, x)

    def change(e: Scalar) -> Scalar:
        for x in walk((e,)):
            if x in done or x.op == "const" or (is_sum(x) and x not in roots):
                continue
            done[x] = _with_params(linear_form(x), known, new, plain) if is_sum(x) else _rebuilt(x, known)
        return known(e)

    stages = tuple(rewritten(s, change, inner if s.extents else ()) for s in nest.stages)
    return replace(nest, extents=outer, stages=stages, params=len(numbers)), tuple(numbers)


def _with_params(
    form: Linear, known: Callable[[Scalar], Scalar], new: Callable[[int], Scalar], plain: Set[int]
) -> Scalar:
    total = const(0)
    for atom, c in sorted(form.terms.items(), key=lambda t: t[0].attr if t[0].op == "index" else 1 << 30):
        total = total + known(atom) * (c if c == 1 or c == max(plain) > 1 else new(c))
    return total + (form.base if form.base in plain else new(form.base))


def _rebuilt(x: Scalar, known: Callable[[Scalar], Scalar]) -> Scalar:
    divides = x.op in ("floordiv", "mod") and x.args[1].op == "const"
    return x.with_args(tuple(a if divides and k == 1 else known(a) for k, a in enumerate(x.args)))
