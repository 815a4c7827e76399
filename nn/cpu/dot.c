#include "nn/blocks.h"

void pn_dot_forward(const float *vectors, size_t n, size_t m, size_t k, float *out) {
    for (size_t e = 0; e < n; e++) {
        const float *v = vectors + e * m * k;
        for (size_t j = 1; j < m; j++)
            for (size_t i = 0; i < j; i++) {
                float sum = 0;
                for (size_t d = 0; d < k; d++) sum += v[i * k + d] * v[j * k + d];
                *out++ = sum;
            }
    }
}

PN_MACHINES void pn_dot_backward(const float *vectors, const float *g, size_t n, size_t m, size_t k, float *dvectors) {
    for (size_t e = 0; e < n; e++) {
        const float *v = vectors + e * m * k;
        float *dv = dvectors + e * m * k;
        for (size_t j = 1; j < m; j++)
            for (size_t i = 0; i < j; i++, g++)
                for (size_t d = 0; d < k; d++) {
                    dv[i * k + d] += *g * v[j * k + d];
                    dv[j * k + d] += *g * v[i * k + d];
                }
    }
}
