/* The table of nn/backend.h over the functions of blocks.h: the reference that kernels are held against. Nothing is queued: each call is done when it returns. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "nn/backend.h"
#include "nn/blocks.h"
#include "nn/cache.h"

struct pn_ctx { int nothing; };

static size_t devices(struct pn_error *err) { (void)err; return 1; }
static enum pn_result open_(struct pn_ctx **out, size_t device, enum pn_precision precision, struct pn_error *err) {
    (void)device, (void)precision;
    *out = calloc(1, sizeof **out);
    return *out != NULL ? PN_OK : pn_fail(err, PN_NO_MEMORY, "no memory for a context");
}
static void close_(struct pn_ctx *c) { free(c); }
static void *alloc(struct pn_ctx *c, size_t n) { (void)c; return malloc(n > 0 ? n : 1); }
static void release(struct pn_ctx *c, void *p) { (void)c; free(p); }
static void upload(struct pn_ctx *c, void *to, const void *host, size_t n) { (void)c; if (n > 0) memcpy(to, host, n); }
static void download(struct pn_ctx *c, void *host, const void *from, size_t n) { (void)c; if (n > 0) memcpy(host, from, n); }
static void clear(struct pn_ctx *c, void *p, size_t n) { (void)c; if (n > 0) memset(p, 0, n); }
static void mark(struct pn_ctx *c, enum pn_stream s, size_t event) { (void)c, (void)s, (void)event; }
static enum pn_result await(struct pn_ctx *c, size_t event, struct pn_error *err) { (void)c, (void)event, (void)err; return PN_OK; }
static enum pn_result finish(struct pn_ctx *c, struct pn_error *err) { (void)c, (void)err; return PN_OK; }
static double elapsed(struct pn_ctx *c, size_t from, size_t to) { (void)c, (void)from, (void)to; return 0; }
static bool capture(struct pn_ctx *c) { (void)c; return false; }
static void *captured(struct pn_ctx *c) { (void)c; return NULL; }
static void graph(struct pn_ctx *c, void *g) { (void)c, (void)g; }

/* ---- several contexts: each a device of its own that happens to have the same memory; the sum is in their order ---- */
struct pn_group { size_t n; };
static enum pn_result join(struct pn_group **out, struct pn_ctx *const *members, size_t n, struct pn_error *err) {
    (void)members;
    if ((*out = calloc(1, sizeof **out)) == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for a group");
    (*out)->n = n;
    return PN_OK;
}
static void leave(struct pn_group *g, bool broken) { (void)broken; free(g); }
static void all_reduce(struct pn_group *g, float *const *x, size_t n) {
    for (size_t d = 0; d < n; d++) {
        float sum = 0;
        for (size_t i = 0; i < g->n; i++) sum += x[i][d];
        for (size_t i = 0; i < g->n; i++) x[i][d] = sum;
    }
}

/* ---- pooling: as cpu/pool.c, over the device's arrays ---- */
static float scale_of(uint32_t pooling, uint32_t n) {
    return n == 1 ? 1.0f : pooling == PN_POOL_MEAN ? 1.0f / (float)n : pooling == PN_POOL_SQRTN ? 1.0f / sqrtf((float)n) : 1.0f;
}
static void pool_forward(struct pn_ctx *c, const struct pn_pool_view *v, const float *rows, float *linear, float *embedded) {
    (void)c;
    const size_t n = v->n, k = v->k, dim = v->wide + k;
    if (v->wide && n > 0) memset(linear, 0, n * sizeof *linear);
    for (size_t s = 0; s < v->f; s++)
        for (size_t e = 0; e < n; e++) {
            float *out = embedded + (e * v->f + s) * k, w = 0;
            const uint32_t begin = v->begin[s * n + e], end = v->begin[s * n + e + 1];
            for (size_t d = 0; d < k; d++) out[d] = 0;
            for (uint32_t i = begin; i < end; i++) {
                const float *row = rows + (size_t)v->position[i] * dim;
                if (v->wide) w += row[0];
                for (size_t d = 0; d < k; d++) out[d] += row[v->wide + d];
            }
            const float scale = end > begin ? scale_of(v->pooling[s], end - begin) : 0;
            for (size_t d = 0; d < k && end - begin > 1; d++) out[d] *= scale;
            if (v->wide) linear[e] += v->linear_scale * (end - begin > 1 ? w * scale : w);
        }
}
static void pool_backward(struct pn_ctx *c, const struct pn_pool_view *v, const struct pn_inverse *inverse, const float *linear_gradient, const float *embedded_gradient,
                          float *row_gradients) {
    (void)c, (void)inverse;
    const size_t n = v->n, k = v->k, dim = v->wide + k;
    for (size_t s = 0; s < v->f; s++)
        for (size_t e = 0; e < n; e++) {
            const float *g = embedded_gradient + (e * v->f + s) * k;
            const uint32_t begin = v->begin[s * n + e], end = v->begin[s * n + e + 1];
            const float scale = end > begin ? scale_of(v->pooling[s], end - begin) : 0;
            for (uint32_t i = begin; i < end; i++) {
                float *row = row_gradients + (size_t)v->position[i] * dim;
                if (v->wide) row[0] += scale * v->linear_scale * linear_gradient[e];
                for (size_t d = 0; d < k; d++) row[v->wide + d] += scale * g[d];
            }
        }
}

/* ---- blocks.h ---- */
static void fm_forward(struct pn_ctx *c, const float *x, size_t n, size_t f, size_t k, float *sums, float *out) { (void)c; pn_fm_forward(x, n, f, k, sums, out); }
static void fm_backward(struct pn_ctx *c, const float *x, const float *sums, const float *g, size_t n, size_t f, size_t k, float *dx) {
    (void)c;
    pn_fm_backward(x, sums, g, n, f, k, dx);
}
static void linear_forward(struct pn_ctx *c, const float *in, size_t n, size_t from, size_t width, const float *w, const float *b, bool relu, float *out) {
    (void)c;
    pn_linear_forward(in, n, from, width, w, b, relu, out);
}
static void linear_backward(struct pn_ctx *c, const float *in, const float *out, size_t n, size_t from, size_t width, const float *w, bool relu, float *g, float *dw, float *db,
                            float *din) {
    (void)c;
    pn_linear_backward(in, out, n, from, width, w, relu, g, dw, db, din, true);
}
static void cross_forward(struct pn_ctx *c, const float *x0, const float *x, size_t n, size_t width, const float *w, const float *b, float *product, float *out) {
    (void)c;
    pn_cross_forward(x0, x, n, width, w, b, product, out);
}
static void cross_backward(struct pn_ctx *c, const float *x0, const float *x, const float *product, const float *g, size_t n, size_t width, const float *w, float *scratch,
                           float *dw, float *db, float *dx0, float *dx) {
    (void)c;
    pn_cross_backward(x0, x, product, g, n, width, w, scratch, dw, db, dx0, dx);
}
static void dot_forward(struct pn_ctx *c, const float *v, size_t n, size_t m, size_t k, float *out) { (void)c; pn_dot_forward(v, n, m, k, out); }
static void dot_backward(struct pn_ctx *c, const float *v, const float *g, size_t n, size_t m, size_t k, float *dv) { (void)c; pn_dot_backward(v, g, n, m, k, dv); }
static void norm_forward(struct pn_ctx *c, const float *in, size_t n, size_t width, const float *scale, const float *shift, bool relu, float *inverse, float *normal, float *out) {
    (void)c;
    pn_norm_forward(in, n, width, scale, shift, relu, inverse, normal, out);
}
static void norm_backward(struct pn_ctx *c, const float *out, const float *inverse, const float *normal, size_t n, size_t width, const float *scale, bool relu, float *g,
                          float *dscale, float *dshift, float *din) {
    (void)c;
    pn_norm_backward(out, inverse, normal, n, width, scale, relu, g, dscale, dshift, din);
}
static void batch_norm_forward(struct pn_ctx *c, const float *in, size_t n, size_t width, const float *scale, const float *shift, const float *running, bool training, bool relu,
                               float *own, float *normal, float *out) {
    (void)c;
    pn_batch_norm_forward(in, n, width, scale, shift, running, training, relu, own, normal, out);
}
static void batch_norm_backward(struct pn_ctx *c, const float *out, const float *own, const float *normal, size_t n, size_t width, const float *scale, const float *running,
                                bool relu, float *g, float *dscale, float *dshift, float *drunning, float *din) {
    (void)c;
    pn_batch_norm_backward(out, own, normal, n, width, scale, running, relu, g, dscale, dshift, drunning, din, true);
}
static void attention_forward(struct pn_ctx *c, const float *qkv, const uint32_t *begin, size_t n, size_t width, size_t heads, size_t most, bool causal, float *kept, float *out) {
    (void)c;
    pn_attention_forward(qkv, begin, n, width, heads, most, causal, kept, out);
}
static void attention_backward(struct pn_ctx *c, const float *qkv, const float *kept, const float *out, const float *g, const uint32_t *begin, size_t n, size_t width, size_t heads,
                               size_t most, bool causal, float *scratch, float *dqkv) {
    (void)c, (void)out;
    pn_attention_backward(qkv, kept, g, begin, n, width, heads, most, causal, scratch, dqkv);
}
static void dropout(struct pn_ctx *c, const float *in, size_t n, float rate, const uint64_t *seed, uint64_t salt, const uint32_t *first, size_t width, bool add,
                    float *out) {
    (void)c;
    pn_dropout(in, n, *first * width, rate, pn_mix64(*seed + 0x1000 * salt), add, out);
}

/* ---- small ones: as layers.c ---- */
static void copy(struct pn_ctx *c, const float *in, size_t in_step, size_t n, size_t width, bool add, float *out, size_t out_step) {
    (void)c;
    for (size_t r = 0; r < n; r++)
        for (size_t d = 0; d < width; d++) out[r * out_step + d] = add ? out[r * out_step + d] + in[r * in_step + d] : in[r * in_step + d];
}
static void scale(struct pn_ctx *c, const float *factor, size_t n, float *x) {
    (void)c;
    for (size_t i = 0; i < n; i++) x[i] *= *factor;
}
static void fill(struct pn_ctx *c, const float *value, size_t n, float *out) {
    (void)c;
    for (size_t i = 0; i < n; i++) out[i] = *value;
}
static void column_sums(struct pn_ctx *c, const float *g, size_t n, size_t width, float *out) {
    (void)c;
    for (size_t e = 0; e < n; e++)
        for (size_t d = 0; d < width; d++) out[d] += g[e * width + d];
}
static void weight_forward(struct pn_ctx *c, const float *in, size_t n, size_t from, const float *w, float *out) {
    (void)c;
    for (size_t e = 0; e < n; e++) {
        float z = 0;
        for (size_t d = 0; d < from; d++) z += in[e * from + d] * w[d];
        out[e] = z;
    }
}
static void weight_backward(struct pn_ctx *c, const float *in, const float *g, size_t n, size_t from, const float *w, float *dw, float *din) {
    (void)c;
    for (size_t e = 0; e < n; e++)
        for (size_t d = 0; d < from; d++) {
            dw[d] += g[e] * in[e * from + d];
            din[e * from + d] += g[e] * w[d];
        }
}
static void product_forward(struct pn_ctx *c, const float *in, size_t n, size_t width, float *out) {
    (void)c;
    for (size_t e = 0; e < n; e++)
        for (size_t d = 0; d < width; d++) out[e * width + d] = in[e * 2 * width + d] * in[e * 2 * width + width + d];
}
static void product_backward(struct pn_ctx *c, const float *in, const float *g, size_t n, size_t width, float *din) {
    (void)c;
    for (size_t e = 0; e < n; e++)
        for (size_t d = 0; d < width; d++) {
            const float *u = in + e * 2 * width;
            float *du = din + e * 2 * width;
            du[d] += g[e * width + d] * u[width + d];
            du[width + d] += g[e * width + d] * u[d];
        }
}

/* ---- sequences: as sequence.c ---- */
static void tokens_forward(struct pn_ctx *c, const float *rows, const uint32_t *row, size_t n_tokens, bool wide, size_t k, float gain, float *out) {
    (void)c;
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t d = 0; d < k; d++) out[t * k + d] = row[t] == UINT32_MAX ? 0 : gain * rows[(size_t)row[t] * (wide + k) + wide + d];
}
static void tokens_backward(struct pn_ctx *c, const struct pn_inverse *v, bool wide, size_t k, float gain, const float *g, float *row_gradients) {
    (void)c;
    for (uint32_t i = 0; i < v->counts[0]; i++)
        for (uint32_t at = v->chunk_begin[i]; at < v->chunk_begin[i + 1]; at++)
            for (size_t d = 0; d < k; d++) row_gradients[(size_t)v->chunk_row[i] * (wide + k) + wide + d] += gain * g[(size_t)v->order[at] * k + d];
}
static void candidate_forward(struct pn_ctx *c, const float *x, const uint32_t *example, size_t n_tokens, size_t from, size_t at, size_t k, float *out) {
    (void)c;
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t d = 0; d < k; d++) out[t * k + d] = x[example[t] * from + at * k + d];
}
static void candidate_backward(struct pn_ctx *c, const float *g, const uint32_t *begin, size_t n, size_t from, size_t at, size_t k, float *dx) {
    (void)c;
    for (size_t e = 0; e < n; e++)
        for (size_t t = begin[e] - begin[0]; t < begin[e + 1] - begin[0]; t++)
            for (size_t d = 0; d < k; d++) dx[e * from + at * k + d] += g[t * k + d];
}
static void positions_forward(struct pn_ctx *c, const float *x, const uint32_t *left, size_t n_tokens, size_t width, const float *p, float *out) {
    (void)c;
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t d = 0; d < width; d++) out[t * width + d] = x[t * width + d] + p[left[t] * width + d];
}
static void positions_backward(struct pn_ctx *c, const float *g, const uint32_t *begin, size_t n, size_t most, size_t n_tokens, size_t width, float *dp, float *dx) {
    (void)c, (void)most;
    for (size_t i = 0; i < n_tokens * width; i++) dx[i] += g[i];
    for (size_t e = 0, t = 0; e < n; e++)
        for (size_t left = begin[e + 1] - begin[e]; left-- > 0; t++)
            for (size_t d = 0; d < width; d++) dp[left * width + d] += g[t * width + d];
}
static void summary_forward(struct pn_ctx *c, const float *x, const uint32_t *begin, size_t n, size_t w, size_t recent, float *place, float *out) {
    (void)c;
    for (size_t e = 0; e < n; e++, out += (1 + recent) * w, place += w) {
        const size_t first = begin[e] - begin[0], m = begin[e + 1] - begin[e];
        memset(out, 0, (1 + recent) * w * sizeof *out);
        for (size_t d = 0; d < w && m > 0; d++) {
            size_t best = 0;
            for (size_t i = 1; i < m; i++)
                if (x[(first + i) * w + d] > x[(first + best) * w + d]) best = i;
            out[d] = x[(first + best) * w + d];
            place[d] = (float)best;
        }
        for (size_t r = 0; r < recent && r < m; r++) memcpy(out + (1 + r) * w, x + (first + m - 1 - r) * w, w * sizeof *out);
    }
}
static void summary_backward(struct pn_ctx *c, const float *place, const float *g, const uint32_t *begin, size_t n, size_t w, size_t recent, float *dx) {
    (void)c;
    for (size_t e = 0; e < n; e++, g += (1 + recent) * w, place += w) {
        const size_t first = begin[e] - begin[0], m = begin[e + 1] - begin[e];
        for (size_t d = 0; d < w && m > 0; d++) dx[(first + (size_t)place[d]) * w + d] += g[d];
        for (size_t r = 0; r < recent && r < m; r++)
            for (size_t d = 0; d < w; d++) dx[(first + m - 1 - r) * w + d] += g[(1 + r) * w + d];
    }
}

/* ---- losses ---- */
static void bce(struct pn_ctx *c, const float *logits, const float *labels, const float *teacher, float taught, float temperature, float weight, size_t n, float *scores,
                float *gradient, double *loss) {
    (void)c;
    *loss = (double)weight * (teacher != NULL ? pn_bce_taught(logits, labels, teacher, taught, temperature, n, scores, gradient) : pn_bce(logits, labels, n, scores, gradient));
    for (size_t e = 0; e < n && gradient != NULL && weight != 1; e++) gradient[e] *= weight;
}
static void group_loss(struct pn_ctx *c, enum pn_group_loss kind, const float *logits, const float *labels, const float *log_q, float parameter, size_t n, float *gradient,
                       double *loss) {
    (void)c;
    *loss = (double)n * (kind == PN_GROUP_BPR ? pn_bpr(logits, labels, n, gradient) : kind == PN_GROUP_HINGE ? pn_hinge(logits, labels, n, parameter, gradient)
                                                                                                             : pn_sampled_softmax(logits, labels, log_q, n, parameter, gradient));
}
static void in_batch_softmax(struct pn_ctx *c, const float *pairs, const uint64_t *items, const float *log_q, size_t n, size_t k, float temperature, float *scratch, float *dpairs,
                             double *loss) {
    (void)c;
    *loss = (double)n * pn_in_batch_softmax(pairs, items, log_q, n, k, temperature, scratch, dpairs);
}

/* ---- two vectors, tokens against rows ---- */
static void pair_forward(struct pn_ctx *c, const struct pn_pool_view *v, const float *rows, float *out) {
    (void)c;
    pn_pair_forward((const float *const[]){rows, rows}, (const uint32_t *const[]){v->position, v->position + v->n}, v->n, v->wide, v->k, v->linear_scale, out);
}
static void pair_backward(struct pn_ctx *c, const struct pn_pool_view *v, const struct pn_inverse *inverse, const float *rows, const float *g, float *row_gradients) {
    (void)c, (void)inverse;
    pn_pair_backward((const float *const[]){rows, rows}, (const uint32_t *const[]){v->position, v->position + v->n}, v->n, v->wide, v->k, v->linear_scale, g,
                     (float *const[]){row_gradients, row_gradients});
}
static void unit_forward(struct pn_ctx *c, const float *x, size_t n, size_t k, float *out) { (void)c; pn_unit_forward(x, n, k, k, out); }
static void unit_backward(struct pn_ctx *c, const float *x, const float *unit, const float *g, size_t n, size_t k, float *dx) { (void)c; pn_unit_backward(x, unit, g, n, k, dx); }
static void decay(struct pn_ctx *c, const float *rows, const float *share, const uint32_t *n_rows, size_t most, size_t dim, double weight, float *row_gradients, double *loss) {
    (void)c, (void)most;
    double sum = 0;
    for (uint32_t r = 0; r < *n_rows; r++) sum += pn_decay_row(rows + r * dim, dim, share[r], row_gradients + r * dim);
    *loss += weight * sum;
}
static void token_bce(struct pn_ctx *c, const struct pn_tokens_view *v, const struct pn_inverse *inverse, const float *x, const float *rows, double share, double weight, float *z,
                      float *dx, float *row_gradients, double *loss) {
    (void)c, (void)inverse, (void)z;
    *loss = weight * pn_token_bce(v, x, rows, share, dx, row_gradients);
}
static void token_softmax(struct pn_ctx *c, const struct pn_tokens_view *v, const struct pn_inverse *inverse, const float *x, const float *rows, double share, double weight, float *z,
                          float *scratch, float *dx, float *row_gradients, double *loss) {
    (void)c, (void)inverse, (void)z;
    *loss = weight * pn_token_softmax(v, x, rows, share, scratch, scratch + v->n_at * v->k, scratch + 2 * v->n_at * v->k, dx, row_gradients);
}
static void token_scores(struct pn_ctx *c, const float *x, const float *rows, const uint32_t *target, const uint32_t *begin, size_t n, size_t k, float *scores) {
    (void)c;
    pn_token_scores(x, rows, target, begin, n, k, scores);
}

/* ---- dense parameters ---- */
static void sum_squares(struct pn_ctx *c, const float *x, size_t n, double *sum) {
    (void)c;
    for (size_t i = 0; i < n; i++) *sum += (double)x[i] * (double)x[i];
}
static void clip(struct pn_ctx *c, const double *squares, float most, size_t n, float *x) {
    (void)c;
    const double norm = sqrt(*squares);
    const float scale = (float)((double)most / norm);
    for (size_t i = 0; i < n && norm > (double)most; i++) x[i] *= scale;
}
static void dense_step(struct pn_ctx *c, enum pn_dense_rule rule, float lr, float epsilon, float beta1, float beta2, uint64_t step, size_t n, const float *g, float *state, float *p) {
    (void)c;
    const float one = (float)(1 - pow((double)beta1, (double)step)), two = (float)(1 - pow((double)beta2, (double)step));
    for (size_t i = 0; i < n; i++) {
        if (rule == PN_DENSE_SGD) p[i] -= lr * g[i];
        else if (rule == PN_DENSE_ADAGRAD) {
            state[i] += g[i] * g[i];
            p[i] -= lr * g[i] / (sqrtf(state[i]) + epsilon);
        } else {
            float *m = state + i, *v = state + n + i;
            *m = beta1 * *m + (1 - beta1) * g[i];
            *v = beta2 * *v + (1 - beta2) * g[i] * g[i];
            p[i] -= lr * (*m / one) / (sqrtf(*v / two) + epsilon);
        }
    }
}
/* Norms of units: here the sum that is a unit's gradient is made, cell by cell. */
static void outer_norms(struct pn_ctx *c, const struct pn_units *units, const float *in, size_t from, bool biased, const float *g, const float *z, size_t width, double *squares) {
    (void)c;
    for (size_t u = 0; u < units->n; u++)
        for (size_t i = 0; i < from + biased; i++)
            for (size_t d = 0; d < width; d++) {
                double sum = 0;
                for (size_t t = units->begin[u]; t < units->begin[u + 1]; t++)
                    sum += (double)(i < from ? in[t * from + i] : 1) * (double)(z != NULL ? g[t * width + d] * z[t * width + d] : g[t * width + d]);
                squares[u] += sum * sum;
            }
}
static void layer_norms(struct pn_ctx *c, const struct pn_units *units, const float *normal, const float *g, size_t width, double *squares) {
    (void)c;
    for (size_t u = 0; u < units->n; u++)
        for (size_t d = 0; d < width; d++) {
            double shift = 0, scale = 0;
            for (size_t t = units->begin[u]; t < units->begin[u + 1]; t++) {
                shift += (double)g[t * width + d];
                scale += (double)g[t * width + d] * (double)normal[t * width + d];
            }
            squares[u] += shift * shift + scale * scale;
        }
}
static void position_norms(struct pn_ctx *c, const struct pn_units *units, const float *g, const uint32_t *begin, size_t most, size_t width, double *squares) {
    (void)c;
    for (size_t u = 0; u < units->n; u++)
        for (size_t left = 0; left < most; left++)
            for (size_t d = 0; d < width; d++) {
                double sum = 0;
                for (size_t e = units->begin[u]; e < units->begin[u + 1]; e++)
                    if (begin[e + 1] - begin[e] > left) sum += (double)g[(begin[e + 1] - begin[0] - 1 - left) * width + d];
                squares[u] += sum * sum;
            }
}
/* The squared norm of what a group's entries add to their row, a vector of dim floats. */
static void touch_norms(const struct pn_touches *t, size_t dim, float (*value)(const void *, uint32_t entry, size_t d), const void *of, double *squares) {
    for (size_t u = 0; u < t->n_units; u++)
        for (uint32_t i = t->unit_begin[u]; i < t->unit_begin[u + 1]; i++)
            for (size_t d = 0; d < dim; d++) {
                double sum = 0;
                for (uint32_t at = t->begin[i]; at < t->begin[i + 1]; at++) sum += (double)value(of, t->order[at], d);
                squares[u] += sum * sum;
            }
}
static float source_value(const void *of, uint32_t entry, size_t d) {
    const struct pn_row_sources *s = of;
    const struct pn_pool_view *v = &s->pool;
    const size_t pooled = v->n * v->f;
    if (entry >= pooled) {
        const size_t at = entry - pooled;
        return v->wide && d == 0 ? 0 : s->gain * s->tokens[at / s->n_tokens][at % s->n_tokens * v->k + d - v->wide];
    }
    const size_t e = entry / v->f, f = entry % v->f;
    const float scale = scale_of(v->pooling[f], v->begin[f * v->n + e + 1] - v->begin[f * v->n + e]);
    return v->wide && d == 0 ? scale * v->linear_scale * s->linear[e] : scale * s->embedded[(size_t)entry * v->k + d - v->wide];
}
static void row_norms(struct pn_ctx *c, const struct pn_touches *t, const struct pn_row_sources *sources, double *squares) {
    (void)c;
    touch_norms(t, sources->pool.wide + sources->pool.k, source_value, sources, squares);
}
struct pair_of { const struct pn_pool_view *v; const float *rows, *g; };
static float pair_value(const void *of, uint32_t entry, size_t d) {
    const struct pair_of *p = of;
    const size_t e = entry / 2, other = p->v->position[(1 - entry % 2) * p->v->n + e];
    return p->g[e] * (p->v->wide && d == 0 ? p->v->linear_scale : p->rows[other * (p->v->wide + p->v->k) + d]);
}
static void pair_norms(struct pn_ctx *c, const struct pn_touches *t, const struct pn_pool_view *v, const float *rows, const float *g, double *squares) {
    (void)c;
    touch_norms(t, v->wide + v->k, pair_value, &(struct pair_of){v, rows, g}, squares);
}
static void clip_units(struct pn_ctx *c, const double *squares, const uint32_t *unit, float most, size_t n, size_t width, float *g) {
    (void)c;
    for (size_t e = 0; e < n; e++) {
        const double norm = sqrt(squares[unit[e]]);
        const float scale = norm > (double)most ? (float)((double)most / norm) : 1;
        for (size_t d = 0; d < width; d++) g[e * width + d] = isfinite(norm) ? g[e * width + d] * scale : 0;
    }
}
static void add_noise(struct pn_ctx *c, size_t n, float sigma, uint64_t seed, float *x) {
    (void)c;
    for (size_t i = 0; i < n; i++) { /* Box-Muller over two draws of its own */
        const uint64_t a = pn_mix64(seed + 2 * i), b = pn_mix64(seed + 2 * i + 1);
        const double u = ((double)(a >> 11) + 1) * 0x1p-53, v = (double)(b >> 11) * 0x1p-53;
        x[i] += (float)((double)sigma * sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
    }
}

const struct pn_backend pn_backend_cpu = {
    .name = "cpu", .devices = devices, .open = open_, .close = close_, .alloc = alloc, .free = release, .host_alloc = alloc, .host_free = release, .upload = upload,
    .download = download, .clear = clear, .mark = mark, .after = mark, .await = await, .finish = finish, .elapsed = elapsed, .capture = capture, .captured = captured, .replay = graph,
    .graph_free = graph, .join = join, .leave = leave, .all_reduce = all_reduce, .pool_forward = pool_forward, .pool_backward = pool_backward, .fm_forward = fm_forward, .fm_backward = fm_backward, .linear_forward = linear_forward,
    .linear_backward = linear_backward, .cross_forward = cross_forward, .cross_backward = cross_backward, .dot_forward = dot_forward, .dot_backward = dot_backward,
    .norm_forward = norm_forward, .norm_backward = norm_backward, .batch_norm_forward = batch_norm_forward, .batch_norm_backward = batch_norm_backward,
    .attention_forward = attention_forward, .attention_backward = attention_backward, .dropout = dropout, .copy = copy, .fill = fill, .scale = scale, .column_sums = column_sums,
    .weight_forward = weight_forward, .weight_backward = weight_backward, .product_forward = product_forward, .product_backward = product_backward,
    .tokens_forward = tokens_forward, .tokens_backward = tokens_backward, .candidate_forward = candidate_forward, .candidate_backward = candidate_backward,
    .positions_forward = positions_forward, .positions_backward = positions_backward, .summary_forward = summary_forward, .summary_backward = summary_backward, .bce = bce,
    .group_loss = group_loss, .in_batch_softmax = in_batch_softmax, .sum_squares = sum_squares, .clip = clip, .dense_step = dense_step, .outer_norms = outer_norms,
    .layer_norms = layer_norms, .position_norms = position_norms, .row_norms = row_norms, .pair_norms = pair_norms, .clip_units = clip_units, .add_noise = add_noise, .pair_forward = pair_forward, .pair_backward = pair_backward, .unit_forward = unit_forward,
    .unit_backward = unit_backward, .decay = decay, .token_bce = token_bce, .token_softmax = token_softmax, .token_scores = token_scores, .cache = &pn_cache_cpu};
