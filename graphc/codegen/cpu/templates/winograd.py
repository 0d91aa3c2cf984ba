"""The Winograd kernel: convolutions by minimal filtering, everything between image and pixels in scratch memory.

The source says in which order tiles and panels are visited; the arithmetic is in the intrinsics that it calls: to the
points (`graphc.codegen.cpu.filtering`), products there (the contraction's micro-kernel), and back.
"""

from __future__ import annotations

from math import prod

from graphc.codegen.cpu.templates.contraction import sharers_argument
from graphc.codegen.cpu.templates.epilogue import Argument, Epilogue, argument_block, declarations, imports, indent
from graphc.ir.dims import ceil_div
from graphc.kernels.winograd import ADDRESSES, NUMBERS, WinogradVariant

__all__ = ["winograd_arguments", "winograd_source"]


def winograd_arguments(variant: WinogradVariant, epilogue: Epilogue) -> tuple[Argument, ...]:
    """The slots of the argument block, as `argument_block` orders them."""
    return argument_block(dict.fromkeys(ADDRESSES, variant.product.dtype), NUMBERS, epilogue.arguments)


_SOURCE = '''\
"""Convolution {kernel[0]}x{kernel[1]} by minimal filtering: {points} products for {pixels} pixels{pooled}, {rows} tiles x {columns} filters at a time."""

from graphc.codegen.cpu import vector
from graphc.codegen.cpu.filtering import from_points, to_points
from graphc.codegen.cpu.microkernel import contract
from graphc.codegen.cpu.vector import offset
{imports}

to_points = to_points({tile}, {kernel}, {stride}, {lanes}, "{dtype}")
contract = contract({rows}, {vectors}, {lanes}, "rows", {inner}, "{dtype}"{sharers})
load, store = vector.loader({lanes}), vector.storer({lanes})
{definitions}from_points = from_points({tile}, {kernel}, {stride}, {pool}, {lanes}, "{dtype}"{finish})
as_pointer = vector.pointer("{dtype}")


def {name}(block, first, last, scratch):
{declarations}
    lanes = {lanes}
    patches = as_pointer(scratch)
    sums = offset(patches, {points} * patch_point)
    pixels = offset(sums, {points} * sum_point)
    image, deep = height * width * {lanes}, blocks * {lanes}
    for task in range(first, last):
        row_task, above = task % row_tasks, task // row_tasks
        column_task, g = above % column_tasks, above // column_tasks
        first_tile = row_task * tiles_per_task
        count = min(tiles_per_task, tiles - first_tile)
        for t in range(count):
            down, along = (first_tile + t) // tiles_wide, (first_tile + t) % tiles_wide
            b, down = down // tiles_high, down % tiles_high
            x_here = offset(x, b * x_batch + g * x_group)
            y0, x0 = down * {steps[0]} - top, along * {steps[1]} - left
            for k in range(blocks):
                to_points(
                    offset(patches, t * patch_row + k * {lanes}), patch_point, offset(x_here, k * image), zeros,
                    y0, x0, height, width,
                )
        for panel in range(column_task * panels_per_task, min(panels, (column_task + 1) * panels_per_task)):
            w_panel = offset(w, g * w_group + panel * panel_stride)
            for s in range({points}):
                w_point = offset(w_panel, s * deep * {columns})
                for r in range((count + {rows} - 1) // {rows}):
                    # The first row tiles fetch the next point's weights, each other lines of it.
                    ahead = deep * {columns} + r * {fetched} if r < {turns} else 0
                    contract(
                        offset(sums, s * sum_point + r * {tile_size}), 1,
                        offset(patches, s * patch_point + r * {rows} * patch_row), w_point, ahead,
                        min({rows}, count - r * {rows}), blocks, {inner}, 0, patch_row, 1,
                    )
            for t in range(count):
                down, along = (first_tile + t) // tiles_wide, (first_tile + t) % tiles_wide
                b, down = down // tiles_high, down % tiles_high
                i0, j0 = down * {results[0]}, along * {results[1]}
                for v in range(min({vectors}, out_blocks - panel * {vectors})):
                    q = panel * {vectors} + v
                    c = g * out_blocks + q
{which}                    from_points(pixels, offset(sums, t * {columns} + v * {lanes}), sum_point, out_width{given})
                    for i in range(min({results[0]}, out_height - i0){kept}):
                        for j in range(min({results[1]}, out_width - j0)):
                            m = (i0 + i) * out_width + j0 + j
                            acc = load(pixels, (i * {results[1]} + j) * {lanes}, {lanes})
{epilogue}
'''


def winograd_source(variant: WinogradVariant, epilogue: Epilogue, name: str = "winograd") -> str:
    """The module text of the kernel `name(block, first, last, scratch)` for a variant and an epilogue.

    Tasks are groups x column tasks x row tasks; `scratch` needs `WinogradPlan.scratch_bytes`, 64-byte aligned.
    """
    arguments, product = winograd_arguments(variant, epilogue), variant.product
    high, wide = variant.results
    whole = f"i0 + {high} <= out_height and j0 + {wide} <= out_width"
    registers = epilogue.in_registers(whole, m="i0 * out_width + j0")
    fetched = product.fetches * product.cache_line
    return _SOURCE.format(
        name=name,
        tile=variant.tile, kernel=variant.kernel, points=variant.points, pixels=prod(variant.tile),
        stride=variant.stride, steps=tuple(m * s for m, s in zip(variant.tile, variant.stride, strict=True)),
        pool=variant.pool, results=variant.results, pooled=" ({}x{} pooled)".format(*variant.pool) if prod(variant.pool) > 1 else "",
        rows=product.rows, vectors=product.vectors, columns=product.columns, lanes=product.lanes, inner=product.inner,
        dtype=product.dtype, tile_size=product.rows * product.columns,
        sharers=sharers_argument(product), fetched=fetched, turns=ceil_div(product.unroll * product.columns, fetched),
        imports="\n".join(imports(arguments, epilogue)),
        declarations=indent(list(declarations(arguments)), 1),
        epilogue=indent(epilogue.calls(), 7), **registers,
    )  # fmt: skip
