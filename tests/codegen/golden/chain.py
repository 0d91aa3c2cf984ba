"""map: x0 float32, x1 float32, out0 float32."""

from graphc.codegen.cpu.intrinsics import absolute, exp, float32, maximum, operand


def map_acc014a72ebe(block, first, last, scratch):
    x0 = operand(block, 0, "float32", "x0", "out0")
    x1 = operand(block, 1, "float32", "x1", "out0")
    out0 = operand(block, 2, "float32", "out0", "x0 x1")
    p0 = block[3]
    chunk = block[4]
    first_step, last_step = first * chunk, min(last * chunk, p0)
    for i0 in range(first_step, last_step):
        v0 = x1[i0]
        v1 = maximum(x0[i0] + v0, float32(0.0)) * float32(0.5) - exp(-absolute(v0))
        out0[i0] = v1
