#include <cblas.h>
#include <math.h>
#include <string.h>
#include "nn/blocks.h"

/* Each row of scores (m * m, rows `stride` apart) to its softmax. */
static void softmax(float *scores, size_t m, size_t stride, bool causal) {
    for (size_t i = 0; i < m; i++, scores += stride) {
        const size_t seen = causal ? i + 1 : m;
        const float share = (float)(1 / pn_exp_sum(scores, seen, pn_greatest(scores, seen, -INFINITY)));
        for (size_t j = 0; j < seen; j++) scores[j] *= share;
        for (size_t j = seen; j < m; j++) scores[j] = 0;
    }
}

void pn_attention_forward(const float *qkv, const uint32_t *begin, size_t n, size_t width, size_t heads, size_t most, bool causal, float *weights, float *out) {
    const size_t d = width / heads;
    const int in = (int)(3 * width), stride = (int)(heads * most);
    for (size_t e = 0; e < n; e++) {
        const size_t at = begin[e] - begin[0];
        const int m = (int)(begin[e + 1] - begin[e]);
        for (size_t h = 0; h < heads && m > 0; h++) {
            const float *q = qkv + at * 3 * width + h * d, *k = q + width, *v = k + width;
            float *w = weights + (at * heads + h) * most;
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, m, (int)d, 1 / sqrtf((float)d), q, in, k, in, 0, w, stride);
            softmax(w, (size_t)m, heads * most, causal);
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, (int)d, m, 1, w, stride, v, in, 0, out + at * width + h * d, (int)width);
        }
    }
}

/* With W = softmax(S), G the gradient of out: dV = W' G, dW = G V', dS = W * (dW - rowsum(dW * W)), dQ = dS K / sqrt(d), dK = dS' Q / sqrt(d). */
void pn_attention_backward(const float *qkv, const float *weights, const float *g, const uint32_t *begin, size_t n, size_t width, size_t heads, size_t most, bool causal,
                           float *scratch, float *dqkv) {
    const size_t d = width / heads;
    const int in = (int)(3 * width), stride = (int)(heads * most);
    const float scale = 1 / sqrtf((float)d);
    for (size_t e = 0; e < n; e++) {
        const size_t at = begin[e] - begin[0], m = begin[e + 1] - begin[e];
        for (size_t h = 0; h < heads && m > 0; h++) {
            const float *q = qkv + at * 3 * width + h * d, *k = q + width, *v = k + width, *w = weights + (at * heads + h) * most, *go = g + at * width + h * d;
            float *dq = dqkv + at * 3 * width + h * d, *dk = dq + width, *dv = dk + width;
            const int c = (int)m;
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, c, (int)d, c, 1, w, stride, go, (int)width, 1, dv, in);
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, c, c, (int)d, 1, go, (int)width, v, in, 0, scratch, c);
            for (size_t i = 0; i < m; i++) {
                const size_t seen = causal ? i + 1 : m;
                float sum = 0;
                for (size_t j = 0; j < seen; j++) sum += scratch[i * m + j] * w[i * heads * most + j];
                for (size_t j = 0; j < m; j++) scratch[i * m + j] = j < seen ? w[i * heads * most + j] * (scratch[i * m + j] - sum) : 0;
            }
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, c, (int)d, c, scale, scratch, c, k, in, 1, dq, in);
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, c, (int)d, c, scale, scratch, c, q, in, 1, dk, in);
        }
    }
}
