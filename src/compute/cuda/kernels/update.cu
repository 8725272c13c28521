// dw[block] = sum over samples of pre[source] (x) post[destination], and the optimiser on that tile at once:
// the gradient is stored only where ranks exchange it.
//
// A group is a position whose blocks no other has. by_source: it is the map's source, whose channels are the
// rows, and the columns run over the channels of all its links' destinations (an inverse). Else it is the
// destination, and the rows run over the channels of its links' sources. SHARED: a group is a block, over
// whose links the sum runs too, in slices; of one without links the gradient is zero.
//
// Blocks follow each other as weights do, so that a part of the weights, which a rank owns, is made by few
// more blocks than it needs. Those that have none of it end at once.
template <Mode MODE, bool SHARED, int WM, int WN, int STAGES, int BATCH> __device__ __forceinline__ void update(const Update& p) {
    constexpr int THREADS = WM * WN * 32, MT = 2, BM = 16 * MT * WM, BN = 8 * COLUMNS * WN, LDA = BM + 4, LDB = BN + 4;
    constexpr int A_SIZE = DEPTH * LDA, B_SIZE = DEPTH * LDB;
    DYNAMIC_SHARED(shared);
    // Of four channels, for sample 0, in the factors (-1 outside); and of four rows or columns in the weights.
    __shared__ long long from_pre[BM / 4], from_post[BN / 4], row_at[BM / 4], column_at[BN / 4];
    __shared__ int row_end[BM / 4], any;
    const Map& map = p.map;
    const Factors& factors = p.factors;
    bool by_source = !SHARED && p.by_source;
    unsigned block = p.skipped + blockIdx.x;
    int tiles = p.row_tiles * p.column_tiles, unit = block / tiles, tile = block % tiles, group = unit / p.slices;
    int r0 = (by_source ? tile % p.row_tiles : tile / p.column_tiles) * BM;
    int n0 = (by_source ? tile / p.row_tiles : tile % p.column_tiles) * BN;
    int start = map.starts[group], links = map.starts[group + 1] - start;
    int rows4 = in_fours(map.rows), R = by_source ? map.rows : (SHARED ? 1 : links) * rows4, N = (by_source ? links : 1) * map.columns;
    if (r0 >= R || n0 >= N) return;
    long long pre_place = map.place ? map.place : (long long)factors.per_rank * map.pitch;
    long long post_place = (long long)factors.per_rank * map.columns;
    for (int i = threadIdx.x; i < BM / 4 + BN / 4; i += THREADS) {
        if (i < BM / 4) {
            int r = r0 + 4 * i, l = by_source || r >= R ? 0 : r / rows4, row = r - l * rows4;
            Link link = SHARED ? Link{0, group} : map.links[start + l];
            int source = by_source ? group : link.position;
            from_pre[i] = r >= R || source < 0 ? -1 : source * pre_place + row;
            row_end[i] = r >= R ? 0 : map.rows - row;
            row_at[i] = by_source ? (long long)r * map.columns : ((long long)link.block * map.rows + row) * map.columns;
        } else {
            int j = i - BM / 4, n = n0 + 4 * j, l = !by_source || n >= N ? 0 : n / map.columns, column = n - l * map.columns;
            Link link = SHARED ? Link{0, 0} : map.links[start + l];
            int destination = by_source || SHARED ? link.position : group;
            from_post[j] = n >= N || destination < 0 ? -1 : destination * post_place + column;
            column_at[j] = by_source ? (long long)link.block * map.rows * map.columns + column : n;
        }
    }
    if (threadIdx.x == 0) any = 0;
    __syncthreads();
    constexpr int QUADS = BM * (BN / 4);
    auto place = [&](int i) {
        int r = i / (BN / 4), c = i % (BN / 4);
        if (r % 4 >= row_end[r / 4] || n0 + 4 * c >= N) return -1LL;
        long long at = row_at[r / 4] + (long long)(r % 4) * map.columns + column_at[c];
        return !p.end || (at >= p.begin && at < p.end) ? at : -1LL;
    };
    if (p.end) {
        for (int i = threadIdx.x; i < QUADS; i += THREADS)
            if (place(i) >= 0) any = 1;
        __syncthreads();
        if (!any) return;
    }
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    int wm = warp / WN * 16 * MT, wn = warp % WN * 8 * COLUMNS;
    int parts = (factors.samples + DEPTH - 1) / DEPTH, slice = unit % p.slices;
    int from = SHARED ? (int)((long long)links * slice / p.slices) * parts : 0;
    int to = SHARED ? (int)((long long)links * (slice + 1) / p.slices) * parts : parts;
    int link = SHARED ? from / parts : 0, b0 = 0, stage = 0;
    auto load = [&]() {
        float* a = shared + stage * (A_SIZE + B_SIZE);
        float* b = a + A_SIZE;
        long long pre_link = 0, post_link = 0;
        if constexpr (SHARED) {
            Link l = map.links[start + link];
            pre_link = l.position * pre_place, post_link = l.block * post_place;
        }
#pragma unroll
        for (int r = 0; r < (DEPTH * (BM / 4) + THREADS - 1) / THREADS; r++) {
            int i = threadIdx.x + r * THREADS, s = i / (BM / 4), m = i % (BM / 4);
            if ((DEPTH * (BM / 4)) % THREADS && s >= DEPTH) break;
            long long offset = from_pre[m];
            bool valid = offset >= 0 && b0 + s < factors.samples;
            if (valid) offset += pre_link + sample_at(factors, b0 + s, factors.pre_rank, map.pitch);
            copy16(a + s * LDA + 4 * m, factors.pre + (valid ? offset : 0), valid);
        }
#pragma unroll
        for (int r = 0; r < (DEPTH * (BN / 4) + THREADS - 1) / THREADS; r++) {
            int i = threadIdx.x + r * THREADS, s = i / (BN / 4), n = i % (BN / 4);
            if ((DEPTH * (BN / 4)) % THREADS && s >= DEPTH) break;
            long long offset = from_post[n];
            bool valid = offset >= 0 && b0 + s < factors.samples;
            if (valid) offset += post_link + sample_at(factors, b0 + s, factors.post_rank, map.columns);
            copy16(b + s * LDB + 4 * n, factors.post + (valid ? offset : 0), valid);
        }
        b0 += DEPTH;
        if (SHARED && b0 >= factors.samples) {
            b0 = 0;
            link++;
        }
        stage = stage + 1 == STAGES ? 0 : stage + 1;
    };
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
        const float* a = shared + reading * (A_SIZE + B_SIZE) + wm + 4 * g;
        const float* b = shared + reading * (A_SIZE + B_SIZE) + A_SIZE + wn + COLUMNS * g;
        reading = reading + 1 == STAGES ? 0 : reading + 1;
        chunk_products<MODE, MT>(sums.chain, [&](int k, Operands<MODE, MT>& o) {
            float4 even = *(const float4*)(a + (k + 2 * t) * LDA), odd = *(const float4*)(a + (k + 2 * t + 1) * LDA);
            o.a[0][0] = even.x, o.a[0][1] = even.y, o.a[1][0] = even.z, o.a[1][1] = even.w;
            o.a[0][2] = odd.x, o.a[0][3] = odd.y, o.a[1][2] = odd.z, o.a[1][3] = odd.w;
            const float* row = b + (k + 2 * t) * LDB;
#pragma unroll
            for (int j = 0; j < COLUMNS; j += 2) {
                float2 e = *(const float2*)(row + j), f = *(const float2*)(row + LDB + j);
                o.b[j][0] = e.x, o.b[j + 1][0] = e.y, o.b[j][1] = f.x, o.b[j + 1][1] = f.y;
            }
        });
        sums.after(chunk - from);
    }
    sums.end();
    // The gradient's tile goes through shared memory, so that the optimiser reads and writes whole lines.
    __syncthreads();
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
        for (int c = 0; c < 12; c += 4) {
            float v[4];
#pragma unroll
            for (int e = 0; e < 4; e++) v[e] = sums.chain[r / 2][(c + e) % COLUMNS][2 * (r % 2) + (c + e) / COLUMNS];
            *(float4*)(shared + (wm + 4 * g + r) * LDB + wn + 12 * t + c) = make_float4(v[0], v[1], v[2], v[3]);
        }
    __syncthreads();
    auto gradient = [&](int i) { return *(const float4*)(shared + i / (BN / 4) * LDB + i % (BN / 4) * 4); };
    static_assert(QUADS % (THREADS * BATCH) == 0, "a whole number of batches");
    if (p.partial || p.gradients) {
        float* out = p.partial ? p.partial + slice * ((long long)p.groups * map.rows * map.columns) : p.gradients;
        float scale = p.partial ? 1 : p.optimizer->scale;
        for (int i = threadIdx.x; i < QUADS; i += THREADS) {
            long long at = place(i);
            if (at >= 0) *(float4*)(out + at) = times(gradient(i), scale);
        }
        return;
    }
    Optimizer optimizer = *p.optimizer;
#pragma unroll 1
    for (int base = threadIdx.x; base < QUADS; base += THREADS * BATCH) {
        float4 W[BATCH], M[BATCH], V[BATCH];
        long long at[BATCH];
#pragma unroll
        for (int u = 0; u < BATCH; u++) {
            at[u] = place(base + u * THREADS);
            if (at[u] < 0) continue;
            W[u] = load_once(p.weights + at[u]);
            M[u] = {};
            if (p.first) M[u] = load_once(p.first + at[u]);
            if (optimizer.method == 0) V[u] = load_once(p.second + at[u]);
        }
#pragma unroll
        for (int u = 0; u < BATCH; u++) {
            if (at[u] < 0) continue;
            step(optimizer, times(gradient(base + u * THREADS), optimizer.scale), W[u], M[u], V[u]);
            store_once(p.weights + at[u], W[u]);
            if (p.first) store_once(p.first + at[u], M[u]);
            if (optimizer.method == 0) store_once(p.second + at[u], V[u]);
        }
    }
}
