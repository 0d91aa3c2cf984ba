"""The recurrence kernel: every sample of its operation against the reference, and its source as a person reads it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from test_nodes import assert_agree

from graphc import ops
from graphc.codegen.cpu import source
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, constant, input_value, make
from graphc.ir.interpret import run_node as interpret_node
from graphc.ir.types import TensorType
from graphc.kernels.contraction import ContractionVariant
from graphc.kernels.recurrence import RecurrenceKernel, cell_of
from graphc.ops import REGISTRY, Sample
from graphc.options import Options
from graphc.passes import recurrence
from graphc.passes.pipeline import optimise
from graphc.runtime.assemble import CompiledGraph

SAMPLES = list(REGISTRY["recurrence"].samples())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: "-".join(str(v) for v in s.attrs.values())[:40])
def test_sample(sample: Sample, threads: int) -> None:
    arrays = [np.asarray(a) for a in sample.operands]
    inputs = [input_value(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(arrays)]
    packed = [i for i, a in enumerate(arrays) if a.ndim >= 3 and i % (len(arrays) // len(sample.attrs["reverse"]))]
    operands = [constant(a) if i in packed else inputs[i] for i, a in enumerate(arrays)]
    lengths = sample.attrs.get("lengths", False)
    if lengths:  # as the pass hands them over
        operands[-1] = ops.cast(operands[-1], dtype=dtype_of("int64"))
    outputs = make(REGISTRY["recurrence"], *operands, **sample.attrs)
    expected = interpret_node(outputs[0].node, tuple(arrays), {})
    given = [i for i in range(len(arrays)) if i not in packed]
    compiled = CompiledGraph(Graph([inputs[i] for i in given], outputs), Options.of(threads=threads))
    for _ in range(2):  # a run leaves nothing behind for the next
        for found, wanted in zip(compiled.run([arrays[i] for i in given]), expected, strict=True):
            assert_agree(found, np.asarray(wanted))


def _lstm(x: np.ndarray, w: np.ndarray, r: np.ndarray, threads: int, precision: str) -> np.ndarray:
    """All states of an LSTM over x[T, B, I], without biases, from zero."""
    (steps, batch, inputs), hidden = x.shape, r.shape[1]
    given = input_value("x", TensorType(dtype_of(x), x.shape))
    projected = ops.dot(ops.reshape(given, shape=(steps * batch, inputs)), constant(w))
    zero = ops.broadcast_to(np.zeros((), x.dtype), shape=(batch, hidden))
    y, *_ = ops.lstm(ops.reshape(projected, shape=(steps, batch, 4 * hidden)), constant(r), zero, zero)
    options = Options.of(threads=threads, precision=precision)
    optimised = optimise(Graph([given], [y]), options)
    (node,) = [n for n in optimised.nodes if n.op.name == "recurrence"]
    assert node.attrs["halved"] == (precision == "float32")
    (found,) = CompiledGraph(optimised, options).run([x])
    return found


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("inputs", [128, 500])  # projected by the kernel, and before it
def test_halved_sequences_do_not_spoil_each_other(inputs: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrence, "halves_pay", lambda *sizes: True)
    rng = np.random.default_rng(3)
    steps, batch, hidden = 4, 40, 128
    x = rng.standard_normal((steps, batch, inputs)).astype(np.float32)
    w, r = (rng.uniform(-0.1, 0.1, s).astype(np.float32) for s in ((inputs, 4 * hidden), (4 * hidden, hidden)))
    x[:, 5] *= 1e-6  # states of some 1e-7 beside others near 1
    x[2, 9, 3], x[1, 30, 7] = np.nan, np.inf
    with np.errstate(all="ignore"):
        exact = _reference_lstm(x.astype(np.float64), w, r)
    found, strict = (_lstm(x, w, r, threads, p) for p in ("float32", "strict"))
    sound = np.isfinite(exact).all(axis=(0, 2))
    assert list(np.flatnonzero(~sound)) == [9]  # an infinite gate is 0 or 1
    for y in (found, strict):
        np.testing.assert_array_equal(np.isnan(y), np.isnan(exact))
        for row in np.flatnonzero(sound):
            assert np.abs(y[:, row] - exact[:, row]).max() <= 4e-6 * np.abs(exact[:, row]).max(), row


def _reference_lstm(x: np.ndarray, w: np.ndarray, r: np.ndarray) -> np.ndarray:
    """`_lstm` as it is defined."""
    hidden = r.shape[1]
    h = c = np.zeros((x.shape[1], hidden))
    states = []
    for xt in x:
        i, o, f, g = np.split(xt @ w.astype(np.float64) + h @ r.astype(np.float64).T, 4, axis=-1)
        i, o, f = (1 / (1 + np.exp(-v)) for v in (i, o, f))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
        states.append(h)
    return np.stack(states)


def test_source(golden: Callable[[str, str], None]) -> None:
    tile = ContractionVariant(4, 4, 8, "rows", 6, partial=True)
    attrs = {"linear_before_reset": False}
    cell = cell_of("lstm", dtype_of("float32"))
    golden("recurrence_lstm.py", source(RecurrenceKernel(cell, (tile,), 1, inputs=True, lengths=False)).text)
    half = ContractionVariant(4, 2, 8, "rows", 16, partial=True)
    cell = cell_of("lstm", dtype_of("float32"))
    golden(
        "recurrence_halved.py", source(RecurrenceKernel(cell, (half,), 1, inputs=True, lengths=False, halved=True)).text
    )
    cell = cell_of("gru", dtype_of("float32"), **attrs)
    golden("recurrence_gru.py", source(RecurrenceKernel(cell, (tile, tile), 2, inputs=False, lengths=True)).text)
