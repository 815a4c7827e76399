#include "nn/tokens.h"
#include <cblas.h>
#include <math.h>
#include <string.h>
#include "nn/blocks.h"

enum { CHUNK = 256 }; /* tokens at a time: their logits stay in the cache */

static double dot(const float *a, const float *b, size_t k) {
    double sum = 0;
    for (size_t d = 0; d < k; d++) sum += (double)a[d] * (double)b[d];
    return sum;
}
static double log_loss(double z, double y) { return (z > 0 ? z : 0) - z * y + log1p(exp(-fabs(z))); }
static float sigmoid(double z) { return (float)(1 / (1 + exp(-z))); }

static void add_pair(float g, const float *h, const float *row, float *dh, float *drow, size_t k) {
    for (size_t d = 0; d < k; d++) {
        dh[d] += g * row[d];
        drow[d] += g * h[d];
    }
}

double pn_token_bce(const struct pn_tokens_view *v, const float *x, const float *rows, double share, float *dx, float *drows) {
    const size_t k = v->k;
    double sum = 0;
    for (size_t t = 0; t < v->n_tokens; t++)
        for (uint32_t i = v->begin[t]; i < v->begin[t + 1]; i++) {
            const size_t row = v->row[i];
            const double z = dot(x + t * k, rows + row * k, k), y = i == v->begin[t];
            sum += share * log_loss(z, y);
            add_pair((float)(share * ((double)sigmoid(z) - y)), x + t * k, rows + row * k, dx + t * k, drows + row * k, k);
        }
    return sum;
}

/* Logits of one token over the shared rows to their gradients, share * (softmax - target); returns the loss. *target: the target's logit, then its gradient. */
static double softmax_row(float *z, const uint32_t *at, size_t n, uint32_t own, double share, double *target) {
    double sum;
    for (size_t j = 0; j < n; j++)
        if (at[j] == own) z[j] = -INFINITY;
    const float most = pn_greatest(z, n, (float)*target);
    sum = pn_exp_sum(z, n, most);
    const double own_share = exp(*target - (double)most), whole = sum + own_share, loss = log(whole) - (*target - (double)most);
    const float scale = (float)(share / whole);
    for (size_t j = 0; j < n; j++) z[j] *= scale;
    *target = share * (own_share / whole - 1);
    return share * loss;
}

double pn_token_softmax(const struct pn_tokens_view *v, const float *x, const float *rows, double share, float *side, float *dside, float *logits, float *dx, float *drows) {
    const size_t k = v->k, n = v->n_at;
    double loss = 0;
    for (size_t j = 0; j < n; j++) memcpy(side + j * k, rows + (size_t)v->at[j] * k, k * sizeof *side);
    memset(dside, 0, n * k * sizeof *dside);
    for (size_t first = 0; first < v->n_tokens; first += CHUNK) {
        const size_t m = v->n_tokens - first < CHUNK ? v->n_tokens - first : CHUNK;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m, (int)n, (int)k, 1, x + first * k, (int)k, side, (int)k, 0, logits, (int)n);
        for (size_t i = 0; i < m; i++) {
            const size_t t = first + i;
            if (v->target[t] == UINT32_MAX) {
                memset(logits + i * n, 0, n * sizeof *logits);
                continue;
            }
            const float *row = rows + (size_t)v->target[t] * k;
            double z = dot(x + t * k, row, k);
            loss += softmax_row(logits + i * n, v->at, n, v->target[t], share, &z);
            add_pair((float)z, x + t * k, row, dx + t * k, drows + (size_t)v->target[t] * k, k);
        }
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m, (int)k, (int)n, 1, logits, (int)n, side, (int)k, 1, dx + first * k, (int)k);
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)n, (int)k, (int)m, 1, logits, (int)n, x + first * k, (int)k, 1, dside, (int)k);
    }
    for (size_t j = 0; j < n; j++)
        for (size_t d = 0; d < k; d++) drows[(size_t)v->at[j] * k + d] += dside[j * k + d];
    return loss;
}

void pn_token_scores(const float *x, const float *rows, const uint32_t *target, const uint32_t *begin, size_t n, size_t k, float *scores) {
    for (size_t e = 0; e < n; e++) {
        const size_t last = begin[e + 1] - begin[0];
        const bool there = begin[e + 1] > begin[e] && target[last - 1] != UINT32_MAX;
        scores[e] = there ? sigmoid(dot(x + (last - 1) * k, rows + (size_t)target[last - 1] * k, k)) : 0.5f;
    }
}
