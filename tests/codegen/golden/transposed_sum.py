"""map: x0 float32, x1 float32, out0 float32."""

from graphc.codegen.cpu.intrinsics import operand


def map_90e57acb7d43(block, first, last, scratch):
    x0 = operand(block, 0, "float32", "x0", "out0")
    x1 = operand(block, 1, "float32", "x1", "out0")
    out0 = operand(block, 2, "float32", "out0", "x0 x1")
    p0 = block[3]
    p1 = block[4]
    p2 = block[5]
    p3 = block[6]
    chunk = block[7]
    first_step, last_step = first * chunk, min(last * chunk, p0)
    for t0 in range(first_step, last_step, 16):
        end0 = min(t0 + 16, last_step)
        for t1 in range(0, p1, 16):
            end1 = min(t1 + 16, p1)
            for i0 in range(t0, end0):
                a0 = i0 * p2
                for i1 in range(t1, end1):
                    out0[a0 + i1] = x0[i0 + i1 * p3] + x1[a0 + i1]
