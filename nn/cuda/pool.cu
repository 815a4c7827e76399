/* Embedding pooling and sums by unique key.
 *
 * Threads. Forward: a group of pn_lanes(dim) lanes takes one (example, field) and reads its rows side by side (coalesced: a row is 17 to 65 floats); for the linear term one
 * warp an example, lanes over its fields. Backward: a group takes one chunk of at most PN_CHUNK entries of one row, so that a key that the whole batch has is shared out;
 * rows of several chunks then get one warp a float, lanes over the chunks. Sums follow the order of the inverse: no atomic adds. */
#include "nn/cuda/by_row.cuh"
#include "nn/cuda/units.cuh"

__device__ static inline float pool_scale(uint32_t pooling, uint32_t n) {
    return n == 1 ? 1.0f : pooling == PN_POOL_MEAN ? 1.0f / (float)n : pooling == PN_POOL_SQRTN ? 1.0f / sqrtf((float)n) : 1.0f;
}

__global__ void pool_forward_kernel(struct pn_pool_view v, unsigned lanes, const float *rows, float *embedded) {
    const size_t dim = v.wide + v.k, groups = (size_t)gridDim.x * (blockDim.x / lanes), all = v.n * v.f;
    const unsigned lane = threadIdx.x % lanes;
    for (size_t i = (size_t)blockIdx.x * (blockDim.x / lanes) + threadIdx.x / lanes; i < all; i += groups) {
        const size_t e = i / v.f, s = i - e * v.f;
        const uint32_t begin = v.begin[s * v.n + e], end = v.begin[s * v.n + e + 1];
        const float scale = end > begin ? pool_scale(v.pooling[s], end - begin) : 0;
        for (size_t d = lane; d < v.k; d += lanes) {
            float sum = 0;
            for (uint32_t at = begin; at < end; at++) sum += rows[(size_t)v.position[at] * dim + v.wide + d];
            embedded[i * v.k + d] = sum * scale;
        }
    }
}

__global__ void pool_linear_kernel(struct pn_pool_view v, const float *rows, float *linear) {
    const size_t dim = v.wide + v.k, e = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    float sum = 0;
    if (e < v.n)
        for (size_t s = threadIdx.x % 32; s < v.f; s += 32) {
            const uint32_t begin = v.begin[s * v.n + e], end = v.begin[s * v.n + e + 1];
            float w = 0;
            for (uint32_t at = begin; at < end; at++) w += rows[(size_t)v.position[at] * dim];
            sum += end > begin ? w * pool_scale(v.pooling[s], end - begin) : 0;
        }
    sum = pn_sum_lanes(sum, 32);
    if (e < v.n && threadIdx.x % 32 == 0) linear[e] = v.linear_scale * sum;
}

static void pool_forward(struct pn_ctx *c, const struct pn_pool_view *v, const float *rows, float *linear, float *embedded) {
    if (v->n == 0) return;
    if (v->k > 0 && v->f > 0) {
        const unsigned lanes = pn_lanes(v->k), blocks = pn_blocks(v->n * v->f, 256 / lanes);
        PN_LAUNCH(pool_forward_kernel, blocks < 1u << 20 ? blocks : 1u << 20, 256, 0, pn_compute(c), *v, lanes, rows, embedded);
    }
    if (v->wide) PN_LAUNCH(pool_linear_kernel, pn_blocks(v->n, 8), 256, 0, pn_compute(c), *v, rows, linear);
    pn_launched(c, "pool forward");
}

/* What an entry adds to float d of its row. */
struct from_embedded {
    struct pn_pool_view v;
    const float *linear_gradient, *embedded_gradient;
    __device__ float operator()(uint32_t entry, size_t d) const {
        const size_t e = entry / v.f, s = entry - e * v.f;
        const float scale = pool_scale(v.pooling[s], v.begin[s * v.n + e + 1] - v.begin[s * v.n + e]);
        return v.wide && d == 0 ? scale * v.linear_scale * linear_gradient[e] : scale * embedded_gradient[(size_t)entry * v.k + d - v.wide];
    }
};
struct from_tokens {
    bool wide;
    size_t k;
    float gain;
    const float *g;
    __device__ float operator()(uint32_t entry, size_t d) const { return wide && d == 0 ? 0 : gain * g[(size_t)entry * k + d - wide]; }
};

static void pool_backward(struct pn_ctx *c, const struct pn_pool_view *v, const struct pn_inverse *inverse, const float *linear_gradient, const float *embedded_gradient,
                          float *row_gradients) {
    const struct from_embedded f = {*v, linear_gradient, embedded_gradient};
    pn_by_row(c, inverse, v->wide + v->k, f, row_gradients, "pool backward");
}
static void tokens_backward(struct pn_ctx *c, const struct pn_inverse *inverse, bool wide, size_t k, float gain, const float *g, float *row_gradients) {
    const struct from_tokens f = {wide, k, gain, g};
    pn_by_row(c, inverse, wide + k, f, row_gradients, "tokens backward");
}

struct from_sources {
    struct from_embedded pooled;
    size_t n_tokens;
    float gain;
    const float *tokens[PN_TOKEN_FIELDS];
    __device__ float operator()(uint32_t entry, size_t d) const {
        const size_t n = pooled.v.n * pooled.v.f;
        if (entry < n) return pooled(entry, d);
        const size_t q = (entry - n) / n_tokens, t = entry - n - q * n_tokens;
        const struct from_tokens f = {pooled.v.wide, pooled.v.k, gain, tokens[q]};
        return f((uint32_t)t, d);
    }
};
static void row_norms(struct pn_ctx *c, const struct pn_touches *t, const struct pn_row_sources *s, double *squares) {
    struct from_sources f = {{s->pool, s->linear, s->embedded}, s->n_tokens, s->gain, {}};
    for (size_t q = 0; q < PN_TOKEN_FIELDS; q++) f.tokens[q] = s->tokens[q];
    pn_by_touch(c, t, s->pool.wide + s->pool.k, f, squares, "norms of rows");
}

void pn_fill_pool(struct pn_backend *t) {
    t->row_norms = row_norms;
    t->pool_forward = pool_forward;
    t->pool_backward = pool_backward;
    t->tokens_backward = tokens_backward;
}
