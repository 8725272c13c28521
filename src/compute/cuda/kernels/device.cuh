// What the kernels ask of a GPU beyond C++: all inline assembly is here. emulation.h means the same on a CPU.
//
// Asynchronous copies belong to groups, which a thread closes with `commit`; after `arrived<N>` all but its
// latest N groups have arrived, for this thread: others see them behind a barrier. A copy that is not valid
// writes zeros and reads nothing.

// A kernel takes one structure; `threads` a block.
#define KERNEL(NAME, ARGUMENTS, THREADS) \
    extern "C" __global__ void __launch_bounds__(THREADS) NAME(const __grid_constant__ ARGUMENTS p)
// A kernel made of a template, of which BLOCKS blocks shall fit on a multiprocessor.
#define INSTANCE(NAME, ARGUMENTS, THREADS, BLOCKS, ...) \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) NAME(const __grid_constant__ ARGUMENTS p) { __VA_ARGS__(p); }
#define DYNAMIC_SHARED(NAME) extern __shared__ __align__(16) float NAME[]

__device__ __forceinline__ void copy16(void* shared, const void* global, bool valid) {
    unsigned at = (unsigned)__cvta_generic_to_shared(shared);
    int size = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(at), "l"(global), "r"(size));
}
__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;\n"); }
template <int N> __device__ __forceinline__ void arrived() { asm volatile("cp.async.wait_group %0;\n" ::"n"(N)); }

// To the nearest number of 10 bits of mantissa, ties away from zero.
__device__ __forceinline__ unsigned tf32(float x) {
    unsigned rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(x));
    return rounded;
}
// Two numbers rounded to bf16, ties to even.
__device__ __forceinline__ unsigned bf16x2(float low, float high) {
    unsigned both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}
// d[i][j] += a[i] b[j], of MT times 16 rows and NT times 8 columns of a warp; 8 deep, or 16.
template <int MT, int NT>
__device__ __forceinline__ void mma_tf32(float (&d)[MT][NT][4], const unsigned (&a)[MT][4], const unsigned (&b)[NT][2]) {
#pragma unroll
    for (int i = 0; i < MT; i++)
#pragma unroll
        for (int j = 0; j < NT; j++)
            asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                         : "+f"(d[i][j][0]), "+f"(d[i][j][1]), "+f"(d[i][j][2]), "+f"(d[i][j][3])
                         : "r"(a[i][0]), "r"(a[i][1]), "r"(a[i][2]), "r"(a[i][3]), "r"(b[j][0]), "r"(b[j][1]));
}
template <int MT, int NT>
__device__ __forceinline__ void mma_bf16(float (&d)[MT][NT][4], const unsigned (&a)[MT][4], const unsigned (&b)[NT][2]) {
#pragma unroll
    for (int i = 0; i < MT; i++)
#pragma unroll
        for (int j = 0; j < NT; j++)
            asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                         : "+f"(d[i][j][0]), "+f"(d[i][j][1]), "+f"(d[i][j][2]), "+f"(d[i][j][3])
                         : "r"(a[i][0]), "r"(a[i][1]), "r"(a[i][2]), "r"(a[i][3]), "r"(b[j][0]), "r"(b[j][1]));
}

// Memory that is used once: it shall not push out what is used again.
__device__ __forceinline__ float4 load_once(const float* at) { return __ldcs((const float4*)at); }
__device__ __forceinline__ void store_once(float* at, float4 x) { __stcs((float4*)at, x); }

// Quotient to two units in the last place, for divisors from 2^-126 to 2^126.
__device__ __forceinline__ float divide(float x, float y) { return __fdividef(x, y); }

// The value of the lane whose number differs in the bits of `mask`.
template <class T> __device__ __forceinline__ T other_lane(T x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
