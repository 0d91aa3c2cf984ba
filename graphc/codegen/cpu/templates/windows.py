"""The window kernel: depthwise convolutions and pooling from one template.

A row of output is done some pixels at a time. The last of these tiles moves back to end with the row, and the epilogue
passes over the pixels it has seen already (it may work in place).
"""

from __future__ import annotations

from graphc.codegen.cpu.templates.epilogue import Argument, Epilogue, argument_block, declarations, imports, indent
from graphc.kernels.windows import ADDRESSES, NUMBERS, WindowVariant

__all__ = ["window_arguments", "window_source"]


def window_arguments(variant: WindowVariant, epilogue: Epilogue) -> tuple[Argument, ...]:
    """The slots of the argument block, as `argument_block` orders them."""
    return argument_block(dict.fromkeys(ADDRESSES, variant.dtype), NUMBERS, epilogue.arguments)


_SOURCE = '''\
"""Windows combined by {combine}, {pixels} neighbouring pixels of {lanes} {dtype} at a time, stride {stride}; {taps} taps
of a row written out, {dilation} apart."""

from graphc.codegen.cpu import vector
from graphc.codegen.cpu.window_microkernel import window
from graphc.codegen.cpu.vector import offset
from graphc.kernels.windows import WindowVariant
{imports}

load, store = vector.loader({lanes}), vector.storer({lanes})
{definitions}window = window({variant}{finish})
as_pointer = vector.pointer("{dtype}")


def {name}(block, first, last, scratch):
{declarations}
    tile = as_pointer(scratch)
    g, lanes = 0, {lanes}
    rounds, x_row, w_row = kernel_width // {taps}, dilation_height * width * {lanes}, kernel_width * {lanes}
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
            for j in range(0, out_width, {pixels}):
                start = min(j, out_width - {pixels})
                x_first = start * {stride} - left
                x_here = offset(x_line, x_first * {lanes})
{which}                window(tile, x_here, w_line, high, rounds, x_row, w_row, -x_first, width - x_first{given})
                for p in range(j - start, {pixels}{kept}):
                    m = i * out_width + start + p
                    acc = load(tile, p * {lanes}, {lanes})
{epilogue}
'''


def window_source(variant: WindowVariant, epilogue: Epilogue, name: str = "windows") -> str:
    """The module text of the kernel `name(block, first, last, scratch)` for a variant and an epilogue.

    Tasks are batch x blocks x row tasks; `scratch` needs `WindowSchedule.scratch_bytes` bytes, 64-byte aligned.
    """
    arguments = window_arguments(variant, epilogue)
    registers = epilogue.in_registers("start == j", margin=" " * 16, m="i * out_width + start")
    return _SOURCE.format(
        name=name, variant=repr(variant),
        pixels=variant.pixels, lanes=variant.lanes, stride=variant.stride, taps=variant.taps, dilation=variant.dilation,
        combine=variant.combine, dtype=variant.dtype,
        imports="\n".join(imports(arguments, epilogue)),
        declarations=indent(list(declarations(arguments)), 1),
        epilogue=indent(epilogue.calls(), 5), **registers,
    )  # fmt: skip
