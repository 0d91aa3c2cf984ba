"""Rules of arithmetic: neutral elements, constants gathered together, powers, selections, casts.

Signed zeros are not kept apart (kernels are compiled with `nsz`), NaN and infinity are: `x * 0` is 0 for integers only.
Reassociation is what kernels do as well; `algebra_rules(strict=True)` leaves out the rules that change roundings.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphc import ops
from graphc.ir.dtypes import DType
from graphc.ir.graph import Node, Value, constant, location
from graphc.ir.rules import Rule, Uses, located, rule
from graphc.ops.spec import names_where
from graphc.passes.match import constant_source, is_constant, is_uniform, needs, uniform

__all__ = ["algebra_rules", "gather_constants"]


def _mapped(v: Value, data: np.ndarray) -> Value:
    """A constant seen through broadcasts, reshapes, slices and transposes, with other data under them."""
    views: list[Node] = []
    while v.node.op.name != "constant":
        views.append(v.node)
        v = v.node.inputs[0]
    result = constant(data, v.dtype, v.node.attrs["data"].name)
    for node in reversed(views):
        result = node.op(result, **node.attrs)
    return result


@rule(
    *names_where(lambda op: op.commutative),
    check=needs(lambda n: is_constant(n.inputs[0]) and not is_constant(n.inputs[1]), "the constant is not on the left"),
)
def constant_to_the_right(node: Node) -> Value:
    """c + x = x + c: one form for the other rules to look for"""
    return node.op(node.inputs[1], node.inputs[0])


@rule("add", "sub", check=needs(lambda n: is_uniform(n.inputs[1], 0), "the second operand is not 0"))
def add_zero(node: Node) -> Value:
    """x + 0 = x - 0 = x"""
    return node.inputs[0]


@rule("mul", "div", "pow", check=needs(lambda n: is_uniform(n.inputs[1], 1), "the second operand is not 1"))
def times_one(node: Node) -> Value:
    """x * 1 = x / 1 = x ** 1 = x"""
    return node.inputs[0]


@rule(
    "mul",
    check=needs(lambda n: n.inputs[0].dtype.is_integer and is_uniform(n.inputs[1], 0), "not an integer product with 0"),
)
def times_zero(node: Node) -> Value:
    """x * 0 = 0, for integers; a float could be NaN or infinite"""
    return node.inputs[1]


@rule(
    "mul",
    check=needs(lambda n: n.inputs[0].dtype.is_float and is_uniform(n.inputs[1], -1), "the second operand is not -1"),
)
def times_minus_one(node: Node) -> Value:
    """x * -1 = -x"""
    return ops.neg(node.inputs[0])


@rule(
    "sub",
    check=needs(
        lambda n: n.outputs[0].dtype.is_float and constant_source(n.inputs[1]) is not None,
        "no float constant is subtracted",
    ),
)
def subtract_constant(node: Node) -> Value:
    """x - c = x + (-c): sums are what the other rules know"""
    source = constant_source(node.inputs[1])
    assert source is not None
    assert source.literal is not None
    return ops.add(node.inputs[0], _mapped(node.inputs[1], -source.literal))


def _inner_constant(node: Node, uses: Uses) -> str | None:
    if not is_constant(node.inputs[1]):
        return "the second operand is not a constant"
    inner = node.inputs[0].node
    if inner.op is not node.op or not is_constant(inner.inputs[1]):
        return f"the first operand is not a {node.op.name} with a constant"
    return None


@rule("add", "mul", check=_inner_constant)
def gather_constants(node: Node) -> Value:
    """(x + c) + d = x + (c + d), and for products"""
    inner = node.inputs[0].node
    with location(*located(inner, node)):
        return node.op(inner.inputs[0], node.op(inner.inputs[1], node.inputs[1]))


def _scaled_sum(node: Node, uses: Uses) -> str | None:
    if not is_constant(node.inputs[1]):
        return "the factor is not a constant"
    inner = node.inputs[0].node
    if inner.op.name != "add" or not is_constant(inner.inputs[1]):
        return "the operand is no sum with a constant"
    first = inner.inputs[0].node
    if first.op.name != "mul" or not is_constant(first.inputs[1]):
        return "the sum is not of a product with a constant"
    return None if uses(node.inputs[0]) == 1 else "the sum has other readers"


@rule("mul", check=_scaled_sum)
def distribute_scale(node: Node) -> Value:
    """(x * a + b) * c = x * (a * c) + b * c: two normalisations in a row become one"""
    total = node.inputs[0].node
    product = total.inputs[0].node
    factor = node.inputs[1]
    with location(*located(product, total, node)):
        return ops.add(ops.mul(product.inputs[0], ops.mul(product.inputs[1], factor)), ops.mul(total.inputs[1], factor))


@rule("neg", "logical_not", check=needs(lambda n: n.inputs[0].node.op is n.op, "the operand is another operation"))
def involution(node: Node) -> Value:
    """-(-x) = x, not not x = x"""
    return node.inputs[0].node.inputs[0]


@rule(
    *names_where(lambda op: op.idempotent),
    check=needs(lambda n: n.inputs[0].node.op is n.op, "the operand is another operation"),
)
def idempotent(node: Node) -> Value:
    """f(f(x)) = f(x)"""
    return node.inputs[0]


@rule(
    "maximum",
    "minimum",
    "logical_and",
    "logical_or",
    check=needs(lambda n: n.inputs[0] == n.inputs[1], "the operands differ"),
)
def same_operands(node: Node) -> Value:
    """max(x, x) = x"""
    return node.inputs[0]


@rule("stop_gradient", check=lambda node, uses: None)
def without_gradient(node: Node) -> Value:
    """stop_gradient matters to differentiation only, which is over when this runs"""
    return node.inputs[0]


def _square(x: Value) -> Value:
    return ops.mul(x, x)


_POWERS: dict[float, Callable[[Value], Value]] = {
    2.0: _square,
    3.0: lambda x: ops.mul(_square(x), x),
    4.0: lambda x: _square(_square(x)),
    0.25: lambda x: ops.sqrt(ops.sqrt(x)),
    0.5: ops.sqrt,
    0.75: lambda x: ops.mul(ops.sqrt(x), ops.sqrt(ops.sqrt(x))),  # local response normalisation
    1.5: lambda x: ops.mul(x, ops.sqrt(x)),
    -0.25: lambda x: ops.sqrt(ops.rsqrt(x)),
    -0.75: lambda x: ops.mul(ops.rsqrt(x), ops.sqrt(ops.rsqrt(x))),
    -2.0: lambda x: ops.reciprocal(_square(x)),
    -1.0: ops.reciprocal,
    -0.5: ops.rsqrt,
}


def _known_power(node: Node, uses: Uses) -> str | None:
    if not node.inputs[0].dtype.is_float:
        return f"the operands are {node.inputs[0].dtype}"
    exponent = uniform(node.inputs[1])
    return (
        None
        if exponent is not None and float(exponent) in _POWERS
        else f"the exponent is none of {', '.join(map(str, _POWERS))}"
    )


@rule("pow", check=_known_power)
def known_power(node: Node) -> Value:
    """x ** 2 = x * x, x ** 0.5 = sqrt(x) and the like"""
    return _POWERS[float(uniform(node.inputs[1]))](node.inputs[0])


def _reciprocal(v: Value, exact: bool) -> np.ndarray | None:
    """1 / constant, when every element of it is a normal number (and, if asked, free of rounding)."""
    source = constant_source(v)
    if source is None or source.literal is None or v.dtype.name not in ("float32", "float64"):
        return None
    data = source.literal
    with np.errstate(all="ignore"):
        result = np.asarray(1 / data, data.dtype)
    ok = np.isfinite(result) & (np.abs(result) >= np.finfo(data.dtype).tiny)
    if exact:
        ok &= np.frexp(data)[0] == np.copysign(0.5, data)
    return result if ok.all() else None


def _division(exact: bool) -> Rule:
    def check(node: Node, uses: Uses) -> str | None:
        if constant_source(node.inputs[1]) is None:
            return "the divisor is not a constant"
        return None if _reciprocal(node.inputs[1], exact) is not None else "the divisor has no (exact) reciprocal"

    @rule("div", check=check)
    def divide_by_constant(node: Node) -> Value:
        """x / c = x * (1 / c)"""
        divisor = node.inputs[1]
        inverse = _reciprocal(divisor, exact)
        assert inverse is not None
        return ops.mul(node.inputs[0], _mapped(divisor, inverse))

    return divide_by_constant


@rule("reciprocal", check=needs(lambda n: n.inputs[0].node.op.name == "sqrt", "the operand is not a square root"))
def reciprocal_sqrt(node: Node) -> Value:
    """1 / sqrt(x) = rsqrt(x)"""
    return ops.rsqrt(node.inputs[0].node.inputs[0])


def _known_selection(node: Node, uses: Uses) -> str | None:
    if node.inputs[1] == node.inputs[2]:
        return None
    return None if uniform(node.inputs[0]) is not None else "the condition is not the same everywhere"


@rule("select", check=_known_selection)
def known_selection(node: Node) -> Value:
    """select(True, a, b) = a; select(c, a, a) = a"""
    condition, a, b = node.inputs
    return a if a == b or uniform(condition) else b


@rule("select", check=needs(lambda n: n.inputs[0].node.op.name == "logical_not", "the condition is not negated"))
def select_not(node: Node) -> Value:
    """select(not c, a, b) = select(c, b, a)"""
    return ops.select(node.inputs[0].node.inputs[0], node.inputs[2], node.inputs[1])


def _is_lossless(a: DType, b: DType) -> bool:
    """Whether every value of type `a` is one of type `b`."""
    match a.kind, b.kind:
        case ("bool", _):
            return b.is_numeric or b.kind == "bool"
        case ("float", "float"):
            return a.bits < b.bits and b.bits >= 32
        case ("int", "int") | ("uint", "uint"):
            return a.bits <= b.bits
        case ("uint", "int"):
            return a.bits < b.bits
        case ("int" | "uint", "float"):
            return a.bits <= {32: 24, 64: 53}.get(b.bits, 0)
    return False


def _useless_cast(node: Node, uses: Uses) -> str | None:
    inner = node.inputs[0]
    if inner.dtype == node.attrs["dtype"]:
        return None
    if inner.node.op.name != "cast":
        return "the operand is not a cast"
    first = inner.node.inputs[0]
    return (
        None
        if _is_lossless(first.dtype, inner.dtype)
        else f"the cast from {first.dtype} to {inner.dtype} can lose something"
    )


@rule("cast", check=_useless_cast)
def merge_casts(node: Node) -> Value:
    """cast(x, its own type) = x; a cast to a wider type and on is one cast"""
    inner = node.inputs[0]
    return inner if inner.dtype == node.attrs["dtype"] else ops.cast(inner.node.inputs[0], **node.attrs)


def algebra_rules(strict: bool = False) -> tuple[Rule, ...]:
    """The rules of this module; `strict` leaves out those after which a result may be rounded differently."""
    exact = (
        constant_to_the_right, add_zero, times_one, times_zero, times_minus_one, involution, idempotent,
        same_operands, without_gradient, known_selection, select_not, merge_casts, _division(exact=True),
    )  # fmt: skip
    return (
        exact
        if strict
        else (
            *exact,
            subtract_constant,
            gather_constants,
            distribute_scale,
            known_power,
            _division(exact=False),
            reciprocal_sqrt,
        )
    )
