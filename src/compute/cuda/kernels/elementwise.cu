// Operations that treat every unit alike, and those that also measure a sample.

enum Operation { ERROR_THROUGH, THROUGH, DIFFERENCE_THROUGH, STEP_ALONG, DIFFERENCE_TARGET, ADD };

KERNEL(elementwise, Elementwise, 256) {
    long long at = ((long long)blockIdx.x * 256 + threadIdx.x) * 4;
    if (at >= p.count) return;
    auto four = [&](const float* of) { return *(const float4*)(of + at); };
    float4 a = four(p.a), zero = {}, b = p.b ? four(p.b) : zero, argument = p.argument ? four(p.argument) : zero;
    float4 y = p.operation == ERROR_THROUGH || p.operation == DIFFERENCE_TARGET ? a : b;
    float4 slopes = each(y, argument, [&](float y, float x) { return slope(y, x, p.nonlinearity); });
    float s0 = p.s0, s1 = p.s1;
    auto product = [](float x, float y) { return x * y; };
    auto difference = [](float x, float y) { return x - y; };
    auto error = [&](float4 from, float4 to) { return each(times(each(from, to, difference), 2), slopes, product); };
    float4 out;
    switch (p.operation) {
        case ERROR_THROUGH: out = error(a, b); break;
        case THROUGH: out = each(a, slopes, product); break;
        case DIFFERENCE_THROUGH: out = each(each(a, b, difference), slopes, product); break;
        case STEP_ALONG: out = each(a, b, [&](float y, float change) { return fmaf(change, s0, y); }); break;
        case DIFFERENCE_TARGET: {
            float4 change = times(each(four(p.c), b, difference), s0);
            if (p.d) change = each(change, four(p.d), [&](float change, float back) { return fmaf(back, s1, change); });
            out = plus(a, change);
            if (p.kept) *(float4*)(p.kept + at) = error(a, out);
            break;
        }
        default:
            out = plus(a, b);
            if (p.kept) *(float4*)(p.kept + at) = out;
            out = activation(out, p.nonlinearity);
    }
    *(float4*)(p.out + at) = out;
}

// What `apply` left in slices of K, added up in their order. `map.columns` is the width of a row.
KERNEL(add_slices, Apply, 256) {
    int wide = p.map.columns, rows = p.jobs * p.samples, quads = rows * (wide / 4), blocks = (quads + 255) / 256;
    int q = blockIdx.x / blocks, i = blockIdx.x % blocks * 256 + threadIdx.x;
    if (i >= quads) return;
    int m = i / (wide / 4), n = i % (wide / 4) * 4, job = m / p.samples;
    const float* at = p.partial + ((long long)q * rows + m) * wide + n;
    float4 sum = *(const float4*)at;
    for (int slice = 1; slice < p.slices; slice++) sum = plus(sum, *(const float4*)(at + slice * ((long long)p.positions * rows * wide)));
    if (p.bias) sum = plus(sum, *(const float4*)(p.bias + (long long)q * p.bias_stride + n));
    long long to = ((long long)q * p.samples + m - job * p.samples) * wide + n;
    *(float4*)(p.job[job].destination + to) = finished(p, p.job[job], to, sum);
}

// The sum over a block's threads, in one order, for thread 0. All 256 threads take part.
template <class T> __device__ __forceinline__ T sum_of_block(T x) {
    __shared__ T warps[8];
    for (int mask = 16; mask; mask /= 2) x += other_lane(x, mask);
    __syncthreads();
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = x;
    __syncthreads();
    x = warps[0];
    for (int warp = 1; warp < 8; warp++) x += warps[warp];
    return x;
}

// error = 2 (y - target) slope(y), and || y - target ||^2 of each sample, over the positions of each part.
KERNEL(measured_error, MeasuredError, 256) {
    int part = blockIdx.x % p.parts, sample = blockIdx.x / p.parts, quads = p.pitch / 4;
    int begin = (int)((long long)p.positions * part / p.parts), end = (int)((long long)p.positions * (part + 1) / p.parts);
    float sum = 0;
    for (int i = threadIdx.x; i < (end - begin) * quads; i += 256) {
        long long at = ((long long)(begin + i / quads) * p.samples + sample) * p.pitch + i % quads * 4;
        float4 y = *(const float4*)(p.y + at), target = *(const float4*)(p.target + at), x = {};
        if (p.argument) x = *(const float4*)(p.argument + at);
        float4 d = each(y, target, [](float y, float target) { return y - target; });
        float4 slopes = each(y, x, [&](float y, float x) { return slope(y, x, p.nonlinearity); });
        *(float4*)(p.error + at) = each(times(d, 2), slopes, [](float x, float y) { return x * y; });
        sum += (d.x * d.x + d.y * d.y) + (d.z * d.z + d.w * d.w);
    }
    sum = sum_of_block(sum);
    if (threadIdx.x == 0) p.partial[(long long)part * p.samples + sample] = sum;
}

KERNEL(sum_measure, SumMeasure, 256) {
    int sample = blockIdx.x * 256 + threadIdx.x;
    if (sample >= p.samples) return;
    float sum = 0;
    for (int part = 0; part < p.parts; part++) sum += p.partial[(long long)part * p.samples + sample];
    p.out[sample] = sum;
}

// The CPU's numbers, bit for bit: see noise.cu. A thread has one counter of one sample, whose four numbers
// are 16 channels apart.
KERNEL(noise, Noise, 256) {
    unsigned panels = (p.channels + LANES - 1) / LANES, pitch = in_fours(p.channels), counters = (p.positions * panels + 3) / 4 * LANES;
    unsigned blocks = (counters + 255) / 256, counter = blockIdx.x % blocks * 256 + threadIdx.x, sample = blockIdx.x / blocks;
    if (counter >= counters) return;
    Place place = *p.place;
    unsigned words[4] = {counter, place.first + sample, place.step, p.stream ^ place.step_high << 20};
    float normal[4];
    normals(words, p.key_low, p.key_high, normal);
    for (unsigned j = 0; j < 4; ++j) {
        unsigned vector = counter / LANES * 4 + j, position = vector / panels, channel = vector % panels * LANES + counter % LANES;
        if (position < p.positions && channel < pitch) {
            long long at = ((long long)position * p.samples + sample) * pitch + channel;
            p.destination[at] = channel < p.channels ? p.source[at] + normal[j] * p.sigma : 0;
        }
    }
}

// To bf16 and back, for what travels between GPUs.
KERNEL(wire, Wire, 256) {
    long long at = ((long long)blockIdx.x * 256 + threadIdx.x) * 4;
    if (at >= p.count) return;
    float4 base = {};
    if (p.base) base = *(const float4*)(p.base + at);
    unsigned* rounded = p.rounded + at / 2;
    if (p.source) {
        float4 x = each(*(const float4*)(p.source + at), base, [](float x, float base) { return x - base; });
        rounded[0] = bf16x2(x.x, x.y);
        rounded[1] = bf16x2(x.z, x.w);
    } else {
        unsigned low = rounded[0], high = rounded[1];
        float4 x = make_float4(__uint_as_float(low << 16), __uint_as_float(low & 0xffff0000u), __uint_as_float(high << 16),
                               __uint_as_float(high & 0xffff0000u));
        *(float4*)(p.out + at) = plus(base, x);
    }
}

// Weights whose signs are those of their layer's, whose blocks have a column for each row here. Their magnitudes are all `equal`, where that is
// not 0; or drawn up to `bound`, where that is not, as the CPU draws them; or stay.
KERNEL(signs, Signs, 256) {
    int pitch = in_fours(p.columns);
    long long at = (long long)blockIdx.x * 256 + threadIdx.x, row = at / pitch, block = row / p.rows;
    int column = (int)(at % pitch);
    if (block >= p.blocks || column >= p.columns) return;
    float size = p.equal != 0 ? p.equal : p.weights[at];
    if (p.bound != 0) {
        unsigned long long number = row * p.columns + column, counter = number / (4 * LANES) * LANES + number % LANES;
        unsigned words[4] = {(unsigned)counter, (unsigned)(counter >> 32), p.draw, p.stream};
        philox(words, p.key_low, p.key_high);
        float unit = ((float)(int)(words[number / LANES % 4] >> 8) + 0.5f) * (1.0f / 16777216.0f);
        size = (2.0f * unit - 1.0f) * p.bound;
    }
    float layer = p.layer[(block * p.columns + column) * in_fours(p.rows) + row % p.rows];
    p.weights[at] = copysignf(size, layer);
}

// Sums have the order of links. A maximum is the first of equals, and hides nothing that is no number.
KERNEL(pool, Pool, 256) {
    int quads = p.samples * (p.pitch / 4), blocks = (quads + 255) / 256;
    int position = blockIdx.x / blocks, i = blockIdx.x % blocks * 256 + threadIdx.x;
    if (i >= quads) return;
    auto at = [&](int position) { return (long long)position * p.samples * p.pitch + 4 * i; };
    int begin = p.starts[position], end = p.starts[position + 1];
    float4 sum = {}, winner = {};
    for (int l = begin; l < end; l++) {
        Link link = p.links[l];
        float4 x = *(const float4*)(p.source + at(link.position));
        float block = link.block;
        if (p.largest && p.back) {
            float4 won = *(const float4*)(p.winners + at(link.position));
            x = each(x, won, [&](float x, float won) { return won == block ? x : 0; });
        } else if (p.largest) {
            float4 more = each(x, sum, [&](float x, float largest) { return l == begin || x > largest || x != x ? 1.f : 0.f; });
            winner = each(winner, more, [&](float winner, float more) { return more ? block : winner; });
            x = make_float4(more.x ? x.x : sum.x, more.y ? x.y : sum.y, more.z ? x.z : sum.z, more.w ? x.w : sum.w);
            sum = {};
        } else if (p.back) {
            x = times(x, 1.f / (p.windows[link.position + 1] - p.windows[link.position]));
        }
        sum = plus(sum, x);
    }
    if (!p.largest && !p.back) sum = times(sum, 1.f / (end - begin));
    if (p.largest && !p.back) *(float4*)(p.winners + at(position)) = winner;
    *(float4*)(p.destination + at(position)) = sum;
}
