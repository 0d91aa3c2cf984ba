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
from graphc.runtime.assemble import CompiledGraph

SAMPLES = list(REGISTRY["recurrence"].samples())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: "-".join(str(v) for v in s.attrs.values())[:40])
def test_sample(sample: Sample, threads: int) -> None:
    arrays = [np.asarray(a) for a in sample.operands]
    inputs = [input_value(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(arrays)]
    packed = [i for i, a in enumerate(arrays) if a.ndim == 3 and i % (len(arrays) // len(sample.attrs["reverse"]))]
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


def test_source(golden: Callable[[str, str], None]) -> None:
    tile = ContractionVariant(4, 4, 8, "rows", 6, partial=True)
    attrs = {"linear_before_reset": False}
    cell = cell_of("lstm", dtype_of("float32"))
    golden("recurrence_lstm.py", source(RecurrenceKernel(cell, (tile,), 1, inputs=True, lengths=False)).text)
    cell = cell_of("gru", dtype_of("float32"), **attrs)
    golden("recurrence_gru.py", source(RecurrenceKernel(cell, (tile, tile), 2, inputs=False, lengths=True)).text)
