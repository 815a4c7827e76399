/* Tokens, candidates, positions, summaries. Threads: one an element of what is written; what sums over tokens walks an example's (or a position's) tokens in order. */
#include "nn/cuda/runtime.cuh"

struct take_tokens {
    const float *rows;
    const uint32_t *row;
    size_t k, wide;
    float gain, *out;
    __device__ void operator()(size_t i) const {
        const size_t t = i / k, d = i - t * k;
        out[i] = row[t] == UINT32_MAX ? 0 : gain * rows[(size_t)row[t] * (wide + k) + wide + d];
    }
};
static void tokens_forward(struct pn_ctx *c, const float *rows, const uint32_t *row, size_t n_tokens, bool wide, size_t k, float gain, float *out) {
    const struct take_tokens f = {rows, row, k, wide, gain, out};
    pn_each(c, n_tokens * k, f, "tokens forward");
}
struct take_candidate {
    const float *x;
    const uint32_t *example;
    size_t from, at, k;
    float *out;
    __device__ void operator()(size_t i) const {
        const size_t t = i / k, d = i - t * k;
        out[i] = x[example[t] * from + at * k + d];
    }
};
static void candidate_forward(struct pn_ctx *c, const float *x, const uint32_t *example, size_t n_tokens, size_t from, size_t at, size_t k, float *out) {
    const struct take_candidate f = {x, example, from, at, k, out};
    pn_each(c, n_tokens * k, f, "candidate forward");
}
struct candidate_back {
    const float *g;
    const uint32_t *begin;
    size_t from, at, k;
    float *dx;
    __device__ void operator()(size_t i) const {
        const size_t e = i / k, d = i - e * k;
        float sum = 0;
        for (size_t t = begin[e] - begin[0]; t < begin[e + 1] - begin[0]; t++) sum += g[t * k + d];
        dx[e * from + at * k + d] += sum;
    }
};
static void candidate_backward(struct pn_ctx *c, const float *g, const uint32_t *begin, size_t n, size_t from, size_t at, size_t k, float *dx) {
    const struct candidate_back f = {g, begin, from, at, k, dx};
    pn_each(c, n * k, f, "candidate backward");
}
struct add_positions {
    const float *x;
    const uint32_t *left;
    size_t width;
    const float *p;
    float *out;
    __device__ void operator()(size_t i) const { out[i] = x[i] + p[left[i / width] * width + i % width]; }
};
static void positions_forward(struct pn_ctx *c, const float *x, const uint32_t *left, size_t n_tokens, size_t width, const float *p, float *out) {
    const struct add_positions f = {x, left, width, p, out};
    pn_each(c, n_tokens * width, f, "positions forward");
}
struct position_sums {
    const float *g;
    const uint32_t *begin;
    size_t n, width;
    float *dp;
    __device__ void operator()(size_t i) const {
        const size_t left = i / width, d = i - left * width;
        float sum = 0;
        for (size_t e = 0; e < n; e++)
            if (begin[e + 1] - begin[e] > left) sum += g[(begin[e + 1] - begin[0] - 1 - left) * width + d];
        dp[i] += sum;
    }
};
struct add_to {
    const float *g;
    float *dx;
    __device__ void operator()(size_t i) const { dx[i] += g[i]; }
};
static void positions_backward(struct pn_ctx *c, const float *g, const uint32_t *begin, size_t n, size_t most, size_t n_tokens, size_t width, float *dp, float *dx) {
    const struct add_to a = {g, dx};
    const struct position_sums f = {g, begin, n, width, dp};
    pn_each(c, n_tokens * width, a, "positions backward");
    pn_each(c, most * width, f, "positions sums");
}
struct summary {
    const float *x;
    const uint32_t *begin;
    size_t w, recent;
    float *place, *out;
    __device__ void operator()(size_t i) const {
        const size_t e = i / w, d = i - e * w, first = begin[e] - begin[0], m = begin[e + 1] - begin[e];
        float *o = out + e * (1 + recent) * w + d;
        size_t best = 0;
        for (size_t t = 1; t < m; t++)
            if (x[(first + t) * w + d] > x[(first + best) * w + d]) best = t;
        o[0] = m > 0 ? x[(first + best) * w + d] : 0;
        place[i] = (float)best;
        for (size_t r = 0; r < recent; r++) o[(1 + r) * w] = r < m ? x[(first + m - 1 - r) * w + d] : 0;
    }
};
static void summary_forward(struct pn_ctx *c, const float *x, const uint32_t *begin, size_t n, size_t width, size_t recent, float *place, float *out) {
    const struct summary f = {x, begin, width, recent, place, out};
    pn_each(c, n * width, f, "summary forward");
}
struct summary_back {
    const float *place, *g;
    const uint32_t *begin;
    size_t w, recent;
    float *dx;
    __device__ void operator()(size_t i) const {
        const size_t e = i / w, d = i - e * w, first = begin[e] - begin[0], m = begin[e + 1] - begin[e];
        const float *go = g + e * (1 + recent) * w + d;
        if (m > 0) dx[(first + (size_t)place[i]) * w + d] += go[0];
        for (size_t r = 0; r < recent && r < m; r++) dx[(first + m - 1 - r) * w + d] += go[(1 + r) * w];
    }
};
static void summary_backward(struct pn_ctx *c, const float *place, const float *g, const uint32_t *begin, size_t n, size_t width, size_t recent, float *dx) {
    const struct summary_back f = {place, g, begin, width, recent, dx};
    pn_each(c, n * width, f, "summary backward");
}

void pn_fill_sequence(struct pn_backend *t) {
    t->tokens_forward = tokens_forward;
    t->candidate_forward = candidate_forward;
    t->candidate_backward = candidate_backward;
    t->positions_forward = positions_forward;
    t->positions_backward = positions_backward;
    t->summary_forward = summary_forward;
    t->summary_backward = summary_backward;
}
