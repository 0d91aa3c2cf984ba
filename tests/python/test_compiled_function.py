"""graphc.compile on Python functions: signatures, static and donated arguments, logs, and being part of another trace."""

from __future__ import annotations

import logging
import threading
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import GraphcError, OptionError


def test_it_compiles_once_a_signature(caplog: pytest.LogCaptureFixture) -> None:
    traced = []

    @graphc.compile
    def f(tree: Any, scale: Any = 2.0) -> Any:
        traced.append(tree)
        return {"y": tree["x"] * scale, "n": tree["n"]}

    x = np.arange(3, dtype=np.float32)
    with caplog.at_level(logging.INFO, "graphc"):
        for _ in range(3):
            result = f({"x": x, "n": None})
        np.testing.assert_array_equal(result["y"], 2 * x)
        assert result["n"] is None
        f({"x": x, "n": None}, 5.0)
        f({"x": x, "n": None}, 7.0)  # another value is no other signature
        f({"x": x[:2], "n": None}, 5.0)
        f({"x": x[:2].astype(np.float64), "n": None}, 5.0)
    assert len(traced) == 4
    messages = [r.getMessage() for r in caplog.records if r.getMessage().startswith("compiled f")]
    assert "again: tree.x is float32[2], before float32[3]" in messages[2]
    assert "again: tree.x is float64[2], before float32[2]" in messages[3]


def test_results_are_the_functions_own_structure() -> None:
    f = graphc.compile(lambda x: (x, [x + 1, None], {"z": 3.0}))
    a, (b, nothing), tree = f(np.float64(1))
    assert (a, b, nothing, tree["z"]) == (1, 2, None, 3)


def test_static_arguments_are_values() -> None:
    @graphc.compile(static_argnums=1, static_argnames="mode")
    def f(x: Any, n: int, mode: str = "up") -> Any:
        for _ in range(n):
            x = x * 2 if mode == "up" else x / 2
        return x

    assert f(1.0, 3) == 8
    assert f(1.0, 2, mode="down") == 0.25
    assert f(1.0, 2, "down") == 0.25
    with pytest.raises(OptionError, match="has no hash"):
        f(1.0, [])  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"no parameter .mod."):
        graphc.compile(f.function, static_argnames="mod")
    with pytest.raises(OptionError, match="both static and donated"):
        graphc.compile(f.function, static_argnums=1, donate_argnums=1)


def test_strings_and_functions_are_handed_on() -> None:
    @graphc.compile
    def f(x: Any, activation: Any, name: str) -> Any:
        return activation(x) if name == "on" else x

    assert f(0.0, graphc.cos, "on") == 1
    assert f(0.0, graphc.cos, "off") == 0


def test_a_donated_array_is_updated_in_place() -> None:
    @graphc.compile(donate_argnums=0)
    def step(params: Any, x: Any) -> Any:
        gradient = graphc.grad(lambda p: graphc.sum(graphc.tanh(x @ p["w"] + p["b"]) ** 2))(params)
        return {k: params[k] - 0.1 * gradient[k] for k in params}

    rng = np.random.default_rng(0)
    params = {"w": rng.standard_normal((8, 5)), "b": rng.standard_normal(5)}
    x = rng.standard_normal((4, 8))
    expected = graphc.compile(step.function)({k: v.copy() for k, v in params.items()}, x)
    new = step(params, x)
    assert new["w"] is params["w"]
    assert new["b"] is params["b"]
    for k in new:
        np.testing.assert_array_equal(new[k], expected[k])


def test_what_is_still_read_is_not_overwritten() -> None:
    """The result could lie in x, but x is read after it is written."""

    @graphc.compile(donate_argnums=0)
    def f(x: Any) -> Any:
        y = graphc.cumulative_sum(x[::-1]) + 1
        return y, x @ y

    x = np.arange(64.0)
    kept = x.copy()
    y, dot = f(x)
    np.testing.assert_allclose(y, np.cumsum(kept[::-1]) + 1)
    assert dot == pytest.approx(kept @ (np.cumsum(kept[::-1]) + 1))


def test_an_array_that_cannot_be_written_is_left_alone() -> None:
    f = graphc.compile(lambda x: x + 1, donate_argnums=0)
    x = np.zeros(4)
    x.flags.writeable = False
    assert f(x).sum() == 4
    strided = np.zeros((4, 2))[:, 0]
    assert f(strided).sum() == 4
    assert not strided.any()


def test_inside_of_another_trace_it_is_part_of_it() -> None:
    inner = graphc.compile(lambda x: graphc.sin(x))
    assert graphc.grad(lambda x: inner(x) * 2)(np.float64(0)) == 2
    graph = graphc.trace(lambda x: inner(x), 1.0)
    assert [n.op.name for n in graph.nodes if n.op.name == "sin"] == ["sin"]


def test_a_graph_of_it_can_be_looked_at() -> None:
    f = graphc.compile(lambda x, y: x @ y)
    graph = f.trace(graphc.spec((2, 3)), graphc.spec((3, 4)))
    assert str(graph.outputs[0].type) == "float32[2, 4]"
    assert f.compile(graphc.spec((2, 3)), graphc.spec((3, 4))).plans


def test_options_are_checked() -> None:
    with pytest.raises(OptionError, match="did you mean 'threads'"):
        graphc.compile(lambda x: x, thread=1)
    with pytest.raises(OptionError, match="Python functions"):
        graphc.compile(graphc.trace(lambda x: x + 1, 1.0), donate_argnums=0)


def test_an_error_in_the_function_is_the_functions_own() -> None:
    def broken(x: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        graphc.compile(broken)(1.0)
    with pytest.raises(GraphcError, match="returns"):
        graphc.compile(lambda x: "text")(1.0)


def test_threads_may_call_it_at_once() -> None:
    f = graphc.compile(lambda x: graphc.sum(x * x))
    results: dict[int, float] = {}

    def work(n: int) -> None:
        for _ in range(20):
            results[n] = float(f(np.full(n + 1, 2.0)))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == {n: 4.0 * (n + 1) for n in range(4)}


def test_arrays_that_share_memory_are_not_overwritten(caplog: pytest.LogCaptureFixture) -> None:
    f = graphc.compile(lambda p: {"a": p["a"] * 2, "b": p["b"] * 3}, donate_argnums=0)
    w = np.ones(3, np.float32)
    result = f({"a": w, "b": w})
    assert (result["a"].tolist(), result["b"].tolist()) == ([2, 2, 2], [3, 3, 3])
    assert "shares memory" in caplog.text
    line = np.arange(6.0)
    overlapping = f({"a": line[:4], "b": line[2:]})
    np.testing.assert_array_equal(overlapping["b"], 3 * np.arange(2.0, 6.0))
    np.testing.assert_array_equal(overlapping["a"], 2 * np.arange(4.0))
    ema = graphc.compile(lambda p, m: (0.5 * p, 0.9 * m + 0.1 * p), donate_argnums=(0, 1))
    same = np.ones(2)
    assert ema(same, same)[1].tolist() == [1, 1]
    apart = {"a": np.ones(3, np.float32), "b": np.ones(3, np.float32)}
    assert f(apart)["a"] is apart["a"], "what lies apart is still updated in place"


def test_roles_mean_parameters_however_they_are_passed() -> None:
    def f(x: Any, n: int) -> Any:
        return x * len([None] * n)

    assert graphc.compile(f, static_argnums=-1)(2.0, n=3) == 6
    assert graphc.compile(f, static_argnums=1)(2.0, n=3) == 6
    assert graphc.compile(f, static_argnames="n")(2.0, 3) == 6
    x = np.ones(2)
    assert graphc.compile(lambda x: x + 1, donate_argnums=0)(x=x) is x
    for bad in ({"donate_argnums": 3}, {"static_argnums": -3}, {"static_argnames": "m"}):
        with pytest.raises(OptionError, match=r"f\(x: .*, n: .*int.*\)"):
            graphc.compile(f, **bad)


def test_what_can_change_is_no_key() -> None:
    f = graphc.compile(lambda x, s: x * len(s))
    with pytest.raises(OptionError, match=r"argument 's' is \{1, 2\}, a set"):
        f(1.0, {1, 2})
    assert f(2.0, frozenset({1, 2})) == 4
    with pytest.raises(OptionError, match=r"static argument 1 is \[1\], a list.*tuple"):
        graphc.compile(lambda x, s: x, static_argnums=1)(1.0, [1])


def test_methods_and_values_that_pass_through() -> None:
    class Layer:
        def __init__(self, scale: float) -> None:
            self.scale = scale

        @graphc.compile
        def __call__(self, x: Any) -> Any:
            return x * self.scale

    assert Layer(3.0)(np.float32(2)) == 6
    assert Layer(5.0)(np.float32(2)) == 10
    tree = graphc.compile(lambda p: {"name": p["name"], "w": p["w"] * 2})({"name": "fc", "w": 1.0})
    assert (tree["name"], tree["w"]) == ("fc", 2)


def test_a_loop_reads_a_donated_array_in_every_turn() -> None:
    def backwards(a: Any) -> Any:
        return graphc.scan(lambda c, x: (c, x * 2), np.float32(0), a[::-1])[1]

    def first(a: Any) -> Any:
        return graphc.scan(lambda c, x: (c, x + a[0]), np.float32(0), a)[1]

    for f in (backwards, first):
        a = np.array([1, 2, 3, 4], np.float32)
        expected = graphc.compile(f)(a.copy())
        np.testing.assert_array_equal(graphc.compile(f, donate_argnums=0)(a), expected)


def test_static_values_are_told_apart_by_type() -> None:
    f = graphc.compile(lambda x, n: graphc.full((2,), n), static_argnums=1)
    assert [f(0.0, n).dtype for n in (1, 1.0, True)] == [np.int64, np.float32, np.bool_]
    g = graphc.compile(lambda x, n: graphc.full((2,), n[0]), static_argnums=1)
    assert [g(0.0, (n,)).dtype for n in (1, 1.0)] == [np.int64, np.float32]


def test_a_signature_in_use_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphc.runtime.function.CompiledFunction.KEEP", 3)
    traced = []
    f = graphc.compile(lambda x: (traced.append(x.shape), x + 1)[1])
    for n in range(1, 8):
        f(np.zeros(100))
        f(np.zeros(n))
    assert traced.count((100,)) == 1


def test_large_results_begin_at_a_cache_line() -> None:
    double = graphc.compile(lambda x: x + x)
    x = np.ones((400, 101), np.float32)
    results = [double(x) for _ in range(5)]  # all kept, so that each has memory of its own
    assert [np.asarray(y).ctypes.data % 64 for y in results] == [0] * 5
