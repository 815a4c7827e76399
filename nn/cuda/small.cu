/* Dropout, copies, products by element. Threads: one an element; dropout one a draw, which decides four elements, as on the CPU. */
#include "nn/cuda/runtime.cuh"

struct drop {
    const float *in;
    size_t n;
    float scale;
    uint64_t limit, salt;
    const uint64_t *seed;
    const uint32_t *first;
    size_t width;
    bool add;
    float *out;
    __device__ void operator()(size_t i) const {
        const size_t from = *first * width, lead = from % 4, at = 4 * i; /* the CPU draws for every fourth element of the batch */
        const uint64_t r = pn_mix(pn_mix(*seed + 0x1000 * salt) + from - lead + at);
        for (size_t j = 0; j < 4; j++) {
            const size_t k = at + j - lead;
            if (at + j < lead || k >= n) continue;
            const float mask = (r >> (16 * j) & 0xffff) < limit ? 0 : scale;
            out[k] = add ? out[k] + in[k] * mask : in[k] * mask;
        }
    }
};
static void dropout(struct pn_ctx *c, const float *in, size_t n, float rate, const uint64_t *seed, uint64_t salt, const uint32_t *first, size_t width, bool add, float *out) {
    const struct drop f = {in, n, 1.0f / (1.0f - rate), (uint64_t)((double)rate * 65536.0), salt, seed, first, width, add, out};
    pn_each(c, (n + 6) / 4, f, "dropout"); /* whatever of the first draw is another part's: a captured step serves any */
}

struct copy_rows {
    const float *in;
    size_t in_step, width, out_step;
    bool add;
    float *out;
    __device__ void operator()(size_t i) const {
        const size_t r = i / width, d = i - r * width;
        const float x = in[r * in_step + d];
        float *to = out + r * out_step + d;
        *to = add ? *to + x : x;
    }
};
static void copy(struct pn_ctx *c, const float *in, size_t in_step, size_t n, size_t width, bool add, float *out, size_t out_step) {
    const struct copy_rows f = {in, in_step, width, out_step, add, out};
    pn_each(c, n * width, f, "copy");
}
struct fill_with {
    const float *value;
    float *out;
    __device__ void operator()(size_t i) const { out[i] = *value; }
};
static void fill(struct pn_ctx *c, const float *value, size_t n, float *out) {
    const struct fill_with f = {value, out};
    pn_each(c, n, f, "fill");
}
struct scale_by {
    const float *factor;
    float *x;
    __device__ void operator()(size_t i) const { x[i] *= *factor; }
};
static void scale(struct pn_ctx *c, const float *factor, size_t n, float *x) {
    const struct scale_by f = {factor, x};
    pn_each(c, n, f, "scale");
}
struct product {
    const float *in;
    size_t width;
    float *out;
    __device__ void operator()(size_t i) const {
        const size_t e = i / width, d = i - e * width;
        out[i] = in[e * 2 * width + d] * in[e * 2 * width + width + d];
    }
};
static void product_forward(struct pn_ctx *c, const float *in, size_t n, size_t width, float *out) {
    const struct product f = {in, width, out};
    pn_each(c, n * width, f, "product forward");
}
struct product_back {
    const float *in, *g;
    size_t width;
    float *din;
    __device__ void operator()(size_t i) const {
        const size_t e = i / width, d = i - e * width, u = e * 2 * width + d, v = u + width;
        din[u] += g[i] * in[v];
        din[v] += g[i] * in[u];
    }
};
static void product_backward(struct pn_ctx *c, const float *in, const float *g, size_t n, size_t width, float *din) {
    const struct product_back f = {in, g, width, din};
    pn_each(c, n * width, f, "product backward");
}

void pn_fill_small(struct pn_backend *t) {
    t->dropout = dropout;
    t->scale = scale;
    t->copy = copy;
    t->fill = fill;
    t->product_forward = product_forward;
    t->product_backward = product_backward;
}
