"""x0 float32, x1 float32, out0 float32; blocks of 256 threads."""

from graphc.codegen.cuda.primitives import cuda, float32


def map_021cf5af3979(x0, x1, out0, p0, p1, p2, p3):
    for point in range(cuda.grid(1), p0 * p1 * 8, cuda.gridsize(1)):
        i2 = point % 8
        rest2 = point // 8
        i1 = rest2 % p1
        rest1 = rest2 // p1
        i0 = rest1
        v0 = x0[i0 * p2 + i1 * 8 + i2] + x1[i0 * 8 + i2]
        out0[i0 * p2 + i1 * 8 + i2] = v0 if (v0 > float32(0.0)) | (v0 != v0) else float32(0.0)
