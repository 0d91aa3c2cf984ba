"""The weights of an imported model as inputs, so that its graph can be differentiated with respect to them."""

from __future__ import annotations

from graphc.errors import GraphTypeError
from graphc.frontends.python.model import parameters_of
from graphc.ir.graph import Graph, input_value, rebuild, remake
from graphc.ir.types import TensorType

__all__ = ["with_parameters_as_inputs"]


def with_parameters_as_inputs(graph: Graph) -> Graph:
    """The graph with `parameters_of` it as further inputs, of the same names and types, after its own.

    Raises GraphTypeError when a parameter is called what an input is called.
    """
    parameters = parameters_of(graph)
    if clash := sorted(parameters.keys() & set(graph.input_names)):
        raise GraphTypeError(f"{clash[0]!r} is the name of a parameter and of an input; rename the input")
    new = {v: input_value(name, TensorType(v.dtype, v.shape)) for name, v in parameters.items()}
    open_graph = rebuild(graph, lambda node, inputs: [new.get(v, v) for v in remake(node, inputs)])
    return Graph((*open_graph.inputs, *new.values()), open_graph.outputs, graph.output_names)
