"""Channels out of order among blocks: shuffles, choices and ragged concatenations that nothing moves."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from blocking import AVX2, MACHINES, arranged, channels, conv, image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphc import ops
from graphc.ir.graph import Graph, Value, constant, input_value
from graphc.ir.interpret import run
from graphc.ir.trace import trace
from graphc.ir.types import tensor
from graphc.kernels.machine import Machine

EXAMPLES = int(os.environ.get("GRAPHC_FUZZ_EXAMPLES", "60"))
MOVES = {"block", "unblock", "gather", "transpose", "slice"}


def shuffle(x: Value, groups: int) -> Value:
    n, c, h, w = x.shape
    split = ops.reshape(x, shape=(n, groups, c // groups, h, w))
    result: Value = ops.reshape(ops.transpose(split, perm=(0, 2, 1, 3, 4)), shape=x.shape)
    return result


def part(x: Value, start: int, stop: int, step: int = 1) -> Value:
    n, _, h, w = x.shape
    result: Value = ops.slice(x, starts=(0, start, 0, 0), stops=(n, stop, h, w), steps=(1, step, 1, 1))
    return result


def own(x: Value) -> Value:
    """A depthwise convolution."""
    return conv(x, x.shape[1], groups=x.shape[1])


def moved(graph: Graph) -> Counter[str]:
    """What moves channels in a graph, but for its input and its result."""
    ends = {id(v.node) for v in graph.outputs}
    names = Counter(n.op.name for n in graph.nodes if n.op.name in MOVES and id(n) not in ends)
    return names - Counter(["block"])


CHAINS: dict[str, tuple[int, Callable[[Value], Value]]] = {
    "a shuffle before a depthwise and a grouped convolution": (
        20,
        lambda x: conv(own(shuffle(conv(x, 40, 1, groups=4), 4)), 48, 1, groups=4),
    ),
    "a shuffle before an activation and a full convolution": (
        20,
        lambda x: conv(ops.relu(shuffle(conv(x, 40), 4)), 16),
    ),
    "a shuffle by a gather": (
        16,
        lambda x: conv(ops.gather(conv(x, 24), constant(np.arange(24)[::-1].copy()), axis=1), 16, 1),
    ),
    "half of the channels": (16, lambda x: conv(part(conv(x, 20), 10, 20), 16, 1)),
    "every other channel": (16, lambda x: conv(part(conv(x, 20), 1, 20, 2), 16, 1)),
    "ragged parts side by side": (16, lambda x: conv(ops.concat(conv(x, 44), conv(x, 61), conv(x, 16), axis=1), 16)),
    "ragged parts, a number for each channel": (
        16,
        lambda x: conv(ops.mul(y := ops.concat(conv(x, 44), conv(x, 61), axis=1), channels(y)), 16),
    ),
    "channels from the last to the first": (
        16,
        lambda x: conv(
            ops.slice(conv(x, 24), starts=(0, 23, 0, 0), stops=(2, -1, *x.shape[2:]), steps=(1, -1, 1, 1)), 16, 1
        ),
    ),
    "groups that fill no blocks": (24, lambda x: conv(ops.relu(conv(x, 36, 1, groups=3)), 30, 1, groups=3)),
}


@MACHINES
@pytest.mark.parametrize("name", CHAINS)
def test_nothing_is_moved(name: str, machine: Machine, agree: Callable[..., None]) -> None:
    c, build = CHAINS[name]
    x = image(c)
    graph = Graph([x], [build(x)])
    after = arranged(graph, machine)
    agree(graph, after, rtol=1e-4)
    assert not moved(after), after


def test_a_unit_that_splits_and_shuffles_moves_only_what_it_passes_on(agree: Callable[..., None]) -> None:
    def unit(x: Value) -> Value:
        kept, used = part(x, 0, 20), part(x, 20, 40)
        return shuffle(ops.concat(kept, conv(own(conv(used, 20, 1)), 20, 1), axis=1), 2)

    x = image(16)
    graph = Graph([x], [conv(unit(unit(conv(x, 40))), 16, 1)])
    after = arranged(graph, AVX2)
    agree(graph, after, rtol=1e-4)
    assert moved(after)["gather"] == 2, "one for each half that is kept"


@pytest.mark.parametrize("groups", [1, 4])
def test_what_fills_a_block_spoils_nothing(groups: int, agree: Callable[..., None]) -> None:
    """An infinite channel that was not chosen, or that belongs to another group, is multiplied with nothing."""
    x = image(16)
    w = np.ones((40, 16, 1, 1), np.float32)
    w[0] = 3e38
    y = ops.conv(x, w, strides=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1)
    chosen = shuffle(y, 4) if groups > 1 else part(y, 5, 15)
    graph = Graph([x], [conv(chosen, 16, groups=groups)])
    data = np.ones(x.shape, np.float32)
    with np.errstate(all="ignore"):
        (expected,), (found,) = run(graph, data), run(arranged(graph, AVX2, frozenset()), data)
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
    assert np.isfinite(expected).any()


def test_an_image_beyond_what_offsets_count_is_computed_by_definition() -> None:
    x = input_value("x", tensor("float32", 1, 16, 20_000, 20_000))
    graph = Graph([x], [conv(x, 16)])
    assert any(n.op.name == "conv" for n in arranged(graph).nodes)


def test_a_choice_that_moves_nothing_is_no_refusal() -> None:
    x = image(16)
    with trace(explain=True) as seen:
        arranged(Graph([x], [conv(part(conv(x, 20), 10, 20), 16, 1)]))
    assert not [e for e in seen.events if e.rule == "layout" and e.op == "slice"]


def test_operands_that_disagree_on_places_are_put_in_order(agree: Callable[..., None]) -> None:
    x = image(16)
    y = conv(x, 20)
    graph = Graph([x], [conv(ops.add(shuffle(y, 4), ops.add(y, shuffle(y, 2))), 16)])
    agree(graph, arranged(graph), rtol=1e-4)


def test_runtime_weights_meet_channels_in_order(agree: Callable[..., None]) -> None:
    x, w = image(16), input_value("w", tensor("float32", 16, 20, 3, 3))
    y = ops.conv(shuffle(conv(x, 20), 4), w, strides=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1)
    graph = Graph([x, w], [y])
    agree(graph, arranged(graph), rtol=1e-4)


@st.composite
def networks(draw: st.DrawFn) -> Graph:
    """Convolutional networks that shuffle, choose and join channels in every order."""
    x = image(draw(st.sampled_from([8, 12, 16])), draw(st.sampled_from([1, 2])))
    values = [conv(x, draw(st.sampled_from([8, 12, 20, 24])), 1)]
    for _ in range(draw(st.integers(2, 9))):
        v = draw(st.sampled_from(values[-3:]))
        c = v.shape[1]
        alike = [u for u in values if u.shape == v.shape]
        groups = draw(st.sampled_from([g for g in (1, 2, 3, 4) if c % g == 0]))
        match draw(st.integers(0, 10)):
            case 0 | 1:
                y = conv(v, groups * draw(st.integers(1, 12)), draw(st.sampled_from([1, 1, 3])), groups=groups)
            case 2:
                y = own(v)
            case 3 | 4:
                y = shuffle(v, groups)
            case 5:
                first = draw(st.integers(0, c - 1))
                last, step = draw(st.integers(first + 1, c)), draw(st.sampled_from([1, 2, -1, -2]))
                y = part(v, first, last, step) if step > 0 else part(v, last - 1, first - 1, step)
            case 6:
                order = draw(st.lists(st.integers(-c, c - 1), min_size=1, max_size=24))
                y = ops.gather(v, constant(np.array(order)), axis=1)
            case 7:
                y = ops.concat(v, draw(st.sampled_from([u for u in values if u.shape[0] == v.shape[0]])), axis=1)
            case 8:
                y = ops.add(v, ops.relu(draw(st.sampled_from(alike))))
            case 9:
                y = ops.mul(v, channels(v))
            case _:
                axis = draw(st.sampled_from([1, 2, 3]))
                most = ops.reduce_max(v, axes=(axis,))
                kept = tuple(1 if k == axis else d for k, d in enumerate(v.shape))
                y = ops.sub(v, ops.broadcast_to(ops.reshape(most, shape=kept), shape=v.shape))
        if y.shape[1] <= 64:
            values.append(y)
    return Graph([x], [values[-1], draw(st.sampled_from(values))])


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(networks())
def test_networks_in_blocks_agree_with_the_plain_ones(agree: Callable[..., None], graph: Graph) -> None:
    agree(graph, arranged(graph, AVX2), rtol=1e-4)
