"""The examples run, and so does every Python block of the user's guide."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
GUIDES = ["docs/python.md", "docs/gradients.md"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_an_example_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")


def test_the_readme_lists_every_example() -> None:
    listed = re.findall(r"^\| `examples/(\w+)\.py` \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == [p.stem for p in EXAMPLES]


def test_the_readme_lists_every_variable_of_the_environment() -> None:
    def names(text: str) -> set[str]:
        return set(re.findall(r"\bGRAPHC_[A-Z_]*[A-Z]\b", text))

    folders = ("graphc", "frontends", "passes", "runtime", "bench")
    sources = [p.read_text(encoding="utf-8") for folder in folders for p in (ROOT / folder).rglob("*.py")]
    table = [
        line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `GRAPHC_")
    ]
    assert names("\n".join(line.split("|")[1] for line in table)) == names("\n".join(sources))


@pytest.mark.parametrize("name", GUIDES)
def test_the_code_of_a_guide_runs(name: str) -> None:
    """All blocks of a page, one after the other, as a reader would type them."""
    text = (ROOT / name).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks, f"{name} shows no code"
    space: dict[str, object] = {"__name__": "guide"}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{name}, block {number}", "exec"), space)
