"""Gradients of random whole programs against JAX's, in float64: control flow, sharing, loops inside of loops.

A program is a list of instructions over a growing list of 3x3 matrices; `execute` runs it with the functions of graphc
or of JAX, whose names are the same. Every value may be read again by any later instruction, and by any body.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphc

jax = pytest.importorskip("jax", reason="JAX is the second opinion")
jax.config.update("jax_enable_x64", True)

SIZE = 3
#: GRAPHC_FUZZ_EXAMPLES raises it
EXAMPLES = int(os.environ.get("GRAPHC_FUZZ_EXAMPLES", "100"))


class Instruction(NamedTuple):
    """`name` applied to earlier values; `body` is a program of its own, over the values and what it is handed."""

    name: str
    operands: tuple[int, ...]
    body: tuple[Instruction, ...] = ()
    other: tuple[Instruction, ...] = ()


class Library(NamedTuple):
    """Where the functions come from."""

    xp: Any
    control: Any

    @property
    def softmax(self) -> Any:
        return graphc.softmax if self.xp is graphc else jax.nn.softmax


SIMPLE = {
    "tanh": lambda lib, a: lib.xp.tanh(a),
    "sin": lambda lib, a: lib.xp.sin(a),
    "square": lambda lib, a: a * a / (1.0 + a * a),
    "log": lambda lib, a: lib.xp.log(1.0 + a * a),
    "sqrt": lambda lib, a: lib.xp.sqrt(0.5 + a * a),
    "exp": lambda lib, a: lib.xp.exp(-a * a),
    "abs": lambda lib, a: lib.xp.abs(a + 0.3),
    "transpose": lambda lib, a: a.T,
    "softmax": lambda lib, a: lib.softmax(a, axis=-1),
    "cumsum": lambda lib, a: lib.xp.tanh(a).cumsum(axis=0),
    "reverse": lambda lib, a: a[::-1, :],
    "roll": lambda lib, a: lib.xp.concat([a[1:, :], a[:1, :]], axis=0),
    "take": lambda lib, a: a[:, np.array([2, 0, 2])],
    "row": lambda lib, a: a - a[1],
    "centre": lambda lib, a: a - lib.xp.mean(a, axis=1, keepdims=True),
    "largest": lambda lib, a: a - lib.xp.max(a, axis=0, keepdims=True),
    "product": lambda lib, a: a + lib.xp.prod(lib.xp.cos(a), axis=1, keepdims=True),
    "reshape": lambda lib, a: lib.xp.reshape(lib.xp.reshape(a, (SIZE * SIZE,))[::-1], (SIZE, SIZE)),
    "add": lambda lib, a, b: a + b,
    "sub": lambda lib, a, b: a - b,
    "mul": lambda lib, a, b: a * lib.xp.tanh(b),
    "div": lambda lib, a, b: a / (1.5 + lib.xp.sin(b)),
    "matmul": lambda lib, a, b: lib.xp.tanh(a) @ lib.xp.tanh(b),
    "vector": lambda lib, a, b: a + lib.xp.tanh(a)[0] @ lib.xp.tanh(b),
    "dot": lambda lib, a, b: a * (lib.xp.tanh(a)[:, 1] @ lib.xp.tanh(b)[2]),
    "maximum": lambda lib, a, b: lib.xp.maximum(a, b + 0.1),
    "where": lambda lib, a, b: lib.xp.where(a > b, a, 2.0 * b),
    "power": lambda lib, a, b: (1.2 + lib.xp.sin(a)) ** lib.xp.cos(b),
}


def execute(lib: Library, program: tuple[Instruction, ...], values: list[Any]) -> Any:
    """The last value of a program that starts from `values`."""
    values = list(values)
    for step in program:
        a = values[step.operands[0] % len(values)]
        b = values[step.operands[1] % len(values)]
        values.append(apply(lib, step, values, a, b))
    return values[-1]


def apply(lib: Library, step: Instruction, values: list[Any], a: Any, b: Any) -> Any:
    if step.name in SIMPLE:
        rule = SIMPLE[step.name]
        return rule(lib, a, b) if rule.__code__.co_argcount == 3 else rule(lib, a)
    soft = lib.xp.tanh

    def run(body: tuple[Instruction, ...], *given: Any) -> Any:
        return soft(execute(lib, body, [*values, *given]))

    match step.name:
        case "cond":
            return lib.control.cond(lib.xp.sum(a) > 0.0, lambda x: run(step.body, x), lambda x: run(step.other, x), b)
        case "scan":

            def turn(carry: Any, row: Any) -> Any:
                new = run(step.body, carry, carry * row)
                return new, new[0] + row

            last, rows = lib.control.scan(turn, a, b)
            return last + rows
        case "backwards":

            def back(carry: Any, row: Any) -> Any:
                new = run(step.body, carry + row)
                return new, carry[1] * row

            last, rows = lib.control.scan(back, a, b, reverse=True)
            return last + rows
        case "fori":
            return lib.control.fori_loop(0, 3, lambda i, x: run(step.body, x * (0.5 + np.float64(0.1) * i)), a)
        case _:  # a loop that ends by itself, written as a scan where the library needs one
            return _while(lib, step, run, a)


def _while(lib: Library, step: Instruction, run: Any, a: Any) -> Any:
    if lib.xp is graphc:
        done = graphc.while_loop(
            lambda s: (s[0] < 3) & (graphc.sum(s[1] * s[1]) > 0.05),
            lambda s: (s[0] + 1, 0.7 * run(step.body, s[1])),
            (np.int64(0), a),
            bound=5,
        )
        return done[1]

    def turn(carry: Any, _: Any) -> Any:
        count, x = carry
        go = (count < 3) & (jax.numpy.sum(x * x) > 0.05)
        new = jax.lax.cond(go, lambda y: 0.7 * run(step.body, y), lambda y: y, x)
        return (count + go, new), None

    return jax.lax.scan(turn, (np.int64(0), a), None, length=5)[0][1]


@st.composite
def programs(draw: st.DrawFn, depth: int) -> tuple[Instruction, ...]:
    return _program(draw, depth)


def _program(draw: st.DrawFn, depth: int) -> tuple[Instruction, ...]:
    """Drawn step by step: a strategy of strategies would run into hypothesis' limit on their depth, and give nothing."""
    steps = []
    for _ in range(draw(st.integers(2, 4) if depth else st.integers(1, 2))):
        nested = depth > 0 and draw(st.sampled_from([False, False, True]))
        name = draw(st.sampled_from(["cond", "scan", "backwards", "fori", "while"] if nested else sorted(SIMPLE)))
        places = draw(st.integers(0, 30)), draw(st.integers(0, 30))
        body = _program(draw, depth - 1) if nested else ()
        steps.append(Instruction(name, places, body, _program(draw, depth - 1) if name == "cond" else ()))
    return tuple(steps)


OURS = Library(graphc, graphc)
THEIRS = Library(jax.numpy, jax.lax)


def loss(lib: Library, program: tuple[Instruction, ...]) -> Any:
    return lambda x, y: lib.xp.sum(lib.xp.sin(execute(lib, program, [x, y])))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(programs(2), st.integers(0, 2**32 - 1))
def test_the_gradient_of_a_random_program_is_jaxs(program: tuple[Instruction, ...], seed: int) -> None:
    x, y = np.random.default_rng(seed).standard_normal((2, SIZE, SIZE))
    with jax.disable_jit(False):
        value, expected = jax.value_and_grad(loss(THEIRS, program), argnums=(0, 1))(x, y)
    found_value, found = graphc.value_and_grad(loss(OURS, program), argnums=(0, 1))(x, y)
    np.testing.assert_allclose(found_value, value, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, np.asarray(theirs), rtol=1e-10, atol=1e-10)


@settings(max_examples=max(8, EXAMPLES // 4), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(programs(2), st.integers(0, 2**32 - 1))
def test_forward_mode_of_a_random_program_is_jaxs(program: tuple[Instruction, ...], seed: int) -> None:
    """Tangents, and forward over reverse."""
    x, y, u, v = np.random.default_rng(seed).standard_normal((4, SIZE, SIZE))
    (_, theirs), (_, ours) = (
        library.jvp(lambda a, b, lib=lib: execute(lib, program, [a, b]), (x, y), (u, v))
        for library, lib in ((jax, THEIRS), (graphc, OURS))
    )
    _close(ours, theirs)
    _, expected = jax.jvp(jax.grad(loss(THEIRS, program), argnums=(0, 1)), (x, y), (u, v))
    for found, wanted in zip(graphc.hessian_vector_product(loss(OURS, program), (x, y), (u, v)), expected, strict=True):
        _close(found, wanted)


def _close(ours: Any, theirs: Any) -> None:
    """Equal to 1e-10 of the largest element: second derivatives of nested loops can be large, and cancel."""
    theirs = np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10 * max(1.0, float(np.max(np.abs(theirs)))))


@pytest.mark.parametrize("threads", [1, 2])
@settings(max_examples=max(4, EXAMPLES // 20), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(program=programs(2), seed=st.integers(0, 2**32 - 1))
def test_a_compiled_gradient_equals_the_interpreted_one(
    threads: int, program: tuple[Instruction, ...], seed: int
) -> None:
    x, y = np.random.default_rng(seed).standard_normal((2, SIZE, SIZE))
    gradient = graphc.grad(loss(OURS, program), argnums=(0, 1))
    compiled = graphc.compile(gradient, threads=threads)(x, y)
    for ours, reference in zip(compiled, gradient(x, y), strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-9, atol=1e-9)
