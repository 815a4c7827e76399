/* Losses of tokens against rows. Threads: log loss a warp a token, lanes over its floats, one row after the other; softmax over shared rows a block a token, products by the
 * library. What rows get is summed by row, as pooling does. */
#include "nn/cuda/by_row.cuh"

__device__ static inline double token_log_loss(double z, double y) { return (z > 0 ? z : 0) - z * y + log1p(exp(-fabs(z))); }
__device__ static inline double token_sigmoid(double z) { return 1 / (1 + exp(-z)); }

__global__ void token_bce_kernel(const float *x, const float *rows, const uint32_t *begin, const uint32_t *row, size_t n_tokens, size_t k, double share, float *z, float *dx,
                                 double *each) {
    const size_t t = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    const unsigned lane = threadIdx.x % 32;
    if (t >= n_tokens) return; /* a whole warp */
    double sum = 0;
    for (uint32_t i = begin[t]; i < begin[t + 1]; i++) {
        const float *v = rows + (size_t)row[i] * k;
        float dot = 0;
        for (size_t d = lane; d < k; d += 32) dot += x[t * k + d] * v[d];
        dot = pn_sum_lanes(dot, 32);
        const double y = i == begin[t];
        const float g = (float)(share * (token_sigmoid((double)dot) - y));
        sum += share * token_log_loss((double)dot, y);
        for (size_t d = lane; d < k; d += 32) dx[t * k + d] += g * v[d];
        if (lane == 0) z[i] = g;
    }
    if (lane == 0) each[t] = sum;
}
struct token_each {
    const double *x;
    __device__ double operator()(size_t i) const { return x[i]; }
};
struct token_loss {
    double weight, *to;
    __device__ void operator()(double sum) const { *to = weight * sum; }
};
struct from_entries { /* entry i stands at token[i] */
    const uint32_t *token;
    const float *z, *x;
    size_t k;
    __device__ float operator()(uint32_t i, size_t d) const { return z[i] * x[(size_t)token[i] * k + d]; }
};
static void token_bce(struct pn_ctx *c, const struct pn_tokens_view *v, const struct pn_inverse *inverse, const float *x, const float *rows, double share, double weight, float *z,
                      float *dx, float *row_gradients, double *loss) {
    double *each = (double *)pn_scratch(c, (v->n_tokens + 1) * sizeof *each);
    if (each == NULL) return;
    if (v->n_tokens > 0) PN_LAUNCH(token_bce_kernel, pn_blocks(v->n_tokens, 8), 256, 0, pn_compute(c), x, rows, v->begin, v->row, v->n_tokens, v->k, share, z, dx, each);
    pn_launched(c, "log loss of tokens");
    const struct token_each f = {each};
    const struct token_loss done = {weight, loss};
    pn_sum(c, v->n_tokens, f, done, "sum of log loss");
    const struct from_entries g = {v->token, z, x, v->k};
    pn_by_row(c, inverse, v->k, g, row_gradients, "rows of tokens");
}

struct take_rows {
    const float *rows;
    const uint32_t *at;
    size_t k;
    float *out;
    __device__ void operator()(size_t i) const { out[i] = rows[(size_t)at[i / k] * k + i % k]; }
};
struct give_rows { /* each row once */
    const float *from;
    const uint32_t *at;
    size_t k;
    float *to;
    __device__ void operator()(size_t i) const { to[(size_t)at[i / k] * k + i % k] += from[i]; }
};
/* Block b: token first + b. logits row: in, then its gradients. */
__global__ void token_softmax_kernel(const float *x, const float *rows, const uint32_t *target, const uint32_t *at, size_t first, size_t n, size_t k, double share, float *logits,
                                     float *z, double *each) {
    PN_SHARED(double, part);
    const size_t t = first + blockIdx.x;
    float *row = logits + (size_t)blockIdx.x * n;
    const uint32_t own = target[t];
    if (own == UINT32_MAX) { /* all threads alike */
        for (size_t j = threadIdx.x; j < n; j += blockDim.x) row[j] = 0;
        if (threadIdx.x == 0) z[t] = 0, each[t] = 0;
        return;
    }
    double sum = 0;
    for (size_t d = threadIdx.x; d < k; d += blockDim.x) sum += (double)x[t * k + d] * (double)rows[(size_t)own * k + d];
    const double mine = pn_sum_block(sum, part);
    float most = (float)mine;
    for (size_t j = threadIdx.x; j < n; j += blockDim.x) {
        if (at[j] == own) row[j] = -INFINITY;
        most = row[j] > most ? row[j] : most;
    }
    most = pn_most_block(most, part);
    double total = 0;
    for (size_t j = threadIdx.x; j < n; j += blockDim.x) total += (double)(row[j] = expf(row[j] - most));
    const double own_share = exp(mine - (double)most), whole = pn_sum_block(total, part) + own_share;
    const float scale = (float)(share / whole);
    for (size_t j = threadIdx.x; j < n; j += blockDim.x) row[j] *= scale;
    if (threadIdx.x == 0) {
        z[t] = (float)(share * (own_share / whole - 1));
        each[t] = share * (log(whole) - (mine - (double)most));
    }
}
struct toward_target {
    const float *z, *rows;
    const uint32_t *target;
    size_t k;
    float *dx;
    __device__ void operator()(size_t i) const {
        const size_t t = i / k;
        if (target[t] != UINT32_MAX) dx[i] += z[t] * rows[(size_t)target[t] * k + i % k];
    }
};
struct from_targets { /* entry t is a token */
    const float *z, *x;
    size_t k;
    __device__ float operator()(uint32_t t, size_t d) const { return z[t] * x[(size_t)t * k + d]; }
};
static void token_softmax(struct pn_ctx *c, const struct pn_tokens_view *v, const struct pn_inverse *inverse, const float *x, const float *rows, double share, double weight, float *z,
                          float *scratch, float *dx, float *row_gradients, double *loss) {
    const size_t n = v->n_at, k = v->k;
    float *side = scratch, *dside = side + n * k, *logits = dside + n * k;
    double *each = (double *)(z + (v->n_tokens + 1) / 2 * 2); /* the library's products take the context's scratch */
    const struct take_rows take = {rows, v->at, k, side};
    const struct give_rows give = {dside, v->at, k, row_gradients};
    pn_each(c, n * k, take, "shared rows");
    if (n > 0) pn_check(c, cudaMemsetAsync(dside, 0, n * k * sizeof *dside, pn_compute(c)), "shared rows");
    for (size_t first = 0; first < v->n_tokens; first += PN_TOKEN_CHUNK) {
        const size_t m = v->n_tokens - first < PN_TOKEN_CHUNK ? v->n_tokens - first : PN_TOKEN_CHUNK;
        struct pn_gemm to = {}, back = {}, rowed = {};
        to.trans_b = true, to.m = m, to.n = n, to.k = k, to.lda = to.ldb = k, to.ldc = n, to.alpha = 1, to.a = x + first * k, to.b = side, to.c = logits;
        if (n > 0) pn_multiply(c, &to);
        PN_LAUNCH(token_softmax_kernel, (unsigned)m, 256, 256 * sizeof(double), pn_compute(c), x, rows, v->target, v->at, first, n, k, share, logits, z, each);
        pn_launched(c, "softmax of tokens");
        if (n == 0) continue;
        back.m = m, back.n = k, back.k = n, back.lda = n, back.ldb = back.ldc = k, back.alpha = back.beta = 1, back.a = logits, back.b = side, back.c = dx + first * k;
        back.kind_a = PN_GRADIENT;
        pn_multiply(c, &back);
        rowed.trans_a = true, rowed.m = n, rowed.n = k, rowed.k = m, rowed.lda = n, rowed.ldb = rowed.ldc = k, rowed.alpha = rowed.beta = 1, rowed.a = logits, rowed.b = x + first * k;
        rowed.c = dside, rowed.kind_a = PN_GRADIENT;
        pn_multiply(c, &rowed);
    }
    const struct token_each f = {each};
    const struct token_loss done = {weight, loss};
    pn_sum(c, v->n_tokens, f, done, "sum of the softmax");
    const struct toward_target t = {z, rows, v->target, k, dx};
    const struct from_targets g = {z, x, k};
    pn_each(c, v->n_tokens * k, t, "targets");
    pn_by_row(c, inverse, k, g, row_gradients, "rows of targets");
    pn_each(c, n * k, give, "shared rows");
}

__global__ void token_scores_kernel(const float *x, const float *rows, const uint32_t *target, const uint32_t *begin, size_t n, size_t k, float *scores) {
    const size_t e = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (e >= n) return; /* a whole warp */
    const size_t last = begin[e + 1] - begin[0];
    const bool there = begin[e + 1] > begin[e] && target[last - 1] != UINT32_MAX;
    float dot = 0;
    for (size_t d = threadIdx.x % 32; there && d < k; d += 32) dot += x[(last - 1) * k + d] * rows[(size_t)target[last - 1] * k + d];
    dot = pn_sum_lanes(dot, 32);
    if (threadIdx.x % 32 == 0) scores[e] = there ? (float)token_sigmoid((double)dot) : 0.5f;
}
static void token_scores(struct pn_ctx *c, const float *x, const float *rows, const uint32_t *target, const uint32_t *begin, size_t n, size_t k, float *scores) {
    if (n == 0) return;
    PN_LAUNCH(token_scores_kernel, pn_blocks(n, 8), 256, 0, pn_compute(c), x, rows, target, begin, n, k, scores);
    pn_launched(c, "scores of tokens");
}

void pn_fill_sasrec(struct pn_backend *t) {
    t->token_bce = token_bce;
    t->token_softmax = token_softmax;
    t->token_scores = token_scores;
}
