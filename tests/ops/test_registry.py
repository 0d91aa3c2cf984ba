"""Tests generated from the registry: what an operation says about itself in several ways must agree."""

from __future__ import annotations

import copy
import functools
import math
from typing import Any

import numpy as np
import pytest
from cases import assert_close, operands_of, results_of, samples, type_of

from graphc.errors import GraphTypeError
from graphc.ir import scalar as s
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, input_value, make
from graphc.ir.interpret import bind_symbols, evaluate, run
from graphc.ir.scalar import Scalar
from graphc.ir.types import OptionalType, SequenceType, TensorType
from graphc.ops import REGISTRY, Kind, Layout, OpSpec, Sample
from graphc.ops.reduce import combine_identity


@pytest.mark.parametrize("name", REGISTRY)
def test_every_operation_is_complete(name: str) -> None:
    spec = REGISTRY[name]
    assert spec.name == name
    assert spec.summary.endswith(".")
    if spec.kind is Kind.LEAF:
        return
    assert spec.reference is not None
    assert [*spec.samples()], "an operation without samples is not tested"
    needed = {Kind.ELEMENTWISE: "scalar", Kind.INJECTIVE: "compute", Kind.REDUCE: "combine"}
    if spec.kind in needed:
        assert getattr(spec, needed[spec.kind]) is not None
    if spec.kind is Kind.ANCHOR:
        assert spec.template or spec.decompose
    if spec.kind is Kind.HOST:
        assert spec.no_gradient or spec.gradient


def test_operations_of_one_template_say_the_same_about_it() -> None:
    said: dict[str, tuple[bool, bool]] = {}
    for spec in REGISTRY.values():
        says = spec.takes_epilogue, spec.writes_strided
        if spec.template is None:
            assert not any(says), f"{spec.name} has no template"
        else:
            assert said.setdefault(spec.template, says) == says, spec.name


@pytest.mark.parametrize(("spec", "sample"), samples(lambda spec: spec.keeps_finite))
def test_what_keeps_finite_makes_finite_numbers_of_finite_ones(spec: OpSpec, sample: Sample) -> None:
    operands, (result,) = operands_of(sample), results_of(spec, sample)
    if object in [x.dtype for x in (*operands, result)]:
        return  # strings
    moderate = [np.abs(x.astype(np.float64)) < 200 for x in operands]  # not NaN, and nothing overflows
    assert np.isfinite(result[np.logical_and.reduce(moderate)].astype(np.float64)).all()


def _never_decreases(spec: OpSpec, dtype: type) -> bool:
    tops = np.finfo(dtype)
    ends = [-np.inf, tops.min, -0.0, tops.tiny, tops.max, np.inf]
    x = np.sort(np.concatenate([np.linspace(-12, 12, 3001), ends])).astype(dtype)
    binary = any(len(sample.operands) == 2 for sample in spec.samples())
    constants = [np.full_like(x, c) for c in (-3.5, 0, 0.1, 7)] if binary else []
    for operands in [*((x, c) for c in constants), *((c, x) for c in constants)] or [(x,)]:
        (y,) = results_of(spec, Sample(operands))
        with np.errstate(over="ignore"):
            least = y[:-1] - np.nan_to_num(4 * tops.eps * np.maximum(np.abs(y[:-1]), tops.tiny), posinf=0)
        if np.isnan(y).any() or (y[1:] < least).any():
            return False
    return True


@pytest.mark.parametrize("name", [name for name, spec in REGISTRY.items() if spec.kind is Kind.ELEMENTWISE])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_never_decreases_says_so(name: str, dtype: type) -> None:
    spec = REGISTRY[name]
    sample = next((s for s in spec.samples() if all(np.asarray(o).dtype == np.float32 for o in s.operands)), None)
    if sample is None or sample.attrs or results_of(spec, sample)[0].dtype != np.float32 or len(sample.operands) > 2:
        assert not spec.nondecreasing, f"{name}: the flag nondecreasing is for operations on floats"
        return
    assert spec.nondecreasing == _never_decreases(spec, dtype), f"{name}: is its flag nondecreasing right?"


@pytest.mark.parametrize(("spec", "sample"), samples(lambda spec: spec.commutative))
def test_operands_of_what_commutes_may_change_places(spec: OpSpec, sample: Sample) -> None:
    x, y = sample.operands
    (there,), (back,) = (results_of(spec, Sample(operands)) for operands in ((x, y), (y, x)))
    _assert_same(there, back)


@pytest.mark.parametrize(("spec", "sample"), samples(lambda spec: spec.idempotent))
def test_what_is_idempotent_changes_nothing_the_second_time(spec: OpSpec, sample: Sample) -> None:
    (once,) = results_of(spec, Sample(sample.operands))
    _assert_same(*results_of(spec, Sample((once,))), once)


@pytest.mark.parametrize(("spec", "sample"), samples())
def test_inference_agrees_with_the_reference(spec: OpSpec, sample: Sample) -> None:
    inferred = spec.infer(*map(type_of, operands_of(sample)), **sample.attrs)
    inferred = inferred if type(inferred) is tuple else (inferred,)
    results = results_of(spec, sample)
    assert len(inferred) == len(results)
    symbols: dict[str, int] = {}
    for t, result in zip(inferred, results, strict=True):
        assert bind_symbols(t, result, symbols), f"inferred {t}, the reference gave {result!r}"


@pytest.mark.parametrize(("spec", "sample"), samples())
def test_a_node_runs_and_leaves_its_operands_alone(spec: OpSpec, sample: Sample) -> None:
    operands = operands_of(sample)
    before = copy.deepcopy(operands)
    inputs = [input_value(f"x{k}", type_of(o)) for k, o in enumerate(operands)]
    outs = make(spec, *inputs, **sample.attrs)
    assert make(spec, *inputs, **sample.attrs) == outs, "equal nodes must be one node"
    results = run(Graph(inputs, outs), *operands)
    for actual, expected in zip(results, results_of(spec, sample), strict=True):
        _assert_same(actual, expected)
    for o, b in zip(operands, before, strict=True):
        _assert_same(o, b)


def _assert_same(a: Any, b: Any) -> None:
    if isinstance(b, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            _assert_same(x, y)
    elif b is None:
        assert a is None
    else:
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        # narrow floats are compared in a wide type: NumPy does not know their NaNs
        wide = np.float64 if dtype_of(b).is_float else b.dtype
        np.testing.assert_array_equal(a.astype(wide), b.astype(wide))


class ArrayReader:
    """Reads elements of a dense array in buffer `number`."""

    def __init__(self, number: int, array: np.ndarray) -> None:
        self.type = TensorType(dtype_of(array), array.shape)
        self.number, self.strides = number, Layout.dense(array.shape).strides

    def __call__(self, *index: Scalar) -> Scalar:
        return s.load(self.number, s.linear(index, self.strides), self.type.dtype)


@pytest.mark.parametrize(("spec", "sample"), samples(lambda spec: spec.scalar is not None, kernels_only=True))
def test_scalar_form_agrees_with_the_reference(spec: OpSpec, sample: Sample) -> None:
    arrays = operands_of(sample)
    (expected,) = results_of(spec, sample)
    assert spec.scalar is not None
    element = spec.scalar(*(s.load(k, s.index(0), dtype_of(a)) for k, a in enumerate(arrays)), **sample.attrs)
    assert element.dtype == dtype_of(expected)
    actual = evaluate(element, indices=[np.arange(expected.size)], buffers=arrays)
    assert_close(np.broadcast_to(actual, expected.size).reshape(expected.shape), expected)


@pytest.mark.parametrize(("spec", "sample"), samples(lambda spec: spec.compute is not None, kernels_only=True))
def test_computed_elements_agree_with_the_reference(spec: OpSpec, sample: Sample) -> None:
    arrays = operands_of(sample)
    (expected,) = results_of(spec, sample)
    result = TensorType(dtype_of(expected), expected.shape)
    readers = [ArrayReader(k, a) for k, a in enumerate(arrays)]
    assert spec.compute is not None
    element = spec.compute(result, readers, [s.index(k) for k in range(expected.ndim)], **sample.attrs)
    assert element.dtype == result.dtype
    if expected.size:
        actual = evaluate(element, indices=np.indices(expected.shape), buffers=arrays)
        np.testing.assert_array_equal(np.broadcast_to(actual, expected.shape), expected)


def _strided(buffer: np.ndarray, layout: Layout) -> np.ndarray:
    """The elements of a flat buffer that a layout describes."""
    if 0 in layout.shape:
        return np.zeros(layout.shape, buffer.dtype)
    places = np.full(layout.shape, layout.offset)
    for axis, (extent, stride) in enumerate(zip(layout.shape, layout.strides, strict=True)):
        line = [1] * len(layout.shape)
        line[axis] = extent
        places = places + (np.arange(extent) * stride).reshape(line)
    return buffer[places]


def _layouts(array: np.ndarray) -> list[tuple[np.ndarray, Layout]]:
    """The array in a dense buffer, with a gap before it, and with its axes in reverse order and spread out."""
    shape = array.shape
    dense = array.ravel()
    gap = np.concatenate([dense[:1], dense])
    spread = np.zeros([2 * d for d in shape[::-1]], array.dtype)
    spread[tuple(slice(None, None, 2) for _ in shape)] = array.T
    strides = Layout.dense(spread.shape).strides
    return [
        (dense, Layout.dense(shape)),
        (gap, Layout.dense(shape, 1)),
        (spread.ravel(), Layout(0, shape, tuple(2 * n for n in strides[::-1]))),
    ]


@pytest.mark.parametrize(("spec", "sample"), samples(lambda spec: spec.view is not None))
def test_views_show_what_the_reference_computes(spec: OpSpec, sample: Sample) -> None:
    (array,) = operands_of(sample)
    (expected,) = results_of(spec, sample)
    result = TensorType(dtype_of(expected), expected.shape)
    assert spec.view is not None
    always = spec.name in ("reshape", "transpose", "broadcast_to", "slice")
    for k, (buffer, layout) in enumerate(_layouts(array)):
        view = spec.view(layout, result, **sample.attrs)
        assert view is not None or k == 2 or not always, "a dense operand can be viewed"
        if view is not None:
            assert view.shape == expected.shape
            np.testing.assert_array_equal(_strided(buffer, view), expected)


@pytest.mark.parametrize(("spec", "sample"), samples(lambda spec: spec.kind is Kind.REDUCE, kernels_only=True))
def test_reductions_combine_elements_from_the_identity(spec: OpSpec, sample: Sample) -> None:
    (array,) = operands_of(sample)
    (expected,) = results_of(spec, sample)
    assert spec.combine is not None
    axes = sample.attrs["axes"]
    kept = [k for k in range(array.ndim) if k not in axes]
    count = math.prod(array.shape[k] for k in axes)
    rows = array.transpose([*kept, *axes]).reshape(expected.size, count)
    start = s.const(combine_identity(spec.combine, dtype_of(array)), dtype_of(array))
    combined = functools.reduce(
        lambda a, k: s.scalar(spec.combine or "", a, s.load(k, s.index(0), start.dtype)), range(count), start
    )
    columns = [np.ascontiguousarray(rows[:, k]) for k in range(count)]
    actual = evaluate(combined, indices=[np.arange(expected.size)], buffers=columns)
    assert_close(np.broadcast_to(actual, expected.size).reshape(expected.shape), expected)


def _sample_with_tensors(spec: OpSpec) -> Sample | None:
    """A case of an operation that a caller gives tensors; those of graphc.ops.layout are made by passes only."""
    if spec.name.startswith(("sequence", "optional", "fusion")) or spec.infer.__module__ == "graphc.ops.layout":
        return None
    return next((x for x in spec.samples() if x.operands and not isinstance(x.operands[0], list)), None)


@pytest.mark.parametrize("name", [n for n, spec in REGISTRY.items() if _sample_with_tensors(spec)])
def test_a_sequence_where_a_tensor_is_needed_is_refused_clearly(name: str) -> None:
    spec = REGISTRY[name]
    sample = _sample_with_tensors(spec)
    assert sample is not None
    types = [type_of(o) for o in operands_of(sample)]
    for wrong in (SequenceType(types[0]), OptionalType(types[0])):
        with pytest.raises(GraphTypeError, match=name):
            spec.infer(wrong, *types[1:], **sample.attrs)


@pytest.mark.parametrize("name", ["add", "exp", "isnan", "isinf", "select", "transpose", "concat", "dot"])
def test_too_few_or_too_many_operands_are_refused(name: str) -> None:
    spec = REGISTRY[name]
    sample = next(x for x in spec.samples() if len(x.operands) in (1, 2, 3))
    values = [input_value(f"x{k}", type_of(o)) for k, o in enumerate(operands_of(sample))]
    for wrong in ([], [*values, *values, *values]) if name != "concat" else ([],):
        with pytest.raises(GraphTypeError, match=f"{name}.* operand"):
            spec(*wrong, **sample.attrs)


@pytest.mark.parametrize("combine", ["add", "mul", "maximum", "minimum"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint64, np.int64, np.float16, np.float32, np.float64])
def test_identities_leave_every_value_as_it_is(combine: str, dtype: type) -> None:
    limits = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else np.finfo(dtype)
    extremes = np.array([limits.min, 0, 1, limits.max], dtype)
    if np.issubdtype(dtype, np.floating):
        extremes = np.append(extremes, np.array([np.inf, -np.inf], dtype))
    ufunc = {"add": np.add, "mul": np.multiply, "maximum": np.maximum, "minimum": np.minimum}[combine]
    identity = np.array(combine_identity(combine, dtype_of(dtype)), dtype)
    np.testing.assert_array_equal(ufunc(extremes, identity), extremes)
