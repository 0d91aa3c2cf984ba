"""What checkpoints save and cost: `python -m bench.recurrent_memory [--batch 16] [--steps 1000] [--repeat 5]`.

Backpropagation through an LSTM of 128 units (the loss reads its last state, gradients of all weights), plain and with a
checkpoint every 32 steps: bytes of the planned arena and the time of a run. Then dense nets of several depths,
plain and computed again in segments: the least memory that `rematerialise` finds, against sqrt(n) activations. The
figures also go into bench/results/recurrent_memory.json.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence

import numpy as np

import graphc
from bench.record import parse, write
from graphc import ops
from graphc.autodiff.transforms import grad, value_and_grad
from graphc.cli.arguments import thread_number
from graphc.errors import OptionError
from graphc.ir.graph import Graph, input_value
from graphc.ir.types import tensor
from graphc.kernels.schedule import peak
from graphc.passes.rematerialise import rematerialise
from graphc.runtime.executable import Executable

__all__ = ["main"]

EVERY = 32


def lstm(steps: int, batch: int, units: int = 128, checkpoint: int = 0) -> Graph:
    """The gradients of an LSTM's weights, of a loss that reads its last state."""
    h, c, x = (input_value(name, tensor("float32", batch, units)) for name in "hcx")
    held = [input_value(name, tensor("float32", units, 4 * units)) for name in ("w", "u")]
    held.append(input_value("b", tensor("float32", 4 * units)))
    gates = ops.add(ops.add(ops.dot(x, held[0]), ops.dot(h, held[1])), held[2])
    i, f, g, o = (
        ops.slice(gates, starts=(0, k * units), stops=(batch, (k + 1) * units), steps=(1, 1)) for k in range(4)
    )
    cell = ops.add(ops.mul(ops.sigmoid(f), c), ops.mul(ops.sigmoid(i), ops.tanh(g)))
    body = Graph([h, c, x, *held], [ops.mul(ops.sigmoid(o), ops.tanh(cell)), cell])
    xs = input_value("xs", tensor("float32", steps, batch, units))
    last, _ = ops.scan(h, c, xs, *held, body=body, carries=2, scanned=1, checkpoint=checkpoint)
    loss = ops.reduce_sum(ops.mul(last, last), axes=(0, 1))
    return grad(Graph([h, c, xs, *held], [loss]), ["w", "u", "b"])


def dense(depth: int, width: int = 64) -> Graph:
    """The loss of a dense net and the gradients of its weights."""
    x = input_value("x", tensor("float32", width, width))
    weights = [input_value(f"w{k}", tensor("float32", width, width)) for k in range(depth)]
    y = x
    for w in weights:
        y = ops.tanh(ops.dot(y, w))
    loss = ops.reduce_sum(ops.mul(y, y), axes=(0, 1))
    return value_and_grad(Graph([x, *weights], [loss]), [f"w{k}" for k in range(depth)])


def least(graph: Graph) -> Graph:
    """The graph in as little memory as recomputation gives, by halving the range of budgets."""
    low, high, best = 0, peak(graph), graph
    while high - low > high // 64:
        budget = (low + high) // 2
        try:
            best, high = rematerialise(graph, budget), budget
        except OptionError:
            low = budget
    return best


def arena(executable: Executable) -> int:
    """Bytes of the planned arenas."""
    return sum(plan.memory.arena for plan in executable.prepare().plans)


def milliseconds(executables: Sequence[Executable], repeat: int) -> list[float]:
    """The fastest of several runs of each, taken in turn."""
    draw = np.random.default_rng(0).standard_normal
    feeds = [(0.1 * draw(p.type.static_shape)).astype(np.float32) for p in executables[0].inputs]
    best = [math.inf] * len(executables)
    for _ in range(repeat + 1):  # the first run is for warming up
        for k, executable in enumerate(executables):
            started = time.perf_counter()
            executable(*feeds)
            best[k] = min(best[k], time.perf_counter() - started)
    return [1e3 * seconds for seconds in best]


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.recurrent_memory", description="Memory for time.")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--threads", type=thread_number, default=1)
    parser.add_argument("--repeat", type=int, default=5)
    options = parse(parser, "recurrent_memory", argv)
    results: dict[str, object] = {}

    print(f"LSTM-128 over {options.steps} steps, gradients of its weights, {options.threads} threads")
    for batch in options.batch:
        compiled = [
            graphc.compile(lstm(options.steps, batch, checkpoint=n), threads=options.threads) for n in (0, EVERY)
        ]
        (plain, some), (before, after) = map(arena, compiled), milliseconds(compiled, options.repeat)
        print(f"  batch {batch:3d}  plain           {plain / 2**20:8.2f} MiB  {before:8.1f} ms")
        print(
            f"             every {EVERY} steps  {some / 2**20:8.2f} MiB  {after:8.1f} ms"
            f"     memory 1/{plain / some:.1f}, time x{after / before:.2f}"
        )
        results[f"lstm, batch {batch}"] = {"arena": [plain, some], "milliseconds": [before, after]}

    print("dense nets, 64 x 64: activations in memory at once, time against plain")
    for depth in (16, 64, 144):
        graph = dense(depth)
        again = least(graph)
        compiled = [graphc.compile(g, threads=options.threads) for g in (graph, again)]
        (plain, some), (before, after) = map(arena, compiled), milliseconds(compiled, options.repeat)
        unit = 4 * 64 * 64
        print(
            f"  depth {depth:4d}  plain {plain / unit:6.1f}  again {some / unit:6.1f}  "
            f"({some / unit / math.sqrt(depth):.2f} sqrt(n))  time x{after / before:.2f}"
        )
        results[f"dense, depth {depth}"] = {"arena": [plain, some], "milliseconds": [before, after]}

    write(options.save, results)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
