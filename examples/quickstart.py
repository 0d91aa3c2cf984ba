"""Compile a model that comes with the onnx package, run it, and look at what was made of it.

python examples/quickstart.py [MODEL]       (default: onnx:squeezenet)
"""

import sys
import time

import numpy as np

import graphc

exe = graphc.compile(sys.argv[1] if len(sys.argv) > 1 else "onnx:squeezenet", progress=True)
for port in (*exe.inputs, *exe.outputs):
    print(port.name, port.type)

# Open sizes would be symbols here; this model has none.
rng = np.random.default_rng(0)
feeds = {port.name: rng.random(port.type.static_shape, np.float32) for port in exe.inputs}
results = exe.run(None, feeds)

started = time.perf_counter()
for _ in range(20):
    exe.run(None, feeds)
print(f"{(time.perf_counter() - started) / 20 * 1e3:.2f} ms a run")

# What runs: one native program, its launches, its memory.
for plan in exe.specialisation(feeds).plans:
    print(len(plan.program.launches), "launches of", len(plan.sources), "kernels;", plan.memory)
    for launch in plan.program.launches[:5]:
        print("  ", plan.sources[launch.kernel].name, launch.tasks, "tasks:", ", ".join(launch.nodes))
