#include "privacy/secagg/shamir.h"
#include <string.h>

/* v *= x for 32 bytes: x is public, so that branching on its bits tells nothing. */
static void scale(uint8_t v[PN_SHARE_BYTES], uint8_t x) {
    uint8_t power[PN_SHARE_BYTES], sum[PN_SHARE_BYTES] = {0};
    memcpy(power, v, sizeof power);
    for (; x != 0; x = (uint8_t)(x >> 1)) {
        if (x & 1)
            for (unsigned i = 0; i < PN_SHARE_BYTES; i++) sum[i] ^= power[i];
        for (unsigned i = 0; i < PN_SHARE_BYTES; i++) power[i] = (uint8_t)((unsigned)power[i] << 1 ^ (0x1bu & -(unsigned)(power[i] >> 7)));
    }
    memcpy(v, sum, sizeof sum);
}

static uint8_t multiply(uint8_t a, uint8_t b) { /* of public numbers */
    uint8_t sum = 0;
    for (; b != 0; b = (uint8_t)(b >> 1)) {
        if (b & 1) sum ^= a;
        a = (uint8_t)((unsigned)a << 1 ^ (a & 0x80 ? 0x1bu : 0u));
    }
    return sum;
}

static uint8_t inverse(uint8_t a) { /* a^254 */
    uint8_t r = 1;
    for (int i = 0; i < 7; i++) {
        a = multiply(a, a);
        r = multiply(r, a);
    }
    return r;
}

void pn_shamir_split(const uint8_t secret[PN_SHARE_BYTES], uint32_t t, uint32_t n, const uint8_t *coefficients, uint8_t (*shares)[PN_SHARE_BYTES]) {
    for (uint32_t point = 1; point <= n; point++) {
        uint8_t *v = shares[point - 1];
        memset(v, 0, PN_SHARE_BYTES);
        for (uint32_t c = t - 1; c-- > 0;) { /* Horner */
            for (unsigned i = 0; i < PN_SHARE_BYTES; i++) v[i] ^= coefficients[c * PN_SHARE_BYTES + i];
            scale(v, (uint8_t)point);
        }
        for (unsigned i = 0; i < PN_SHARE_BYTES; i++) v[i] ^= secret[i];
    }
}

void pn_shamir_join(uint32_t t, const uint8_t *points, const uint8_t (*shares)[PN_SHARE_BYTES], uint8_t secret[PN_SHARE_BYTES]) {
    memset(secret, 0, PN_SHARE_BYTES);
    for (uint32_t i = 0; i < t; i++) { /* Lagrange at 0: product of x_j / (x_j - x_i), where minus is xor */
        uint8_t above = 1, below = 1, v[PN_SHARE_BYTES];
        for (uint32_t j = 0; j < t; j++) {
            if (j == i) continue;
            above = multiply(above, points[j]);
            below = multiply(below, points[j] ^ points[i]);
        }
        memcpy(v, shares[i], sizeof v);
        scale(v, multiply(above, inverse(below)));
        for (unsigned b = 0; b < PN_SHARE_BYTES; b++) secret[b] ^= v[b];
    }
}
