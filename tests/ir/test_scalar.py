"""Scalar expressions refuse what could only be a mistake in an operation's definition."""

from __future__ import annotations

import pytest

from graphc.errors import GraphTypeError
from graphc.ir import scalar as s
from graphc.ir.dtypes import dtype_of
from graphc.ops.elementwise import unary

X = s.load(0, 0, dtype_of("float32"))


def test_a_choice_cannot_be_made_while_a_kernel_is_generated() -> None:
    with pytest.raises(GraphTypeError, match=r"choose with select"):
        _ = 1.0 if X > 0.0 else 0.0


def test_numbers_alone_have_no_element_type() -> None:
    for choose in (s.select, s.choose, lambda *operands: s.scalar("select", *operands)):
        with pytest.raises(GraphTypeError, match=r"element type of 1\.0, 0\.0 is not known"):
            choose(X > 0.0, 1.0, 0.0)
    assert s.scalar("select", X > 0.0, X, 0.0).args[2] is s.const(0.0, "float32")
    assert s.select(X > 0.0, 1, 0).dtype == dtype_of("int64")


def test_an_operation_named_after_no_scalar_needs_one() -> None:
    with pytest.raises(ValueError, match=r"no scalar operation is called 'cube'"):
        unary("cube", lambda x: x**3, summary="x * x * x.")
