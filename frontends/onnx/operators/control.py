"""If, Loop and Scan."""

from __future__ import annotations

from graphc.frontends.onnx.importer import Context, importer
from graphc.ir.graph import Value

__all__: list[str] = []


@importer("If", 1, 11, 13, 16, 19, 21, 23, 24, 25)
def convert_if(c: Context, condition: Value) -> list[Value]:
    """A known condition takes its branch in place of the node."""
    c.ignore("then_branch", "else_branch")
    known = c.known(condition)
    if known is not None:
        return c.inline(c.graph("then_branch" if known.reshape(()).item() else "else_branch"))
    c.unsupported("later")
