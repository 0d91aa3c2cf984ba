"""The arena planner against its oracle, its checker and the lower bound."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.runtime.arena import ALIGNMENT, Block, check_plan, lower_bound, plan_arena, plan_naive


@st.composite
def lifetimes(draw: st.DrawFn) -> list[Block]:
    count = draw(st.integers(0, 40))
    blocks = []
    for i in range(count):
        first = draw(st.integers(0, 30))
        blocks.append(Block(i, draw(st.integers(0, 5000)), first, first + draw(st.integers(0, 12))))
    return blocks


@given(lifetimes())
@settings(max_examples=150, deadline=None)
def test_plans_are_right_and_between_the_bounds(blocks: list[Block]) -> None:
    offsets, size = plan_arena(blocks)
    check_plan(blocks, offsets, size)
    naive, naive_size = plan_naive(blocks)
    check_plan(blocks, naive, naive_size)
    assert lower_bound(blocks) <= size <= naive_size
    assert set(offsets) == {block.id for block in blocks}


@given(lifetimes())
@settings(max_examples=30, deadline=None)
def test_planning_is_repeatable(blocks: list[Block]) -> None:
    assert plan_arena(blocks) == plan_arena(blocks)


def chain(layers: int) -> list[Block]:
    """Activations of a network with residual connections: every third one is read again three layers on."""
    return [Block(i, 4096 * (1 + (i * 7919) % 50), i, i + (1 if i % 3 else 3)) for i in range(layers)]


def stashed(layers: int) -> list[Block]:
    """Forward and backward: activations live until their mirror step, gradients for one."""
    forward = [Block(i, 1024 * (1 + (i * 31) % 90), i, 2 * layers - i) for i in range(layers)]
    backward = [Block(layers + i, 1024 * (1 + (i * 17) % 90), layers + i, layers + i + 1) for i in range(layers)]
    return forward + backward


def concatenated(layers: int) -> list[Block]:
    """DenseNet: each layer's output lives to the end of its block of six."""
    kept = [Block(("kept", i), 3136 * 128, 2 * i + 1, 12 * (i // 6 + 1)) for i in range(layers)]
    return kept + [Block(("inner", i), 3136 * 512, 2 * i, 2 * i + 1) for i in range(layers)]


@pytest.mark.parametrize("blocks", [chain(60), chain(600), stashed(50), stashed(300), concatenated(60)])
def test_within_five_percent_of_the_least_possible(blocks: list[Block]) -> None:
    offsets, size = plan_arena(blocks)
    check_plan(blocks, offsets, size)
    assert size <= 1.05 * lower_bound(blocks)


def test_improving_beats_every_single_order() -> None:
    # Lifetimes 0-1, 1-2, 2-3, ... of sizes that tempt each greedy order into a gap it cannot fill.
    sizes = [5, 3, 4, 2, 6, 1, 5, 3, 2, 4, 6, 2]
    blocks = [Block(i, ALIGNMENT * s, i // 2, i // 2 + 1 + i % 3) for i, s in enumerate(sizes)]
    offsets, size = plan_arena(blocks)
    check_plan(blocks, offsets, size)
    assert size <= 1.05 * lower_bound(blocks)


def test_the_checker_finds_planted_faults() -> None:
    blocks = [Block("a", 100, 0, 2), Block("b", 100, 2, 3), Block("c", 64, 4, 4)]
    check_plan(blocks, {"a": 0, "b": 128, "c": 0}, 256)
    with pytest.raises(ValueError, match="share bytes"):
        check_plan(blocks, {"a": 0, "b": 64, "c": 0}, 256)
    with pytest.raises(ValueError, match="is at"):
        check_plan(blocks, {"a": 0, "b": 192, "c": 0}, 256)
    with pytest.raises(ValueError, match="is at"):
        check_plan(blocks, {"a": 8, "b": 128, "c": 0}, 256)


def test_bad_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="from step 3 to 2"):
        Block("x", 4, 3, 2)
    with pytest.raises(ValueError, match="same id"):
        plan_arena([Block("x", 4, 0, 1), Block("x", 4, 2, 3)])
