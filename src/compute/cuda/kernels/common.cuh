// What several kernels share.

__device__ __forceinline__ int in_fours(int n) { return (n + 3) / 4 * 4; }

// tanh as a rational function, within 4 units in the last place: the CPU's.
__device__ __forceinline__ float hyperbolic_tangent(float x) {
    x = x > 7.905311f ? 7.905311f : x < -7.905311f ? -7.905311f : x;
    float z = x * x;
    float n = -2.7607684e-16f;
    n = fmaf(n, z, 2.000188e-13f);
    n = fmaf(n, z, -8.6046715e-11f);
    n = fmaf(n, z, 5.1222971e-8f);
    n = fmaf(n, z, 1.4857224e-5f);
    n = fmaf(n, z, 6.3726193e-4f);
    n = fmaf(n, z, 4.8935246e-3f);
    float d = 1.1982584e-6f;
    d = fmaf(d, z, 1.1853471e-4f);
    d = fmaf(d, z, 2.2684348e-3f);
    d = fmaf(d, z, 4.8935252e-3f);
    return divide(n * x, d);
}

enum Nonlinearity { IDENTITY, TANH, RELU, LEAKY_RELU, GELU };

#define LEAK 0.01f
#define GELU_SCALE 0.79788456f
#define GELU_CUBE 0.044715f

// Exactly -1 and 1 far from zero, where its distance from them would be multiplied by x.
__device__ __forceinline__ float gelu_tangent(float x) {
    float argument = GELU_SCALE * (x + GELU_CUBE * x * x * x);
    return argument < -7.9f ? -1 : argument > 7.9f ? 1 : hyperbolic_tangent(argument);
}

__device__ __forceinline__ float activation(float x, int nonlinearity) {
    if (nonlinearity == TANH) return hyperbolic_tangent(x);
    if (nonlinearity == RELU) return x < 0 ? 0 : x;
    if (nonlinearity == LEAKY_RELU) return x < 0 ? LEAK * x : x;
    if (nonlinearity == GELU) return 0.5f * x * (1 + gelu_tangent(x));
    return x;
}

// The slope where the value is y. Of gelu it follows from the argument x, which the others do not read.
__device__ __forceinline__ float slope(float y, float x, int nonlinearity) {
    if (nonlinearity == TANH) return 1 - y * y;
    if (nonlinearity == RELU) return y > 0 ? 1 : 0;
    if (nonlinearity == LEAKY_RELU) return y > 0 ? 1 : LEAK;
    if (nonlinearity == GELU) {
        float t = gelu_tangent(x);
        return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * GELU_SCALE * (1 + 3 * GELU_CUBE * x * x);
    }
    return 1;
}

__device__ __forceinline__ float4 activation(float4 x, int nonlinearity) {
    return make_float4(activation(x.x, nonlinearity), activation(x.y, nonlinearity), activation(x.z, nonlinearity),
                       activation(x.w, nonlinearity));
}
// f(x), f(y), ... of four floats.
template <class F> __device__ __forceinline__ float4 each(float4 a, float4 b, F f) {
    return make_float4(f(a.x, b.x), f(a.y, b.y), f(a.z, b.z), f(a.w, b.w));
}
__device__ __forceinline__ float4 plus(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }
__device__ __forceinline__ float4 times(float4 a, float b) { return make_float4(a.x * b, a.y * b, a.z * b, a.w * b); }

// What a product's sum becomes that goes to place `at` of a job's destination.
__device__ __forceinline__ float4 finished(const Apply& p, const Job& job, long long at, float4 sum) {
    if (p.y) {
        float4 y = *(const float4*)(p.y + at), x = {};
        if (p.argument) x = *(const float4*)(p.argument + at);
        y = each(y, x, [&](float y, float x) { return slope(y, x, p.nonlinearity); });
        return each(sum, y, [](float x, float y) { return x * y; });
    }
    if (job.kept) *(float4*)(job.kept + at) = sum;
    return activation(sum, p.nonlinearity);
}

// Floats from the first rank's first sample at a position to sample `sample` of the global batch.
__device__ __forceinline__ long long sample_at(const Factors& f, int sample, long long rank_stride, int pitch) {
    if (f.per_rank == f.samples) return (long long)sample * pitch;
    int rank = f.reciprocal ? (int)__umulhi((unsigned)sample, f.reciprocal) : sample;
    return rank * rank_stride + (long long)(sample - rank * f.per_rank) * pitch;
}

// One parameter's step by its gradient. `second` is not used where the method has no second moment.
__device__ __forceinline__ void step(const Optimizer& o, float gradient, float& weight, float& first, float& second) {
    if (o.method == 0) {
        first = first * o.beta1 + gradient * (1 - o.beta1);
        second = second * o.beta2 + gradient * gradient * (1 - o.beta2);
        weight = weight * o.keep - divide(first * o.size, sqrtf(second) * o.deviation_scale + o.epsilon);
    } else {
        first = first * o.beta1 + gradient;
        float change = o.method == 2 ? gradient + o.beta1 * first : first;
        weight = weight * o.keep - o.size * change;
    }
}
__device__ __forceinline__ void step(const Optimizer& o, float4 gradient, float4& weight, float4& first, float4& second) {
    step(o, gradient.x, weight.x, first.x, second.x);
    step(o, gradient.y, weight.y, first.y, second.y);
    step(o, gradient.z, weight.z, first.z, second.z);
    step(o, gradient.w, weight.w, first.w, second.w);
}
