#include <stdint.h>
#include <string.h>
#include "nn/blocks.h"

/* exp by its reduction to [-ln 2 / 2, ln 2 / 2] and a polynomial (coefficients of Moshier's Cephes, expf): relative error below 2e-7, and no branch, so that the
 * loop around it becomes vectors. Below -87 it is 0. */
static inline float exp_of(float x) {
    const float floor_x = x < -87.0f ? -87.0f : x;
    const float n = (floor_x * 1.44269504f + 12582912.0f) - 12582912.0f; /* to the nearest whole number: 1.5 * 2^23 has no room for more */
    const float r = (floor_x - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    const uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return x < -87.0f ? 0 : p * power;
}

PN_MACHINES double pn_exp_sum(float *z, size_t n, float most) {
    enum { LANES = 16, BLOCK = 1024 };
    double sum = 0;
    for (size_t at = 0; at < n; at += BLOCK) { /* lanes of float are summed as doubles before they lose digits */
        const size_t m = n - at < BLOCK ? n - at : BLOCK;
        float lane[LANES] = {0}, *restrict x = z + at;
        for (size_t i = 0; i < m; i++) x[i] = exp_of(x[i] - most);
        size_t i = 0;
        for (; i + LANES <= m; i += LANES)
            for (size_t j = 0; j < LANES; j++) lane[j] += x[i + j];
        for (; i < m; i++) lane[i % LANES] += x[i];
        for (size_t j = 0; j < LANES; j++) sum += (double)lane[j];
    }
    return sum;
}

PN_MACHINES float pn_greatest(const float *z, size_t n, float least) {
    enum { LANES = 16 };
    float lane[LANES];
    for (size_t j = 0; j < LANES; j++) lane[j] = least;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) lane[j] = z[i + j] > lane[j] ? z[i + j] : lane[j];
    for (; i < n; i++) lane[0] = z[i] > lane[0] ? z[i] : lane[0];
    for (size_t j = 1; j < LANES; j++) lane[0] = lane[j] > lane[0] ? lane[j] : lane[0];
    return lane[0];
}
