// y[q] = f(bias[q] + sum over links (source, block) of q: x[source] . w[block])
//
// What makes it fast: there are no patches; a chunk of K never straddles two links, so the loop has no
// division; and copies of the next chunks are under way while one is multiplied. Up to three activities go
// through a map in one reading of its weights: their samples are rows of one product. A value depends on its
// own sample alone, and its sum has one order whatever tile it falls into.

// TRANSPOSED: groups are the map's sources, and blocks are read as [n][k].
template <Mode MODE, bool TRANSPOSED, int WM, int WN, int MT, int STAGES> __device__ __forceinline__ void apply(const Apply& p) {
    constexpr int THREADS = WM * WN * 32, BM = 16 * MT * WM, BN = 8 * COLUMNS * WN, LDA = DEPTH + 8, LDB = TRANSPOSED ? DEPTH + 8 : BN + 4;
    constexpr int A_SIZE = BM * LDA, B_SIZE = (TRANSPOSED ? BN : DEPTH) * LDB, QUADS = DEPTH / 4, ROWS = BM * QUADS / THREADS;
    static_assert(BM * QUADS % THREADS == 0, "each thread copies as many pieces of x");
    DYNAMIC_SHARED(shared);
    int tiles = p.m_tiles * p.n_tiles, q = blockIdx.x / tiles, tile = blockIdx.x % tiles;
    int m0 = tile % p.m_tiles * BM, n0 = tile / p.m_tiles * BN, rows = p.jobs * p.samples;
    int start = p.map.starts[q], links = p.map.starts[q + 1] - start;
    int deep = TRANSPOSED ? p.map.columns : p.map.rows, wide = in_fours(TRANSPOSED ? p.map.rows : p.map.columns);
    int parts = (deep + DEPTH - 1) / DEPTH, chunks = links * parts;
    int from = (int)((long long)chunks * blockIdx.y / p.slices), to = (int)((long long)chunks * (blockIdx.y + 1) / p.slices);
    long long place = p.map.place ? p.map.place : (long long)p.samples * p.map.pitch;
    // Four floats of k for each of this thread's rows.
    int kk = threadIdx.x % QUADS * 4;
    const float* row_of[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int m = m0 + threadIdx.x / QUADS + r * (THREADS / QUADS), job = m / p.samples;
        row_of[r] = m < rows ? p.job[job].source + (long long)(m - job * p.samples) * p.map.pitch + kk : nullptr;
    }
    int link = from / parts, part = from - link * parts, stage = 0;
    auto load = [&]() {
        float* a = shared + stage * (A_SIZE + B_SIZE);
        float* b = a + A_SIZE;
        Link l = p.map.links[start + link];
        int k0 = part * DEPTH;
        long long offset = l.position * place + k0;
        bool deep_enough = k0 + kk < in_fours(deep);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int m = threadIdx.x / QUADS + r * (THREADS / QUADS);
            copy16(a + m * LDA + kk, row_of[r] + offset, row_of[r] && deep_enough);
        }
        if constexpr (!TRANSPOSED) {
            const float* from_w = p.weights + ((long long)l.block * deep + k0) * wide + n0;
#pragma unroll
            for (int r = 0; r < (DEPTH * (BN / 4) + THREADS - 1) / THREADS; r++) {
                int i = threadIdx.x + r * THREADS, k = i / (BN / 4), n = i % (BN / 4) * 4;
                if ((DEPTH * (BN / 4)) % THREADS && k >= DEPTH) break;
                copy16(b + k * LDB + n, from_w + (long long)k * wide + n, k0 + k < deep && n0 + n < wide);
            }
        } else {
            const float* from_w = p.weights + ((long long)l.block * p.map.rows + n0) * deep + k0;
#pragma unroll
            for (int r = 0; r < (BN * QUADS + THREADS - 1) / THREADS; r++) {
                int i = threadIdx.x + r * THREADS, n = i / QUADS;
                if ((BN * QUADS) % THREADS && n >= BN) break;
                copy16(b + n * LDB + kk, from_w + (long long)n * deep + kk, k0 + kk < deep && n0 + n < p.map.rows);
            }
        }
        if (++part == parts) {
            part = 0;
            link++;
        }
        stage = stage + 1 == STAGES ? 0 : stage + 1;
    };
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    int wm = warp / WN * 16 * MT, wn = warp % WN * 8 * COLUMNS;
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
        if (from + s < to) load();
        commit();
    }
    Sums<MODE, MT> sums;
    int reading = 0;
    for (int chunk = from; chunk < to; chunk++) {
        arrived<STAGES - 2>();
        __syncthreads();
        if (chunk + STAGES - 1 < to) load();
        commit();
        const float* a = shared + reading * (A_SIZE + B_SIZE) + (wm + g) * LDA + 2 * t;
        const float* b = shared + reading * (A_SIZE + B_SIZE) + A_SIZE;
        reading = reading + 1 == STAGES ? 0 : reading + 1;
        chunk_products<MODE, MT>(sums.chain, [&](int k, Operands<MODE, MT>& o) {
#pragma unroll
            for (int i = 0; i < MT; i++) {
                float2 upper = *(const float2*)(a + i * 16 * LDA + k), lower = *(const float2*)(a + (i * 16 + 8) * LDA + k);
                o.a[i][0] = upper.x, o.a[i][1] = lower.x, o.a[i][2] = upper.y, o.a[i][3] = lower.y;
            }
            if constexpr (!TRANSPOSED) {
                const float* row = b + (k + 2 * t) * LDB + wn + g * COLUMNS;
#pragma unroll
                for (int j = 0; j < COLUMNS; j += 2) {
                    float2 even = *(const float2*)(row + j), odd = *(const float2*)(row + LDB + j);
                    o.b[j][0] = even.x, o.b[j + 1][0] = even.y, o.b[j][1] = odd.x, o.b[j + 1][1] = odd.y;
                }
            } else {
#pragma unroll
                for (int j = 0; j < COLUMNS; j++) {
                    float2 both = *(const float2*)(b + (wn + j * 8 + g) * LDB + k + 2 * t);
                    o.b[j][0] = both.x, o.b[j][1] = both.y;
                }
            }
        });
        sums.after(chunk - from);
    }
    sums.end();
#pragma unroll
    for (int i = 0; i < MT; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int m = m0 + wm + i * 16 + g + h * 8, job = m / p.samples;
            if (m >= rows) continue;
            long long row = (long long)q * p.samples + m - job * p.samples, of_slice = (long long)blockIdx.y * p.positions + q;
            float* out = p.slices > 1 ? p.partial + (of_slice * rows + m) * wide : p.job[job].destination + row * wide;
            if constexpr (!TRANSPOSED) {
                int n = n0 + wn + 12 * t;
                float v[12];
#pragma unroll
                for (int j = 0; j < COLUMNS; j++) v[j] = sums.chain[i][j][2 * h], v[COLUMNS + j] = sums.chain[i][j][2 * h + 1];
#pragma unroll
                for (int c = 0; c < 12; c += 4) {
                    if (n + c >= wide) continue;
                    float4 y = make_float4(v[c], v[c + 1], v[c + 2], v[c + 3]);
                    if (p.slices == 1) {
                        if (p.bias) y = plus(y, *(const float4*)(p.bias + (long long)q * p.bias_stride + n + c));
                        y = finished(p, p.job[job], row * wide + n + c, y);
                    }
                    *(float4*)(out + n + c) = y;
                }
            } else {
#pragma unroll
                for (int j = 0; j < COLUMNS; j++) {
                    int n = n0 + wn + j * 8 + 2 * t;
                    if (n >= wide) continue;
                    float2 x = make_float2(sums.chain[i][j][2 * h], sums.chain[i][j][2 * h + 1]);
                    if (p.y && p.slices == 1) {
                        float2 y = *(const float2*)(p.y + row * wide + n), a = {};
                        if (p.argument) a = *(const float2*)(p.argument + row * wide + n);
                        x.x *= slope(y.x, a.x, p.nonlinearity), x.y *= slope(y.y, a.y, p.nonlinearity);
                    }
                    *(float2*)(out + n) = x;
                }
            }
        }
}
