"""Simplification: the rules of arithmetic and of data movement, applied together until none applies.

They stand in `algebra`, `movement` and `one_hot`. One set, because each makes room for the other: a reshape that is gone lets two
additions meet.
"""

from __future__ import annotations

from graphc.ir.graph import Graph
from graphc.ir.manager import once_settled
from graphc.ir.rewrite import rewrite
from graphc.ir.rules import Rule
from graphc.passes.algebra import algebra_rules
from graphc.passes.fold import folded
from graphc.passes.movement import MOVEMENT_RULES
from graphc.passes.one_hot import one_hot_product

__all__ = ["simplification_rules", "simplify"]


def simplification_rules(strict: bool = False) -> tuple[Rule, ...]:
    """All rules of the pass; `strict` leaves out those that may round differently."""
    return (*MOVEMENT_RULES, *algebra_rules(strict), one_hot_product)


def simplify(graph: Graph, strict: bool = False, folding: bool = False) -> Graph:
    """The graph in normal form under `simplification_rules`; with `folding` also what they make of constants."""
    rules, evaluate = simplification_rules(strict), folded if folding else None
    return once_settled(("simplify", strict, folding), lambda g: rewrite(g, rules, evaluate=evaluate), graph)
