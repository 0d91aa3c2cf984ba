"""What a gradient costs: `python -m bench.backward [--threads 2 1] [--seconds 2]`.

Dense nets, float32, mean squared or cross entropy loss: the time of loss and gradients of all weights over the time of
the loss alone, both compiled, in turns. The matrix products alone would give 3 (one forward, two backward), less the
first layer's input gradient, which nobody asks for. The goal is at most 3.2.

The figures also go into bench/results/backward.json.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

import graphc
from bench.record import parse, write
from graphc.cli.arguments import duration, thread_number
from graphc.measure.turns import take_turns

__all__ = ["main"]

#: batch, widths, activation
NETS: dict[str, tuple[int, tuple[int, ...], str]] = {
    "784-512-512-10, batch 128": (128, (784, 512, 512, 10), "relu"),
    "784-256-128-64-10, batch 64": (64, (784, 256, 128, 64, 10), "relu"),
    "512 x 8, batch 256": (256, (512,) * 9, "tanh"),
    "1024-1024-1024, batch 512": (512, (1024, 1024, 1024), "relu"),
    "256 x 20, batch 32": (32, (256,) * 21, "tanh"),
}
GOAL = 3.2


def loss(params: list[Any], x: Any, labels: Any, activation: str) -> Any:
    """Cross entropy of a dense net's logits, averaged over the batch."""
    for k, (w, b) in enumerate(params):
        x = x @ w + b
        if k < len(params) - 1:
            x = graphc.tanh(x) if activation == "tanh" else graphc.relu(x)
    return -graphc.mean(graphc.take_along_axis(graphc.log_softmax(x, axis=-1), labels[:, None], axis=1))


def ratio(name: str, threads: int, seconds: float) -> dict[str, Any]:
    """The figures of one net."""
    batch, sizes, activation = NETS[name]
    rng = np.random.default_rng(0)
    params = [
        (rng.normal(0, n**-0.5, (n, m)).astype(np.float32), np.zeros(m, np.float32))
        for n, m in itertools.pairwise(sizes)
    ]
    x, labels = rng.standard_normal((batch, sizes[0])).astype(np.float32), rng.integers(0, sizes[-1], batch)
    forward = graphc.compile(loss, static_argnames="activation", threads=threads)
    both = graphc.compile(graphc.value_and_grad(loss), static_argnums=3, threads=threads)
    subjects = {
        "forward": lambda: forward(params, x, labels, activation=activation),
        "both": lambda: both(params, x, labels, activation),
    }
    for run in subjects.values():
        run()
    times = {k: statistics.median(v) for k, v in take_turns(subjects, seconds).items()}
    return {"net": name, "threads": threads, **times, "ratio": times["both"] / times["forward"]}


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line a net; 1 when one misses the goal."""
    parser = argparse.ArgumentParser(prog="python -m bench.backward", description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=thread_number, nargs="+", default=[2, 1])
    parser.add_argument("--seconds", type=duration, default=2.0)
    given = parse(parser, "backward", argv)
    results = []
    for threads in given.threads:
        for name in NETS:
            result = ratio(name, threads, given.seconds)
            results.append(result)
            print(
                f"{name:28} {threads} thread{'s' if threads > 1 else ' '}  forward {result['forward']:8.3f} ms  "
                f"with gradients {result['both']:8.3f} ms  ratio {result['ratio']:.2f}",
                flush=True,
            )
    worst = max(r["ratio"] for r in results)
    print(f"worst ratio {worst:.2f} (goal: at most {GOAL})")
    write(given.save, {"results": results})
    return 0 if worst <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
