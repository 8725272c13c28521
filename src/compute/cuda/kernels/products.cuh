// Products on tensor cores, shared by `apply` and `update`.
//
// mma does not care which physical k or column a logical one is, as long as both operands agree. They are
// dealt to threads such that shared memory is read 8 and 16 bytes at a time without conflicts. A warp has 48
// columns: thread g = lane / 4 holds columns 6 g to 6 g + 5 of one operand, so that thread t = lane % 4 ends
// up with 12 consecutive columns, 12 t to 12 t + 11, of the result.

// F32: three products in tf32 for each, of what tf32 keeps of the factors and of what it leaves: hi hi + hi
// lo + lo hi.
enum Mode { F32, TF32, BF16 };

#define DEPTH 16   // of K that a chunk holds
#define COLUMNS 6  // columns of 8 that a warp has

// One mma's depth of both operands: 8 of k, or 16 for bf16. Of 8, thread t holds k = 2 t and 2 t + 1.
template <Mode MODE, int MT> struct Operands {
    float a[MT][4], b[COLUMNS][2];

    __device__ __forceinline__ void products(float (&sums)[MT][COLUMNS][4]) {
        unsigned ah[MT][4], bh[COLUMNS][2];
#pragma unroll
        for (int i = 0; i < MT; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) ah[i][j] = tf32(a[i][j]);
#pragma unroll
        for (int i = 0; i < COLUMNS; i++)
#pragma unroll
            for (int j = 0; j < 2; j++) bh[i][j] = tf32(b[i][j]);
        if constexpr (MODE == F32) {
            unsigned al[MT][4], bl[COLUMNS][2];
#pragma unroll
            for (int i = 0; i < MT; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) al[i][j] = tf32(a[i][j] - __uint_as_float(ah[i][j]));
#pragma unroll
            for (int i = 0; i < COLUMNS; i++)
#pragma unroll
                for (int j = 0; j < 2; j++) bl[i][j] = tf32(b[i][j] - __uint_as_float(bh[i][j]));
            mma_tf32(sums, al, bh);
            mma_tf32(sums, ah, bl);
        }
        mma_tf32(sums, ah, bh);
    }
};

// A chunk of K, in steps of 8 whose operands `read(k, operands)` brings.
template <Mode MODE, int MT, class Read>
__device__ __forceinline__ void chunk_products(float (&sums)[MT][COLUMNS][4], Read read) {
    Operands<MODE, MT> o;
    if constexpr (MODE == BF16) {
        unsigned a[MT][4], b[COLUMNS][2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            read(8 * half, o);
#pragma unroll
            for (int i = 0; i < MT; i++) {
                a[i][2 * half] = bf16x2(o.a[i][0], o.a[i][2]);
                a[i][2 * half + 1] = bf16x2(o.a[i][1], o.a[i][3]);
            }
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) b[j][half] = bf16x2(o.b[j][0], o.b[j][1]);
        }
        mma_bf16(sums, a, b);
    } else {
#pragma unroll
        for (int k = 0; k < DEPTH; k += 8) {
            read(k, o);
            o.products(sums);
        }
    }
}

// Tensor cores cut sums off instead of rounding them. Where float32 is wanted, chains are short: every 64 of
// K they are added up in registers.
template <Mode MODE, int MT> struct Sums {
    float chain[MT][COLUMNS][4] = {}, whole[MODE == F32 ? MT : 1][COLUMNS][4] = {};

    // After chunk number `chunk` of those that are added up here.
    __device__ __forceinline__ void after(int chunk) {
        if constexpr (MODE == F32) {
            if (chunk % 4 == 3) add();
        }
    }
    // What was summed comes to lie in `chain`.
    __device__ __forceinline__ void end() {
        if constexpr (MODE == F32) {
            add();
#pragma unroll
            for (int i = 0; i < MT; i++)
#pragma unroll
                for (int j = 0; j < COLUMNS; j++)
#pragma unroll
                    for (int e = 0; e < 4; e++) chain[i][j][e] = whole[i][j][e];
        }
    }
    __device__ __forceinline__ void add() {
#pragma unroll
        for (int i = 0; i < MT; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    whole[MODE == F32 ? i : 0][j][e] += chain[i][j][e];
                    chain[i][j][e] = 0;
                }
    }
};

// What a multiprocessor can do of these products: from registers, with nothing to wait for. A product is
// counted once, of however many it is made.
template <Mode MODE> __device__ __forceinline__ void peak(const Peak& p) {
    Operands<MODE, 2> o;
    Sums<MODE, 2> sums;
    float x = threadIdx.x * 0.001f;
    for (int i = 0; i < 2; i++)
        for (int e = 0; e < 4; e++) o.a[i][e] = x + e;
    for (int j = 0; j < COLUMNS; j++)
        for (int e = 0; e < 2; e++) o.b[j][e] = x - j;
    for (int time = 0; time < p.times; time++)
        chunk_products<MODE, 2>(sums.chain, [&](int k, Operands<MODE, 2>& to) { to = o; });
    sums.end();
    float all = 0;
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < COLUMNS; j++)
            for (int e = 0; e < 4; e++) all += sums.chain[i][j][e];
    p.out[blockIdx.x * blockDim.x + threadIdx.x] = all;
}
