"""The whole pipeline: any pass can be left out, texts after every pass, time, and what must never happen."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from graphc import ops
from graphc.errors import OptionError
from graphc.ir.graph import Graph, Value, constant, input_value, location
from graphc.ir.manager import PassManager, verify_between
from graphc.ir.rewrite import rewrite
from graphc.ir.types import tensor
from graphc.kernels.choice import ALGORITHMS
from graphc.kernels.machine import ISAS, Machine
from graphc.ops.functions import softmax
from graphc.options import Options
from graphc.passes.algebra import subtract_constant
from graphc.passes.match import varying_axes
from graphc.passes.pipeline import PARTS, pipeline

MACHINE = Machine(ISAS["avx2"])
rng = np.random.default_rng()


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    """Whatever other tests have drawn, and in which process."""
    rng.bit_generator.state = np.random.default_rng(3).bit_generator.state


def weights(*shape: int) -> Value:
    return constant(rng.uniform(-1, 1, shape).astype(np.float32), name="w")


def layer(x: Value, filters: int, name: str) -> Value:
    """Convolution, bias, normalisation and activation, as importers write them."""
    with location(name):
        y = ops.conv(
            x, weights(filters, x.shape[1], 3, 3), strides=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1
        )
    for k in range(3):
        with location(f"{name}.norm{k}"):
            y = (ops.add, ops.mul, ops.add)[k](y, ops.broadcast_to(weights(filters, 1, 1), shape=y.shape))
    with location(f"{name}.relu"):
        return ops.relu(y)


def network(depth: int = 2, *, size: int = 8, probabilities: bool = True) -> Graph:
    """A small residual network with a classifier; its scores are some tens, and probabilities of them near 0 and 1."""
    x = input_value("image", tensor("float32", 1, 3, size, size))
    y = layer(x, 16, "stem")
    for k in range(depth):
        y = ops.add(layer(y, 16, f"block{k}"), y)
    y = ops.reduce_window(
        y, combine="maximum", axes=(2, 3), window=(2, 2), strides=(2, 2), padding=((0, 0), (0, 0)), dilation=(1, 1)
    )
    mean = ops.mul(ops.reduce_sum(y, axes=(2, 3)), 1 / 16)
    scores = ops.add(ops.dot(mean, weights(16, 10)), ops.broadcast_to(weights(10), shape=(1, 10)))
    if probabilities:
        return Graph([x], [softmax(scores, axis=-1)], ["probabilities"])
    return Graph([x], [scores], ["scores"])


def compiled(graph: Graph, **options: object) -> Graph:
    return PassManager(pipeline(Options.of(threads=2, **options), MACHINE), [verify_between]).run(graph)


EVERY = pipeline(Options.of(precision="bfloat16"), MACHINE)
LEAVABLE = [*(p.name for p in EVERY if not p.needed), *PARTS]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", LEAVABLE)
def test_any_pass_can_be_left_out(name: str, precision: str, agree: Callable[..., None]) -> None:
    # Of a size of its own: a body of a kernel that equals one of the golden text would bring its locations there.
    graph = network(size=12, probabilities=False)
    after = compiled(graph, disable=name, precision=precision)
    assert name not in {p.name for p in pipeline(Options.of(disable=name, precision=precision), MACHINE)}
    # The operands of bfloat16 products have 8 bits, and are rounded for each of four layers.
    rounded = precision == "bfloat16" and name != "mixed-precision"
    agree(graph, after, rtol=1e-4, atol=4 * 2**-9 if rounded else 1e-5)


def test_the_message_names_all_that_can_be_left_out() -> None:
    with pytest.raises(OptionError) as e:
        pipeline(Options.of(disable="fusion"), MACHINE)
    assert str(e.value).split("left out are ")[1] == ", ".join(sorted(LEAVABLE))
    assert set(PARTS) >= ALGORITHMS, "each algorithm can be left out"
    assert {p.name for p in EVERY} - set(LEAVABLE) == {"calls", "decompose", "layout", "pack"}


@pytest.mark.parametrize("level", [0, 1, 2])
def test_levels(level: int, agree: Callable[..., None]) -> None:
    graph = network()
    after = compiled(graph, level=level)
    assert any(n.op.name == "fusion" for n in after.nodes) == (level == 2)
    assert not any(n.op.name in ("conv", "dot") for n in after.nodes)
    agree(graph, after, rtol=1e-4)


def test_strict_precision_keeps_every_rounding(agree: Callable[..., None]) -> None:
    graph = network()
    after = compiled(graph, precision="strict")
    names = [n.op.name for m in after.nodes for n in (m.attrs["body"].nodes if m.op.name == "fusion" else (m,))]
    assert names.count("mul") == 4, "no scale went into weights"
    agree(graph, after)


def test_each_layer_is_one_kernel() -> None:
    after = compiled(network(depth=3))
    anchors = [
        n
        for n in after.nodes
        if n.op.name == "fusion" and any(m.op.name.startswith("conv_") for m in n.attrs["body"].nodes)
    ]
    assert len(anchors) == 4
    assert sum(n.op.name in ("block", "unblock") for n in after.nodes) <= 2


def test_text_after_every_pass(golden: Callable[[str, str], None]) -> None:
    # Of a size of its own: what equals a node of another test would bring that one's locations.
    graph = network(depth=1, size=20)
    text = [f"start\n{graph}"]
    PassManager(
        pipeline(Options.of(threads=2), MACHINE),
        [
            lambda p, before, after, seconds: text.append(
                f"after {p.name}" + (f"\n{after}" if after is not before else ": no change\n")
            )
        ],
    ).run(graph)
    golden("network.txt", "\n".join(text))


@pytest.mark.parametrize("name", [p.name for p in EVERY if p.needed])
def test_passes_that_cannot_be_left_out(name: str) -> None:
    with pytest.raises(OptionError, match="cannot be left out"):
        pipeline(Options.of(disable=name), MACHINE)


def test_a_large_graph_takes_little_time() -> None:
    """Two thousand operations in a second of this process's time; the bound leaves room for slow machines."""
    x = input_value("image", tensor("float32", 1, 16, 8, 8))
    y = x
    for k in range(330):
        y = layer(y, 16, f"layer{k}")
    graph = Graph([x], [y])
    count = sum(n.op.name != "constant" for n in graph.nodes)
    assert count > 2000
    started = time.process_time()
    compiled(graph)
    assert time.process_time() - started < 6


def long_chain(v: Value, step: Callable[[Value], Value]) -> Value:
    """A step three times as often as Python lets functions call each other."""
    for _ in range(3000):
        v = step(v)
    return v


def scaled_by_a_chain(step: Callable[[Value], Value]) -> Graph:
    """A convolution, whose weights and scale are what long chains make of constants."""
    x = input_value("image", tensor("float32", 1, 16, 8, 8))
    kernel = long_chain(weights(16, 16, 1, 1), lambda v: ops.broadcast_to(v, shape=v.shape))
    y = ops.conv(x, kernel, strides=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1)
    return Graph([x], [ops.sub(y, long_chain(ops.broadcast_to(weights(16, 1, 1), shape=y.shape), step))])


@pytest.mark.parametrize("step", [ops.sin, lambda v: ops.broadcast_to(v, shape=v.shape)], ids=["sin", "broadcast_to"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("disable", [(), ("fold",), ("fold", "simplify", "views", "clean", "clean-layout")], ids=str)
def test_long_chains_compile(step: Callable[[Value], Value], precision: str, disable: tuple[str, ...]) -> None:
    graph = scaled_by_a_chain(step)
    assert compiled(graph, precision=precision, disable=disable).output_names == graph.output_names


def test_long_chains_of_constants_are_looked_through() -> None:
    row = ops.broadcast_to(weights(1, 16), shape=(4, 16))
    sines = long_chain(row, ops.sin)
    assert varying_axes(sines) == {1}
    assert varying_axes(ops.broadcast_to(sines, shape=(2, 4, 16))) == {2}
    x = input_value("x", row.type)
    views = long_chain(row, lambda v: ops.broadcast_to(v, shape=v.shape))
    after = rewrite(Graph([x], [ops.sub(x, views)]), [subtract_constant])
    assert after.outputs[0].node.op.name == "add"


def test_the_documentation_tells_every_pass_in_order() -> None:
    table = (Path(__file__).parents[2] / "docs" / "design.md").read_text().split("| pass | what")[1].split("\n\n")[0]
    told = [name for names in re.findall(r"^\| ([a-z, -]+?) \|", table, re.MULTILINE) for name in names.split(", ")]
    assert told == [p.name for p in EVERY]
