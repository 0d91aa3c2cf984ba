"""The array API standard's functions: signatures, NumPy's numbers, and the same numbers traced as eagerly."""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import AxisError, GraphTypeError
from graphc.ir.interpret import run

#: of the standard, version 2024.12
SIGNATURES = """
arange(start, /, stop=None, step=1, *, dtype=None, device=None)
asarray(obj, /, *, dtype=None, device=None, copy=None)
empty(shape, *, dtype=None, device=None)
empty_like(x, /, *, dtype=None, device=None)
eye(n_rows, n_cols=None, /, *, k=0, dtype=None, device=None)
from_dlpack(x, /, *, device=None, copy=None)
full(shape, fill_value, *, dtype=None, device=None)
full_like(x, /, fill_value, *, dtype=None, device=None)
linspace(start, stop, /, num, *, dtype=None, device=None, endpoint=True)
meshgrid(*arrays, indexing='xy')
ones(shape, *, dtype=None, device=None)
ones_like(x, /, *, dtype=None, device=None)
tril(x, /, *, k=0)
triu(x, /, *, k=0)
zeros(shape, *, dtype=None, device=None)
zeros_like(x, /, *, dtype=None, device=None)
astype(x, dtype, /, *, copy=True, device=None)
can_cast(from_, to, /)
finfo(type, /)
iinfo(type, /)
isdtype(dtype, kind)
result_type(*arrays_and_dtypes)
abs(x, /)
acos(x, /)
acosh(x, /)
add(x1, x2, /)
asin(x, /)
asinh(x, /)
atan(x, /)
atan2(x1, x2, /)
atanh(x, /)
bitwise_and(x1, x2, /)
bitwise_left_shift(x1, x2, /)
bitwise_invert(x, /)
bitwise_or(x1, x2, /)
bitwise_right_shift(x1, x2, /)
bitwise_xor(x1, x2, /)
ceil(x, /)
clip(x, /, min=None, max=None)
conj(x, /)
copysign(x1, x2, /)
cos(x, /)
cosh(x, /)
divide(x1, x2, /)
equal(x1, x2, /)
exp(x, /)
expm1(x, /)
floor(x, /)
floor_divide(x1, x2, /)
greater(x1, x2, /)
greater_equal(x1, x2, /)
hypot(x1, x2, /)
imag(x, /)
isfinite(x, /)
isinf(x, /)
isnan(x, /)
less(x1, x2, /)
less_equal(x1, x2, /)
log(x, /)
log1p(x, /)
log2(x, /)
log10(x, /)
logaddexp(x1, x2, /)
logical_and(x1, x2, /)
logical_not(x, /)
logical_or(x1, x2, /)
logical_xor(x1, x2, /)
maximum(x1, x2, /)
minimum(x1, x2, /)
multiply(x1, x2, /)
negative(x, /)
nextafter(x1, x2, /)
not_equal(x1, x2, /)
positive(x, /)
pow(x1, x2, /)
real(x, /)
reciprocal(x, /)
remainder(x1, x2, /)
round(x, /)
sign(x, /)
signbit(x, /)
sin(x, /)
sinh(x, /)
square(x, /)
sqrt(x, /)
subtract(x1, x2, /)
tan(x, /)
tanh(x, /)
trunc(x, /)
take(x, indices, /, *, axis=None)
take_along_axis(x, indices, /, *, axis=-1)
matmul(x1, x2, /)
matrix_transpose(x, /)
tensordot(x1, x2, /, *, axes=2)
vecdot(x1, x2, /, *, axis=-1)
broadcast_arrays(*arrays)
broadcast_to(x, /, shape)
concat(arrays, /, *, axis=0)
expand_dims(x, /, axis)
flip(x, /, *, axis=None)
moveaxis(x, source, destination, /)
permute_dims(x, /, axes)
repeat(x, repeats, /, *, axis=None)
reshape(x, /, shape, *, copy=None)
roll(x, /, shift, *, axis=None)
squeeze(x, /, axis)
stack(arrays, /, *, axis=0)
tile(x, repetitions, /)
unstack(x, /, *, axis=0)
argmax(x, /, *, axis=None, keepdims=False)
argmin(x, /, *, axis=None, keepdims=False)
count_nonzero(x, /, *, axis=None, keepdims=False)
nonzero(x, /)
searchsorted(x1, x2, /, *, side='left', sorter=None)
where(condition, x1, x2, /)
unique_all(x, /)
unique_counts(x, /)
unique_inverse(x, /)
unique_values(x, /)
argsort(x, /, *, axis=-1, descending=False, stable=True)
sort(x, /, *, axis=-1, descending=False, stable=True)
cumulative_prod(x, /, *, axis=None, dtype=None, include_initial=False)
cumulative_sum(x, /, *, axis=None, dtype=None, include_initial=False)
max(x, /, *, axis=None, keepdims=False)
mean(x, /, *, axis=None, keepdims=False)
min(x, /, *, axis=None, keepdims=False)
prod(x, /, *, axis=None, dtype=None, keepdims=False)
std(x, /, *, axis=None, correction=0.0, keepdims=False)
sum(x, /, *, axis=None, dtype=None, keepdims=False)
var(x, /, *, axis=None, correction=0.0, keepdims=False)
all(x, /, *, axis=None, keepdims=False)
any(x, /, *, axis=None, keepdims=False)
diff(x, /, *, axis=-1, n=1, prepend=None, append=None)
"""

rng = np.random.default_rng(0)
FLOATS = rng.normal(size=(2, 3, 4)).astype(np.float32)
POSITIVE = np.abs(FLOATS) + np.float32(0.1)
UNIT = np.tanh(FLOATS)
INTS = rng.integers(-5, 6, (3, 4))
SMALL = INTS.astype(np.int8)
BOOLS = INTS > 0
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.5], np.float32)
MATRIX = rng.normal(size=(3, 4))
EMPTY = np.zeros((0, 3), np.float32)
SCALAR = np.float32(0.3)


def shape_of(text: str) -> list[tuple[str, str, bool]]:
    """Name, kind and whether it has a default, of every parameter of `def f(text)`."""
    scope: dict[str, Any] = {}
    exec(compile(ast.parse(f"def f({text}): ..."), "<signature>", "exec"), scope)
    return shape_of_function(scope["f"])


def shape_of_function(f: Any) -> list[tuple[str, str, bool]]:
    parameters = inspect.signature(f).parameters.values()
    return [(p.name, p.kind.name, p.default is not p.empty) for p in parameters]


@pytest.mark.parametrize("line", SIGNATURES.split("\n")[1:-1], ids=lambda line: line.partition("(")[0])
def test_every_function_of_the_standard_has_its_signature(line: str) -> None:
    name, _, rest = line.partition("(")
    wanted, found = shape_of(rest[:-1]), shape_of_function(getattr(graphc, name))
    # further parameters are named ones with defaults, and a required one may have a default
    extra = [p for p in found if p[0] not in {w[0] for w in wanted}]
    assert all(kind == "KEYWORD_ONLY" and default for _, kind, default in extra)
    both = [p for p in found if p not in extra]
    assert [p[:2] for p in both] == [w[:2] for w in wanted]
    assert all(has or not must for (_, _, has), (_, _, must) in zip(both, wanted, strict=True))


def test_the_table_of_names_is_what_the_modules_have() -> None:
    for module, names in graphc._ARRAY_FUNCTIONS.items():
        assert names.split() == import_module(f"graphc.frontends.python.array_api.{module}").__all__


def test_the_guide_lists_every_function_that_is_not_the_standards() -> None:
    standard = {line.partition("(")[0] for line in SIGNATURES.split("\n")[1:-1]}
    ours = {n for family, names in graphc._ARRAY_FUNCTIONS.items() if family != "dtypes" for n in names.split()}
    guide = (Path(__file__).parent.parent.parent / "docs" / "array_api.md").read_text(encoding="utf-8")
    section = guide.partition("## Beside the standard")[2].partition("\n## ")[0]
    listed = set(re.findall(r"`(\w+)`", section)) - {"float16", "bfloat16"}
    assert listed == ours - standard


def test_constants_and_inspection() -> None:
    assert (graphc.pi, graphc.e, graphc.inf, graphc.newaxis) == (np.pi, np.e, np.inf, None)
    assert graphc.float32 == np.dtype("float32")
    info = graphc.__array_namespace_info__()
    assert info.default_dtypes()["real floating"] == graphc.zeros(1).dtype == graphc.float32
    assert set(info.dtypes(kind="unsigned integer")) == {"uint8", "uint16", "uint32", "uint64"}
    assert graphc.finfo(np.float32).eps == np.finfo(np.float32).eps
    assert graphc.iinfo("int8").max == 127
    assert graphc.isdtype(graphc.bfloat16, "real floating")
    assert graphc.can_cast(np.int8, np.int16)
    assert not graphc.can_cast(np.int16, np.int8)


# ------------------------------------------------------------------------------------------- the numbers are NumPy's

_UNARY = {
    "abs": (FLOATS, SMALL, SPECIAL, EMPTY, SCALAR), "acos": (UNIT,), "acosh": (POSITIVE + 1, SPECIAL),
    "asin": (UNIT,), "asinh": (FLOATS,), "atan": (FLOATS, SPECIAL), "atanh": (UNIT,), "bitwise_invert": (SMALL, BOOLS),
    "ceil": (FLOATS, INTS, SPECIAL), "conj": (FLOATS,), "cos": (FLOATS, SCALAR), "cosh": (FLOATS, SPECIAL),
    "exp": (FLOATS, SPECIAL, EMPTY), "expm1": (FLOATS * 1e-3, SPECIAL), "floor": (FLOATS, SPECIAL),
    "isfinite": (SPECIAL, INTS), "isinf": (SPECIAL, INTS), "isnan": (SPECIAL, INTS), "log": (POSITIVE, SPECIAL),
    "log10": (POSITIVE, SPECIAL), "log1p": (POSITIVE, SPECIAL), "log2": (POSITIVE, SPECIAL), "logical_not": (BOOLS,),
    "negative": (FLOATS, INTS), "positive": (INTS,), "real": (FLOATS,), "reciprocal": (FLOATS, SPECIAL),
    "round": (FLOATS * 3, SPECIAL), "sign": (FLOATS, INTS, SPECIAL), "signbit": (SPECIAL[1:],), "sin": (FLOATS,),
    "sinh": (FLOATS, SPECIAL), "sqrt": (POSITIVE, SPECIAL), "square": (FLOATS, INTS), "tan": (FLOATS,),
    "tanh": (FLOATS, SPECIAL), "trunc": (FLOATS * 3, SPECIAL),
}  # fmt: skip

_PAIRS = ((FLOATS, FLOATS[::-1]), (FLOATS, MATRIX.astype(np.float32)), (SPECIAL[:, None], SPECIAL))
_INT_PAIRS = ((INTS, np.array([3, -2, 1, 5])), (SMALL, SMALL[:1] | 1))
_BINARY = {
    "add": _PAIRS + _INT_PAIRS, "atan2": _PAIRS, "bitwise_and": _INT_PAIRS, "bitwise_left_shift": ((INTS, abs(INTS)),),
    "bitwise_or": (*_INT_PAIRS, (BOOLS, BOOLS[::-1])), "bitwise_right_shift": ((INTS, abs(INTS)),),
    "bitwise_xor": _INT_PAIRS, "copysign": (_PAIRS[0],), "divide": _PAIRS, "equal": _PAIRS + _INT_PAIRS,
    "floor_divide": (_PAIRS[0], *_INT_PAIRS), "greater": _PAIRS, "greater_equal": _PAIRS, "hypot": _PAIRS,
    "less": _PAIRS, "less_equal": _INT_PAIRS, "logaddexp": _PAIRS, "logical_and": ((BOOLS, BOOLS[::-1]),),
    "logical_or": ((BOOLS, BOOLS[::-1]),), "logical_xor": ((BOOLS, BOOLS[::-1]),), "maximum": _PAIRS,
    "minimum": _PAIRS, "multiply": _PAIRS + _INT_PAIRS, "nextafter": _PAIRS[:1], "not_equal": _PAIRS,
    "pow": ((POSITIVE, FLOATS), (INTS, abs(INTS))), "remainder": (_PAIRS[0], *_INT_PAIRS), "subtract": _PAIRS,
}  # fmt: skip


def same(ours: Any, theirs: Any, rtol: float = 2e-6) -> None:
    """Equal shapes and element types, and numbers up to the last digits."""
    theirs = np.asarray(theirs)
    assert isinstance(ours, np.ndarray)
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=1e-6 if theirs.dtype == np.float32 else 1e-12)


def traced(f: Any, *arrays: Any, compiled: bool = False) -> Any:
    """The results of a function traced for arrays like these and interpreted, or compiled, on them."""
    graph = graphc.trace(f, *arrays)
    results = graphc.compile(graph).run(None, dict(zip(graph.input_names, arrays, strict=True))) if compiled else None
    return results or list(run(graph, *arrays))


ELEMENTWISE = [
    *((name, (x,)) for name, cases in _UNARY.items() for x in cases),
    *((name, pair) for name, cases in _BINARY.items() for pair in cases),
]


@pytest.mark.parametrize(("name", "operands"), ELEMENTWISE)
def test_elementwise(name: str, operands: tuple[Any, ...]) -> None:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        theirs = getattr(np, name)(*operands)
    eager = getattr(graphc, name)(*operands)
    same(eager, theirs)
    if name != "nextafter":
        np.testing.assert_array_equal(traced(getattr(graphc, name), *operands)[0], eager)


CASES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "arange": (lambda xp: (xp.arange(5), xp.arange(2, 11, 3), xp.arange(5, 0, -2), xp.arange(3, 3)), ()),
    "eye": (lambda xp: (xp.eye(3, dtype=np.int8), xp.eye(2, 4, k=1, dtype=np.float64)), ()),
    "linspace": (lambda xp: xp.linspace(0, 1, 7, dtype=np.float64, endpoint=False), ()),
    "full": (lambda xp: (xp.full((2, 0), 3), xp.full((2,), True), xp.full((2,), 3, dtype=np.float32)), ()),
    "likes": (lambda xp, x: (xp.zeros_like(x), xp.ones_like(x, dtype=np.int8), xp.full_like(x, 7)), (FLOATS,)),
    "meshgrid": (lambda xp, a, b: xp.meshgrid(a, b) + xp.meshgrid(a, b, indexing="ij"), (INTS[0], INTS[1, :2])),
    "triangles": (lambda xp, x: (xp.tril(x, k=-1), xp.triu(x, k=1)), (FLOATS,)),
    "astype": (lambda xp, x: (xp.astype(x, np.int32), xp.astype(x, np.bool_)), (FLOATS * 3,)),
    "broadcast": (lambda xp, a, b: (*xp.broadcast_arrays(a, b), xp.broadcast_to(a, (2, 3, 4))), (INTS, INTS[:1, :1])),
    "concat": (lambda xp, a, b: (xp.concat([a, b], axis=-1), xp.concat([a, b], axis=None)), (SMALL, INTS)),
    "stack": (lambda xp, a: (xp.stack([a, a + 1]), xp.stack([a, a], axis=-1), *xp.unstack(a, axis=1)), (FLOATS,)),
    "expand_dims": (lambda xp, a: (xp.expand_dims(a, axis=1), xp.expand_dims(a, axis=(0, -1))), (INTS,)),
    "squeeze": (lambda xp, a: (xp.squeeze(a[:1], axis=0), xp.squeeze(a[:1, :1], axis=(0, 1))), (INTS,)),
    "orders": (lambda xp, a: (xp.permute_dims(a, (2, 0, 1)), xp.moveaxis(a, (0, 1), (-1, 0)), xp.flip(a, axis=(0, -1)),
                              xp.flip(a), xp.matrix_transpose(a)), (FLOATS,)),
    "roll": (lambda xp, a: (xp.roll(a, 5), xp.roll(a, (1, -2), axis=(0, 1)), xp.roll(a, -1, axis=1)), (INTS,)),
    "repeat": (lambda xp, a: (xp.repeat(a, 2), xp.repeat(a, np.array([2, 0, 1]), axis=0), xp.repeat(a, 3, axis=1)), (INTS,)),
    "tile": (lambda xp, a: (xp.tile(a, (2, 1, 3)), xp.tile(a, (2,))), (INTS,)),
    "reshape": (lambda xp, a: (xp.reshape(a, (4, -1)), xp.reshape(a, (-1,)), xp.reshape(a[:1, :1], ())), (INTS,)),
    "take": (lambda xp, a, i: (xp.take(a, i, axis=1), xp.take(a[0], i, axis=0)), (INTS, np.array([3, 0, 3]))),
    "take_along_axis": (lambda xp, a, i: xp.take_along_axis(a, i, axis=1), (INTS, np.array([[0, 3], [1, 1], [2, 0]]))),
    "sums": (lambda xp, a: (xp.sum(a), xp.sum(a, axis=0, dtype=np.int32), xp.prod(a, axis=(0, 1)),
                            xp.sum(a, axis=1, keepdims=True)), (SMALL,)),
    "sums of floats": (lambda xp, a: (xp.sum(a, axis=(0, 2)), xp.prod(a, axis=1)), (FLOATS,)),
    "empty sums": (lambda xp, a: (xp.sum(a, axis=0), xp.prod(a), xp.all(a), xp.any(a, axis=0)), (EMPTY,)),
    "running": (lambda xp, a: (xp.cumulative_sum(a, axis=1), xp.cumulative_sum(a, axis=0, include_initial=True),
                               xp.cumulative_prod(a, axis=-1)), (SMALL,)),
    "extremes": (lambda xp, a: (xp.max(a), xp.min(a, axis=1), xp.max(a, axis=(0, 2), keepdims=True)), (FLOATS,)),
    "spread": (lambda xp, a: (xp.mean(a, axis=1), xp.var(a, axis=(0, 2), correction=1), xp.std(a, keepdims=True)), (FLOATS,)),
    "positions": (lambda xp, a: (xp.argmax(a), xp.argmin(a, axis=1), xp.argmax(a, axis=0, keepdims=True)), (FLOATS,)),
    "counts": (lambda xp, a: (xp.count_nonzero(a), xp.count_nonzero(a, axis=1)), (BOOLS,)),
    "nonzero": (lambda xp, a: xp.nonzero(a), (INTS,)),
    "searchsorted": (lambda xp, a, b: (xp.searchsorted(a, b), xp.searchsorted(a, b, side="right")),
                     (np.sort(SPECIAL), SPECIAL[::-1].copy())),
    "where": (lambda xp, c, a, b: (xp.where(c, a, b), xp.where(c, a, 0)), (BOOLS, INTS, INTS[:1])),
    "sort": (lambda xp, a: (xp.sort(a), xp.sort(a, axis=0), xp.argsort(a, axis=0, stable=True)), (SPECIAL.reshape(-1, 1),)),
    "unique": (lambda xp, a: (*xp.unique_all(a), *xp.unique_counts(a), *xp.unique_inverse(a), xp.sort(xp.unique_values(a))), (INTS,)),
    "unique of NaN": (lambda xp, a: xp.unique_all(a), (np.tile(SPECIAL, 2),)),
    "unique of nothing": (lambda xp, a: xp.unique_all(a), (EMPTY,)),
    "logic": (lambda xp, a: (xp.all(a), xp.any(a, axis=0), xp.all(a, axis=(0, 1), keepdims=True)), (BOOLS,)),
    "diff": (lambda xp, a: (xp.diff(a), xp.diff(a, axis=0, n=2), xp.diff(a, prepend=a[:, :1])), (INTS,)),
    "matmul": (lambda xp, a, b: (xp.matmul(a, b), xp.matmul(a[0], b), xp.matmul(a[0, 0], b[0, :, 0])),
               (FLOATS.astype(np.float64), FLOATS.swapaxes(1, 2).astype(np.float64))),
    "tensordot": (lambda xp, a, b: (xp.tensordot(a, b, axes=1), xp.tensordot(a, b, axes=((0, 1), (1, 0))),
                                    xp.tensordot(a, b, axes=0)), (MATRIX, rng.normal(size=(4, 3, 2)))),
    "vecdot": (lambda xp, a, b: (xp.vecdot(a, b), xp.vecdot(a, b, axis=-2)), (MATRIX, MATRIX[::-1].copy())),
    "clip": (lambda xp, a: (xp.clip(a, -1, 2), xp.clip(a, None, 0), xp.clip(a, a[:1], None)), (INTS,)),
}  # fmt: skip
#: compiled as well: one case a family
COMPILED = (
    "concat",
    "orders",
    "sums",
    "running",
    "spread",
    "where",
    "diff",
    "matmul",
    "roll",
    "unique",
    "searchsorted",
)


@pytest.mark.parametrize("name", CASES)
def test_functions_are_numpys(name: str) -> None:
    function, operands = CASES[name]
    theirs, eager = function(np, *operands), function(graphc, *operands)
    if not isinstance(theirs, tuple | list):
        theirs, eager = (theirs,), (eager,)
    assert len(eager) == len(theirs)
    for a, b in zip(eager, theirs, strict=True):
        same(a, b)
    if not operands:
        return
    for compiled in (False, True) if name in COMPILED else (False,):
        for a, b in zip(traced(lambda *xs: function(graphc, *xs), *operands, compiled=compiled), eager, strict=True):
            same(np.asarray(a), b)


@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("...ij,...jk", [(5, 2, 3), (1, 3, 4)]),
        ("ii->i", [(3, 3)]),
        ("ii", [(3, 3)]),
        ("i,j->ij", [(2,), (3,)]),
        ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
        ("ij->", [(2, 3)]),
        ("ijk->kj", [(2, 3, 4)]),
        ("a,ab,b->", [(2,), (2, 3), (3,)]),
    ],
)
def test_einsum(subscripts: str, shapes: list[tuple[int, ...]]) -> None:
    operands = [rng.normal(size=s) for s in shapes]
    eager = graphc.einsum(subscripts, *operands)
    np.testing.assert_allclose(eager, np.einsum(subscripts, *operands), rtol=1e-12)
    np.testing.assert_allclose(traced(lambda *xs: graphc.einsum(subscripts, *xs), *operands)[0], eager, rtol=1e-12)


def test_activations_follow_their_definitions() -> None:
    x = np.array([-3.0, -0.5, 0.0, 0.5, 3.0])
    np.testing.assert_allclose(graphc.softmax(x), np.exp(x) / np.exp(x).sum(), rtol=1e-12)
    np.testing.assert_allclose(graphc.log_softmax(x), np.log(np.exp(x) / np.exp(x).sum()), rtol=1e-12)
    np.testing.assert_allclose(graphc.logsumexp(x), np.log(np.exp(x).sum()), rtol=1e-12)
    np.testing.assert_allclose(graphc.sigmoid(x), 1 / (1 + np.exp(-x)), rtol=1e-12)
    np.testing.assert_allclose(graphc.log_sigmoid(x), np.log(1 / (1 + np.exp(-x))), rtol=1e-12)
    np.testing.assert_allclose(graphc.softplus(x), np.log1p(np.exp(x)), rtol=1e-12)
    np.testing.assert_allclose(graphc.silu(x), x / (1 + np.exp(-x)), rtol=1e-12)
    np.testing.assert_array_equal(graphc.relu(x), np.maximum(x, 0))
    np.testing.assert_array_equal(graphc.one_hot(np.array([1, -1, 3, 0]), 3), [[0, 1, 0], [0] * 3, [0] * 3, [1, 0, 0]])


# -------------------------------------------------------------------------------------------------- element types


def test_arrays_in_arrays_out_and_numbers_follow_them() -> None:
    for dtype in (np.float16, np.float32, np.float64):
        x = np.ones(3, dtype)
        assert (graphc.add(x, 1).dtype, graphc.multiply(0.5, x).dtype) == (x.dtype, x.dtype)
    assert graphc.add(1, 2).dtype == np.int64
    assert graphc.add(1.0, 2).dtype == np.float32
    assert graphc.divide(INTS, INTS).dtype == np.float32
    assert graphc.add(SMALL, FLOATS[0]).dtype == np.float32
    assert graphc.sin(INTS).dtype == np.float32
    assert graphc.asarray([1.5, 2]).dtype == np.float32
    assert graphc.asarray([np.float64(1.5), 2]).dtype == np.float64


def test_a_traced_number_keeps_pythons_digits_until_it_meets_an_array() -> None:
    rate, x = 0.1, np.ones(2)
    eager = x * (rate * 3)
    np.testing.assert_array_equal(traced(lambda r, v: v * (r * 3), rate, x)[0], eager)
    narrow = graphc.trace(lambda r, v: v * graphc.sin(r * 3), rate, np.ones(2, np.float16))
    assert str(narrow.outputs[0].dtype) == "float16"
    assert str(graphc.trace(lambda r: r * 3, rate).outputs[0].dtype) == "float32"


def test_complex_numbers_are_computed_eagerly_and_refused_in_traces() -> None:
    z = (FLOATS + 1j * FLOATS[::-1]).astype(np.complex64)
    np.testing.assert_allclose(graphc.exp(z), np.exp(z), rtol=1e-6)
    assert graphc.abs(z).dtype == np.float32
    with pytest.raises(GraphTypeError, match="complex64"):
        graphc.trace(graphc.exp, z)


def test_asarray_copies_where_it_must_or_is_told_to() -> None:
    x = np.ones(3)
    assert graphc.asarray(x) is x or np.shares_memory(graphc.asarray(x), x)
    assert not np.shares_memory(graphc.asarray(x, copy=True), x)
    with pytest.raises(ValueError, match="copy is False"):
        graphc.asarray(x, dtype=np.float32, copy=False)
    made = traced(lambda a: graphc.asarray([[a, 1.0], [2.0, a]]), np.float64(7))[0]
    np.testing.assert_array_equal(made, [[7, 1], [2, 7]])


def test_open_sizes() -> None:
    def f(x: Any) -> Any:
        n = x.shape[0]
        column = graphc.arange(n) + graphc.zeros(n, dtype=np.int64)
        return (
            graphc.mean(x, axis=0),
            column,
            graphc.var(x, correction=1),
            x[1:],
            x[::-1, -1],
            graphc.roll(x, 1, axis=0),
        )

    graph = graphc.trace(f, graphc.spec(("n", 4), "float64"))
    found = run(graph, MATRIX)
    wanted = (MATRIX.mean(0), np.arange(3), MATRIX.var(ddof=1), MATRIX[1:], MATRIX[::-1, -1], np.roll(MATRIX, 1, 0))
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


# ------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("mistake", "error", "words"),
    [
        (lambda x: graphc.add(x, np.ones((2, 2))), GraphTypeError, ["add", "[2, 2]", "[3, 4]"]),
        (lambda x: graphc.sum(x, axis=2), AxisError, ["sum", "axis 2", "rank 2"]),
        (lambda x: graphc.sum(x, axis=(0, 0)), AxisError, ["sum", "twice"]),
        (lambda x: graphc.sum(x, axis=(0, 1.0)), GraphTypeError, ["sum", "whole number", "1.0 (float)"]),
        (lambda x: graphc.softmax(x, axis="0"), GraphTypeError, ["softmax", "whole number", "'0' (str)"]),
        (lambda x: graphc.flip(x, axis=x), GraphTypeError, ["flip", "an axis"]),
        (lambda x: graphc.squeeze(x, 0), ValueError, ["squeeze", "axis 0", "extent 3"]),
        (lambda x: graphc.expand_dims(x, axis=5), IndexError, ["expand_dims", "axis 5"]),
        (lambda x: graphc.matmul(x, x), GraphTypeError, ["matmul", "[3, 4]", "extent 4", "3"]),
        (lambda x: graphc.reshape(x, (5, -1)), GraphTypeError, ["reshape", "12"]),
        (lambda x: graphc.bitwise_and(x, x), GraphTypeError, ["bitwise_and", "float64", "int"]),
        (lambda x: graphc.concat([x, x[0]]), GraphTypeError, ["concat", "operand 1"]),
        (lambda x: graphc.stack([x, x[:1]]), GraphTypeError, ["stack", "operand 1", "[1, 4]"]),
        (lambda x: graphc.max(x[:0]), ValueError, ["max", "axis 0", "empty"]),
        (lambda x: graphc.argmax(x[:0], axis=0), ValueError, ["argmax", "empty"]),
        (lambda x: graphc.zeros(3, device="cuda"), ValueError, ["zeros", "'cuda'", "'cpu'"]),
        (lambda x: graphc.cumulative_sum(x), GraphTypeError, ["cumulative_sum", "axis"]),
        (lambda x: graphc.einsum("ij,jk", x, x), GraphTypeError, ["'j'", "4", "3"]),
        (lambda x: graphc.take(x, np.array([4]), axis=0), IndexError, ["4", "axis 0", "extent is 3"]),
        (lambda x: graphc.repeat(x, np.array([1, 2]), axis=0), GraphTypeError, ["repeat", "axis 0"]),
        (lambda x: graphc.matmul(BOOLS, BOOLS.T), GraphTypeError, ["matmul", "bool"]),
        (lambda x: graphc.add(x, "text"), GraphTypeError, ["add"]),
    ],
)
@pytest.mark.parametrize("eager", [True, False])
def test_mistakes_name_the_function_the_operand_and_the_line(
    mistake: Any, error: type[Exception], words: list[str], eager: bool
) -> None:
    with pytest.raises(error) as raised:
        mistake(MATRIX) if eager else graphc.trace(mistake, MATRIX)
    text = str(raised.value)
    assert all(word in text for word in words), text
    if isinstance(raised.value, GraphTypeError | IndexError):
        assert "test_array_api.py:" in text


@pytest.mark.parametrize("shape", [(2, -3), -1, (2.5,), ("n", b"m")])
def test_a_spec_of_no_shape_is_refused(shape: Any) -> None:
    with pytest.raises(GraphTypeError, match=r"spec: dimension \d is .*; it is a number from 0, a name, or None"):
        graphc.spec(shape)
