#ifndef PN_NN_CPU_EXP_H
#define PN_NN_CPU_EXP_H
#include <stdint.h>
#include <string.h>

/* exp by its reduction to [-ln 2 / 2, ln 2 / 2] and a polynomial (coefficients of Moshier's Cephes, expf): relative error below 2e-7, and no branch, so that the
 * loop around it becomes vectors. Below -87 it is 0. */
static inline float pn_exp(float x) {
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

#endif
