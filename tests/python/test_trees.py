"""Trees of arguments: taken apart and put together, whatever they are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.frontends.python.tree import flatten, leaves_with_paths, map_tree, unflatten


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass(frozen=True)
class Checked:
    """Refuses what is no number when it is made; trees of other leaves are put together nevertheless."""

    weight: Any
    bias: Any

    def __post_init__(self) -> None:
        if not isinstance(self.weight, int):
            raise TypeError("a number is needed")


leaf = st.integers()
trees = st.recursive(
    st.one_of(leaf, st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        st.builds(Pair, inner, inner),
        st.builds(Checked, leaf, inner),
    ),
    max_leaves=12,
)


@given(trees)
def test_apart_and_together(tree: Any) -> None:
    leaves, structure = flatten(tree)
    assert structure.count == len(leaves)
    assert unflatten(structure, leaves) == tree
    assert [v for _, v in leaves_with_paths(tree)] == leaves


def test_order_of_a_dict_does_not_matter() -> None:
    assert flatten({"b": 1, "a": 2})[1] == flatten({"a": 5, "b": 6})[1]
    assert flatten({"b": 1, "a": 2})[0] == [2, 1]


def test_structures_tell_containers_apart() -> None:
    shapes = [flatten(t)[1] for t in ([1, 2], (1, 2), Pair(1, 2), {"left": 1, "right": 2}, Checked(1, 2), [1, [2]])]
    assert len(set(shapes)) == len(shapes)


def test_a_dataclass_is_put_together_without_its_own_checks() -> None:
    _, structure = flatten(Checked(1, 2))
    assert unflatten(structure, ["w", "b"]).weight == "w"


def test_paths() -> None:
    tree = {"layers": [Checked(1, 2), Pair(3, None)]}
    assert [p for p, _ in leaves_with_paths(tree, "params")] == [
        "params.layers.0.weight",
        "params.layers.0.bias",
        "params.layers.1.left",
    ]


def test_map_needs_equal_structures() -> None:
    assert map_tree(lambda a, b: a + b, {"x": [1, 2]}, {"x": [10, 20]}) == {"x": [11, 22]}
    with pytest.raises(ValueError, match="different structures"):
        map_tree(lambda a, b: a, [1], (1,))
