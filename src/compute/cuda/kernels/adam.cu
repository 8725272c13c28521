// Optimisers on parameters and moments, in one pass over memory: Adam in either form of epsilon, and SGD with momentum.

extern "C" __global__ void adam(const float* __restrict__ gradients, float* __restrict__ weights, float* __restrict__ first,
                                float* __restrict__ second, unsigned long long count, float scale, float keep, float beta1, float beta2,
                                float size, float deviation_scale, float epsilon) {
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    float gradient = gradients[i] * scale;
    float m = first[i] * beta1 + gradient * (1.0f - beta1);
    float v = second[i] * beta2 + gradient * gradient * (1.0f - beta2);
    first[i] = m;
    second[i] = v;
    weights[i] = weights[i] * keep - m * size / (sqrtf(v) * deviation_scale + epsilon);
}

extern "C" __global__ void sgd(const float* __restrict__ gradients, float* __restrict__ weights, float* __restrict__ first,
                               unsigned long long count, float scale, float keep, float momentum, float size, unsigned nesterov) {
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    float gradient = gradients[i] * scale;
    float m = first[i] * momentum + gradient;
    first[i] = m;
    float direction = nesterov ? gradient + m * momentum : m;
    weights[i] = weights[i] * keep - direction * size;
}
