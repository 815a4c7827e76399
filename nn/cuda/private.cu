/* Squared norms of single examples' gradients, from what one backward pass leaves (nn/example_norms.c has the reference and the idea). Threads: a warp an example. All add to
 * norms[e]. */
#include "nn/cuda/runtime.cuh"

/* An example's sum over lanes, put to its norm. All lanes of the warp call it. */
__device__ static inline void add_norm(size_t e, size_t n, float sum, float *norms) {
    sum = pn_sum_lanes(sum, 32);
    if (e < n && threadIdx.x % 32 == 0) norms[e] += sum;
}
__device__ static inline size_t norm_example() { return (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; }

__global__ void layer_norms_kernel(const float *normal, const float *g, size_t n, size_t width, float *norms) {
    const size_t e = norm_example();
    float sum = 0;
    for (size_t d = threadIdx.x % 32; e < n && d < width; d += 32) {
        const float shift = g[e * width + d], scale = shift * normal[e * width + d];
        sum += shift * shift + scale * scale;
    }
    add_norm(e, n, sum, norms);
}
static void layer_norms(struct pn_ctx *c, const float *normal, const float *g, size_t n, size_t width, float *norms) {
    if (n == 0) return;
    PN_LAUNCH(layer_norms_kernel, pn_blocks(n, 8), 256, 0, pn_compute(c), normal, g, n, width, norms);
    pn_launched(c, "norms of layer norm");
}
__global__ void cross_norms_kernel(const float *x0, const float *x, const float *g, size_t n, size_t width, float *norms) {
    const size_t e = norm_example();
    float in = 0, out = 0;
    for (size_t d = threadIdx.x % 32; e < n && d < width; d += 32) {
        const float y = g[e * width + d] * x0[e * width + d];
        in += x[e * width + d] * x[e * width + d];
        out += y * y;
    }
    in = pn_sum_lanes(in, 32);
    out = pn_sum_lanes(out, 32);
    if (e < n && threadIdx.x % 32 == 0) norms[e] += (in + 1) * out;
}
static void cross_norms(struct pn_ctx *c, const float *x0, const float *x, const float *g, size_t n, size_t width, float *norms) {
    if (n == 0) return;
    PN_LAUNCH(cross_norms_kernel, pn_blocks(n, 8), 256, 0, pn_compute(c), x0, x, g, n, width, norms);
    pn_launched(c, "norms of cross");
}

__device__ static inline float norm_pool_scale(uint32_t pooling, uint32_t n) {
    return n == 1 ? 1.0f : pooling == PN_POOL_MEAN ? 1.0f / (float)n : pooling == PN_POOL_SQRTN ? 1.0f / sqrtf((float)n) : 1.0f;
}
/* Every pair of the example's keys that are of one row: what an example adds to a row is the sum of what its keys add. The pairs are the same for all lanes. */
__global__ void row_norms_kernel(struct pn_pool_view v, const float *linear_gradient, const float *embedded_gradient, float *norms) {
    const size_t e = norm_example();
    const unsigned lane = threadIdx.x % 32;
    float sum = 0;
    if (e < v.n) {
        const float linear = v.wide ? v.linear_scale * linear_gradient[e] : 0;
        for (size_t s = 0; s < v.f; s++) {
            const uint32_t begin = v.begin[s * v.n + e], end = v.begin[s * v.n + e + 1];
            const float scale = norm_pool_scale(v.pooling[s], end - begin);
            for (uint32_t i = begin; i < end; i++)
                for (size_t r = 0; r <= s; r++) {
                    const uint32_t from = v.begin[r * v.n + e], to = r < s ? v.begin[r * v.n + e + 1] : i + 1;
                    const float both = scale * norm_pool_scale(v.pooling[r], v.begin[r * v.n + e + 1] - from);
                    for (uint32_t j = from; j < to; j++) {
                        if (v.position[i] != v.position[j]) continue;
                        float dot = lane == 0 ? linear * linear : 0;
                        for (size_t d = lane; d < v.k; d += 32) dot += embedded_gradient[(e * v.f + s) * v.k + d] * embedded_gradient[(e * v.f + r) * v.k + d];
                        sum += (i == j ? 1 : 2) * both * dot;
                    }
                }
        }
    }
    add_norm(e, v.n, sum, norms);
}
static void row_norms(struct pn_ctx *c, const struct pn_pool_view *v, const float *linear_gradient, const float *embedded_gradient, float *norms) {
    if (v->n == 0) return;
    PN_LAUNCH(row_norms_kernel, pn_blocks(v->n, 8), 256, 0, pn_compute(c), *v, linear_gradient, embedded_gradient, norms);
    pn_launched(c, "norms of rows");
}
__global__ void pair_norms_kernel(struct pn_pool_view v, const float *rows, const float *g, float *norms) {
    const size_t e = norm_example(), dim = v.wide + v.k;
    float sum = 0;
    if (e < v.n) {
        const float *x = rows + (size_t)v.position[e] * dim + v.wide, *y = rows + (size_t)v.position[v.n + e] * dim + v.wide;
        for (size_t d = threadIdx.x % 32; d < v.k; d += 32) sum += x[d] * x[d] + y[d] * y[d];
        if (threadIdx.x % 32 == 0 && v.wide) sum += 2 * v.linear_scale * v.linear_scale;
        sum *= g[e] * g[e];
    }
    add_norm(e, v.n, sum, norms);
}
static void pair_norms(struct pn_ctx *c, const struct pn_pool_view *v, const float *rows, const float *g, float *norms) {
    if (v->n == 0) return;
    PN_LAUNCH(pair_norms_kernel, pn_blocks(v->n, 8), 256, 0, pn_compute(c), *v, rows, g, norms);
    pn_launched(c, "norms of pairs");
}

void pn_fill_private(struct pn_backend *t) {
    t->layer_norms = layer_norms;
    t->cross_norms = cross_norms;
    t->row_norms = row_norms;
    t->pair_norms = pair_norms;
}
