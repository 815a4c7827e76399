/* What models of two vectors take: the product of two rows, vectors of length 1, L2 of the examples' rows. Threads: a warp an example or vector, lanes over its floats; backward of
 * the product by row, as pooling does. */
#include "nn/cuda/by_row.cuh"
#include "nn/cuda/units.cuh"

__global__ void pair_forward_kernel(struct pn_pool_view v, const float *rows, float *out) {
    const size_t e = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, dim = v.wide + v.k;
    const unsigned lane = threadIdx.x % 32;
    float sum = 0;
    if (e < v.n) {
        const float *x = rows + (size_t)v.position[e] * dim, *y = rows + (size_t)v.position[v.n + e] * dim;
        for (size_t d = lane; d < v.k; d += 32) sum += x[v.wide + d] * y[v.wide + d];
        if (lane == 0 && v.wide) sum += v.linear_scale * (x[0] + y[0]);
    }
    sum = pn_sum_lanes(sum, 32);
    if (e < v.n && lane == 0) out[e] = sum;
}
static void pair_forward(struct pn_ctx *c, const struct pn_pool_view *v, const float *rows, float *out) {
    if (v->n == 0) return;
    PN_LAUNCH(pair_forward_kernel, pn_blocks(v->n, 8), 256, 0, pn_compute(c), *v, rows, out);
    pn_launched(c, "pair forward");
}
struct from_pair { /* entry e * 2 + s: example e's gradient times the other row */
    struct pn_pool_view v;
    const float *rows, *g;
    __device__ float operator()(uint32_t entry, size_t d) const {
        const size_t e = entry / 2, other = v.position[(1 - entry % 2) * v.n + e];
        return v.wide && d == 0 ? v.linear_scale * g[e] : g[e] * rows[other * (v.wide + v.k) + d];
    }
};
static void pair_backward(struct pn_ctx *c, const struct pn_pool_view *v, const struct pn_inverse *inverse, const float *rows, const float *g, float *row_gradients) {
    const struct from_pair f = {*v, rows, g};
    pn_by_row(c, inverse, v->wide + v->k, f, row_gradients, "pair backward");
}

static void pair_norms(struct pn_ctx *c, const struct pn_touches *t, const struct pn_pool_view *v, const float *rows, const float *g, double *squares) {
    const struct from_pair f = {*v, rows, g};
    pn_by_touch(c, t, v->wide + v->k, f, squares, "norms of pairs");
}

__global__ void unit_forward_kernel(const float *x, size_t n, size_t k, float *out) {
    const size_t i = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    float squares = 0;
    for (size_t d = threadIdx.x % 32; i < n && d < k; d += 32) squares += x[i * k + d] * x[i * k + d];
    squares = pn_sum_lanes(squares, 32);
    const float share = 1 / sqrtf(squares + 1e-12f);
    for (size_t d = threadIdx.x % 32; i < n && d < k; d += 32) out[i * k + d] = x[i * k + d] * share;
}
static void unit_forward(struct pn_ctx *c, const float *x, size_t n, size_t k, float *out) {
    if (n == 0) return;
    PN_LAUNCH(unit_forward_kernel, pn_blocks(n, 8), 256, 0, pn_compute(c), x, n, k, out);
    pn_launched(c, "unit forward");
}
__global__ void unit_backward_kernel(const float *x, const float *unit, const float *g, size_t n, size_t k, float *dx) {
    const size_t i = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    float squares = 0, along = 0;
    for (size_t d = threadIdx.x % 32; i < n && d < k; d += 32) {
        squares += x[i * k + d] * x[i * k + d];
        along += g[i * k + d] * unit[i * k + d];
    }
    squares = pn_sum_lanes(squares, 32);
    along = pn_sum_lanes(along, 32);
    const float share = 1 / sqrtf(squares + 1e-12f);
    for (size_t d = threadIdx.x % 32; i < n && d < k; d += 32) dx[i * k + d] += share * (g[i * k + d] - along * unit[i * k + d]);
}
static void unit_backward(struct pn_ctx *c, const float *x, const float *unit, const float *g, size_t n, size_t k, float *dx) {
    if (n == 0) return;
    PN_LAUNCH(unit_backward_kernel, pn_blocks(n, 8), 256, 0, pn_compute(c), x, unit, g, n, k, dx);
    pn_launched(c, "unit backward");
}

/* Rows beyond *n_rows are what a larger batch has left. */
struct decay_each {
    const float *rows, *share;
    const uint32_t *n_rows;
    size_t dim;
    float *gradients;
    __device__ void operator()(size_t i) const {
        if (i / dim < *n_rows) gradients[i] += share[i / dim] * rows[i];
    }
};
struct decay_loss {
    const float *rows, *share;
    const uint32_t *n_rows;
    size_t dim;
    __device__ double operator()(size_t r) const {
        if (r >= *n_rows || share[r] == 0) return 0;
        double squares = 0;
        for (size_t d = 0; d < dim; d++) squares += (double)rows[r * dim + d] * (double)rows[r * dim + d];
        return 0.5 * (double)share[r] * squares;
    }
};
struct add_weighted {
    double weight, *to;
    __device__ void operator()(double sum) const { *to += weight * sum; }
};
static void decay(struct pn_ctx *c, const float *rows, const float *share, const uint32_t *n_rows, size_t most, size_t dim, double weight, float *gradients, double *loss) {
    const struct decay_each each = {rows, share, n_rows, dim, gradients};
    pn_each(c, most * dim, each, "decay");
    const struct decay_loss f = {rows, share, n_rows, dim};
    const struct add_weighted done = {weight, loss};
    if (most > 0) pn_sum(c, most, f, done, "loss of the decay");
}

void pn_fill_pair(struct pn_backend *t) {
    t->pair_forward = pair_forward;
    t->pair_backward = pair_backward;
    t->pair_norms = pair_norms;
    t->unit_forward = unit_forward;
    t->unit_backward = unit_backward;
    t->decay = decay;
}
