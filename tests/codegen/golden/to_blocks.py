"""map: x0 float32, out0 float32."""

from graphc.codegen.cpu.intrinsics import operand, transposer

transpose = transposer(8)


def map_468ba46af608(block, first, last, scratch):
    x0 = operand(block, 0, "float32", "x0", "out0")
    out0 = operand(block, 1, "float32", "out0", "x0")
    p0 = block[2]
    p1 = block[3]
    p2 = block[4]
    p3 = block[5]
    p4 = block[6]
    chunk = block[7]
    first_step, last_step = first * chunk, min(last * chunk, p0)
    for i0 in range(first_step, last_step):
        a0 = i0 * p2
        a1 = i0 * p3
        for t1 in range(0, p1, 64):
            end1 = min(t1 + 64, p1)
            for t2 in range(0, 8, 8):
                end2 = min(t2 + 8, 8)
                i1, i2 = t1, t2
                while i1 + 8 <= end1 and i2 + 8 <= end2:
                    transpose(out0, a0 + i1 * 8 + i2, 8, x0, a1 + i1 + i2 * p4, p4)
                    i1 += 8
                for i1 in range(i1, end1):
                    a2 = a1 + i1
                    a3 = a0 + i1 * 8
                    for i2 in range(t2, end2):
                        out0[a3 + i2] = x0[a2 + i2 * p4]
