// The optimiser where the gradient is not made tile by tile: biases, and gradients that were stored.

// What becomes of four gradients at element `at`.
__device__ __forceinline__ void use_gradient(float4 g, long long at, float* weights, float* first, float* second, float* gradients,
                                             const Optimizer& o) {
    if (gradients) {
        *(float4*)(gradients + at) = g;
        return;
    }
    float4 w = load_once(weights + at), m = {}, v = {};
    if (first) m = load_once(first + at);
    if (o.method == 0) v = load_once(second + at);
    step(o, g, w, m, v);
    store_once(weights + at, w);
    if (first) store_once(first + at, m);
    if (o.method == 0) store_once(second + at, v);
}

// A gradient in parts, added up in their order.
KERNEL(optimize, Optimize, 256) {
    long long at = ((long long)blockIdx.x * 256 + threadIdx.x) * 4;
    if (at >= p.count) return;
    float4 sum = load_once(p.sums + at);
    for (int part = 1; part < p.parts; part++) sum = plus(sum, load_once(p.sums + part * p.stride + at));
    Optimizer optimizer = *p.optimizer;
    if (!p.scaled) sum = times(sum, optimizer.scale);
    use_gradient(sum, at, p.weights, p.first, p.second, p.gradients, optimizer);
}

// A bias' gradient is the sum of its errors: over the samples at its position, or at all positions where they
// share it (then in slices). 16 threads have every 16th sample each; their sums are added up in order. A
// block has 64 channels.
KERNEL(bias, Bias, 256) {
    constexpr int QUADS = 16, WALKS = 16;
    __shared__ float4 sums[WALKS][QUADS];
    int tiles = (p.columns / 4 + QUADS - 1) / QUADS, unit = p.skipped + blockIdx.x / tiles;
    int quad = threadIdx.x % QUADS, walk = threadIdx.x / QUADS, n = (blockIdx.x % tiles * QUADS + quad) * 4;
    int begin = p.shared ? (int)((long long)p.positions * unit / p.slices) : unit;
    int end = p.shared ? (int)((long long)p.positions * (unit + 1) / p.slices) : unit + 1;
    long long at = (long long)(p.shared ? 0 : unit) * p.columns + n;
    bool made = n < p.columns && at >= p.begin && at < p.end;
    float4 sum = {};
    if (made) {
        for (int position = begin; position < end; position++) {
            const float* errors = p.factors.post + (long long)position * p.factors.per_rank * p.columns + n;
            for (int s = walk; s < p.factors.samples; s += WALKS)
                sum = plus(sum, *(const float4*)(errors + sample_at(p.factors, s, p.factors.post_rank, p.columns)));
        }
    }
    sums[walk][quad] = sum;
    __syncthreads();
    if (walk != 0 || !made) return;
    for (int other = 1; other < WALKS; other++) sum = plus(sum, sums[other][quad]);
    if (p.partial) {
        *(float4*)(p.partial + (long long)unit * p.columns + n) = sum;
        return;
    }
    Optimizer optimizer = *p.optimizer;
    use_gradient(times(sum, optimizer.scale), at, p.bias, p.first, p.second, p.gradients, optimizer);
}
