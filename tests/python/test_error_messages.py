"""What newcomers do wrong, and what the message must say for them to go on: the mistake, the place, the way out."""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import GraphTypeError, TraceError
from graphc.options import Options

X = np.ones((4, 3), np.float32)


def traced(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    return lambda: graphc.trace(function, *(args or (X,)))


def written_into(x: Any) -> Any:
    y = np.zeros((4, 3))
    y[0] = x[0]
    return y


def one_number_written(x: Any) -> Any:
    y = np.zeros(3)
    y[0] = x[0, 0]
    return y


def a_slice_written(x: Any) -> Any:
    y = np.zeros((4, 3))
    y[1:3] = x[1:3]
    return y


def leaked() -> Any:
    kept: list[Any] = []
    graphc.trace(lambda x: kept.append(x) or x, X)
    return kept[0]


def body_leaks(x: Any) -> Any:
    kept: list[Any] = []
    graphc.scan(lambda c, r: (kept.append(c) or c, r), x[0], x)
    return kept[0] + x


def stepped(c: Any, r: Any) -> Any:
    return c + r, r


#: (mistake, what its message must hold)
MISTAKES: dict[str, tuple[Callable[[], Any], list[str]]] = {
    # options
    "donate_argnum": (
        lambda: graphc.compile(stepped, donate_argnum=0),
        ["'donate_argnum'", "did you mean 'donate_argnums'", "static_argnames"],
    ),
    "static_argname": (
        lambda: graphc.compile(stepped, static_argname="r"),
        ["did you mean 'static_argnames'", "threads"],
    ),
    "decorator": (lambda: graphc.compile(static_argnum=1)(stepped), ["did you mean 'static_argnums'"]),
    "options alone": (
        lambda: Options.of(donate_argnums=0),
        ["donate_argnums", "Python functions"],
    ),
    # sizes and axes
    "negative extent": (lambda: graphc.zeros((2, -3)), ["zeros: the extent -3 in the shape (2, -3) is negative"]),
    "extent below -1": (lambda: graphc.reshape(X, (-2, 6)), ["reshape: the extent -2", "is negative"]),
    "true as axis": (lambda: graphc.sum(X, axis=True), ["sum: an axis is a whole number, not True (bool)"]),
    # tensors that are kept
    "kept": (lambda: leaked() + 1, ["after the trace of '<lambda>'", "return it as a result"]),
    "kept for NumPy": (lambda: np.asarray(leaked()), ["after the trace of", "return it as a result"]),
    "kept for float": (lambda: float(leaked()), ["after the trace of"]),
    "kept and written": (lambda: leaked().__setitem__(0, 1), ["after the trace of"]),
    "kept from a body": (traced(body_leaks), ["after the trace of", "(body_leaks)"]),
    # elements
    "assigned": (traced(written_into), ["a[i] = x on a NumPy array", "float32[3]", "graphc.at(a)[i].set(x)"]),
    "slice assigned": (traced(a_slice_written), ["a[i] = x on a NumPy array", "float32[2, 3]"]),
    "np.array": (traced(lambda x: np.array([x[0], x[1]])), ["np.array", "graphc.stack([x, y])"]),
    "np.array of numbers": (traced(lambda x: np.array([x[0, 0], x[0, 1]])), ["np.array", "graphc.stack([x, y])"]),
    "math": (traced(lambda x: math.exp(x[0, 0])), ["math module", "graphc.exp"]),
    # sizes
    "zeros": (traced(lambda n: graphc.zeros(n), 3), ["zeros: a size", "int64[]", "static_argnums", "(lambda)"]),
    "zeros of several": (traced(lambda n: graphc.zeros((2, n)), 3), ["shape must be known", "static_argnums"]),
    "reshape": (traced(lambda x, n: x.reshape(n, 2), X, 6), ["reshape: a size", "static_argnums"]),
    "arange": (traced(lambda n: graphc.arange(n), 3), ["arange: a size", "static_argnums"]),
    "a loop": (
        lambda: graphc.trace(lambda x: graphc.stack(x), graphc.spec(("n", 3))),
        ["float32[n, 3]", "not known", "graphc.scan"],
    ),
    "range": (traced(lambda n: [0 for _ in range(n)], 3), ["range()", "static_argnums", "graphc.fori_loop"]),
    "random": (
        traced(lambda n: graphc.random.normal(graphc.random.key(0), (n,)), 3),
        ["random numbers: a size", "static_argnums"],
    ),
    "float extent": (lambda: graphc.zeros((2, 1.5)), ["1.5", "integers"]),
    # lists
    "list argument": (traced(lambda x: graphc.sum(x), [1.0, 2.0, 3.0]), ["sum", "tree of 3 numbers", "np.asarray"]),
    "list operand": (traced(lambda x: graphc.maximum([x[0], x[1]], 0.0)), ["maximum", "a list of 2", "graphc.stack"]),
    "nested list": (traced(lambda x: graphc.add(x, [[x[0, 0]], [1.0]])), ["a list of 2", "graphc.stack"]),
    # functions where models belong
    "export": (
        lambda: graphc.export(stepped, "f.onnx"),
        ["stepped is a Python function", "graphc.trace(f, ...), path"],
    ),
    "load": (lambda: graphc.load(stepped), ["stepped is a Python function", "graphc.trace(f, ...)"]),
    "function": (lambda: graphc.function(stepped), ["stepped is a Python function", "graphc.compile(f)"]),
    # control flow
    "cond": (
        traced(lambda x: graphc.cond(x[0, 0] > 0, x, -x)),
        ["cond: true_fun", "float32[4, 3]", "graphc.where", "lambda: x", "(lambda)"],
    ),
    "cond's second": (lambda: graphc.cond(True, stepped, 1.0), ["cond: false_fun is float"]),
    "cond's results": (
        traced(lambda x: graphc.cond(x[0, 0] > 0, lambda: x, lambda: {"a": x[0]})),
        ["true_fun returns float32[4, 3]", "false_fun returns {'a': float32[3]}"],
    ),
    "scan": (lambda: graphc.scan(X[0], stepped, X), ["scan: f is an array (float32[3])", "f comes first"]),
    "scan without f": (lambda: graphc.scan(None, X[0], X), ["scan: f is NoneType", "a function is needed"]),
    "scan's pair": (lambda: graphc.scan(lambda c, r: c + r, X[0], X), ["a pair (carry, y)", "returns float32[3]"]),
    "scan's triple": (lambda: graphc.scan(lambda c, r: (c, r, None), X[0], X), ["(float32[3], float32[3], None)"]),
    "scan's carry": (
        lambda: graphc.scan(lambda c, r: ({"h": c["h"]}, c["n"]), {"h": X[0], "n": np.int64(1)}, X),
        ["carry is arranged as {'h': float32[3]}", "{'h': float32[3], 'n': int64[]}"],
    ),
    "while_loop": (
        lambda: graphc.while_loop(X, lambda v: v > 0, lambda v: v - 1),
        ["while_loop: cond_fun is an array (float32[4, 3])", "while_loop(cond_fun, body_fun, init_val)"],
    ),
    "while_loop's body": (lambda: graphc.while_loop(lambda v: v > 0, 3, 1), ["while_loop: body_fun is int"]),
    "while_loop's test": (
        lambda: graphc.while_loop(lambda v: (v > 0, v), lambda v: v - 1, 3),
        ["cond_fun returns (bool[], int64[])", "a scalar"],
    ),
    "fori_loop": (
        lambda: graphc.fori_loop(stepped, 0, 3, X),
        ["fori_loop: body_fun is int", "fori_loop(lower, upper, body_fun, init_val)"],
    ),
    "checkpoint": (lambda: graphc.checkpoint(X), ["checkpoint: function is an array (float32[4, 3])"]),
    "custom_vjp": (lambda: graphc.custom_vjp(3), ["custom_vjp: function is int"]),
    # names
    "misspelt": (lambda: graphc.logsoftmax, ["'logsoftmax'", "did you mean graphc.log_softmax?"]),
    "method": (traced(lambda x: x.softmax()), ["'softmax'", "graphc.softmax(x)"]),
    "misspelt method": (traced(lambda x: x.reshap(3, 4)), ["did you mean x.reshape?"]),
    "misspelt function": (traced(lambda x: x.logsoftmax()), ["did you mean graphc.log_softmax(x)?"]),
    "dim": (traced(lambda x: graphc.softmax(x, dim=1)), ["'dim'", "did you mean 'axis'", "axis=-1", "(lambda)"]),
    "keepdim": (lambda: graphc.sum(X, keepdim=True), ["did you mean 'keepdims'"]),
    "unknown argument": (lambda: graphc.tanh(X, where=X), ["'where'", "tanh(x, /)"]),
    "missing argument": (lambda: graphc.maximum(X), ["missing", "maximum("]),
    "np.linalg": (traced(lambda x: np.linalg.svd(x)), ["np.linalg.svd has no counterpart"]),
}


@pytest.mark.parametrize(("mistake", "parts"), [pytest.param(*row, id=name) for name, row in MISTAKES.items()])
def test_a_message_says_what_is_wrong_and_what_to_do(mistake: Callable[[], Any], parts: list[str]) -> None:
    with pytest.raises((TypeError, ValueError, AttributeError)) as raised:
        mistake()
    text = str(raised.value)
    assert [p for p in parts if p not in text] == [], text
    places = len(re.findall(r"test_error_messages\.py:\d+", text))
    assert places == 1 if isinstance(raised.value, TraceError | GraphTypeError) else places == 0, text


def test_numpys_own_error_for_one_element_has_ours_as_its_cause() -> None:
    with pytest.raises(ValueError, match="setting an array element") as raised:
        graphc.trace(one_number_written, X)
    assert isinstance(raised.value.__cause__, TraceError)
    assert "a[i] = x on a NumPy array" in str(raised.value.__cause__)


def test_python_adds_no_second_guess() -> None:
    for mistake in (lambda: graphc.logsoftmax, traced(lambda x: x.reshap(3, 4))):
        with pytest.raises(AttributeError) as raised:
            mistake()
        shown = traceback.format_exception_only(raised.value)[-1]
        assert shown.lower().count("did you mean") == 1


def test_what_asks_whether_an_attribute_exists_hears_no() -> None:
    assert not hasattr(graphc, "__cuda_array_interface__")
    assert graphc.trace(lambda x: x * hasattr(x, "softmax"), X).outputs
