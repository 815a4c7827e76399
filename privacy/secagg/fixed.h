/* Fixed point: what is summed are integers, so that masks cancel exactly. Any thread. */
#ifndef PN_SECAGG_FIXED_H
#define PN_SECAGG_FIXED_H

#include <stddef.h>
#include <stdint.h>
#include "common/result.h"

struct pn_fixed {
    double range;        /* values are clipped to [-range, range] */
    double scale;        /* an integer step is 1 / scale */
    double noise_sd;     /* of each worker's discrete noise, in steps; 0: none */
    unsigned word_bytes; /* 4 or 8: the sum is modulo 2^32 or 2^64 */
};
/* The bit budget: n * range * scale, and 12 standard deviations of the noise of n, must lie below 2^(bits - 1). PN_REFUSED names the largest scale. */
enum pn_result pn_fixed_check(const struct pn_fixed *, uint32_t n, struct pn_error *);
/* words[i] = values[i] clipped, times scale, rounded up or down so that the mean is right (`draws`: n random words; randombytes_buf_deterministic under a fresh key is ten times as quick as randombytes_buf). *n_clipped: how many were outside.
 * PN_INVALID: a value is no number; it is named, and words must not be used. */
enum pn_result pn_fixed_encode(const struct pn_fixed *, const double *values, size_t n, const uint32_t *draws, void *words, size_t *n_clipped, struct pn_error *);
/* values[i] = the sum's word i as a signed integer, divided by scale. */
void pn_fixed_decode(const struct pn_fixed *, const void *words, size_t n, double *values);

#endif
