// destination = source + sigma * eps for an activity [positions, batch, channels]: the CPU's numbers, bit for bit.
//
// Philox4x32-10 (Salmon et al. 2011) and Box-Muller with Cephes' polynomials. Vector j of a sample (positions in order, panels of
// 16 channels within) takes word j % 4 of counters (16 (j / 4) + lane, place of the sample in the global batch, step, stream). A thread
// computes one counter of one sample. The formulas must be compiled without fused multiplications.

#define LANES 16u

__device__ float logarithm(float x) {
    unsigned bits = __float_as_uint(x);
    int exponent = (int)(bits - 0x3f3504f3u) >> 23;
    float m = __uint_as_float(bits - ((unsigned)exponent << 23)) - 1.0f;
    float z = m * m;
    float p = 7.0376836e-2f;
    p = p * m + -1.151461e-1f;
    p = p * m + 1.1676999e-1f;
    p = p * m + -1.2420141e-1f;
    p = p * m + 1.4249323e-1f;
    p = p * m + -1.6668058e-1f;
    p = p * m + 2.0000715e-1f;
    p = p * m + -2.4999994e-1f;
    p = p * m + 3.3333331e-1f;
    return m + (p * m * z - 0.5f * z) + (float)exponent * 0.69314718f;
}

// Cosine and sine of 2 pi u.
__device__ void circle(float u, float* cosine, float* sine) {
    float quarters = u * 4.0f;
    int quadrant = (int)(quarters + 0.5f);
    float x = (quarters - (float)quadrant) * 1.57079633f;
    float z = x * x;
    float s = x + x * z * ((-1.9515296e-4f * z + 8.332161e-3f) * z - 1.6666655e-1f);
    float c = 1.0f - 0.5f * z + z * z * ((2.4433157e-5f * z - 1.3887316e-3f) * z + 4.1666646e-2f);
    if (quadrant & 1) {
        float swap = c;
        c = s;
        s = swap;
    }
    *cosine = ((quadrant + 1) & 2) ? -c : c;
    *sine = (quadrant & 2) ? -s : s;
}

// Makes four random words of the counter `x` under a key.
__device__ void philox(unsigned* x, unsigned k0, unsigned k1) {
    for (int round = 0; round < 10; ++round) {
        unsigned low0 = x[0] * 0xD2511F53u, high0 = __umulhi(x[0], 0xD2511F53u);
        unsigned low2 = x[2] * 0xCD9E8D57u, high2 = __umulhi(x[2], 0xCD9E8D57u);
        x[0] = high2 ^ x[1] ^ k0;
        x[1] = low2;
        x[2] = high0 ^ x[3] ^ k1;
        x[3] = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

// Four standard normal numbers of the counter `x` under a key. The counter is used up.
__device__ void normals(unsigned* x, unsigned k0, unsigned k1, float* noise) {
    philox(x, k0, k1);
    for (int pair = 0; pair < 2; ++pair) {
        float radius_uniform = (float)(int)((x[2 * pair] >> 8) + 1) * (1.0f / 16777216.0f);
        float angle_uniform = (float)(int)(x[2 * pair + 1] >> 8) * (1.0f / 16777216.0f);
        float radius = sqrtf(fmaxf(-2.0f * logarithm(radius_uniform), 0.0f));
        float cosine, sine;
        circle(angle_uniform, &cosine, &sine);
        noise[2 * pair] = radius * cosine;
        noise[2 * pair + 1] = radius * sine;
    }
}

extern "C" __global__ void add_noise(const float* __restrict__ source, float* __restrict__ destination, unsigned positions,
                                     unsigned batch, unsigned channels, float sigma, unsigned key_low, unsigned key_high, unsigned step,
                                     unsigned stream, unsigned first) {
    unsigned panels = (channels + LANES - 1) / LANES;
    unsigned long long vectors = (unsigned long long)positions * panels;
    unsigned long long counters = (vectors + 3) / 4 * LANES;
    unsigned long long thread = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= counters * batch) return;
    unsigned long long counter = thread % counters;
    unsigned sample = (unsigned)(thread / counters);

    unsigned x[4] = {(unsigned)counter, first + sample, step, stream};
    float noise[4];
    normals(x, key_low, key_high, noise);
    for (unsigned j = 0; j < 4; ++j) {
        unsigned long long vector = counter / LANES * 4 + j;
        unsigned position = (unsigned)(vector / panels);
        unsigned channel = (unsigned)(vector % panels) * LANES + (unsigned)(counter % LANES);
        if (position < positions && channel < channels) {
            unsigned long long at = ((unsigned long long)position * batch + sample) * channels + channel;
            destination[at] = source[at] + noise[j] * sigma;
        }
    }
}
