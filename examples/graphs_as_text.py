"""A graph by hand, as text, rewritten by a rule of one's own, and compiled.

python examples/graphs_as_text.py
"""

import numpy as np

import graphc
from graphc import ops
from graphc.ir.graph import Graph, Node, Value, input_value
from graphc.ir.rewrite import rewrite
from graphc.ir.rules import Uses, rule
from graphc.ir.text import parse_graph
from graphc.ir.trace import trace
from graphc.ir.types import tensor

# Operations are functions on values; types are inferred as the graph is made.
x = input_value("x", tensor("float32", 4, 3))
graph = Graph([x], [ops.exp(ops.log(ops.add(ops.mul(x, x), 1.0)))], ["y"])
print(graph)

# The text parses back, to the very same graph: nodes are interned.
assert parse_graph(str(graph)) == graph


# A rule says where it may fire, why it does not, and what it puts in the place.
def check(node: Node, uses: Uses) -> str | None:
    return None if node.inputs[0].node.op.name == "log" else "the operand is not a logarithm"


@rule("exp", check=check)
def exp_of_log(node: Node) -> Value:
    """exp(log(x)) = x, for x > 0 as here."""
    return node.inputs[0].node.inputs[0]


with trace(explain=True) as events:
    smaller = rewrite(graph, [exp_of_log])
print(events)
print(smaller)

array = np.arange(12, dtype=np.float32).reshape(4, 3)
np.testing.assert_allclose(graphc.compile(smaller)(array), array * array + 1)
