#include "nn/blocks.h"

enum { LANES = 16 };

PN_MACHINES void pn_pair_forward(const float *const rows[2], const uint32_t *const position[2], size_t n, bool wide, size_t k, float linear_scale, float *out) {
    for (size_t e = 0; e < n; e++) {
        const float *u = rows[0] + (size_t)position[0][e] * (wide + k), *v = rows[1] + (size_t)position[1][e] * (wide + k);
        float lane[LANES] = {0}, sum = wide ? linear_scale * (u[0] + v[0]) : 0;
        size_t d = 0;
        u += wide;
        v += wide;
        for (; d + LANES <= k; d += LANES)
            for (size_t j = 0; j < LANES; j++) lane[j] += u[d + j] * v[d + j];
        for (; d < k; d++) lane[d % LANES] += u[d] * v[d];
        for (size_t j = 0; j < LANES; j++) sum += lane[j];
        out[e] = sum;
    }
}

PN_MACHINES void pn_pair_backward(const float *const rows[2], const uint32_t *const position[2], size_t n, bool wide, size_t k, float linear_scale, const float *gradient,
                                  float *const row_gradients[2]) {
    for (size_t e = 0; e < n; e++) {
        const size_t at = (size_t)position[0][e] * (wide + k), to = (size_t)position[1][e] * (wide + k);
        const float g = gradient[e], *restrict u = rows[0] + at + wide, *restrict v = rows[1] + to + wide;
        float *restrict du = row_gradients[0] + at + wide, *restrict dv = row_gradients[1] + to + wide;
        if (wide) {
            du[-1] += linear_scale * g;
            dv[-1] += linear_scale * g;
        }
        for (size_t d = 0; d < k; d++) {
            du[d] += g * v[d];
            dv[d] += g * u[d];
        }
    }
}
