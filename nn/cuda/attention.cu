/* Attention inside each example, without its matrix of weights: softmax as the keys pass by (Milakov and Gimelshein 2018; Dao et al. 2022), for the short sequences of
 * recommenders. Forward keeps the logarithm of each row's sum; backward computes the weights again from it, and takes rowsum(dW * W) as g . out (Dao et al. 2022, eq. 4).
 *
 * Threads. A block is one (example, head); a thread is one query (of forward and dq) or one key (of dk and dv), with its vectors in registers; the others' vectors pass
 * through shared memory, TILE at a time. D is the head's width, rounded up to 8, 16, 32, 64 or 128; what is beyond it is 0. */
#include "nn/cuda/runtime.cuh"

enum { TILE = 32 };

struct attention {
    const float *qkv;
    const uint32_t *begin;
    size_t width, heads, d;
    bool causal;
    float scale;
};
__device__ static inline size_t first_of(const struct attention &a) { return a.begin[blockIdx.x] - a.begin[0]; }
__device__ static inline size_t tokens_of(const struct attention &a) { return a.begin[blockIdx.x + 1] - a.begin[blockIdx.x]; }

/* Rows [from, from + TILE) of what (0 q, 1 k, 2 v) into tile; rows past m are zeros. */
template <int D> __device__ static inline void load_tile(const struct attention &a, size_t first, size_t m, size_t from, int what, float *tile) {
    for (unsigned i = threadIdx.x; i < TILE * D; i += blockDim.x) {
        const size_t row = from + i / D, c = i % D;
        tile[i] = row < m && c < a.d ? a.qkv[(first + row) * 3 * a.width + (size_t)what * a.width + blockIdx.y * a.d + c] : 0;
    }
}
template <int D> __device__ static inline void load_own(const float *from, size_t d, bool there, float *x) {
#pragma unroll
    for (int c = 0; c < D; c++) x[c] = there && (size_t)c < d ? from[c] : 0;
}

template <int D> __global__ void attention_forward_kernel(struct attention a, float *kept, float *out) {
    PN_SHARED(float, keys);
    float *values = keys + TILE * D;
    const size_t first = first_of(a), m = tokens_of(a), h = blockIdx.y;
    for (size_t base = 0; base < m; base += blockDim.x) {
        const size_t i = base + threadIdx.x;
        const bool there = i < m;
        float q[D], acc[D], most = -INFINITY, sum = 0;
        load_own<D>(a.qkv + (first + (there ? i : 0)) * 3 * a.width + h * a.d, a.d, there, q);
#pragma unroll
        for (int c = 0; c < D; c++) acc[c] = 0;
        for (size_t from = 0; from < m; from += TILE) {
            __syncthreads();
            load_tile<D>(a, first, m, from, 1, keys);
            load_tile<D>(a, first, m, from, 2, values);
            __syncthreads();
            const size_t end = a.causal && i + 1 < m ? i + 1 : m;
            for (size_t j = from; there && j < from + TILE && j < end; j++) {
                const float *key = keys + (j - from) * D, *value = values + (j - from) * D;
                float z = 0;
#pragma unroll
                for (int c = 0; c < D; c++) z += q[c] * key[c];
                z *= a.scale;
                const float top = z > most ? z : most, old = expf(most - top), w = expf(z - top);
                sum = sum * old + w;
#pragma unroll
                for (int c = 0; c < D; c++) acc[c] = acc[c] * old + w * value[c];
                most = top;
            }
        }
        if (!there) continue;
#pragma unroll
        for (int c = 0; c < D; c++)
            if ((size_t)c < a.d) out[(first + i) * a.width + h * a.d + c] = acc[c] / sum;
        kept[(first + i) * a.heads + h] = most + logf(sum);
    }
}

/* delta[token * heads + head] = g . out */
struct row_delta {
    const float *out, *g;
    size_t width, heads, d;
    float *delta;
    __device__ void operator()(size_t i) const {
        const size_t t = i / heads, h = i % heads;
        float sum = 0;
        for (size_t c = 0; c < d; c++) sum += out[t * width + h * d + c] * g[t * width + h * d + c];
        delta[i] = sum;
    }
};
__global__ void delta_kernel(const uint32_t *begin, size_t n, struct row_delta f) {
    const size_t all = (size_t)(begin[n] - begin[0]) * f.heads;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < all; i += (size_t)gridDim.x * blockDim.x) f(i);
}

template <int D> __global__ void attention_dq_kernel(struct attention a, const float *kept, const float *delta, const float *g, float *dqkv) {
    PN_SHARED(float, keys);
    float *values = keys + TILE * D;
    const size_t first = first_of(a), m = tokens_of(a), h = blockIdx.y;
    for (size_t base = 0; base < m; base += blockDim.x) {
        const size_t i = base + threadIdx.x, own = first + (i < m ? i : 0);
        const bool there = i < m;
        float q[D], go[D], dq[D];
        load_own<D>(a.qkv + own * 3 * a.width + h * a.d, a.d, there, q);
        load_own<D>(g + own * a.width + h * a.d, a.d, there, go);
#pragma unroll
        for (int c = 0; c < D; c++) dq[c] = 0;
        const float log_sum = kept[own * a.heads + h], del = delta[own * a.heads + h];
        for (size_t from = 0; from < m; from += TILE) {
            __syncthreads();
            load_tile<D>(a, first, m, from, 1, keys);
            load_tile<D>(a, first, m, from, 2, values);
            __syncthreads();
            const size_t end = a.causal && i + 1 < m ? i + 1 : m;
            for (size_t j = from; there && j < from + TILE && j < end; j++) {
                const float *key = keys + (j - from) * D, *value = values + (j - from) * D;
                float z = 0, dw = 0;
#pragma unroll
                for (int c = 0; c < D; c++) z += q[c] * key[c], dw += go[c] * value[c];
                const float ds = a.scale * expf(a.scale * z - log_sum) * (dw - del);
#pragma unroll
                for (int c = 0; c < D; c++) dq[c] += ds * key[c];
            }
        }
        if (!there) continue;
#pragma unroll
        for (int c = 0; c < D; c++)
            if ((size_t)c < a.d) dqkv[own * 3 * a.width + h * a.d + c] += dq[c];
    }
}
template <int D> __global__ void attention_dkv_kernel(struct attention a, const float *kept, const float *delta, const float *g, float *dqkv) {
    PN_SHARED(float, queries);
    float *gs = queries + TILE * D, *log_sums = gs + TILE * D, *deltas = log_sums + TILE;
    const size_t first = first_of(a), m = tokens_of(a), h = blockIdx.y;
    for (size_t base = 0; base < m; base += blockDim.x) {
        const size_t j = base + threadIdx.x, own = first + (j < m ? j : 0);
        const bool there = j < m;
        float key[D], value[D], dk[D], dv[D];
        load_own<D>(a.qkv + own * 3 * a.width + a.width + h * a.d, a.d, there, key);
        load_own<D>(a.qkv + own * 3 * a.width + 2 * a.width + h * a.d, a.d, there, value);
#pragma unroll
        for (int c = 0; c < D; c++) dk[c] = dv[c] = 0;
        for (size_t from = 0; from < m; from += TILE) {
            __syncthreads();
            load_tile<D>(a, first, m, from, 0, queries);
            for (unsigned i = threadIdx.x; i < TILE * D; i += blockDim.x) {
                const size_t row = from + i / D, c = i % D;
                gs[i] = row < m && c < a.d ? g[(first + row) * a.width + h * a.d + c] : 0;
            }
            for (unsigned i = threadIdx.x; i < TILE; i += blockDim.x)
                if (from + i < m) {
                    log_sums[i] = kept[(first + from + i) * a.heads + h];
                    deltas[i] = delta[(first + from + i) * a.heads + h];
                }
            __syncthreads();
            const size_t start = a.causal && j > from ? j : from;
            for (size_t i = start; there && i < from + TILE && i < m; i++) {
                const float *q = queries + (i - from) * D, *go = gs + (i - from) * D;
                float z = 0, dw = 0;
#pragma unroll
                for (int c = 0; c < D; c++) z += q[c] * key[c], dw += go[c] * value[c];
                const float w = expf(a.scale * z - log_sums[i - from]), ds = a.scale * w * (dw - deltas[i - from]);
#pragma unroll
                for (int c = 0; c < D; c++) {
                    dk[c] += ds * q[c];
                    dv[c] += w * go[c];
                }
            }
        }
        if (!there) continue;
#pragma unroll
        for (int c = 0; c < D; c++)
            if ((size_t)c < a.d) {
                dqkv[own * 3 * a.width + a.width + h * a.d + c] += dk[c];
                dqkv[own * 3 * a.width + 2 * a.width + h * a.d + c] += dv[c];
            }
    }
}

template <int D> static void forward_of(struct pn_ctx *c, const struct attention &a, size_t n, unsigned threads, float *kept, float *out) {
    PN_LAUNCH(attention_forward_kernel<D>, dim3((unsigned)n, (unsigned)a.heads), threads, 2 * TILE * D * sizeof(float), pn_compute(c), a, kept, out);
}
template <int D> static void backward_of(struct pn_ctx *c, const struct attention &a, size_t n, unsigned threads, const float *kept, const float *delta, const float *g, float *dqkv) {
    PN_LAUNCH(attention_dq_kernel<D>, dim3((unsigned)n, (unsigned)a.heads), threads, 2 * TILE * D * sizeof(float), pn_compute(c), a, kept, delta, g, dqkv);
    PN_LAUNCH(attention_dkv_kernel<D>, dim3((unsigned)n, (unsigned)a.heads), threads, (2 * TILE * D + 2 * TILE) * sizeof(float), pn_compute(c), a, kept, delta, g, dqkv);
}
static unsigned threads_for(size_t most) { return most <= 32 ? 32 : most <= 64 ? 64 : 128; }
static struct attention of(const float *qkv, const uint32_t *begin, size_t width, size_t heads, bool causal) {
    struct attention a = {qkv, begin, width, heads, width / heads, causal, 1 / sqrtf((float)(width / heads))};
    return a;
}
static void attention_forward(struct pn_ctx *c, const float *qkv, const uint32_t *begin, size_t n, size_t width, size_t heads, size_t most, bool causal, float *kept, float *out) {
    if (n == 0) return;
    const struct attention a = of(qkv, begin, width, heads, causal);
    const unsigned threads = threads_for(most);
    if (a.d <= 8) forward_of<8>(c, a, n, threads, kept, out);
    else if (a.d <= 16) forward_of<16>(c, a, n, threads, kept, out);
    else if (a.d <= 32) forward_of<32>(c, a, n, threads, kept, out);
    else if (a.d <= 64) forward_of<64>(c, a, n, threads, kept, out);
    else if (a.d <= 128) forward_of<128>(c, a, n, threads, kept, out);
    else pn_broken(c, "attention heads wider than 128 are not computed on a GPU");
    pn_launched(c, "attention forward");
}
static void attention_backward(struct pn_ctx *c, const float *qkv, const float *kept, const float *out, const float *g, const uint32_t *begin, size_t n, size_t width, size_t heads,
                               size_t most, bool causal, float *scratch, float *dqkv) {
    if (n == 0) return;
    const struct attention a = of(qkv, begin, width, heads, causal);
    const unsigned threads = threads_for(most), blocks = pn_blocks(n * most * heads, 256);
    const struct row_delta f = {out, g, width, heads, a.d, scratch};
    PN_LAUNCH(delta_kernel, blocks < 65536 ? blocks : 65536, 256, 0, pn_compute(c), begin, n, f);
    if (a.d <= 8) backward_of<8>(c, a, n, threads, kept, scratch, g, dqkv);
    else if (a.d <= 16) backward_of<16>(c, a, n, threads, kept, scratch, g, dqkv);
    else if (a.d <= 32) backward_of<32>(c, a, n, threads, kept, scratch, g, dqkv);
    else if (a.d <= 64) backward_of<64>(c, a, n, threads, kept, scratch, g, dqkv);
    else if (a.d <= 128) backward_of<128>(c, a, n, threads, kept, scratch, g, dqkv);
    pn_launched(c, "attention backward");
}

void pn_fill_attention(struct pn_backend *t) {
    t->attention_forward = attention_forward;
    t->attention_backward = attention_backward;
}
