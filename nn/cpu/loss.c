#include <math.h>
#include "common/hash.h"
#include "nn/blocks.h"
#include "nn/cpu/exp.h"

/* In lanes, without a branch. With u = exp(-|z|) the loss is max(z, 0) - z y + log(1 + u), never the log of a rounded 0; the logs' sum is the log of a product, taken once for a few hundred factors
 * between 1 and 2. p - y as p (1 - y) - (1 - p) y keeps its digits where p is all but y. */
PN_MACHINES double pn_bce(const float *restrict logits, const float *restrict labels, size_t n, float *restrict scores, float *restrict gradient) {
    enum { LANES = 8, BLOCK = 4096 }; /* 512 factors a lane at the most: 2^512 is far from what a double holds */
    const float share = 1 / (float)n;
    double sum = 0;
    for (size_t at = 0; at < n; at += BLOCK) {
        const size_t m = n - at < BLOCK ? n - at : BLOCK;
        double lane[LANES] = {0}, factor[LANES];
        for (size_t j = 0; j < LANES; j++) factor[j] = 1;
        for (size_t i = 0; i < m; i += LANES) {
            float z[LANES] = {0}, y[LANES] = {0}, u[LANES], p[LANES], q[LANES];
            const size_t k = m - i < LANES ? m - i : LANES;
            for (size_t j = 0; j < k; j++) {
                z[j] = logits[at + i + j];
                y[j] = labels[at + i + j];
            }
            for (size_t j = 0; j < LANES; j++) {
                u[j] = pn_exp(-fabsf(z[j]));
                const float high = 1 / (1 + u[j]), low = u[j] * high;
                p[j] = z[j] > 0 ? high : low;
                q[j] = z[j] > 0 ? low : high;
            }
            for (size_t j = 0; j < k; j++) {
                scores[at + i + j] = p[j];
                if (gradient != NULL) gradient[at + i + j] = (p[j] * (1 - y[j]) - q[j] * y[j]) * share;
                lane[j] += (double)(z[j] > 0 ? z[j] : 0) - (double)z[j] * (double)y[j];
                factor[j] *= 1 + (double)u[j];
            }
        }
        for (size_t j = 0; j < LANES; j++) sum += lane[j] + log(factor[j]);
    }
    return sum;
}

static double log_loss(double z, double y) { return (z > 0 ? z : 0) - z * y + log1p(exp(-fabs(z))); }

double pn_bce_taught(const float *logits, const float *labels, const float *teacher, float weight, float temperature, size_t n, float *scores, float *gradient) {
    const double t = (double)temperature;
    double sum = 0;
    for (size_t e = 0; e < n; e++) {
        const double z = (double)logits[e], y = (double)labels[e], p = 1 / (1 + exp(-z)), w = isnan(teacher[e]) ? 0 : (double)weight;
        const double soft = w > 0 ? 1 / (1 + exp(-(double)teacher[e] / t)) : 0;
        scores[e] = (float)p;
        sum += (1 - w) * log_loss(z, y) + w * t * t * log_loss(z / t, soft);
        gradient[e] = (float)(((1 - w) * (p - y) + w * t * (1 / (1 + exp(-z / t)) - soft)) / (double)n);
    }
    return sum;
}

PN_MACHINES void pn_dropout(const float *in, size_t n, size_t first, float rate, uint64_t seed, bool add, float *out) {
    const float scale = 1.0f / (1.0f - rate);
    const size_t lead = first % 4; /* of the first draw's decisions: another part's */
    const uint64_t limit = (uint64_t)((double)rate * 65536.0);
    enum { BLOCK = 256 }; /* masks first, then one loop without branches */
    float mask[BLOCK + 4];
    for (size_t at = 0; at < n; at += BLOCK) {
        const size_t m = n - at < BLOCK ? n - at : BLOCK;
        for (size_t i = 0; i < BLOCK + 4; i += 4) { /* four decisions of 16 bits a draw */
            const uint64_t r = pn_mix64(seed + first - lead + at + i);
            for (size_t j = 0; j < 4; j++) mask[i + j] = (r >> (16 * j) & 0xffff) < limit ? 0 : scale;
        }
        const float *restrict x = in + at;
        float *restrict y = out + at;
        if (add)
            for (size_t i = 0; i < m; i++) y[i] += x[i] * mask[lead + i];
        else
            for (size_t i = 0; i < m; i++) y[i] = x[i] * mask[lead + i];
    }
}
