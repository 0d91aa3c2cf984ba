"""add, add, map: x0 float32, x1 float32, x2 float32, out0 float32."""

from graphc.codegen.cpu.intrinsics import float32, operand, rsqrt


def row_0f437fb56aaf(block, first, last, scratch):
    x0 = operand(block, 0, "float32", "x0", "out0")
    x1 = operand(block, 1, "float32", "x1", "out0")
    x2 = operand(block, 2, "float32", "x2", "out0")
    out0 = operand(block, 3, "float32", "out0", "x0 x1 x2")
    p0 = block[4]
    p1 = block[5]
    p2 = block[6]
    chunk = block[7]
    first_step, last_step = first * chunk, min(last * chunk, p0)
    for i0 in range(first_step, last_step):
        r0 = float32(0.0)
        a0 = i0 * p2
        for i1 in range(p1):
            r0 = r0 + x0[a0 + i1]
        r1 = float32(0.0)
        v1 = r0 / float32(50.0)
        for i1 in range(p1):
            v2 = x0[a0 + i1] - v1
            r1 = r1 + v2 * v2
        v3 = rsqrt(r1 / float32(50.0) + float32(9.999999747378752e-06))
        for i1 in range(p1):
            out0[a0 + i1] = (x0[a0 + i1] - v1) * v3 * x1[i1] + x2[i1]
