"""The text form prints and parses back to the very same nodes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc import ops
from graphc.errors import ParseError
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph, Value, constant, input_value, location, location_of
from graphc.ir.text import constants_of, parse_graph, parse_type, print_graph
from graphc.ir.types import OptionalType, SequenceType, TensorType, tensor
from graphc.ir.verify import verify

names = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=8)
n = Dim("n")
dims = st.one_of(st.integers(0, 5), st.sampled_from([n, n + 1, 2 * n, (n - 3) // 2 + 1]))
floats = st.floats(width=32)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """A random graph of elementwise nodes, broadcasts and constants over one shape."""
    shape = tuple(draw(st.lists(dims, max_size=3)))
    inputs = [
        input_value(name, tensor("float32", *shape))
        for name in draw(st.lists(names, min_size=1, max_size=3, unique=True))
    ]
    values: list[Value] = list(inputs)
    for _ in range(draw(st.integers(0, 12))):
        with location(*draw(st.lists(names.map(str.strip).filter(bool), max_size=2))):
            choice = draw(st.integers(0, 4))
            pick = st.sampled_from(values)
            if choice == 0:
                data = np.array(draw(st.lists(floats, min_size=1, max_size=12)), np.float32)
                values.append(ops.broadcast_to(constant(data.sum(), name=draw(names)), shape=shape))
                ops.neg(constant(data))
            elif choice == 1:
                values.append(ops.cast(ops.lt(draw(pick), draw(pick)), dtype=values[0].dtype))
            elif choice == 2:
                values.append(draw(st.sampled_from([ops.exp, ops.neg, ops.relu]))(draw(pick)))
            else:
                values.append(draw(st.sampled_from([ops.add, ops.mul, ops.maximum]))(draw(pick), draw(pick)))
    outputs = draw(st.lists(st.sampled_from(values), min_size=1, max_size=3))
    return Graph(inputs, outputs, draw(st.lists(names, min_size=len(outputs), max_size=len(outputs), unique=True)))


@given(graphs())
@settings(max_examples=150, deadline=None)
def test_parsing_what_was_printed_gives_the_same_nodes(graph: Graph) -> None:
    text = print_graph(graph)
    back = parse_graph(text, constants_of(graph))
    assert back == graph
    assert all(a is b for a, b in zip(back.nodes, graph.nodes, strict=True))
    assert print_graph(back) == text
    verify(back)


@given(st.lists(floats, max_size=8))
@settings(deadline=None)
def test_constants_come_back_bit_by_bit(data: list[float]) -> None:
    graph = Graph([], [constant(np.array(data, np.float32))])
    assert parse_graph(print_graph(graph), constants_of(graph)) == graph


@pytest.mark.parametrize(
    "array",
    [
        np.array([True, False]),
        np.array(["a", 'b"c\n', "@d"], object),
        np.array([1 + 2j, -0.0 - 2j, 3j], np.complex64),
        np.array([[1, 2], [3, 4]], np.uint8),
        np.zeros((0, 3), np.float64),
        np.array(7, np.int64),
        np.array([0x7FC00001, 0xFFC00000, 0x7F800000], np.uint32).view(np.float32),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_constants_of_every_kind(array: np.ndarray) -> None:
    graph = Graph([], [constant(array)])
    assert parse_graph(print_graph(graph), constants_of(graph)) == graph


@pytest.mark.parametrize(
    "t",
    [
        tensor("float32"),
        tensor("int4", 1, n, 2 * n + 1),
        SequenceType(tensor("string", n)),
        OptionalType(SequenceType(tensor("bool"))),
    ],
    ids=str,
)
def test_types_parse_back(t: TensorType) -> None:
    assert parse_type(str(t)) == t


def test_locations_come_back() -> None:
    text = 'graph(%x: float32[2]) {\n  %0 = tanh(%x) : float32[2]  # layer/1, "a, b"\n  return %0 as "y"\n}\n'
    graph = parse_graph(text)
    assert location_of(graph.outputs[0].node) == ("layer/1", "a, b")
    assert print_graph(graph) == text


def test_large_constants_stand_beside_the_text() -> None:
    data = np.arange(20, dtype=np.float32)
    graph = Graph(
        [], [ops.neg(constant(data, name="w/1")), ops.neg(constant(data + 1, name="w.1")), ops.neg(constant(data + 2))]
    )
    assert [v.array[0] for v in constants_of(graph).values()] == [0, 1, 2]
    assert list(constants_of(graph)) == ["w_1", "w.1", "c"]
    arrays = {k: v.array for k, v in constants_of(graph).items()}
    again = parse_graph(print_graph(graph), arrays)
    assert [v.node.inputs[0].literal[0] for v in again.outputs] == [0, 1, 2]  # type: ignore[index]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("%0 = no_such_op(%x) : float32[2]", "no operation 'no_such_op'"),
        ("%0 = exp(%z) : float32[2]", "%z is used but not defined"),
        ("%0 = exp(%x) : float32[3]", "the text says float32[3] but the operation gives float32[2]"),
        ("%0 = reshape(%x) : float32[2]", "shape"),
        ("%0 = add(%x, %x, k=) : float32[2]", "expected an attribute's value"),
        ("%0 = exp(%x) : float33[2]", "no element type 'float33'"),
        ("%0 = exp(%x) : float32[a b]", "not a dimension"),
        ("%0 = constant @w : float32[9]", "constant @w has no data"),
        ("%0 = constant [1.0] : float32[2]", "does not fit float32[2]"),
        ("%0 = exp(%x)", "expected :"),
        ("%x = exp(%x) : float32[2]", "%x is defined twice"),
        ("%0, %1 = exp(%x) : float32[2]", "1 results, the line names 2"),
        ("%0 = exp(%x) : float32[2] ?", "cannot read '?"),
    ],
)
def test_errors_name_the_line(line: str, message: str) -> None:
    with pytest.raises(ParseError) as e:
        parse_graph(f'graph(%x: float32[2]) {{\n  {line}\n  return %0 as "y"\n}}')
    assert "line 2: " in str(e.value) or "line 3: " in str(e.value)
    assert message in str(e.value)


@given(st.text(st.sampled_from('graph(%x: float32[2]) {} return as "=exp,1#@'), max_size=60))
@settings(deadline=None)
def test_any_other_text_is_a_parse_error(text: str) -> None:
    with pytest.raises(ParseError):
        parse_graph(text + "\n}")
