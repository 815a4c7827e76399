/* Layer and batch normalisation.
 *
 * Threads. Layer norm: a group of pn_lanes(width) lanes a row, means by shuffles. Batch norm: columns in 32s, rows in pieces (pn_columns), mean first and then the squares
 * around it, as the CPU does. Sums over rows that both backwards need are the same column sums. */
#include "nn/cuda/runtime.cuh"

__global__ void norm_forward_kernel(const float *in, size_t n, size_t width, unsigned lanes, const float *scale, const float *shift, bool relu, float *inverse, float *normal,
                                    float *out) {
    const size_t e = (size_t)blockIdx.x * (blockDim.x / lanes) + threadIdx.x / lanes;
    const unsigned lane = threadIdx.x % lanes;
    const float *x = in + e * width;
    float sum = 0, squares = 0;
    if (e < n)
        for (size_t d = lane; d < width; d += lanes) sum += x[d];
    const float mean = pn_sum_lanes(sum, lanes) / (float)width;
    if (e < n)
        for (size_t d = lane; d < width; d += lanes) squares += (x[d] - mean) * (x[d] - mean);
    const float inv = 1.0f / sqrtf(pn_sum_lanes(squares, lanes) / (float)width + 1e-5f);
    if (e >= n) return;
    if (lane == 0) inverse[e] = inv;
    for (size_t d = lane; d < width; d += lanes) {
        const float h = (x[d] - mean) * inv, y = h * scale[d] + shift[d];
        normal[e * width + d] = h;
        out[e * width + d] = relu && y < 0 ? 0 : y;
    }
}
static void norm_forward(struct pn_ctx *c, const float *in, size_t n, size_t width, const float *scale, const float *shift, bool relu, float *inverse, float *normal, float *out) {
    if (n == 0) return;
    const unsigned lanes = pn_lanes(width);
    PN_LAUNCH(norm_forward_kernel, pn_blocks(n, 256 / lanes), 256, 0, pn_compute(c), in, n, width, lanes, scale, shift, relu, inverse, normal, out);
    pn_launched(c, "norm forward");
}

struct norm_sums { /* relu's mask, and the sums of g and g * normal over the rows */
    const float *out, *normal;
    float *g;
    size_t width;
    bool relu;
    __device__ struct pn_two operator()(size_t e, size_t d) const {
        const size_t i = e * width + d;
        if (relu && !(out[i] > 0)) g[i] = 0;
        const struct pn_two v = {g[i], g[i] * normal[i]};
        return v;
    }
};
struct add_both {
    float *a, *b;
    __device__ void operator()(size_t d, struct pn_two sum) const {
        a[d] += sum.a;
        b[d] += sum.b;
    }
};
__global__ void norm_backward_kernel(const float *inverse, const float *normal, size_t n, size_t width, unsigned lanes, const float *scale, const float *g, float *din) {
    const size_t e = (size_t)blockIdx.x * (blockDim.x / lanes) + threadIdx.x / lanes;
    const unsigned lane = threadIdx.x % lanes;
    const float *gi = g + e * width, *h = normal + e * width;
    float sum = 0, along = 0;
    if (e < n)
        for (size_t d = lane; d < width; d += lanes) {
            sum += gi[d] * scale[d];
            along += gi[d] * scale[d] * h[d];
        }
    sum = pn_sum_lanes(sum, lanes) / (float)width;
    along = pn_sum_lanes(along, lanes) / (float)width;
    if (e < n)
        for (size_t d = lane; d < width; d += lanes) din[e * width + d] += inverse[e] * (gi[d] * scale[d] - sum - h[d] * along);
}
static void norm_backward(struct pn_ctx *c, const float *out, const float *inverse, const float *normal, size_t n, size_t width, const float *scale, bool relu, float *g,
                          float *dscale, float *dshift, float *din) {
    if (n == 0) return;
    const struct norm_sums f = {out, normal, g, width, relu};
    const struct add_both done = {dshift, dscale};
    pn_columns(c, n, width, f, done, "norm backward");
    const unsigned lanes = pn_lanes(width);
    PN_LAUNCH(norm_backward_kernel, pn_blocks(n, 256 / lanes), 256, 0, pn_compute(c), inverse, normal, n, width, lanes, scale, g, din);
    pn_launched(c, "norm backward");
}

struct column_sum {
    const float *x;
    size_t width;
    __device__ struct pn_two operator()(size_t e, size_t d) const { const struct pn_two v = {x[e * width + d], 0}; return v; }
};
struct column_squares {
    const float *x, *mean;
    size_t width;
    __device__ struct pn_two operator()(size_t e, size_t d) const {
        const float h = x[e * width + d] - mean[d];
        const struct pn_two v = {h * h, 0};
        return v;
    }
};
struct put_mean {
    float n, *to;
    __device__ void operator()(size_t d, struct pn_two sum) const { to[d] = sum.a / n; }
};
struct batch_inverse {
    const float *running; /* NULL: own is the batch's */
    float *own;
    size_t width;
    __device__ void operator()(size_t d) const {
        if (running != NULL) {
            own[d] = running[d];
            own[width + d] = running[width + d];
        }
        const float v = own[width + d];
        own[2 * width + d] = 1.0f / sqrtf((v > 0 ? v : 0) + 1e-5f);
    }
};
struct batch_out {
    const float *in, *own, *scale, *shift;
    size_t width;
    bool relu;
    float *normal, *out;
    __device__ void operator()(size_t i) const {
        const size_t d = i % width;
        const float h = (in[i] - own[d]) * own[2 * width + d], y = h * scale[d] + shift[d];
        normal[i] = h;
        out[i] = relu && y < 0 ? 0 : y;
    }
};
static void batch_norm_forward(struct pn_ctx *c, const float *in, size_t n, size_t width, const float *scale, const float *shift, const float *running, bool training, bool relu,
                               float *own, float *normal, float *out) {
    if (n == 0) return;
    if (training) {
        const struct column_sum sum = {in, width};
        const struct put_mean mean = {(float)n, own}, variance = {(float)n, own + width};
        pn_columns(c, n, width, sum, mean, "batch norm mean");
        const struct column_squares squares = {in, own, width};
        pn_columns(c, n, width, squares, variance, "batch norm variance");
    }
    const struct batch_inverse inverse = {training ? NULL : running, own, width};
    pn_each(c, width, inverse, "batch norm");
    const struct batch_out f = {in, own, scale, shift, width, relu, normal, out};
    pn_each(c, n * width, f, "batch norm forward");
}

struct put_both {
    float *a, *b;
    __device__ void operator()(size_t d, struct pn_two sum) const {
        a[d] = sum.a;
        b[d] = sum.b;
    }
};
struct batch_back {
    const float *own, *normal, *scale, *g, *dscale, *dshift;
    size_t width;
    float share;
    float *din;
    __device__ void operator()(size_t i) const {
        const size_t d = i % width;
        din[i] += scale[d] * own[2 * width + d] * (g[i] - (dshift[d] + normal[i] * dscale[d]) * share);
    }
};
struct batch_running {
    const float *own, *running;
    size_t width;
    float unbiased;
    float *drunning;
    __device__ void operator()(size_t d) const {
        drunning[d] = 0.05f * (running[d] - own[d]);
        drunning[width + d] = 0.05f * (running[width + d] - own[width + d] * unbiased);
    }
};
static void batch_norm_backward(struct pn_ctx *c, const float *out, const float *own, const float *normal, size_t n, size_t width, const float *scale, const float *running,
                                bool relu, float *g, float *dscale, float *dshift, float *drunning, float *din) {
    if (n == 0) return;
    const struct norm_sums f = {out, normal, g, width, relu};
    const struct put_both done = {dshift, dscale};
    pn_columns(c, n, width, f, done, "batch norm sums");
    const struct batch_back back = {own, normal, scale, g, dscale, dshift, width, 1.0f / (float)n, din};
    pn_each(c, n * width, back, "batch norm backward");
    const struct batch_running moved = {own, running, width, n > 1 ? (float)n / (float)(n - 1) : 1, drunning};
    pn_each(c, width, moved, "batch norm running");
}

void pn_fill_norm(struct pn_backend *t) {
    t->norm_forward = norm_forward;
    t->norm_backward = norm_backward;
    t->batch_norm_forward = batch_norm_forward;
    t->batch_norm_backward = batch_norm_backward;
}
