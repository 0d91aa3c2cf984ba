"""map: x0 float32, x1 float32, out0 float32."""

from graphc.codegen.cpu.intrinsics import float32, loader, maximum, operand, storer

load, store = loader(8), storer(8)


def map_aaa35b45b5b4(block, first, last, scratch):
    x0 = operand(block, 0, "float32", "x0", "out0")
    x1 = operand(block, 1, "float32", "x1", "out0")
    out0 = operand(block, 2, "float32", "out0", "x0 x1")
    p0 = block[3]
    p1 = block[4]
    p2 = block[5]
    chunk = block[6]
    first_step, last_step = first * chunk, min(last * chunk, p0)
    for i0 in range(first_step, last_step):
        a0 = i0 * p2
        v1 = load(x1, i0 * 8)
        for i1 in range(p1):
            store(out0, a0 + i1 * 8, maximum(load(x0, a0 + i1 * 8) + v1, float32(0.0)))
