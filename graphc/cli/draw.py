"""A memory plan as a picture: steps of the program from left to right, bytes of the arena from bottom to top."""

from __future__ import annotations

from html import escape

from graphc.cli.show import bytes_text
from graphc.runtime.planned import Planned

__all__ = ["draw_memory"]

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 1000, 500, 70, 40, 30
_COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#edc948", "#b07aa1", "#9c755f")


def draw_memory(stretch: Planned) -> str:
    """An SVG: one box a buffer, as wide as its lifetime and as tall as its size; hovering names what writes it."""
    steps, arena = max(1, len(stretch.program.instructions)), max(1, stretch.memory.arena)
    writers: dict[int, str] = {}
    for launch in stretch.program.launches:
        for operand in launch.operands[len(launch.operands) - launch.outputs :]:
            writers.setdefault(operand.buffer, ", ".join(launch.nodes))
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 10} {_TOP + _HEIGHT + _BOTTOM}"'
        ' font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT}" y="24">arena {bytes_text(stretch.memory.arena)}, lower bound '
        f"{bytes_text(stretch.memory.lower_bound)}, {len(stretch.blocks)} buffers, {steps} steps</text>",
        f'<rect x="{_LEFT}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}" fill="#f4f4f4"/>',
        f'<text x="{_LEFT - 6}" y="{_TOP + 10}" text-anchor="end">{bytes_text(arena)}</text>',
        f'<text x="{_LEFT - 6}" y="{_TOP + _HEIGHT}" text-anchor="end">0</text>',
        f'<text x="{_LEFT}" y="{_TOP + _HEIGHT + 20}">step 0</text>',
        f'<text x="{_LEFT + _WIDTH}" y="{_TOP + _HEIGHT + 20}" text-anchor="end">step {steps - 1}</text>',
    ]
    for block in stretch.blocks:
        offset = stretch.offsets[block.id]
        x = _LEFT + _WIDTH * block.first / steps
        width = _WIDTH * (block.last - block.first + 1) / steps
        height = _HEIGHT * block.nbytes / arena
        y = _TOP + _HEIGHT * (1 - offset / arena) - height
        label = f"buffer {block.id}: {bytes_text(block.nbytes)}, steps {block.first} to {block.last}"
        colour = _COLOURS[block.id % len(_COLOURS)]
        out.append(
            f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{colour}" stroke="white"'
            f' stroke-width="0.5"><title>{escape(label)}; {escape(writers.get(block.id, ""))}</title></rect>'
        )
    return "\n".join([*out, "</svg>", ""])
