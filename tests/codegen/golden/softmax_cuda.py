"""x0 float32, out0 float32; blocks of 256 threads."""

from graphc.codegen.cuda.primitives import bits_float32, bits_int32, cuda, float32, inf, int32


def row_e6dfe33e9855(x0, out0, p0, p1, p2, p3):
    shared0 = cuda.shared.array(256, float32)
    shared1 = cuda.shared.array(256, float32)
    thread = cuda.threadIdx.x
    for point in range(cuda.blockIdx.x, p0, cuda.gridDim.x):
        i0 = point
        r0 = float32(-inf)
        a0 = i0 * p2
        for element in range(thread, p1, 256):
            i1 = element
            v1 = x0[a0 + i1]
            r0 = r0 if (r0 > v1) | (r0 != r0) else v1
        shared0[thread] = r0
        cuda.syncthreads()
        step = 128
        while step > 0:
            if thread < step:
                v2 = (shared0[thread] > shared0[thread + step]) | (shared0[thread] != shared0[thread])
                shared0[thread] = shared0[thread] if v2 else shared0[thread + step]
            cuda.syncthreads()
            step //= 2
        r0 = shared0[0]
        cuda.syncthreads()
        r1 = float32(0.0)
        for element in range(thread, p1, 256):
            i1 = element
            v3 = x0[a0 + i1] - r0
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
            v16 = v14 * v15
            out0[a0 + i1] = v16
            r1 = r1 + v16
        shared1[thread] = r1
        cuda.syncthreads()
        step = 128
        while step > 0:
            if thread < step:
                shared1[thread] = shared1[thread] + shared1[thread + step]
            cuda.syncthreads()
            step //= 2
        r1 = shared1[0]
        cuda.syncthreads()
        for element in range(thread, p1, 256):
            i1 = element
            out0[a0 + i1] = out0[a0 + i1] / r1
