"""Where figures are kept: `bench/results/` holds those of whole runs, which the README quotes; a part must not replace them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from graphc.measure.machine import describe_machine

__all__ = ["RESULTS", "parse", "write"]

RESULTS = Path(__file__).parent / "results"


def parse(
    parser: argparse.ArgumentParser, name: str, argv: Sequence[str] | None, places: Collection[str] = ()
) -> argparse.Namespace:
    """The options of a command line, with `--save` added to those of `parser`.

    `save` is then where the figures go: what was asked for, else bench/results/NAME.json if every option has its
    default (but for `places`, which do not change what is measured), else None.
    """
    parser.add_argument(
        "--save", type=Path, metavar="FILE.json", help=f"where the figures go (default, of a whole run: {name}.json)"
    )
    given = parser.parse_args(argv)
    if not {n for n, value in vars(given).items() if value != parser.get_default(n)} - set(places):
        given.save = RESULTS / f"{name}.json"
    return given


def write(path: Path | None, record: Mapping[str, Any]) -> None:
    """Keep figures, and what they were measured on; says where, or that they are not kept."""
    if path is None:
        print("not kept, since options changed what is measured: --save FILE.json keeps it")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": describe_machine(), **record}, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")
