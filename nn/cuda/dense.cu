/* The flat vector of dense parameters: norm, clipping, optimizer steps, noise. Threads: one an element; the sum of squares in pieces that one block adds up. */
#include "nn/cuda/runtime.cuh"

static const size_t PIECES = 256;
__global__ void squares_kernel(const float *x, size_t n, double *part_of) {
    PN_SHARED(double, part);
    double sum = 0;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) sum += (double)x[i] * (double)x[i];
    part[threadIdx.x] = sum;
    __syncthreads();
    for (unsigned o = blockDim.x / 2; o > 0; o /= 2) {
        if (threadIdx.x < o) part[threadIdx.x] += part[threadIdx.x + o];
        __syncthreads();
    }
    if (threadIdx.x == 0) part_of[blockIdx.x] = part[0];
}
struct part_of_sum {
    const double *x;
    __device__ double operator()(size_t i) const { return x[i]; }
};
struct add_sum {
    double *to;
    __device__ void operator()(double sum) const { *to += sum; }
};
static void sum_squares(struct pn_ctx *c, const float *x, size_t n, double *sum) {
    double *part = (double *)pn_scratch(c, PIECES * sizeof *part);
    if (part == NULL || n == 0) return;
    const size_t blocks = (n + 255) / 256 < PIECES ? (n + 255) / 256 : PIECES;
    PN_LAUNCH(squares_kernel, (unsigned)blocks, 256, 256 * sizeof(double), pn_compute(c), x, n, part);
    const struct part_of_sum f = {part};
    const struct add_sum done = {sum};
    pn_sum(c, blocks, f, done, "sum of squares");
}
struct clip_to {
    const double *squares;
    float most, *x;
    __device__ void operator()(size_t i) const {
        const double norm = sqrt(*squares);
        if (norm > (double)most) x[i] *= (float)((double)most / norm);
    }
};
static void clip(struct pn_ctx *c, const double *squares, float most, size_t n, float *x) {
    const struct clip_to f = {squares, most, x};
    pn_each(c, n, f, "clip");
}

struct rule_step {
    enum pn_dense_rule rule;
    float lr, epsilon, beta1, beta2, one, two;
    size_t n;
    const float *g;
    float *state, *p;
    __device__ void operator()(size_t i) const {
        if (rule == PN_DENSE_SGD) {
            p[i] -= lr * g[i];
        } else if (rule == PN_DENSE_ADAGRAD) {
            const float v = state[i] + g[i] * g[i];
            state[i] = v;
            p[i] -= lr * g[i] / (sqrtf(v) + epsilon);
        } else {
            const float m = beta1 * state[i] + (1 - beta1) * g[i], v = beta2 * state[n + i] + (1 - beta2) * g[i] * g[i];
            state[i] = m;
            state[n + i] = v;
            p[i] -= lr * (m / one) / (sqrtf(v / two) + epsilon);
        }
    }
};
static void dense_step(struct pn_ctx *c, enum pn_dense_rule rule, float lr, float epsilon, float beta1, float beta2, uint64_t step, size_t n, const float *g, float *state, float *p) {
    const struct rule_step f = {rule, lr, epsilon, beta1, beta2, (float)(1 - pow((double)beta1, (double)step)), (float)(1 - pow((double)beta2, (double)step)), n, g, state, p};
    pn_each(c, n, f, "optimizer");
}

struct noise {
    float sigma;
    uint64_t seed;
    float *x;
    __device__ void operator()(size_t i) const {
        const uint64_t a = pn_mix(seed + 2 * i), b = pn_mix(seed + 2 * i + 1);
        const double u = ((double)(a >> 11) + 1) * 0x1p-53, v = (double)(b >> 11) * 0x1p-53;
        x[i] += (float)((double)sigma * sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
    }
};
static void add_noise(struct pn_ctx *c, size_t n, float sigma, uint64_t seed, float *x) {
    const struct noise f = {sigma, seed, x};
    pn_each(c, n, f, "noise");
}

void pn_fill_dense(struct pn_backend *t) {
    t->sum_squares = sum_squares;
    t->clip = clip;
    t->dense_step = dense_step;
    t->add_noise = add_noise;
}
