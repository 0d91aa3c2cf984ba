"""How long until a gradient graph is ready for code generation: `python -m bench.differentiate [--profile NAME]`.

Two figures, each the time to make the graph, to differentiate it and to run all passes (one thread of Python, nothing is
compiled): resnet50 with respect to its input and all of its parameters, and Python programs of growing length, which show
that the time grows no faster than the graph. The figures also go into bench/results/differentiate.json.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

import graphc
from bench.record import parse, write
from graphc import ops
from graphc.api import resolve
from graphc.autodiff.transforms import value_and_grad
from graphc.ir.graph import Graph, input_value
from graphc.ir.types import tensor
from graphc.options import Options
from graphc.passes.pipeline import optimise, prepare

__all__ = ["main", "measure", "parameters_as_inputs", "program"]


def parameters_as_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its float weights as inputs, as training has them.

    The topologies that the onnx package ships fill most weights by ConstantOfShape; those become inputs too.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    read = {name for n in graph.node for name in n.input}
    shapes = {name: a.shape for name, a in values.items() if a.dtype == np.float32 and a.ndim and name in read}
    filled = [n for n in graph.node if n.op_type == "ConstantOfShape" and n.input[0] in values]
    shapes |= {n.output[0]: tuple(values[n.input[0]].tolist()) for n in filled}
    for n in filled:
        graph.node.remove(n)
    for t in [t for t in graph.initializer if t.name in shapes]:
        graph.initializer.remove(t)
    for v in [v for v in graph.input if v.name in shapes]:
        graph.input.remove(v)
    graph.input.extend(helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in shapes.items())
    return result


def _resnet50(model: onnx.ModelProto) -> Graph:
    graph = graphc.load(model)
    (y,) = graph.outputs
    return Graph(graph.inputs, [ops.reduce_sum(ops.mul(y, y), axes=tuple(range(y.rank)))], ["loss"])


def program(nodes: int) -> Graph:
    """A made-up program of so many nodes: products, arithmetic that uses values several times, slices and reductions."""
    rng = np.random.default_rng(0)
    x = input_value("x", tensor("float32", 16, 32))
    weights = [input_value(f"w{k}", tensor("float32", 32, 32)) for k in range(8)]
    recent = [ops.mul(x, 0.3 + 0.1 * k) for k in range(8)]
    made = len(recent)
    while made < nodes:
        a, b = recent.pop(0), recent[rng.integers(len(recent))]
        match rng.integers(6):
            case 0:
                y, cost = ops.tanh(ops.dot(a, weights[rng.integers(len(weights))])), 2
            case 1:
                y, cost = ops.add(ops.mul(a, 0.5 + rng.random()), b), 4
            case 2:
                y, cost = ops.mul(ops.sigmoid(a), b), 2
            case 3:
                halves = [ops.slice(v, starts=(0, k), stops=(16, k + 16), steps=(1, 1)) for k, v in ((0, a), (16, b))]
                y, cost = ops.concat(*halves, axis=1), 3
            case 4:
                mean = ops.mul(ops.reduce_sum(a, axes=(1,)), 1 / 32)
                y, cost = ops.sub(b, ops.broadcast_to(ops.reshape(mean, shape=(16, 1)), shape=(16, 32))), 5
            case _:
                y, cost = ops.relu(ops.sub(a, b)), 2
        made += cost
        recent.append(y)
    return Graph([x, *weights], [ops.reduce_sum(reduce(ops.add, recent), axes=(0, 1))], ["loss"])


class Figures(NamedTuple):
    """Seconds, and numbers of nodes."""

    make: float
    differentiate: float
    passes: float
    nodes: int
    nodes_with_gradient: int

    @property
    def seconds(self) -> float:
        return self.make + self.differentiate + self.passes


def measure(make: Callable[[], Graph]) -> Figures:
    """Make a graph with one scalar output, differentiate it with respect to all inputs, run the passes."""
    started = time.perf_counter()
    graph = make()
    made = time.perf_counter()
    both = value_and_grad(graph)
    differentiated = time.perf_counter()
    optimise(prepare(both, Options()), Options())
    ended = time.perf_counter()
    return Figures(made - started, differentiated - made, ended - differentiated, len(graph.nodes), len(both.nodes))


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.differentiate", description="Time gradient graphs.")
    parser.add_argument("--nodes", type=int, nargs="*", default=[5_000, 10_000, 20_000], help="lengths of programs")
    parser.add_argument("--profile", metavar="CASE", help="show where the time of one case goes: resnet50, 20000, ...")
    arguments = parse(parser, "differentiate", argv)

    model = parameters_as_inputs(onnx.load(resolve("onnx:resnet50")))
    cases: dict[str, Callable[[], Graph]] = {"resnet50": partial(_resnet50, model)}
    cases |= {str(n): partial(program, n) for n in arguments.nodes}
    measure(partial(program, 400))  # imports and caches
    if arguments.profile:
        with cProfile.Profile() as profile:
            measure(cases[arguments.profile])
        pstats.Stats(profile).sort_stats("cumulative").print_stats(40)
        return 0
    found = {name: measure(make) for name, make in cases.items()}
    print(f"{'':10} {'nodes':>7} {'+ grad':>7} {'make':>7} {'grad':>7} {'passes':>7} {'all':>7}  seconds")
    for name, f in found.items():
        print(
            f"{name:10} {f.nodes:7} {f.nodes_with_gradient:7} {f.make:7.2f} {f.differentiate:7.2f} {f.passes:7.2f} "
            f"{f.seconds:7.2f}"
        )
    record = {name: {**f._asdict(), "seconds": f.seconds} for name, f in found.items()}
    write(arguments.save, {"cases": record})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
