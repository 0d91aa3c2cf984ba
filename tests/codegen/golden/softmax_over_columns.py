"""maximum, add, map: x0 float32, out0 float32."""

from graphc.codegen.cpu.intrinsics import exp, float32, inf, maximum, operand, workspace


def row_91d5a0a117b6(block, first, last, scratch):
    x0 = operand(block, 0, "float32", "x0", "out0 r0 r1")
    out0 = operand(block, 1, "float32", "out0", "x0 r0 r1")
    p0 = block[2]
    p1 = block[3]
    p2 = block[4]
    p3 = block[5]
    p4 = block[6]
    chunk = block[7]
    r0 = workspace(scratch, 0, "float32", "r0", "x0 out0 r1")
    r1 = workspace(scratch, 2048, "float32", "r1", "x0 out0 r0")
    first_step, last_step = first * chunk, min(last * chunk, p0)
    for i0 in range(first_step, last_step):
        a0 = i0 * p3
        for panel in range(0, p1, 256):
            panel_end = min(panel + 256, p1)
            for i1 in range(panel, panel_end):
                r0[i1 - panel] = float32(-inf)
            for i2 in range(p2):
                a1 = i2 * p4
                for i1 in range(panel, panel_end):
                    r0[i1 - panel] = maximum(r0[i1 - panel], x0[a0 + i1 + a1])
            for i1 in range(panel, panel_end):
                r1[i1 - panel] = float32(0.0)
            for i2 in range(p2):
                a2 = i2 * p4
                for i1 in range(panel, panel_end):
                    v3 = exp(x0[a0 + i1 + a2] - r0[i1 - panel])
                    out0[a0 + i1 + a2] = v3
                    r1[i1 - panel] = r1[i1 - panel] + v3
            for i2 in range(p2):
                a4 = i2 * p4
                for i1 in range(panel, panel_end):
                    out0[a0 + i1 + a4] = out0[a0 + i1 + a4] / r1[i1 - panel]
