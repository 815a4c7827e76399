#include <math.h>
#include "nn/blocks.h"

static const float tiny = 1e-12f; /* a vector of zeros stays one */

static float length_of(const float *v, size_t k) {
    float lane[8] = {0};
    for (size_t d = 0; d < k; d++) lane[d & 7] += v[d] * v[d];
    return sqrtf(((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7])) + tiny);
}

void pn_unit_forward(const float *vectors, size_t n, size_t step, size_t k, float *out) {
    for (size_t i = 0; i < n; i++) {
        const float *v = vectors + i * step, share = 1 / length_of(v, k);
        float *to = out + i * step;
        for (size_t d = 0; d < k; d++) to[d] = v[d] * share;
    }
}

/* With u = v / |v|: dv = (g - (g . u) u) / |v|. */
void pn_unit_backward(const float *vectors, const float *unit, const float *gradient, size_t n, size_t k, float *dvectors) {
    for (size_t i = 0; i < n; i++) {
        const float *u = unit + i * k, *g = gradient + i * k, share = 1 / length_of(vectors + i * k, k);
        float *dv = dvectors + i * k, along = 0;
        for (size_t d = 0; d < k; d++) along += g[d] * u[d];
        for (size_t d = 0; d < k; d++) dv[d] += share * (g[d] - along * u[d]);
    }
}
