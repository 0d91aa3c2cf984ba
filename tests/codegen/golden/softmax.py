"""maximum, add, map: x0 float32, out0 float32."""

from graphc.codegen.cpu.intrinsics import exp, float32, inf, maximum, operand


def row_fe09b1e25029(block, first, last, scratch):
    x0 = operand(block, 0, "float32", "x0", "out0")
    out0 = operand(block, 1, "float32", "out0", "x0")
    p0 = block[2]
    p1 = block[3]
    p2 = block[4]
    chunk = block[5]
    first_step, last_step = first * chunk, min(last * chunk, p0)
    for i0 in range(first_step, last_step):
        r0 = float32(-inf)
        a0 = i0 * p2
        for i1 in range(p1):
            r0 = maximum(r0, x0[a0 + i1])
        r1 = float32(0.0)
        for i1 in range(p1):
            v1 = exp(x0[a0 + i1] - r0)
            out0[a0 + i1] = v1
            r1 = r1 + v1
        for i1 in range(p1):
            out0[a0 + i1] = out0[a0 + i1] / r1
