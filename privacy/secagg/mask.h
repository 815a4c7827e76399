/* Masks: the ChaCha20 stream of a 32-byte seed read as little-endian words, added to a vector modulo 2^32 or 2^64. The stream seeks, so that a
 * server makes the part of its own segment and nothing else. Any thread. */
#ifndef PN_SECAGG_MASK_H
#define PN_SECAGG_MASK_H

#include <stddef.h>
#include <stdint.h>

#define PN_MASK_STEP_BYTES 64u /* a segment begins at a multiple of it */

struct pn_mask {
    uint8_t seed[32];
    int8_t sign; /* +1: the mask is added; -1: taken away */
};
/* words += the masks' words first..first + n (sign * stream). word_bytes 4 or 8; `first * word_bytes` a multiple of PN_MASK_STEP_BYTES. 4 MiB of
 * mask take about 2.3 ms on one core; the vector is passed through once for all masks, a block that stays in the first cache at a time. */
void pn_mask_add(void *words, unsigned word_bytes, uint64_t first, size_t n, const struct pn_mask *masks, size_t n_masks);
/* sum[i] = sum over v of vectors[v][i], modulo 2^(8 * word_bytes). */
void pn_mask_sum(void *sum, unsigned word_bytes, size_t n, const void *const *vectors, size_t n_vectors);

#endif
