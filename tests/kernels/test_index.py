"""Index arithmetic: simplified expressions have the same value at every point, and the usual shapes become plain sums."""

from __future__ import annotations

import itertools
import operator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.ir.dtypes import dtype_of
from graphc.ir.scalar import Scalar, affine, bitcast, const, index, linear_form, load, param, rewrite, scalar, select
from graphc.kernels.index import guarded_selects, ranges, simplify, substitute, unlinear

EXTENTS = (3, 4, 6)
FLOAT32 = dtype_of("float32")
_OPERATORS = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "floordiv": operator.floordiv, "mod": operator.mod,
    "maximum": max, "minimum": min, "lt": operator.lt, "ge": operator.ge, "eq": operator.eq, "neg": operator.neg,
    "select": lambda c, a, b: a if c else b, "and": operator.and_, "or": operator.or_,
}  # fmt: skip


def evaluate(e: Scalar, point: tuple[int, ...]) -> int:
    if e.op == "const":
        return int(e.attr)
    if e.op == "index":
        return point[e.attr]
    return int(_OPERATORS[e.op](*(evaluate(a, point) for a in e.args)))


def _combined(children: st.SearchStrategy[Scalar]) -> st.SearchStrategy[Scalar]:
    divisors = st.integers(1, 12)
    factors = st.integers(-6, 12)
    return st.one_of(
        st.builds(lambda a, b: a + b, children, children),
        st.builds(lambda a, b: a - b, children, children),
        st.builds(lambda a, k: a * k, children, factors),
        st.builds(lambda a, k: a // k, children, divisors),
        st.builds(lambda a, k: a % k, children, divisors),
        st.builds(lambda a, b: scalar("maximum", a, b), children, children),
        st.builds(lambda a, k: scalar("minimum", a, k), children, factors),
        st.builds(lambda a, b, c: select(a < b, c, a), children, children, children),
    )


INDICES = st.recursive(st.sampled_from([index(0), index(1), index(2)]), _combined, max_leaves=8)


@given(INDICES)
@settings(max_examples=300, deadline=None)
def test_simplified_expressions_have_the_same_values(e: Scalar) -> None:
    simple, known = simplify(e, EXTENTS), ranges(e, EXTENTS)
    for point in itertools.product(*map(range, EXTENTS)):
        value = evaluate(e, point)
        assert evaluate(simple, point) == value
        assert known is None or known.low <= value <= known.high


@given(INDICES, INDICES)
@settings(max_examples=100, deadline=None)
def test_linear_forms_lose_nothing(a: Scalar, b: Scalar) -> None:
    e = a * 3 - b
    for point in itertools.product(*map(range, EXTENTS)):
        assert evaluate(unlinear(linear_form(e)), point) == evaluate(e, point)


I0, I1, I2 = (index(k) for k in range(3))


@pytest.mark.parametrize(
    ("e", "simple"),
    [
        ((I0 * 4 + I1) // 4, I0),
        ((I0 * 4 + I1) % 4, I1),
        (((I0 * 4 + I1) // 4) * 4 + (I0 * 4 + I1) % 4, I0 * 4 + I1),
        ((I0 * 24 + I1 * 6 + I2) // 6 % 4, I1),
        ((I0 * 24 + I1 * 6 + I2) // 24, I0),
        ((I1 * 6 + I2) // 12, I1 // 2),
        ((I1 * 6 + I2) % 12, I1 % 2 * 6 + I2),
        (I2 // 2 // 3, const(0)),
        (scalar("minimum", I1, 3), I1),
        (scalar("maximum", I1 - 4, 0), const(0)),
        (select(I0 < 3, I0, I1), I0),
        (select(I0 * 4 + I1 >= 12, I0, I1), I1),
    ],
    ids=str,
)
def test_what_the_extents_decide(e: Scalar, simple: Scalar) -> None:
    assert simplify(e, EXTENTS) is simplify(simple, EXTENTS)


def test_data_is_not_taken_for_an_index() -> None:
    """A loaded number may be anything: its division stays."""
    x = load(0, I0, I0.dtype)
    assert simplify((x * 4 + I1) // 4, EXTENTS).op == "floordiv"
    assert ranges(x + 1, EXTENTS) is None


def test_a_loop_that_never_runs_keeps_its_counter() -> None:
    """Else what it loads would look the same at every point, and would be loaded."""
    assert simplify(index(0) * 5, (0,)) is index(0) * 5


def test_substitution_is_simultaneous() -> None:
    assert substitute(I0 * 10 + I1, {0: I1, 1: I0}) is I1 * 10 + I0
    assert affine(simplify(substitute(I0 * 10 + I1, {0: I0 * 2 + I1, 1: I2}), EXTENTS)) == (0, {0: 20, 1: 10, 2: 1})


def test_a_choice_is_guarded_only_when_a_load_depends_on_it() -> None:
    x, y = load(0, I0, I0.dtype), load(1, I0 - 1, I0.dtype)
    guarded = select(I0 > 0, y, x)
    assert guarded_selects([guarded, x, y]) == set()
    assert guarded_selects([guarded, x]) == {guarded}
    assert guarded_selects([select(x > param(0), x, x + 1)]) == set()


def test_every_rebuilding_knows_every_operation() -> None:
    x = bitcast(load(0, I0 + I1, FLOAT32), "int32")
    moved = bitcast(load(0, I2 + I1, FLOAT32), "int32")
    assert substitute(x, {0: I2}) is moved
    assert rewrite(x, lambda e: I2 if e is I0 else None) is moved
    assert simplify(bitcast(load(0, I0 * 4 // 4, FLOAT32), "int32"), EXTENTS) is bitcast(load(0, I0, FLOAT32), "int32")


def test_long_sums_do_not_overflow_the_stack() -> None:
    total = bounded = I0
    for _ in range(5000):
        total = I1 + (total - 1)
        bounded = scalar("maximum", scalar("minimum", bounded, 2), 0)
    assert linear_form(total) == (-5000, {I0: 1, I1: 5000})
    assert affine(total) == (-5000, {0: 1, 1: 5000})
    assert ranges(total, EXTENTS) == (-5000, 2 + 5000 * 2)
    assert ranges(bounded, EXTENTS) == (0, 2)
