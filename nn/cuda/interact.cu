/* Factorization machine, dot products of all pairs.
 *
 * Threads. FM: a group of pn_lanes(k) lanes an example, each lane its own components; squares are summed over the group by shuffles. Dot: one block an example, its m * k
 * floats in shared memory where they fit (48 KiB), threads over pairs forward, over (vector, component) backward. */
#include "nn/cuda/interact.cuh"

__global__ void fm_forward_kernel(const float *x, size_t n, size_t f, size_t k, unsigned lanes, float *sums, float *out) {
    const size_t e = (size_t)blockIdx.x * (blockDim.x / lanes) + threadIdx.x / lanes;
    const unsigned lane = threadIdx.x % lanes;
    float value = 0;
    if (e < n)
        for (size_t d = lane; d < k; d += lanes) {
            float sum = 0, squares = 0;
            for (size_t i = 0; i < f; i++) {
                const float v = x[(e * f + i) * k + d];
                sum += v;
                squares += v * v;
            }
            sums[e * k + d] = sum;
            value += sum * sum - squares;
        }
    value = pn_sum_lanes(value, lanes);
    if (e < n && lane == 0) out[e] = 0.5f * value;
}
static void fm_forward(struct pn_ctx *c, const float *x, size_t n, size_t f, size_t k, float *sums, float *out) {
    if (n == 0) return;
    const unsigned lanes = pn_lanes(k);
    PN_LAUNCH(fm_forward_kernel, pn_blocks(n, 256 / lanes), 256, 0, pn_compute(c), x, n, f, k, lanes, sums, out);
    pn_launched(c, "fm forward");
}
struct fm_back {
    const float *x, *sums, *g;
    size_t f, k;
    float *dx;
    __device__ void operator()(size_t i) const {
        const size_t e = i / (f * k), d = i % k;
        dx[i] += g[e] * (sums[e * k + d] - x[i]);
    }
};
static void fm_backward(struct pn_ctx *c, const float *x, const float *sums, const float *g, size_t n, size_t f, size_t k, float *dx) {
    const struct fm_back b = {x, sums, g, f, k, dx};
    pn_each(c, n * f * k, b, "fm backward");
}

__global__ void dot_forward_kernel(const float *vectors, size_t m, size_t k, bool fits, float *out) {
    PN_SHARED(float, own);
    const float *v = vectors + (size_t)blockIdx.x * m * k;
    const size_t pairs = m * (m - 1) / 2;
    if (fits) {
        for (size_t i = threadIdx.x; i < m * k; i += blockDim.x) own[i] = v[i];
        __syncthreads();
        v = own;
    }
    for (size_t p = threadIdx.x; p < pairs; p += blockDim.x) {
        const struct pn_pair at = pn_pair_of(p);
        float sum = 0;
        for (size_t d = 0; d < k; d++) sum += v[at.i * k + d] * v[at.j * k + d];
        out[(size_t)blockIdx.x * pairs + p] = sum;
    }
}
__global__ void dot_backward_kernel(const float *vectors, const float *g, size_t m, size_t k, bool fits, float *dvectors) {
    PN_SHARED(float, own);
    const float *v = vectors + (size_t)blockIdx.x * m * k;
    const size_t pairs = m * (m - 1) / 2;
    g += (size_t)blockIdx.x * pairs;
    if (fits) {
        for (size_t i = threadIdx.x; i < m * k; i += blockDim.x) own[i] = v[i];
        for (size_t i = threadIdx.x; i < pairs; i += blockDim.x) own[m * k + i] = g[i];
        __syncthreads();
        v = own;
        g = own + m * k;
    }
    for (size_t at = threadIdx.x; at < m * k; at += blockDim.x) {
        const size_t i = at / k, d = at - i * k;
        float sum = 0;
        for (size_t j = 0; j < i; j++) sum += g[pn_pair_at(j, i)] * v[j * k + d];
        for (size_t j = i + 1; j < m; j++) sum += g[pn_pair_at(i, j)] * v[j * k + d];
        dvectors[(size_t)blockIdx.x * m * k + at] += sum;
    }
}
static unsigned threads_for(size_t n) { return n <= 32 ? 32 : n <= 64 ? 64 : n <= 128 ? 128 : 256; }
static void dot_forward(struct pn_ctx *c, const float *vectors, size_t n, size_t m, size_t k, float *out) {
    if (n == 0 || m < 2) return;
    const size_t bytes = m * k * sizeof(float);
    const bool fits = bytes <= 48 * 1024;
    PN_LAUNCH(dot_forward_kernel, (unsigned)n, threads_for(m * (m - 1) / 2), fits ? bytes : 0, pn_compute(c), vectors, m, k, fits, out);
    pn_launched(c, "dot forward");
}
static void dot_backward(struct pn_ctx *c, const float *vectors, const float *g, size_t n, size_t m, size_t k, float *dvectors) {
    if (n == 0 || m < 2) return;
    const size_t bytes = (m * k + m * (m - 1) / 2) * sizeof(float);
    const bool fits = bytes <= 48 * 1024;
    PN_LAUNCH(dot_backward_kernel, (unsigned)n, threads_for(m * k), fits ? bytes : 0, pn_compute(c), vectors, g, m, k, fits, dvectors);
    pn_launched(c, "dot backward");
}

void pn_fill_interact(struct pn_backend *t) {
    t->fm_forward = fm_forward;
    t->fm_backward = fm_backward;
    t->dot_forward = dot_forward;
    t->dot_backward = dot_backward;
}
