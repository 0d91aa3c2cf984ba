"""Runs nodes through lowering, source text and compilation, on arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.codegen.cpu import source
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Node, Value, input_value, make
from graphc.ir.types import TensorType
from graphc.kernels.ir import Launch
from graphc.kernels.lower import lower
from graphc.kernels.program import Place, Placed, Program
from graphc.ops.fusion import body_of, fusion
from graphc.ops.spec import Layout, OpSpec
from graphc.runtime.native import kernel_addresses

_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


def node_of(spec: OpSpec, *arrays: np.ndarray, **attrs: Any) -> Node:
    """The operation on inputs of the arrays' types."""
    inputs = [input_value(f"x{k}", TensorType(dtype_of(a), a.shape)) for k, a in enumerate(arrays)]
    return make(spec, *inputs, **attrs)[0].node


def fused(graph: Graph) -> Node:
    """A graph as one fusion node."""
    return make(fusion, *graph.inputs, body=body_of(graph.inputs, graph.outputs))[0].node


def placed(buffer: int, array: np.ndarray) -> Placed:
    """An array where it lies; its strides may be anything that counts whole elements."""
    layout = Layout(0, array.shape, tuple(s // array.itemsize for s in array.strides))
    return Placed(buffer, dtype_of(array), layout)


def execute(launch: Launch, addresses: Sequence[int], tasks: Sequence[tuple[int, int]] | None = None) -> None:
    """Run a launch on memory: `addresses[k]` is where buffer k begins. `tasks` are the ranges to do, all in one by default."""
    s = source(launch.kernel)
    kernel = _KERNEL(kernel_addresses([(s.name, s.text)])[0])
    slots = [addresses[o.buffer] + o.byte_offset for o in launch.operands]
    block = (ctypes.c_int64 * (len(slots) + len(launch.integers)))(*slots, *launch.integers)
    scratch = np.empty(launch.scratch_bytes + 64, np.uint8)
    aligned = -(-scratch.ctypes.data // 64) * 64
    for first, last in tasks or [(0, launch.tasks)]:
        kernel(ctypes.addressof(block), first, last, aligned)


def run_node(
    node: Node, *arrays: np.ndarray, results: Sequence[np.ndarray] | None = None, threads: int = 1
) -> tuple[np.ndarray, ...]:
    """The results of a node on arrays, task by task; `results` are written in place when given."""
    outs = list(results) if results is not None else [np.empty(t.static_shape, t.dtype.numpy) for t in node.types]  # type: ignore[union-attr]
    memory = [*arrays, *outs]
    places = [placed(k, a) for k, a in enumerate(memory)]
    for launch in lower(node, places[: len(arrays)], places[len(arrays) :], threads):
        execute(launch, [a.ctypes.data for a in memory], [(t, t + 1) for t in range(launch.tasks)])
    return tuple(outs)


def run_launches(program: Program, arrays: Sequence[np.ndarray], outputs: Sequence[Value]) -> list[np.ndarray]:
    """Run a program without control flow: its launches, task by task, every buffer in memory of its own."""
    results = [np.empty(v.tensor.static_shape, v.dtype.numpy) for v in outputs]
    memory: list[np.ndarray] = []
    for b in program.buffers:
        if b.place is Place.INPUT:
            memory.append(np.ascontiguousarray(arrays[b.number]))
        elif b.place is Place.OUTPUT:
            memory.append(results[b.number])
        else:
            memory.append(b.array if b.array is not None else np.empty(b.nbytes, np.uint8))
    for launch in program.launches:
        execute(launch, [m.ctypes.data for m in memory], [(t, t + 1) for t in range(launch.tasks)])
    return results
