"""The window kernel: depthwise convolutions and pooling from one template.

Along a row of output, pixels whose windows lie inside the image are done several at a time; the few at its borders one
at a time, with the part of the window that is inside. The last group of the interior moves back to end at its edge, and
the epilogue passes over the pixels it has seen already (it may work in place).
"""

from __future__ import annotations

from graphc.codegen.cpu.templates.epilogue import Argument, Epilogue, declarations, imports, indent
from graphc.kernels.windows import SLOTS, WindowVariant

__all__ = ["window_arguments", "window_source"]


def window_arguments(variant: WindowVariant, epilogue: Epilogue) -> tuple[Argument, ...]:
    """The argument block: all addresses, then all numbers, `SLOTS` first and then the epilogue's."""
    kinds = {"x": variant.dtype, "w": variant.dtype}
    slots = (*(Argument(name, kinds.get(name, "int")) for name in SLOTS), *epilogue.arguments)
    return tuple(sorted(slots, key=lambda slot: slot.kind == "int"))


_SOURCE = '''\
"""Windows combined by {combine}, {pixels} neighbouring pixels of {lanes} {dtype} at a time, stride {stride}."""

from graphc.codegen.cpu import vector
from graphc.codegen.cpu.microkernel import window
from graphc.codegen.cpu.vector import offset
{imports}

load, store = vector.loader({lanes}), vector.storer({lanes})
{definitions}several = window({pixels}, {lanes}, {stride}, "{combine}", "{dtype}"{finish})
single = window(1, {lanes}, {stride}, "{combine}", "{dtype}"{finish})
as_pointer = vector.pointer("{dtype}")


def {name}(block, first, last, scratch):
{declarations}
    tile = as_pointer(scratch)
    g, lanes = 0, {lanes}
    x_row, x_step, w_row = dilation_height * width * {lanes}, dilation_width * {lanes}, kernel_width * {lanes}
    for task in range(first, last):
        row_task, plane = task % row_tasks, task // row_tasks
        q, b = plane % blocks, plane // blocks
        c = q
        x_plane = offset(x, plane * height * width * {lanes})
        w_plane = offset(w, q * kernel_height * w_row)
        for i in range(row_task * rows_per_task, min(out_height, (row_task + 1) * rows_per_task)):
            # Rows of the window from `above` on, `high` of them, lie inside the image.
            y_first = i * stride_height - top
            above = max(0, (dilation_height - 1 - y_first) // dilation_height)
            high = max(0, min(kernel_height, (height - y_first + dilation_height - 1) // dilation_height) - above)
            x_line = offset(x_plane, (y_first + above * dilation_height) * width * {lanes})
            w_line = offset(w_plane, above * w_row)
            j = 0
            while j < out_width:
                start = j
                if inner_first <= j < inner_last:
                    start = min(j, inner_last - {pixels})
                    count = {pixels}
                    taps = high * kernel_width
                    x_from = offset(x_line, (start * stride_width - left) * {lanes})
{which}                    several(tile, x_from, w_line, high, kernel_width, x_row, x_step, w_row{given})
                else:
                    x_first = j * stride_width - left
                    before = max(0, (dilation_width - 1 - x_first) // dilation_width)
                    wide = max(0, min(kernel_width, (width - x_first + dilation_width - 1) // dilation_width) - before)
                    count = 1
                    taps = high * wide
                    x_from = offset(x_line, (x_first + before * dilation_width) * {lanes})
{which}                    single(tile, x_from, offset(w_line, before * {lanes}), high, wide, x_row, x_step, w_row{given})
                for p in range(j - start, count{kept}):
                    m = i * out_width + start + p
                    acc = load(tile, p * {lanes}, {lanes})
{epilogue}
                j = start + count
'''


def window_source(variant: WindowVariant, epilogue: Epilogue, name: str = "windows") -> str:
    """The module text of the kernel `name(block, first, last, scratch)` for a variant and an epilogue.

    Besides the names of every epilogue there is `taps`, the number of the window's taps inside the image. Tasks are
    batch x blocks x row tasks; `scratch` needs `WindowSchedule.scratch_bytes` bytes, 64-byte aligned.
    """
    arguments = window_arguments(variant, epilogue)
    registers = epilogue.in_registers("start == j", m="i * out_width + start", more=("taps",))
    return _SOURCE.format(
        name=name,
        pixels=variant.pixels, lanes=variant.lanes, stride=variant.stride, combine=variant.combine, dtype=variant.dtype,
        imports="\n".join(imports(arguments, epilogue)),
        declarations=indent(list(declarations(arguments)), 1),
        epilogue=indent(epilogue.calls(("taps",)), 5), **registers,
    )  # fmt: skip
