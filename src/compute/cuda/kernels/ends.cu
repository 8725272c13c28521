// The two ends of a network: pixels, and the output with its loss, error and error rates.

// The largest of a block's numbers, or their sum: as sum_of_block, in elementwise.cu.
__device__ __forceinline__ float largest_of_block(float x) {
    __shared__ float warps[8];
    for (int mask = 16; mask; mask /= 2) x = fmaxf(x, other_lane(x, mask));
    __syncthreads();
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = x;
    __syncthreads();
    for (int warp = 0; warp < 8; warp++) x = fmaxf(x, warps[warp]);
    return x;
}

// A block has a sample. Sums run in float64, as on the CPU.
KERNEL(output, Output, 256) {
    int sample = blockIdx.x, pitch = in_fours(p.units);
    long long row = (long long)sample * pitch;
    const float* pre = p.pre + row;
    float* y = p.output + row;
    float* error = p.error ? p.error + row : nullptr;
    if (p.linear) {
        double loss = 0;
        for (int i = threadIdx.x; i < pitch; i += 256) {
            float h = i < p.units ? pre[i] : 0;
            y[i] = h;
            if (!error) continue;
            float difference = i < p.units ? h - p.wanted[row + i] : 0;
            error[i] = 2 * difference;
            loss += (double)difference * (double)difference;
        }
        if (!error) return;
        loss = sum_of_block(loss);
        if (threadIdx.x == 0) p.loss[sample] = (float)loss, p.top1[sample] = 0, p.top5[sample] = 0;
        return;
    }
    float largest = __uint_as_float(0xff800000);
    for (int i = threadIdx.x; i < p.units; i += 256) largest = fmaxf(largest, pre[i]);
    largest = largest_of_block(largest);
    int label = error ? (int)p.labels[sample] : 0, ahead = 0;
    float own = pre[label];
    // Equal logits rank by class, as an argmax that takes the first does; nothing ranks behind a NaN.
    for (int i = threadIdx.x; i < p.units; i += 256) ahead += pre[i] > own || (pre[i] == own && i < label) || own != own;
    ahead = sum_of_block(ahead);
    double sum = 0;
    for (int i = threadIdx.x; i < pitch; i += 256) {
        y[i] = i < p.units ? expf(pre[i] - largest) : 0;
        sum += y[i];
    }
    sum = sum_of_block(sum);
    float scale = (float)(1 / sum), spread = p.smoothing / p.units;
    for (int i = threadIdx.x; i < pitch; i += 256) {
        float share = i < p.units ? y[i] * scale : 0;
        y[i] = share;
        if (error) error[i] = i < p.units ? share - spread - (i == label ? 1 - p.smoothing : 0) : 0;
    }
    if (!error || threadIdx.x != 0) return;
    p.loss[sample] = (float)(log(sum) - (double)(own - largest));
    p.top1[sample] = ahead >= 1;
    p.top5[sample] = ahead >= 5;
}

KERNEL(one_hot, OneHot, 256) {
    int pitch = in_fours(p.classes), i = blockIdx.x * 256 + threadIdx.x;
    if (i >= p.samples * pitch) return;
    float spread = i % pitch < p.classes ? p.smoothing / p.classes : 0;
    p.destination[i] = spread + (i % pitch == (int)p.labels[i / pitch] ? 1 - p.smoothing : 0);
}

// [a, b], channel after channel, of dense activities.
KERNEL(concatenate, Concatenate, 256) {
    int pitch = in_fours(p.a_channels + p.b_channels), i = blockIdx.x * 256 + threadIdx.x;
    if (i >= p.samples * pitch) return;
    int sample = i / pitch, channel = i % pitch, beyond = channel - p.a_channels;
    float x = 0;
    if (beyond < 0) x = p.a[sample * in_fours(p.a_channels) + channel];
    else if (beyond < p.b_channels) x = p.b[sample * in_fours(p.b_channels) + beyond];
    p.destination[i] = x;
}

// Images [sample][height][width][colour] of floats, or of bytes that are scaled here, into an activity; or, `rows`, into lines
// of each sample, padded so that no window leaves them, which a kernel's rows then read as they lie. A row
// may begin at any float, but what is copied at every fourth: of several images in one, number c begins
// 4 c / shifts floats later.
KERNEL(pixels, Pixels, 256) {
    int pitch = in_fours(p.colours), row = p.width * p.colours;
    long long floats = p.rows ? (long long)p.shifts * p.lines * p.line : (long long)p.height * p.width * pitch;
    long long blocks = (floats / 4 + 255) / 256, quad = blockIdx.x % blocks * 256 + threadIdx.x;
    int sample = (int)(blockIdx.x / blocks);
    if (quad * 4 >= floats) return;
    unsigned colours = p.place->colours;
    float out[4];
    long long at = sample * floats + quad * 4, image = (long long)sample * p.height * row;
    int line = p.rows ? (int)(quad * 4 / p.line) : 0, copy = p.rows ? line / p.lines : 0;
    if (!p.rows) at = (quad * 4 / pitch * p.samples + sample) * pitch + quad * 4 % pitch;
    for (int e = 0; e < 4; e++) {
        long long from = -1;
        if (p.rows) {
            int y = line % p.lines - p.top, x = (int)(quad * 4 % p.line) + e + copy * (4 / p.shifts) - p.left * p.colours;
            if (y >= 0 && y < p.height && x >= 0 && x < row) from = (long long)y * row + x;
        } else {
            int colour = (int)(quad * 4 % pitch) + e;
            if (colour < p.colours) from = quad * 4 / pitch * p.colours + colour;
        }
        out[e] = 0;
        if (from < 0) continue;
        unsigned colour = colours ? (unsigned)from % colours : 0;
        out[e] = colours ? (float)((const unsigned char*)p.source)[image + from] * p.scale[colour] + p.shift[colour]
                         : ((const float*)p.source)[image + from];
    }
    *(float4*)(p.destination + at) = make_float4(out[0], out[1], out[2], out[3]);
}
