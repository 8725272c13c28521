// Batch normalisation: sums over each sample's positions, what follows from those of all samples, and what is done with that.
//
// A sample's sums do not depend on the batch, and those over samples run in the order of the global batch, whatever
// rank they come from. A block has 32 lanes side by side in memory, and 8 warps that divide what is summed.

// Numbers of each channel lie in rows, in fours: mean and 1 / sqrt(variance + epsilon), the scale times that and the shift, and on the way
// down the mean of the error and the mean of its products with x, times row INVERSE.
enum Row { MEAN, INVERSE, FACTOR, SHIFT, ALONE, SLOPE };

// What the warps have of each lane, in their order, for warp 0. `x` are N numbers.
template <int N, class T> __device__ __forceinline__ void add_warps(T (&x)[N]) {
    __shared__ T of_warps[8][N][32];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int i = 0; i < N; i++) of_warps[warp][i][lane] = x[i];
    __syncthreads();
    if (warp) return;
    for (int other = 1; other < 8; other++)
        for (int i = 0; i < N; i++) x[i] += of_warps[other][i][lane];
}

// A sample's sums of four channels, to their places in [sum a' b', sum a'] and the padding behind.
__device__ __forceinline__ void store_sums(const ChannelSums& p, int sample, int channel, const float (&sums)[8]) {
    int pitch = in_fours(2 * p.channels);
    float* out = p.out + (long long)sample * pitch;
    for (int i = 0; i < 4 && channel + i < p.channels; i++) out[channel + i] = sums[i], out[p.channels + channel + i] = sums[4 + i];
    if (channel == 0)
        for (int i = 2 * p.channels; i < pitch; i++) out[i] = 0;
}

// [sum a' b', sum a'] over the positions of each sample, or of a slice of them, with a' = a - around, or a; and b' = x of b, or a'.
KERNEL(channel_sums, ChannelSums, 256) {
    int quads = in_fours(p.channels) / 4, rows = p.samples * quads, blocks = (rows + 31) / 32, slice = blockIdx.x / blocks;
    int i = blockIdx.x % blocks * 32 + threadIdx.x % 32, channel = i % quads * 4;
    int begin = (int)((long long)p.positions * slice / p.slices), end = (int)((long long)p.positions * (slice + 1) / p.slices);
    float sums[8] = {};
    if (i < rows) {
        float4 around = {}, mean = {}, inverse = {};
        if (p.around) around = *(const float4*)(p.around + channel);
        if (p.b) mean = *(const float4*)(p.numbers + 4 * quads * MEAN + channel);
        if (p.b) inverse = *(const float4*)(p.numbers + 4 * quads * INVERSE + channel);
        auto minus = [](float x, float y) { return x - y; };
        for (int position = begin + threadIdx.x / 32; position < end; position += 8) {
            long long at = ((long long)position * rows + i) * 4;
            float4 a = each(*(const float4*)(p.a + at), around, minus), b = a;
            if (p.b) b = each(each(*(const float4*)(p.b + at), mean, minus), inverse, [](float x, float y) { return x * y; });
            sums[0] = fmaf(a.x, b.x, sums[0]), sums[1] = fmaf(a.y, b.y, sums[1]);
            sums[2] = fmaf(a.z, b.z, sums[2]), sums[3] = fmaf(a.w, b.w, sums[3]);
            sums[4] += a.x, sums[5] += a.y, sums[6] += a.z, sums[7] += a.w;
        }
    }
    add_warps(sums);
    if (threadIdx.x >= 32 || i >= rows) return;
    if (p.slices == 1) return store_sums(p, i / quads, channel, sums);
    float* partial = p.partial + ((long long)slice * rows + i) * 8;
    *(float4*)partial = make_float4(sums[0], sums[1], sums[2], sums[3]);
    *(float4*)(partial + 4) = make_float4(sums[4], sums[5], sums[6], sums[7]);
}

// The slices, in their order.
KERNEL(add_channel_slices, ChannelSums, 256) {
    int quads = in_fours(p.channels) / 4, rows = p.samples * quads, i = blockIdx.x * 256 + threadIdx.x;
    if (i >= rows) return;
    float sums[8] = {};
    for (int slice = 0; slice < p.slices; slice++)
        for (int one = 0; one < 8; one++) sums[one] += p.partial[((long long)slice * rows + i) * 8 + one];
    store_sums(p, i / quads, i % quads * 4, sums);
}

// Both sums of a channel over all samples, for the threads of warp 0.
__device__ __forceinline__ void add_samples(const ChannelNumbers& p, int channel, double (&sums)[2]) {
    sums[0] = sums[1] = 0;
    int pitch = in_fours(2 * p.channels);
    if (channel < p.channels)
        for (int sample = threadIdx.x / 32; sample < p.all.samples; sample += 8) {
            const float* of_sample = p.all.post + sample_at(p.all, sample, p.all.post_rank, pitch);
            sums[0] += of_sample[channel], sums[1] += of_sample[p.channels + channel];
        }
    add_warps(sums);
}

// Statistics of a batch from the moments of its samples, or without these the running ones; and where `drift` is asked for how
// far the running ones are away, and 1.
KERNEL(channel_numbers, ChannelNumbers, 256) {
    int pitch = in_fours(p.channels), channel = blockIdx.x * 32 + threadIdx.x % 32, wide = in_fours(2 * p.channels);
    bool real = channel < p.channels;
    double sums[2], count = (double)p.all.samples * p.positions;
    __shared__ float drifts[2][32];
    if (p.all.post) add_samples(p, channel, sums);
    if (threadIdx.x < 32 && channel < pitch) {
        float running_mean = real ? p.statistics[channel] : 0, running_variance = real ? p.statistics[p.channels + channel] : 0;
        float mean = running_mean, variance = running_variance;
        if (p.all.post) {
            double off = sums[1] / count;
            mean = (float)(running_mean + off), variance = (float)fmax(sums[0] / count - off * off, 0.0);
            float unbiased = (float)(count / (count > 2 ? count - 1 : 1));
            drifts[0][threadIdx.x] = running_mean - mean;
            drifts[1][threadIdx.x] = running_variance - variance * unbiased;
        }
        float inverse = (float)(1 / sqrt(variance + p.epsilon));
        p.numbers[pitch * MEAN + channel] = mean;
        p.numbers[pitch * INVERSE + channel] = inverse;
        p.numbers[pitch * FACTOR + channel] = real ? p.affine[channel] * inverse : 0;
        p.numbers[pitch * SHIFT + channel] = real ? p.affine[p.channels + channel] : 0;
    }
    if (!p.drift) return;
    __syncthreads();
    for (int sample = threadIdx.x / 32; sample < p.all.per_rank; sample += 8) {
        float* of_sample = p.drift + (long long)sample * wide;
        if (real) of_sample[channel] = drifts[0][threadIdx.x % 32], of_sample[p.channels + channel] = drifts[1][threadIdx.x % 32];
        if (blockIdx.x) continue;
        if (2 * p.channels + (int)threadIdx.x % 32 < wide) of_sample[2 * p.channels + threadIdx.x % 32] = 0;
        if (threadIdx.x % 32 < 4) p.one[4 * sample + threadIdx.x % 32] = threadIdx.x % 32 ? 0 : 1;
    }
}

// On the way down: the means over all samples of the error, and of its products with x.
KERNEL(channel_slopes, ChannelNumbers, 256) {
    int pitch = in_fours(p.channels), channel = blockIdx.x * 32 + threadIdx.x % 32;
    double sums[2], count = (double)p.all.samples * p.positions;
    add_samples(p, channel, sums);
    if (threadIdx.x >= 32 || channel >= pitch) return;
    p.numbers[pitch * ALONE + channel] = (float)(sums[1] / count);
    p.numbers[pitch * SLOPE + channel] = (float)(sums[0] / count) * p.numbers[pitch * INVERSE + channel];
}

// y = s((a - mean) factor + shift), kept before s where the slope comes from that; or, of an error `delta`,
// factor (delta - alone - (a - mean) slope).
KERNEL(map_channels, MapChannels, 256) {
    unsigned quads = in_fours(p.channels) / 4, quad = blockIdx.x * 256 + threadIdx.x;
    if (quad >= p.quads) return;
    const float* numbers = p.numbers + quad % quads * 4;
    auto row = [&](Row of) { return *(const float4*)(numbers + 4 * quads * of); };
    auto minus = [](float x, float y) { return x - y; };
    auto product = [](float x, float y) { return x * y; };
    long long at = (long long)quad * 4;
    float4 x = each(*(const float4*)(p.a + at), row(MEAN), minus), out;
    if (p.delta) {
        float4 error = each(each(*(const float4*)(p.delta + at), row(ALONE), minus), each(x, row(SLOPE), product), minus);
        out = each(error, row(FACTOR), product);
    } else {
        float4 factor = row(FACTOR), shift = row(SHIFT);
        out = make_float4(fmaf(x.x, factor.x, shift.x), fmaf(x.y, factor.y, shift.y), fmaf(x.z, factor.z, shift.z),
                          fmaf(x.w, factor.w, shift.w));
        if (p.kept) *(float4*)(p.kept + at) = out;
        out = activation(out, p.nonlinearity);
    }
    *(float4*)(p.out + at) = out;
}
