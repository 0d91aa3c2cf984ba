"""Lowering of `attention`: operands whose rows lie anywhere, a result that may lie in any order of its axes."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.graph import Node
from graphc.kernels.attention import NUMBERS, AttentionProblem, AttentionVariant, MaskUse, schedule
from graphc.kernels.build import ProgramBuilder, lowering
from graphc.kernels.ir import Launch
from graphc.kernels.lower_contraction import names_of
from graphc.kernels.machine import host_machine
from graphc.kernels.program import Placed

__all__ = ["AttentionKernel"]


@dataclass(frozen=True)
class AttentionKernel:
    """An attention kernel: all it is compiled for is its variant."""

    variant: AttentionVariant

    @property
    def family(self) -> str:
        return "attention"


@lowering("attention")
def lower_attention(builder: ProgramBuilder, node: Node, operands: list[Placed], results: list[Placed]) -> None:
    """Emit the launch of an attention, and copies of operands whose rows are not consecutive elements."""
    q, k, v, *masks = operands
    (y,) = results
    q, v, *masks = (_rows(builder, p) for p in (q, v, *masks))
    heads_last = node.attrs.get("heads_last", False)
    target = y if y.strides[-1] == 1 or y.shape[-1] == 1 else builder.temporary(y.shape, y.dtype)
    (batch, heads, m, d), (n, e) = _four(q.shape), v.shape[-2:]
    problem = AttentionProblem(batch, heads, m, n, d, e, q.dtype.name)
    use: MaskUse = "none" if not masks else "fill" if node.attrs.get("fill", False) else "add"
    plan = schedule(problem, host_machine(), builder.threads, node.attrs["scale"], use, node.attrs.get("no_nan", False))
    mask = masks[0] if masks else q
    y_batch, y_head, y_row, _ = _strides(target)
    if heads_last:
        y_head, y_row = y_row, y_head
    slots = {
        "heads": heads, "m": m, "n": n, "d": d, "e": e,
        **dict(zip(("q_batch", "q_head", "q_row"), _strides(q), strict=False)),
        **dict(zip(("k_batch", "k_head", "k_row", "k_step"), _strides(k), strict=True)),
        **dict(zip(("v_batch", "v_head", "v_row"), _strides(v), strict=False)),
        **dict(zip(("mask_batch", "mask_head", "mask_row"), _strides(mask), strict=False)),
        "y_batch": y_batch, "y_head": y_head, "y_row": y_row,
        "tiles_per_task": plan.tiles_per_task, "row_tasks": plan.row_tasks,
        "packed_size": plan.packed_size, "scores_size": plan.scores_size,
    }  # fmt: skip
    builder.emit(
        Launch(
            AttentionKernel(plan.variant),
            tuple(p.operand for p in (q, k, v, mask, target)),
            1,
            tuple(slots[name] for name in NUMBERS),
            plan.tasks,
            plan.scratch_size * q.dtype.itemsize,
            names_of(node),
            problem.flops,
        )
    )
    if target is not y:
        builder.copy(target, y)


def _four(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (1,) * (4 - len(shape)) + shape


def _strides(p: Placed) -> tuple[int, ...]:
    return (0,) * (4 - len(p.shape)) + p.strides


def _rows(builder: ProgramBuilder, p: Placed) -> Placed:
    """The operand itself when the elements of its rows are neighbours, else a dense copy."""
    return p if p.strides[-1] == 1 or p.shape[-1] == 1 else builder.dense(p)
