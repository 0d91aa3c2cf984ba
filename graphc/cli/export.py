"""`graphc export`: save a model as graphc imports it."""

from __future__ import annotations

import argparse
from pathlib import Path

from graphc.cli import show
from graphc.cli.feeds import parse_shapes

__all__ = ["export"]


def export(arguments: argparse.Namespace) -> int:
    """The command; returns its exit code."""
    from graphc.api import load, source_of
    from graphc.saving import export as save

    show.check_file("FILE", arguments.file, [".onnx"])
    shapes = parse_shapes(arguments.shape, source_of(arguments.model).inputs) if arguments.shape else None
    graph = load(arguments.model, shapes=shapes)
    save(graph, arguments.file)
    size = Path(arguments.file).stat().st_size
    print(f"{arguments.file}: {len(graph.nodes)} nodes, {size / 1e6:.1f} MB")
    return 0
