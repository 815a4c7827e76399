#include <string.h>
#include "nn/blocks.h"

PN_MACHINES void pn_fm_forward(const float *embedded, size_t n, size_t f, size_t k, float *sums, float *out) {
    memset(sums, 0, n * k * sizeof *sums);
    for (size_t e = 0; e < n; e++) {
        float *sum = sums + e * k, squares = 0, total = 0;
        for (size_t i = 0; i < f; i++) {
            const float *v = embedded + (e * f + i) * k;
            for (size_t d = 0; d < k; d++) {
                sum[d] += v[d];
                squares += v[d] * v[d];
            }
        }
        for (size_t d = 0; d < k; d++) total += sum[d] * sum[d];
        out[e] = 0.5f * (total - squares);
    }
}

PN_MACHINES void pn_fm_backward(const float *embedded, const float *sums, const float *gradient, size_t n, size_t f, size_t k, float *embedded_gradient) {
    for (size_t e = 0; e < n; e++)
        for (size_t i = 0; i < f; i++) {
            const float *restrict v = embedded + (e * f + i) * k, *restrict sum = sums + e * k;
            float *restrict g = embedded_gradient + (e * f + i) * k;
            for (size_t d = 0; d < k; d++) g[d] += gradient[e] * (sum[d] - v[d]);
        }
}
