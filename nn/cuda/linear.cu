/* Linear layers, cross layers, a column of weights. Products go through gemm.cu, bias and relu forward as its epilogue.
 *
 * Threads. Backward's relu mask, its columns' sums (db) and the products by element of cross are one pass each: columns in 32s, rows in pieces (pn_columns); the mask is
 * written in the pass that sums. */
#include "nn/cuda/runtime.cuh"

static void linear_forward(struct pn_ctx *c, const float *in, size_t n, size_t from, size_t width, const float *w, const float *b, bool relu, float *out) {
    if (n == 0) return;
    struct pn_gemm g = {};
    g.m = n, g.n = width, g.k = from, g.lda = from, g.ldb = width, g.ldc = width;
    g.alpha = 1, g.a = in, g.b = w, g.bias = b, g.relu = relu, g.c = out;
    pn_multiply(c, &g);
}

struct masked_sum { /* g = out > 0 ? g : 0, and its columns' sums */
    const float *out;
    float *g;
    size_t width;
    __device__ struct pn_two operator()(size_t e, size_t d) const {
        const size_t i = e * width + d;
        if (out != NULL && !(out[i] > 0)) g[i] = 0;
        const struct pn_two v = {g[i], 0};
        return v;
    }
};
struct add_a {
    float *to; /* NULL: only the mask was wanted */
    __device__ void operator()(size_t d, struct pn_two sum) const {
        if (to != NULL) to[d] += sum.a;
    }
};
static void linear_backward(struct pn_ctx *c, const float *in, const float *out, size_t n, size_t from, size_t width, const float *w, bool relu, float *g, float *dw, float *db,
                            float *din) {
    if (n == 0) return;
    if (relu || db != NULL) {
        const struct masked_sum f = {relu ? out : NULL, g, width};
        const struct add_a done = {db};
        pn_columns(c, n, width, f, done, "linear backward");
    }
    struct pn_gemm m = {};
    m.trans_a = true, m.m = from, m.n = width, m.k = n, m.lda = from, m.ldb = width, m.ldc = width;
    m.alpha = 1, m.beta = 1, m.a = in, m.b = g, m.c = dw, m.kind_b = PN_GRADIENT;
    pn_multiply(c, &m);
    if (din == NULL) return;
    struct pn_gemm i = {};
    i.trans_b = true, i.m = n, i.n = from, i.k = width, i.lda = width, i.ldb = width, i.ldc = from;
    i.alpha = 1, i.beta = 1, i.a = g, i.b = w, i.c = din, i.kind_a = PN_GRADIENT;
    pn_multiply(c, &i);
}

struct cross_out {
    const float *x0, *x, *product;
    float *out;
    __device__ void operator()(size_t i) const { out[i] = x0[i] * product[i] + x[i]; }
};
static void cross_forward(struct pn_ctx *c, const float *x0, const float *x, size_t n, size_t width, const float *w, const float *b, float *product, float *out) {
    linear_forward(c, x, n, width, width, w, b, false, product);
    const struct cross_out f = {x0, x, product, out};
    pn_each(c, n * width, f, "cross forward");
}
struct cross_back { /* one thread an element: dx0 and dx may be one array */
    const float *x0, *product, *g;
    float *scratch, *dx0, *dx;
    __device__ void operator()(size_t i) const {
        scratch[i] = g[i] * x0[i];
        dx0[i] += g[i] * product[i];
        dx[i] += g[i];
    }
};
static void cross_backward(struct pn_ctx *c, const float *x0, const float *x, const float *product, const float *g, size_t n, size_t width, const float *w, float *scratch,
                           float *dw, float *db, float *dx0, float *dx) {
    const struct cross_back f = {x0, product, g, scratch, dx0, dx};
    pn_each(c, n * width, f, "cross backward");
    linear_backward(c, x, NULL, n, width, width, w, false, scratch, dw, db, dx);
}

__global__ void weight_kernel(const float *in, size_t n, size_t from, const float *w, unsigned lanes, float *out) {
    const size_t e = (size_t)blockIdx.x * (blockDim.x / lanes) + threadIdx.x / lanes;
    float sum = 0;
    if (e < n)
        for (size_t d = threadIdx.x % lanes; d < from; d += lanes) sum += in[e * from + d] * w[d];
    sum = pn_sum_lanes(sum, lanes);
    if (e < n && threadIdx.x % lanes == 0) out[e] = sum;
}
static void weight_forward(struct pn_ctx *c, const float *in, size_t n, size_t from, const float *w, float *out) {
    if (n == 0) return;
    const unsigned lanes = pn_lanes(from);
    PN_LAUNCH(weight_kernel, pn_blocks(n, 256 / lanes), 256, 0, pn_compute(c), in, n, from, w, lanes, out);
    pn_launched(c, "weight forward");
}
struct weighted {
    const float *in, *g, *w;
    float *din;
    size_t from;
    __device__ struct pn_two operator()(size_t e, size_t d) const {
        const struct pn_two v = {g[e] * in[e * from + d], 0};
        din[e * from + d] += g[e] * w[d];
        return v;
    }
};
static void weight_backward(struct pn_ctx *c, const float *in, const float *g, size_t n, size_t from, const float *w, float *dw, float *din) {
    const struct weighted f = {in, g, w, din, from};
    const struct add_a done = {dw};
    pn_columns(c, n, from, f, done, "weight backward");
}
static void column_sums(struct pn_ctx *c, const float *g, size_t n, size_t width, float *out) {
    const struct masked_sum f = {NULL, (float *)g, width}; /* no mask: only read */
    const struct add_a done = {out};
    pn_columns(c, n, width, f, done, "column sums");
}

void pn_fill_linear(struct pn_backend *t) {
    t->linear_forward = linear_forward;
    t->linear_backward = linear_backward;
    t->cross_forward = cross_forward;
    t->cross_backward = cross_backward;
    t->weight_forward = weight_forward;
    t->weight_backward = weight_backward;
    t->column_sums = column_sums;
}
