/* Shamir's shares of a 32-byte secret over GF(256) (Shamir 1979; the field of AES, x^8 + x^4 + x^3 + x + 1), byte by byte. Points are public;
 * nothing branches on or indexes by a secret. */
#ifndef PN_SECAGG_SHAMIR_H
#define PN_SECAGG_SHAMIR_H

#include <stdint.h>

#define PN_SHARE_BYTES 32u

/* Shares for the points 1..n. `coefficients`: (t - 1) * 32 random bytes, used for this once; any t shares give the secret back, fewer say nothing. */
void pn_shamir_split(const uint8_t secret[PN_SHARE_BYTES], uint32_t t, uint32_t n, const uint8_t *coefficients, uint8_t (*shares)[PN_SHARE_BYTES]);
/* The secret from t shares at different points 1..255. */
void pn_shamir_join(uint32_t t, const uint8_t *points, const uint8_t (*shares)[PN_SHARE_BYTES], uint8_t secret[PN_SHARE_BYTES]);

#endif
