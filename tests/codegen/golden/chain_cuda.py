"""x0 float32, x1 float32, out0 float32; blocks of 256 threads."""

from graphc.codegen.cuda.primitives import absolute_float32, bits_float32, bits_int32, cuda, float32, int32


def map_06435836e72e(x0, x1, out0, p0, p1):
    for point in range(cuda.grid(1), p0, cuda.gridsize(1)):
        i0 = point
        v0 = x1[i0]
        v1 = x0[i0] + v0
        v2 = (v1 if (v1 > float32(0.0)) | (v1 != v1) else float32(0.0)) * float32(0.5)
        v3 = -absolute_float32(v0)
        v4 = float32(89.0) if v3 > float32(89.0) else v3
        v5 = float32(-104.0) if v4 < float32(-104.0) else v4
        v6 = v5 * float32(1.4426950408889634) + float32(12582912.0)
        v7 = v6 - float32(12582912.0)
        v8 = v5 - v7 * float32(0.693359375) - v7 * float32(-0.00021219444)
        v9 = float32(0.0013814314734190702) * v8 + float32(0.008368851616978645)
        v10 = (v9 * v8 + float32(0.041668400168418884)) * v8 + float32(0.1666651964187622)
        v11 = (v10 * v8 + float32(0.4999999403953552)) * (v8 * v8) + v8 + float32(1.0)
        v12 = int32(bits_int32(v6) - int32(1262485504))
        v13 = int32(v12 >> int32(1))
        v14 = v11 * bits_float32(int32(int32(v13 + int32(127)) << int32(23)))
        v15 = bits_float32(int32(int32(int32(v12 - v13) + int32(127)) << int32(23)))
        out0[i0] = v2 - v14 * v15
